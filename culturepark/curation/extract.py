"""Takes the opinions out of a dialogue's turns, each with the turn it came from."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from culturepark.context import DialogueContext
from culturepark.llm.session import Failure, Session, build_single_request
from culturepark.records import Opinion, Request, Turn, digest

Turns = tuple[Turn, ...]
WORD = re.compile(r"\w+")
TOKENS_PER_TURN = 128  # of an extractor's answer: some 80 are usual
MOST_TOKENS = 4096  # an answer to many turns may be no longer than most models can give
# words in common, of all words of both, from which an opinion carries a planted sentence's fault
SAME = 0.6


class ExtractedOpinion(BaseModel):
    """One opinion as an extractor returns it."""

    model_config = ConfigDict(extra="ignore")
    turn: int
    text: str


class Extraction(BaseModel):
    """An extractor's whole answer."""

    model_config = ConfigDict(extra="ignore")
    opinions: list[ExtractedOpinion]


async def extract(context: DialogueContext, session: Session) -> tuple[Opinion, ...] | Failure:
    """Return the opinions in the turns of the seats that are mined, as the extractor words them.

    It is asked once per culture: how an opinion names its people depends on whose it is.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_extract_part(context, part, session)) for part in part_turns(context)
        ]
    parts = [task.result() for task in tasks]
    if failures := [part for part in parts if isinstance(part, Failure)]:
        return failures[0]
    opinions = [
        (one.text, turn) for part in parts if not isinstance(part, Failure) for one, turn in part
    ]
    return tuple(
        _opinion(context.scene.id, n, text, turn) for n, (text, turn) in enumerate(opinions)
    )


async def _extract_part(
    context: DialogueContext, turns: Turns, session: Session
) -> list[tuple[ExtractedOpinion, Turn]] | Failure:
    """Return the opinions in some turns, each with the turn it is from."""
    request = build_extraction(context, turns)
    answer = await session.ask_json(request, context.scene.id, Extraction)
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
    return [(one, by_number[one.turn]) for one in answer.value.opinions]


def part_turns(context: DialogueContext) -> list[Turns]:
    """Return the turns that opinions are taken from, those of each culture together."""
    scene, parts = context.scene, dict[str, list[Turn]]()
    for turn in context.dialogue.turns:
        if turn.seat in scene.mined_seats:
            parts.setdefault(scene.seats[turn.seat].culture, []).append(turn)
    return [tuple(turns) for turns in parts.values()]


def build_extraction(context: DialogueContext, turns: Turns) -> Request:
    """Return what the extractor is sent about the turns of one culture. Its answer may grow with
    them; its card's max_tokens is the least.
    """
    scene, role = context.scene, context.roles["extractor"]
    speakers = list(dict.fromkeys(t.speaker for t in turns))
    whose = {scene.seats[t.seat].culture for t in turns}
    seats = [i for i in scene.mined_seats if not whose or scene.seats[i].culture in whose]
    facts = context.answer_facts(seats[-1], turns=turns, speakers=speakers)
    room = max(role.max_tokens, min(TOKENS_PER_TURN * len(turns), MOST_TOKENS))
    return replace(build_single_request(role, facts, Extraction, scene.id), max_tokens=room)


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
        faults=match_faults(text, turn),
    )


def match_faults(text: str, turn: Turn) -> tuple[str, ...]:
    """Return the kinds of planted faults that an opinion carries, for measuring filters; empty for
    real models.
    """
    words = {w.casefold() for w in WORD.findall(text)}
    faults = (
        (fault.kind, {w.casefold() for w in WORD.findall(fault.sentence)}) for fault in turn.faults
    )
    return tuple(kind for kind, fault in faults if len(words & fault) >= SAME * len(words | fault))
