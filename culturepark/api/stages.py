"""The two stages that ask models, simulate and refine, and the figures that they report while they
work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from culturepark.curation.pipeline import refine
from culturepark.dialogue.simulate import simulate
from culturepark.forecast import DialogueCosts, TurnCosts
from culturepark.llm.session import Desk, Meter
from culturepark.records import Dialogue, Opinion, Scene
from culturepark.runs import Run

Tell = Callable[[str, Mapping[str, Any]], None]  # stage and its figures so far
EVERY = 0.5  # seconds between figures


async def hold_dialogues(
    opened: Run, desk: Desk, scenes: Iterable[Scene], total: int, tell: Tell
) -> None:
    """Hold `total` dialogues; figures count dialogues, turns and failures, from the first
    moment.
    """
    turns, calls = opened.settings.turns, desk.calls
    costs = TurnCosts(total, turns)
    done = {"of": total, "of_turns": total * turns, "dialogues": 0, "turns": 0, "failed": 0}

    def begin_dialogue(dialogue: Dialogue) -> None:
        costs.skip(0, len(dialogue.turns))
        done["of_turns"] -= len(dialogue.turns)

    def count_turn(n: int, meter: Meter) -> None:
        done["turns"] += 1
        costs.add(n, meter.usd)

    def end_dialogue(dialogue: Dialogue) -> None:
        done["dialogues"] += 1
        done["failed"] += dialogue.status == "failed"
        costs.skip(len(dialogue.turns), turns)
        done["of_turns"] -= turns - len(dialogue.turns)

    def figures() -> dict[str, Any]:
        asked = {"stage_calls": desk.calls - calls}
        return done | asked | count_usage(desk) | _money(opened, desk, costs.ahead())

    async with _told("simulate", figures, tell):
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
    opened: Run, desk: Desk, scenes: Iterable[Scene], total: int, tell: Tell
) -> None:
    """Refine `total` dialogues; figures count dialogues, opinions and those kept."""
    done = {"of": total, "dialogues": 0, "opinions": 0, "kept": 0}
    spent, calls, costs = desk.usd, desk.calls, DialogueCosts(total)

    def end_dialogue(_: Scene, opinions: tuple[Opinion, ...], meter: Meter) -> None:
        done["dialogues"] += 1
        done["opinions"] += len(opinions)
        done["kept"] += sum(not o.dropped for o in opinions)
        costs.add(meter.usd)

    def figures() -> dict[str, Any]:
        asked = {"stage_calls": desk.calls - calls}
        return (
            done | asked | count_usage(desk) | _money(opened, desk, costs.ahead(desk.usd - spent))
        )

    async with _told("refine", figures, tell):
        await refine(opened.workspace, opened.settings, desk, scenes, end_dialogue)


@asynccontextmanager
async def _told(
    stage: str, figures: Callable[[], dict[str, Any]], tell: Tell
) -> AsyncIterator[None]:
    """Report figures at once, every half second meanwhile, and at the end."""

    async def report() -> None:
        while True:
            tell(stage, figures())
            await asyncio.sleep(EVERY)

    reporter = asyncio.create_task(report())
    await asyncio.sleep(0)
    try:
        yield
        tell(stage, figures())
    finally:
        reporter.cancel()


def count_usage(desk: Desk) -> dict[str, Any]:
    """Return what was asked since the desk opened, and what the whole run took; `usd` is None where
    no price is known.
    """
    usd = desk.usd if desk.priced else None
    return {"calls": desk.calls, "failures": desk.failures, "tokens": desk.tokens, "usd": usd}


def _money(opened: Run, desk: Desk, ahead: float | None) -> dict[str, Any]:
    """Return the cap, and what will have been spent when the stage ends; None where that cannot be
    reckoned.
    """
    known = desk.priced and ahead is not None
    return {
        "max_usd": opened.settings.max_usd,
        "forecast": desk.usd + (ahead or 0.0) if known else None,
    }
