"""Recognises cells without an answer, and cells that a spreadsheet would run as a formula."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

# What statistics programs and survey offices write where there is no answer: R, pandas, SPSS, Stata
# (., .a to .z), Eurostat (:).
MISSING = re.compile(r"|na|n/a|#n/a|<na>|nan|null|#null!|none|:|\.[a-z]?", re.IGNORECASE)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def is_missing(cell: str) -> bool:
    """Return whether a survey's cell holds no answer.

    >>> [is_missing(c) for c in (" ", "NA", ".a", ":", "#NULL!", "0", "-1")]
    [True, True, True, True, True, False, False]
    """
    return MISSING.fullmatch(cell.strip()) is not None


def as_text(value: Any) -> str:
    """Return a value as text without outer space; true and false as JSON writes them.

    >>> [as_text(v) for v in (True, 1.5, " tea ")]
    ['true', '1.5', 'tea']
    """
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def safe_cell(value: Any) -> str:
    """Return a value as a CSV cell that no spreadsheet runs: formulas get an apostrophe in front.

    >>> [safe_cell(v) for v in ("=1+1", "@x", -0.5, "plain")]
    ["'=1+1", "'@x", '-0.5', 'plain']
    """
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) and not NUMBER.fullmatch(text) else text


def safe_table(data: bytes) -> bytes:
    """Return the bytes of a CSV file with every cell made safe.

    They are unchanged if no cell needs it, or if the file is not CSV in UTF-8.
    """
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        return data
    safe_rows = [[safe_cell(cell) for cell in row] for row in rows]
    if safe_rows == rows:
        return data
    text = io.StringIO()
    csv.writer(text).writerows(safe_rows)  # its line end \r\n has a lone \r quoted
    return text.getvalue().encode()
