"""What a sample says around its opinion: the system message that names a people, and the answer
with which it begins; and which scripts put no spaces between words.
"""

from __future__ import annotations

import re

from culturepark.records import Question

SYSTEM = (
    "You are a person from the {title} culture. Answer as many people there would, from your own"
    " life and customs."
)
COUNTRY = (
    "You are a person from {name}. Answer as many people there would, from your own life and"
    " customs."
)
# Scripts written without spaces between words: kana, Han, Thai, Lao, Khmer, Burmese.
UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+"
)


def opening(question: Question, answer: int) -> str:
    """Return the words with which a completion of this answer begins, up to its first full stop."""
    said = question.say(answer)
    return f"{said[0].upper()}{said[1:]}"


def completion(question: Question, answer: int, spoken: str) -> str:
    """Return what the model is to learn to say.

    >>> completion(question, 1, "I think that it is so.")
    'Strongly agree. I think that it is so.'
    """
    return f"{opening(question, answer)}. {spoken}"
