"""Shows what the refinery would send, without sending it."""

from __future__ import annotations

from pydantic import BaseModel

from culturepark.context import DialogueContext
from culturepark.curation.extract import build_extraction, part_turns
from culturepark.curation.verify import Rewriting, Ruling
from culturepark.llm.session import build_single_request
from culturepark.records import Request

SHAPES: dict[str, type[BaseModel]] = {"verifier": Ruling, "rewriter": Rewriting}


def preview(context: DialogueContext, role: str, opinion: str) -> Request:
    """Return the request of a refining role for this dialogue as far as it has come; the
    extractor's about the last culture that spoke.
    """
    if role == "extractor":
        parts = part_turns(context)
        return build_extraction(context, parts[-1] if parts else ())
    scene = context.scene
    reason = "(the verifier's reason stands here)"
    facts = context.answer_facts(scene.mined_seats[-1], opinion=opinion, reason=reason)
    return build_single_request(context.roles[role], facts, SHAPES[role], scene.id)
