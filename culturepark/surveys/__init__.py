"""What surveys say: figures shipped with the package, and a reader for the official releases.

    shipped()                 the 15 countries × 50 items of CulturePark surveyed(path)
    either: your own, read once and with its notices told, or, without a path, the shipped ones
    read(path)                the same from your own copy of the World Values Survey, wave 7
    hofstede(code)            Hofstede's six dimensions of one country or region dimensions()
    all of them

Figures are shares, counts and means; no respondent's answers are shipped.
"""

from __future__ import annotations

import logging
from functools import lru_cache

from culturepark.surveys.figures import Figures, shipped
from culturepark.surveys.regions import dimensions, hofstede
from culturepark.surveys.wvs import read

__all__ = ["Figures", "dimensions", "hofstede", "read", "shipped", "surveyed"]
log = logging.getLogger("culturepark")


@lru_cache(maxsize=4)
def surveyed(survey: str | None) -> Figures:
    """Return the shipped figures, or those of the user's own release."""
    if not survey:
        return shipped()
    found = read(survey)
    if found.notices:
        log.warning(
            "%s: %s",
            found.source,
            found.noticed(),
            extra={"event": "survey_read", "notices": found.notices},
        )
    return found
