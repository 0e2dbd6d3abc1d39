"""Shows what the refinery would send, without sending it."""

from __future__ import annotations

from pydantic import BaseModel

from culturepark.desk import once
from culturepark.records import Request
from culturepark.refinery.case import Case
from culturepark.refinery.extract import Extraction
from culturepark.refinery.verify import Rewriting, Ruling

SHAPES: dict[str, type[BaseModel]] = {"extractor": Extraction, "verifier": Ruling, "rewriter": Rewriting}


def preview(case: Case, role: str, opinion: str) -> Request:
    """Return the request of a refining role for this dialogue as far as it has come."""
    scene = case.dialogue.scene
    seat = scene.delegates[-1]
    turns = tuple(t for t in case.dialogue.turns if t.seat in scene.delegates)
    facts = case.facts(seat, turns=turns, speakers=list(dict.fromkeys(t.speaker for t in turns)),
                       opinion=opinion, reason="(the verifier's reason stands here)")  # fmt: skip
    return once(case.roles[role], facts, SHAPES[role], scene.id)
