"""Drops what is no opinion by its form: bullets, preambles, questions, fragments, essays,
markup.
"""

from __future__ import annotations

import re

from culturepark.context import DialogueContext
from culturepark.curation.filters import each_opinion
from culturepark.records import Opinion

SHORTEST, LONGEST = 4, 120  # words
RULES = (
    (re.compile(r"^\s*([-*•–]|\(?\d{1,2}[.)])\s"), "it starts with a bullet or number"),
    (
        re.compile(
            r"^(here (is|are)|sure[,!]|certainly|the following|opinions?:|below)\b", re.IGNORECASE
        ),
        "it is a preamble",
    ),
    (re.compile(r"\?\s*$"), "it is a question"),
    (re.compile(r"```|</?\w+>|\{\{|\}\}|^#+ "), "it holds markup"),
    (
        re.compile(r"\b(i|we|my|our|me|us|mine|ours|myself|ourselves)\b(?!\.)", re.IGNORECASE),
        "it holds a first-person pronoun",
    ),
)
UNITED_STATES = re.compile(r"\b(the )?US\b")


@each_opinion
def apply(opinion: Opinion, context: DialogueContext) -> str | None:
    """Return the first rule of form that the opinion breaks."""
    words = len(opinion.text.split())
    if not SHORTEST <= words <= LONGEST:
        return f"{words} words; an opinion has {SHORTEST} to {LONGEST}"
    text = UNITED_STATES.sub("America", opinion.text)
    return next((why for pattern, why in RULES if pattern.search(text)), None)
