"""Simulated preferences of minorities, whose truth is known: trials without a download."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from culturepark.records import stream

TOPICS = ("tea", "trains", "gardens", "letters")
COUNTRIES = ("Norland", "Ostland", "Sudland", "Westland")
ASKED = (
    "Tell me about {topic}.",
    "What should I know about {topic}?",
    "Say something about {topic}, please.",
)
AGAIN = ("And what else?", "Go on, please.", "What would you add?")
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


def conversations(
    users: int = 40, talks: int = 3, held: float = 0.85, noise: float = 0.05, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield scored conversations in PRISM's shape, `users` people a country with `talks`
    conversations of two turns each.

    Everybody prefers sense to nonsense; with sense alike, all prefer a plain tone to a formal one,
    except that a share `held` of a country's people prefer the formal one on that country's own
    topic (the i-th of TOPICS for the i-th of COUNTRIES). Only the first turn names the topic, so
    that later preferences can be told from the history alone. In a share `noise` of the turns the
    scores are dealt out at random. `majority_score` is what somebody without the minority's
    preference would have given, noise and all: a pair is a minority's where the two scores
    disagree.
    """
    rng = stream("simulated", seed)
    for country, own in zip(COUNTRIES, TOPICS, strict=True):
        for n in range(users):
            user, holds = f"{country}-{n}", rng.random() < held
            for k in range(talks):
                topic = rng.choice(TOPICS)
                liked = "formal" if holds and topic == own else "plain"
                told = [m for turn in (0, 1) for m in _turn(rng, turn, topic, liked, noise)]
                yield {
                    "user_id": user,
                    "conversation_id": f"{user}-{k}",
                    "country": country,
                    "conversation_history": told,
                }


def _turn(rng: Any, turn: int, topic: str, liked: str, noise: float) -> list[dict[str, Any]]:
    asked = rng.choice(AGAIN if turn else ASKED).format(topic=topic)
    drawn = [(rng.random() < 0.8, rng.choice(("formal", "plain"))) for _ in range(2 if turn else 4)]
    texts = [
        rng.choice(TONES[tone]) + rng.choice(SOUND if sound else UNSOUND) + "."
        for sound, tone in drawn
    ]
    scores = [
        (40 + 30 * sound + 20 * (tone == liked), 40 + 30 * sound + 20 * (tone == "plain"))
        for sound, tone in drawn
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
    return [{"turn": turn, "role": "user", "content": asked}, *answers]


def write(path: Path, **how: Any) -> Path:
    """Write conversations (`how` as there) as JSONL and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in conversations(**how)), encoding="utf-8"
    )
    return path
