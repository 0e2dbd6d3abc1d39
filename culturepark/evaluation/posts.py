"""Reads labelled texts from CSV, JSON and JSON Lines files, whatever their columns are called, and counts what has no label."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

from culturepark.errors import InputError, nearest
from culturepark.records import digest

TEXTS = ("text", "data", "tweet", "comment", "post", "sentence", "content", "message", "body", "test_case")
LABELS = ("label", "label_gold", "gold_label", "gold", "labels", "class")
DELIMITERS = ",;\t|"
WHOLE = re.compile(r"[+-]?\d+\.0+")  # statistics programs write 2 as 2.0
Row = tuple[int, Mapping[str, Any]]  # its line (in JSON its place, from 1), and what it holds by column


@dataclass(frozen=True, slots=True)
class Post:
    """A labelled text. `line` is where it stands in its file, `more` what the row holds besides."""

    text: str
    label: str
    line: int
    more: Mapping[str, str]

    @property
    def mark(self) -> str:
        """The hash of the text as it is compared with others: Unicode NFKC, one case, one space between words."""
        return digest(" ".join(unicodedata.normalize("NFKC", self.text).casefold().split()))


@dataclass(frozen=True)
class Dataset:
    """The posts of a file that have both text and label, how many rows it has, and how many lack one of them."""

    name: str
    path: Path
    posts: tuple[Post, ...]
    rows: int
    unlabelled: int
    empty: int

    @cached_property
    def labels(self) -> dict[str, int]:
        """How often each label occurs, the commonest first."""
        return dict(Counter(p.label for p in self.posts).most_common())

    @cached_property
    def marks(self) -> frozenset[str]:
        """The hashes of its texts."""
        return frozenset(p.mark for p in self.posts)


def found(paths: Sequence[Path | str]) -> dict[str, Path]:
    """Return the files that are given or lie in folders that are given, by name: the stem, with its folder's where two share it.

    InputError where there is none.
    """
    files = list(dict.fromkeys(file for path in paths for file in _files(Path(path).expanduser())))
    if not files:
        raise InputError(f"which posts? Give files, or folders of them: {', '.join(READERS)}")
    stems = Counter(f.stem for f in files)
    named = [f.stem if stems[f.stem] == 1 else f"{f.resolve().parent.name}-{f.stem}" for f in files]
    twice = [name for name, count in Counter(named).items() if count > 1]
    if twice:
        raise InputError(f"several files would be called {twice[0]!r}: rename all but one")
    return dict(zip(named, files, strict=True))


def read(path: Path | str, text: str = "", label: str = "", name: str = "") -> Dataset:
    """Read the labelled posts of a file.

    `path` is a CSV file (`,`, `;`, tab or `|` between columns, text quoted where it holds one or spans lines), a JSON file (a list of
    objects, or an object that holds one such list) or JSON Lines, in UTF-8. `text` and `label` name the columns; without them they
    are found by their usual names. Rows without a text or a label are counted, not returned. InputError names file, line and what
    there is.
    """
    path = Path(path).expanduser()
    rows = list(_rows(path))
    if not rows:
        raise InputError(f"{path}: no rows")
    columns = list(dict.fromkeys(column for _, row in rows for column in row))
    text = _column(path, "text", text, columns, TEXTS)
    label = _column(path, "label", label, columns, LABELS)
    posts, empty, unlabelled = [], 0, 0
    for line, row in rows:
        said, gold = row.get(text), plain(row.get(label))
        said = said if isinstance(said, str) else plain(said)
        empty += not said.strip()
        unlabelled += bool(said.strip()) and not gold
        if said.strip() and gold:
            posts.append(Post(said, gold, line, {c: plain(v) for c, v in row.items() if c not in (text, label)}))
    return Dataset(name or path.stem, path, tuple(posts), len(rows), unlabelled, empty)


def plain(value: Any) -> str:
    """Return a cell as text without outer space; nothing and not-a-number as "", and whole numbers without decimals.

    >>> [plain(v) for v in (None, 1.0, "1.0", True, " HS ")]
    ['', '1', '1', 'true', 'HS']
    """
    if value is None or value != value:
        return ""
    said = str(value).lower() if isinstance(value, bool) else str(value).strip()
    return said.partition(".")[0] if WHOLE.fullmatch(said) else said


def grouped(texts: Mapping[str, Collection[str]], share: float) -> dict[str, tuple[str, ...]]:
    """Return, for each set of texts, the sets of its group: those that share at least `share` of the smaller one's texts, in chains."""
    groups = {name: {name} for name in texts}
    for a, b in combinations(texts, 2):
        both = len(set(texts[a]) & set(texts[b]))
        if both and both >= share * min(len(texts[a]), len(texts[b])):
            joined = groups[a] | groups[b]
            groups.update(dict.fromkeys(joined, joined))
    return {name: tuple(sorted(group)) for name, group in groups.items()}


# ------------------------------------------------------------------ files


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise InputError(f"no posts at {path}")
    if path.is_file():
        yield path
        return
    held = sorted(p for p in path.rglob("*") if p.suffix.lower() in READERS and p.is_file())
    if not held:
        raise InputError(f"{path}: no file that ends in {', '.join(READERS)}")
    yield from held


def _rows(path: Path) -> Iterator[Row]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: posts are read from files that end in {', '.join(READERS)}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return reader(path, text)


def _table(path: Path, text: str) -> Iterator[Row]:
    """Yield a CSV file's rows; the delimiter is the commonest outside quotes in its first line."""
    first = re.sub(r'"[^"]*"', "", text.partition("\n")[0])
    reader = csv.reader(StringIO(text, newline=""), delimiter=max(DELIMITERS, key=first.count), strict=True)
    columns, line = next(reader, []), reader.line_num + 1
    if twice := [c for c, count in Counter(columns).items() if count > 1]:
        raise InputError(f"{path}:1: two columns are called {twice[0]!r}")
    try:
        for cells in reader:
            if cells and len(cells) != len(columns):
                raise InputError(f"{path}:{line}: {len(cells)} columns; its first line has {len(columns)}")
            if cells:
                yield line, dict(zip(columns, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{line}: no CSV row: {error}") from error


def _lines(path: Path, text: str) -> Iterator[Row]:
    # Not splitlines: JSON strings may hold U+2028 and its like.
    for line, held in enumerate(text.split("\n"), 1):
        if held.strip():
            yield line, _object(f"{path}:{line}", _json(f"{path}:{line}", held))


def _list(path: Path, text: str) -> Iterator[Row]:
    held = _json(str(path), text)
    if isinstance(held, dict):
        lists = [value for value in held.values() if isinstance(value, list)]
        held = lists[0] if len(lists) == 1 else held
    if not isinstance(held, list):
        raise InputError(f"{path}: neither a list of objects nor an object that holds one such list")
    for place, row in enumerate(held, 1):
        yield place, _object(f"{path}: object {place}", row)


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error


def _object(where: str, row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f"{where}: {type(row).__name__} where an object with a text and a label should stand")
    return row


READERS: Mapping[str, Callable[[Path, str], Iterator[Row]]] = {
    ".csv": _table, ".tsv": _table, ".jsonl": _lines, ".ndjson": _lines, ".json": _list,
}  # fmt: skip


def _column(path: Path, what: str, named: str, columns: Sequence[str], usual: Sequence[str]) -> str:
    """Return the column that is named, else the only one with a usual name."""
    if named:
        if named not in columns:
            raise InputError(f"{path}: no column {named!r}. {nearest(named, columns)}")
        return named
    likely = [c for c in columns if c.strip().casefold() in usual]
    if len(likely) == 1:
        return likely[0]
    if likely:
        raise InputError(
            f"{path}: {' and '.join(map(repr, likely))} could both be the {what}; say which with the option `{what}`"
        )
    raise InputError(
        f"{path}: no column is called {', '.join(usual)}; say which is the {what} with the option `{what}`. {nearest(what, columns)}"
    )
