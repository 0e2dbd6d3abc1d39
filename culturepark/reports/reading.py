"""A dialogue and a few samples per culture, to be read: figures alone do not show what a corpus
sounds like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from culturepark.records import Dialogue, Opinion, Turn
from culturepark.store import RunStore
from culturepark.store.queries import find_example, read_example_samples, read_opinions
from culturepark.workspace import Workspace

Facts = dict[str, Any]
SAMPLES = 3  # per culture, of different questions
LONGEST = 2_000  # characters shown of one text


def read_examples(store: RunStore, workspace: Workspace, cultures: Sequence[str]) -> list[Facts]:
    """Return per culture its first dialogue with a kept opinion, and samples of the first
    questions.
    """
    found = ((c, _dialogue(store, workspace, c), _samples(store, c)) for c in cultures)
    return [{"culture": c, "dialogue": d, "samples": s} for c, d, s in found if d or s]


def _dialogue(store: RunStore, workspace: Workspace, culture: str) -> Facts | None:
    """Return a dialogue's question, its turns, and what became of each opinion taken from them."""
    example = find_example(store, culture)
    dialogue = store.find_dialogue(example) if example else None
    if dialogue is None:
        return None
    scene = dialogue.scene
    opinions = read_opinions(store, scene.id)
    return {
        "id": scene.id,
        "question": workspace.question(scene.scenario, scene.question).text,
        "seats": [
            {
                "role": seat.role,
                "persona": seat.persona,
                "language": seat.language or "English",
                "mined": i in scene.mined_seats,
            }
            for i, seat in enumerate(scene.seats)
        ],
        "turns": [_turn(dialogue, turn, opinions) for turn in dialogue.turns],
    }


def _turn(dialogue: Dialogue, turn: Turn, opinions: Sequence[Opinion]) -> Facts:
    return {
        "speaker": turn.speaker,
        "persona": dialogue.scene.seats[turn.seat].persona,
        "text": _shorten(turn.text),
        "opinions": [
            {"text": _shorten(o.final), "dropped": o.dropped} for o in opinions if o.turn == turn.n
        ],
    }


def _samples(store: RunStore, culture: str) -> list[Facts]:
    samples = read_example_samples(store, culture, SAMPLES)
    keys = ("system", "prompt", "completion")
    return [
        {"id": s.id, "split": s.split, **{k: _shorten(getattr(s, k)) for k in keys}}
        for s in samples
    ]


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
