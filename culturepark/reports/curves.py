"""What a training run logged, as points and plots: the losses of a model step by step, on axes that
all plots share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Facts = dict[str, Any]
Points = list[tuple[float, float | None]]
# the loss axis ends at so many times the largest loss that any model began with: a spike doesn't
# flatten all
ROOM = 1.5
LEFT, TOP, RIGHT, BOTTOM = 48, 20, 300, 158  # the frame of a plot, of 320 by 190


def figure(value: float | None, digits: int = 3) -> str:
    """Return a measured figure; a dash for None, and never 0 for what is not quite.

    >>> figure(2.0306), figure(-0.5, 2), figure(0.0), figure(0.00004), figure(None)
    ('2.031', '−0.50', '0.000', '4.0e−05', '–')
    """
    if value is None:
        return "–"
    if value and not 0.5 * 10**-digits <= abs(value) < 1e6:
        return f"{value:.1e}".replace("-", "−")
    return f"{value:,.{digits}f}".replace("-", "−")


def real(value: object) -> float | None:
    """Return a finite number; None for anything else."""
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known; None where nothing is."""
    held = [v for v in values if v is not None]
    return math.fsum(held) / len(held) if held else None


def logged(path: Path) -> Facts:
    """Return (step, loss) of training and of the checks on the validation split; a loss that is not
    finite is None.

    `unread` counts lines that are no log line; `there` is false where there is no file.
    """
    train: Points = []
    checks: Points = []
    found: Facts = {
        "train": train,
        "checks": checks,
        "step": None,
        "epoch": None,
        "unread": 0,
        "there": True,
    }
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return found | {"there": False}
    for line in filter(str.strip, lines):
        entry = _entry(line)
        step = real(entry.get("step"))
        if step is None:
            found["unread"] += 1
            continue
        found["step"] = max(step, found["step"] or 0)
        found["epoch"] = max(real(entry.get("epoch")) or 0, found["epoch"] or 0) or None
        for points, key in ((train, "loss"), (checks, "eval_loss")):
            if key in entry:
                points.append((step, real(entry[key])))
    return found


def _entry(line: str) -> Facts:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def kept(checks: Points) -> tuple[float, float] | None:
    """Return step and loss of the best check, the first of several: the one that a trainer
    keeps.
    """
    held = [(step, loss) for step, loss in checks if loss is not None]
    return min(held, key=lambda point: point[1], default=None)


def stopped(settings: Mapping[str, Any], curves: Facts) -> str | None:
    """Return where training stopped before its end, "no" where it didn't, None where nothing says
    how long it was to be.
    """
    step, epoch = curves["step"], curves["epoch"]
    steps, epochs = real(settings.get("steps")), real(settings.get("epochs"))
    if steps and step is not None:
        return f"step {step:,.0f} of {steps:,.0f}" if step < steps else "no"
    if steps or not epochs or epoch is None:
        return None
    return f"step {step:,.0f}, epoch {epoch:.3g} of {epochs:.3g}" if epoch < epochs - 1e-6 else "no"


def frame(curves: Sequence[Facts]) -> Facts | None:
    """Return the axes that all plots share, as (place, label), and the losses and steps at their
    ends.
    """
    points = [p for c in curves for p in (*c["train"], *c["checks"])]
    values = sorted(loss for _, loss in points if loss is not None)
    if not values:
        return None
    begun = max(
        next((v for _, v in c[key] if v is not None), values[0])
        for c in curves
        for key in ("train", "checks")
    )
    steps = ticks(0, max(step for step, _ in points), whole=True)
    losses = ticks(values[0], min(values[-1], ROOM * begun) if begun > 0 else values[-1])
    ends = {"step": steps[-1], "low": losses[0], "high": losses[-1]}
    return {
        **ends,
        "x": [(f"{_across(s, ends):.1f}", f"{s:,.0f}") for s in steps],
        "y": [(f"{_up(v, ends):.1f}", f"{v:.6g}".replace("-", "−")) for v in losses],
    }


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return some four to seven round numbers that hold both ends.

    >>> ticks(0.71, 3.06), ticks(0, 184, whole=True), ticks(2, 2)
    ([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 50.0, 100.0, 150.0, 200.0], [2.0, 2.5])
    """
    raw = (max(high - low, 1e-6 * abs(high)) if high > low else abs(high) or 1.0) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step: float = next(unit * m for m in (1, 2, 5, 10) if unit * m >= raw * (1 - 1e-9))
    step = max(1, round(step)) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{k * step:.12g}") for k in range(first, max(last, first + 1) + 1)]


def _across(step: float, axes: Facts) -> float:
    return float(LEFT + (RIGHT - LEFT) * step / axes["step"])


def _up(loss: float, axes: Facts) -> float:
    """Return the height of a loss; what is above the axis lies on its end."""
    return float(
        BOTTOM
        - (BOTTOM - TOP) * (min(loss, axes["high"]) - axes["low"]) / (axes["high"] - axes["low"])
    )


def chart(name: str, curves: Facts, axes: Facts | None) -> Facts:
    """Return what one plot draws and says: a line with gaps, points, the best of them, and what
    cannot be drawn.
    """
    train, checks = curves["train"], curves["checks"]
    best, held = kept(checks), [loss for _, loss in train if loss is not None]
    drawn: Facts = {"line": "", "points": [], "best": None}
    if axes:
        points = [
            (f"{_across(s, axes):.1f}", f"{_up(v, axes):.1f}") for s, v in checks if v is not None
        ]
        drawn = {
            "line": _line(train, axes),
            "points": points,
            "best": (
                (f"{_across(best[0], axes):.1f}", f"{_up(best[1], axes):.1f}") if best else None
            ),
        }
    ends = (
        f"training loss from {figure(held[0])} to {figure(held[-1])}"
        if held
        else "no training loss"
    )
    low = (
        f"validation loss at best {figure(best[1])} at step {best[0]:,.0f}"
        if best
        else "no validation loss"
    )
    return {
        "name": name,
        "says": f"{ends}, {low}",
        "notes": _notes(curves, axes),
        "there": bool(train or checks),
        **drawn,
    }


def _line(train: Points, axes: Facts) -> str:
    """Return an SVG path through the losses that breaks off where one is not finite; a point alone
    is a dot.

    >>> _line([(0, 1.0), (50, 0.0), (60, None), (100, 1.0)], {"step": 100, "low": 0, "high": 1})
    'M48.0 20.0h0L174.0 158.0M300.0 20.0h0'
    """
    parts, pen = [], "M"
    for step, loss in train:
        if loss is not None:
            parts.append(
                f"{pen}{_across(step, axes):.1f} {_up(loss, axes):.1f}{'h0' if pen == 'M' else ''}"
            )
        pen = "M" if loss is None else "L"
    return "".join(parts)


def _notes(curves: Facts, axes: Facts | None) -> list[str]:
    """Return what a plot cannot show."""
    notes = [] if curves["there"] else ["There is no curves.jsonl."]
    for key, what in (("train", "training"), ("checks", "validation")):
        gone = [step for step, loss in curves[key] if loss is None]
        if gone:
            notes.append(
                f"The {what} loss is not a finite number at {len(gone)} of {len(curves[key])}"
                f" logged steps, first at step {gone[0]:,.0f}: a gap."
            )
    if axes:
        over = [
            v
            for _, v in (*curves["train"], *curves["checks"])
            if v is not None and v > axes["high"]
        ]
        if over:
            notes.append(
                f"Above the axis, and drawn at its end: {len(over)} of the losses, up to"
                f" {figure(max(over))}."
            )
    if curves["unread"]:
        notes.append(f"Lines of curves.jsonl that cannot be read: {curves['unread']}.")
    return notes
