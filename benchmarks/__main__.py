"""Runs the named benchmarks, or all of them, and prints their figures."""

from __future__ import annotations

import importlib
import platform
import sys
import time

ALL = ("startup", "turns", "variety", "filters", "reader", "size", "hosted", "frameworks", "faults", "kills",
       "loop", "objectives", "adapters", "scpo", "evaluation", "coverage", "serve", "gpu")  # fmt: skip


def main(names: list[str]) -> None:
    """Run the benchmarks in this order; each prints its own table."""
    unknown = [n for n in names if n not in ALL]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]!r}; there are: {', '.join(ALL)}")
    print(f"Python {platform.python_version()}, {platform.machine()}, {time.strftime('%Y-%m-%d')}")
    for name in names or ALL:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"\n== {name}: {(module.__doc__ or '').splitlines()[0]}")
        module.main()


main(sys.argv[1:])
