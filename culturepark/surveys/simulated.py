"""Simulated preferences with known minorities, for trials without a download."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from culturepark.records import stream

TOPICS = ("tea", "trains", "gardens", "letters")
COUNTRIES = ("Norland", "Ostland", "Sudland", "Westland")
QUESTIONS = (
    "Tell me about {topic}.",
    "What should I know about {topic}?",
    "Say something about {topic}, please.",
)
FOLLOW_UPS = ("And what else?", "Go on, please.", "What would you add?")
TONES = {
    "formal": ("With respect, ", "May I say that ", "If you permit, "),
    "plain": ("Well, ", "So, ", "Look, "),
}
SOUND = (
    "they need care and some time",
    "they are best learnt by doing",
    "most people begin with a small one",
    "good ones last for years",
)
UNSOUND = (
    "they are kings of the moon",
    "the number nine ate them",
    "they sing when nobody is blue",
    "seven is a kind of rain",
)


def generate_conversations(
    users: int = 40, talks: int = 3, prevalence: float = 0.85, noise: float = 0.05, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield scored conversations in PRISM's format: `users` people per country, with `talks`
    conversations of two turns each.

    Everybody prefers sense to nonsense and, among equally sensible answers, a plain tone to a
    formal one; but a share `prevalence` of a country's people prefers the formal one on the
    country's own topic (the i-th of TOPICS for the i-th of COUNTRIES). Only the first turn names
    the topic, so later preferences depend on the history. In a share `noise` of the turns the
    scores are permuted at random. `majority_score` is the score that somebody without the
    minority's preference would have given, with the same noise: a pair belongs to a minority if
    the two scores disagree.
    """
    rng = stream("simulated", seed)
    for country, own in zip(COUNTRIES, TOPICS, strict=True):
        for n in range(users):
            user, in_minority = f"{country}-{n}", rng.random() < prevalence
            for k in range(talks):
                topic = rng.choice(TOPICS)
                tone = "formal" if in_minority and topic == own else "plain"
                history = [
                    m for turn in (0, 1) for m in _generate_turn(rng, turn, topic, tone, noise)
                ]
                yield {
                    "user_id": user,
                    "conversation_id": f"{user}-{k}",
                    "country": country,
                    "conversation_history": history,
                }


def _generate_turn(
    rng: Any, turn: int, topic: str, preferred_tone: str, noise: float
) -> list[dict[str, Any]]:
    question = rng.choice(FOLLOW_UPS if turn else QUESTIONS).format(topic=topic)
    traits = [
        (rng.random() < 0.8, rng.choice(("formal", "plain"))) for _ in range(2 if turn else 4)
    ]
    texts = [
        rng.choice(TONES[tone]) + rng.choice(SOUND if sound else UNSOUND) + "."
        for sound, tone in traits
    ]
    scores = [
        (40 + 30 * sound + 20 * (tone == preferred_tone), 40 + 30 * sound + 20 * (tone == "plain"))
        for sound, tone in traits
    ]
    if rng.random() < noise:
        rng.shuffle(scores)
    best = max(range(len(scores)), key=lambda i: scores[i][0])
    answers = [
        {
            "turn": turn,
            "role": "model",
            "content": text,
            "score": own,
            "majority_score": most,
            "if_chosen": i == best,
        }
        for i, (text, (own, most)) in enumerate(zip(texts, scores, strict=True))
    ]
    return [{"turn": turn, "role": "user", "content": question}, *answers]


def write_conversations(path: Path, **how: Any) -> Path:
    """Write `generate_conversations(**how)` as JSONL and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in generate_conversations(**how)), encoding="utf-8"
    )
    return path
