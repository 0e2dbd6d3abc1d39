"""The losses that a training run logged, as points and as plots on common axes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

Facts = dict[str, Any]
Points = list[tuple[float, float | None]]
# the loss axis ends at this multiple of the largest first loss, so that a spike flattens no plot
ROOM = 1.5
LEFT, TOP, RIGHT, BOTTOM = 48, 20, 300, 158  # the frame of a plot, of 320 by 190


def format_figure(value: float | None, digits: int = 3) -> str:
    """Return a figure as text; a dash for None, and never 0 for a small number.

    >>> [format_figure(v) for v in (2.0306, 0.0, 0.00004, None)], format_figure(-0.5, 2)
    (['2.031', '0.000', '4.0e−05', '–'], '−0.50')
    """
    if value is None:
        return "–"
    if value and not 0.5 * 10**-digits <= abs(value) < 1e6:
        return f"{value:.1e}".replace("-", "−")
    return f"{value:,.{digits}f}".replace("-", "−")


def parse_finite(value: object) -> float | None:
    """Return a finite number as a float; None for anything else."""
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )


def average_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def read_curves(path: Path) -> Facts:
    """Return (step, loss) of training and of validation; a loss that is not finite is None.

    `unread` counts invalid lines; `there` is false if the file does not exist.
    """
    train: Points = []
    checks: Points = []
    curves: Facts = {"train": train, "checks": checks, "unread": 0, "there": True}
    curves |= {"step": None, "epoch": None}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return curves | {"there": False}
    for line in filter(str.strip, lines):
        entry = _parse_entry(line)
        step = parse_finite(entry.get("step"))
        if step is None:
            curves["unread"] += 1
            continue
        curves["step"] = max(step, curves["step"] or 0)
        curves["epoch"] = max(parse_finite(entry.get("epoch")) or 0, curves["epoch"] or 0) or None
        for points, key in ((train, "loss"), (checks, "eval_loss")):
            if key in entry:
                points.append((step, parse_finite(entry[key])))
    return curves


def _parse_entry(line: str) -> Facts:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def find_best_check(checks: Points) -> tuple[float, float] | None:
    """Return step and loss of the best validation, of equals the first: the one a trainer keeps."""
    known = [(step, loss) for step, loss in checks if loss is not None]
    return min(known, key=lambda point: point[1], default=None)


def describe_stop(settings: Mapping[str, Any], curves: Facts) -> str | None:
    """Return where training stopped early, "no" if it did not, None if its length is unknown."""
    step, epoch = curves["step"], curves["epoch"]
    steps, epochs = parse_finite(settings.get("steps")), parse_finite(settings.get("epochs"))
    if steps and step is not None:
        return f"step {step:,.0f} of {steps:,.0f}" if step < steps else "no"
    if steps or not epochs or epoch is None:
        return None
    return f"step {step:,.0f}, epoch {epoch:.3g} of {epochs:.3g}" if epoch < epochs - 1e-6 else "no"


def build_axes(curves: Sequence[Facts]) -> Facts | None:
    """Return the axes of all plots, as (place, label), and the losses and steps at their ends."""
    points = [p for c in curves for p in (*c["train"], *c["checks"])]
    values = sorted(loss for _, loss in points if loss is not None)
    if not values:
        return None
    first_loss = max(
        next((v for _, v in c[key] if v is not None), values[0])
        for c in curves
        for key in ("train", "checks")
    )
    steps = choose_ticks(0, max(step for step, _ in points), whole=True)
    losses = choose_ticks(
        values[0], min(values[-1], ROOM * first_loss) if first_loss > 0 else values[-1]
    )
    ends = {"step": steps[-1], "low": losses[0], "high": losses[-1]}
    return {
        **ends,
        "x": [(f"{_scale_step(s, ends):.1f}", f"{s:,.0f}") for s in steps],
        "y": [(f"{_scale_loss(v, ends):.1f}", f"{v:.6g}".replace("-", "−")) for v in losses],
    }


def choose_ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return about four to seven round numbers that enclose both ends.

    >>> choose_ticks(0.71, 3.06), choose_ticks(0, 184, whole=True), choose_ticks(2, 2)
    ([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 50.0, 100.0, 150.0, 200.0], [2.0, 2.5])
    """
    raw = (max(high - low, 1e-6 * abs(high)) if high > low else abs(high) or 1.0) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step: float = next(unit * m for m in (1, 2, 5, 10) if unit * m >= raw * (1 - 1e-9))
    step = max(1, round(step)) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{k * step:.12g}") for k in range(first, max(last, first + 1) + 1)]


def _scale_step(step: float, axes: Facts) -> float:
    return float(LEFT + (RIGHT - LEFT) * step / axes["step"])


def _scale_loss(loss: float, axes: Facts) -> float:
    """Return the height of a loss; losses beyond the axis lie on its end."""
    return float(
        BOTTOM
        - (BOTTOM - TOP) * (min(loss, axes["high"]) - axes["low"]) / (axes["high"] - axes["low"])
    )


def build_chart(name: str, curves: Facts, axes: Facts | None) -> Facts:
    """Return what one plot shows: a line with gaps, points, the best of them, and
    notes in words.
    """
    train, checks = curves["train"], curves["checks"]
    best, losses = find_best_check(checks), [loss for _, loss in train if loss is not None]
    drawing: Facts = {"line": "", "points": [], "best": None}
    if axes:
        points = [
            (f"{_scale_step(s, axes):.1f}", f"{_scale_loss(v, axes):.1f}")
            for s, v in checks
            if v is not None
        ]
        drawing = {
            "line": _draw_line(train, axes),
            "points": points,
            "best": (
                (f"{_scale_step(best[0], axes):.1f}", f"{_scale_loss(best[1], axes):.1f}")
                if best
                else None
            ),
        }
    ends = (
        f"training loss from {format_figure(losses[0])} to {format_figure(losses[-1])}"
        if losses
        else "no training loss"
    )
    low = (
        f"validation loss at best {format_figure(best[1])} at step {best[0]:,.0f}"
        if best
        else "no validation loss"
    )
    return {
        "name": name,
        "says": f"{ends}, {low}",
        "notes": _list_notes(curves, axes),
        "there": bool(train or checks),
        **drawing,
    }


def _draw_line(train: Points, axes: Facts) -> str:
    """Return an SVG path through the losses, with gaps for None; a point alone is a dot.

    >>> axes = {"step": 100, "low": 0, "high": 1}
    >>> _draw_line([(0, 1.0), (50, 0.0), (60, None), (100, 1.0)], axes)
    'M48.0 20.0h0L174.0 158.0M300.0 20.0h0'
    """
    parts, pen = [], "M"
    for step, loss in train:
        if loss is not None:
            dot = "h0" if pen == "M" else ""
            place = f"{_scale_step(step, axes):.1f} {_scale_loss(loss, axes):.1f}"
            parts.append(f"{pen}{place}{dot}")
        pen = "M" if loss is None else "L"
    return "".join(parts)


def _list_notes(curves: Facts, axes: Facts | None) -> list[str]:
    """Return what a plot cannot show, in sentences."""
    notes = [] if curves["there"] else ["There is no curves.jsonl."]
    for key, what in (("train", "training"), ("checks", "validation")):
        missing = [step for step, loss in curves[key] if loss is None]
        if missing:
            notes.append(
                f"The {what} loss is not a finite number at {len(missing)} of {len(curves[key])}"
                f" logged steps, first at step {missing[0]:,.0f}: a gap."
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
                f" {format_figure(max(over))}."
            )
    if curves["unread"]:
        notes.append(f"Lines of curves.jsonl that cannot be read: {curves['unread']}.")
    return notes
