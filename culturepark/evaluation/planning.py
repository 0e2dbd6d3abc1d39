"""Settles how a benchmark is put to a model, and plans what is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from culturepark import surveys
from culturepark.errors import CardError, InputError, NotFound, nearest
from culturepark.evaluation.card import resolve_options
from culturepark.evaluation.kind import BenchmarkKind, load_kind
from culturepark.evaluation.types import ORDERS, SEEDS, WORDINGS, Benchmark, Item, Setup
from culturepark.settings import Settings
from culturepark.surveys import Figures
from culturepark.workspace import Workspace, load

METHODS = ("likelihood", "sample")


def build_setup(
    benchmark: Benchmark,
    *,
    cultures: Sequence[str] = (),
    data: Sequence[Path] = (),
    workspace: str | Path | Workspace | None = None,
    held: Mapping[str, str] | None = None,
    method: str = "sample",
    respondents: str = "people",
    count: int = 20,
    seeds: Any = (0,),
    orders: Any = (0,),
    wordings: Any = (0,),
    limit: int | None = None,
    numbers: bool = False,
    options: Mapping[str, Any] | None = None,
    survey: str | Path | None = None,
) -> tuple[Setup, Benchmark]:
    """Return a Setup and the card with its options settled; InputError for what cannot be, with the
    nearest that can.

    `survey` is a survey release of the user's own, in the place of the shipped figures; an option
    `survey` of the benchmark's goes before it. `options` are the benchmark's own, apart from the
    arguments: an option may have the name of one (`cultures`, say).
    """
    found = workspace if isinstance(workspace, Workspace) else load(workspace)
    kind = load_kind(benchmark.kind)
    _check_choice(benchmark, "method", method, METHODS)
    _check_choice(benchmark, "respondents", respondents, kind.respondents)
    _check_data(kind, data)
    if count < 1 or (limit is not None and limit < 1):
        raise InputError("count and limit are at least 1")
    told = resolve_options(benchmark, options or {})
    _check_mapped(benchmark, options or {}, found)
    path = told.get("survey") or survey
    figures = surveys.load_survey(str(path)) if kind.surveyed and path else None
    chosen = tuple(cultures)
    if kind.culture_source == "cards":
        chosen = chosen or _list_surveyed_cultures(found, figures)
        for name in chosen:
            found.culture(name)
    setup = Setup(
        workspace=found,
        cultures=chosen,
        method=method,  # type: ignore[arg-type]
        respondents=respondents,  # type: ignore[arg-type]
        count=count,
        **_read_axes(benchmark, kind, seeds, orders, wordings),
        numbers=numbers,
        held=held or {},
        data=tuple(Path(d).expanduser() for d in data),
        limit=limit,
        options=told,
        figures=figures,
    )
    return setup, benchmark.model_copy(update={"options": told})


def _check_data(kind: BenchmarkKind, data: Sequence[Path]) -> None:
    paths = [path for path in data if str(path) not in kind.data_words]
    if missing := [str(path) for path in paths if not path.expanduser().exists()]:
        raise InputError(f"no data at {', '.join(missing)}")


def _check_choice(benchmark: Benchmark, what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(
            f"benchmark {benchmark.name!r} has no {what} {value!r}. {nearest(value, known)}"
        )


def _check_mapped(benchmark: Benchmark, given: Mapping[str, Any], found: Workspace) -> None:
    """Raise NotFound where the option `cultures` maps to a name that is no culture here and that
    the card does not map to.
    """
    own = benchmark.options.get("cultures") or {}
    mapped = given.get("cultures")
    for name in map(str, mapped.values() if isinstance(mapped, Mapping) else ()):
        if name not in found.cultures and name not in own.values():
            raise NotFound(
                "culture", name, f"{found.root}/personas (the option cultures)", found.cultures
            )


def _list_surveyed_cultures(found: Workspace, figures: Figures | None) -> tuple[str, ...]:
    """Return the cultures that a survey has figures of, the contact's aside; InputError where those
    of the user's own have none.
    """
    surveyed = sorted(
        c for c, card in found.cultures.items() if card.survey and c != Settings().contact
    )
    there = tuple(
        c
        for c in surveyed
        if figures is None or set(found.cultures[c].survey) & set(figures.countries())
    )
    if figures is not None and not there:
        raise InputError(
            f"{figures.source} holds no answers from any culture's countries; there are:"
            f" {', '.join(figures.countries())}. `survey` in a culture's card names its countries:"
            f" {found.root}/personas/<culture>/culture.toml"
        )
    return there


def _read_axes(
    benchmark: Benchmark, kind: BenchmarkKind, seeds: Any, orders: Any, wordings: Any
) -> dict[str, tuple[int, ...]]:
    """Return what replicas are made of; InputError for what the kind or the card does not have."""
    axes = {
        "seeds": _read_numbers(seeds, "seeds"),
        "orders": _read_numbers(orders, "orders"),
        "wordings": _read_numbers(wordings, "wordings"),
    }
    limits = {"orders": ORDERS, "wordings": min(WORDINGS, 1 + len(benchmark.wordings))}
    for axis, limit in limits.items():
        given = axes[axis]
        if given != (0,) and axis not in kind.axes:
            raise InputError(f"benchmark {benchmark.name!r} cannot be asked in several {axis}")
        if not all(0 <= n < limit for n in given):
            raise InputError(
                f"benchmark {benchmark.name!r} has {limit} {axis}, from 0 to {limit - 1}; not"
                f" {', '.join(map(str, given))}"
            )
        if given != (0,) and max(axes["seeds"]) >= SEEDS:
            raise InputError(f"with several {axis}, seeds are below {SEEDS}")
    return axes


def _read_numbers(given: Any, what: str) -> tuple[int, ...]:
    """Return a number, numbers, or numbers with commas between them."""
    parts = given.split(",") if isinstance(given, str) else given
    try:
        numbers = tuple(
            dict.fromkeys(int(p) for p in ([parts] if isinstance(parts, int) else parts))
        )
    except ValueError:
        raise InputError(f"{what} are whole numbers, such as 0,1,2; not {given!r}") from None
    if not numbers:
        raise InputError(f"which {what}? Give one at least")
    return numbers


def plan_items(benchmark: Benchmark, setup: Setup) -> Iterator[Item]:
    """Yield what is asked; InputError where that is nothing, or two things have one id."""
    seen = set[str]()
    for item in _plan_kind(benchmark, setup):
        if item.id in seen:
            raise InputError(
                f"benchmark {benchmark.name!r} asks two things under the id {item.id!r}"
            )
        seen.add(item.id)
        _check_sendable(item)
        yield item
    if not seen:
        raise InputError(
            f"benchmark {benchmark.name!r} has nothing to"
            f" ask{' of ' + ', '.join(setup.cultures) if setup.cultures else ''}"
        )


def _plan_kind(benchmark: Benchmark, setup: Setup) -> Iterator[Item]:
    """Yield a kind's items; a mistake in a prompt of the card's own is told as the card's."""
    try:
        yield from load_kind(benchmark.kind).plan(benchmark, setup)
    except CardError as error:
        own = f"agents/{benchmark.name}-"
        raise CardError(
            (
                p.replace(own, f"benchmark {benchmark.name}: ").replace(".toml: ", ".", 1)
                if own in p
                else p
            )
            for p in error.problems
        ) from error


def _check_sendable(item: Item) -> None:
    """Raise InputError for what cannot be sent: half a character, as broken escapes in files make
    it.
    """
    try:
        for message in item.request.messages:
            message.content.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"item {item.id!r} holds what is no text: {error.object[error.start : error.end]!r}"
        ) from error
