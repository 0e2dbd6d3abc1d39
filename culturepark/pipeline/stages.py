"""The two stages that ask models, simulate and refine, and the events that they send while they
work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from culturepark.curation.pipeline import refine
from culturepark.dialogue.simulate import simulate
from culturepark.events import (
    DialogueEnded,
    DialogueRefined,
    OnEvent,
    RefineProgress,
    SimulateProgress,
    StageProgress,
    TurnWritten,
)
from culturepark.forecast import DialogueCosts, TurnCosts
from culturepark.llm.session import Meter, Session
from culturepark.records import Dialogue, Opinion, Scene
from culturepark.runs import Run

EVERY = 0.5  # seconds between reports of progress


async def hold_dialogues(
    opened: Run, desk: Session, scenes: Iterable[Scene], total: int, on_event: OnEvent
) -> None:
    """Hold `total` dialogues, and send what happens from the first moment."""
    turns, calls = opened.settings.turns, desk.calls
    costs = TurnCosts(total, turns)
    done = {"of": total, "of_turns": total * turns, "dialogues": 0, "turns": 0, "failed": 0}

    def begin_dialogue(dialogue: Dialogue) -> None:
        costs.skip(0, len(dialogue.turns))
        done["of_turns"] -= len(dialogue.turns)

    def count_turn(scene: Scene, n: int, meter: Meter) -> None:
        done["turns"] += 1
        costs.add(n, meter.usd)
        on_event(TurnWritten(scene.id, n, meter.usd))

    def end_dialogue(dialogue: Dialogue) -> None:
        done["dialogues"] += 1
        done["failed"] += dialogue.status == "failed"
        costs.skip(len(dialogue.turns), turns)
        done["of_turns"] -= turns - len(dialogue.turns)
        on_event(DialogueEnded(dialogue.scene.id, dialogue.status, dialogue.reason))

    def progress() -> SimulateProgress:
        return SimulateProgress(**done, **_measure_cost(opened, desk, calls, costs.ahead()))

    async with _report(progress, on_event):
        await simulate(
            opened.workspace,
            opened.settings,
            desk,
            scenes,
            end_dialogue,
            on_begin=begin_dialogue,
            on_turn=count_turn,
        )


async def refine_dialogues(
    opened: Run, desk: Session, scenes: Iterable[Scene], total: int, on_event: OnEvent
) -> None:
    """Refine `total` dialogues, and send what happens."""
    done = {"of": total, "dialogues": 0, "opinions": 0, "kept": 0}
    spent, calls, costs = desk.usd, desk.calls, DialogueCosts(total)

    def end_dialogue(scene: Scene, opinions: tuple[Opinion, ...], meter: Meter) -> None:
        kept = sum(not o.dropped for o in opinions)
        done["dialogues"] += 1
        done["opinions"] += len(opinions)
        done["kept"] += kept
        costs.add(meter.usd)
        on_event(DialogueRefined(scene.id, len(opinions), kept))

    def progress() -> RefineProgress:
        ahead = costs.ahead(desk.usd - spent)
        return RefineProgress(**done, **_measure_cost(opened, desk, calls, ahead))

    async with _report(progress, on_event):
        await refine(opened.workspace, opened.settings, desk, scenes, end_dialogue)


@asynccontextmanager
async def _report(progress: Callable[[], StageProgress], on_event: OnEvent) -> AsyncIterator[None]:
    """Send progress at once, every half second meanwhile, and at the end."""

    async def repeat() -> None:
        while True:
            on_event(progress())
            await asyncio.sleep(EVERY)

    reporter = asyncio.create_task(repeat())
    await asyncio.sleep(0)
    try:
        yield
        on_event(progress())
    finally:
        reporter.cancel()


def count_usage(desk: Session) -> dict[str, Any]:
    """Return what was asked since the desk opened, and what the whole run took; `usd` is None where
    no price is known.
    """
    usd = desk.usd if desk.has_price else None
    return {"calls": desk.calls, "failures": desk.failures, "tokens": desk.tokens, "usd": usd}


def _measure_cost(opened: Run, desk: Session, calls: int, ahead: float | None) -> dict[str, Any]:
    """Return what was asked and spent, the cap, and what will have been spent when the stage ends.

    `calls` had been asked before the stage, `ahead` USD are still to be spent.
    """
    known = desk.has_price and ahead is not None
    return {
        **count_usage(desk),
        "stage_calls": desk.calls - calls,
        "max_usd": opened.settings.max_usd,
        "forecast": desk.usd + (ahead or 0.0) if known else None,
    }
