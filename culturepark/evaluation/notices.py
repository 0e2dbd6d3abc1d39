"""Says what was passed over, replaced or left out while a benchmark's files were read; items carry
it as the fact `read`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def describe(facts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for each file that the facts of items or attempts have something to say of.

    >>> describe([{"read": {"a.csv": {"rows without a reference, left out": 2}}}, {}])
    ['a.csv: rows without a reference, left out: 2']
    """
    files: dict[str, Mapping[str, int]] = {}
    for one in facts:
        files.update(one.get("read", {}))
    return [
        f"{name}: {'; '.join(f'{what}: {n:,}' for what, n in counts.items())}"
        for name, counts in files.items()
    ]
