"""What `culturepark --help` costs beside `python -c pass`: CPU time, interleaved runs, aim at most
6 times.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

RUNS = 15


def cpu(*args: str) -> float:
    """Return the CPU seconds of one child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *args], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print both medians and the ratio."""
    pairs = [(cpu("-m", "culturepark", "--help"), cpu("-c", "pass")) for _ in range(RUNS + 1)][1:]
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"--help {ours * 1000:.0f} ms CPU, python -c pass {bare * 1000:.0f} ms CPU, ratio"
        f" {ratio:.1f} (median of {RUNS} pairs)"
    )
