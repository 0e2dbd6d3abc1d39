"""Eight adapters in one job beside plain TRL scripts doing the same eight runs: time and peak
memory; aim at most 0.7 of the time.

The same base, rows, batch, steps, adapters and checks. Plain TRL twice: a script a culture, as
people run it, and one script that trains all eight in a loop, which saves it the imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import culturepark as cp
from culturepark.local_models import base

SAMPLES, EPOCHS = 200, 2
SCRIPT = Path(__file__).parent / "peers" / "trl_sft.py"
OURS = """
import json, resource, sys, time
started = time.perf_counter()
import culturepark as cp
made = cp.tune("sft", sys.argv[2], sys.argv[1], name="ours", out=sys.argv[3], epochs=float(sys.argv[4]), lr=4e-3, patience=0, device="cpu")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"models": len(made), "seconds": time.perf_counter() - started, "peak": peak}))
"""  # noqa: E501
ENV = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
}


def run(code: list[str], *args: object) -> dict[str, Any]:
    """Run a script in a process of its own and return what it printed last."""
    done = subprocess.run(
        [sys.executable, *code, *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **ENV},
    )
    if done.returncode:
        raise SystemExit(f"{code[-1][:60]} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print a row a way: seconds, peak memory, and the ratios of ours."""
    place = base.find_base("tiny")
    with tempfile.TemporaryDirectory() as folder:
        made = cp.run("adapters", samples=SAMPLES, out=folder, formats=("trl",))
        corpus = made.corpus / "trl"
        cultures = sorted(
            {json.loads(line)["metadata"]["culture"] for line in (corpus / "train.jsonl").open()}
        )
        each = [run([str(SCRIPT)], place, corpus, f"{folder}/each", EPOCHS, c) for c in cultures]
        loop = run([str(SCRIPT)], place, corpus, f"{folder}/loop", EPOCHS, *cultures)
        ours = run(["-c", OURS], place, corpus, folder, EPOCHS)
    ways = {
        "a TRL script each": {
            "seconds": sum(r["seconds"] for r in each),
            "peak": max(r["peak"] for r in each),
        },
        "one TRL script": loop,
        "culturepark tune sft": ours,
    }
    print(f"{len(cultures)} adapters, {loop['rows']} rows, {EPOCHS} epochs, one core each")
    print(f"{'':22}{'seconds':>9}{'peak MB':>9}{'ours/its time':>15}{'ours/its memory':>17}")
    for name, found in ways.items():
        print(
            f"{name:22}{found['seconds']:9.1f}{found['peak']:9.0f}{ours['seconds'] / found['seconds']:14.2f}x{ours['peak'] / found['peak']:16.2f}x"  # noqa: E501
        )
    best = ours["seconds"] / loop["seconds"]
    print(
        f"against the faster of the two: {best:.2f}x the time (aim: at most 0.7x); eight scripts at"
        f" once would hold {sum(r['peak'] for r in each) / ours['peak']:.1f}x our memory"
    )
