r"""Reads users' files of rows: CSV, TSV and text tables, JSON Lines, JSON lists.

- `read(path, layout)`: a whole file as a Table, each row with the line it begins on, and notices.
- `json_lines(path, notices)`: the objects of a JSON Lines file, one after another.
- `delimited.read_cells(…)`: the cells of a large table, row by row.

The rules are the same for all formats. A line ends at \n or \r\n and nowhere else. Byte order
marks are read; the option `encoding` names encodings other than UTF-8. Half a character (a lone
surrogate, raw or as a JSON escape) becomes U+FFFD and is counted. Blank lines are skipped and
counted. What cannot be read raises one InputError with file, line and what to do.
"""

from __future__ import annotations

from culturepark.tables.cells import as_text, is_missing, safe_cell, safe_table
from culturepark.tables.layout import (
    OPTIONS,
    SUFFIXES,
    TABLES,
    Layout,
    kind_of,
    stem_of,
    suggest_columns,
)
from culturepark.tables.objects import json_lines, parse_json
from culturepark.tables.table import Row, Table, read

__all__ = [
    "OPTIONS",
    "SUFFIXES",
    "TABLES",
    "Layout",
    "Row",
    "Table",
    "as_text",
    "is_missing",
    "json_lines",
    "kind_of",
    "parse_json",
    "read",
    "safe_cell",
    "safe_table",
    "stem_of",
    "suggest_columns",
]
