"""Reads World Values Survey wave 7 releases, row by row, into distributions of answers."""

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
from culturepark.records import Distribution
from culturepark.surveys.figures import Figures
from culturepark.surveys.names import NAMES
from culturepark.surveys.scales import RESERVED, SCALES
from culturepark.tables import delimited
from culturepark.tables.lines import Unreadable

SURVEY = "World Values Survey wave 7"
SINGLE = "B_COUNTRY B_COUNTRY_ALPHA W_WEIGHT D_INTERVIEW A_YEAR".split()  # columns other than items
COUNTRY, ALPHA, WEIGHT, INTERVIEW, YEAR = SINGLE
ITEM = re.compile(r"Q\d+")  # recodes and national variants (Q33_3, Q82_EU, Q288R) are no items
INTEGER = re.compile(r"[+-]?\d{1,9}(\.0*)?")  # statistics programs write 2 as 2.0
ISO = re.compile(r"[A-Z]{3}")
UNIT = 10**12  # weights are summed as whole 10^-12: exact, so the order of people cannot matter

DUPLICATE = "interviews that stand twice, the later ones left out"
# of a country's rows; if more stand twice, the column does not hold interview ids
TWICE_AT_MOST = 0.5
AVERAGES = "rows that are no respondents, left out"


def read_release(
    path: Path | str,
    countries: Collection[str] | None = None,
    items: Collection[str] | None = None,
    valid: Mapping[str, Collection[int]] | None = None,
) -> Figures:
    """Read the wave 7 CSV release, a per-country file with the same columns, or a folder of such
    files.

    `path` is a CSV file (columns separated by `,` `;` tab or `|`), or a folder of them; `countries`
    (ISO alpha-3) and `items` (`Q27`) choose what to read, all when None; `valid` maps an item to
    its option codes: any other code is then an error.

    Missing answers are negative codes (don't know, no answer, not applicable, not asked), what
    `tables.is_missing` recognises (blank, NA, .a, :) and, for an item that `valid` does not name,
    codes beyond its scale in the questionnaire, such as 99; if the scale is not known, codes that
    such files reserve for no answer. Shares are weighted by W_WEIGHT in files that have it
    (`Figures.weighted` lists their countries); counts never are. Rows of computed averages, without
    a numeric B_COUNTRY or without a country code, are left out. Each person counts once: of the
    rows of one country with the same D_INTERVIEW only the first is read (missing codes, 0 and
    negative numbers are not ids; if more than half of a country's rows would be left out, that is
    an error). `Figures.notices` counts all of that. Memory grows with countries × items and, if
    there is a D_INTERVIEW, with people.

    Raises SurveyError, naming file, line, column and value, if the file is no such release.
    Source: WVS-7 codebook, Haerpfer et al. (2022), doi 10.14281/18241.20.
    """
    path = Path(path).expanduser()
    with _as_survey_error():
        counts = [_count_answers(file, countries, items, valid or {}) for file in _list_files(path)]
    available = {item for count in counts for item in count.items}
    for item in items or ():
        if item not in available:
            raise SurveyError(
                f"{path}: no item {item!r}. {nearest(item, sorted(available, key=_item_number))}"
            )
    present = {code for count in counts for code in count.present}
    for code in countries or ():
        if code not in present:
            raise SurveyError(
                f"{path}: no respondents from {code!r}. {nearest(code, sorted(present))}"
            )
    return _join_counts(path.name, counts)


@contextmanager
def _as_survey_error() -> Iterator[None]:
    """Raise the table reader's errors as SurveyError, without the options that only tables have."""
    try:
        yield
    except SurveyError:
        raise
    except InputError as error:
        raise SurveyError(error.what if isinstance(error, Unreadable) else str(error)) from error


def _join_counts(source: str, counts: Iterable[_Count]) -> Figures:
    """Return the figures of all files; raises SurveyError for a country that stands in two."""
    table: dict[str, dict[str, Distribution]] = {}
    origin: dict[str, _Count] = {}
    notices: Counter[str] = Counter()
    for count in counts:
        notices.update(count.count_notices())
        for country, tallies in count.countries.items():
            if country in origin:
                raise SurveyError(
                    f"{count.file}: {country} is in {origin[country].file} too; keep one of the two"
                )
            origin[country] = count
            distributions = (
                (item, tally.distribution(country, item)) for item, tally in tallies.items()
            )
            table[country] = {
                item: distribution for item, distribution in distributions if distribution
            }
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

    `cells` maps the text of a cell to what it counts for, so that each spelling is parsed once.
    """

    codes: dict[int | None, _Answer] = field(default_factory=lambda: defaultdict(_Answer))
    cells: dict[str, tuple[_Answer, ...]] = field(default_factory=dict)

    def distribution(self, country: str, item: str) -> Distribution | None:
        """Return the distribution of the valid answers; None if their weights sum to 0."""
        answers = {
            code: self.codes[code] for code in sorted(c for c in self.codes if c is not None)
        }
        total = sum(a.weight for a in answers.values())
        if total == 0:
            return None
        n = sum(a.n for a in answers.values())
        missing = sum(a.n for a in self.codes.values()) - n
        return Distribution(
            survey=SURVEY,
            countries=(country,),
            item=item,
            n=n,
            missing=missing / (n + missing),
            shares={code: a.weight / total for code, a in answers.items() if a.weight},
        )


@dataclass
class _Count:
    """What one file holds: its items, its countries, and the tallies of the chosen countries."""

    file: Path
    weighted: bool
    items: tuple[str, ...]
    present: set[str] = field(default_factory=set)
    years: set[int] = field(default_factory=set)
    countries: dict[str, dict[str, _Tally]] = field(default_factory=dict)
    notices: Counter[str] = field(default_factory=Counter)
    beyond: dict[tuple[str, int], _Answer] = field(default_factory=lambda: defaultdict(_Answer))

    def count_notices(self) -> Mapping[str, int]:
        """Return how often each thing was met that a reader should know."""
        return self.notices + Counter(
            {_describe_code(item, code): answer.n for (item, code), answer in self.beyond.items()}
        )


def _describe_code(item: str, code: int) -> str:
    scale = SCALES.get(item)
    reach = (
        f"not on its scale, {scale[0]} to {scale[-1]}"
        if scale
        else "which such files write for no answer"
    )
    return f"{item}: {code}, {reach}: missing"


def _count_answers(
    file: Path,
    countries: Collection[str] | None,
    items: Collection[str] | None,
    valid: Mapping[str, Collection[int]],
) -> _Count:
    """Count one file's answers in a single pass."""
    notices: Counter[str] = Counter()
    layout, rows = _read_header(file, notices)
    count = _Count(file, layout.weight is not None, tuple(layout.items), notices=notices)
    columns = [(item, at) for item, at in layout.items.items() if items is None or item in items]
    interviews: set[tuple[str, str]] = set()
    repeats: Counter[str] = Counter()
    rows_per_country: Counter[str] = Counter()
    for line, country, row in _read_people(file, rows, layout, notices):
        count.present.add(country)
        if countries is not None and country not in countries:
            continue
        rows_per_country[country] += 1
        if layout.interview is not None and _is_repeat(
            (country, row[layout.interview].strip()), interviews
        ):
            repeats[country] += 1
            continue
        if layout.year is not None and (year := row[layout.year].strip()).isdecimal():
            count.years.add(int(year))
        weight = UNIT if layout.weight is None else _parse_weight(file, line, row[layout.weight])
        if country not in count.countries:
            count.countries[country] = {item: _Tally() for item, _ in columns}
        tallies = count.countries[country]
        for item, at in columns:
            tally, cell = tallies[item], row[at]
            if cell not in tally.cells:
                tally.cells[cell] = _find_answers(
                    file, line, item, cell, valid.get(item), tally, count
                )
            for answer in tally.cells[cell]:
                answer.n += 1
                answer.weight += weight
    _check_interviews(file, repeats, rows_per_country)
    notices[DUPLICATE] += repeats.total()
    return count


def _check_interviews(file: Path, repeats: Mapping[str, int], rows: Mapping[str, int]) -> None:
    """Raise SurveyError if most of a country's rows have the id of an earlier one."""
    for country, count in repeats.items():
        if count > TWICE_AT_MOST * rows[country]:
            raise SurveyError(
                f"{file}, column {INTERVIEW}: {count:,} of {rows[country]:,} rows from {country}"
                " have the id of an earlier row, so it tells no interviews apart. Keep each"
                " interview once, or leave the column out if its values are no ids"
            )


def _is_repeat(person: tuple[str, str], interviews: set[tuple[str, str]]) -> bool:
    """Return whether a person was met before; one without an id never was."""
    if not _is_id(person[1]):
        return False
    if person in interviews:
        return True
    interviews.add(person)
    return False


def _is_id(text: str) -> bool:
    """Return whether a cell names an interview: no missing code, no 0, no negative number."""
    if tables.is_missing(text):
        return False
    return not INTEGER.fullmatch(text) or int(text.partition(".")[0]) > 0


def _find_answers(
    file: Path,
    line: int,
    item: str,
    cell: str,
    valid: Collection[int] | None,
    tally: _Tally,
    count: _Count,
) -> tuple[_Answer, ...]:
    """Return what a cell counts for: an answer or a missing one; a code beyond the scale is counted
    on its own too.
    """
    code = _parse_code(file, line, item, cell, valid)
    if code is None or valid is not None or not _is_beyond(item, code):
        return (tally.codes[code],)
    return tally.codes[None], count.beyond[item, code]


def _is_beyond(item: str, code: int) -> bool:
    return code not in SCALES[item] if item in SCALES else code in RESERVED


def _parse_code(
    file: Path, line: int, item: str, cell: str, valid: Collection[int] | None
) -> int | None:
    """Return the answer code in a cell; None if the answer is missing."""
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
            "If it stands for no answer, write a negative code or nothing"
        )
    return code


def _parse_weight(file: Path, line: int, cell: str) -> int:
    """Return a person's weight in UNITs."""
    try:
        # Semicolon files often write a decimal comma.
        weight = float(cell.replace(",", ".")) * UNIT
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        value = repr(cell) if cell.strip() else "nothing"
        raise SurveyError(
            f"{file}, line {line}, column {WEIGHT}: {value} is not a weight (a number from 0 up)"
        )
    return round(weight)


# ------------------------------------------------------------------ reading


@dataclass(frozen=True)
class _Layout:
    """The number of columns of a file, and the indices of those that are read."""

    width: int
    alpha: int
    country: int | None
    weight: int | None
    interview: int | None
    year: int | None
    items: Mapping[str, int]


def _list_files(path: Path) -> list[Path]:
    """Return the file, or the folder's CSV files by name."""
    if path.is_dir():
        files = sorted(
            p
            for p in path.iterdir()
            if p.name.lower().endswith((".csv", ".csv.gz")) and p.is_file()
        )
        if not files:
            raise SurveyError(f"{path}: no CSV file in this folder")
        return files
    if not path.exists():
        beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise SurveyError(f"{path}: no such file. {nearest(path.name, beside)}")
    if not path.is_file():
        raise SurveyError(f"{path}: not a file")
    return [path]


def _read_header(
    file: Path, notices: Counter[str]
) -> tuple[_Layout, Iterator[tuple[int, list[str]]]]:
    """Return the columns' places and the rows below the header.

    `Q27: label`, as some versions write it, is `Q27`.
    """
    # All that is read here is ASCII, whose bytes mean the same in UTF-8, Latin-1 and Windows-1252:
    # Latin-1, which decodes every byte, is right for all three. A byte order mark takes precedence.
    _, rows = delimited.split_rows(file, ".csv", tables.Layout(encoding="latin-1"), notices)
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
    twice = sorted({n for n in names if names.count(n) > 1 and (n in SINGLE or ITEM.fullmatch(n))})
    if twice:
        raise SurveyError(f"{file}: columns repeat: {', '.join(twice)}")
    rows = delimited.without_header(rows, header, notices)
    at = {name: index for index, name in enumerate(names)}
    items = {name: at[name] for name in sorted(filter(ITEM.fullmatch, names), key=_item_number)}
    if not items:
        raise SurveyError(f"{file}: no item columns (Q1 to Q290). {nearest('Q1', names)}")
    country, weight, interview, year = map(at.get, (COUNTRY, WEIGHT, INTERVIEW, YEAR))
    return _Layout(len(names), at[ALPHA], country, weight, interview, year, items), rows


def _read_people(
    file: Path, rows: Iterable[tuple[int, list[str]]], layout: _Layout, notices: Counter[str]
) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line number, country code and cells of each respondent; `notices` counts other rows."""
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
    """Return whether a row is a respondent's, not a computed average or blank."""
    if not any(row) or not row[layout.alpha].strip():
        return False
    return layout.country is None or bool(INTEGER.fullmatch(row[layout.country].strip()))


def _item_number(item: str) -> int:
    return int(item[1:])
