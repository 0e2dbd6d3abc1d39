"""Shows what a figure was made of: a page a model and benchmark, where each item says what was
sent, said, read and wanted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from culturepark.evaluation import result
from culturepark.evaluation.comparison import BenchmarkTable, ComparedModel
from culturepark.evaluation.types import Attempt
from culturepark.records import digest
from culturepark.reports.curves import format_figure
from culturepark.reports.show import number, percent

Facts = dict[str, Any]
SPLIT = 5_000  # items of a page; with more, every culture has a page of its own
LONG = 600  # characters of a text that are shown unasked
NAMES = (
    "labels",
    "codes",
    "options",
)  # facts that name the options of a distribution, the first that fits
TOP = "_all"  # the anchor of a page's head; a culture's never begins so


def link_page(benchmark: str, entry: ComparedModel, culture: str = "") -> str:
    """Return where the samples of a model and culture are, from the folder of the board; those of
    all cultures are the page.

    A culture that no item names (a figure of several, say) leads to the page too.
    """
    page = _page(benchmark, entry)
    if culture not in entry.asked or not culture:
        return f"{page}#{TOP}"
    place = f"{page.removesuffix('.html')}/{anchor(culture)}.html" if _is_split(entry) else page
    return f"{place}#{anchor(culture)}"


def anchor(culture: str) -> str:
    """Return the anchor and file name of a culture: its name where that can be one, else what no
    other culture has.

    >>> anchor("arabic"), anchor("")
    ('arabic', '_none')
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}", culture):
        return culture
    return (
        f"_{re.sub(r'[^A-Za-z0-9]+', '-', culture)[:40]}-{digest(culture, size=3)}"
        if culture
        else "_none"
    )


def write(root: Path, table: BenchmarkTable, entry: ComparedModel, folder: Path) -> None:
    """Write the samples of the result in `folder` below `root`; attempts are read and written one
    by one.
    """
    path, source = root / _page(table.benchmark, entry), folder / result.OUTCOMES
    places = _find_offsets(source)
    parted = _is_split(entry)
    _render(path, table, entry, source, {} if parted else places, parted=parted)
    for culture, starts in places.items() if parted else ():
        _render(
            path.with_suffix("") / f"{anchor(culture)}.html",
            table,
            entry,
            source,
            {culture: starts},
            deep=True,
        )


def _page(benchmark: str, entry: ComparedModel) -> str:
    run, bench, model = (
        result.locate_result(Path(), "evals", name).name
        for name in (entry.run, benchmark, entry.model)
    )
    return f"samples/{run}/{bench}/{model}.html"


def _is_split(entry: ComparedModel) -> bool:
    return entry.items > SPLIT and len(entry.asked) > 1


def _find_offsets(source: Path) -> dict[str, list[int]]:
    """Return at which byte each culture's attempts begin, those without an answer first."""
    made: dict[str, list[tuple[bool, int]]] = {}
    start = 0
    with source.open("rb") as file:
        for line in file:
            one = json.loads(line)
            made.setdefault(one.get("culture", ""), []).append((one["status"] == "ok", start))
            start += len(line)
    return {
        culture: [place for _, place in sorted(found)] for culture, found in sorted(made.items())
    }


def _render(
    path: Path,
    table: BenchmarkTable,
    entry: ComparedModel,
    source: Path,
    places: dict[str, list[int]],
    *,
    parted: bool = False,
    deep: bool = False,
) -> None:
    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"num": number, "pct": percent, "figure": format_figure, "anchor": anchor}
    template = made.from_string(
        files(__package__).joinpath("samples.html.j2").read_text(encoding="utf-8")
    )
    sections = ((culture, _read_attempts(source, starts)) for culture, starts in places.items())
    facts = {
        "table": table,
        "e": entry,
        "sections": sections,
        "here": list(places),
        "top": TOP,
        "long": LONG,
        "stem": path.stem if parted else "",
        "back": "../" * (4 if deep else 3) + "leaderboard.html",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(template.generate(facts))


def _read_attempts(source: Path, starts: Sequence[int]) -> Iterator[Facts]:
    with source.open("rb") as file:
        for start in starts:
            file.seek(start)
            yield format_attempt(Attempt.model_validate_json(file.readline()))


def format_attempt(one: Attempt) -> Facts:
    """Return what a page shows of an attempt: `sent` is the last user message, `beside` the rest of
    the talk but the answer.
    """
    last = max((i for i, (role, _) in enumerate(one.talk) if role == "user"), default=None)
    final = len(one.talk) - 1 if one.talk and one.talk[-1] == ("assistant", one.said) else None
    return {
        "id": one.item,
        "status": one.status,
        "reason": one.reason,
        "subset": one.subset,
        "seed": one.seed,
        "score": one.score,
        "sent": "" if last is None else one.talk[last][1],
        "said": one.said,
        "beside": [turn for i, turn in enumerate(one.talk) if i not in (last, final)],
        "answer": _format_value(one.answer),
        "gold": _format_value(one.gold),
        "shares": _name_shares(one, one.shares),
        "people": _name_shares(one, one.gold),
    }


def _format_value(value: Any) -> str:
    return (
        ""
        if value is None
        else value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, sort_keys=True)
    )


def _name_shares(one: Attempt, found: Any) -> list[tuple[str, float]]:
    """Return a distribution with the names of its options; nothing where `found` is none over the
    options that the facts list.
    """
    if (
        not isinstance(found, list | tuple)
        or not found
        or not all(isinstance(v, float) for v in found)
    ):
        return []
    told = (one.facts.get(key) for key in NAMES)
    fits = (
        n
        for n in told
        if isinstance(n, list | tuple) and len(n) == len(found) and all(str(name) for name in n)
    )
    return [(str(name), share) for name, share in zip(next(fits, ()), found, strict=False)]
