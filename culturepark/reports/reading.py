"""A dialogue and a few samples per culture, to be read: figures alone do not show what a corpus
sounds like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from culturepark.records import Dialogue, Opinion, Sample, Turn
from culturepark.store import RunStore
from culturepark.workspace import Workspace

Facts = dict[str, Any]
SAMPLES = 3  # per culture, of different questions
LONGEST = 2_000  # characters shown of one text


def read_examples(journal: RunStore, workspace: Workspace, cultures: Sequence[str]) -> list[Facts]:
    """Return per culture its first dialogue with a kept opinion, and samples of the first
    questions.
    """
    found = ((c, _dialogue(journal, workspace, c), _samples(journal, c)) for c in cultures)
    return [{"culture": c, "dialogue": d, "samples": s} for c, d, s in found if d or s]


def _dialogue(journal: RunStore, workspace: Workspace, culture: str) -> Facts | None:
    """Return a dialogue's question, its turns, and what became of each opinion taken from them."""
    rows = journal.select(
        "SELECT s.id FROM scenes s JOIN opinions o ON o.dialogue = s.id WHERE s.culture = ? "
        "AND s.status = 'done' AND o.dropped = '' ORDER BY s.ordinal LIMIT 1",
        culture,
    )
    dialogue = journal.dialogue(rows[0][0]) if rows else None
    if dialogue is None:
        return None
    scene = dialogue.scene
    opinions = [
        Opinion.model_validate_json(o)
        for (o,) in journal.select(
            "SELECT opinion FROM opinions WHERE dialogue = ? ORDER BY n", scene.id
        )
    ]
    return {
        "id": scene.id,
        "question": workspace.question(scene.scenario, scene.question).text,
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


def _samples(journal: RunStore, culture: str) -> list[Facts]:
    rows = journal.select(
        "SELECT sample, MIN(rank) FROM samples WHERE culture = ? GROUP BY question ORDER BY 2"
        " LIMIT ?",
        culture,
        SAMPLES,
    )
    samples = [Sample.model_validate_json(sample) for sample, _ in rows]
    keys = ("system", "prompt", "completion")
    return [
        {"id": s.id, "split": s.split, **{k: _shorten(getattr(s, k)) for k in keys}}
        for s in samples
    ]


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
