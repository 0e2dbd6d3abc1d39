"""Reads a whole file of rows into a Table, whatever its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from culturepark.tables import delimited, objects
from culturepark.tables.layout import TABLES, Layout, kind_of


class Row(NamedTuple):
    """What a row holds by column, and the line it begins on; in a JSON list its place, from 1."""

    line: int
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """The rows of a file, its columns in the order in which they first occur, and how often each
    thing worth a notice was met.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notices: Mapping[str, int]


def read(path: Path | str, layout: Layout | None = None, what: str = "rows are") -> Table:
    """Read a file of rows; InputError, with file and line, for what cannot be read. `what` is read,
    for the error about its name.
    """
    path = Path(path).expanduser()
    notices: Counter[str] = Counter()
    columns, found = _rows(path, kind_of(path, what), layout or Layout(), notices)
    rows = tuple(found)
    every = dict.fromkeys([*columns, *(column for row in rows for column in row.cells)])
    return Table(
        path, tuple(every), rows, {what: count for what, count in sorted(notices.items()) if count}
    )


def _rows(
    path: Path, suffix: str, layout: Layout, notices: Counter[str]
) -> tuple[tuple[str, ...], Iterator[Row]]:
    if suffix in TABLES:
        cells = delimited.read(path, suffix, layout, notices)
        return cells.columns, (
            Row(line, dict(zip(cells.columns, row, strict=True))) for line, row in cells.rows
        )
    return (), (
        Row(line, row) for line, row in objects.read(path, suffix, layout.encoding, notices)
    )
