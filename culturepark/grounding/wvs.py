"""Reads World Values Survey wave 7 releases, row by row, into the shares of each answer."""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from culturepark.errors import SurveyError, nearest
from culturepark.grounding.figures import Figures
from culturepark.grounding.names import NAMES
from culturepark.records import Shares

SURVEY = "World Values Survey wave 7"
COUNTRY, ALPHA, WEIGHT = "B_COUNTRY", "B_COUNTRY_ALPHA", "W_WEIGHT"
ITEM = re.compile(r"Q\d+")  # recodes and national variants (Q33_3, Q82_EU, Q288R) are no items
INTEGER = re.compile(r"[+-]?\d{1,9}(\.0*)?")  # statistics programs write 2 as 2.0
ISO = re.compile(r"[A-Z]{3}")
UTF8_BOM = b"\xef\xbb\xbf"
UNIT = 10**12  # weights are summed as whole 10^-12: exact, so the order of people cannot matter

# First bytes of what people download or save instead of the CSV, and what to do about it.
FOREIGN = {
    b"$FL": "an SPSS file; export it as CSV, with codes instead of labels",
    b"PK": "a zip archive or an Excel workbook; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as CSV",
    b"<stata_dta>": "a Stata file; export it as CSV, with codes instead of labels",
    b"\x1f\x8b": "gzip-compressed (R data, or a packed CSV); unpack it, or export it as CSV",
    b"RDX": "R data; export it as CSV",
    b"\xff\xfe": "encoded as UTF-16; save it as UTF-8",
    b"\xfe\xff": "encoded as UTF-16; save it as UTF-8",
}


def read(
    path: Path | str,
    countries: Collection[str] | None = None,
    items: Collection[str] | None = None,
    valid: Mapping[str, Collection[int]] | None = None,
) -> Figures:
    """Read the wave 7 CSV release, a per-country file with the same columns, or a folder of such files.

    `path` is a `,` or `;` separated CSV file in UTF-8, Latin-1 or Windows-1252, or a folder of them;
    `countries` (ISO alpha-3) and `items` (`Q27`) choose what to read, all when None; `valid` gives the
    option codes of an item, where known: any other non-negative code is then an error.

    Blank cells and negative codes (don't know, no answer, not applicable, not asked) are missing.
    Shares are weighted by W_WEIGHT in files that have it (`Figures.weighted` lists their countries);
    counts never are. Rows of computed averages, without a numeric B_COUNTRY or without a country
    code, are no people and are left out. Memory grows with countries × items, not with respondents.

    Raises SurveyError, naming file, line, column and value, where the file is no such release.
    Source: WVS-7 codebook, Haerpfer et al. (2022), doi 10.14281/18241.20.
    """
    path = Path(path).expanduser()
    counts = [_count(file, countries, items, valid or {}) for file in _files(path)]
    offered = {item for count in counts for item in count.items}
    for item in items or ():
        if item not in offered:
            raise SurveyError(f"{path}: no item {item!r}. {nearest(item, sorted(offered, key=_number))}")
    present = {code for count in counts for code in count.present}
    for code in countries or ():
        if code not in present:
            raise SurveyError(f"{path}: no respondents from {code!r}. {nearest(code, sorted(present))}")
    return _figures(path.name, counts)


def _figures(source: str, counts: Iterable[_Count]) -> Figures:
    """Join the counts of all files; a country must come from one file only, or people would count twice."""
    table: dict[str, dict[str, Shares]] = {}
    origin: dict[str, _Count] = {}
    for count in counts:
        for country, tallies in count.countries.items():
            if country in origin:
                raise SurveyError(f"{count.file}: {country} is in {origin[country].file} too; keep one of the two")
            origin[country] = count
            found = ((item, tally.shares(country, item)) for item, tally in tallies.items())
            table[country] = {item: shares for item, shares in found if shares}
    return Figures(
        survey=SURVEY,
        source=source,
        names={country: NAMES.get(country, country) for country in table},
        weighted=tuple(sorted(country for country, count in origin.items() if count.weighted)),
        table=table,
    )


# ----------------------------------------------------------------- counting


@dataclass
class _Answer:
    """How many people gave one answer, and their summed weight in UNITs."""

    n: int = 0
    weight: int = 0


@dataclass
class _Tally:
    """One country's answers to one item, by code; the missing ones are under None.

    `cells` finds an answer by the text of its cell, so that each spelling is parsed only once.
    """

    codes: dict[int | None, _Answer] = field(default_factory=lambda: defaultdict(_Answer))
    cells: dict[str, _Answer] = field(default_factory=dict)

    def shares(self, country: str, item: str) -> Shares | None:
        """Return the shares of the valid answers; None when there are none, or none with any weight."""
        answers = {code: self.codes[code] for code in sorted(c for c in self.codes if c is not None)}
        total = sum(a.weight for a in answers.values())
        if total == 0:
            return None
        n = sum(a.n for a in answers.values())
        missing = sum(a.n for a in self.codes.values()) - n
        return Shares(
            survey=SURVEY,
            countries=(country,),
            item=item,
            n=n,
            missing=missing / (n + missing),
            shares={code: a.weight / total for code, a in answers.items() if a.weight},
        )


@dataclass
class _Count:
    """What one file holds: its items, every country in it, and the tallies of the countries asked for."""

    file: Path
    weighted: bool
    items: tuple[str, ...]
    present: set[str] = field(default_factory=set)
    countries: dict[str, dict[str, _Tally]] = field(default_factory=dict)


def _count(
    file: Path, countries: Collection[str] | None, items: Collection[str] | None, valid: Mapping[str, Collection[int]]
) -> _Count:
    """Count one file's answers in a single pass."""
    with _text(file) as text:
        layout = _layout(file, text.readline())
        count = _Count(file, layout.weight is not None, tuple(layout.items))
        wanted = [(item, at) for item, at in layout.items.items() if items is None or item in items]
        for line, country, row in _people(file, text, layout):
            count.present.add(country)
            if countries is not None and country not in countries:
                continue
            weight = UNIT if layout.weight is None else _weight(file, line, row[layout.weight])
            if country not in count.countries:
                count.countries[country] = {item: _Tally() for item, _ in wanted}
            tallies = count.countries[country]
            for item, at in wanted:
                tally, cell = tallies[item], row[at]
                if cell not in tally.cells:
                    tally.cells[cell] = tally.codes[_code(file, line, item, cell, valid.get(item))]
                answer = tally.cells[cell]
                answer.n += 1
                answer.weight += weight
    return count


def _code(file: Path, line: int, item: str, cell: str, valid: Collection[int] | None) -> int | None:
    """Return the answer code in a cell, None where the answer is missing."""
    text = cell.strip()
    if not text:
        return None
    if not INTEGER.fullmatch(text):
        raise SurveyError(f"{file}, line {line}, column {item}: {cell!r} is not an answer code (a whole number)")
    code = int(text.partition(".")[0])
    if code < 0:
        return None
    if valid is not None and code not in valid:
        options = ", ".join(map(str, sorted(valid)))
        raise SurveyError(f"{file}, line {line}, column {item}: {cell!r} is not an option; there are: {options}")
    return code


def _weight(file: Path, line: int, cell: str) -> int:
    """Return a person's weight in UNITs."""
    try:
        # Semicolon files often write a decimal comma.
        weight = float(cell.replace(",", ".")) * UNIT
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        found = repr(cell) if cell.strip() else "nothing"
        raise SurveyError(f"{file}, line {line}, column {WEIGHT}: {found} is not a weight (a number from 0 up)")
    return round(weight)


# ------------------------------------------------------------------ reading


@dataclass(frozen=True)
class _Layout:
    """How a file is laid out: its delimiter, its width, and where the columns we read are."""

    delimiter: str
    width: int
    alpha: int
    country: int | None
    weight: int | None
    items: Mapping[str, int]


def _files(path: Path) -> list[Path]:
    """Return the file, or the folder's CSV files by name."""
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() == ".csv" and p.is_file())
        if not found:
            raise SurveyError(f"{path}: no CSV file in this folder")
        return found
    if not path.exists():
        beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise SurveyError(f"{path}: no such file. {nearest(path.name, beside)}")
    if not path.is_file():
        raise SurveyError(f"{path}: not a file")
    return [path]


def _text(file: Path) -> TextIO:
    """Open a file as text, past its byte order mark, refusing what is no text."""
    try:
        with file.open("rb") as raw:
            head = raw.read(4096)
    except OSError as error:
        raise SurveyError(f"{file}: cannot be read: {error.strerror}") from error
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise SurveyError(f"{file}: this is {what}")
    if b"\0" in head:
        raise SurveyError(f"{file}: this is a binary file or UTF-16 text; export it as CSV in UTF-8")
    if not head.removeprefix(UTF8_BOM).strip():
        raise SurveyError(f"{file}: the file is empty")
    # All that we read is ASCII, and ASCII bytes mean the same in UTF-8, Latin-1 and Windows-1252:
    # Latin-1, which can decode every byte, is right for all three.
    text = file.open(encoding="latin-1", newline="")
    text.seek(len(UTF8_BOM) if head.startswith(UTF8_BOM) else 0)
    return text


def _layout(file: Path, header: str) -> _Layout:
    """Find delimiter and columns in the header line. `Q27: label`, as some versions write it, is `Q27`."""

    def split(delimiter: str) -> list[str]:
        cells = next(csv.reader([header], delimiter=delimiter), [])
        return [cell.partition(":")[0].strip() for cell in cells]

    splits = {mark: split(mark) for mark in ",;\t|"}
    delimiter = next((mark for mark, names in splits.items() if ALPHA in names), None)
    if delimiter is None:
        names = max(splits.values(), key=len)
        if len(names) == 1 and ALPHA in header:
            raise SurveyError(
                f"{file}: the whole header is one cell; put , or ; between the columns, and no quotes around all"
            )
        raise SurveyError(f"{file}: no column {ALPHA!r} in the first line. {nearest(ALPHA, names)}")
    if delimiter not in ",;":
        found = "tabs" if delimiter == "\t" else delimiter
        raise SurveyError(f"{file}: the columns are separated by {found}; put , or ; between them")
    names = splits[delimiter]
    twice = sorted({n for n in names if names.count(n) > 1 and (n in (COUNTRY, ALPHA, WEIGHT) or ITEM.fullmatch(n))})
    if twice:
        raise SurveyError(f"{file}: columns repeat: {', '.join(twice)}")
    at = {name: index for index, name in enumerate(names)}
    items = {name: at[name] for name in sorted(filter(ITEM.fullmatch, names), key=_number)}
    if not items:
        raise SurveyError(f"{file}: no item columns (Q1 to Q290). {nearest('Q1', names)}")
    return _Layout(delimiter, len(names), at[ALPHA], at.get(COUNTRY), at.get(WEIGHT), items)


def _people(file: Path, text: TextIO, layout: _Layout) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line number, country code and cells of each respondent."""
    rows = csv.reader(text, delimiter=layout.delimiter, strict=True)
    people, other = 0, ""
    try:
        for row in rows:
            line = rows.line_num + 1  # the header was read before
            if any(row) and len(row) != layout.width:
                raise SurveyError(f"{file}, line {line}: {len(row)} cells, but the header has {layout.width}")
            if not _is_person(row, layout):
                other = other or f"; line {line} begins {', '.join(map(repr, row[:3]))}"
                continue
            country = row[layout.alpha].strip()
            if not ISO.fullmatch(country):
                raise SurveyError(
                    f"{file}, line {line}, column {ALPHA}: {country!r} is not a three-letter country code"
                )
            people += 1
            yield line, country, row
    except csv.Error as error:
        raise SurveyError(f"{file}, line {rows.line_num + 1}: not readable as CSV: {error}") from error
    if not people:
        raise SurveyError(f"{file}: no respondents (rows with a numeric {COUNTRY} and a {ALPHA}){other}")


def _is_person(row: list[str], layout: _Layout) -> bool:
    """Tell respondents from computed averages and blank lines."""
    if not any(row) or not row[layout.alpha].strip():
        return False
    return layout.country is None or bool(INTEGER.fullmatch(row[layout.country].strip()))


def _number(item: str) -> int:
    return int(item[1:])
