"""Takes the opinions out of a dialogue's turns, each with the turn it came from."""

from __future__ import annotations

import re
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from culturepark.context import DialogueContext
from culturepark.llm.session import Desk, Failure, once
from culturepark.records import Opinion, Request, Turn, digest

WORD = re.compile(r"\w+")
TOKENS_PER_TURN = 128  # of an extractor's answer: some 80 are usual
MOST_TOKENS = 4096  # an answer to many turns may be no longer than most models can give
# words in common, of all words of both, from which an opinion carries a planted sentence's fault
SAME = 0.6


class Found(BaseModel):
    """One opinion as an extractor returns it."""

    model_config = ConfigDict(extra="ignore")
    turn: int
    text: str


class Extraction(BaseModel):
    """An extractor's whole answer."""

    model_config = ConfigDict(extra="ignore")
    opinions: list[Found]


async def extract(context: DialogueContext, desk: Desk) -> tuple[Opinion, ...] | Failure:
    """Return the opinions in the turns of the delegates (in-culture: of everyone), as the extractor
    words them.
    """
    scene, turns = context.scene, mined(context)
    if not turns:
        return ()
    answer = await desk.read(extraction_request(context), scene.id, Extraction)
    if isinstance(answer, Failure):
        return answer
    by_number = {t.n: t for t in turns}
    strays = sorted({f.turn for f in answer.value.opinions} - set(by_number))
    if strays:
        return Failure(
            "unparsed",
            f"the extractor cites turns that are not there: {strays}; there are"
            f" {sorted(by_number)}",
        )
    return tuple(
        _opinion(scene.id, n, found.text, by_number[found.turn])
        for n, found in enumerate(answer.value.opinions)
    )


def mined(context: DialogueContext) -> tuple[Turn, ...]:
    """Return the turns that opinions are taken from."""
    return tuple(t for t in context.dialogue.turns if t.seat in context.scene.mined)


def extraction_request(context: DialogueContext) -> Request:
    """Return what the extractor is sent. Its answer may grow with the turns; its card's max_tokens
    is the least.
    """
    scene, turns, role = context.scene, mined(context), context.roles["extractor"]
    speakers = list(dict.fromkeys(t.speaker for t in turns))
    facts = context.answer_facts(scene.mined[-1], turns=turns, speakers=speakers)
    room = max(role.max_tokens, min(TOKENS_PER_TURN * len(turns), MOST_TOKENS))
    return replace(once(role, facts, Extraction, scene.id), max_tokens=room)


def _opinion(dialogue: str, n: int, text: str, turn: Turn) -> Opinion:
    text = " ".join(text.split())
    return Opinion(
        id=digest(dialogue, n, text),
        dialogue=dialogue,
        n=n,
        turn=turn.n,
        seat=turn.seat,
        text=text,
        final=text,
        faults=planted(text, turn),
    )


def planted(text: str, turn: Turn) -> tuple[str, ...]:
    """Return the kinds of planted faults that an opinion carries, for measuring filters; empty for
    real models.
    """
    words = {w.casefold() for w in WORD.findall(text)}
    faults = (
        (fault.kind, {w.casefold() for w in WORD.findall(fault.sentence)}) for fault in turn.faults
    )
    return tuple(kind for kind, said in faults if len(words & said) >= SAME * len(words | said))
