"""Measures how much two dialogues say alike."""

from __future__ import annotations

import re
from collections.abc import Iterable

from culturepark.offline.sentences import split_sentences

WORD = re.compile(r"\w+")


def shared_sentences(a: Iterable[str], b: Iterable[str]) -> float:
    """Return the share of the smaller dialogue's sentences that stand in the other too, case and
    punctuation aside.

    `a` and `b` are the turns of two dialogues; 0 where one of them is empty.
    """
    first, second = fold_sentences(a), fold_sentences(b)
    smaller = min(len(first), len(second))
    return len(first & second) / smaller if smaller else 0.0


def fold_sentences(turns: Iterable[str]) -> set[str]:
    """Return the sentences of turns without case and punctuation."""
    return {
        " ".join(WORD.findall(s.casefold())) for turn in turns for s in split_sentences(turn)
    } - {""}
