"""Figures: what the people of each country answered to each survey item, and the figures shipped with the park."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from culturepark.grounding.names import NAMES
from culturepark.records import Shares

SURVEY = "World Values Survey wave 7"
DOI = "10.14281/18241.20"  # Haerpfer et al. (2022)


@dataclass(frozen=True)
class Figures:
    """Shares by (ISO alpha-3 country, item id such as "Q33"); a pair never asked is absent.

    `weighted` holds the countries whose shares use the release's W_WEIGHT; in all others every
    respondent counts the same. `source` says which files were read, `skipped` how many of their
    rows were no person's (computed averages).
    """

    cells: Mapping[tuple[str, str], Shares]
    survey: str = SURVEY
    source: str = ""
    doi: str = DOI
    weighted: frozenset[str] = field(default=frozenset())
    skipped: int = 0

    def __post_init__(self) -> None:
        # A view of an own copy: whoever made the figures cannot change them afterwards either.
        object.__setattr__(self, "cells", MappingProxyType(dict(self.cells)))

    def get(self, country: str, item: str) -> Shares | None:
        """Return what a country's people answered; None where they were never asked."""
        return self.cells.get((country, item))

    def pool(self, countries: Iterable[str], item: str) -> Shares | None:
        """Return the shares of several countries together, each country weighing the same.

        `n` is the sum over the countries, `missing` the share of all their respondents. Countries
        never asked are left out: `countries` of the result names, in the given order, those that
        are in. None where no country was asked.
        """
        found = [s for c in dict.fromkeys(countries) if (s := self.get(c, item)) is not None]
        if len(found) < 2:
            return found[0] if found else None
        codes = sorted({code for s in found for code in s.shares})
        n, rows = sum(s.n for s in found), sum(respondents(s) for s in found)
        return Shares(
            survey=self.survey,
            countries=tuple(c for s in found for c in s.countries),
            item=item,
            n=n,
            missing=(rows - n) / rows,
            shares={code: sum(s.shares.get(code, 0.0) for s in found) / len(found) for code in codes},
        )

    def countries(self) -> tuple[str, ...]:
        """Return the codes of all countries, sorted."""
        return tuple(sorted({country for country, _ in self.cells}))

    def items(self, country: str) -> tuple[str, ...]:
        """Return the items asked in a country, in the questionnaire's order; none for an unknown one."""
        return tuple(sorted((i for c, i in self.cells if c == country), key=number))

    def country_name(self, country: str) -> str:
        """Return a country's English name; the code itself where the survey has no such country."""
        return NAMES.get(country, country)

    @property
    def weights(self) -> str:
        """How respondents were weighted, in words."""
        plain = [c for c in self.countries() if c not in self.weighted]
        if not self.weighted:
            return "unweighted"
        return "weighted by W_WEIGHT" + (f", save {', '.join(plain)} (unweighted)" if plain else "")


def number(item: str) -> tuple[int, str]:
    """Return the sorting key of an item: Q9 comes before Q27."""
    digits = item.removeprefix("Q")
    return (int(digits), item) if digits.isdecimal() else (1 << 31, item)


def respondents(shares: Shares) -> int:
    """Return how many people were asked or not, with and without a valid answer."""
    return round(shares.n / (1 - shares.missing))


def resource(name: str) -> Any:
    """Return the content of a JSON file shipped beside this module."""
    return json.loads(files("culturepark.grounding").joinpath(name).read_text(encoding="utf-8"))


@cache
def shipped() -> Figures:
    """Return the shipped figures: 15 countries, the 50 items of CulturePark, unweighted.

    Made by `culturepark.grounding.build`; source: Haerpfer et al. (2022), World Values Survey wave 7.
    """
    data = resource("figures.json")
    cells = {
        (country, item): Shares(
            survey=data["survey"],
            countries=(country,),
            item=item,
            n=cell["n"],
            missing=cell["missing"],
            shares={int(code): share for code, share in cell["shares"].items()},
        )
        for country, entry in data["countries"].items()
        for item, cell in entry["items"].items()
    }
    return Figures(
        cells=cells,
        survey=data["survey"],
        source=data["source"],
        doi=data["doi"],
        weighted=frozenset(c for c, entry in data["countries"].items() if entry["weighted"]),
        skipped=data["skipped"],
    )
