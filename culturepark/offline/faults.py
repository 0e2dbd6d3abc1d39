"""Plants known faults in delegates' turns, so that filters can be measured against the truth."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from culturepark.errors import InputError, nearest
from culturepark.offline.phrases import bank, fill
from culturepark.offline.reading import again, opinions
from culturepark.offline.speech import Talk, listen, opinion
from culturepark.offline.stance import side
from culturepark.records import Fault, stream

KINDS: tuple[str, ...] = get_args(Fault.model_fields["kind"].annotation)


def checked(rates: Mapping[str, float]) -> dict[str, float]:
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


def plant(
    rates: Mapping[str, float], facts: Mapping[str, Any], said: Sequence[str]
) -> tuple[list[str], tuple[Fault, ...]]:
    """Return a turn's sentences, with a fault in them if this turn's draw says so, and what was
    planted.
    """
    rng = stream(facts["dialogue"], facts["n"], "fault")
    kind = rng.choices([*rates, ""], [*rates.values(), max(0.0, 1 - sum(rates.values()))])[0]
    if not kind:
        return list(said), ()
    sentence = make(kind, facts, said, rng)
    if not sentence:
        return list(said), ()
    planted = (Fault.model_validate({"kind": kind, "sentence": sentence}),)
    if kind == "refusal":
        return [sentence], planted
    place = min(len(said), 1 + rng.randrange(2))
    # A question stays last; a long turn gives up a sentence for the planted one.
    return [*said[:place], sentence, *said[place + (len(said) > 3) :]], planted


def make(kind: str, facts: Mapping[str, Any], said: Sequence[str], rng: random.Random) -> str:
    """Return the sentence of a fault; empty where it cannot be planted."""
    talk = replace(listen(facts), rng=rng)
    if kind == "refusal":
        return fill(rng.choice(bank()["faults"]["refusal"]), talk.words)
    if kind == "duplicate":
        return repeated(talk, rng)
    if kind == "contradiction":
        return contrary(talk, said)
    if kind == "drift":
        return drifted(talk, rng)
    claim, reason = rng.choice(bank()["faults"]["matters"])
    frames = [
        f
        for f in bank()["stance"]["plain"]
        if f.startswith("I ") or f.startswith("In my") or f.startswith("To my")
    ]
    return fill(rng.choice(frames), {**talk.words, "claim": claim, "why": f" because {reason}"})


def contrary(talk: Talk, said: Sequence[str]) -> str:
    """Return an opinion that takes the other side, worded as the honest ones are."""
    if not talk.degree:
        return ""
    sides = talk.sides._replace(
        claim=talk.sides.against,
        against=talk.sides.claim,
        reasons=talk.sides.counters,
        counters=talk.sides.reasons,
    )
    return opinion(replace(talk, sides=sides, degree=-0.5 if talk.degree > 0 else 0.5), list(said))


def drifted(talk: Talk, rng: random.Random) -> str:
    """Return an opinion that gives the speaker another age or home than the card, and another
    work.
    """
    me = talk.facts["me"]
    age = rng.choice([a for a in range(19, 83) if abs(a - me.age) > 9])
    home = rng.choice(
        [h for h in bank()["faults"]["homes"] if h not in me.home and h not in talk.words["place"]]
    )
    work = rng.choice([w for w in bank()["faults"]["works"] if w not in me.work])
    person = rng.choice(
        [
            f"{article(age)} {age}-year-old {work} from {home}",
            f"a {work} from {home}",
            f"{article(age)} {age}-year-old {work}",
        ]
    )
    claim, reason = rng.choice(talk.sides.claim), rng.choice(talk.sides.reasons)
    why = f" because {reason}" if talk.degree else ""
    if not talk.degree:
        claim = f"it is hard to say whether {claim} or whether {rng.choice(talk.sides.against)}"
    return fill(
        rng.choice(bank()["faults"]["drift"]),
        {**talk.words, "person": person, "claim": claim, "why": why},
    )


def article(age: int) -> str:
    """Return the article before an age: an 18-year-old, a 70-year-old."""
    return "an" if age in (8, 11, 18) or 80 <= age < 90 else "a"


def repeated(talk: Talk, rng: random.Random) -> str:
    """Return an opinion of the speaker's own earlier turns with another lead-in; empty where there
    is none.
    """
    mine = [t for t in talk.history if t.seat == talk.seat]
    earlier = [text for _, text in opinions(mine, talk.question, talk.words["place"])]
    on_it = [
        text for text in earlier if not talk.degree or side(text, talk.question) * talk.degree > 0
    ]
    if not (on_it or earlier):
        return ""
    text = rng.choice(on_it or earlier)
    bare = again(text, talk.question)
    if bare is None:
        return f"Let me say it once more: {text}"
    return fill(rng.choice(bank()["faults"]["again"]), {"opinion": bare})
