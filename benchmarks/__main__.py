"""Runs the named benchmarks, or all of them, and prints their figures."""

from __future__ import annotations

import importlib
import platform
import sys
import time

ALL = (
    "shape",
    "startup",
    "turns",
    "variety",
    "filters",
    "reader",
    "size",
    "hosted",
    "frameworks",
    "faults",
    "kills",
    "loop",
    "objectives",
    "adapters",
    "scpo",
    "evaluation",
    "coverage",
    "serve",
    "small_model",
    "gpu",
)


def main(names: list[str]) -> None:
    """Run the benchmarks in this order; each prints its own table. `NAME=VALUE` gives a benchmark
    what it measures.
    """
    unknown = [n for n in names if n.partition("=")[0] not in ALL]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]!r}; there are: {', '.join(ALL)}")
    print(f"Python {platform.python_version()}, {platform.machine()}, {time.strftime('%Y-%m-%d')}")
    for asked in names or ALL:
        name, _, given = asked.partition("=")
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"\n== {name}: {(module.__doc__ or '').splitlines()[0]}")
        module.main(*([given] if given else []))


main(sys.argv[1:])
