"""Drops what this dialogue has already said in the same words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from culturepark.context import DialogueContext
from culturepark.records import Opinion

WORD = re.compile(r"\w+")


def sieve(opinion: Opinion, context: DialogueContext, earlier: Sequence[Opinion]) -> str | None:
    """Return which earlier opinion says the same, whatever the case and punctuation."""
    own = folded(opinion.text)
    same = next((o for o in earlier if folded(o.text) == own), None)
    return f"says again what opinion {same.n} (turn {same.turn}) said" if same else None


def folded(text: str) -> str:
    """Return the words of a text, lower-cased, one space between."""
    return " ".join(WORD.findall(text.casefold()))
