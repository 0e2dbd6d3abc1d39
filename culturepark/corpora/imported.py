"""A corpus read from somebody's file: the same records, splits, card and exports as a run's, and of
every row the file, line and hash that it came from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from culturepark import tables
from culturepark.corpora.build import split as split_groups
from culturepark.corpora.card import TAGS, Card, name_licence
from culturepark.corpora.formats import SPLITS
from culturepark.corpora.importers import Importer
from culturepark.corpora.shares import Row
from culturepark.errors import InputError, nearest
from culturepark.markdown import format_code, format_inline
from culturepark.records import Message, Origin, Pair, Sample, digest
from culturepark.registry import IMPORTERS
from culturepark.settings import Split
from culturepark.tables.conversations import check_row

SUITS = {"samples": ("trl", "openai"), "pairs": ("dpo",)}  # formats by default


@dataclass(frozen=True)
class FileCorpus:
    """The records of a file: samples or pairs (`holds`), in the order of its rows.

    `notices` counts what the reader skipped or replaced, by kind. `culture` is the one looked at.
    """

    path: Path
    sha256: str
    holds: str
    records: tuple[Sample | Pair, ...] = field(repr=False)
    notices: Mapping[str, int] = field(default_factory=dict)
    culture: str | None = None

    @property
    def cultures(self) -> tuple[str, ...]:
        """The cultures in it, by name, or the one looked at."""
        return (self.culture,) if self.culture else tuple(sorted({r.culture for r in self.records}))

    def only(self, culture: str) -> FileCorpus:
        """Return what there is of one culture."""
        return replace(self, culture=culture)

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield a split's samples, in the order of the file."""
        return (r for r in self._records(split) if isinstance(r, Sample))

    def pairs(self, split: str) -> Iterator[Pair]:
        """Yield a split's pairs; those of one prompt stand together, where the first one stood."""
        together: dict[object, list[Pair]] = {}
        for r in self._records(split):
            if isinstance(r, Pair):
                together.setdefault((r.system, r.history, r.prompt), []).append(r)
        return (pair for pairs in together.values() for pair in pairs)

    def shares(self, split: str) -> Iterator[Row]:
        """Yield nothing: a file of answers holds no shares."""
        return iter(())

    def explain_lacking(self, what: str) -> str:
        """Return why there is none of samples, pairs or shares."""
        suits = " or ".join(f"--to {form}" for form in SUITS[self.holds])
        return f"{self.path} holds {self.holds}, and no {what}: {suits}, for example"

    def list_crossing(self) -> list[str]:
        """Return the questions that stand in more than one split."""
        splits: dict[str, set[str]] = {}
        for record in self.records:
            splits.setdefault(record.question, set()).add(record.split)
        return sorted(question for question, where in splits.items() if len(where) > 1)

    def iterate_rejects(self) -> Iterator[dict[str, Any]]:
        """Yield nothing: a row that cannot be read is an error, and none is dropped."""
        return iter(())

    def _records(self, split: str) -> Iterator[Sample | Pair]:
        same = (r for r in self.records if r.split == split)
        return (r for r in same if self.culture in (None, r.culture))


def read_corpus(
    path: str | Path,
    *,
    importer: str | None = None,
    columns: Mapping[str, str] | None = None,
    culture: str | None = None,
    layout: tables.Layout | None = None,
    shares: Split | None = None,
    seed: int = 0,
) -> FileCorpus:
    """Read a file of rows (CSV, TSV, JSON Lines or JSON, also packed) into records.

    `importer` is a short name or `package.module:NAME`; left out, the file's columns tell.
    `columns` gives our name of a column → the file's: `{"prompt": "frage", "completion":
    "antwort"}`. `culture` is that of rows that name none. A row's group is its `question` (in
    `metadata`, or a column), else its prompt; no group stands in two splits, whose sizes are
    `shares`. InputError names file, line and mistake.
    """
    table = tables.read(path, layout)
    known = _rename_columns(table, columns or {})
    how = _find_importer(table.path, known, importer)
    sha256 = hashlib.sha256(table.path.read_bytes()).hexdigest()
    rows = []
    for line, cells in table.rows:
        where = f"{table.path}:{line}"
        named = {known.get(name, name): cell for name, cell in cells.items()}
        origin = Origin(file=table.path.name, line=line, sha256=sha256)
        rows.append(_read_record(named, how, culture, where) | {"origin": origin})
    if not rows:
        raise InputError(f"{table.path}: no rows")
    splits = split_groups(list({row["question"] for row in rows}), shares or Split(), seed)
    kind: type[Sample | Pair] = Sample if how.form == "trl" else Pair
    records = tuple(kind(**row, split=splits[row["question"]]) for row in rows)
    holds = "samples" if how.form == "trl" else "pairs"
    return FileCorpus(table.path, sha256, holds, records, table.notices)


def _rename_columns(table: tables.Table, columns: Mapping[str, str]) -> dict[str, str]:
    """Return the name that each of a file's columns has with us."""
    for ours, theirs in columns.items():
        if theirs not in table.columns:
            raise InputError(
                f"{table.path}: no column {theirs!r} ({ours}={theirs})."
                f" {nearest(theirs, table.columns)}"
            )
    return {n: n for n in table.columns} | {theirs: ours for ours, theirs in columns.items()}


def _find_importer(path: Path, known: Mapping[str, str], name: str | None) -> Importer:
    """Return the importer of this name, else the first whose columns a file has."""
    names = set(known.values())
    if name is not None:
        chosen: Importer = IMPORTERS.load(name)
        return chosen
    marked = "label" in names and "chosen" not in names
    for how in IMPORTERS.values():
        if set(how.columns) <= names and not marked:
            found: Importer = how
            return found
    wanted = "; ".join(f"{name}: {', '.join(how.columns)}" for name, how in IMPORTERS.items())
    why = (
        "its rows are marked answers (label): bad ones would be learnt as good ones; keep the good"
        " ones, or write pairs of both"
        if marked
        else (
            f"its columns are {', '.join(known)}; wanted are those of {wanted}. Name yours:"
            " --columns prompt=…,completion=…"
        )
    )
    raise InputError(f"{path}: {why}")


def _read_record(
    row: Mapping[str, Any], how: Importer, culture: str | None, where: str
) -> dict[str, Any]:
    """Return the fields of one row's record, its split aside."""
    if lacking := [name for name in how.columns if name not in row]:
        raise InputError(f"{where}: no {lacking[0]!r}. {nearest(lacking[0], row)}")
    checked = check_row(how.convert(row), how.form, where)
    about = {**row, **checked["metadata"]}
    named = tables.as_text(about.get("culture") or culture or "").strip()
    if not named:
        raise InputError(
            f"{where}: whose answer is this? It has no culture; name one with --culture"
        )
    system, history, prompt = _part_prompt(checked["prompt"], row, where)
    answers = ("completion",) if how.form == "trl" else ("chosen", "rejected")
    texts = {name: checked[name][0]["content"] for name in answers}
    spoken = [(m.role, m.content) for m in history]
    fields = {"system": system, "prompt": prompt, "history": history, "culture": named, **texts}
    return (
        fields
        | ({} if how.form == "trl" else {"kind": "given"})
        | {
            "id": digest(named, system, spoken, prompt, *texts.values()),
            "question": str(about.get("question") or digest(system, spoken, prompt)),
            "topic": str(about.get("topic") or ""),
        }
    )


def _part_prompt(
    messages: list[dict[str, str]], row: Mapping[str, Any], where: str
) -> tuple[str, tuple[Message, ...], str]:
    """Return the system's message, what was said before, and the question."""
    first = messages[0]["role"] == "system"
    system = messages[0]["content"] if first else str(row.get("system") or "")
    said = messages[1:] if first else messages
    if not said or said[-1]["role"] != "user" or any(m["role"] == "system" for m in said):
        raise InputError(
            f"{where}: prompt: at most one system message, first, and at last one of the user's"
        )
    history = tuple(Message(m["role"], m["content"]) for m in said[:-1])  # type: ignore[arg-type]
    return system, history, said[-1]["content"]


def describe_corpus(corpus: FileCorpus, name: str, licence: str | None) -> Card:
    """Return what is said of a file's corpus in whatever format."""
    splits = Counter[str](record.split for record in corpus.records)
    by_culture = Counter(record.culture for record in corpus.records)
    noticed = [f"- {format_inline(what)}: {count}" for what, count in corpus.notices.items()]
    cultures = [f"| {format_inline(culture)} | {n} |" for culture, n in sorted(by_culture.items())]
    given = (
        f"given away under {format_code(licence)}" if licence else "of no licence that was named"
    )
    text = f"""{len(corpus.records)} {corpus.holds} read from {format_code(corpus.path.name)} (SHA-256 {corpus.sha256}) by CulturePark; the text is not ours.
Each row names the line that it came from. No question stands in two splits: {", ".join(f"{s} {splits[s]}" for s in SPLITS)}.

## Licence

This corpus is {given}. What may be done with it is said by whoever made the file.

## Read and dropped

Every row was read; a row that cannot be is an error.{" What was skipped or replaced on the way:" if noticed else " Nothing was skipped or replaced."}

{chr(10).join([*noticed, ""])}
| culture | rows |
|---|---|
{chr(10).join(cultures)}
"""  # noqa: E501
    tags = tuple(tag for tag in TAGS if tag != "synthetic")
    return Card(name, len(corpus.records), name_licence(licence), text, language=(), tags=tags)
