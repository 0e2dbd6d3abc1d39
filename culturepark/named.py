"""Finds what `package.module:attribute` names: models, sieves, embedders, parsers, scores and kinds
of one's own.
"""

from __future__ import annotations

import importlib
from typing import Any

from culturepark.errors import InputError


def imported(name: str, told: str, hint: str = "") -> Any:
    """Return what a name stands for; InputError, which begins as `told`, where it cannot be
    imported.

    >>> imported("culturepark.wording:SYSTEM", "cannot import text")[:7]
    'You are'
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{told} {name!r}: {error}{hint}") from error
