"""Keys: where they are looked for, and how they are kept out of everything that is written or printed."""

from __future__ import annotations

import os
import re

_SEEN: set[str] = set()
HEADER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}")


def secret(*names: str) -> str | None:
    """Return the first of these environment variables that is set and not blank."""
    return next((value for n in names if (value := os.environ.get(n, "").strip())), None)


def remember(key: str | None) -> str | None:
    """Note a key, so that `redact` knows it, and return it."""
    if key and len(key) > 4:
        _SEEN.add(key)
    return key


def masked(text: str) -> str:
    """Return the text without any key that was ever used here."""
    for key in _SEEN:
        text = text.replace(key, "[key]")
    return text


def redact(text: str) -> str:
    """Return the text without any key that was ever used here and without authorization headers."""
    return HEADER.sub(r"\1 [key]", masked(text))
