"""Sieves: one file each, one function each: `sieve(opinion, case, earlier) -> why it must go, or None`.

`earlier` holds the opinions of this dialogue that have passed so far. To add one, write a module here with a function
`sieve` and name it in SIEVES; or keep it in your own package and name it `package.module:function` in the settings.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import lru_cache

from culturepark.errors import InputError, nearest
from culturepark.records import Opinion
from culturepark.refinery.case import Case

Sieve = Callable[[Opinion, Case, Sequence[Opinion]], str | None]

SIEVES = {
    "refusal": "culturepark.refinery.sieves.refusal:sieve",
    "form": "culturepark.refinery.sieves.form:sieve",
    "anchors": "culturepark.refinery.sieves.anchors:sieve",
    "repeat": "culturepark.refinery.sieves.repeat:sieve",
}


@lru_cache(maxsize=64)
def load(name: str) -> Sieve:
    """Return the sieve of this short name or `package.module:function`."""
    module, colon, attribute = SIEVES.get(name, name).partition(":")
    if not colon:
        raise InputError(f"no sieve {name!r}. {nearest(name, SIEVES)} Or package.module:function for one of your own.")
    try:
        found: Sieve = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"cannot import sieve {name!r}: {error}") from error
    return found
