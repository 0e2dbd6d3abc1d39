"""Drops what comes from a turn in which the model refused to play, or spoke as a language model."""

from __future__ import annotations

import re

from culturepark.context import DialogueContext
from culturepark.curation.filters import each_opinion
from culturepark.records import Opinion

REFUSAL = re.compile(
    r"\bas an? (ai|artificial intelligence|(large )?language model|virtual assistant)\b"
    r"|\bi(['’]m| am) (just |only )?an? (ai|language model|virtual assistant)\b"
    r"|\bi(['’]m| am) (sorry|afraid|unable|not able|not comfortable|not in a"
    r" position)\b[^.!?]{0,60}"
    r"\b(can(['’]t|not)|unable|not"
    r" able|won['’]t|decline|engag|discuss|help|assist|comment|continue|provide|take"
    r" part|speak|role)"
    r"|\bi (must|have to|will have to) decline\b"
    r"|\bi (can(['’]t|not)|won['’]t) (to"
    r" )?(help|assist|provide|discuss|engage|comment|continue|take"
    r" part|role-?play|answer|generate|do that|share)\b"
    r"|\bi do(n['’]t| not) have (personal|any) (opinions?|beliefs?|views?|experiences?)\b",
    re.IGNORECASE,
)


@each_opinion
def apply(opinion: Opinion, context: DialogueContext) -> str | None:
    """Return the words by which the turn gives itself away."""
    turn = next((t for t in context.dialogue.turns if t.n == opinion.turn), None)
    match = REFUSAL.search(turn.text) if turn else None
    return f"the turn refuses: {match.group(0)!r}" if match else None
