"""Plays the roles that speak: builds a turn from the persona's card, the question's clauses and the
survey's shares.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from culturepark.offline import stance
from culturepark.offline.lexicon import WORD, plain, stems_of, wordset
from culturepark.offline.phrases import Sides, bank, clauses, fill, order
from culturepark.offline.sentences import sentences, small
from culturepark.records import Distribution, Norm, Option, Question, Turn, stream

YOU = re.compile(r"\b(?:you|your)\b", re.IGNORECASE)
LOCAL = re.compile(r"\bhere\b|\bthis neighbourhood\b|\bthe country's\b")
NAMED = re.compile(
    r"\b(?:in|near|outside|above|of|beside|behind|from) ([A-Z][\w-]+(?: [A-Z][\w-]+)*)"
)
WORDED = (
    (0.93, "nearly all"),
    (0.86, "roughly nine in ten"),
    (0.77, "roughly four in five"),
    (0.71, "roughly three in four"),
    (0.63, "roughly two in three"),
    (0.56, "roughly three in five"),
    (0.52, "a little more than half"),
    (0.48, "about half"),
    (0.43, "a little less than half"),
    (0.0, "the largest group"),
)


@dataclass(frozen=True)
class Talk:
    """What one turn is made from. Everything in it is drawn from the facts of the request."""

    facts: Mapping[str, Any]
    question: Question
    degree: float | None
    sides: Sides
    words: dict[str, str]
    rng: random.Random
    history: tuple[Turn, ...]
    n: int
    seat: int
    seats: int
    k: int  # turns that this seat has had
    kin: bool  # whether all at the table share a culture, so that nobody explains their country

    @property
    def name(self) -> tuple[str, int]:
        """The name of this seat's random streams in this dialogue."""
        return str(self.facts["dialogue"]), self.seat

    @property
    def hosts(self) -> bool:
        """Whether this seat hosts the conversation, and so asks more."""
        return self.seat == 0


def listen(facts: Mapping[str, Any]) -> Talk:
    """Take the facts of a request apart."""
    me, other, question = facts["me"], facts["other"], facts["question"]
    answer, place = facts["answer"], facts["culture"].place
    near = facts["mode"] == "in" or (other is not None and other.place == place)
    seat, n = facts["seat"], facts["n"]
    words = {
        "about": question.about,
        "place": place,
        "people": facts["culture"].people,
        "town": town(me.home, place),
        "name": other.given_name if other else "my friend",
        "there": other.place if other else "other places",
        "theirtown": town(other.home, other.place) if other else "other places",
    }
    if near:
        words["there"] = words["theirtown"]
    if facts["mode"] == "in":
        words |= {"place": "our country", "people": "people in our country"}
    return Talk(
        facts,
        question,
        None if answer is None else question.option(answer).degree,
        clauses(question, answer),
        words,
        stream(facts["dialogue"], seat, n, "turn"),
        tuple(facts["history"]),
        n,
        seat,
        len(facts["others"]) + 1,
        sum(said.seat == seat for said in facts["history"]),
        facts["mode"] == "in",
    )


def turn(facts: Mapping[str, Any]) -> list[str]:
    """Return the sentences of the next turn."""
    talk, said = listen(facts), list[str]()
    for part in plan(talk):
        said += [s for s in PARTS[part](talk, said) if s not in said and not known(talk, s)]
    return said or [opinion(talk, said)]


# -------------------------------------------------------------------- plans

PLANS = {
    "opinion": (
        ("greet", "stance", "reason"),
        ("greet", "stance", "life"),
        ("greet", "life", "norm", "stance"),
        ("greet", "stance", "reason", "life"),
    ),
    "opening": (("greet", "stance", "reason"), ("greet", "stance", "life")),
    "respond": (("reply", "reason"), ("reply", "stance"), ("reply", "reason", "stance")),
    "culture": (
        ("lead", "norm", "survey"),
        ("lead", "survey", "stance"),
        ("lead", "norm", "stance"),
        ("norm", "survey", "stance"),
    ),
    "ideas": (
        ("fresh", "stance"),
        ("fresh", "life", "implied"),
        ("fresh", "life", "stance"),
        ("fresh", "reason", "implied"),
    ),
    "introduce": (
        ("custom", "norm"),
        ("custom", "bearing", "stance"),
        ("custom", "norm", "stance"),
    ),
    "compare": (
        ("compare", "stance"),
        ("compare", "norm"),
        ("compare", "norm", "stance"),
        ("compare", "bearing", "stance"),
    ),
    "experience": (
        ("lead", "norm", "stance"),
        ("lead", "stance", "life"),
        ("norm", "survey", "stance"),
        ("life", "norm", "stance"),
    ),
    "divide": (
        ("custom", "bearing", "stance"),
        ("custom", "survey", "stance"),
        ("custom", "norm", "stance"),
    ),
    "change": (
        ("compare", "stance"),
        ("compare", "norm", "stance"),
        ("compare", "reason", "stance"),
    ),
    "conclude": (
        ("take", "hold"),
        ("take", "hold", "life"),
        ("take", "life", "hold"),
        ("take", "reason", "hold"),
    ),
    "free": (
        ("reply", "reason"),
        ("reply", "norm"),
        ("reply", "life", "stance"),
        ("reply", "stance"),
        ("reply", "survey", "stance"),
        ("reply", "fresh"),
        ("reply", "implied", "reason"),
        ("compare", "norm"),
        ("reply", "bearing", "stance"),
    ),
}


def plan(talk: Talk) -> tuple[str, ...]:
    """Choose the parts of a turn: by its cue, its place in the dialogue and the persona's way of
    talking.
    """
    cue = talk.facts["cue"]
    last = talk.n >= talk.facts["turns"] - talk.seats
    if cue == "free":
        cue = "opinion" if talk.k == 0 else "conclude" if last else "free"
    plans = PLANS.get(cue, PLANS["ideas"])
    shift = order(len(plans), *talk.name, cue, "plan")
    parts = plans[shift[(talk.k if cue == "free" else 0) % len(plans)]]
    if cue == "opinion" and talk.k == 0 and talk.n and talk.rng.random() < 0.5:
        parts = ("reply", *parts[1:])
    asks = talk.rng.random() < (0.55 if talk.hosts else 0.22) and not last
    return (*parts, "ask") if asks and len(parts) < 5 else parts


# ------------------------------------------------------------------ choosing


def known(talk: Talk, text: str) -> bool:
    """Say whether this stands in the dialogue already."""
    return any(text in t.text for t in talk.history)


def favoured(talk: Talk, purpose: str, size: int) -> tuple[int, ...]:
    """Return a bank's numbers as this seat goes through them.

    The seats of a dialogue share its order and take turns in it, so that neighbours never use one
    phrase; what suits the persona comes first.
    """
    return _favoured(
        purpose,
        size,
        talk.name[0],
        talk.seat,
        talk.seats if size >= 2 * talk.seats else 1,
        talk.facts["me"].id,
    )


@lru_cache(maxsize=16_384)
def _favoured(
    purpose: str, size: int, dialogue: str, seat: int, seats: int, persona: str
) -> tuple[int, ...]:
    mine = order(size, dialogue, purpose)[seat % seats :: seats]
    liked = set(order(size, persona, "voice", purpose)[: size * 3 // 5])
    return tuple(sorted(mine, key=lambda i: i not in liked))


def phrase(talk: Talk, said: list[str], room: str, shelf: str, place: int | None = None) -> str:
    """Return the next phrase of a shelf, filled and not yet heard; `place` counts on through the
    dialogue.
    """
    shelf = own_shelf(talk, room, shelf)
    shelves = bank()[room][shelf]
    numbers = favoured(talk, f"{room}.{shelf}", len(shelves))
    start = talk.k if place is None else place
    filled = ""
    for j in range(len(numbers)):
        template = shelves[numbers[(start + j) % len(numbers)]]
        slots = spoken(talk, len(said) + j, template)
        filled = fill(
            template,
            (
                {**slots, "about": matter(talk, said)}
                if room in TALKED and "{about}" in template
                else slots
            ),
        )
        if filled not in said and not known(talk, filled):
            return filled
    return filled


def own_shelf(talk: Talk, room: str, shelf: str) -> str:
    """Return the shelf for compatriots, where there is one and the talk is among them."""
    kin = f"{shelf}_kin"
    return kin if talk.kin and kin in bank()[room] else shelf


TALKED = frozenset(["agree", "differ", "neutral", "culture", "compare", "conclude", "ask", "life"])


def matter(talk: Talk, said: list[str]) -> str:
    """Name the matter in talk that nobody extracts: in full at first, then as people do who know
    what they talk about.
    """
    about = talk.question.about
    lately = " ".join([*(t.text for t in talk.history[-2:]), *said])
    if about not in lately or (about.count(" ") < 3 and talk.rng.random() < 0.4):
        return about
    return talk.rng.choice(("this", "this matter"))


def spoken(talk: Talk, j: int, template: str) -> dict[str, str]:
    """Return the slots for clauses: claims and reasons in this dialogue's order, moving on with
    every use.
    """
    sides, name = talk.sides, talk.name[0]
    i = 4 * talk.n + j
    claim, against = (
        _at(sides.claim, name, "claim", i + i // 6),
        _at(sides.against, name, "against", i + 1),
    )
    reason, more = _at(sides.reasons, name, "reason", i), _at(sides.reasons, name, "reason", i + 3)
    words = {
        **talk.words,
        "claim": claim,
        "against": against,
        "reason": reason,
        "more": more,
        "counter": _at(sides.counters, name, "counter", talk.n + j),
    }
    if "{why}" in template:
        words["why"] = why(talk, words)
    if "{theirs}" in template:
        words["theirs"] = theirs(talk, sides.against[0] if heard(talk) < 0 else sides.claim[-1])
    return words


def _at(items: tuple[str, ...], dialogue: str, purpose: str, i: int) -> str:
    return items[order(len(items), dialogue, purpose)[i % len(items)]]


def why(talk: Talk, words: dict[str, str]) -> str:
    """Return a reason with its connector, or nothing now and then."""
    if talk.rng.random() < 0.2:
        return ""
    connector = str(talk.rng.choice(bank()["connectors"]["why"]))
    # "as a mother …" would read as a word on the speaker, not as a reason.
    if connector.startswith(", as") and words["reason"].startswith(("a ", "an ")):
        connector = " because {reason}"
    return connector.format_map(words)


def theirs(talk: Talk, clause: str) -> str:
    """Return a clause as the other's: what is "here" for them is not here."""
    clause = clause.replace("this neighbourhood", "your neighbourhood").replace(
        "around here", "where you live"
    )
    return re.sub(r"\bhere\b", "in " + talk.words["there"], clause)


def heard(talk: Talk) -> int:
    """Return 1 if the last turn of another agrees with the speaker's answer, -1 if it differs, 0 if
    either is open.
    """
    if not talk.degree:
        return 0
    last = next((t.text for t in reversed(talk.history) if t.seat != talk.seat), "")
    return _side(last, talk.question) * (1 if talk.degree > 0 else -1)


_HEARD: dict[tuple[str, str], int] = {}


def _side(text: str, question: Question) -> int:
    """Return the side that a turn takes first; kept for the few times a turn asks for it."""
    key = (question.about, text)
    if key not in _HEARD:
        if len(_HEARD) > 4096:
            _HEARD.clear()
        _HEARD[key] = next(
            (s for s in (stance.side(part, question) for part in own_words(text)) if s), 0
        )
    return _HEARD[key]


def own_words(text: str) -> list[str]:
    """Return what a turn says for its speaker: not what it says of the other ("You think that …")
    and no questions.
    """
    told = [s.partition(": ")[2] if YOU.search(s) else s for s in sentences(text)]
    return [s for s in told if s and not s.endswith("?")]


# --------------------------------------------------------------------- parts


def opinion(talk: Talk, said: list[str]) -> str:
    """Return a sentence that takes the speaker's stand, with or without a reason."""
    shelf = shelves_for(talk.degree)
    room = bank()["stance"]
    every = [(s, i) for s in shelf for i in range(len(room[s]))]
    numbers = favoured(talk, "stance." + shelf[-1], len(every))
    text = ""
    for j in range(len(numbers)):
        s, i = every[numbers[(5 * talk.k + len(said) + j) % len(numbers)]]
        template = room[s][i]
        if "{more}" in template and len(talk.sides.reasons) < 2:
            continue
        text = fill(template, spoken(talk, len(said) + j, template))
        if text not in said and not known(talk, text):
            return text
    return text


def shelves_for(degree: float | None) -> tuple[str, ...]:
    """Return the shelves of stance phrases for an answer's degree."""
    if degree is None:
        return ("open",)
    if degree == 0:
        return ("torn",)
    if abs(degree) < 0.25:
        return ("faint",)
    return (
        "plain",
        "reasoned",
        "conceding",
        "rejecting",
        "strong" if abs(degree) > 0.75 else "mild",
    )


def _stance(talk: Talk, said: list[str]) -> list[str]:
    return [opinion(talk, said)]


def _reason(talk: Talk, said: list[str]) -> list[str]:
    if not talk.degree:
        return [opinion(talk, said)]
    return [phrase(talk, said, "reasons", "plain", 2 * talk.k)]


def _fresh(talk: Talk, said: list[str]) -> list[str]:
    return [phrase(talk, said, "reasons", "fresh")] if talk.degree else [opinion(talk, said)]


def _implied(talk: Talk, said: list[str]) -> list[str]:
    return (
        [phrase(talk, said, "reasons", "implied")]
        if talk.degree and not local(talk)
        else [opinion(talk, said)]
    )


def local(talk: Talk) -> bool:
    """Say whether the question is about each one's own neighbourhood or country, so that answers
    may differ without dissent.
    """
    return bool(talk.question.claim) and bool(
        LOCAL.search(talk.question.claim[0]) or LOCAL.search(talk.question.claim[-1])
    )


def _greet(talk: Talk, said: list[str]) -> list[str]:
    return [phrase(talk, said, "open", "first" if talk.n else "start")]


def _reply(talk: Talk, said: list[str]) -> list[str]:
    """Answer what was said last: agree, differ, or take it up."""
    mood = {1: "agree", -1: "differ", 0: "neutral"}[heard(talk)]
    joined = talk.rng.random() < 0.6
    if local(talk) and mood != "neutral":
        return [phrase(talk, said, mood, "local")]
    if joined and talk.degree:
        return [phrase(talk, said, mood, "joined")]
    shelf = ("blunt" if blunt(talk) else "gentle") if mood == "differ" else "apart"
    first = phrase(talk, said, mood, shelf)
    return [first, opinion(talk, [*said, first])]


def blunt(talk: Talk) -> bool:
    """Say whether this person contradicts plainly: in part their culture's card, in part their own
    way.
    """
    style = str(talk.facts["culture"].style).casefold()
    plain = len(re.findall(r"\b(?:directly|direct|openly|open|plain|plainly|frank)\b", style))
    soft = len(
        re.findall(
            r"\b(?:indirect|indirectly|soften|politely|harmony|face|gentle|gently|tact|implied|unsaid|hints?)\b",
            style,
        )
    )
    return stream(talk.facts["me"].id, "blunt").random() < 0.4 + 0.15 * (plain - soft)


def _norm(talk: Talk, said: list[str]) -> list[str]:
    """Tell a custom and what may be drawn from it."""
    found = custom(talk, said)
    if found is None or talk.question.topic not in found.topics:
        return [opinion(talk, said)]
    if not talk.degree:
        return [
            _told(talk, said, found, "torn" if akin(found, talk.question) else "aside"),
            opinion(talk, said),
        ]
    if talk.rng.random() < 0.25:
        return [_told(talk, said, found, "bearing" if akin(found, talk.question) else "aside")]
    placed = (
        found.text.split()[0].casefold().rstrip(",") in wordset("placed")
        or small(found.text) is None
    )
    return [_told(talk, said, found, "apart" if placed or talk.rng.random() < 0.4 else "stance")]


def _bearing(talk: Talk, said: list[str]) -> list[str]:
    found = custom(talk, said)
    if found is None:
        return []
    return [_told(talk, said, found, "bearing" if akin(found, talk.question) else "aside")]


def _told(talk: Talk, said: list[str], norm: Norm, shelf: str) -> str:
    shelf = own_shelf(talk, "norms", shelf)
    shelves = bank()["norms"][shelf]
    numbers = favoured(talk, "norms." + shelf, len(shelves))
    template = shelves[numbers[talk.k % len(numbers)]]
    bare = norm.text.rstrip(" .")
    words = {
        **spoken(talk, len(said), template),
        "norm": bare if template.startswith("{norm}") else small(bare) or bare,
    }
    return fill(template, words)


def custom(talk: Talk, said: list[str]) -> Norm | None:
    """Return a custom not told yet, those on the question's topic first."""
    norms: tuple[Norm, ...] = tuple(talk.facts["norms"]) or talk.facts["culture"].norms
    told = " ".join([*(t.text for t in talk.history), *said])
    ranked = [norms[i] for i in order(len(norms), *talk.name, "norms")]
    fresh = [n for n in ranked if n.text[1:-1] not in told]
    # Stable: among equals the dialogue's own order holds.
    fresh.sort(key=lambda n: -(talk.question.topic in n.topics) - akin(n, talk.question))
    return fresh[0] if fresh else None


def akin(norm: Norm, question: Question) -> bool:
    """Say whether a custom speaks of the question's own matter, by its words."""
    return question.topic in norm.topics and _akin(
        norm.text, question.about, question.claim, question.denial
    )


@lru_cache(maxsize=16_384)
def _akin(norm: str, *matter: str | tuple[str, ...]) -> bool:
    words = " ".join(m if isinstance(m, str) else " ".join(m) for m in matter)
    near = stems_of(WORD.findall(plain(norm))) & stems_of(WORD.findall(plain(words)))
    return any(s[0] != "=" for s in near)


def _custom(talk: Talk, said: list[str]) -> list[str]:
    return [phrase(talk, said, "norms", "lead")]


def _lead(talk: Talk, said: list[str]) -> list[str]:
    return [phrase(talk, said, "culture", "lead")]


def _compare(talk: Talk, said: list[str]) -> list[str]:
    if talk.words["there"] == talk.words["theirtown"]:
        return [phrase(talk, said, "compare", "same")]
    mood = heard(talk)
    return (
        [phrase(talk, said, "compare", "unlike" if mood < 0 else "alike")]
        if mood
        else _reply(talk, said)[:1]
    )


def _take(talk: Talk, said: list[str]) -> list[str]:
    return [phrase(talk, said, "conclude", "take")]


def _hold(talk: Talk, said: list[str]) -> list[str]:
    return [phrase(talk, said, "conclude", "hold")] if talk.degree else [opinion(talk, said)]


def _ask(talk: Talk, said: list[str]) -> list[str]:
    return [phrase(talk, said, "ask", "contact" if talk.hosts else "delegate")]


def _life(talk: Talk, said: list[str]) -> list[str]:
    """Tell one line of the speaker's own life, at most every third turn and never twice."""
    lines = talk.facts["me"].public
    if talk.k % 3 or not lines:
        return []
    line = next(
        (lines[i] for i in order(len(lines), *talk.name, "life") if not known(talk, lines[i])), None
    )
    if line is None:
        return []
    if talk.rng.random() < 0.5:
        return [phrase(talk, said, "life", "before"), line]
    return [line, phrase(talk, said, "life", "after")]


def _survey(talk: Talk, said: list[str]) -> list[str]:
    """Say in words what the speaker's people answered, once a dialogue."""
    shares: Distribution | None = talk.facts["shares"]
    if (
        shares is None
        or not talk.sides.authored
        or any("survey" in t.text for t in talk.history if t.seat == talk.seat)
    ):
        return []
    affirm, deny = shares_by_side(shares, talk.question.options)
    most = max(affirm, deny)
    if most < 0.45 or abs(affirm - deny) < 0.08:
        return [phrase(talk, said, "survey", "split")]
    clause = (talk.question.claim if affirm > deny else talk.question.denial)[
        talk.n % len(talk.question.claim)
    ]
    talk.words["part"] = in_words(most)
    talk.words["said"] = clause if talk.kin else _there(clause)
    first = phrase(talk, said, "survey", "most")
    if not talk.degree:
        return [first]
    return [
        first,
        phrase(talk, said, "survey", "mine" if (affirm - deny) * talk.degree > 0 else "other"),
    ]


def _there(clause: str) -> str:
    clause = clause.replace("this neighbourhood", "their neighbourhood").replace(
        "around here", "where they live"
    )
    return re.sub(r"\bhere\b", "there", clause)


def shares_by_side(shares: Distribution, options: tuple[Option, ...]) -> tuple[float, float]:
    """Return which shares of a people affirm and deny the question's statement."""
    degrees = {o.code: o.degree for o in options}
    return (
        sum(s for code, s in shares.shares.items() if degrees.get(code, 0) > 0),
        sum(s for code, s in shares.shares.items() if degrees.get(code, 0) < 0),
    )


def in_words(share: float) -> str:
    """Return a share in words, no more precise than people speak.

    >>> in_words(0.66), in_words(0.95)
    ('roughly two in three', 'nearly all')
    """
    return next(words for least, words in WORDED if share >= least)


@lru_cache(maxsize=1024)
def town(home: str, place: str) -> str:
    """Return the place that a card's home names: "Irbid, a city in the north" is Irbid.

    >>> town("a village above Humahuaca, in the high valleys", "Argentina")
    'Humahuaca'
    """
    first = home.split(",")[0].strip()
    if not re.match(r"(?:an?|the|in|on|near) ", first):
        return first.split(" in ")[0]
    found = NAMED.search(home)
    return found[1] if found else place


PARTS: dict[str, Callable[[Talk, list[str]], list[str]]] = {
    "greet": _greet,
    "stance": _stance,
    "reason": _reason,
    "fresh": _fresh,
    "implied": _implied,
    "reply": _reply,
    "norm": _norm,
    "bearing": _bearing,
    "custom": _custom,
    "lead": _lead,
    "compare": _compare,
    "take": _take,
    "hold": _hold,
    "ask": _ask,
    "life": _life,
    "survey": _survey,
}
