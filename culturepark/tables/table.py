"""Reads a whole file of rows into a Table, whatever its format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from culturepark.tables import delimited, objects
from culturepark.tables.layout import TABLES, Layout, kind_of


class Row(NamedTuple):
    """A row's cells by column and the line it begins on (in a JSON list its place), from 1."""

    line: int
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """The rows of a file and its columns in order of first occurrence.

    `notices` counts what was skipped or replaced, by kind.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notices: Mapping[str, int]


def read(path: Path | str, layout: Layout | None = None, what: str = "rows are") -> Table:
    """Return the rows of a file; raises InputError, with file and line, for what cannot be read.

    `what` begins the error about an unknown suffix, such as "votes are".
    """
    path = Path(path).expanduser()
    notices: Counter[str] = Counter()
    columns, source = _read_rows(path, kind_of(path, what), layout or Layout(), notices)
    rows = tuple(source)
    every = dict.fromkeys([*columns, *(column for row in rows for column in row.cells)])
    return Table(
        path, tuple(every), rows, {what: count for what, count in sorted(notices.items()) if count}
    )


def _read_rows(
    path: Path, suffix: str, layout: Layout, notices: Counter[str]
) -> tuple[tuple[str, ...], Iterator[Row]]:
    if suffix in TABLES:
        cells = delimited.read_cells(path, suffix, layout, notices)
        return cells.columns, (
            Row(line, dict(zip(cells.columns, row, strict=True))) for line, row in cells.rows
        )
    return (), (
        Row(line, row) for line, row in objects.read_objects(path, suffix, layout.encoding, notices)
    )
