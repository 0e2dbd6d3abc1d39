"""Reads World Values Survey wave 7 releases, row by row, into the shares of each answer."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from culturepark import tables
from culturepark.errors import InputError, SurveyError, nearest
from culturepark.records import Shares
from culturepark.surveys.figures import Figures
from culturepark.surveys.names import NAMES
from culturepark.surveys.scales import RESERVED, SCALES
from culturepark.tables import delimited
from culturepark.tables.lines import Unreadable

SURVEY = "World Values Survey wave 7"
COUNTRY, ALPHA, WEIGHT, INTERVIEW, YEAR = (
    "B_COUNTRY",
    "B_COUNTRY_ALPHA",
    "W_WEIGHT",
    "D_INTERVIEW",
    "A_YEAR",
)
ITEM = re.compile(r"Q\d+")  # recodes and national variants (Q33_3, Q82_EU, Q288R) are no items
INTEGER = re.compile(r"[+-]?\d{1,9}(\.0*)?")  # statistics programs write 2 as 2.0
ISO = re.compile(r"[A-Z]{3}")
UNIT = 10**12  # weights are summed as whole 10^-12: exact, so the order of people cannot matter

DUPLICATE = "interviews that stand twice, the later ones left out"
TWICE_AT_MOST = (
    0.5  # of a country's rows; where more stand twice, the column holds no ids of interviews
)
AVERAGES = "rows that are no respondents, left out"


def read(
    path: Path | str,
    countries: Collection[str] | None = None,
    items: Collection[str] | None = None,
    valid: Mapping[str, Collection[int]] | None = None,
) -> Figures:
    """Read the wave 7 CSV release, a per-country file with the same columns, or a folder of such
    files.

    `path` is a CSV file (columns parted by `,` `;` tab or `|`), or a folder of them; `countries`
    (ISO alpha-3) and `items` (`Q27`) choose what to read, all when None; `valid` gives the option
    codes of an item, where known: any other code is then an error.

    Missing are negative codes (don't know, no answer, not applicable, not asked), what
    `tables.is_missing` knows (blank, NA, .a, :) and, of an item that `valid` does not name, codes
    beyond its scale in the questionnaire, such as 99; of an item whose scale is not known, codes
    that such files reserve for no answer. Shares are weighted by W_WEIGHT in files that have it
    (`Figures.weighted` lists their countries); counts never are. Rows of computed averages, without
    a numeric B_COUNTRY or without a country code, are no people and are left out. A person counts
    once: of rows of one country with one D_INTERVIEW, the first (missing codes, 0 and negative
    numbers are no id; an error where more than half of a country's rows would be left out).
    `Figures.notices` counts all of that. Memory grows with countries × items, and with people where
    there is a D_INTERVIEW.

    Raises SurveyError, naming file, line, column and value, where the file is no such release.
    Source: WVS-7 codebook, Haerpfer et al. (2022), doi 10.14281/18241.20.
    """
    path = Path(path).expanduser()
    with _as_survey_error():
        counts = [_count(file, countries, items, valid or {}) for file in _files(path)]
    offered = {item for count in counts for item in count.items}
    for item in items or ():
        if item not in offered:
            raise SurveyError(
                f"{path}: no item {item!r}. {nearest(item, sorted(offered, key=_number))}"
            )
    present = {code for count in counts for code in count.present}
    for code in countries or ():
        if code not in present:
            raise SurveyError(
                f"{path}: no respondents from {code!r}. {nearest(code, sorted(present))}"
            )
    return _figures(path.name, counts)


@contextmanager
def _as_survey_error() -> Iterator[None]:
    """Raise what the reader of tables says as a SurveyError, without options, which surveys do not
    have.
    """
    try:
        yield
    except SurveyError:
        raise
    except InputError as error:
        raise SurveyError(error.what if isinstance(error, Unreadable) else str(error)) from error


def _figures(source: str, counts: Iterable[_Count]) -> Figures:
    """Join the counts of all files; a country must come from one file only, or people would count
    twice.
    """
    table: dict[str, dict[str, Shares]] = {}
    origin: dict[str, _Count] = {}
    notices: Counter[str] = Counter()
    for count in counts:
        notices.update(count.told())
        for country, tallies in count.countries.items():
            if country in origin:
                raise SurveyError(
                    f"{count.file}: {country} is in {origin[country].file} too; keep one of the two"
                )
            origin[country] = count
            found = ((item, tally.shares(country, item)) for item, tally in tallies.items())
            table[country] = {item: shares for item, shares in found if shares}
    return Figures(
        survey=SURVEY,
        source=source,
        names={country: NAMES.get(country, country) for country in table},
        years=tuple(sorted({year for count in origin.values() for year in count.years})),
        weighted=tuple(sorted(country for country, count in origin.items() if count.weighted)),
        table=table,
        notices={what: n for what, n in sorted(notices.items()) if n},
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

    `cells` finds what is counted by the text of its cell, so that each spelling is parsed only
    once.
    """

    codes: dict[int | None, _Answer] = field(default_factory=lambda: defaultdict(_Answer))
    cells: dict[str, tuple[_Answer, ...]] = field(default_factory=dict)

    def shares(self, country: str, item: str) -> Shares | None:
        """Return the shares of the valid answers; None when there are none, or none with any
        weight.
        """
        answers = {
            code: self.codes[code] for code in sorted(c for c in self.codes if c is not None)
        }
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
    """What one file holds: its items, every country in it, and the tallies of the countries asked
    for.
    """

    file: Path
    weighted: bool
    items: tuple[str, ...]
    present: set[str] = field(default_factory=set)
    years: set[int] = field(default_factory=set)
    countries: dict[str, dict[str, _Tally]] = field(default_factory=dict)
    notices: Counter[str] = field(default_factory=Counter)
    beyond: dict[tuple[str, int], _Answer] = field(default_factory=lambda: defaultdict(_Answer))

    def told(self) -> Mapping[str, int]:
        """Return what is worth a notice, and how often it was met."""
        return self.notices + Counter(
            {_beyond(item, code): answer.n for (item, code), answer in self.beyond.items()}
        )


def _beyond(item: str, code: int) -> str:
    scale = SCALES.get(item)
    reach = (
        f"not on its scale, {scale[0]} to {scale[-1]}"
        if scale
        else "which such files write for no answer"
    )
    return f"{item}: {code}, {reach}: missing"


def _count(
    file: Path,
    countries: Collection[str] | None,
    items: Collection[str] | None,
    valid: Mapping[str, Collection[int]],
) -> _Count:
    """Count one file's answers in a single pass."""
    notices: Counter[str] = Counter()
    layout, rows = _layout(file, notices)
    count = _Count(file, layout.weight is not None, tuple(layout.items), notices=notices)
    wanted = [(item, at) for item, at in layout.items.items() if items is None or item in items]
    seen: set[tuple[str, str]] = set()
    repeated: Counter[str] = Counter()
    rows_per_country: Counter[str] = Counter()
    for line, country, row in _people(file, rows, layout, notices):
        count.present.add(country)
        if countries is not None and country not in countries:
            continue
        rows_per_country[country] += 1
        if layout.interview is not None and _again((country, row[layout.interview].strip()), seen):
            repeated[country] += 1
            continue
        if layout.year is not None and (year := row[layout.year].strip()).isdecimal():
            count.years.add(int(year))
        weight = UNIT if layout.weight is None else _weight(file, line, row[layout.weight])
        if country not in count.countries:
            count.countries[country] = {item: _Tally() for item, _ in wanted}
        tallies = count.countries[country]
        for item, at in wanted:
            tally, cell = tallies[item], row[at]
            if cell not in tally.cells:
                tally.cells[cell] = _answer(file, line, item, cell, valid.get(item), tally, count)
            for answer in tally.cells[cell]:
                answer.n += 1
                answer.weight += weight
    _check_interviews(file, repeated, rows_per_country)
    notices[DUPLICATE] += repeated.total()
    return count


def _check_interviews(file: Path, repeated: Mapping[str, int], rows: Mapping[str, int]) -> None:
    """Raise SurveyError where most of a country's rows have the id of an earlier one."""
    for country, count in repeated.items():
        if count > TWICE_AT_MOST * rows[country]:
            raise SurveyError(
                f"{file}, column {INTERVIEW}: {count:,} of {rows[country]:,} rows from {country}"
                " have the id of an earlier row, so it tells no interviews apart. Keep each"
                " interview once, or leave the column out if its values are no ids"
            )


def _again(person: tuple[str, str], seen: set[tuple[str, str]]) -> bool:
    """Say whether a person was met before; one without an id never was."""
    if not _is_id(person[1]):
        return False
    if person in seen:
        return True
    seen.add(person)
    return False


def _is_id(text: str) -> bool:
    """Say whether a cell names an interview: no missing code, no 0, no negative number."""
    if tables.is_missing(text):
        return False
    return not INTEGER.fullmatch(text) or int(text.partition(".")[0]) > 0


def _answer(
    file: Path,
    line: int,
    item: str,
    cell: str,
    valid: Collection[int] | None,
    tally: _Tally,
    count: _Count,
) -> tuple[_Answer, ...]:
    """Return what a cell counts for: an answer, or the missing ones and, where its code is beyond
    the scale, those of this code.
    """
    code = _code(file, line, item, cell, valid)
    if code is None or valid is not None or not _is_beyond(item, code):
        return (tally.codes[code],)
    return tally.codes[None], count.beyond[item, code]


def _is_beyond(item: str, code: int) -> bool:
    return code not in SCALES[item] if item in SCALES else code in RESERVED


def _code(file: Path, line: int, item: str, cell: str, valid: Collection[int] | None) -> int | None:
    """Return the answer code in a cell, None where the answer is missing."""
    text = cell.strip()
    if tables.is_missing(text):
        return None
    if not INTEGER.fullmatch(text):
        raise SurveyError(
            f"{file}, line {line}, column {item}: {cell!r} is not an answer code (a whole number)"
        )
    code = int(text.partition(".")[0])
    if code < 0:
        return None
    if valid is not None and code not in valid:
        options = ", ".join(map(str, sorted(valid)))
        raise SurveyError(
            f"{file}, line {line}, column {item}: {cell!r} is not an option; there are: {options}. "
            "Where it stands for no answer, write a negative code or nothing"
        )
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
        raise SurveyError(
            f"{file}, line {line}, column {WEIGHT}: {found} is not a weight (a number from 0 up)"
        )
    return round(weight)


# ------------------------------------------------------------------ reading


@dataclass(frozen=True)
class _Layout:
    """How a file is laid out: its width, and where the columns we read are."""

    width: int
    alpha: int
    country: int | None
    weight: int | None
    interview: int | None
    year: int | None
    items: Mapping[str, int]


def _files(path: Path) -> list[Path]:
    """Return the file, or the folder's CSV files by name."""
    if path.is_dir():
        found = sorted(
            p
            for p in path.iterdir()
            if p.name.lower().endswith((".csv", ".csv.gz")) and p.is_file()
        )
        if not found:
            raise SurveyError(f"{path}: no CSV file in this folder")
        return found
    if not path.exists():
        beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise SurveyError(f"{path}: no such file. {nearest(path.name, beside)}")
    if not path.is_file():
        raise SurveyError(f"{path}: not a file")
    return [path]


def _layout(file: Path, notices: Counter[str]) -> tuple[_Layout, Iterator[tuple[int, list[str]]]]:
    """Return where the columns are, and the rows below the header. `Q27: label`, as some versions
    write it, is `Q27`.
    """
    # All that is read here is ASCII, whose bytes mean the same in UTF-8, Latin-1 and Windows-1252:
    # Latin-1, which can decode every byte, is right for all three. A byte order mark goes before
    # it.
    _, rows = delimited.split(file, ".csv", tables.Layout(encoding="latin-1"), notices)
    _, header = next(rows, (1, []))
    names = [cell.partition(":")[0].strip() for cell in header]
    if not any(names):
        raise SurveyError(f"{file}: the file is empty")
    if ALPHA not in names:
        if len(names) == 1 and ALPHA in header[0]:
            raise SurveyError(
                f"{file}: the whole header is one cell; put , or ; between the columns, and no"
                " quotes around all"
            )
        raise SurveyError(f"{file}: no column {ALPHA!r} in the first line. {nearest(ALPHA, names)}")
    single = (COUNTRY, ALPHA, WEIGHT, INTERVIEW, YEAR)
    twice = sorted({n for n in names if names.count(n) > 1 and (n in single or ITEM.fullmatch(n))})
    if twice:
        raise SurveyError(f"{file}: columns repeat: {', '.join(twice)}")
    rows = delimited.without_header(rows, header, notices)
    at = {name: index for index, name in enumerate(names)}
    items = {name: at[name] for name in sorted(filter(ITEM.fullmatch, names), key=_number)}
    if not items:
        raise SurveyError(f"{file}: no item columns (Q1 to Q290). {nearest('Q1', names)}")
    return (
        _Layout(
            len(names),
            at[ALPHA],
            at.get(COUNTRY),
            at.get(WEIGHT),
            at.get(INTERVIEW),
            at.get(YEAR),
            items,
        ),
        rows,
    )


def _people(
    file: Path, rows: Iterable[tuple[int, list[str]]], layout: _Layout, notices: Counter[str]
) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line number, country code and cells of each respondent; other rows are counted in
    `notices`.
    """
    people, other = 0, ""
    for line, row in rows:
        if any(row) and len(row) != layout.width:
            raise SurveyError(
                f"{file}, line {line}: {len(row)} cells, but the header has {layout.width}"
            )
        if not _is_person(row, layout):
            other = other or f"; line {line} begins {', '.join(map(repr, row[:3]))}"
            notices[AVERAGES] += any(row)
            continue
        country = row[layout.alpha].strip()
        if not ISO.fullmatch(country):
            raise SurveyError(
                f"{file}, line {line}, column {ALPHA}: {country!r} is not a three-letter country"
                " code"
            )
        people += 1
        yield line, country, row
    if not people:
        raise SurveyError(
            f"{file}: no respondents (rows with a numeric {COUNTRY} and a {ALPHA}){other}"
        )


def _is_person(row: list[str], layout: _Layout) -> bool:
    """Tell respondents from computed averages and blank lines."""
    if not any(row) or not row[layout.alpha].strip():
        return False
    return layout.country is None or bool(INTEGER.fullmatch(row[layout.country].strip()))


def _number(item: str) -> int:
    return int(item[1:])
