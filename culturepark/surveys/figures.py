"""Holds a survey's answers by country and item, and loads the ones that are shipped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from math import fsum
from typing import Any

from pydantic import Field

from culturepark.errors import NotFound
from culturepark.records import Distribution, Record, digest


class Figures(Record):
    """What the peoples of one survey answered.

    `table` holds a Distribution by country code (ISO 3166 alpha-3), then item; an item never asked
    in a country, or never validly answered, is absent there. `names` holds the countries' names,
    `years` those of the interviews where known, `weighted` the countries whose shares use the
    release's weights, `source` the name of the release. `notices` counts what the reader left out
    or took for missing: duplicate interviews, codes that are no answers.
    """

    survey: str
    source: str
    names: dict[str, str]
    years: tuple[int, ...] = ()
    weighted: tuple[str, ...] = ()
    table: dict[str, dict[str, Distribution]]
    notices: dict[str, int] = Field(default_factory=dict)

    def format_notices(self) -> str:
        """Return the notices in one line; empty if there are none."""
        return "; ".join(f"{what}: {n:,}" for what, n in self.notices.items())

    def describe_weights(self) -> str:
        """Return in words whether shares are weighted.

        >>> load_shipped().describe_weights()
        'unweighted'
        """
        bare = [country for country in self.countries() if country not in self.weighted]
        if not self.weighted:
            return "unweighted"
        return "weighted by W_WEIGHT" + (f", but for {', '.join(bare)}" if bare else "")

    def describe(self, countries: Iterable[str]) -> dict[str, Any]:
        """Return survey, source, years, weights, hash, and how many people of these countries
        answered a question (smallest to largest count).
        """
        counts = [
            distribution.n
            for country in countries
            for distribution in self.table.get(country, {}).values()
        ]
        years = sorted({self.years[0], self.years[-1]}) if self.years else []
        return {
            "survey": self.survey,
            "source": self.source,
            "years": "–".join(map(str, years)) or "not told",
            "weights": self.describe_weights(),
            "n": f"{min(counts):,} to {max(counts):,}" if counts else "0",
            "hash": digest(self.model_dump(mode="json", exclude={"source", "notices"}), size=4),
        }

    def countries(self) -> tuple[str, ...]:
        """Return the country codes, sorted."""
        return tuple(sorted(self.table))

    def items(self, country: str) -> tuple[str, ...]:
        """Return the items that this country answered, in the survey's order.

        Raises NotFound, with the nearest code, for a country that the survey lacks.
        """
        self.country_name(country)
        return tuple(self.table[country])

    def country_name(self, country: str) -> str:
        """Return the country's English name; raises NotFound with the nearest code."""
        if country not in self.table:
            raise NotFound("country", country, self.source, self.table)
        return self.names.get(country, country)

    def get(self, country: str, item: str) -> Distribution | None:
        """Return what one country answered; None if the item was never asked there."""
        return self.table.get(country, {}).get(item)

    def pool(self, countries: Iterable[str], item: str) -> Distribution | None:
        """Return the mean of several countries' distributions, each country with the same weight.

        Countries without figures are left out; `countries` of the result names those that count,
        and None is returned if there are none. `n` and the respondents behind `missing` are summed.
        """
        distributions = [s for c in dict.fromkeys(countries) if (s := self.get(c, item))]
        if not distributions:
            return None
        n = sum(s.n for s in distributions)
        respondents = sum(_respondents(s) for s in distributions)
        codes = sorted({code for s in distributions for code in s.shares})
        return Distribution(
            survey=self.survey,
            countries=tuple(c for s in distributions for c in s.countries),
            item=item,
            n=n,
            missing=(respondents - n) / respondents,
            shares={
                code: fsum(s.shares.get(code, 0.0) for s in distributions) / len(distributions)
                for code in codes
            },
        )


def _respondents(distribution: Distribution) -> int:
    """Return how many people were interviewed: `missing` is (respondents - n) / respondents."""
    return round(distribution.n / (1 - distribution.missing))


@cache
def load_shipped() -> Figures:
    """Return the shipped figures: 15 countries, 50 items, unweighted.

    Source: World Values Survey wave 7 (Haerpfer et al. 2022, doi 10.14281/18241.20);
    `culturepark.surveys.build` says how the file was made.
    """
    data = json.loads(
        files("culturepark.surveys").joinpath("figures.json").read_text(encoding="utf-8")
    )
    return Figures(
        survey=data["survey"],
        source=data["version"],
        names=data["countries"],
        years=(2017, 2022),
        table={
            country: {
                item: Distribution(
                    survey=data["survey"],
                    countries=(country,),
                    item=item,
                    n=entry["n"],
                    missing=entry["missing"] / (entry["n"] + entry["missing"]),
                    shares={int(code): share for code, share in entry["shares"].items()},
                )
                for item, entry in items.items()
            }
            for country, items in data["figures"].items()
        },
    )
