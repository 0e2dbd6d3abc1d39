"""Holds an opinion against the answer it was seeded with, and rewrites what contradicts it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from culturepark.context import DialogueContext
from culturepark.llm.session import Failure, Session, build_single_request
from culturepark.records import Opinion, Verdict


class Ruling(BaseModel):
    """A verifier's answer."""

    model_config = ConfigDict(extra="ignore")
    verdict: Literal["entail", "contradict", "irrelevant"]
    reason: str = ""

    @field_validator("verdict", mode="before")
    @classmethod
    def _fold(cls, value: object) -> object:
        return value.strip().casefold() if isinstance(value, str) else value


class Rewriting(BaseModel):
    """A rewriter's answer."""

    model_config = ConfigDict(extra="ignore")
    opinion: str

    @field_validator("opinion")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("an empty rewrite")
        return " ".join(value.split())


async def verify(
    opinion: Opinion, context: DialogueContext, session: Session, rewrites: int = 1
) -> Opinion:
    """Return the opinion with its verdicts; dropped unless its last wording entails the seed
    answer.

    Each rewrite is verified itself: it is the new wording that is judged, never again the old one
    (CulturePark, arXiv 2405.15145, §3.2).
    """
    for turn in range(rewrites + 1):
        ruling = await _rule(opinion, context, session, turn)
        if isinstance(ruling, Failure):
            return _drop(opinion, "unverified", f"{ruling.status}: {ruling.reason}")
        verdict = Verdict(
            round=turn, label=ruling.verdict, reason=ruling.reason, text=opinion.final
        )
        opinion = opinion.model_copy(update={"verdicts": (*opinion.verdicts, verdict)})
        if ruling.verdict == "entail":
            return opinion
        if ruling.verdict == "irrelevant" or turn == rewrites:
            return _drop(opinion, ruling.verdict, ruling.reason)
        rewritten = await _rewrite(opinion, context, session, ruling.reason, turn)
        if isinstance(rewritten, Failure):
            return _drop(opinion, "unrewritten", f"{rewritten.status}: {rewritten.reason}")
        opinion = opinion.model_copy(update={"final": rewritten.opinion})
    raise AssertionError("unreachable")


async def _rule(
    opinion: Opinion, context: DialogueContext, session: Session, turn: int
) -> Ruling | Failure:
    facts = context.answer_facts(opinion.seat, opinion=opinion.final)
    answer = await session.ask_json(
        build_single_request(context.roles["verifier"], facts, Ruling, opinion.id, turn),
        opinion.id,
        Ruling,
    )
    return answer if isinstance(answer, Failure) else answer.value


async def _rewrite(
    opinion: Opinion, context: DialogueContext, session: Session, reason: str, turn: int
) -> Rewriting | Failure:
    facts = context.answer_facts(opinion.seat, opinion=opinion.final, reason=reason)
    answer = await session.ask_json(
        build_single_request(context.roles["rewriter"], facts, Rewriting, opinion.id, turn),
        opinion.id,
        Rewriting,
    )
    return answer if isinstance(answer, Failure) else answer.value


def _drop(opinion: Opinion, reason: str, detail: str) -> Opinion:
    return opinion.model_copy(update={"dropped": reason, "detail": detail[:500]})
