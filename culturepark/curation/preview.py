"""Shows what the refinery would send, without sending it."""

from __future__ import annotations

from pydantic import BaseModel

from culturepark.context import DialogueContext
from culturepark.curation.extract import extraction_request
from culturepark.curation.verify import Rewriting, Ruling
from culturepark.llm.session import once
from culturepark.records import Request

SHAPES: dict[str, type[BaseModel]] = {"verifier": Ruling, "rewriter": Rewriting}


def preview(context: DialogueContext, role: str, opinion: str) -> Request:
    """Return the request of a refining role for this dialogue as far as it has come."""
    if role == "extractor":
        return extraction_request(context)
    scene = context.scene
    reason = "(the verifier's reason stands here)"
    facts = context.answer_facts(scene.mined[-1], opinion=opinion, reason=reason)
    return once(context.roles[role], facts, SHAPES[role], scene.id)
