"""Speaks: builds a turn from the persona's card, the question's clauses and the survey's shares."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

from culturepark.models.fallback.reading import side_of
from culturepark.records import Question, Shares, stream

Facts = Mapping[str, Any]


@lru_cache(maxsize=1)
def phrases() -> dict[str, Any]:
    """Return the phrase bank."""
    return tomllib.loads(resources.files(__package__).joinpath("phrases.toml").read_text(encoding="utf-8"))


def capital(text: str) -> str:
    """Return the text with its first letter capital."""
    return text[:1].upper() + text[1:]


PLACES = frozenset(
    ["in", "at", "on", "for", "around", "before", "after", "during", "when", "every", "across", "near", "from"]
)


class Speaker:
    """One seat at one turn. What it picks is permuted for the dialogue and indexed by turn, so nothing is said twice."""

    def __init__(self, facts: Facts) -> None:
        self.facts, self.question = facts, facts["question"]
        self.k = facts["n"] // 2
        self.name = (facts["dialogue"], facts["seat"])
        self.rng = stream(*self.name, facts["n"])
        me, other = facts["me"], facts["other"]
        question: Question = self.question
        within = facts["mode"] == "in"
        self.words = {
            "h": town(me.home) if within else facts["culture"].place,
            "a": question.about, "p": facts["culture"].place, "u": facts["culture"].people,
            "o": other.given_name if other else "friend", "q": (town(other.home) if within else other.place) if other else "other places",
        }  # fmt: skip
        self.degree = question.option(facts["answer"]).degree if facts["answer"] is not None else None
        self.voice = stream(me.id, "voice")
        self.said: dict[str, int] = {}
        self.used: set[str] = set()

    # ------------------------------------------------------------ choosing

    def order(self, kind: str, items: Any) -> list[Any]:
        """Return items in this dialogue's own order."""
        return stream(*self.name, kind).sample(list(items), len(items))

    def pick(self, kind: str, shift: int = 0, **words: str) -> str:
        """Return the phrase of this kind whose turn it is, filled."""
        bank = self.order(kind, phrases()[kind])
        return str(bank[(self.k + shift) % len(bank)]).format(**{**self.words, **words})

    def take(self, kind: str, items: Any, each: int = 3) -> Any:
        """Return the next unused item of a list in this dialogue's order; `each` a turn at most, then from the start."""
        bank = self.order(kind, items)
        place = self.k * each + self.said.get(kind, 0)
        self.said[kind] = self.said.get(kind, 0) + 1
        return bank[place % len(bank)] if bank else None

    def claim(self, affirm: bool) -> str:
        """Return a clause that takes a side; users' questions may have none of their own."""
        bank = self.question.claim if affirm else self.question.denial
        return (
            str(self.rng.choice(bank))
            if bank
            else f"{self.question.about} {'deserves' if affirm else 'does not deserve'} a yes"
        )

    def reason(self, affirm: bool) -> str:
        """Return a clause that may follow "because"."""
        bank = self.question.pros if affirm else self.question.cons
        found = self.take("pro" if affirm else "con", bank, 4) if bank else None
        return str(found or "people have seen it work out that way")

    # ------------------------------------------------------------ sentences

    def lead(self, clause: str) -> str:
        """Put one of this person's own ways of beginning before a clause."""
        bank, strength = phrases(), abs(self.degree or 0)
        own = self.voice_leads() + (bank["strong"] if strength > 0.8 else bank["mild"] if strength < 0.4 else [])
        return str(self.take("lead", own, 3)).format(c=clause)

    def voice_leads(self) -> list[str]:
        """Return the leads this persona favours."""
        return stream(self.facts["me"].id, "leads").sample(phrases()["leads"], 8)

    def opinion(self, affirm: bool | None = None) -> str:
        """Return a sentence that takes a side (by default the speaker's own) and gives a reason."""
        side = (self.degree or 0) > 0 if affirm is None else affirm
        clause, shape, rng = self.claim(side), self.rng.random(), self.rng
        if shape < 0.25:
            return capital(rng.choice(phrases()["turned"]).format(c=clause, r=self.reason(side)))
        if shape < 0.45:
            filled = rng.choice(phrases()["double"]).format(c=clause, r=self.reason(side), t=self.reason(side))
        else:
            filled = rng.choice(phrases()["reasons"]).format(c=clause, r=self.reason(side))
        return capital(self.lead(filled)) + "."

    def balanced(self) -> str:
        """Return a sentence that gives both sides their due."""
        if self.rng.random() < 0.5:
            return capital(
                self.rng.choice(phrases()["middle"]).format(**self.words, c=self.claim(True), d=self.claim(False))
            )
        return capital(
            self.rng.choice(phrases()["middle_reason"]).format(**self.words, r=self.reason(True), t=self.reason(False))
        )

    def stance(self) -> str:
        """Return a sentence that says where the speaker stands, if anywhere."""
        if self.degree is None:
            return capital(self.pick("unsure"))
        return self.balanced() if self.degree == 0 else self.opinion()

    def norm(self, tie: bool) -> str | None:
        """Return a norm of the speaker's culture, tied to the question or told for its own sake."""
        told = " ".join(t.text for t in self.facts["history"] if t.seat == self.facts["seat"])
        # Compared without their first letters, which sentences may have made small.
        fresh = [
            n for n in self.order("norm", self.facts["norms"]) if n.text[1:-1] not in told and n.text not in self.used
        ]
        if tie:
            fresh.sort(key=lambda n: self.question.topic not in n.topics)
        if not fresh:
            return None
        found = fresh[0]
        self.used.add(found.text)
        bare = found.text.rstrip(".")
        words = {**self.words, "N": found.text, "m": bare, "n": bare[:1].lower() + bare[1:]}
        placed = "_placed" if bare.split()[0].casefold() in PLACES else ""
        # Only a norm on the question's own matter is tied to it; others are told for their own sake.
        if tie and self.degree and self.question.topic in found.topics:
            return capital(self.rng.choice(phrases()["norms" + placed]).format(**words, c=self.claim(self.degree > 0)))
        return capital(self.rng.choice(phrases()["customs" + placed]).format(**words))

    def life(self) -> str | None:
        """Return a line of the speaker's own life, every second turn while there are any."""
        public = self.facts["me"].public
        if self.k % 2 or self.k // 2 >= len(public):
            return None
        line = self.order("life", public)[self.k // 2]
        return str(line)

    def figures(self) -> str | None:
        """Return what the speaker's people answered, in words, naming the survey."""
        shares: Shares | None = self.facts["shares"]
        if (
            shares is None
            or len(self.question.options) > 7
            or any(shares.survey in t.text for t in self.facts["history"])
        ):
            return None
        code = shares.modal
        text = self.pick("survey", s=in_words(shares.shares[code]), l=self.question.option(code).label, y=shares.survey)
        return capital(text)

    def echo(self) -> str | None:
        """Return an opening that answers what was said last."""
        heard = [t for t in self.facts["history"] if t.seat != self.facts["seat"]]
        if not heard or not self.facts["other"]:
            return capital(self.pick("open"))
        theirs = side_of(heard[-1].text, self.question)
        if self.degree in (None, 0) or theirs == 0:
            return capital(self.pick("hear"))
        return capital(self.pick("agree" if (self.degree or 0) * theirs > 0 else "differ"))


def town(home: str) -> str:
    """Return the place itself from a card's home: "Irbid, a city in the north" is Irbid."""
    return home.split(",")[0].strip()


def in_words(share: float) -> str:
    """Return a share in words, no more precise than people speak.

    >>> in_words(0.66), in_words(0.93)
    ('about two in three', 'nearly all')
    """
    steps = ((0.9, "nearly all"), (0.77, "about four in five"), (0.71, "about three in four"), (0.63, "about two in three"),
             (0.56, "well over half"), (0.52, "a little over half"), (0.48, "about half"), (0.43, "a little under half"),
             (0.37, "about two in five"), (0.29, "about a third"), (0.22, "about a quarter"), (0.0, "the largest group, though a small one,"))  # fmt: skip
    return next(words for least, words in steps if share >= least)


PLANS: dict[str, tuple[str, ...]] = {
    "opening": ("open", "stance", "life", "ask"),
    "opinion": ("echo", "stance", "norm", "life"),
    "respond": ("echo", "stance", "more_stance", "ask"),
    "culture": ("norm", "figures", "custom", "stance"),
    "ideas": ("more", "stance", "life", "more_stance"),
    "introduce": ("introduce", "custom", "norm", "ask"),
    "compare": ("compare", "stance", "norm"),
    "conclude": ("conclude", "stance", "life"),
}
FREE = (("echo", "stance", "life", "ask"), ("echo", "norm", "stance"), ("echo", "stance", "more_stance", "ask"), ("echo", "norm", "custom", "figures"),
        ("compare", "stance", "norm"), ("hear", "stance", "ask"))  # fmt: skip


def turn(facts: Facts) -> list[str]:
    """Return the sentences of a turn."""
    speaker = Speaker(facts)
    cue = facts["cue"]
    plan = FREE[speaker.rng.randrange(len(FREE))] if cue == "free" else PLANS.get(cue, PLANS["ideas"])
    if facts["n"] < 2 and cue == "opinion":
        plan = ("echo", "stance", "norm", "life", "ask") if facts["n"] == 0 else plan
    said: list[str] = []
    for part in plan:
        sentence = speak(speaker, part)
        if sentence and sentence not in said:
            said.append(sentence)
    return said


def speak(speaker: Speaker, part: str) -> str | None:
    """Return one sentence of a plan, or None where the facts give nothing to say."""
    if part in ("stance", "more_stance"):
        return speaker.stance()
    if part == "norm":
        return speaker.norm(tie=True)
    if part == "custom":
        return speaker.norm(tie=False)
    if part in ("life", "figures", "echo"):
        return {"life": speaker.life, "figures": speaker.figures, "echo": speaker.echo}[part]()
    return capital(speaker.pick(part))


def fault(kind: str, facts: Facts, said: list[str], rng: random.Random) -> tuple[list[str], str] | None:
    """Return a turn with this fault in it and the sentence that carries it; None where it cannot be planted."""
    speaker, bank = Speaker(facts), phrases()
    if kind == "refusal":
        text = rng.choice(bank["refusals"]).format(a=facts["question"].about)
        return [text], text
    if kind == "contradiction":
        sentence = speaker.opinion(affirm=(speaker.degree or 0) < 0) if speaker.degree else ""
    elif kind == "off_topic":
        clause = bank["reasons"][rng.randrange(3)].format(
            c=rng.choice(bank["strays"]), r=rng.choice(bank["stray_reasons"])
        )
        sentence = capital(speaker.lead(clause)) + "."
    elif kind == "drift":
        age, work, home = rng.choice([d for d in bank["drifts"] if d[0] != facts["me"].age])
        clause = bank["reasons"][rng.randrange(3)].format(
            c=speaker.claim((speaker.degree or 0) > 0), r=speaker.reason((speaker.degree or 0) > 0)
        )
        sentence = f"As a {age}-year-old {work} from {home}, I think that {clause}."
    else:
        sentence = repeated(facts, rng)
    return ([*said[:1], sentence, *said[2:]], sentence) if sentence else None


def repeated(facts: Facts, rng: random.Random) -> str:
    """Return an opinion that the speaker has already given, with another beginning; empty if there is none."""
    from culturepark.models.fallback.reading import opinions_in

    own = [o for t in facts["history"] if t.seat == facts["seat"] for o in opinions_in(t.text, facts["culture"].place)]
    own = [o for o in own if side_of(o, facts["question"])]
    if not own:
        return ""
    text = str(rng.choice(own))
    return (
        f"As I said, {text[:1].lower()}{text[1:]}"
        if text.split()[0] not in (facts["culture"].place,)
        else f"Once more: {text}"
    )
