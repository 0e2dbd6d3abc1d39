"""Jinja for untrusted templates: card fields, a short list of tools, and an allowance of work that
no template can exceed.

Everything that costs time or memory is paid for from the allowance before it is done: loops and
macros by the size of their bodies, filters, tests, calls, operators and joined text by the size of
what goes in and comes out. What is not on the lists below cannot be used at all, so nothing that
Jinja or Python may yet offer escapes the count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import StrictUndefined, Template, nodes, pass_environment
from jinja2.exceptions import SecurityError, TemplateAssertionError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Cycler, Joiner, Namespace, missing

from culturepark.errors import nearest
from culturepark.records import Record

# units of one rendering; one is about a microsecond. A shipped prompt takes some hundreds
WORK = 200_000
UNIT = 64  # characters that are worth one unit
ELEMENT = 16  # characters that an element of a list or table counts as
LONGEST_RANGE = 10_000
LARGEST = 10**15  # numbers beyond this are no prompt's
PROPERTIES = {"prompt", "id"}  # of records, beside their fields
REFUSED = {
    "random",
    "pprint",
    "xmlattr",
    "urlize",
    "striptags",
    "attr",
}  # filters: by chance, by repr, or without a bound
GROWING = {
    "indent",
    "wordwrap",
    "center",
    "batch",
    "slice",
    "tojson",
    "ljust",
    "rjust",
    "zfill",
    "expandtabs",
    "join",
    "replace",
}
METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        """capitalize casefold center count endswith expandtabs find index isalnum isalpha isdigit islower isspace isupper
        join ljust lower lstrip partition removeprefix removesuffix replace rfind rjust rpartition rsplit rstrip split splitlines
        startswith strip swapcase title upper zfill""".split()  # noqa: E501
    ),
    dict: frozenset("get items keys values".split()),
    list: frozenset("count index".split()),
    tuple: frozenset("count index".split()),
}
WEIGHED, JOINED, CHARGED = "(weighed)", "(joined)", "(charged)"  # filters that no template can name
TAGS = (
    nodes.Extends,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Block,
    nodes.ScopedEvalContextModifier,
)


class Allowance:
    """The work that is left to one rendering, and the names that it may use."""

    __slots__ = ("left", "names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.left, self.names = WORK, tuple(names)


_ALLOWANCE: ContextVar[Allowance] = ContextVar("allowance")


@contextmanager
def allowance(names: Iterable[str] = ()) -> Iterator[None]:
    """Share one allowance among everything that is compiled and rendered inside."""
    token = _ALLOWANCE.set(Allowance(names))
    try:
        yield
    finally:
        _ALLOWANCE.reset(token)


def charge(units: int) -> None:
    """Take units off the allowance; SecurityError once nothing is left."""
    mine = _ALLOWANCE.get()
    mine.left -= units
    if mine.left < 0:
        raise SecurityError("it takes more time or memory than a prompt may")


def weigh(value: Any) -> int:
    """Return how large a value is, in characters: of text, and of lists and tables with all that is
    in them.
    """
    if type(value) is str:
        return len(value)
    if type(value) is int:
        return value.bit_length() // 8 + 1
    if isinstance(value, range):
        return ELEMENT * len(value)
    if not isinstance(value, (list, tuple, dict, Namespace)):
        return 1
    size, ahead, limit = 0, [value], _ALLOWANCE.get().left * UNIT
    while ahead:
        one = ahead.pop()
        if isinstance(one, (list, tuple)):
            ahead.extend(one)
            size += ELEMENT * len(one)
        elif isinstance(one, Namespace):
            ahead.append(object.__getattribute__(one, "_Namespace__attrs"))
        elif isinstance(one, dict):
            ahead.extend(one)
            ahead.extend(one.values())
            size += 2 * ELEMENT * len(one)
        else:
            size += len(one) if type(one) is str else 1
        if size > limit:
            charge(WORK + 1)
    return size


def charge_value(value: Any) -> Any:
    """Charge for a value's size and return it."""
    charge(1 + weigh(value) // UNIT)
    return value


def text(value: Any) -> str:
    """Return what a value says in a prompt; SecurityError for what is no text, number or list of
    them.
    """
    if type(value) is str:
        if len(value) > UNIT:
            charge(len(value) // UNIT)
        return value
    if isinstance(value, Undefined):
        return str(value)  # raises
    if value is None or isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, Record) and type(value).__str__ is not Record.__str__:
        return str(value)
    if isinstance(value, (list, tuple, dict)):
        charge_value(value)
        _only_plain(value)
        return str(value)
    if isinstance(value, Record):
        raise SecurityError(
            f"{_kind(type(value))} is no text; name one of its fields: {_list_fields(value)}"
        )
    if callable(value):
        raise SecurityError("a function is no text; put () behind it")
    raise SecurityError(f"{_kind(type(value))} is no text")


def _only_plain(value: Any) -> None:
    """Raise for what a list or table may not show: it would be a Python name, or all of a card."""
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    for one in inner:
        if isinstance(one, (list, tuple, dict)):
            _only_plain(one)
        else:
            text(one)


def _kind(value: type) -> str:
    name = {"str": "text", "int": "number", "float": "number", "dict": "table"}.get(
        value.__name__, value.__name__.lower()
    )
    return f"an {name}" if name[0] in "aeio" else f"a {name}"


def _list_fields(record: Record) -> str:
    return ", ".join(type(record).model_fields)


class Unknown(StrictUndefined):
    """What a template names and nobody gave it; the message names the nearest right name."""

    @property
    def _undefined_message(self) -> str:
        name = str(self._undefined_name)
        if self._undefined_hint:
            return str(self._undefined_hint)
        if self._undefined_obj is missing:
            return f"no name {name!r} here. {nearest(name, _ALLOWANCE.get().names)}"
        if isinstance(self._undefined_obj, Record):
            kind = type(self._undefined_obj)
            return f"{_kind(kind)} has no field {name!r}. {nearest(name, kind.model_fields)}"
        if isinstance(self._undefined_obj, Mapping):
            return f"the table has no key {name!r}. {nearest(name, map(str, self._undefined_obj))}"
        return f"{_kind(type(self._undefined_obj))} has no {name!r}"


class LimitedTemplate(Template):
    """A template each of whose renderings has an allowance of its own."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        """Render with these facts."""
        facts = dict(*args, **kwargs)
        with allowance(facts):
            return super().render(facts)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja that may read the fields of records and nothing behind them, and never does more than
    its allowance.
    """

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    template_class = LimitedTemplate

    def __init__(self) -> None:
        super().__init__(
            undefined=Unknown, trim_blocks=True, lstrip_blocks=True, autoescape=False, finalize=text
        )
        self.filters = {
            name: _build_charged_call(name, f) for name, f in FILTERS.items() if name not in REFUSED
        }
        own: dict[str, Callable[..., Any]] = {"sum": _sum, "join": _join, "string": text}
        self.filters |= {name: _build_charged_call(name, f) for name, f in own.items()}
        self.filters |= {WEIGHED: charge_value, JOINED: _join_charged, CHARGED: _charge_round}
        tests: dict[str, Any] = dict(TESTS)
        self.tests = {name: _build_charged_call(name, f) for name, f in tests.items()}
        self.globals = {
            "range": _range,
            "dict": dict,
            "namespace": Namespace,
            "cycler": Cycler,
            "joiner": Joiner,
        }

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join text once its length is paid for."""
        pieces = parts if isinstance(parts, list) else list(parts)
        charge(sum(map(len, pieces)) // UNIT)
        return "".join(pieces)

    def compile(self, *args: Any, **kwargs: Any) -> Any:
        """Compile; constants are worked out here, so this has an allowance too."""
        with allowance():
            return super().compile(*args, **kwargs)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_insert_charges(source), *args, **kwargs)

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        """Return the globals as one table: Jinja's chain of them is walked anew at each
        rendering.
        """
        return {**self.globals, **(d or {})}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow a record's own fields; leave the rest to Jinja's sandbox."""
        if isinstance(obj, Record):
            return _is_field(type(obj), attr)
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Refuse `"…".format`, whose widths have no bound."""
        if isinstance(value, (MethodType, BuiltinMethodType)) and value.__name__ in (
            "format",
            "format_map",
        ):
            raise SecurityError("a template may not use .format(); write {{ … }} in the text")
        return None

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse operators on anything but small numbers, `+` apart: `"x" * 10**9` is no prompt."""
        if all(isinstance(v, (int, float)) for v in (left, right)) and operator != "**":
            limit = LARGEST if operator in "+-" else 1_000_000
            if max(abs(left), abs(right)) < limit:
                return super().call_binop(context, operator, left, right)
        if operator == "+" and type(left) is type(right) and type(left) in (str, list, tuple):
            charge(1 + (weigh(left) + weigh(right)) // UNIT)
            return left + right
        for value in (left, right):
            if isinstance(value, Undefined):
                str(value)  # raises, with the name
        raise SecurityError(
            f"operator {operator} is for small numbers only"
            + (", lists and text" if operator == "+" else "")
        )

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a macro, a loop, one of the few functions there are, or a harmless method of text,
        lists and tables.
        """
        name = _callable_name(__obj)
        if name is None:
            raise SecurityError(f"a template may not call {_name_of(__obj)}")
        subject = (getattr(__obj, "__self__", ""),) if isinstance(__obj, BuiltinMethodType) else ()
        charge(_compute_cost(name, (*subject, *args), kwargs))
        return _charge_result(super().call(__context, __obj, *args, **kwargs))

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        """Refuse loudly what the sandbox hides."""
        raise SecurityError(f"a template may not read {attribute!r} of {_kind(type(obj))}")


# ------------------------------------------------------------------ tools


@lru_cache(maxsize=4096)
def _is_field(kind: type[Record], name: str) -> bool:
    return name in kind.model_fields or name in PROPERTIES


def _callable_name(value: Any) -> str | None:
    """Return the name under which a callable is charged; None for what may not be called."""
    if isinstance(value, (Macro, LoopContext, Joiner)) or value in (
        _range,
        dict,
        Namespace,
        Cycler,
        Joiner,
    ):
        return "call"
    if isinstance(value, MethodType) and isinstance(value.__self__, (LoopContext, Cycler)):
        return "call"
    if isinstance(value, BuiltinMethodType) and value.__name__ in METHODS.get(
        type(value.__self__), ()
    ):
        return value.__name__
    if isinstance(value, Undefined):
        value()  # raises, with the name
    return None


def _name_of(value: Any) -> str:
    return f"{getattr(value, '__name__', type(value).__name__)!r}"


def _range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > LONGEST_RANGE:
        raise SecurityError(f"a range of {len(numbers):,}; a template's may have {LONGEST_RANGE:,}")
    return numbers


def _sum(value: Iterable[Any], attribute: str | int | None = None, start: float = 0) -> Any:
    """Return the sum of numbers."""
    items = _each(value, attribute)
    if not all(isinstance(v, (int, float)) for v in (*items, start)):
        raise SecurityError("sum is for numbers only")
    return sum(items, start)


def _join(value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    """Return texts as one, with `d` between them."""
    return text(d).join(map(text, _each(value, attribute)))


def _each(value: Iterable[Any], attribute: str | int | None) -> list[Any]:
    get = make_attrgetter(SANDBOX, attribute) if attribute is not None else lambda item: item
    return [get(item) for item in value]


def _join_charged(parts: list[Any]) -> str:
    """Return texts as one: what `~` does."""
    return Sandbox.concat([text(part) for part in parts])


@pass_environment
def _charge_round(_: Any, units: int) -> bool:
    """Charge for one round of a loop or macro. Takes the environment, so that it is never worked
    out beforehand.
    """
    charge(units)
    return True


def _build_charged_call(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter or test that charges for its arguments before it runs, and for its result."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def call_charged(*args: Any, **kwargs: Any) -> Any:
        charge(_compute_cost(name, args[first:], kwargs))
        return _charge_result(function(*args, **kwargs))

    return call_charged


def _compute_cost(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return what a call costs: the size of what goes in; for what can grow, the most that can come
    out.
    """
    values = [*args, *kwargs.values()]
    size = sum(map(weigh, values))
    if (
        name == "replace"
        and not kwargs
        and len(args) > 2
        and all(isinstance(v, str) for v in args[:3])
    ):
        size += args[0].count(args[1]) * len(args[2])
    elif name == "round":
        size += UNIT * sum(abs(v) for v in values[1:] if isinstance(v, int))
    elif name == "format" and isinstance(values[0], str) and _WIDE.search(values[0]):
        raise SecurityError("format with a width of three digits or *")
    elif name in GROWING and values:
        size += (weigh(values[0]) + 1) * max((_find_factor(v) for v in values[1:]), default=0)
    return 1 + size // UNIT


_WIDE = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(?:\*|\d{3}|\d*\.(?:\*|\d{3}))")


def _find_factor(value: Any) -> int:
    return abs(value) if isinstance(value, int) else weigh(value)


def _charge_result(value: Any) -> Any:
    """Return a result with its size paid for, an iterator as the list of what it yields, marked-up
    text as text.
    """
    if hasattr(value, "__next__") and not isinstance(value, Cycler):
        items = []
        for one in value:
            charge(1)
            items.append(one)
        value = items
    elif isinstance(value, str):
        value = str(value)
    return charge_value(value)


# --------------------------------------------------------------- counting


def _insert_charges(node: Any) -> Any:
    """Return a copy of a template that charges for its loops, macros, joins, lists, slices and
    comparisons.
    """
    if isinstance(node, list):
        return [_insert_charges(one) for one in node]
    if isinstance(node, tuple):
        return tuple(_insert_charges(one) for one in node)
    if not isinstance(node, nodes.Node):
        return node
    if isinstance(node, TAGS):
        raise TemplateAssertionError(
            f"the tag {type(node).__name__.lower()} is not for prompts", node.lineno
        )
    copy = type(node)()
    for name in node.fields:
        setattr(copy, name, _insert_charges(getattr(node, name)))
    copy.lineno, copy.environment = node.lineno, node.environment
    return _charge_node(copy, node)


def _charge_node(copy: Any, node: nodes.Node) -> nodes.Node:
    if isinstance(copy, (nodes.For, nodes.Macro, nodes.CallBlock)):
        toll = _filter(nodes.Const(_count_nodes(node)), CHARGED, copy)
        copy.body = [nodes.ExprStmt(toll, lineno=copy.lineno), *copy.body]
        if isinstance(copy, nodes.For) and copy.test is not None:
            copy.test = nodes.And(toll, copy.test, lineno=copy.lineno)
    elif isinstance(copy, nodes.Concat):
        return _filter(nodes.List(copy.nodes, lineno=copy.lineno), JOINED, copy)
    elif isinstance(copy, nodes.Compare):
        copy.expr = _charge_operand(copy.expr)
        for operand in copy.ops:
            operand.expr = _charge_operand(operand.expr)
    elif (
        isinstance(copy, (nodes.List, nodes.Dict))
        or (isinstance(copy, nodes.Tuple) and copy.ctx == "load")
        or (isinstance(copy, nodes.Getitem) and isinstance(copy.arg, nodes.Slice))
    ):
        return _charge_operand(copy)
    return copy  # type: ignore[no-any-return]


def _charge_operand(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filter(node, WEIGHED, node)


def _filter(node: nodes.Expr, name: str, like: nodes.Node) -> nodes.Filter:
    return nodes.Filter(
        node, name, [], [], None, None, lineno=like.lineno, environment=like.environment
    )


def _count_nodes(node: nodes.Node) -> int:
    return 1 + sum(map(_count_nodes, node.iter_child_nodes()))


SANDBOX = Sandbox()
