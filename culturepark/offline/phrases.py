"""Reads the phrase bank and fills its phrases; what is picked is permuted for a dialogue and
indexed by turn.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

from culturepark.offline.sentences import capitalize_start
from culturepark.records import Question, stream


@lru_cache(maxsize=1)
def load_bank() -> dict[str, Any]:
    """Return the phrase bank."""
    card = tomllib.loads(
        resources.files(__package__).joinpath("phrases.toml").read_text(encoding="utf-8")
    )
    return {
        key: value if isinstance(value, (str, dict)) else tuple(value)
        for key, value in card.items()
    }


@lru_cache(maxsize=16_384)
def shuffle_numbers(size: int, *name: Any) -> tuple[int, ...]:
    """Return the numbers below `size` in the order of the random stream of this name.

    A pure function of its arguments, kept because every turn of a dialogue asks for the same
    orders.
    """
    rng = stream(*name)
    return tuple(rng.sample(range(size), size))


def fill_phrase(phrase: str, words: dict[str, str]) -> str:
    """Fill a phrase's slots; a capital at its start."""
    return capitalize_start(phrase.format_map(words))


class Sides(NamedTuple):
    """What may be said for a side and against it."""

    claim: tuple[str, ...]
    against: tuple[str, ...]
    reasons: tuple[str, ...]
    counters: tuple[str, ...]
    authored: bool


def choose_clauses(question: Question, answer: int | None) -> Sides:
    """Return a question's clauses seen from an answer; made of its labels where the card brings
    none.
    """
    return _choose_clauses(question, answer, question.id, question.claim, question.about)


_SIDES: dict[Any, Sides] = {}


def _choose_clauses(question: Question, answer: int | None, *key: Any) -> Sides:
    name = (answer, *key, question.denial, question.pros, question.cons)
    if name not in _SIDES:
        if len(_SIDES) > 4096:
            _SIDES.clear()
        _SIDES[name] = _build_sides(question, answer)
    return _SIDES[name]


def _build_sides(question: Question, answer: int | None) -> Sides:
    q, spare = question, load_bank()["generic"]
    degree = 0.0 if answer is None else q.option(answer).degree
    if q.claim and q.denial:
        pros, cons = q.pros or tuple(spare["reason"]), q.cons or tuple(spare["counter"])
        return (
            Sides(q.denial, q.claim, cons, pros, True)
            if degree < 0
            else Sides(q.claim, q.denial, pros, cons, True)
        )
    ends = sorted(q.options, key=lambda o: o.degree)
    own = answer if answer is not None and degree else ends[-1].code
    other = ends[0].code if q.option(own).degree > 0 or own == ends[-1].code else ends[-1].code
    made = [
        tuple(c.format(label=q.say(code), about=q.about) for c in spare["claim"])
        for code in (own, other)
    ]
    return Sides(made[0], made[1], tuple(spare["reason"]), tuple(spare["counter"]), False)
