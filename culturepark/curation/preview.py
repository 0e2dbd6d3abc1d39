"""Shows what the refinery would send, without sending it."""

from __future__ import annotations

from pydantic import BaseModel

from culturepark.curation.case import Case
from culturepark.curation.extract import extraction_request
from culturepark.curation.verify import Rewriting, Ruling
from culturepark.llm.session import once
from culturepark.records import Request

SHAPES: dict[str, type[BaseModel]] = {"verifier": Ruling, "rewriter": Rewriting}


def preview(case: Case, role: str, opinion: str) -> Request:
    """Return the request of a refining role for this dialogue as far as it has come."""
    if role == "extractor":
        return extraction_request(case)
    scene = case.dialogue.scene
    reason = "(the verifier's reason stands here)"
    facts = case.facts(scene.delegates[-1], opinion=opinion, reason=reason)
    return once(case.roles[role], facts, SHAPES[role], scene.id)
