"""Writes the shipped figures: `python -m culturepark.surveys.build SURVEY_FOLDER HOFSTEDE_CSV`.

SURVEY_FOLDER holds the national files of WVS wave 7 that Li et al. (2024) used as seeds,
HOFSTEDE_CSV is "six dimensions", 2015-08-16, `;` separated. It writes figures.json (15 countries ×
50 items: valid answers, missing answers, share of each option) and hofstede.json beside this
module. The files hold neither the respondents' answers nor the questions' wording.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from culturepark import tables
from culturepark.records import Distribution
from culturepark.surveys.figures import Figures
from culturepark.surveys.scales import SCALES
from culturepark.surveys.wvs import read_release

COUNTRIES = (
    *("ARG", "BGD", "BRA", "CHN", "DEU", "KOR", "TUR", "USA"),
    *("EGY", "IRQ", "JOR", "LBN", "LBY", "MAR", "TUN"),  # Arabic
)
# The 50 items of CulturePark, first and last of each block.
BLOCKS = ((27, 41), (122, 129), (132, 138), (158, 162), (169, 170), (196, 198), (224, 233))
OPTIONS = {f"Q{n}": SCALES[f"Q{n}"] for first, last in BLOCKS for n in range(first, last + 1)}
PLACES = 6


def build_survey(figures: Figures, day: date) -> dict[str, Any]:
    """Return the content of figures.json; `missing` counts respondents without a valid answer."""
    return {
        "survey": figures.survey,
        "version": "national files of WVS wave 7, 2017–2022, as used by Li et al. 2024",
        "doi": "10.14281/18241.20",
        "computed": day.isoformat(),
        "weights": (
            f"W_WEIGHT in {len(figures.weighted)} countries"
            if figures.weighted
            else "unweighted: the files hold no W_WEIGHT"
        ),
        "countries": {country: figures.country_name(country) for country in figures.countries()},
        "figures": {
            country: {
                item: _round_shares(distribution)
                for item, distribution in figures.table[country].items()
            }
            for country in figures.countries()
        },
    }


def _round_shares(distribution: Distribution) -> dict[str, Any]:
    """Return rounded shares that sum to 1: the largest takes up the rounding error."""
    by_code = {code: round(share, PLACES) for code, share in distribution.shares.items()}
    by_code[distribution.modal] = round(
        by_code[distribution.modal] + 1 - sum(by_code.values()), PLACES
    )
    missing = round(distribution.n * distribution.missing / (1 - distribution.missing))
    return {
        "n": distribution.n,
        "missing": missing,
        "shares": {str(c): s for c, s in by_code.items()},
    }


def build_hofstede(path: Path) -> dict[str, Any]:
    """Return the content of hofstede.json; `#NULL!` is null."""
    rows = [row.cells for row in tables.read(path).rows]
    return {
        "source": (
            "Hofstede, Hofstede & Minkov (2010), Cultures and Organizations; file of 2015-08-16"
        ),
        "dimensions": {row["ctr"]: {"title": row["country"]} | _read_scores(row) for row in rows},
    }


def _read_scores(row: Mapping[str, str]) -> dict[str, int | None]:
    columns = {name: name for name in ("pdi", "idv", "mas", "uai")} | {
        "lto": "ltowvs",
        "ivr": "ivr",
    }
    return {
        name: None if tables.is_missing(row[column]) else int(row[column])
        for name, column in columns.items()
    }


def _format_json(value: Any, depth: int) -> str:
    """Return JSON with one line per figure, so that a changed figure is one changed line.

    The first `depth` levels are broken into lines.
    """
    if depth == 0 or not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return (
        "{\n"
        + ",\n".join(f"{json.dumps(key)}: {_format_json(v, depth - 1)}" for key, v in value.items())
        + "\n}"
    )


def write_figures(folder: str, dimensions: str) -> None:
    """Write both files beside this module."""
    here = Path(__file__).parent
    figures = read_release(folder, countries=COUNTRIES, items=OPTIONS, valid=OPTIONS)
    for name, content, depth in (
        ("figures.json", build_survey(figures, date.today()), 3),
        ("hofstede.json", build_hofstede(Path(dimensions)), 2),
    ):
        (here / name).write_text(_format_json(content, depth) + "\n", encoding="utf-8")
        sys.stdout.write(f"{here / name}\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    write_figures(*sys.argv[1:])
