"""Sits open questions and judges answers offline: it can answer none, and grades by the words that
answer and reference share.

The grades are lexical. They prove the pipeline and nothing about what an answer means.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from culturepark.records import Request
from culturepark.wording import UNSPACED


def decline_question(facts: Mapping[str, Any]) -> str:
    """Say that an open question cannot be answered; nothing of it is said again, for its words
    would be graded.
    """
    return "I cannot answer open questions."


def grade_answer(facts: Mapping[str, Any]) -> str:
    """Return a judge's JSON: the overlap of what was `said` with the nearest `reference`, spread
    over the `scale`.

    Without a reference there is nothing to compare, and the grade is null.
    """
    low, high = facts["scale"]
    if not facts["reference"]:
        return json.dumps(
            {"grade": None, "reason": "lexical: there is no reference to compare with"}
        )
    shared = max(measure_overlap(facts["said"], reference) for reference in facts["reference"])
    why = (
        f"lexical: {shared:.2f} of the words are shared with the nearest reference; what they mean"
        " was not read"
    )
    return json.dumps({"grade": low + round(shared * (high - low)), "reason": why})


def measure_overlap(first: str, second: str) -> float:
    """Return the F1 of two texts' words (Rajpurkar et al. 2016, §6.1), character bigrams where a
    script has no spaces; 0 to 1.

    >>> overlap("Tea with milk", "Milk tea")
    0.8
    """
    a, b = Counter(split_words(first)), Counter(split_words(second))
    shared = (a & b).total()
    return 2 * shared / (a.total() + b.total()) if shared else 0.0


def split_words(text: str) -> list[str]:
    """Return a text's words, case and punctuation aside; of scripts without spaces, every two
    characters that follow each other.

    >>> pieces("Tea: 緑茶です")
    ['tea', '緑茶', '茶で', 'です']
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)
    spaced = UNSPACED.sub(lambda run: f" {' '.join(_split_pairs(run[0]))} ", plain)
    return spaced.split()


def _split_pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


# By the fact that tells what is asked: a judge's request has references, an open question's is
# marked as one.
GRADING: Mapping[str, Callable[[Request], str]] = {
    "reference": lambda request: grade_answer(request.facts),
    "open": lambda request: decline_question(request.facts),
}
