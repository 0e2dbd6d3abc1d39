"""Reads World Values Survey wave 7 releases (CSV) into figures, row by row: only counts are held.

Reads the official cross-national file of any version with the same columns, the national files, and
extracts of either: one file, or a folder of them. Source: Haerpfer et al. (2022), doi 10.14281/18241.20.
"""

from __future__ import annotations

import csv
import math
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from culturepark.errors import SurveyError, nearest
from culturepark.grounding.figures import SURVEY, Figures, number
from culturepark.records import Shares

COUNTRY, ALPHA, WEIGHT = "B_COUNTRY", "B_COUNTRY_ALPHA", "W_WEIGHT"
ITEM = re.compile(r"Q[0-9]+")  # exact: Q33_3 is a recode of Q33, not an item
CODE = re.compile(r"(-?[0-9]+)(?:\.0*)?")  # some files write 2 as 2.0
UNIT = 10**12  # weights are summed as whole 10^-12: exact, so the order of rows cannot matter

MAGIC = (
    (b"$FL2", "an SPSS file"),
    (b"$FL3", "an SPSS file"),
    (b"<stata_dta>", "a Stata file"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"RDX", "an R file"),
    (b"\xff\xfe", "text in UTF-16"),
    (b"\xfe\xff", "text in UTF-16"),
)
SUFFIXES = {".sav": "an SPSS file", ".zsav": "an SPSS file", ".dta": "a Stata file", ".rds": "an R file"}


@dataclass
class Tally:
    """Running counts of one country: people, and per item and cell text how many and how heavy."""

    rows: int = 0
    cells: dict[str, dict[str, list[int]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Where a file's columns are; positions count from 0, None where there is no such column."""

    path: Path
    delimiter: str
    width: int
    alpha: int
    country: int | None
    weight: int | None
    items: Mapping[str, int]


def read(
    path: str | Path,
    countries: Collection[str] | None = None,
    items: Collection[str] | None = None,
    valid: Mapping[str, Collection[int]] | None = None,
) -> Figures:
    """Read a CSV file, or every CSV file of a folder, into figures.

    `countries` (ISO alpha-3) and `items` ("Q33") narrow what is read; None reads all. `valid` maps
    items to their option codes: any other code of 0 or more is then an error. Negative codes and
    blank cells are missing answers. Where a file has W_WEIGHT, shares are weighted with it; `n` and
    `missing` always count people. Rows without a country code or with a country that is no number
    are computed averages: they are counted in `skipped`, nothing more. An item without one valid
    answer in a country is absent there.

    Raises SurveyError, naming file, line, column and value, for whatever cannot be read as that.
    """
    path = Path(path).expanduser()
    tallies: dict[str, Tally] = {}
    homes: dict[str, Path] = {}
    weighted: set[str] = set()
    seen: set[str] = set()
    skipped = 0
    for file in _files(path):
        with _opened(file) as text:
            layout = _layout(file, text, None if items is None else set(items))
            found, extra = _count(layout, text, None if countries is None else set(countries), valid or {})
        for country in found:
            if country in homes:
                raise SurveyError(
                    f"{file}: {country} is also in {homes[country]}; its people would count twice. Keep one of the two"
                )
            homes[country] = file
        tallies |= found
        weighted |= set(found) if layout.weight is not None else set()
        seen |= set(layout.items)
        skipped += extra
    _complete(path, countries, items, tallies, seen)
    cells = {(c, i): s for c in sorted(tallies) for i, s in _shares(c, tallies[c], path)}
    return Figures(cells=cells, source=path.name, weighted=frozenset(weighted), skipped=skipped)


# ------------------------------------------------------------------- files


def _files(path: Path) -> list[Path]:
    """Return the file, or the CSV files of the folder in order of name."""
    try:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file())
            if found := [p for p in inside if p.suffix.lower() == ".csv"]:
                return found
            raise SurveyError(f"{path}: no .csv file in this folder; found {_some(p.name for p in inside)}")
        if path.is_file():
            return [path]
        siblings = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    except OSError as error:
        raise SurveyError(f"{path}: cannot be read: {error.strerror}") from error
    raise SurveyError(f"{path}: no such file. In {path.parent}: {nearest(path.name, siblings)}")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a file as text, refusing what is no CSV text; errors of reading become SurveyErrors."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        _refuse(path, head)
        # Every cell read here is ASCII, so one lenient decoding serves UTF-8, Latin-1 and Windows-1252.
        with path.open(encoding="utf-8-sig", errors="backslashreplace", newline="") as text:
            yield text
    except OSError as error:
        raise SurveyError(f"{path}: cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise SurveyError(f"{path}: broken as CSV ({error}); is a quotation mark left open?") from error


def _refuse(path: Path, head: bytes) -> None:
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise SurveyError(f"{path}: the file is empty")
    kind = next((name for magic, name in MAGIC if head.startswith(magic)), SUFFIXES.get(path.suffix.lower()))
    if head.startswith(b"PK\x03\x04"):
        kind = "an Excel workbook" if _workbook(path) else "a ZIP archive"
    if kind is None and b"\0" in head:
        kind = "no text in UTF-8 or Latin-1 (it holds zero bytes; perhaps UTF-16)"
    if kind is not None:
        verb = "unpack it" if "archive" in kind else "save it as UTF-8" if "UTF-16" in kind else "export it as CSV"
        raise SurveyError(f"{path}: this is {kind}, not a CSV file; {verb}")


def _workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith("xl/") for name in archive.namelist())
    except zipfile.BadZipFile:
        return path.suffix.lower() == ".xlsx"


# ----------------------------------------------------------------- columns


def _layout(path: Path, text: TextIO, items: Collection[str] | None) -> Layout:
    """Read the header line; a name ends at a colon, since some releases write "Q1: Important in life"."""
    header = text.readline()
    names: list[str] = []
    for delimiter in (",", ";"):
        found = [name.split(":")[0].strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        names = max(names, found, key=len)
        if ALPHA in found:
            break
    else:
        for delimiter, name in (("\t", "tabs"), ("|", "'|'")):
            if delimiter in header:
                raise SurveyError(f"{path}, line 1: columns are separated by {name}; expected commas or semicolons")
        if len(names) < 2:
            raise SurveyError(
                f"{path}, line 1: the whole header is one cell, {header.strip()[:60]!r}; "
                "expected column names separated by commas or semicolons"
            )
        raise SurveyError(f"{path}, line 1: no column {ALPHA!r}. {nearest(ALPHA, names)}")
    known = [name for name in found if ITEM.fullmatch(name)]
    if twice := sorted({name for name in (*known, ALPHA, COUNTRY, WEIGHT) if found.count(name) > 1}):
        raise SurveyError(f"{path}, line 1: columns repeat: {_some(twice)}")
    if not known:
        raise SurveyError(f"{path}, line 1: no item column, such as 'Q27'. {nearest('Q27', filter(None, found))}")
    wanted = [name for name in known if items is None or name in items]
    return Layout(
        path=path,
        delimiter=delimiter,
        width=len(found),
        alpha=found.index(ALPHA),
        country=found.index(COUNTRY) if COUNTRY in found else None,
        weight=found.index(WEIGHT) if WEIGHT in found else None,
        items={name: found.index(name) for name in wanted},
    )


# -------------------------------------------------------------------- rows


def _count(
    layout: Layout, text: TextIO, countries: Collection[str] | None, valid: Mapping[str, Collection[int]]
) -> tuple[dict[str, Tally], int]:
    """Count every person's answers; return the tallies by country and the number of rows that are no person's."""
    tallies: dict[str, Tally] = {}
    skipped = 0
    rows = csv.reader(text, delimiter=layout.delimiter)
    for row in rows:
        if not any(row):
            continue
        where = f"{layout.path}, line {rows.line_num + 1}"
        country = _country(layout, row, where)
        if country is None:
            skipped += 1
            continue
        if countries is not None and country not in countries:
            continue
        tally = tallies.get(country)
        if tally is None:
            tally = tallies[country] = Tally(cells={item: {} for item in layout.items})
        weight = UNIT if layout.weight is None else _weight(layout, row[layout.weight], where)
        tally.rows += 1
        for item, column in layout.items.items():
            cells, cell = tally.cells[item], row[column]
            # A text is checked when first met; after that it is only counted.
            if (slot := cells.get(cell)) is None:
                code = _code(layout, cell, f"{where}, column {item}")
                if code is not None and item in valid and code not in valid[item]:
                    options = _some(map(str, sorted(valid[item])))
                    raise SurveyError(f"{where}, column {item}: {cell!r} is no option; there are: {options}")
                slot = cells[cell] = [0, 0]
            slot[0] += 1
            slot[1] += weight
    return tallies, skipped


def _country(layout: Layout, row: list[str], where: str) -> str | None:
    """Return the alpha-3 code of a person's country; None for a row that is no person's."""
    if len(row) != layout.width:
        raise SurveyError(f"{where}: {len(row)} cells; the header has {layout.width}")
    country = row[layout.alpha].strip()
    if not country or (layout.country is not None and _number(layout, row[layout.country]) is None):
        return None
    if not re.fullmatch(r"[A-Z]{3}", country):
        raise SurveyError(f"{where}, column {ALPHA}: {country!r} is no country code; expected three capitals")
    return country


def _weight(layout: Layout, cell: str, where: str) -> int:
    """Return a person's weight in whole UNITs."""
    weight = _number(layout, cell)
    if weight is None or weight < 0:
        raise SurveyError(f"{where}, column {WEIGHT}: {cell!r} is no weight; expected a number of 0 or more")
    return round(weight * UNIT)


def _code(layout: Layout, cell: str, where: str) -> int | None:
    """Return an answer's code; None for a missing answer (blank or negative)."""
    plain = _point(layout, cell)
    if not plain:
        return None
    match = CODE.fullmatch(plain)
    if match is None:
        raise SurveyError(f"{where}: {cell!r} is no answer code; expected a whole number, or blank")
    code = int(match[1])
    return None if code < 0 else code


def _number(layout: Layout, cell: str) -> float | None:
    try:
        value = float(_point(layout, cell))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _point(layout: Layout, cell: str) -> str:
    """Return the bare cell; programs that separate columns by semicolons write decimals with a comma."""
    plain = cell.strip()
    return plain.replace(",", ".") if layout.delimiter == ";" else plain


# ------------------------------------------------------------------ results


def _shares(country: str, tally: Tally, path: Path) -> Iterator[tuple[str, Shares]]:
    """Yield the items with at least one valid answer, in the questionnaire's order."""
    for item in sorted(tally.cells, key=number):
        counts: dict[int, list[int]] = {}
        for cell, (people, weight) in tally.cells[item].items():
            # Checked when counted; a decimal comma ends the integer as a point does.
            if cell.strip() and (code := int(re.split("[.,]", cell)[0])) >= 0:
                slot = counts.setdefault(code, [0, 0])
                slot[0] += people
                slot[1] += weight
        if not counts:
            continue
        n, total = sum(c[0] for c in counts.values()), sum(c[1] for c in counts.values())
        if not total:
            raise SurveyError(f"{path}: the weights of all {n} people of {country} who answered {item} are 0")
        yield (
            item,
            Shares(
                survey=SURVEY,
                countries=(country,),
                item=item,
                n=n,
                missing=(tally.rows - n) / tally.rows,
                shares={code: counts[code][1] / total for code in sorted(counts)},
            ),
        )


def _complete(
    path: Path,
    countries: Collection[str] | None,
    items: Collection[str] | None,
    found: Collection[str],
    seen: Collection[str],
) -> None:
    """Raise when something asked for is nowhere in the files."""
    if absent := sorted(set(items or ()) - set(seen), key=number):
        known = sorted(seen, key=number)
        raise SurveyError(f"{path}: no column {_some(absent)}. {nearest(absent[0], known)}")
    if absent := sorted(set(countries or ()) - set(found)):
        raise SurveyError(f"{path}: no person from {_some(absent)}")
    if not found:
        raise SurveyError(f"{path}: no person's row, only a header or computed averages")


def _some(names: Iterable[str]) -> str:
    """Return up to ten names in a row; "nothing" for none."""
    listed = list(names)
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} more" if len(listed) > 10 else "") or "nothing"
