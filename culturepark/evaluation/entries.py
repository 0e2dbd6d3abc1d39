"""Reads a benchmark's own questions, from its card or from a file, and checks every row before
anything is asked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from culturepark import tables
from culturepark.errors import InputError, nearest
from culturepark.evaluation import importers
from culturepark.evaluation.types import Benchmark, Setup
from culturepark.records import Option, Record, stream

FIELDS = ("id", "question", "reference", "options", "culture", "topic")
CHOICE = ("option", "label")  # parsers that read one of the options


class ShownQuestion(Record):
    """A question as templates see it: `{{ question }}` is its text, `{{ question.prompt }}` the
    same with numbered options.
    """

    text: str
    options: tuple[Option, ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def prompt(self) -> str:
        """The question with every option."""
        return "\n".join((self.text, *map(str, self.options)))


@dataclass(frozen=True)
class QuestionRow:
    """One row of a benchmark's items, read and checked.

    `reference` holds good answers as the parser gives answers: an option's code or label where
    there are options. `more` holds the columns of options.more. `of` counts what it was drawn from,
    where it was drawn; `read` what its file's rows lacked, and what its reader passed over, by
    file.
    """

    id: str
    question: ShownQuestion
    reference: tuple[Any, ...]
    culture: str
    topic: str
    more: Mapping[str, Any]
    of: int | None = None
    read: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def read_questions(benchmark: Benchmark, setup: Setup, referred: bool) -> list[QuestionRow]:
    """Return the questions of the cultures that are asked about, at most `limit` a culture.

    They are those of the files given, else of the card, else of the file that the card names.
    `referred`: each needs a reference. Rows of a file that have no question, or lack the reference
    that is needed, are left out and counted, unless all of them are. InputError names file, row,
    and what there is.
    """
    sources = _read_sources(benchmark, setup)
    seen: dict[tuple[str, str], str] = {}
    kept, read = list[QuestionRow](), dict[str, Mapping[str, int]]()
    for path, rows, notices in sources:
        left: Counter[str] = Counter()
        for where, name, row in rows:
            if path and (lacking := _find_missing(row, benchmark, referred)):
                left[f"rows without a {lacking}, left out"] += 1
                continue
            entry = _read_row(where, name, row, benchmark, setup, referred)
            first = seen.setdefault((entry.culture, entry.id), where)
            if first != where:
                raise InputError(f"{where}: id {entry.id!r} is taken: {first}")
            kept.append(entry)
        if path and rows and left.total() == len(rows):
            raise InputError(
                f"{path}: none of its {len(rows)} rows has what is needed: {'; '.join(left)}"
            )
        if path and (left or notices):
            read[path.name] = {**left, **notices}
    drawn = _draw_rows(_choose_rows(kept, benchmark, setup), benchmark, setup)
    return [replace(entry, read=read) for entry in drawn] if read else drawn


# -------------------------------------------------------------------- rows

PlacedRow = tuple[
    str, str, Mapping[str, Any]
]  # where a row stands, a name of its own, and what it holds


def _read_sources(
    benchmark: Benchmark, setup: Setup
) -> list[tuple[Path | None, Sequence[PlacedRow], Mapping[str, int]]]:
    """Return every file, or the card (None), with its rows and what its reader passed over."""
    files = list(setup.data)
    if not files and benchmark.item:
        return [(None, list(_read_card_items(benchmark, setup)), {})]
    if not files and not benchmark.items:
        columns = ", ".join(
            benchmark.fields.get(f, f) for f in FIELDS if f == "question" or f in benchmark.fields
        )
        raise InputError(
            f"benchmark {benchmark.name!r} has no items: write [[item]] tables, name a file (items"
            f' = "mine.jsonl"), or give one with the columns {columns} (--data FILE)'
        )
    several = len(files) > 1
    question = benchmark.fields.get("question", "question")
    return [
        _read_file(path, several, question, setup) for path in files or [_locate_items(benchmark)]
    ]


def _read_file(
    path: Path, several: bool, question: str, setup: Setup
) -> tuple[Path, Sequence[PlacedRow], Mapping[str, int]]:
    if not path.is_file():
        raise InputError(f"no items at {path}: no such file")
    try:
        table = tables.read(path, tables.Layout.from_options(setup.options), "items are")
    except InputError as error:
        if hint := importers.hint(path):
            raise InputError(f"{error}.{hint}") from error
        raise
    if (
        table.rows
        and question not in table.columns
        and (hint := importers.hint(path) or tables.suggest_columns(path))
    ):
        raise InputError(
            f"{path}: no column {question!r}. {nearest(question, table.columns)}{hint}"
        )
    if not table.rows:
        raise InputError(f"{path}: no rows.{tables.suggest_columns(path)}")
    stem = f"{tables.stem_of(path)}:" if several else ""
    rows = [
        (f"{path}: row {line}", f"{stem}{n}", row) for n, (line, row) in enumerate(table.rows, 1)
    ]
    return path, rows, table.notices


def _find_missing(row: Mapping[str, Any], benchmark: Benchmark, referred: bool) -> str:
    """Return what a row should have and has not: its column is there, and nothing stands in it."""
    needed = ("question", "reference") if referred else ("question",)
    columns = {name: benchmark.fields.get(name, name) for name in needed}
    return next(
        (name for name, column in columns.items() if column in row and _is_empty(row[column])), ""
    )


def _is_empty(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_empty, value))
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _locate_items(benchmark: Benchmark) -> Path:
    """Return the file of items beside a card; InputError for one elsewhere: what a card names is
    sent to models.
    """
    home = (benchmark.home or Path()).resolve()
    path = (home / benchmark.items).resolve()
    if not path.is_relative_to(home):
        raise InputError(
            f"benchmark {benchmark.name!r}: items = {benchmark.items!r} lies outside of the card's"
            " folder; if you want it read, give it with --data"
        )
    return path


def _read_card_items(
    benchmark: Benchmark, setup: Setup
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    known = sorted({*FIELDS, *benchmark.fields.values(), *setup.options["more"]})
    for n, row in enumerate(benchmark.item, 1):
        where = f"benchmark {benchmark.name!r}: item {n}"
        if odd := sorted(set(row) - set(known)):
            raise InputError(
                f"{where}: {odd[0]}: unknown. {nearest(odd[0], known)} Name further keys in"
                " options.more."
            )
        yield where, str(n), row


# ------------------------------------------------------------------ fields


def _read_row(
    where: str,
    name: str,
    row: Mapping[str, Any],
    benchmark: Benchmark,
    setup: Setup,
    referred: bool,
) -> QuestionRow:
    field = partial(_read_field, row, benchmark, where)
    question, own = field("question"), field("id")
    if not isinstance(question, str) or not question.strip():
        raise InputError(
            f"{where}: {benchmark.fields.get('question', 'question')}: a text, not {question!r}"
        )
    labels = _read_labels(field("options"), benchmark, where)
    asked = ShownQuestion(
        text=question.strip(),
        options=tuple(Option(code=n, label=o) for n, o in enumerate(labels, 1)),
    )
    reference = tuple(
        _read_reference(r, asked, benchmark, where)
        for r in _read_texts(field("reference"), f"{where}: reference")
    )
    if referred and not reference:
        raise InputError(
            f"{where}: no reference, and the score {benchmark.score!r} compares with one. "
            f"Say which column it is (fields.reference). {nearest('reference', row)}"
        )
    return QuestionRow(
        id=name if own in (None, "") else tables.as_text(own),
        question=asked,
        reference=reference,
        culture=_find_culture(field("culture"), setup, where),
        topic=_read_text(field("topic")),
        more={
            column: _require_column(row, column, where, "options.more")
            for column in setup.options["more"]
        },
    )


def _read_field(row: Mapping[str, Any], benchmark: Benchmark, where: str, name: str) -> Any:
    """Return what a row says of a field; None where it may be silent."""
    if name == "question" or name in benchmark.fields:
        return _require_column(row, benchmark.fields.get(name, name), where, f"fields.{name}")
    return row.get(name)


def _require_column(row: Mapping[str, Any], column: str, where: str, key: str) -> Any:
    if column not in row:
        raise InputError(f"{where}: no column {column!r} ({key}). {nearest(column, row)}")
    return row[column]


def _read_labels(given: Any, benchmark: Benchmark, where: str) -> tuple[str, ...]:
    """Return the options of a question, none of an open one; in one text, `|` stands between
    them.
    """
    labels = _read_texts(given.split("|") if isinstance(given, str) else given, f"{where}: options")
    if benchmark.parser in CHOICE and not labels:
        raise InputError(
            f"{where}: no options, and the parser {benchmark.parser!r} reads one of them"
        )
    if labels and (len(labels) < 2 or len(set(labels)) < len(labels)):
        raise InputError(f"{where}: options: two at least, each another one; not {list(labels)}")
    return labels


def _read_text(given: Any) -> str:
    """Return a cell as text, one without anything in it as ""."""
    return "" if _is_empty(given) else tables.as_text(given)


def _read_texts(given: Any, where: str) -> tuple[str, ...]:
    """Return one text or several as several, without empty ones."""
    parts = given if isinstance(given, (list, tuple)) else () if given is None else (given,)
    if not all(isinstance(p, (str, int, float)) and p == p for p in parts):
        raise InputError(f"{where}: a text or a list of texts, not {given!r}")
    return tuple(text for p in parts if (text := tables.as_text(p)))


def _read_reference(reference: str, asked: ShownQuestion, benchmark: Benchmark, where: str) -> Any:
    """Return a reference as the parser gives answers; where there are options it is the words or
    the number of one.
    """
    if not asked.options:
        return reference
    found = [o for o in asked.options if o.label == reference] or [
        o for o in asked.options if str(o.code) == reference
    ]
    if not found:
        labels = [o.label for o in asked.options]
        raise InputError(
            f"{where}: reference {reference!r} is no option. {nearest(reference, labels)}"
        )
    return found[0].code if benchmark.parser == "option" else found[0].label


def _find_culture(given: Any, setup: Setup, where: str) -> str:
    """Return the park's name for a culture: a card's, or what options.cultures maps to."""
    text, mapped, known = _read_text(given), setup.options["cultures"], setup.workspace.cultures
    if text in mapped:
        return str(mapped[text])
    if not text or text in known or text in mapped.values():
        return text
    raise InputError(
        f"{where}: culture {text!r} is none here. {nearest(text, [*known, *mapped])} "
        f'Or map it: options.cultures = {{ {json.dumps(text, ensure_ascii=False)} = "name" }}'
    )


# ------------------------------------------------------------------ choice


def _choose_rows(
    read: Sequence[QuestionRow], benchmark: Benchmark, setup: Setup
) -> list[QuestionRow]:
    """Return the entries of the cultures that are asked about, and those of none; all where no
    culture was named.
    """
    kept = [e for e in read if not setup.cultures or not e.culture or e.culture in setup.cultures]
    if read and not kept:
        asked, there = ", ".join(setup.cultures), ", ".join(sorted({e.culture for e in read}))
        raise InputError(
            f"benchmark {benchmark.name!r} has no item for {asked}; it has some for {there}"
        )
    return kept


def _draw_rows(
    read: Sequence[QuestionRow], benchmark: Benchmark, setup: Setup
) -> list[QuestionRow]:
    """Return at most `limit` entries a culture, drawn from a stream of that name, in their own
    order.
    """
    if setup.limit is None:
        return list(read)
    kept: list[int] = []
    counts = Counter(e.culture for e in read)
    for culture, count in counts.items():
        those = [i for i, e in enumerate(read) if e.culture == culture]
        kept += stream("answers", benchmark.name, culture).sample(those, min(setup.limit, count))
    return [replace(read[i], of=counts[read[i].culture]) for i in sorted(kept)]
