r"""Reads users' files of rows: CSV, TSV and text tables, JSON Lines, JSON lists; each row with the
line it begins on.

    read(path, layout)            a whole file as a Table: its rows, how many lines it has, and
    notices of what was passed over json_lines(path, notices)     the objects of a JSON Lines file,
    one after another delimited.read(…)             the cells of a large table, row by row

One rule for all of them. A line ends at \n or \r\n and nowhere else. Byte order marks are read;
other encodings than UTF-8 are named with the option `encoding`. Half a character (a lone surrogate,
raw or as a JSON escape) becomes U+FFFD and is counted. Blank lines are passed over and counted.
Whatever cannot be read is one InputError with file, line and what to do.
"""

from __future__ import annotations

from culturepark.tables.cells import as_text, is_missing, safe_cell, safe_table
from culturepark.tables.layout import OPTIONS, SUFFIXES, TABLES, Layout, headless, kind_of, stem_of
from culturepark.tables.objects import json_lines, parse
from culturepark.tables.table import Row, Table, read

__all__ = [
    "OPTIONS",
    "SUFFIXES",
    "TABLES",
    "Layout",
    "Row",
    "Table",
    "as_text",
    "headless",
    "is_missing",
    "json_lines",
    "kind_of",
    "parse",
    "read",
    "safe_cell",
    "safe_table",
    "stem_of",
]
