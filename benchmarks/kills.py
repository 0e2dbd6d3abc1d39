"""`kill -9` twenty times at random moments of one hosted run, resumed each time: what is lost,
doubled, or paid twice.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path

import culturepark as cp
from culturepark.testing.templated import CannedAnswer

DIALOGUES, TURNS, IN_FLIGHT, LATENCY, KILLS = 1_200, 12, 100, 0.1, 20


def main() -> None:
    """Print the kills, the calls that were sent twice beside those in flight at the kills, and
    whether the run is whole.
    """
    rng, ends, waiting, early = random.Random(0), list[int](), list[int](), 0
    with (
        tempfile.TemporaryDirectory() as folder,
        cp.Server(CannedAnswer(60), models=("canned",), latency=LATENCY) as server,
    ):
        run = cp.start(
            "kills",
            out=Path(folder),
            cultures=("arabic",),
            styles=("guided",),
            turns=TURNS,
            dialogues=DIALOGUES,
            model="openai/canned",
            base_url=server.url,
            concurrency=IN_FLIGHT,
        )
        for _ in range(KILLS):
            child = simulating(run)
            moment, since = rng.randrange(600), server.counts["requests"]
            while child.poll() is None and server.counts["requests"] < since + moment + 1:
                time.sleep(0.005)
            early += child.poll() is not None
            child.kill()
            waiting.append(server.counts["in_flight"])
            child.wait()
            while server.counts["in_flight"]:
                time.sleep(0.01)
            ends.append(len(server.seen))
        simulating(run).wait()
        again = repeated([repr((b["messages"], b["seed"])) for b in server.seen], ends)
        sent = len(server.seen)
        with run.open_store(write=False) as journal:
            done = journal.select("SELECT COUNT(*) FROM scenes WHERE status = 'done'")[0][0]
            turns, texts = journal.select(
                "SELECT COUNT(*), COUNT(DISTINCT json_extract(turn, '$.text')) FROM turns"
            )[0]
    planned, worst = DIALOGUES * TURNS, max(again)
    print(
        f"{KILLS - early} kills in a run of {planned:,} turns, {IN_FLIGHT} in flight,"
        f" {LATENCY * 1000:.0f} ms"
    )
    print(
        f"dialogues held {done:,} of {DIALOGUES:,}; turns {turns:,} of {planned:,}; lost:"
        f" {planned - turns}; doubled: {turns - texts}"
    )
    print(
        f"calls paid twice: {sum(again):,} of {sent:,}; at one kill at most {worst}, where"
        f" {IN_FLIGHT} were in flight; never more: {'yes' if worst <= IN_FLIGHT else 'NO'} (the"
        f" server was still at work on {sum(waiting):,} of them; the rest was on its way)"
    )


def repeated(asked: Sequence[str], ends: Sequence[int]) -> list[int]:
    """Return how many calls of each session (`asked` up to each of `ends`) were asked again in a
    later one.
    """
    again, last = [0] * (len(ends) + 1), dict[str, int]()
    for i, call in enumerate(asked):
        if call in last:
            again[bisect(ends, last[call])] += 1
        last[call] = i
    return again


def simulating(run: cp.Run) -> subprocess.Popen[bytes]:
    """Start a process that goes on with the run."""
    env = {**os.environ, "OPENAI_API_KEY": "none"}
    command = [sys.executable, "-m", "culturepark", "simulate", str(run.folder), "--resume"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env)
