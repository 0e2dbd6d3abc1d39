"""Makes the shipped figures: `python -m culturepark.grounding.build SURVEY_FOLDER HOFSTEDE_CSV [DATE]`.

Writes `figures.json` and `hofstede.json` beside this module. SURVEY_FOLDER held the national files of
World Values Survey wave 7 with the items that Li et al. (2024) used as seeds; HOFSTEDE_CSV is the
authors' table of 2015-08-16. Only figures are written: no respondent's row and no question wording.
Shares are kept at full precision, so that reading the survey again gives equal figures.
"""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

from culturepark.grounding.figures import Figures
from culturepark.grounding.scores import table
from culturepark.grounding.wvs import read
from culturepark.records import Dimensions

COUNTRIES = ("ARG", "BGD", "BRA", "CHN", "DEU", "EGY", "IRQ", "JOR", "KOR", "LBN", "LBY", "MAR", "TUN", "TUR", "USA")
RANGES = ((27, 41), (122, 129), (132, 138), (158, 162), (169, 170), (196, 198), (224, 233))
ITEMS = tuple(f"Q{n}" for first, last in RANGES for n in range(first, last + 1))


def figures(found: Figures, computed: str) -> dict[str, Any]:
    """Return the content of `figures.json`; `computed` is an ISO date."""
    return {
        "survey": found.survey,
        "source": "national files of WVS wave 7, 2017–2022 as used by Li et al. 2024",
        "doi": found.doi,
        "computed": computed,
        "weights": found.weights,
        "skipped": found.skipped,
        "countries": {
            country: {
                "name": found.country_name(country),
                "weighted": country in found.weighted,
                "items": {
                    item: shares.model_dump(include={"n", "missing", "shares"})
                    for item in found.items(country)
                    if (shares := found.get(country, item)) is not None
                },
            }
            for country in found.countries()
        },
    }


def scores(found: tuple[Dimensions, ...]) -> dict[str, Any]:
    """Return the content of `hofstede.json`."""
    return {
        "source": "Hofstede, Hofstede & Minkov (2010), six dimensions, version 2015-08-16",
        "dimensions": [entry.model_dump() for entry in found],
    }


def lines(data: Any, depth: int) -> str:
    """Return JSON that breaks lines down to `depth` levels only: one line an item, small to review."""
    if depth and isinstance(data, dict):
        inner = (f"{json.dumps(k, ensure_ascii=False)}: {lines(v, depth - 1)}" for k, v in data.items())
        return "{\n" + ",\n".join(inner) + "\n}"
    if depth and isinstance(data, list):
        return "[\n" + ",\n".join(lines(v, depth - 1) for v in data) + "\n]"
    return json.dumps(data, ensure_ascii=False)


def main(survey: str, hofstede: str, computed: str = "") -> None:
    """Write both files. Raises SurveyError where an input cannot be read."""
    here = Path(__file__).parent
    found = figures(read(survey, COUNTRIES, ITEMS), computed or date.today().isoformat())
    (here / "figures.json").write_text(lines(found, 4) + "\n", encoding="utf-8", newline="\n")
    (here / "hofstede.json").write_text(lines(scores(table(hofstede)), 2) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
