"""100,000 hosted turns with 5% each of 429, 500, reset and truncation, capped, stopped by the cap,
resumed to the end.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import culturepark as cp
from benchmarks.local import counts, running

DIALOGUES, TURNS, IN_FLIGHT, LATENCY = 8_334, 12, 400, 0.02
FAULTS = {"429": 0.05, "500": 0.05, "reset": 0.05, "truncated": 0.05}
FIRST_CAP, SECOND_CAP = 60_000_000, 1_000_000_000  # tokens


def main() -> None:
    """Print what was held, what was lost or doubled (nothing), how the caps held, and what the
    faults wasted.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, running(latency=LATENCY, faults=FAULTS) as url:
        run = cp.start(
            "faults",
            out=Path(folder),
            cultures=("arabic",),
            styles=("guided",),
            turns=TURNS,
            dialogues=DIALOGUES,
            model="openai/canned",
            base_url=url,
            concurrency=IN_FLIGHT,
            max_tokens=FIRST_CAP,
        )
        try:
            cp.simulate(run)
            print("the first cap was not reached: no figure")
        except cp.BudgetReached:
            at_cap = counts(url)
        billed = at_cap["prompt_tokens"] + at_cap["completion_tokens"]
        print(
            f"first cap, {FIRST_CAP:,} tokens: stopped with exit code {cp.BudgetReached.exit_code};"
            f" the server had answered for {billed:,} ({billed / FIRST_CAP:.1%}); passed:"
            f" {'YES' if billed > FIRST_CAP else 'no'}"
        )
        done = cp.simulate(cp.resume(run.folder, max_tokens=SECOND_CAP))
        met, bill = counts(url), cp.calls(run)
        with run.open_store(write=False) as journal:
            texts = journal.select(
                "SELECT COUNT(*), COUNT(DISTINCT json_extract(turn, '$.text')) FROM turns"
            )[0]
            cut = journal.select(
                "SELECT COUNT(*) FROM turns WHERE json_extract(turn, '$.text') NOT LIKE 'Answer"
                " number%'"
            )[0][0]
    planned = DIALOGUES * TURNS
    billed = met["prompt_tokens"] + met["completion_tokens"]
    sent, lost = (sum(g[k] for g in bill["groups"]) for k in ("attempts", "lost"))
    print(
        f"turns held: {texts[0]:,} of {planned:,} in {done['dialogues']:,} dialogues,"
        f" {done['failed_dialogues']} failed; lost: {planned - texts[0]}; doubled:"
        f" {texts[0] - texts[1]}; not whole: {cut}"
    )
    print(f"faults met: {', '.join(f'{k} {v:,}' for k, v in sorted(met['faults'].items()))}")
    print(
        f"calls sent: {sent:,} ({sent / planned - 1:.1%} more than turns; the server counted"
        f" {met['requests']:,}); answered and lost on the way: {lost:,}, {lost / planned:.1%} of"
        " the turns paid without an answer"
    )
    ledger = bill["ledger"]
    print(
        f"tokens: the server answered for {billed:,}; the ledger says {ledger['tokens']:,}, of"
        f" which at most {ledger['unsettled_tokens']:,} for {ledger['unsettled']:,} lost calls;"
        f" never below what was billed: {'yes' if ledger['tokens'] >= billed else 'NO'}"
    )
    print(f"{time.perf_counter() - started:.0f} s in all")
