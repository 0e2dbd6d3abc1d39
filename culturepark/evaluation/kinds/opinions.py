"""Survey alignment on files of the shape of GlobalOpinionQA: each country's shares over the options
of each question.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from culturepark import tables
from culturepark.errors import InputError, NotFound
from culturepark.evaluation import alignment
from culturepark.evaluation.card import resolve_options
from culturepark.evaluation.kind import BenchmarkKind
from culturepark.evaluation.kinds.survey import AskedQuestion, Voice, build_items
from culturepark.evaluation.measure import Measure
from culturepark.evaluation.types import Attempt, Benchmark, Item, Setup
from culturepark.records import Culture, Option, Question, digest, stream
from culturepark.surveys.names import NAMES, with_article

SLACK = 0.02  # shares of rounded percentages may miss 1 by so much and are then made to sum to 1

# Names of such files on the left, ours on the right.
TWINS = {
    "S. Korea": "South Korea",
    "S. Africa": "South Africa",
    "Britain": "Great Britain",
    "Czech Rep.": "Czechia",
    "Taiwan ROC": "Taiwan",
    "Hong Kong SAR": "Hong Kong",
    "Macau SAR": "Macau",
    "Palest. ter.": "Palestinian territories",
    "Bosnia Herzegovina": "Bosnia and Herzegovina",
}
SAMPLE = re.compile(r"\s*\((?P<which>[^()]*\bsample)\)$", re.IGNORECASE)

# Options that are no answers. "Hard to say" is one where it was read out, and stays.
EMPTY = re.compile(
    r"^(?:don.?t know\b|dk\b|don.?t -\d|no answer\b|refused?\b|(?:other )?missing\b|not"
    r" (?:available|applicable)\b|inap\b|"
    r"never heard of|can.?t rate|haven.?t heard enough|i do not know examples)",
    re.IGNORECASE,
)
TOTAL = re.compile(r"^total\s+n\s*=", re.IGNORECASE)  # a column of a table, no option
UNREAD = re.compile(r"\s*\((?:vol\.?|volunteered|do not read|spontaneous)\)", re.IGNORECASE)
PERSON = re.compile(
    r"\b(?:President|Prime Minister|Chancellor|King|Prince|Pope|Secretary(?:[ -]General| of"
    r" State)?|Minister|Senator|"
    r"General|leader|candidate)\s+[A-Z][\w’'-]+"
)
NAMED = "names a person"
PLACE = re.compile(r"\(survey country\)('s|’s)?", re.IGNORECASE)


@dataclass(frozen=True)
class Poll:
    """What one country answered to one question; `valid` is the share of its people who gave any of
    the options.
    """

    country: str
    question: Question
    shares: tuple[float, ...]
    valid: float


@dataclass(frozen=True)
class Polls:
    """The polls of files, and how often each fault was met."""

    rows: tuple[Poll, ...]
    faults: Mapping[str, int]

    def of(self, country: str) -> dict[str, Poll]:
        """Return a country's polls by question id; NotFound names the nearest country."""
        found = {p.question.id: p for p in self.rows if p.country == country}
        if not found:
            raise NotFound("country", country, "the opinion files", {p.country for p in self.rows})
        return found


# ------------------------------------------------------------------ reading


def read_polls(
    paths: Iterable[Path], national: bool = True, layout: tables.Layout | None = None
) -> Polls:
    """Read files of {country, question, options, distribution}, or of {question, selections,
    options} as the data set's hub has it.

    JSON, JSONL or a table, as `layout` says. Twin spellings of a country are one country.
    `national` leaves out samples that stand for a part of one; else they count as countries of
    their own. Rows whose shares miss 1 by more than 0.02, or that have fewer than two answers, are
    left out; what is no answer ("don't know", "refused") is dropped and the rest made to sum to 1.
    All of it is counted in `faults`. InputError, with file and row, for what has another shape.
    """
    faults: Counter[str] = Counter()
    made: dict[tuple[str, str], Poll] = {}
    for path in paths:
        table = tables.read(path, layout, "opinions are")
        faults.update(table.notices)
        for where, row in _read_rows(table):
            for country, distribution in _list_countries(row, where):
                poll = _read_poll(
                    country,
                    str(row["question"]),
                    _read_list(row["options"], where),
                    distribution,
                    where,
                    national,
                    faults,
                )
                if poll is None:
                    continue
                if made.setdefault((poll.country, poll.question.id), poll) is not poll:
                    faults["a country's second row of a question, left out"] += 1
    if not made:
        raise InputError(f"no usable row in {', '.join(map(str, paths)) or 'no file'}")
    return Polls(tuple(made.values()), {what: n for what, n in sorted(faults.items()) if n})


def _read_rows(table: tables.Table) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each row of a file and where it stands."""
    for line, row in table.rows:
        where = f"{table.path}, row {line}"
        if not {"question", "options"} <= set(row) or not {"distribution", "selections"} & set(row):
            raise InputError(
                f"{where}: no row of {{country, question, options, distribution}} or {{question,"
                " selections, options}; found"
                f" {', '.join(map(str, row))}.{tables.suggest_columns(table.path)}"
            )
        if not isinstance(row["question"], str) or not row["question"].strip():
            raise InputError(f"{where}: question: a text, not {row['question']!r:.60}")
        yield where, row


def _list_countries(row: Mapping[str, Any], where: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield country and distribution; several where a row has them all."""
    if "selections" not in row:
        yield str(row.get("country", "")), _read_list(row["distribution"], where)
        return
    found = row["selections"]
    if isinstance(found, str):  # "defaultdict(<class 'list'>, {…})"
        found = _read_literal(found[found.find("{") : found.rfind("}") + 1], where)
    if not isinstance(found, dict):
        raise InputError(f"{where}: selections: no mapping of countries to shares")
    for country, distribution in found.items():
        yield str(country), _read_list(distribution, where)


def _read_list(found: Any, where: str) -> list[Any]:
    if isinstance(found, str):
        found = _read_literal(found, where)
    if not isinstance(found, (list, tuple)):
        raise InputError(f"{where}: a list was expected, found {str(found)[:60]!r}")
    return list(found)


def _read_literal(text: str, where: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise InputError(f"{where}: cannot be read as a list or mapping: {text[:60]!r}") from error


def _read_poll(
    country: str,
    text: str,
    options: list[Any],
    shares: list[Any],
    where: str,
    national: bool,
    faults: Counter[str],
) -> Poll | None:
    """Return a row's poll; None, counted, where it is to be left out."""
    name = name_country(country)
    if (found := SAMPLE.search(name)) is not None:
        faults[f"{found['which'].lower()}, {'left out' if national else 'apart'}"] += 1
        if national:
            return None
    elif name != country:
        faults["another name of a country"] += 1
    if len(options) != len(shares) or not all(
        isinstance(s, (int, float)) and isfinite(s) and 0 <= s <= 1 for s in shares
    ):
        raise InputError(
            f"{where}: {len(options)} options need as many shares from 0 to 1, found"
            f" {str(shares)[:60]}"
        )
    total = sum(shares)
    if abs(total - 1) > SLACK:
        faults["shares do not sum to 1, left out"] += 1
        return None
    faults["shares sum to nearly 1, made to"] += abs(total - 1) > 1e-6
    return _build_poll(name, text, [_read_option(o) for o in options], shares, faults)


def _build_poll(
    name: str, text: str, options: Sequence[str], shares: Sequence[float], faults: Counter[str]
) -> Poll | None:
    """Keep what is an answer, and make a poll of it."""
    rows = [(o, s) for o, s in zip(options, shares, strict=True) if not TOTAL.match(o)]
    kept = [(UNREAD.sub("", o).strip(), s) for o, s in rows if not EMPTY.match(o)]
    faults["a total among the options, dropped"] += len(rows) < len(options)
    faults["options that are no answers, dropped"] += len(kept) < len(rows)
    labels, found, all_ = [o for o, _ in kept], sum(s for _, s in kept), sum(s for _, s in rows)
    if len(labels) < 2 or not found:
        faults["fewer than two answers, left out"] += 1
        return None
    if len({o.casefold() for o in labels}) < len(labels):
        faults["options repeat, left out"] += 1
        return None
    return Poll(
        name, _build_question(text, labels), tuple(s / found for _, s in kept), found / all_
    )


def _read_option(option: Any) -> str:
    """Return an option as text; a number that a spreadsheet wrote as 2.0 is 2."""
    text = tables.as_text(option)
    return text[:-2] if re.fullmatch(r"\d+\.0", text) else " ".join(text.split())


def _build_question(text: str, labels: Sequence[str]) -> Question:
    """Return a question of a file; its options are numbered as they number themselves, else from
    1.
    """
    numbers = [
        int(found[1]) if (found := re.match(r"(\d+)(?:\s|$)", label)) else None for label in labels
    ]
    starts = {n - i for i, n in enumerate(numbers) if n is not None}
    own = len(starts) == 1 and min(starts) >= 0 and sum(n is not None for n in numbers) > 1
    first = starts.pop() if own else 1
    if own:
        labels = [
            re.sub(r"^\d+\s*", "", label) if n is not None else label
            for label, n in zip(labels, numbers, strict=True)
        ]
    options = tuple(Option(code=first + i, label=label) for i, label in enumerate(labels))
    name = f"G-{digest(text, labels)}"
    return Question(id=name, topic="opinions", about="an opinion", text=text, options=options)


def name_country(country: str) -> str:
    """Return our name of a country; a sample that does not stand for the whole country keeps its
    mark.

    >>> name_country("S. Korea"), name_country("India (Current national sample)")
    ('South Korea', 'India')
    >>> name_country("S. Africa (Non-national sample)")
    'South Africa (Non-national sample)'
    """
    found = SAMPLE.search(country)
    bare = country[: found.start()] if found else country
    whole = not found or not found["which"].lower().startswith("non-national")
    return TWINS.get(bare, bare) + ("" if whole or not found else f" ({found['which']})")


# ------------------------------------------------------------------- asking


def plan(benchmark: Benchmark, setup: Setup) -> Iterator[Item]:
    """Yield every question of a file to every country that answered it, and, where `unprompted`, to
    nobody in particular.

    Countries are those of `countries`, else those that the cultures are surveyed through. Under a
    limit, questions that more of them answered come first. InputError without a file; NotFound for
    a country that is in none.
    """
    options = resolve_options(benchmark, setup.options)
    if not setup.data:
        raise InputError(
            f"benchmark {benchmark.name!r} needs a file of countries' shares of each answer; none"
            " is shipped"
        )
    polls = read_polls(setup.data, options["national"], tables.Layout.from_options(options))
    homes = _list_homes(setup)
    by_country = {c: polls.of(c) for c in options["countries"] or homes}
    known = Counter(q for found in by_country.values() for q in found)
    order = sorted(known, key=lambda q: (-known[q], stream("limit", "opinions", q).random()))
    seen = {}
    for country, found in by_country.items():
        for name in [q for q in order if q in found][: setup.limit]:
            seen[name] = found[name].question
            asked = _build_asked(
                country, homes.get(country, ""), found[name], len(found), polls.faults
            )
            yield from build_items(benchmark, setup, asked)
    for name in seen if options["unprompted"] else ():
        question = _name_place(seen[name], "your country")
        asked = AskedQuestion("", question, [Voice("nobody")], subset=_find_subset(question))
        yield from build_items(benchmark, setup, asked)


def _list_homes(setup: Setup) -> dict[str, str]:
    """Return the countries through which the cultures are surveyed, each with its culture;
    InputError for a culture without one.
    """
    return {
        NAMES.get(code, code): c.name
        for c in map(setup.workspace.culture, setup.cultures)
        for code in _require_survey(c)
    }


def _require_survey(culture: Culture) -> Sequence[str]:
    if not culture.survey:
        raise InputError(
            f"culture {culture.name!r} names no country under survey; name countries instead, or"
            " leave it out"
        )
    return culture.survey


def _build_asked(
    country: str, home: str, poll: Poll, of: int, faults: Mapping[str, int]
) -> AskedQuestion:
    bare = SAMPLE.sub("", country)
    spoken = with_article(bare)
    facts = {
        "countries": [country],
        "home": home,
        "of": of,
        "valid": round(poll.valid, 6),
        "faults": dict(faults),
    }
    question = _name_place(poll.question, spoken)
    return AskedQuestion(
        country,
        question,
        [Voice("people", country=spoken)],
        poll.shares,
        _find_subset(question),
        facts,
    )


def _name_place(question: Question, place: str) -> Question:
    """Return a question in which "(survey country)" is the country's name."""

    def name_it(text: str) -> str:
        made = PLACE.sub(lambda found: place + (found[1] or ""), text)
        return made[0].upper() + made[1:] if made[:1] != text[:1] else made

    options = tuple(o.model_copy(update={"label": name_it(o.label)}) for o in question.options)
    return question.model_copy(update={"text": name_it(question.text), "options": options})


def _find_subset(question: Question) -> str:
    """Return the subset of questions that name a person, known by a title before a name."""
    return NAMED if PERSON.search(question.text) else ""


def measure(attempts: Sequence[Attempt], options: Mapping[str, Any]) -> Sequence[Measure]:
    """Return the figures of survey alignment; options are no scale here, so variance is that of
    unordered answers.
    """
    faults: dict[str, int] = next((o.facts["faults"] for o in attempts if "faults" in o.facts), {})
    told = "; ".join(f"{what}: {n}" for what, n in faults.items())
    return alignment.measure(
        attempts, ordered=False, note=f"Rows of the files: {told or 'no fault'}"
    )


KIND = BenchmarkKind(
    plan=plan,
    measure=measure,
    axes=("orders", "wordings"),
    options={**tables.OPTIONS, "countries": (), "national": True, "unprompted": True},
)
