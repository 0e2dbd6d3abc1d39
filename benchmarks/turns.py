"""What the park itself costs a turn: scripted model, shipped cards, journal on, one core; aim at
least 2,000 turns/s.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import culturepark as cp
from culturepark.dialogue.simulate import plan, simulate
from culturepark.executor import pool
from culturepark.llm.session import Models, Session
from culturepark.records import Reply, Request
from culturepark.store import RunStore

DIALOGUES, TURNS = 1000, 14


def line(request: Request) -> str | Reply:
    """Say something of ordinary length, different each turn."""
    return (
        f"Well, number {request.seed}: I see it as many people around me do, and I can tell you"
        " why. My grandmother kept a small shop, and whoever came in was asked about the family"
        " first and about money last; that is still how we begin. It is slower than what you"
        " describe, but nobody leaves with a bad feeling, and that matters to us."
    )


def main() -> None:
    """Print CPU ms a turn and turns a second."""
    workspace, settings = cp.load(), cp.Settings(cultures=("arabic",), concurrency=500)
    scenes = list(plan(workspace, settings, "arabic", DIALOGUES))
    with tempfile.TemporaryDirectory() as folder, RunStore(Path(folder)) as journal:
        desk = Session(Models(cp.Scripted(line)), journal)
        cpu, wall = time.process_time(), time.perf_counter()
        with pool.pause_garbage_collection():  # as every run does
            asyncio.run(simulate(workspace, settings, desk, scenes))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    turns = DIALOGUES * TURNS
    print(
        f"{turns} turns of {DIALOGUES} dialogues, 500 in flight: {cpu / turns * 1000:.3f} ms CPU a"
        f" turn, {turns / wall:,.0f} turns/s"
    )
