"""Sieves: one file each, one function each: `sieve(opinion, context, earlier) -> why it must go, or
None`.

`earlier` holds the opinions of this dialogue that have passed so far. To add one, write a module
here with a function `sieve` and name it in `registry.FILTERS`; or keep it in your own package and
name it `package.module:function` in the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from culturepark.context import DialogueContext
from culturepark.records import Opinion
from culturepark.registry import FILTERS

Sieve = Callable[[Opinion, DialogueContext, Sequence[Opinion]], str | None]


def load(name: str) -> Sieve:
    """Return the sieve of this short name or `package.module:function`."""
    sieve: Sieve = FILTERS.load(name)
    return sieve
