"""Names that benchmarks of users' own imported from here before this version."""

from __future__ import annotations

import warnings
from typing import Any

from culturepark.evaluation import ask, types
from culturepark.evaluation.kind import BenchmarkKind

FIELDS = {
    "hold": "run",
    "measures": "measure",
    "peoples": "culture_source",
    "words": "data_words",
    "constructed": "embedded_warning",
}


def _make_kind(*functions: Any, **fields: Any) -> BenchmarkKind:
    """Return a kind from the fields of an earlier version's Kind."""
    return BenchmarkKind(*functions, **{FIELDS.get(name, name): v for name, v in fields.items()})


MOVED: dict[str, tuple[str, Any]] = {
    "Kind": ("kind.BenchmarkKind", _make_kind),
    "Outcome": ("types.Attempt", types.Attempt),
    "once": ("ask.ask_once", ask.ask_once),
    "outcome": ("ask.make_attempt", ask.make_attempt),
    **{
        name: (f"types.{name}", getattr(types, name))
        for name in ("Item", "Setup", "Unparsed", "Ask", "Parser", "STRIDE", "Status", "Who")
    },
}


def __getattr__(name: str) -> Any:
    if name not in MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place, value = MOVED[name]
    warnings.warn(
        f"culturepark.evaluation.outcome.{name} is culturepark.evaluation.{place} now",
        DeprecationWarning,
        stacklevel=2,
    )
    return value
