"""What a run's report tells of its evaluations: headline figures over all cultures, a row a
result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from culturepark.errors import InputError
from culturepark.evaluation import result as results
from culturepark.evaluation.result import Result

BOARD = "evals/board/leaderboard.html"


def load_evaluations(folder: Path) -> dict[str, Any]:
    """Return a run's rows, and where its leaderboard is; nothing where nothing was evaluated."""
    made = list_rows(folder)
    return (
        {"evaluated": made, "board": BOARD if (folder / BOARD).is_file() else None} if made else {}
    )


def list_rows(folder: Path) -> list[dict[str, Any]]:
    """Return one row a benchmark, model and headline figure of a run; none where nothing was
    evaluated, and no complaint of odd files.
    """
    made: list[dict[str, Any]] = []
    for place in results.find_results(folder):
        try:
            made += _list_headlines(results.read(place))
        except InputError:
            continue
    return made


def _list_headlines(found: Result) -> list[dict[str, Any]]:
    """Return a result's headline figures over all cultures; what is not known is None, never 0."""
    unread = sum(n for status, n in found.counts.items() if status != "ok")
    return [
        {
            "benchmark": found.benchmark,
            "title": found.title,
            "model": found.model,
            "figure": " ".join(filter(None, (f.name, f.subset))),
            "value": f.value,
            "low": f.low,
            "high": f.high,
            "spread": f.spread,
            "trainings": f.trainings,
            "reason": f.reason,
            "warning": f.warning or found.warning,
            "n": f.n,
            "what": f.what,
            "better": f.better,
            "method": found.setup.get("method"),
            "asked": sum(found.counts.values()),
            "unread": unread,
        }
        for f in found.figures
        if f.headline and not f.culture
    ]
