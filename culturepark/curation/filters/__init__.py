"""Sieves: one file each, one function each: `sieve(opinion, case, earlier) -> why it must go, or
None`.

`earlier` holds the opinions of this dialogue that have passed so far. To add one, write a module
here with a function `sieve` and name it in SIEVES; or keep it in your own package and name it
`package.module:function` in the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from culturepark.curation.case import Case
from culturepark.errors import InputError, nearest
from culturepark.named import imported
from culturepark.records import Opinion

Sieve = Callable[[Opinion, Case, Sequence[Opinion]], str | None]

SIEVES = {
    "refusal": "culturepark.curation.filters.refusal:sieve",
    "form": "culturepark.curation.filters.form:sieve",
    "anchors": "culturepark.curation.filters.anchors:sieve",
    "repeat": "culturepark.curation.filters.repeat:sieve",
}


@lru_cache(maxsize=64)
def load(name: str) -> Sieve:
    """Return the sieve of this short name or `package.module:function`."""
    path = SIEVES.get(name, name)
    if ":" not in path:
        raise InputError(
            f"no sieve {name!r}. {nearest(name, SIEVES)} Or package.module:function for one of your"
            " own."
        )
    found: Sieve = imported(path, "cannot import sieve")
    return found
