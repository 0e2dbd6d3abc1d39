"""Refines every ended dialogue of a run, many at once, then drops what one dialogue repeats of
another.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from culturepark.context import DialogueContext, look_up
from culturepark.curation import deduplication, embedders, filters, first_person
from culturepark.curation.extract import extract
from culturepark.curation.filters.repeat import folded
from culturepark.curation.verify import verify
from culturepark.executor.pool import each
from culturepark.llm.session import Failure, Meter, Session, measure_cost
from culturepark.records import Culture, Opinion, Question, Scene, digest
from culturepark.settings import Refining, Settings
from culturepark.workspace import Workspace

Report = Callable[[Scene, tuple[Opinion, ...], Meter], None]


async def refine(
    workspace: Workspace,
    settings: Settings,
    desk: Session,
    scenes: Iterable[Scene],
    report: Report | None = None,
) -> None:
    """Refine every held dialogue of `scenes` that the journal does not know as refined; a failed
    one is tried again.
    """
    for name in settings.refine.sieves:
        filters.load(name)
    embedders.load(settings.refine.embedder)

    async def one(scene: Scene) -> None:
        dialogue = desk.journal.find_dialogue(scene.id)
        if dialogue is None or dialogue.status != "done" or desk.journal.is_refined(scene.id):
            return
        with measure_cost() as meter:
            opinions = await distil(look_up(workspace, dialogue), settings.refine, desk)
        if isinstance(opinions, Failure):
            desk.journal.add_opinions(scene, (), f"{opinions.status}: {opinions.reason}")
            opinions = ()
        else:
            desk.journal.add_opinions(
                scene, ((o, mark(o)) for o in opinions), describe_lack(opinions)
            )
        if report:
            report(scene, opinions, meter)

    await each(scenes, one, settings.width)
    settle(desk)


async def distil(
    context: DialogueContext, how: Refining, desk: Session
) -> tuple[Opinion, ...] | Failure:
    """Return all opinions of one dialogue, each kept or dropped with its reason; a Failure if none
    could be extracted.
    """
    found = await extract(context, desk)
    if isinstance(found, Failure):
        return found
    sieved: list[Opinion] = []
    for opinion in found:
        sieved.append(sift(opinion, context, how, [o for o in sieved if not o.dropped]))
    async with (
        asyncio.TaskGroup() as group
    ):  # no verdict waits for another: in batch mode that would be a wave each
        ruled = [
            o if o.dropped else group.create_task(verify(o, context, desk, how.rewrites))
            for o in sieved
        ]
    judged = [o if isinstance(o, Opinion) else o.result() for o in ruled]
    thinned = iter(
        deduplication.thin_each(
            [o for o in judged if not o.dropped],
            lambda o: context.scene.seats[o.seat].culture,
            embedders.load(how.embedder),
            how.clusters,
        )
    )
    merged = (o if o.dropped else next(thinned) for o in judged)
    return tuple(
        o if o.dropped else o.model_copy(update={"spoken": spoken(o, context)}) for o in merged
    )


def describe_lack(opinions: Iterable[Opinion]) -> str:
    """Return how many opinions have no verdict because a call did not come through, and why; empty
    where all have one.

    Refined again, only those calls are made again: what was answered is in the journal.
    """
    lacking = [
        o
        for o in opinions
        if o.dropped in ("unverified", "unrewritten") and o.detail.startswith("failed: ")
    ]
    return f"{len(lacking)} opinions have no verdict: {lacking[0].detail}" if lacking else ""


def sift(
    opinion: Opinion, context: DialogueContext, how: Refining, earlier: list[Opinion]
) -> Opinion:
    """Return the opinion, dropped by the first sieve that objects."""
    for name in how.sieves:
        why = filters.load(name)(opinion, context, earlier)
        if why:
            return opinion.model_copy(update={"dropped": name, "detail": why})
    return opinion


def spoken(opinion: Opinion, context: DialogueContext) -> str:
    """Return the kept wording in the first person of its speaker."""
    name = context.personas[opinion.seat].given_name
    return first_person.first_person(
        opinion.final,
        {name},
        opinion.dialogue,
        common=_common(context.question, context.cultures[opinion.seat]),
    )


WORD = re.compile(r"[^\W\d_]+")


def _common(question: Question, culture: Culture) -> frozenset[str]:
    return _words(
        culture.name,
        (*question.claim, *question.denial, *question.pros, *question.cons, question.about),
    )


@lru_cache(maxsize=4096)
def _words(culture: str, texts: tuple[str, ...]) -> frozenset[str]:
    """Return the words that cards write small, so that they may be written small."""
    return frozenset(w for text in texts for w in WORD.findall(text) if w.islower())


def mark(opinion: Opinion) -> str | None:
    """Return what makes two kept opinions the same: their words, whatever the case and
    punctuation.
    """
    return None if opinion.dropped else digest(folded(opinion.final))


def settle(desk: Session) -> None:
    """Drop kept opinions that an earlier dialogue on the same question already gave; the outcome is
    the same in any order of work.
    """
    for repeat, first in desk.journal.find_repeats():
        opinion = desk.journal.find_opinion(repeat)
        assert opinion is not None, "a repeat was read from the same journal"
        desk.journal.drop_opinion(
            opinion.model_copy(
                update={"dropped": "duplicate", "detail": f"same words as opinion {first}"}
            )
        )
    desk.journal.commit()
