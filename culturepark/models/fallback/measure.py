"""Measures how much two dialogues say alike."""

from __future__ import annotations

import re
from collections.abc import Iterable

from culturepark.models.fallback.reading import sentences

WORD = re.compile(r"\w+")


def shared_sentences(a: Iterable[str], b: Iterable[str]) -> float:
    """Return the share of the shorter text's sentences that stand in the other too, case and punctuation aside.

    `a` and `b` are the turns of two dialogues; 0 where one of them is empty.
    """
    first, second = ({" ".join(WORD.findall(s.casefold())) for t in turns for s in sentences(t)} for turns in (a, b))
    smaller = min(len(first), len(second))
    return len(first & second) / smaller if smaller else 0.0
