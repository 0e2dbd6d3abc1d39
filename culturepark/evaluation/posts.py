"""Reads labelled texts from CSV, JSON and JSON Lines files, whatever their columns are called, and
counts what has no label.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from culturepark import tables
from culturepark.errors import InputError, nearest
from culturepark.records import digest

TEXTS = (
    "text",
    "data",
    "tweet",
    "comment",
    "post",
    "sentence",
    "content",
    "message",
    "body",
    "test_case",
)
LABELS = ("label", "label_gold", "gold_label", "gold", "labels", "class")
LISTED = tuple(s for s in tables.SUFFIXES if s != ".txt")  # in folders, text files may be anything
NONE = "none"  # what a row is called in whose columns of labels nothing stands
WHOLE = re.compile(r"[+-]?\d+\.0+")  # statistics programs write 2 as 2.0


@dataclass(frozen=True, slots=True)
class Post:
    """A labelled text. `line` is where it stands in its file, `more` what the row holds besides; it
    may have several labels.
    """

    text: str
    labels: tuple[str, ...]
    line: int
    more: Mapping[str, str]

    @property
    def label(self) -> str:
        """Its labels in one text."""
        return ",".join(self.labels)

    @property
    def mark(self) -> str:
        """The hash of the text as it is compared with others: Unicode NFKC, one case, one space
        between words.
        """
        return digest(" ".join(unicodedata.normalize("NFKC", self.text).casefold().split()))


@dataclass(frozen=True)
class Dataset:
    """The posts of a file that have both text and label, how many rows it has, and how many lack
    one of them.

    `notices` counts what the reader passed over or replaced.
    """

    name: str
    path: Path
    posts: tuple[Post, ...]
    rows: int
    unlabelled: int
    empty: int
    notices: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def labels(self) -> dict[str, int]:
        """How often each label occurs, the commonest first."""
        return dict(Counter(label for p in self.posts for label in p.labels).most_common())

    @cached_property
    def marks(self) -> frozenset[str]:
        """The hashes of its texts."""
        return frozenset(p.mark for p in self.posts)


def find_files(paths: Sequence[Path | str]) -> dict[str, Path]:
    """Return the files that are given or lie in folders that are given, by name: the stem, with its
    folder's where two share it.

    InputError where there is none.
    """
    files = list(
        dict.fromkeys(file for path in paths for file in _list_files(Path(path).expanduser()))
    )
    if not files:
        raise InputError(
            f"which posts? Give files, or folders of them: {', '.join(tables.SUFFIXES)}"
        )
    stems = Counter(map(tables.stem_of, files))
    named = [
        stem if stems[stem := tables.stem_of(f)] == 1 else f"{f.resolve().parent.name}-{stem}"
        for f in files
    ]
    twice = [name for name, count in Counter(named).items() if count > 1]
    if twice:
        raise InputError(f"several files would be called {twice[0]!r}: rename all but one")
    return dict(zip(named, files, strict=True))


@dataclass(frozen=True)
class Labelling:
    """Where a file's texts and labels are: names of columns, found by their usual names where they
    are empty.

    Several columns of `label` hold votes: a row has the label of each that has `votes` at least,
    else the label "none". With a `separator`, a cell of the one column holds several labels.
    """

    text: str = ""
    label: str | Sequence[str] = ""
    separator: str = ""
    votes: float = 1.0

    def __post_init__(self) -> None:
        """Raise InputError for less than one vote, by which every row would have every label."""
        if not self.votes >= 1:
            raise InputError(f"the option votes = {self.votes}: a label needs one vote at least")


def read(
    path: Path | str,
    text: str = "",
    label: str | Sequence[str] = "",
    name: str = "",
    *,
    separator: str = "",
    votes: float = 1.0,
    layout: tables.Layout | None = None,
) -> Dataset:
    """Read the labelled posts of a file of rows: CSV, TSV, text table, JSON Lines or JSON.

    `text` and `label` name the columns, see Labelling. Rows without a text or a label are counted,
    not returned. InputError names file, line and what there is.
    """
    table = tables.read(path, layout, "posts are")
    if not table.rows:
        raise InputError(f"{table.path}: no rows.{tables.suggest_columns(table.path)}")
    how = Labelling(
        _find_column(table, "text", text, TEXTS), _labels(table, label), separator, votes
    )
    posts, empty, unlabelled = [], 0, 0
    for line, row in table.rows:
        said, gold = row.get(how.text), _choose_gold(f"{table.path}:{line}", row, how)
        said = said if isinstance(said, str) else plain(said)
        empty += not said.strip()
        unlabelled += bool(said.strip()) and not gold
        if said.strip() and gold:
            posts.append(Post(said, gold, line, _list_more(row, how)))
    name = name or tables.stem_of(table.path)
    return Dataset(
        name, table.path, tuple(posts), len(table.rows), unlabelled, empty, table.notices
    )


def _labels(table: tables.Table, label: str | Sequence[str]) -> str | Sequence[str]:
    """Return the column of labels, or several that hold votes; a text with commas names several
    where no column is called that.
    """
    names = (
        list(label)
        if not isinstance(label, str)
        else [label]
        if label in table.columns
        else label.split(",")
    )
    named = [_find_column(table, "label", name.strip(), LABELS) for name in names] or [
        _find_column(table, "label", "", LABELS)
    ]
    return named[0] if len(named) == 1 else named


def _choose_gold(where: str, row: Mapping[str, Any], how: Labelling) -> tuple[str, ...]:
    """Return a row's labels, none where it has none."""
    if not isinstance(how.label, str):
        cells = {name: plain(row.get(name)) for name in how.label}
        if not all(cells.values()):
            return ()
        return tuple(n for n, cell in cells.items() if _votes(where, n, cell) >= how.votes) or (
            NONE,
        )
    held = row.get(how.label)
    parts = (
        held
        if isinstance(held, list)
        else plain(held).split(how.separator)
        if how.separator
        else [held]
    )
    return tuple(dict.fromkeys(label for part in parts if (label := plain(part))))


def _votes(where: str, column: str, cell: str) -> float:
    """Return a cell of votes as a number, true and false as 1 and 0."""
    try:
        return float({"true": "1", "false": "0"}.get(cell.casefold(), cell))
    except ValueError:
        raise InputError(f"{where}: {column}: {cell!r} is no number of votes") from None


def _list_more(row: Mapping[str, Any], how: Labelling) -> dict[str, str]:
    taken = {how.text, *((how.label,) if isinstance(how.label, str) else how.label)}
    return {column: plain(value) for column, value in row.items() if column not in taken}


def plain(value: Any) -> str:
    """Return a cell as text without outer space; nothing and not-a-number as "", and whole numbers
    without decimals.

    >>> [plain(v) for v in (None, 1.0, "1.0", True, " HS ")]
    ['', '1', '1', 'true', 'HS']
    """
    if value is None or value != value:
        return ""
    said = tables.as_text(value)
    return said.partition(".")[0] if WHOLE.fullmatch(said) else said


def group_datasets(
    texts: Mapping[str, Collection[str]], share: float
) -> dict[str, tuple[str, ...]]:
    """Return, for each set of texts, the sets of its group: those that share at least `share` of
    the smaller one's texts, in chains.
    """
    groups = {name: {name} for name in texts}
    for a, b in combinations(texts, 2):
        both = len(set(texts[a]) & set(texts[b]))
        if both and both >= share * min(len(texts[a]), len(texts[b])):
            joined = groups[a] | groups[b]
            groups.update(dict.fromkeys(joined, joined))
    return {name: tuple(sorted(group)) for name, group in groups.items()}


# ------------------------------------------------------------------ files


def _list_files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise InputError(f"no posts at {path}")
    if path.is_file():
        yield path
        return
    held = sorted(
        p
        for p in path.rglob("*")
        if Path(p.name.removesuffix(".gz")).suffix.lower() in LISTED and p.is_file()
    )
    if not held:
        raise InputError(f"{path}: no file that ends in {', '.join(LISTED)}")
    yield from held


def _find_column(table: tables.Table, what: str, named: str, usual: Sequence[str]) -> str:
    """Return the column that is named, else the only one with a usual name."""
    path, columns = table.path, table.columns
    if named:
        if named not in columns:
            raise InputError(
                f"{path}: no column {named!r}. {nearest(named, columns)}"
                f"{tables.suggest_columns(path)}"
            )
        return named
    likely = [c for c in columns if c.strip().casefold() in usual]
    if len(likely) == 1:
        return likely[0]
    if likely:
        raise InputError(
            f"{path}: {' and '.join(map(repr, likely))} could both be the {what}; say which with"
            f" the option `{what}`"
        )
    raise InputError(
        f"{path}: no column is called {', '.join(usual)}; say which is the {what} with the option"
        f" `{what}`. {nearest(what, columns)}{tables.suggest_columns(path)}"
    )
