"""Gives Hofstede's six dimensions of 111 countries and regions."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from culturepark.errors import NotFound
from culturepark.records import Dimensions
from culturepark.surveys.names import NAMES


@cache
def dimensions() -> tuple[Dimensions, ...]:
    """Return every country and region, each dimension roughly 0 to 100 (some exceed it), None if
    unpublished.

    Source: Hofstede, Hofstede & Minkov (2010), file of 2015-08-16. Codes are theirs, not ISO's:
    Germany is GER, China CHI, and regions such as ARA (Arab countries) have codes too.
    """
    data = json.loads(
        files("culturepark.surveys").joinpath("hofstede.json").read_text(encoding="utf-8")
    )
    return tuple(Dimensions(code=code, **entry) for code, entry in data["dimensions"].items())


@cache
def _by_code() -> dict[str, Dimensions]:
    return {d.code: d for d in dimensions()}


def hofstede(code: str) -> Dimensions:
    """Return the dimensions under one of Hofstede's codes; NotFound names the nearest, and the one
    of an ISO code.
    """
    known = _by_code()
    if code not in known:
        # ISO's DEU looks most like DEN, Denmark; say what Germany is called here. Names of
        # countries are told theirs too.
        same = [
            d
            for d in known.values()
            if d.title.casefold() in (NAMES.get(code.upper(), code).casefold(), code.casefold())
        ]
        where = "Hofstede's dimensions" + "".join(f" (where {d.title} is {d.code!r})" for d in same)
        raise NotFound("code", code, where, known)
    return known[code]
