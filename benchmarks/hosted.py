"""Hosted dialogues against one local server of fixed latency: cards rendered, schemas checked,
journal on; beside the bare wire.
"""

from __future__ import annotations

import sys

from benchmarks.frameworks import TURNS, Failed, Figures, measure
from benchmarks.local import running

LOADS = (
    (200, 0.2, 0.80),
    (512, 1.0, 0.90),
    (2_000, 1.0, 0.70),
    (5_000, 1.0, None),
)  # in flight, seconds, aim
EACH = 2  # dialogues that each place in flight holds, one after the other


def main() -> None:
    """Print a row a load, then the litellm path beside a plain litellm loop."""
    print(
        f"2 agents, {TURNS} turns, {EACH} dialogues for each in flight; limit = in flight /"
        " latency; floor: a bare aiohttp loop"
    )
    print(
        f"{'in flight':>9} {'latency':>8} {'CPU ms/turn':>12} {'turns/s':>8} {'of limit':>9}"
        f" {'aim':>5} {'peak MB':>8} {'floor: CPU':>11} {'of limit':>9} {'peak MB':>8}"
        f" {'CPU ratio':>10}"
    )
    for in_flight, latency, aim in LOADS:
        with running(latency=latency) as url:
            ours, floor = (
                measure(name, sys.executable, url, EACH * in_flight, in_flight)
                for name in ("park", "floor")
            )
        limit = in_flight / latency
        print(
            f"{in_flight:9,} {latency * 1000:5.0f} ms {ours.cpu:12.3f} {ours.pace:8,.0f}"
            f" {ours.pace / limit:9.0%} {f'{aim:.0%}' if aim else '-':>5} {ours.peak:8.0f}"
            f" {floor.cpu:11.3f} {floor.pace / limit:9.0%} {floor.peak:8.0f}"
            f" {ours.cpu / floor.cpu:9.1f}x"
        )
    with running(latency=0.2) as url:
        try:
            ours, plain = relayed(url)
        except Failed as why:
            print(f"litellm path: {why}")
            return
    print(
        f"litellm path, 200 in flight × 200 ms: {ours.cpu:.2f} ms CPU a turn, {ours.pace:,.0f}"
        f" turns/s; a plain litellm loop {plain.cpu:.2f} ms, {plain.pace:,.0f} turns/s:"
        f" {ours.cpu / plain.cpu:.2f}x its cost (aim: at most 1.5x)"
    )


def relayed(url: str) -> tuple[Figures, Figures]:
    """Return what our litellm path and a plain litellm loop take for the same dialogues."""
    return (
        measure("park", sys.executable, url, 200, 200, "litellm/openai/canned"),
        measure("litellm", sys.executable, url, 200, 200),
    )
