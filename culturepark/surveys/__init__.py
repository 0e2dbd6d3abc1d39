"""What surveys say: figures shipped with the package, and a reader for the official releases.

- `load_shipped()`: the 15 countries × 50 items of CulturePark.
- `load_survey(path)`: your own release, read once and its notices logged; without a path the
  shipped figures.
- `read_release(path)`: your own copy of the World Values Survey, wave 7.
- `hofstede(code)`: Hofstede's six dimensions of one country or region; `load_dimensions()`: of all.

Figures are distributions, counts and means; no respondent's answers are shipped.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from culturepark.surveys.figures import Figures, load_shipped
from culturepark.surveys.regions import hofstede, load_dimensions
from culturepark.surveys.wvs import read_release

__all__ = ["Figures", "hofstede", "load_dimensions", "load_shipped", "load_survey", "read_release"]
_RENAMED = {"shipped": "load_shipped", "read": "read_release", "dimensions": "load_dimensions"}
log = logging.getLogger("culturepark")


@lru_cache(maxsize=4)
def load_survey(path: str | None) -> Figures:
    """Return the figures of the user's own release; the shipped ones without a path."""
    if not path:
        return load_shipped()
    figures = read_release(path)
    if figures.notices:
        log.warning(
            "%s: %s",
            figures.source,
            figures.format_notices(),
            extra={"event": "survey_read", "notices": figures.notices},
        )
    return figures


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module 'culturepark.surveys' has no attribute {name!r}")
    import warnings

    new = _RENAMED[name]
    warnings.warn(f"surveys.{name} is now surveys.{new}", DeprecationWarning, stacklevel=2)
    return globals()[new]
