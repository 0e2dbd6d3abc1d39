"""Hofstede's six dimensions of 111 countries and regions."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from culturepark.errors import NotFound
from culturepark.records import Dimensions
from culturepark.surveys.names import NAMES


@cache
def load_dimensions() -> tuple[Dimensions, ...]:
    """Return every country and region; dimensions range from 0 to about 100, None if unpublished.

    Source: Hofstede, Hofstede & Minkov (2010), file of 2015-08-16. Codes are theirs, not ISO's:
    Germany is GER, China CHI, and regions such as ARA (Arab countries) have codes too.
    """
    data = json.loads(
        files("culturepark.surveys").joinpath("hofstede.json").read_text(encoding="utf-8")
    )
    return tuple(Dimensions(code=code, **entry) for code, entry in data["dimensions"].items())


@cache
def _by_code() -> dict[str, Dimensions]:
    return {d.code: d for d in load_dimensions()}


def hofstede(code: str) -> Dimensions:
    """Return the dimensions of one of Hofstede's codes.

    Raises NotFound with the nearest code and, for an ISO code or a country's name, Hofstede's.
    """
    by_code = _by_code()
    if code not in by_code:
        # ISO's DEU looks most like DEN, Denmark; name Germany's code here.
        namesakes = [
            d
            for d in by_code.values()
            if d.title.casefold() in (NAMES.get(code.upper(), code).casefold(), code.casefold())
        ]
        where = "Hofstede's dimensions" + "".join(
            f" (where {d.title} is {d.code!r})" for d in namesakes
        )
        raise NotFound("code", code, where, by_code)
    return by_code[code]
