"""Plants known faults in delegates' turns, so that filters can be measured against the truth."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from culturepark.errors import InputError, nearest
from culturepark.offline.phrases import fill_phrase, load_bank
from culturepark.offline.reading import find_opinions, inline_opinion
from culturepark.offline.speech import Talk, read_facts, state_opinion
from culturepark.offline.stance import read_side
from culturepark.records import Fault, stream

KINDS: tuple[str, ...] = get_args(Fault.model_fields["kind"].annotation)


def check_rates(rates: Mapping[str, float]) -> dict[str, float]:
    """Return the rates of faults by kind, in the order of KINDS; InputError for a kind or rate that
    cannot be.
    """
    for kind, rate in rates.items():
        if kind not in KINDS:
            raise InputError(f"no fault {kind!r} to plant. {nearest(kind, KINDS)}")
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise InputError(f"fault {kind}: the rate {rate!r} is not a number from 0 to 1")
    if sum(rates.values()) > 1 + 1e-9:
        raise InputError(
            f"the fault rates add up to {sum(rates.values()):.2f}; a turn carries at most one"
            " fault, so at most to 1"
        )
    return {kind: float(rates[kind]) for kind in KINDS if kind in rates}


def plant_fault(
    rates: Mapping[str, float], facts: Mapping[str, Any], said: Sequence[str]
) -> tuple[list[str], tuple[Fault, ...]]:
    """Return a turn's sentences, with a fault in them if this turn's draw says so, and what was
    planted.
    """
    rng = stream(facts["dialogue"], facts["n"], "fault")
    kind = rng.choices([*rates, ""], [*rates.values(), max(0.0, 1 - sum(rates.values()))])[0]
    if not kind:
        return list(said), ()
    sentence = write_fault(kind, facts, said, rng)
    if not sentence:
        return list(said), ()
    planted = (Fault.model_validate({"kind": kind, "sentence": sentence}),)
    if kind == "refusal":
        return [sentence], planted
    place = min(len(said), 1 + rng.randrange(2))
    # A question stays last; a long turn gives up a sentence for the planted one.
    return [*said[:place], sentence, *said[place + (len(said) > 3) :]], planted


def write_fault(
    kind: str, facts: Mapping[str, Any], said: Sequence[str], rng: random.Random
) -> str:
    """Return the sentence of a fault; empty where it cannot be planted."""
    talk = replace(read_facts(facts), rng=rng)
    if kind == "refusal":
        return fill_phrase(rng.choice(load_bank()["faults"]["refusal"]), talk.words)
    if kind == "duplicate":
        return repeat_opinion(talk, rng)
    if kind == "contradiction":
        return write_contradiction(talk, said)
    if kind == "drift":
        return write_drift(talk, rng)
    claim, reason = rng.choice(load_bank()["faults"]["matters"])
    frames = [
        f
        for f in load_bank()["stance"]["plain"]
        if f.startswith("I ") or f.startswith("In my") or f.startswith("To my")
    ]
    return fill_phrase(
        rng.choice(frames), {**talk.words, "claim": claim, "why": f" because {reason}"}
    )


def write_contradiction(talk: Talk, said: Sequence[str]) -> str:
    """Return an opinion that takes the other side, worded as the honest ones are."""
    if not talk.degree:
        return ""
    sides = talk.sides._replace(
        claim=talk.sides.against,
        against=talk.sides.claim,
        reasons=talk.sides.counters,
        counters=talk.sides.reasons,
    )
    return state_opinion(
        replace(talk, sides=sides, degree=-0.5 if talk.degree > 0 else 0.5), list(said)
    )


def write_drift(talk: Talk, rng: random.Random) -> str:
    """Return an opinion that gives the speaker another age or home than the card, and another
    work.
    """
    me = talk.facts["me"]
    age = rng.choice([a for a in range(19, 83) if abs(a - me.age) > 9])
    home = rng.choice(
        [
            h
            for h in load_bank()["faults"]["homes"]
            if h not in me.home and h not in talk.words["place"]
        ]
    )
    work = rng.choice([w for w in load_bank()["faults"]["works"] if w not in me.work])
    person = rng.choice(
        [
            f"{choose_article(age)} {age}-year-old {work} from {home}",
            f"a {work} from {home}",
            f"{choose_article(age)} {age}-year-old {work}",
        ]
    )
    claim, reason = rng.choice(talk.sides.claim), rng.choice(talk.sides.reasons)
    why = f" because {reason}" if talk.degree else ""
    if not talk.degree:
        claim = f"it is hard to say whether {claim} or whether {rng.choice(talk.sides.against)}"
    return fill_phrase(
        rng.choice(load_bank()["faults"]["drift"]),
        {**talk.words, "person": person, "claim": claim, "why": why},
    )


def choose_article(age: int) -> str:
    """Return the article before an age: an 18-year-old, a 70-year-old."""
    return "an" if age in (8, 11, 18) or 80 <= age < 90 else "a"


def repeat_opinion(talk: Talk, rng: random.Random) -> str:
    """Return an opinion of the speaker's own earlier turns with another lead-in; empty where there
    is none.
    """
    mine = [t for t in talk.history if t.seat == talk.seat]
    earlier = [text for _, text in find_opinions(mine, talk.question, talk.words["place"])]
    on_it = [
        text
        for text in earlier
        if not talk.degree or read_side(text, talk.question) * talk.degree > 0
    ]
    if not (on_it or earlier):
        return ""
    text = rng.choice(on_it or earlier)
    bare = inline_opinion(text, talk.question)
    if bare is None:
        return f"Let me say it once more: {text}"
    return fill_phrase(rng.choice(load_bank()["faults"]["again"]), {"opinion": bare})
