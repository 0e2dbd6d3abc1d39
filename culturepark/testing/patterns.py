"""Turns the templates of cards into patterns that read a rendered prompt backwards, into the facts
it was made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import meta, nodes

from culturepark.sandbox import SANDBOX

EFFORT = 200_000  # steps after which a text counts as not rendered from a template
LONGEST = 500_000  # characters of a prompt that is read at all
LISTS = {
    "norms": "norm",
    "others": "guest",
    "turns": "turn",
}  # what the elements of a prompt's lists are
Bound = Mapping[str, frozenset[int]]  # the numbers of the candidates that still fit, by kind


@dataclass(frozen=True)
class Match:
    """What a prompt was rendered from, as far as it tells.

    `bound` holds the candidates that fit, by kind; `lists` those of each element of a list; `said`
    the free texts by name; `turns` the free texts of each element of the list of turns.
    """

    bound: Bound
    lists: dict[str, list[frozenset[int]]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    turns: list[dict[str, str]] = field(default_factory=list)


# -------------------------------------------------------------------- steps


@dataclass(eq=False, slots=True)
class Step:
    """One step of a pattern; the plain one is the end."""

    next: Step | None = None


@dataclass(eq=False, slots=True)
class Literal(Step):
    """Text that stands in the card."""

    text: str = ""


@dataclass(eq=False, slots=True)
class Known(Step):
    """What one kind of card renders to, and which candidates render to it."""

    kind: str = ""
    values: tuple[tuple[str, frozenset[int]], ...] = ()


@dataclass(eq=False, slots=True)
class Free(Step):
    """Text that no card holds."""

    name: str = ""


@dataclass(eq=False, slots=True)
class Mark(Step):
    """Where an element of a list begins."""

    kind: str = ""


@dataclass(eq=False, slots=True)
class Fork(Step):
    """Several ways on: the branches of a condition, or once more round a list."""

    ways: tuple[Step, ...] = ()


Event = tuple[
    str, str, Any
]  # what was read: ("known", kind, candidates), ("free", name, text) or ("mark", kind, None)
Chain = tuple["Chain", Event] | None
State = tuple[Step, int, tuple[frozenset[int], ...], Chain]


class Pattern:
    """A template, compiled so that it can be held against what it may have rendered.

    `candidates` holds what each kind may be (`me`, `culture`, `question`, `guest`, `norm`, …).
    Whatever part of the template depends on one kind only is rendered for each of its candidates;
    so edited cards, filters and conditions are read as they are written, not as we wrote them.
    """

    def __init__(self, source: str, candidates: Mapping[str, Sequence[Any]]) -> None:
        self._candidates = candidates
        self._slots = {kind: i for i, kind in enumerate(candidates)}
        self._every = tuple(frozenset(range(len(found))) for found in candidates.values())
        scope = {kind: kind for kind in candidates if kind not in ("guest", "norm")}
        if "guest" in candidates:
            scope["other"] = "guest"
        self._start = self._sequence(SANDBOX.parse(source).body, Step(), scope)

    # ---------------------------------------------------------- compiling

    def _sequence(self, parts: Sequence[nodes.Node], after: Step, scope: Mapping[str, str]) -> Step:
        for part in reversed(parts):
            after = self._part(part, after, scope)
        return after

    def _part(self, part: nodes.Node, after: Step, scope: Mapping[str, str]) -> Step:
        if isinstance(part, nodes.Output):
            return self._sequence(part.nodes, after, scope)
        if isinstance(part, nodes.TemplateData):
            return Literal(after, part.data)
        if isinstance(part, nodes.Const):
            return Literal(after, str(part.value))
        if (known := self._known(part, after, scope)) is not None:
            return known
        if isinstance(part, nodes.CondExpr):
            ways = (
                self._part(w, after, scope) if w is not None else after
                for w in (part.expr1, part.expr2)
            )
            return Fork(None, tuple(ways))
        if isinstance(part, nodes.If):
            branches = [part.body, *(e.body for e in part.elif_), part.else_]
            return Fork(None, tuple(self._sequence(branch, after, scope) for branch in branches))
        if isinstance(part, nodes.For):
            return self._loop(part, after, scope)
        if isinstance(part, (nodes.Assign, nodes.AssignBlock, nodes.Macro)):
            return after
        return Free(after, _named(part, scope))

    def _loop(self, part: nodes.For, after: Step, scope: Mapping[str, str]) -> Step:
        kind = LISTS.get(part.iter.name, "") if isinstance(part.iter, nodes.Name) else ""
        inner = (
            {**scope, part.target.name: kind}
            if isinstance(part.target, nodes.Name)
            else dict(scope)
        )
        round_ = Fork()
        body = Mark(self._sequence(part.body, round_, inner), kind)
        round_.ways = (body, after)
        return Fork(None, (body, self._sequence(part.else_, after, scope)))

    def _known(self, part: nodes.Node, after: Step, scope: Mapping[str, str]) -> Step | None:
        """Render a part for every candidate of the one kind it depends on; None where it depends on
        more or on none.
        """
        whole = nodes.Template(
            [part if isinstance(part, nodes.Stmt) else nodes.Output([part])], lineno=1
        )
        whole.set_environment(SANDBOX)
        names = meta.find_undeclared_variables(whole)
        kind = scope.get(next(iter(names)), "") if len(names) == 1 else ""
        if kind not in self._slots:
            return None
        name, template = names.pop(), SANDBOX.from_string(whole)
        found: dict[str, set[int]] = {}
        for i, candidate in enumerate(self._candidates[kind]):
            try:
                found.setdefault(template.render({name: candidate}), set()).add(i)
            except Exception:  # noqa: S112
                continue  # a candidate that this part cannot be rendered for was not rendered
        longest = sorted(found.items(), key=lambda item: -len(item[0]))
        return Known(after, kind, tuple((text, frozenset(who)) for text, who in longest))

    # ------------------------------------------------------------ reading

    def read(self, text: str, bound: Bound | None = None) -> Match | None:
        """Return what the text was rendered from, given what is known already; None where it was
        not rendered from this.

        Work is bounded: each step is tried once at each place for each set of candidates, EFFORT
        times in all.
        """
        text, bound = text.strip(), bound or {}
        if len(text) > LONGEST:
            return None
        open_ = tuple(
            bound.get(kind, every) for kind, every in zip(self._slots, self._every, strict=True)
        )
        ahead: list[Iterator[State]] = [iter([(self._start, 0, open_, None)])]
        seen: set[tuple[int, int, tuple[frozenset[int], ...]]] = set()
        for _ in range(EFFORT):
            if not ahead:
                break
            state = next(ahead[-1], None)
            if state is None:
                ahead.pop()
                continue
            step, place, held, chain = state
            if type(step) is Step:
                if place == len(text):
                    return self._told(held, chain)
                continue
            key = (id(step), place, held)
            if key not in seen:
                seen.add(key)
                ahead.append(self._follow(text, step, place, held, chain))
        return None

    def _follow(
        self, text: str, step: Step, place: int, held: tuple[frozenset[int], ...], chain: Chain
    ) -> Iterator[State]:
        if isinstance(step, Fork):
            for way in step.ways:
                yield way, place, held, chain
            return
        after = step.next
        assert after is not None, "only the end has nothing after it"
        if isinstance(step, Literal):
            if (end := _behind(text, step.text, place)) is not None:
                yield after, end, held, chain
        elif isinstance(step, Known):
            slot = self._slots[step.kind]
            for value, who in step.values:
                if (left := held[slot] & who) and (end := _behind(text, value, place)) is not None:
                    yield (
                        after,
                        end,
                        (*held[:slot], left, *held[slot + 1 :]),
                        (chain, ("known", step.kind, left)),
                    )
        elif isinstance(step, Mark):
            if step.kind in self._slots:
                slot = self._slots[step.kind]
                held = (*held[:slot], self._every[slot], *held[slot + 1 :])
            yield after, place, held, (chain, ("mark", step.kind, None))
        elif isinstance(step, Free):
            for end in _ends(text, after, place):
                yield after, end, held, (chain, ("free", step.name, text[place:end]))

    def _told(self, held: tuple[frozenset[int], ...], chain: Chain) -> Match:
        match = Match(dict(zip(self._slots, held, strict=True)))
        events: list[Event] = []
        while chain is not None:
            chain, event = chain
            events.append(event)
        for what, name, value in reversed(events):
            if what == "mark" and name == "turn":
                match.turns.append({})
            elif what == "mark" and name:
                match.lists.setdefault(name, []).append(frozenset())
            elif what == "known" and match.lists.get(name):
                match.lists[name][-1] = value
            elif what == "free" and name.startswith("turn.") and match.turns:
                match.turns[-1][name.removeprefix("turn.")] = value
            elif what == "free" and name:
                match.said[name] = value
        return match


def _named(part: nodes.Node, scope: Mapping[str, str]) -> str:
    """Return what a free expression is called: `view`, `turn.text`; empty for anything computed."""
    if isinstance(part, nodes.Name):
        return scope.get(part.name) or part.name
    if isinstance(part, nodes.Getattr) and isinstance(part.node, nodes.Name):
        return f"{scope.get(part.node.name) or part.node.name}.{part.attr}"
    return ""


def _behind(text: str, piece: str, place: int) -> int | None:
    """Return where a piece ends that begins at `place`; a rendered prompt has lost the white space
    at its two ends.
    """
    if not place:
        piece = piece.lstrip()
    if text.startswith(piece, place):
        return place + len(piece)
    bare = piece.rstrip()
    return len(text) if len(bare) == len(text) - place and text.endswith(bare) else None


def _ends(text: str, after: Step, place: int) -> Iterator[int]:
    """Yield where free text may end, nearest first."""
    if type(after) is Step:
        yield len(text)
    elif isinstance(after, Literal) and after.text:
        at = text.find(after.text, place)
        while at >= 0:
            yield at
            at = text.find(after.text, at + 1)
        bare = after.text.rstrip()
        if bare != after.text and text.endswith(bare) and len(text) - len(bare) >= place:
            yield len(text) - len(bare)
    else:
        yield from range(place, len(text) + 1)
