"""Drops what this dialogue has already said in the same words."""

from __future__ import annotations

import re

from culturepark.context import DialogueContext
from culturepark.curation.filters import Batch, Reason
from culturepark.records import Opinion

WORD = re.compile(r"\w+")


def apply(batch: Batch, context: DialogueContext) -> list[Reason]:
    """Return for each opinion which earlier one of its culture says the same, whatever the case and
    punctuation.
    """
    first: dict[tuple[str, str], Opinion] = {}
    for opinion in batch:
        first.setdefault(_key(opinion, context), opinion)
    return [_name_same(opinion, first[_key(opinion, context)]) for opinion in batch]


def _key(opinion: Opinion, context: DialogueContext) -> tuple[str, str]:
    return context.scene.seats[opinion.seat].culture, fold_words(opinion.text)


def _name_same(opinion: Opinion, first: Opinion) -> str | None:
    if opinion is first:
        return None
    return f"says again what opinion {first.n} (turn {first.turn}) said"


def fold_words(text: str) -> str:
    """Return the words of a text, lower-cased, one space between."""
    return " ".join(WORD.findall(text.casefold()))
