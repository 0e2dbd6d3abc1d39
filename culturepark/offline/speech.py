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
from culturepark.offline.lexicon import WORD, collect_stems, load_wordset, simplify_text
from culturepark.offline.phrases import (
    Sides,
    choose_clauses,
    fill_phrase,
    load_bank,
    shuffle_numbers,
)
from culturepark.offline.sentences import lower_start, split_sentences
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


def read_facts(facts: Mapping[str, Any]) -> Talk:
    """Take the facts of a request apart."""
    me, other, question = facts["me"], facts["other"], facts["question"]
    answer, place = facts["answer"], facts["culture"].place
    near = facts["mode"] == "in" or (other is not None and other.place == place)
    seat, n = facts["seat"], facts["n"]
    words = {
        "about": question.about,
        "place": place,
        "people": facts["culture"].people,
        "town": name_town(me.home, place),
        "name": other.given_name if other else "my friend",
        "there": other.place if other else "other places",
        "theirtown": name_town(other.home, other.place) if other else "other places",
    }
    if near:
        words["there"] = words["theirtown"]
    if facts["mode"] == "in":
        words |= {"place": "our country", "people": "people in our country"}
    return Talk(
        facts,
        question,
        None if answer is None else question.option(answer).degree,
        choose_clauses(question, answer),
        words,
        stream(facts["dialogue"], seat, n, "turn"),
        tuple(facts["history"]),
        n,
        seat,
        len(facts["others"]) + 1,
        sum(said.seat == seat for said in facts["history"]),
        facts["mode"] == "in",
    )


def write_turn(facts: Mapping[str, Any]) -> list[str]:
    """Return the sentences of the next turn."""
    talk, said = read_facts(facts), list[str]()
    for part in plan_turn(talk):
        said += [
            s for s in PARTS[part](talk, said) if s not in said and not is_in_dialogue(talk, s)
        ]
    return said or [state_opinion(talk, said)]


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


def plan_turn(talk: Talk) -> tuple[str, ...]:
    """Choose the parts of a turn: by its cue, its place in the dialogue and the persona's way of
    talking.
    """
    cue = talk.facts["cue"]
    last = talk.n >= talk.facts["turns"] - talk.seats
    if cue == "free":
        cue = "opinion" if talk.k == 0 else "conclude" if last else "free"
    plans = PLANS.get(cue, PLANS["ideas"])
    shift = shuffle_numbers(len(plans), *talk.name, cue, "plan")
    parts = plans[shift[(talk.k if cue == "free" else 0) % len(plans)]]
    if cue == "opinion" and talk.k == 0 and talk.n and talk.rng.random() < 0.5:
        parts = ("reply", *parts[1:])
    asks = talk.rng.random() < (0.55 if talk.hosts else 0.22) and not last
    return (*parts, "ask") if asks and len(parts) < 5 else parts


# ------------------------------------------------------------------ choosing


def is_in_dialogue(talk: Talk, text: str) -> bool:
    """Say whether this stands in the dialogue already."""
    return any(text in t.text for t in talk.history)


def order_phrases(talk: Talk, purpose: str, size: int) -> tuple[int, ...]:
    """Return a bank's numbers as this seat goes through them.

    The seats of a dialogue share its order and take turns in it, so that neighbours never use one
    phrase; what suits the persona comes first.
    """
    return _order_phrases(
        purpose,
        size,
        talk.name[0],
        talk.seat,
        talk.seats if size >= 2 * talk.seats else 1,
        talk.facts["me"].id,
    )


@lru_cache(maxsize=16_384)
def _order_phrases(
    purpose: str, size: int, dialogue: str, seat: int, seats: int, persona: str
) -> tuple[int, ...]:
    mine = shuffle_numbers(size, dialogue, purpose)[seat % seats :: seats]
    liked = set(shuffle_numbers(size, persona, "voice", purpose)[: size * 3 // 5])
    return tuple(sorted(mine, key=lambda i: i not in liked))


def choose_phrase(
    talk: Talk, said: list[str], group: str, kind: str, place: int | None = None
) -> str:
    """Return the next phrase of a kind, filled and not yet heard; `place` counts on through the
    dialogue.
    """
    kind = choose_kind(talk, group, kind)
    phrases = load_bank()[group][kind]
    numbers = order_phrases(talk, f"{group}.{kind}", len(phrases))
    start = talk.k if place is None else place
    filled = ""
    for j in range(len(numbers)):
        template = phrases[numbers[(start + j) % len(numbers)]]
        slots = fill_clauses(talk, len(said) + j, template)
        filled = fill_phrase(
            template,
            (
                {**slots, "about": name_matter(talk, said)}
                if group in TALKED and "{about}" in template
                else slots
            ),
        )
        if filled not in said and not is_in_dialogue(talk, filled):
            return filled
    return filled


def choose_kind(talk: Talk, group: str, kind: str) -> str:
    """Return the kind for compatriots, where there is one and the talk is among them."""
    kin = f"{kind}_kin"
    return kin if talk.kin and kin in load_bank()[group] else kind


TALKED = frozenset(["agree", "differ", "neutral", "culture", "compare", "conclude", "ask", "life"])


def name_matter(talk: Talk, said: list[str]) -> str:
    """Name the matter in talk that nobody extracts: in full at first, then as people do who know
    what they talk about.
    """
    about = talk.question.about
    lately = " ".join([*(t.text for t in talk.history[-2:]), *said])
    if about not in lately or (about.count(" ") < 3 and talk.rng.random() < 0.4):
        return about
    return talk.rng.choice(("this", "this matter"))


def fill_clauses(talk: Talk, j: int, template: str) -> dict[str, str]:
    """Return the slots for clauses: claims and reasons in this dialogue's order, moving on with
    every use.
    """
    sides, name = talk.sides, talk.name[0]
    i = 4 * talk.n + j
    claim, against = (
        _choose_item(sides.claim, name, "claim", i + i // 6),
        _choose_item(sides.against, name, "against", i + 1),
    )
    reason, more = (
        _choose_item(sides.reasons, name, "reason", i),
        _choose_item(sides.reasons, name, "reason", i + 3),
    )
    words = {
        **talk.words,
        "claim": claim,
        "against": against,
        "reason": reason,
        "more": more,
        "counter": _choose_item(sides.counters, name, "counter", talk.n + j),
    }
    if "{why}" in template:
        words["why"] = add_reason(talk, words)
    if "{theirs}" in template:
        words["theirs"] = relocate_clause(
            talk, sides.against[0] if compare_last_turn(talk) < 0 else sides.claim[-1]
        )
    return words


def _choose_item(items: tuple[str, ...], dialogue: str, purpose: str, i: int) -> str:
    return items[shuffle_numbers(len(items), dialogue, purpose)[i % len(items)]]


def add_reason(talk: Talk, words: dict[str, str]) -> str:
    """Return a reason with its connector, or nothing now and then."""
    if talk.rng.random() < 0.2:
        return ""
    connector = str(talk.rng.choice(load_bank()["connectors"]["why"]))
    # "as a mother …" would read as a word on the speaker, not as a reason.
    if connector.startswith(", as") and words["reason"].startswith(("a ", "an ")):
        connector = " because {reason}"
    return connector.format_map(words)


def relocate_clause(talk: Talk, clause: str) -> str:
    """Return a clause as the other's: what is "here" for them is not here."""
    clause = clause.replace("this neighbourhood", "your neighbourhood").replace(
        "around here", "where you live"
    )
    return re.sub(r"\bhere\b", "in " + talk.words["there"], clause)


def compare_last_turn(talk: Talk) -> int:
    """Return 1 if the last turn of another agrees with the speaker's answer, -1 if it differs, 0 if
    either is open.
    """
    if not talk.degree:
        return 0
    last = next((t.text for t in reversed(talk.history) if t.seat != talk.seat), "")
    return _read_first_side(last, talk.question) * (1 if talk.degree > 0 else -1)


_HEARD: dict[tuple[str, str], int] = {}


def _read_first_side(text: str, question: Question) -> int:
    """Return the side that a turn takes first; kept for the few times a turn asks for it."""
    key = (question.about, text)
    if key not in _HEARD:
        if len(_HEARD) > 4096:
            _HEARD.clear()
        _HEARD[key] = next(
            (s for s in (stance.read_side(part, question) for part in drop_quotations(text)) if s),
            0,
        )
    return _HEARD[key]


def drop_quotations(text: str) -> list[str]:
    """Return what a turn says for its speaker: not what it says of the other ("You think that …")
    and no questions.
    """
    told = [s.partition(": ")[2] if YOU.search(s) else s for s in split_sentences(text)]
    return [s for s in told if s and not s.endswith("?")]


# --------------------------------------------------------------------- parts


def state_opinion(talk: Talk, said: list[str]) -> str:
    """Return a sentence that takes the speaker's stand, with or without a reason."""
    kinds = list_stance_kinds(talk.degree)
    group = load_bank()["stance"]
    every = [(s, i) for s in kinds for i in range(len(group[s]))]
    numbers = order_phrases(talk, "stance." + kinds[-1], len(every))
    text = ""
    for j in range(len(numbers)):
        s, i = every[numbers[(5 * talk.k + len(said) + j) % len(numbers)]]
        template = group[s][i]
        if "{more}" in template and len(talk.sides.reasons) < 2:
            continue
        text = fill_phrase(template, fill_clauses(talk, len(said) + j, template))
        if text not in said and not is_in_dialogue(talk, text):
            return text
    return text


def list_stance_kinds(degree: float | None) -> tuple[str, ...]:
    """Return the kinds of stance phrases for an answer's degree."""
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


def _say_stance(talk: Talk, said: list[str]) -> list[str]:
    return [state_opinion(talk, said)]


def _say_reason(talk: Talk, said: list[str]) -> list[str]:
    if not talk.degree:
        return [state_opinion(talk, said)]
    return [choose_phrase(talk, said, "reasons", "plain", 2 * talk.k)]


def _say_fresh(talk: Talk, said: list[str]) -> list[str]:
    return (
        [choose_phrase(talk, said, "reasons", "fresh")]
        if talk.degree
        else [state_opinion(talk, said)]
    )


def _say_implied(talk: Talk, said: list[str]) -> list[str]:
    return (
        [choose_phrase(talk, said, "reasons", "implied")]
        if talk.degree and not is_local(talk)
        else [state_opinion(talk, said)]
    )


def is_local(talk: Talk) -> bool:
    """Say whether the question is about each one's own neighbourhood or country, so that answers
    may differ without dissent.
    """
    return bool(talk.question.claim) and bool(
        LOCAL.search(talk.question.claim[0]) or LOCAL.search(talk.question.claim[-1])
    )


def _say_greeting(talk: Talk, said: list[str]) -> list[str]:
    return [choose_phrase(talk, said, "open", "first" if talk.n else "start")]


def _say_reply(talk: Talk, said: list[str]) -> list[str]:
    """Answer what was said last: agree, differ, or take it up."""
    mood = {1: "agree", -1: "differ", 0: "neutral"}[compare_last_turn(talk)]
    joined = talk.rng.random() < 0.6
    if is_local(talk) and mood != "neutral":
        return [choose_phrase(talk, said, mood, "local")]
    if joined and talk.degree:
        return [choose_phrase(talk, said, mood, "joined")]
    kind = ("blunt" if is_blunt(talk) else "gentle") if mood == "differ" else "apart"
    first = choose_phrase(talk, said, mood, kind)
    return [first, state_opinion(talk, [*said, first])]


def is_blunt(talk: Talk) -> bool:
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


def _say_norm(talk: Talk, said: list[str]) -> list[str]:
    """Tell a custom and what may be drawn from it."""
    found = choose_custom(talk, said)
    if found is None or talk.question.topic not in found.topics:
        return [state_opinion(talk, said)]
    if not talk.degree:
        return [
            _tell_norm(talk, said, found, "torn" if is_akin(found, talk.question) else "aside"),
            state_opinion(talk, said),
        ]
    if talk.rng.random() < 0.25:
        return [
            _tell_norm(talk, said, found, "bearing" if is_akin(found, talk.question) else "aside")
        ]
    placed = (
        found.text.split()[0].casefold().rstrip(",") in load_wordset("placed")
        or lower_start(found.text) is None
    )
    return [
        _tell_norm(talk, said, found, "apart" if placed or talk.rng.random() < 0.4 else "stance")
    ]


def _say_bearing(talk: Talk, said: list[str]) -> list[str]:
    found = choose_custom(talk, said)
    if found is None:
        return []
    return [_tell_norm(talk, said, found, "bearing" if is_akin(found, talk.question) else "aside")]


def _tell_norm(talk: Talk, said: list[str], norm: Norm, kind: str) -> str:
    kind = choose_kind(talk, "norms", kind)
    phrases = load_bank()["norms"][kind]
    numbers = order_phrases(talk, "norms." + kind, len(phrases))
    template = phrases[numbers[talk.k % len(numbers)]]
    bare = norm.text.rstrip(" .")
    words = {
        **fill_clauses(talk, len(said), template),
        "norm": bare if template.startswith("{norm}") else lower_start(bare) or bare,
    }
    return fill_phrase(template, words)


def choose_custom(talk: Talk, said: list[str]) -> Norm | None:
    """Return a custom not told yet, those on the question's topic first."""
    norms: tuple[Norm, ...] = tuple(talk.facts["norms"]) or talk.facts["culture"].norms
    told = " ".join([*(t.text for t in talk.history), *said])
    ranked = [norms[i] for i in shuffle_numbers(len(norms), *talk.name, "norms")]
    fresh = [n for n in ranked if n.text[1:-1] not in told]
    # Stable: among equals the dialogue's own order holds.
    fresh.sort(key=lambda n: -(talk.question.topic in n.topics) - is_akin(n, talk.question))
    return fresh[0] if fresh else None


def is_akin(norm: Norm, question: Question) -> bool:
    """Say whether a custom speaks of the question's own matter, by its words."""
    return question.topic in norm.topics and _is_akin(
        norm.text, question.about, question.claim, question.denial
    )


@lru_cache(maxsize=16_384)
def _is_akin(norm: str, *matter: str | tuple[str, ...]) -> bool:
    words = " ".join(m if isinstance(m, str) else " ".join(m) for m in matter)
    near = collect_stems(WORD.findall(simplify_text(norm))) & collect_stems(
        WORD.findall(simplify_text(words))
    )
    return any(s[0] != "=" for s in near)


def _say_custom(talk: Talk, said: list[str]) -> list[str]:
    return [choose_phrase(talk, said, "norms", "lead")]


def _say_lead(talk: Talk, said: list[str]) -> list[str]:
    return [choose_phrase(talk, said, "culture", "lead")]


def _say_comparison(talk: Talk, said: list[str]) -> list[str]:
    if talk.words["there"] == talk.words["theirtown"]:
        return [choose_phrase(talk, said, "compare", "same")]
    mood = compare_last_turn(talk)
    return (
        [choose_phrase(talk, said, "compare", "unlike" if mood < 0 else "alike")]
        if mood
        else _say_reply(talk, said)[:1]
    )


def _say_take(talk: Talk, said: list[str]) -> list[str]:
    return [choose_phrase(talk, said, "conclude", "take")]


def _say_holding(talk: Talk, said: list[str]) -> list[str]:
    return (
        [choose_phrase(talk, said, "conclude", "hold")]
        if talk.degree
        else [state_opinion(talk, said)]
    )


def _ask_question(talk: Talk, said: list[str]) -> list[str]:
    return [choose_phrase(talk, said, "ask", "contact" if talk.hosts else "delegate")]


def _say_life(talk: Talk, said: list[str]) -> list[str]:
    """Tell one line of the speaker's own life, at most every third turn and never twice."""
    lines = talk.facts["me"].public
    if talk.k % 3 or not lines:
        return []
    line = next(
        (
            lines[i]
            for i in shuffle_numbers(len(lines), *talk.name, "life")
            if not is_in_dialogue(talk, lines[i])
        ),
        None,
    )
    if line is None:
        return []
    if talk.rng.random() < 0.5:
        return [choose_phrase(talk, said, "life", "before"), line]
    return [line, choose_phrase(talk, said, "life", "after")]


def _say_survey(talk: Talk, said: list[str]) -> list[str]:
    """Say in words what the speaker's people answered, once a dialogue."""
    shares: Distribution | None = talk.facts["shares"]
    if (
        shares is None
        or not talk.sides.authored
        or any("survey" in t.text for t in talk.history if t.seat == talk.seat)
    ):
        return []
    affirm, deny = sum_shares_by_side(shares, talk.question.options)
    most = max(affirm, deny)
    if most < 0.45 or abs(affirm - deny) < 0.08:
        return [choose_phrase(talk, said, "survey", "split")]
    clause = (talk.question.claim if affirm > deny else talk.question.denial)[
        talk.n % len(talk.question.claim)
    ]
    talk.words["part"] = format_share(most)
    talk.words["said"] = clause if talk.kin else _move_there(clause)
    first = choose_phrase(talk, said, "survey", "most")
    if not talk.degree:
        return [first]
    return [
        first,
        choose_phrase(
            talk, said, "survey", "mine" if (affirm - deny) * talk.degree > 0 else "other"
        ),
    ]


def _move_there(clause: str) -> str:
    clause = clause.replace("this neighbourhood", "their neighbourhood").replace(
        "around here", "where they live"
    )
    return re.sub(r"\bhere\b", "there", clause)


def sum_shares_by_side(shares: Distribution, options: tuple[Option, ...]) -> tuple[float, float]:
    """Return which shares of a people affirm and deny the question's statement."""
    degrees = {o.code: o.degree for o in options}
    return (
        sum(s for code, s in shares.shares.items() if degrees.get(code, 0) > 0),
        sum(s for code, s in shares.shares.items() if degrees.get(code, 0) < 0),
    )


def format_share(share: float) -> str:
    """Return a share in words, no more precise than people speak.

    >>> in_words(0.66), in_words(0.95)
    ('roughly two in three', 'nearly all')
    """
    return next(words for least, words in WORDED if share >= least)


@lru_cache(maxsize=1024)
def name_town(home: str, place: str) -> str:
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
    "greet": _say_greeting,
    "stance": _say_stance,
    "reason": _say_reason,
    "fresh": _say_fresh,
    "implied": _say_implied,
    "reply": _say_reply,
    "norm": _say_norm,
    "bearing": _say_bearing,
    "custom": _say_custom,
    "lead": _say_lead,
    "compare": _say_comparison,
    "take": _say_take,
    "hold": _say_holding,
    "ask": _ask_question,
    "life": _say_life,
    "survey": _say_survey,
}
