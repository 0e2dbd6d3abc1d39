"""Plays teacher and learner offline: a templated lesson, and a learner that believes what it can
read.

The teacher is told what the people answer (facts["answer"]) where no hosted model is: it is a bound
on what teaching can do in a study, not a rival. The learner's exam moves only by sentences that
bear on the question by their words.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from culturepark.offline.lexicon import WORD, collect_stems, simplify_text
from culturepark.offline.phrases import choose_clauses
from culturepark.offline.sentences import split_sentences
from culturepark.offline.stance import STANCE, weigh_text
from culturepark.records import Culture, Question, Request, stream

# the degree of an answer where all that was heard is on one side: most people hold no extreme
MILD = 0.5
ASKS = (
    "How do people around you see {about}?",
    "What do many people where you live think about {about}?",
    "I know little of your country. What would I hear there about {about}, and why?",
)


def write_lesson(facts: Mapping[str, Any], rng: random.Random) -> str:
    """Say what many answer to the lesson's question, where the facts tell it, and a norm that is
    close to what was asked.
    """
    culture, question = facts["culture"], facts.get("question")
    said = (
        []
        if question is None or facts["answer"] is None
        else [_say_majority(culture, question, facts["answer"], rng)]
    )
    return " ".join([*said, _choose_norm(culture, question, facts["asked"], rng)])


def _say_majority(culture: Culture, question: Question, answer: int, rng: random.Random) -> str:
    sides = choose_clauses(question, answer)
    claim = rng.choice(sides.claim)
    if not question.option(answer).degree:
        return (
            f"Many {culture.people} find it hard to say whether {claim} or whether"
            f" {rng.choice(sides.against)}."
        )
    return f"Many {culture.people} would say that {claim}, because {rng.choice(sides.reasons)}."


def _choose_norm(
    culture: Culture, question: Question | None, asked: str, rng: random.Random
) -> str:
    """Return one of the norms that share most words with what was asked, those on its topic
    first.
    """
    words = set(collect_stems(WORD.findall(simplify_text(asked))))
    topic = question.topic if question is not None else ""
    near = {
        n.text: (
            topic in n.topics,
            len(words & set(collect_stems(WORD.findall(simplify_text(n.text))))),
        )
        for n in culture.norms
    }
    best = max(near.values())
    return rng.choice([text for text, closeness in near.items() if closeness == best])


def ask_about_topic(facts: Mapping[str, Any], rng: random.Random) -> str:
    """Ask about the next topic."""
    return rng.choice(ASKS).format(about=facts["question"].about)


def sit_exam(facts: Mapping[str, Any], rng: random.Random) -> str:
    """Answer an exam question: as the teacher's words lean, mildly; else with the persona's own
    view, else with any option.
    """
    question: Question = facts["question"]
    own = facts["view"] if facts["view"] is not None else rng.choice(question.options).code
    if lean := weigh_lesson(facts["talk"], question):
        own = min(question.options, key=lambda o: (abs(o.degree - MILD * lean), o.code)).code
    return str(own)


def weigh_lesson(talk: Any, question: Question) -> float:
    """Return the side that the teacher's sentences take on a question, from -1 to 1; 0 where none
    bears on it.
    """
    found = [
        weigh_text(said, question)
        for turn in talk
        if turn["who"] == "teacher"
        for said in split_sentences(turn["text"])
    ]
    affirm, deny = (sum(getattr(e, side) for e in found if e.bears) for side in ("affirm", "deny"))
    return (affirm - deny) / (affirm + deny) if affirm + deny >= STANCE else 0.0


def rate_lesson(facts: Mapping[str, Any], rng: random.Random) -> str:
    """Rate a lesson from 1 to 5 by the share of its answers that are on what was asked."""
    answers = [turn["text"] for turn in facts["talk"] if turn["who"] == "teacher"]
    on_it = sum(
        weigh_text(said, question).bears
        for said, question in zip(answers, facts["lesson"], strict=True)
    )
    return str(1 + round(4 * on_it / max(1, len(answers))))


TASKS: Mapping[str, Callable[[Mapping[str, Any], random.Random], str]] = {
    "ask": ask_about_topic,
    "sit": sit_exam,
    "rate": rate_lesson,
}
LESSONS: Mapping[str, Callable[[Request], str]] = {
    "teacher": lambda request: write_lesson(
        request.facts, stream(request.seed, request.index, "teach")
    ),
    "learner": lambda request: TASKS[request.facts["task"]](
        request.facts, stream(request.seed, request.index, "learn")
    ),
}
