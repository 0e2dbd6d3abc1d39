"""The paper's size: 41,000 accepted samples over eight cultures on the embedded engine; time and
peak memory as it grows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

SIZES = (1_000, 5_000, 41_000)
CHILD = """
import json, resource, sys, time
import culturepark as cp
each, folder = int(sys.argv[1]), sys.argv[2]
started, cpu = time.perf_counter(), time.process_time()
run = cp.run("size", samples=each, dialogues=max(1, each // 9), out=folder)
with run.open_store(write=False) as journal:
    samples = journal.select("SELECT COUNT(*) FROM samples")[0][0]
    turns = journal.select("SELECT COUNT(*) FROM turns")[0][0]
print(json.dumps({"samples": samples, "turns": turns, "seconds": time.perf_counter() - started,
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def main() -> None:
    """Print a row a size: samples, seconds, samples a second, peak memory, and the growth from the
    smallest.
    """
    first: dict[str, float] = {}
    print(
        f"{'samples':>8} {'turns':>8} {'seconds':>8} {'samples/s':>10} {'peak MB':>8}"
        f" {'time/sample':>12} {'memory':>8}"
    )
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            child = subprocess.run(
                [sys.executable, "-c", CHILD, str(size // 8), folder],
                capture_output=True,
                text=True,
                check=True,
            )
        made = json.loads(child.stdout)
        first = first or made
        pace = (made["seconds"] / made["samples"]) / (first["seconds"] / first["samples"])
        print(
            f"{made['samples']:8} {made['turns']:8} {made['seconds']:8.1f}"
            f" {made['samples'] / made['seconds']:10.0f} {made['peak']:8.0f} {pace:11.2f}x"
            f" {made['peak'] / first['peak']:7.2f}x"
        )
