"""Refines every ended dialogue of a run, many at once, then drops what one dialogue repeats of
another.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from culturepark.context import DialogueContext, look_up
from culturepark.curation import embedders, filters, first_person
from culturepark.curation.deduplication import deduplicate, mark_words, thin
from culturepark.curation.extract import extract
from culturepark.curation.verify import verify
from culturepark.executor.pool import run_each
from culturepark.llm.session import Failure, Meter, Session, measure_cost
from culturepark.records import Culture, Opinion, Question, Scene
from culturepark.settings import Refining, Settings
from culturepark.workspace import Workspace

Report = Callable[[Scene, tuple[Opinion, ...], Meter], None]


async def refine(
    workspace: Workspace,
    settings: Settings,
    session: Session,
    scenes: Iterable[Scene],
    report: Report | None = None,
) -> None:
    """Refine every held dialogue of `scenes` that the journal does not know as refined; a failed
    one is tried again.
    """
    for name in settings.refine.filters:
        filters.load(name)
    embedders.load(settings.refine.embedder)

    async def refine_scene(scene: Scene) -> None:
        dialogue = session.store.find_dialogue(scene.id)
        if dialogue is None or dialogue.status != "done" or session.store.is_refined(scene.id):
            return
        with measure_cost() as meter:
            opinions = await curate(look_up(workspace, dialogue), settings.refine, session)
        if isinstance(opinions, Failure):
            session.store.add_opinions(scene, (), f"{opinions.status}: {opinions.reason}")
            opinions = ()
        else:
            session.store.add_opinions(
                scene, ((o, mark_words(o)) for o in opinions), describe_lack(opinions)
            )
        if report:
            report(scene, opinions, meter)

    await run_each(scenes, refine_scene, settings.width)
    deduplicate(session.store)


async def curate(
    context: DialogueContext, how: Refining, session: Session
) -> tuple[Opinion, ...] | Failure:
    """Return all opinions of one dialogue, each kept or dropped with its reason; a Failure if none
    could be extracted.
    """
    opinions = await extract(context, session)
    if isinstance(opinions, Failure):
        return opinions
    for name in how.filters:
        opinions = await sift(opinions, name, context, session)
    # No verdict waits for another: in batch mode that would be a wave each.
    async with asyncio.TaskGroup() as group:
        tasks = [
            None if o.dropped else group.create_task(verify(o, context, session, how.rewrites))
            for o in opinions
        ]
    opinions = tuple(task.result() if task else o for o, task in zip(opinions, tasks, strict=True))
    opinions = thin_kept(opinions, context, how)
    return tuple(
        o if o.dropped else o.model_copy(update={"spoken": speak(o, context)}) for o in opinions
    )


async def sift(
    opinions: Sequence[Opinion], name: str, context: DialogueContext, session: Session
) -> tuple[Opinion, ...]:
    """Return all opinions, those dropped that a filter objects to; the dropped are not shown to it.

    One that a filter could not judge, because its call failed, is unverified.
    """
    batch = [o for o in opinions if not o.dropped]
    reasons = iter(await filters.apply_filter(name, batch, context, session))
    return tuple(o if o.dropped else _drop(o, name, next(reasons)) for o in opinions)


def _drop(opinion: Opinion, name: str, reason: filters.Reason) -> Opinion:
    if not reason:
        return opinion
    if isinstance(reason, Failure):
        detail = f"{reason.status}: filter {name}: {reason.reason}"
        return opinion.model_copy(update={"dropped": "unverified", "detail": detail})
    return opinion.model_copy(update={"dropped": name, "detail": reason})


def thin_kept(
    opinions: Sequence[Opinion], context: DialogueContext, how: Refining
) -> tuple[Opinion, ...]:
    """Return all opinions, the kept ones of each culture thinned out by themselves."""
    groups: dict[str, list[Opinion]] = {}
    for opinion in opinions:
        if not opinion.dropped:
            groups.setdefault(context.cultures[opinion.seat].name, []).append(opinion)
    embed = embedders.load(how.embedder)
    thinned = {
        opinion.id: opinion
        for group in groups.values()
        for opinion in thin(group, embed, how.clusters)
    }
    return tuple(thinned.get(opinion.id, opinion) for opinion in opinions)


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


def speak(opinion: Opinion, context: DialogueContext) -> str:
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
