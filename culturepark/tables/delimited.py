"""Reads CSV, TSV and other delimited text into cells.

Rows are compared with lines, so that no stray quote swallows lines unnoticed.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from culturepark.errors import InputError
from culturepark.tables import lines
from culturepark.tables.layout import DELIMITERS, Layout
from culturepark.tables.objects import BLANK

SAMPLE = 50  # lines from which the delimiter is detected
LARGEST = 1 << 24  # characters of one cell
HEADER = "rows that repeat the header, left out"
WITHIN = "line breaks within quoted cells"
ENOUGH = 6  # delimiters within quotes that make lines look like rows; a tab counts as three
LONG = 20  # lines of a row from which on a notice names it
# how a line of JSON begins
JSON = re.compile(r'\s*(\{\s*("([^"\\]|\\.)*"\s*:|\}?\s*$)|\[\s*([\[{]|\]?\s*$))')
SEP = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
PLAIN = "If a benchmark reads this file and quotes are plain text in it: -o quoting=none"


@dataclass
class Cells:
    """A table's columns, and its rows as (line it begins on, cells).

    `notices` grow while rows are read.
    """

    path: Path
    columns: tuple[str, ...]
    delimiter: str
    rows: Iterator[tuple[int, list[str]]] = field(repr=False)
    notices: Counter[str] = field(default_factory=Counter)


def read_cells(path: Path, suffix: str, layout: Layout, notices: Counter[str]) -> Cells:
    """Open a table; raises InputError, with file and line, here or while its rows are read."""
    delimiter, records = split_rows(path, suffix, layout, notices)
    columns, whose = layout.columns, "the option columns names"
    if not columns:
        line, header = next(records, (1, []))
        columns, whose = _name_columns(path, line, header), "its first line has"
        records = without_header(records, header, notices)
    rows = _check_widths(path, records, columns, whose, delimiter)
    return Cells(path, columns, delimiter, rows, notices)


def split_rows(
    path: Path, suffix: str, layout: Layout, notices: Counter[str]
) -> tuple[str, Iterator[tuple[int, list[str]]]]:
    """Return the delimiter, and line and cells of every row, header included, of any width."""
    source = lines.read_lines(path, layout.encoding, notices)
    head = list(islice(source, SAMPLE))
    if head and "\r" in head[0][1].rstrip("\r\n") and not head[0][1].endswith("\n"):
        raise InputError(
            f"{path}: its lines end in a carriage return alone; save it with line ends \\n or"
            " \\r\\n"
        )
    first = next((text for _, text in head if text.strip()), "")
    if not layout.columns and JSON.match(first):
        raise InputError(
            f"{path}: this seems to be JSON, not a table; name it .json, or .jsonl where each line"
            " is an object"
        )
    delimiter = layout.delimiter or _find_delimiter(head, suffix, layout)
    if head and (excel_hint := SEP.fullmatch(head[0][1].strip())):  # Excel's own first line
        head, delimiter = head[1:], layout.delimiter or excel_hint[1]
    return delimiter, _parse_rows(path, _Feed(chain(head, source)), delimiter, layout, notices)


# ----------------------------------------------------------------- columns


def _name_columns(path: Path, line: int, header: Sequence[str]) -> tuple[str, ...]:
    """Return a header's names; an empty one is named by its place."""
    names = [cell.strip() or f"column {n}" for n, cell in enumerate(header, 1)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{path}:{line}: two columns are called {twice[0]!r}")
    return tuple(names)


def without_header(
    records: Iterator[tuple[int, list[str]]], header: Sequence[str], notices: Counter[str]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that do not repeat the header, as joined files do; `notices` counts those."""
    names = _strip_cells(header)
    for line, cells in records:
        if any(names) and _strip_cells(cells) == names:
            notices[HEADER] += 1
        else:
            yield line, cells


def _strip_cells(cells: Sequence[str]) -> list[str]:
    return [cell.strip("\ufeff").strip() for cell in cells]


def _check_widths(
    path: Path,
    records: Iterator[tuple[int, list[str]]],
    columns: Sequence[str],
    whose: str,
    delimiter: str,
) -> Iterator[tuple[int, list[str]]]:
    """Yield rows; raises InputError for one with more or fewer cells than columns, and for
    a header line where an option gives the columns.
    """
    for n, (line, cells) in enumerate(records):
        if len(cells) != len(columns):
            raise InputError(
                f"{path}:{line}: {len(cells)} columns; {whose} {len(columns)}. Columns are"
                f" separated by {delimiter!r} here; -o delimiter= and -o quoting=none|minimal say"
                " otherwise"
            )
        repeats = [c.strip() for c in cells] == list(columns)
        if n == 0 and repeats and whose.startswith("the option"):
            raise InputError(
                f"{path}:{line}: this line names the columns already; leave the option columns out"
            )
        yield line, cells


def _find_delimiter(head: Sequence[tuple[int, str]], suffix: str, layout: Layout) -> str:
    """Return the delimiter: a tab in a TSV that has one, else the most frequent in the first line,
    outside quotes.

    If columns are named, it is the one that splits most of the first lines into that many cells.
    """
    bare = [
        text if layout.quoting == "none" else re.sub(r'"[^"]*"', "", text)
        for _, text in head
        if text.strip()
    ]
    first = bare[0] if bare else ""
    order = "\t,;|" if suffix in (".tsv", ".txt") else DELIMITERS
    if layout.columns:
        return max(
            order,
            key=lambda mark: sum(text.count(mark) == len(layout.columns) - 1 for text in bare),
        )
    if suffix == ".tsv" and "\t" in first:
        return "\t"
    return max(order, key=first.count)


# -------------------------------------------------------------------- rows


class _Feed:
    """Passes lines to the csv module and keeps those of the row that is being read."""

    def __init__(self, source: Iterator[tuple[int, str]]) -> None:
        self._source = source
        self.first = 0
        self.row: list[str] = []

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        number, text = next(self._source)
        self.first = self.first if self.row else number
        self.row.append(text)
        return text


def _parse_rows(
    path: Path, feed: _Feed, delimiter: str, layout: Layout, notices: Counter[str]
) -> Iterator[tuple[int, list[str]]]:
    """Yield each row's first line and cells; `notices` counts blank lines and line breaks within
    quotes.
    """
    csv.field_size_limit(LARGEST)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if layout.quoting == "none" else csv.QUOTE_MINIMAL
    reader = csv.reader(feed, delimiter=delimiter, quoting=quoting, strict=True)
    width, longest = 0, (0, 0)
    while True:
        feed.row = []
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _explain_error(path, feed, delimiter, error) from error
        if cells is None:
            if longest[0] >= LONG:
                notices[f"lines of the longest row, which begins on line {longest[1]}"] = longest[0]
            return
        if len(feed.row) == 1 and not feed.row[0].replace(delimiter, "x").strip():
            notices[BLANK] += 1
            continue
        if len(feed.row) > 1:
            _check_span(path, feed, cells, width or len(cells), delimiter, layout)
            notices[WITHIN] += len(feed.row) - 1
            longest = max(longest, (len(feed.row), feed.first), key=lambda row: row[0])
        width = width or len(cells)
        yield feed.first, cells


def _check_span(
    path: Path, feed: _Feed, cells: Sequence[str], width: int, delimiter: str, layout: Layout
) -> None:
    """Raise InputError for a row of several lines if most look like rows, unless an option denies
    it.

    The sign is delimiters within quotes: tabs, or marks without the space that follows one in a
    sentence.
    """
    if layout.quoting == "minimal":
        return
    alike = sum(text.count(delimiter) == width - 1 for text in feed.row)
    within = "\n".join(cell for cell in cells if "\n" in cell)
    tells = (
        3 * within.count("\t")
        if delimiter == "\t"
        else len(re.findall(rf"{re.escape(delimiter)}(?! )", within))
    )
    if tells >= ENOUGH and alike >= 0.8 * len(feed.row):
        first, last = _find_span(feed.row, delimiter)
        raise lines.Unreadable(
            f"{path}:{feed.first + first}: a quote opens here and closes on line"
            f" {feed.first + last}, and {alike} of the {len(feed.row)} lines in this row look like"
            " rows of their own",
            f"{PLAIN}. If the cell does span these lines: -o quoting=minimal",
        )


def _find_span(row: Sequence[str], delimiter: str) -> tuple[int, int]:
    """Return the lines of a row in which its longest quoted cell opens and closes (the last line if
    it never closes).
    """
    inside, before, start = False, delimiter, 0
    best = (0, 0)
    for n, text in enumerate(row):
        for character in text:
            if character == '"' and inside:
                inside = False
                best = max(best, (start, n), key=lambda span: span[1] - span[0])
            elif character == '"' and before in (delimiter, "\n", '"'):
                inside, start = True, start if before == '"' else n
            before = character
    return (start, len(row) - 1) if inside else best


def _explain_error(path: Path, feed: _Feed, delimiter: str, error: csv.Error) -> InputError:
    """Return the error for a row that the csv module cannot read, in plain words."""
    message = str(error)
    if "unexpected end" in message or "field limit" in message or "field larger" in message:
        first, _ = _find_span(feed.row, delimiter)
        swallowed = len(feed.row) - first - 1
        why = (
            "never closes"
            if "unexpected end" in message
            else f"holds more than {LARGEST:,} characters"
        )
        place = "a quote opens here and" if '"' in "".join(feed.row) else "a cell"
        return lines.Unreadable(
            f"{path}:{feed.first + first}: no CSV row: {place} {why};"
            f" {swallowed} more lines are in it",
            PLAIN,
        )
    if "expected after" in message:
        return lines.Unreadable(
            f"{path}:{feed.first}: no CSV row: text follows a closing quote; a quote within quotes"
            " is written twice",
            PLAIN,
        )
    if "new-line" in message:
        return InputError(
            f"{path}:{feed.first}: no CSV row: a carriage return stands in a cell without quotes;"
            " lines end in \\n or \\r\\n"
        )
    return InputError(f"{path}:{feed.first}: no CSV row: {message}")
