"""`kill -9` twenty times at random moments of one hosted run, resumed each time: what is lost, doubled, or paid twice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import culturepark as cp

DIALOGUES, TURNS, IN_FLIGHT, LATENCY, KILLS = 1_200, 12, 100, 0.1, 20


def main() -> None:
    """Print the kills, the calls that were sent twice beside those in flight at the kills, and whether the run is whole."""
    rng, in_flight, early = random.Random(0), list[int](), 0
    with (
        tempfile.TemporaryDirectory() as folder,
        cp.Server(cp.server.canned(60), models=("canned",), latency=LATENCY) as server,
    ):
        run = cp.start("kills", out=Path(folder), cultures=("arabic",), styles=("guided",), turns=TURNS, dialogues=DIALOGUES,
                       model="openai/canned", base_url=server.url, concurrency=IN_FLIGHT)  # fmt: skip
        for _ in range(KILLS):
            child = simulating(run)
            moment, since = rng.randrange(600), server.counts["requests"]
            while child.poll() is None and server.counts["requests"] < since + moment + 1:
                time.sleep(0.005)
            early += child.poll() is not None
            child.kill()
            in_flight.append(server.counts["in_flight"])
            child.wait()
            while server.counts["in_flight"]:
                time.sleep(0.01)
        simulating(run).wait()
        asked = Counter(repr((b["messages"], b["seed"])) for b in server.seen)
        with run.journal(write=False) as journal:
            done = journal.count("SELECT COUNT(*) FROM scenes WHERE status = 'done'")[0][0]
            turns, texts = journal.count("SELECT COUNT(*), COUNT(DISTINCT json_extract(turn, '$.text')) FROM turns")[0]
    twice = sum(n - 1 for n in asked.values())
    planned = DIALOGUES * TURNS
    print(f"{KILLS - early} kills in a run of {planned:,} turns, {IN_FLIGHT} in flight, {LATENCY * 1000:.0f} ms")
    print(
        f"dialogues held {done:,} of {DIALOGUES:,}; turns {turns:,} of {planned:,}; lost: {planned - turns}; doubled: {turns - texts}"
    )
    print(f"calls paid twice: {twice:,} of {sum(asked.values()):,}; in flight at the kills: {sum(in_flight):,} "
          f"(most at one: {max(in_flight)}); within them: {'yes' if twice <= sum(in_flight) else 'NO'}")  # fmt: skip


def simulating(run: cp.Run) -> subprocess.Popen[bytes]:
    """Start a process that goes on with the run."""
    env = {**os.environ, "OPENAI_API_KEY": "none"}
    command = [sys.executable, "-m", "culturepark", "simulate", str(run.folder), "--resume"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env)
