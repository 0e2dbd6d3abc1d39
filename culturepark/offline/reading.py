"""Plays the roles that read: takes opinions out of turns, judges them against an answer, and words
them anew.

Works on any English text, from the facts of the request alone: it neither knows who wrote a text
nor what was planted in it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from culturepark.offline import stance
from culturepark.offline.lexicon import TOKEN, simplify_text
from culturepark.offline.phrases import choose_clauses, fill_phrase, load_bank
from culturepark.offline.sentences import (
    finish_sentence,
    is_cultural,
    lower_start,
    read_opinion,
    split_sentences,
)
from culturepark.records import Question, Turn

FAINT = 0.25  # degrees nearer to 0 than this hardly take a side
CLEAR = 0.2  # the lean from which a text takes a side


def answer_extractor(facts: Mapping[str, Any]) -> str:
    """Answer as the extractor."""
    found = find_opinions(facts["turns"], facts["question"], facts["culture"].place)
    return json.dumps(
        {"opinions": [{"turn": n, "text": text} for n, text in found]}, ensure_ascii=False
    )


def find_opinions(turns: Sequence[Turn], question: Question, place: str) -> list[tuple[int, str]]:
    """Return the opinions in turns, each with its turn's number: what is marked as one, on the
    question, or cultural.
    """
    kept = []
    for turn in turns:
        for sentence in split_sentences(turn.text):
            found = read_opinion(sentence, place)
            if found and (
                found[1] or is_cultural(found[0]) or stance.weigh_text(found[0], question).bears
            ):
                kept.append((turn.n, found[0]))
    return kept


def answer_verifier(facts: Mapping[str, Any]) -> str:
    """Answer as the verifier."""
    verdict, reason = judge_opinion(facts["opinion"], facts["question"], facts["answer"])
    return json.dumps({"verdict": verdict, "reason": reason})


def judge_opinion(text: str, question: Question, answer: int) -> tuple[str, str]:
    """Return a verdict on a text against an answer, and why."""
    degree, found = question.option(answer).degree, stance.weigh_text(text, question)
    if not found.bears:
        return "irrelevant", "It is about another matter."
    if found.hedged or (found.lean == 0 and found.affirm + found.deny >= stance.STANCE):
        fits = abs(degree) < FAINT
        return (
            "entail" if fits else "contradict"
        ), f"It leaves the question open, as the answer {'does' if fits else 'does not'}."
    if abs(found.lean) < (0.7 if degree == 0 else CLEAR):
        return _judge_undecided(found, degree)
    if degree == 0:
        return "contradict", "It takes a side where the answer takes none."
    if found.lean * degree > 0:
        return "entail", f"It {_name_side(found.lean)} the statement, as the answer does."
    return (
        "contradict",
        f"It {_name_side(found.lean)} the statement, and the answer {_name_side(degree)} it.",
    )


def _judge_undecided(found: stance.Evidence, degree: float) -> tuple[str, str]:
    if found.affirm + found.deny < stance.STANCE:
        return "irrelevant", "It speaks of the matter but takes no side."
    if abs(degree) < FAINT:
        return "entail", "It gives both sides their due, as the answer does."
    return "irrelevant", "It speaks for both sides and so decides nothing."


def _name_side(lean: float) -> str:
    return "affirms" if lean > 0 else "denies"


def answer_rewriter(facts: Mapping[str, Any], rng: random.Random) -> str:
    """Answer as the rewriter."""
    return json.dumps(
        {
            "opinion": reword_opinion(
                facts["opinion"], facts["question"], facts["answer"], facts["culture"].place, rng
            )
        },
        ensure_ascii=False,
    )


def reword_opinion(
    text: str, question: Question, answer: int, place: str, rng: random.Random
) -> str:
    """Return an opinion that agrees with the answer: what is custom in it is kept, its stance is
    replaced.
    """
    degree = question.option(answer).degree
    sides = choose_clauses(question, answer)
    words = {
        "claim": rng.choice(sides.claim),
        "against": rng.choice(sides.against),
        "reason": rng.choice(sides.reasons),
        "counter": rng.choice(sides.counters),
        "place": place,
    }
    kept = find_custom(text, question)
    frame = rng.choice(
        load_bank()["rewrite"][("kept" if kept else "plain") + ("_torn" if degree == 0 else "")]
    )
    return finish_sentence(fill_phrase(frame, {**words, "custom": kept}))


def find_custom(text: str, question: Question) -> str:
    """Return the part of an opinion that tells a custom before it takes its stance; empty where
    there is none.
    """
    tokens = TOKEN.findall(simplify_text(text))
    quoted = stance.find_quotations(tokens, stance.build_profile(question))
    place = text.find(",") if not quoted else _find_token(text, quoted[0].start, tokens)
    head = text[:place].rstrip()
    cut = max(head.rfind(", and "), head.rfind(", but "), head.rfind("; "))
    head = head[:cut] if cut > 0 else ""
    return (
        head
        if len(head.split()) > 5 and is_cultural(head) and not stance.read_side(head, question)
        else ""
    )


def _find_token(text: str, token: int, tokens: Sequence[str]) -> int:
    """Return where the token of this number begins in the text."""
    at = 0
    low = text.casefold().replace("’", "'")
    for t in tokens[: token + 1]:
        found = low.find(t, at)
        at = found + len(t) if found >= 0 else at
    return max(0, at - len(tokens[token]))


def inline_opinion(text: str, question: Question) -> str | None:
    """Return an opinion as it may stand inside a sentence; None where its first word may be a
    name.
    """
    starts = {
        c.split()[0] for c in (*question.claim, *question.denial, *question.pros, *question.cons)
    }
    return lower_start(text.rstrip("."), starts)
