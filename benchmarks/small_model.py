"""A small model on this machine in both seats: calls that reach max_tokens, dialogues that fail,
turns that are marked, samples.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import culturepark as cp
from culturepark.records import MARKS
from culturepark.store import RunStore
from culturepark.store.counts import MarkedTurns, count_all, count_marked_turns

DIALOGUES, TURNS = 8, 4
READERS = dict.fromkeys(("extractor", "verifier", "rewriter"), "embedded")


def main(folder: str = "") -> None:
    """Hold and refine dialogues of the model in `folder`, the embedded engine extracting and
    verifying, and print what came of it.
    """
    if not folder:
        print("no model given: python -m benchmarks small_model=FOLDER")
        return
    settings = cp.Settings(
        cultures=("arabic",),
        dialogues=DIALOGUES,
        turns=TURNS,
        model=f"local/{folder}",
        models=READERS,
    )
    with tempfile.TemporaryDirectory() as out:
        started, cpu = time.perf_counter(), time.process_time()
        run = cp.start("small", settings, out=out)
        cp.simulate(run)
        cp.refine(run)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        with run.open_store(write=False) as store:
            _print(store, seconds, cpu)


def _print(store: RunStore, seconds: float, cpu: float) -> None:
    calls = "FROM calls WHERE role IN ('main_contact', 'delegate')"
    counts = count_all(store)._asdict()
    nobody = MarkedTurns("", 0, 0, dict.fromkeys(MARKS, 0))
    (marked,) = count_marked_turns(store, "culture") or [nobody]
    asked, cut, tokens = _row(
        store, f"SELECT COUNT(*), SUM(status = 'truncated'), SUM(completion_tokens) {calls}"
    )
    print(
        f"{DIALOGUES} dialogues of {TURNS} turns: {asked} calls, {cut} reached max_tokens,"
        f" {asked - counts['turns']} gave no turn"
    )
    print(
        f"{counts['failed_dialogues']} dialogues failed; {counts['turns']} turns,"
        f" {marked.marked} of them marked: "
        + ", ".join(f"{marked.marks[mark]} {mark.replace('_', ' ')}" for mark in MARKS)
    )
    print(
        f"{counts['opinions']} opinions, {counts['samples']} samples; {tokens:,} tokens in"
        f" {seconds:.0f} s ({cpu:.0f} s of CPU)"
    )


def _row(store: RunStore, sql: str) -> tuple[Any, ...]:
    return tuple(value or 0 for value in store.select(sql)[0])
