"""Hofstede's six dimensions: reads the published table, and serves the one shipped with the park."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from culturepark.errors import NotFound, SurveyError, nearest
from culturepark.grounding.figures import resource
from culturepark.grounding.names import NAMES
from culturepark.records import Dimensions

# The table's columns and the fields they fill; long-term orientation is the variant computed from the WVS.
COLUMNS = {
    "ctr": "code",
    "country": "title",
    "pdi": "pdi",
    "idv": "idv",
    "mas": "mas",
    "uai": "uai",
    "ltowvs": "lto",
    "ivr": "ivr",
}
NULL = "#NULL!"


def table(path: str | Path) -> tuple[Dimensions, ...]:
    """Read the authors' table (`;` separated, one row a country or region, scores about 0 to 100).

    `#NULL!` cells become None. Raises SurveyError naming file, line, column and value.
    Source: Hofstede, Hofstede & Minkov (2010), six dimensions, version 2015-08-16.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=";", restval="")
            for column in COLUMNS:
                names = rows.fieldnames or []
                if column not in names:
                    raise SurveyError(f"{path}: no column {column!r}. {nearest(column, names)}")
            return tuple(_dimensions(row, f"{path}, line {rows.line_num}") for row in rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SurveyError(f"{path}: cannot be read as Hofstede's table: {error}") from error


def _dimensions(row: dict[str, str], where: str) -> Dimensions:
    scores: dict[str, int | None] = {}
    for column, name in list(COLUMNS.items())[2:]:
        cell = row[column].strip()
        if cell != NULL and not cell.isdecimal():
            raise SurveyError(f"{where}: column {column!r} holds {cell!r}; expected a whole number or {NULL}")
        scores[name] = None if cell == NULL else int(cell)
    return Dimensions(code=row["ctr"].strip(), title=row["country"].strip(), **scores)


@cache
def dimensions() -> tuple[Dimensions, ...]:
    """Return all 111 shipped countries and regions, in the table's order."""
    return tuple(Dimensions(**entry) for entry in resource("hofstede.json")["dimensions"])


def hofstede(code: str) -> Dimensions:
    """Return one country's or region's dimensions by the table's own code ("GER", not ISO's "DEU").

    Raises NotFound, which names the nearest code and, for an ISO code, the table's.
    """
    known = {d.code: d for d in dimensions()}
    if code in known:
        return known[code]
    # The codes look like ISO's but differ: DEU is nearer to Denmark's DEN than to Germany's GER.
    same = [d for d in known.values() if d.title == NAMES.get(code)]
    where = f"Hofstede's table (which calls {same[0].title} {same[0].code!r})" if same else "Hofstede's table"
    raise NotFound("code", code, where, known)
