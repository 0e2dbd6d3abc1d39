"""Renders the templates of role cards, which are untrusted, in a sandbox that shows them only card fields."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from culturepark.errors import CardError
from culturepark.records import Record

PROPERTIES = {"prompt", "id"}


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja that may read the fields of records and nothing behind them, and can't be made to fill memory."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow a record's own fields; leave the rest to Jinja's sandbox."""
        if isinstance(obj, Record):
            return attr in type(obj).model_fields or attr in PROPERTIES
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse operators on anything but small numbers: `"x" * 10**9` is no prompt."""
        if all(isinstance(v, (int, float)) and abs(v) < 1_000_000 for v in (left, right)) and operator != "**":
            return super().call_binop(context, operator, left, right)
        raise SecurityError(f"operator {operator} is for small numbers only")

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        """Refuse loudly what the sandbox hides."""
        raise SecurityError(f"a template may not read {attribute!r} of a {type(obj).__name__.lower()}")


_SANDBOX = Sandbox(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)


@lru_cache(maxsize=512)
def _compiled(source: str) -> Template:
    return _SANDBOX.from_string(source)


def render(source: str, facts: Mapping[str, Any], where: str) -> str:
    """Render a card's template with `facts`; CardError names the card's key (`where`) when it cannot be."""
    try:
        return _compiled(source).render(facts).strip()
    except (
        TemplateError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        ZeroDivisionError,
        RecursionError,
    ) as error:
        line = getattr(error, "lineno", None)
        raise CardError([f"{where}: {f'line {line}: ' if line else ''}{error}"]) from error
