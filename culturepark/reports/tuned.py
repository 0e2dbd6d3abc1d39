"""The page of a tuning job: what was made, how its losses went, what it did to held-out pairs, and who knows whom best."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from culturepark.errors import InputError, ParkError
from culturepark.reports.show import number, percent
from culturepark.weights import manifest
from culturepark.weights.manifest import Manifest

Facts = dict[str, Any]
Points = list[tuple[float, float | None]]
BASE = "base"  # the matrix' column of the model without an adapter
PREFERENCE = ("dpo", "orpo", "kto")
SIDES = ("accuracy", "margin", "chosen", "rejected")
FAR = 1.0  # nats a token from the base that are told as a warning
ROOM = (
    1.5  # the loss axis ends at so many times the largest loss that any model began with: a spike doesn't flatten all
)
LEFT, TOP, RIGHT, BOTTOM = 48, 20, 300, 158  # the frame of a plot, of 320 by 190
OBJECTIVES = {
    "sft": "supervised fine-tuning",
    "dpo": "direct preference optimisation",
    "orpo": "odds-ratio preference optimisation",
    "kto": "Kahneman-Tversky optimisation",
    "shares": "matching the survey's shares",
    "mix": "matching the survey's shares beside learning opinions",
    "reward": "a reward model",
    "scpo": "a reward model of one country",
}
LOSSES = {
    "sft": "the mean negative log-likelihood of an answer's tokens, in nats a token",
    "dpo": "DPO's own, in nats a pair: 0.693 is a model that prefers neither answer more than its base does",
    "orpo": "ORPO's own: the negative log-likelihood of the chosen answer, in nats a token, and the odds-ratio term",
    "kto": "KTO's own, from 0 to 1: 0.5 is a model that has not moved from its base",
    "shares": "KL(people ‖ model) over the options of a question, in nats",
    "mix": "a weighted sum of KL(people ‖ model) over a question's options and the negative log-likelihood of opinions, in nats",
    "reward": "the negative log-likelihood that the preferred answer is the better one, in nats a pair",
    "scpo": "the weighted negative log-likelihood that the preferred answer is the better one, in nats a pair",
}


def write(place: Path, models: Sequence[Path]) -> Path:
    """Write <place>/report.html about tuned models and the matrix beside them, whole or not at all; return its path.

    The same manifests, curves and matrix give the same bytes. InputError where a folder holds no tuned model or none is
    given, ParkError if the page cannot be written.
    """
    text = page(gather(place, models))
    target, partial = place / "report.html", place / "report.html.partial"
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise ParkError(f"cannot write the report to {place}: {error.strerror or error}") from error
    return target


def page(facts: Facts) -> str:
    """Return the facts as one HTML page that needs nothing from outside: no script, no font, no picture."""
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"num": number, "pct": percent, "figure": figure}
    source = files(__package__).joinpath("tuned.html.j2").read_text(encoding="utf-8")
    return made.from_string(source).render(f=facts, losses=LOSSES, far=FAR)


def gather(place: Path, models: Sequence[Path]) -> Facts:
    """Return all that is told of a tuning job as JSON-able data; what is not known is None, never 0."""
    if not models:
        raise InputError(f"no tuned model to report on in {place}")
    made = [manifest.read(folder) for folder in models]
    curves = [_curves(folder / "curves.jsonl") for folder in models]
    rows = [_model(m, c) for m, c in zip(made, curves, strict=True)]
    judged = [_judged(m) for m in made if m.objective in PREFERENCE]
    axes = _axes(curves)
    return {
        "job": place.absolute().name,
        "objectives": {o: OBJECTIVES.get(o, o) for o in _several(m.objective for m in made)},
        "about": _about(made),
        "settings": _settings(made),
        "models": rows,
        "eval_loss": _mean([r["eval_loss"] for r in rows]),
        "axes": axes,
        "charts": [_chart(m.name, c, axes) for m, c in zip(made, curves, strict=True)],
        "keeps_best": all(m.settings.get("patience") for m in made),
        "judged": judged,
        "worse": sum(j["worse"] for j in judged),
        "matrix": _matrix(place / "matrix.json", [m.name for m in made]),
    }


def jobs(folder: Path) -> list[Facts]:
    """Return the tuning jobs below a run's models/, one row each; none where there are none, and no complaint of odd files."""
    found: dict[Path, list[Facts]] = {}
    for path in sorted(folder.glob(f"models/*/*/{manifest.FILE}")):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):  # what is still being written
            found.setdefault(path.parent.parent, []).append(_plain(path))
    return [_job(place, made) for place, made in found.items()]


def _job(place: Path, made: Sequence[Facts]) -> Facts:
    losses = [_real(s.get("eval_loss")) for m in made if isinstance(s := m.get("scores"), Mapping)]
    return {
        "job": place.name,
        "objective": "; ".join(_several(m.get("objective") or m.get("method") for m in made)) or None,
        "base": "; ".join(_several(_public(m.get("base")) for m in made)) or None,
        "models": len(made),
        "eval_loss": _mean(losses),
        "checked": sum(v is not None for v in losses),
        "page": (place / "report.html").is_file(),
    }


def _plain(path: Path) -> Facts:
    """Return a manifest as it is: a hosted job's has other keys. Empty where it is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


# ------------------------------------------------------------------ numbers


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


def _real(value: object) -> float | None:
    """Return a finite number; None for anything else."""
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )


def _mean(values: Iterable[float | None]) -> float | None:
    held = [v for v in values if v is not None]
    return math.fsum(held) / len(held) if held else None


def _several(values: Iterable[object]) -> list[str]:
    """Return the different values, in the order they come."""
    return list(dict.fromkeys(str(v) for v in values if v not in (None, "", [], (), {})))


def _public(value: Any) -> Any:
    """Return a value without what is nobody else's business: the folders above a local file."""
    if isinstance(value, list | tuple):
        return ", ".join(str(_public(v)) for v in value)
    if isinstance(value, str) and re.match(r"[/\\~]|[A-Za-z]:[/\\]", value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else value


# ------------------------------------------------------------------- header


def _about(made: Sequence[Manifest]) -> list[tuple[str, str]]:
    """Return what all models were made of, as lines; where they differ, each value once."""
    lines: dict[str, list[Any]] = {
        "base": [f"{_public(m.base)} {m.base_hash}".strip() for m in made],
        "licence of the base": [m.base_licence for m in made],
        "method": [m.settings.get("method") for m in made],
        "corpus": [_public(m.corpus) for m in made],
        "hash of the corpus": [m.corpus_hash for m in made],
        "machine": [m.machine for m in made],
        "versions": [", ".join(f"{k} {v}" for k, v in m.versions.items()) for m in made],
        "made": [" to ".join(_several((min(m.created for m in made), max(m.created for m in made))))],
    }
    return [(name, "; ".join(_several(values)) or "–") for name, values in lines.items()]


def _settings(made: Sequence[Manifest]) -> list[tuple[str, str]]:
    """Return the settings as lines; what is not set is left out, what differs between models is told once each."""
    keys = dict.fromkeys(key for m in made for key in m.settings)
    rows = [(key, " / ".join(_several(_public(m.settings.get(key)) for m in made))) for key in keys]
    return [(key, value) for key, value in rows if value]


# ------------------------------------------------------------------- curves


def _curves(path: Path) -> Facts:
    """Return (step, loss) of training and of the checks on the validation split; a loss that is not finite is None.

    `unread` counts lines that are no log line; `there` is false where there is no file.
    """
    train: Points = []
    checks: Points = []
    found: Facts = {"train": train, "checks": checks, "step": None, "epoch": None, "unread": 0, "there": True}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found | {"there": False}
    for line in filter(str.strip, lines):
        entry = _entry(line)
        step = _real(entry.get("step"))
        if step is None:
            found["unread"] += 1
            continue
        found["step"] = max(step, found["step"] or 0)
        found["epoch"] = max(_real(entry.get("epoch")) or 0, found["epoch"] or 0) or None
        for points, key in ((train, "loss"), (checks, "eval_loss")):
            if key in entry:
                points.append((step, _real(entry[key])))
    return found


def _entry(line: str) -> Facts:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _model(m: Manifest, curves: Facts) -> Facts:
    """Return a model's row; where it has no curves, the last figures that its manifest kept."""
    train, best = curves["train"], _best(curves["checks"])
    return {
        "name": m.name,
        "train": m.rows.get("train"),
        "validation": m.rows.get("validation"),
        "steps": None if curves["step"] is None else round(curves["step"]),
        "loss": train[-1][1] if train else _real(m.scores.get("loss")),
        "diverged": bool(train) and train[-1][1] is None,
        "eval_loss": best[1] if best else None if curves["checks"] else _real(m.scores.get("eval_loss")),
        "best_step": round(best[0]) if best else None,
        "stopped": _stopped(m.settings, curves),
    }


def _best(checks: Points) -> tuple[float, float] | None:
    """Return step and loss of the best check, the first of several: the one that a trainer keeps."""
    held = [(step, loss) for step, loss in checks if loss is not None]
    return min(held, key=lambda point: point[1], default=None)


def _stopped(settings: Mapping[str, Any], curves: Facts) -> str | None:
    """Return where training stopped before its end, "no" where it didn't, None where nothing says how long it was to be."""
    step, epoch = curves["step"], curves["epoch"]
    steps, epochs = _real(settings.get("steps")), _real(settings.get("epochs"))
    if steps and step is not None:
        return f"step {step:,.0f} of {steps:,.0f}" if step < steps else "no"
    if steps or not epochs or epoch is None:
        return None
    return f"step {step:,.0f}, epoch {epoch:.3g} of {epochs:.3g}" if epoch < epochs - 1e-6 else "no"


def _axes(curves: Sequence[Facts]) -> Facts | None:
    """Return the axes that all plots share, as (place, label), and the losses and steps at their ends."""
    points = [p for c in curves for p in (*c["train"], *c["checks"])]
    values = sorted(loss for _, loss in points if loss is not None)
    if not values:
        return None
    begun = max(next((v for _, v in c[key] if v is not None), values[0]) for c in curves for key in ("train", "checks"))
    steps = _ticks(0, max(step for step, _ in points), whole=True)
    losses = _ticks(values[0], min(values[-1], ROOM * begun) if begun > 0 else values[-1])
    ends = {"step": steps[-1], "low": losses[0], "high": losses[-1]}
    return {
        **ends,
        "x": [(f"{_across(s, ends):.1f}", f"{s:,.0f}") for s in steps],
        "y": [(f"{_up(v, ends):.1f}", f"{v:.6g}".replace("-", "−")) for v in losses],
    }


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return some four to seven round numbers that hold both ends.

    >>> _ticks(0.71, 3.06), _ticks(0, 184, whole=True), _ticks(2, 2)
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
    return float(BOTTOM - (BOTTOM - TOP) * (min(loss, axes["high"]) - axes["low"]) / (axes["high"] - axes["low"]))


def _chart(name: str, curves: Facts, axes: Facts | None) -> Facts:
    """Return what one plot draws and says: a line with gaps, points, the best of them, and what cannot be drawn."""
    train, checks = curves["train"], curves["checks"]
    best, held = _best(checks), [loss for _, loss in train if loss is not None]
    drawn: Facts = {"line": "", "points": [], "best": None}
    if axes:
        points = [(f"{_across(s, axes):.1f}", f"{_up(v, axes):.1f}") for s, v in checks if v is not None]
        drawn = {
            "line": _line(train, axes),
            "points": points,
            "best": (f"{_across(best[0], axes):.1f}", f"{_up(best[1], axes):.1f}") if best else None,
        }
    ends = f"training loss from {figure(held[0])} to {figure(held[-1])}" if held else "no training loss"
    low = f"validation loss at best {figure(best[1])} at step {best[0]:,.0f}" if best else "no validation loss"
    return {
        "name": name,
        "says": f"{ends}, {low}",
        "notes": _notes(curves, axes),
        "there": bool(train or checks),
        **drawn,
    }


def _line(train: Points, axes: Facts) -> str:
    """Return an SVG path through the losses that breaks off where one is not finite; a point alone is a dot.

    >>> _line([(0, 1.0), (50, 0.0), (60, None), (100, 1.0)], {"step": 100, "low": 0, "high": 1})
    'M48.0 20.0h0L174.0 158.0M300.0 20.0h0'
    """
    parts, pen = [], "M"
    for step, loss in train:
        if loss is not None:
            parts.append(f"{pen}{_across(step, axes):.1f} {_up(loss, axes):.1f}{'h0' if pen == 'M' else ''}")
        pen = "M" if loss is None else "L"
    return "".join(parts)


def _notes(curves: Facts, axes: Facts | None) -> list[str]:
    """Return what a plot cannot show."""
    notes = [] if curves["there"] else ["There is no curves.jsonl."]
    for key, what in (("train", "training"), ("checks", "validation")):
        gone = [step for step, loss in curves[key] if loss is None]
        if gone:
            notes.append(f"The {what} loss is not a finite number at {len(gone)} of {len(curves[key])} logged steps, "
                         f"first at step {gone[0]:,.0f}: a gap.")  # fmt: skip
    if axes:
        over = [v for _, v in (*curves["train"], *curves["checks"]) if v is not None and v > axes["high"]]
        if over:
            notes.append(f"Above the axis, and drawn at its end: {len(over)} of the losses, up to {figure(max(over))}.")
    if curves["unread"]:
        notes.append(f"Lines of curves.jsonl that cannot be read: {curves['unread']}.")
    return notes


# -------------------------------------------------------------- preferences


def _judged(m: Manifest) -> Facts:
    """Return what a preference run did on held-out pairs, and in words where it did harm."""
    before = {key: _real(m.scores.get(f"base_{key}")) for key in SIDES}
    after = {key: _real(m.scores.get(key)) for key in SIDES}
    kl = _real(m.scores.get("kl"))
    broken = [key for key in (*SIDES, "kl") if key in m.scores and _real(m.scores[key]) is None]
    worse, said = _verdict(before, after, kl)
    if broken:
        said.insert(0, f"The model is broken: its {', '.join(broken)} on held-out pairs is not a finite number.")
    there = any(v is not None for v in after.values()) or bool(broken)
    return {"name": m.name, "before": before, "after": after, "kl": kl, "there": there, "worse": worse or bool(broken),
            "warnings": said}  # fmt: skip


def _verdict(
    before: Mapping[str, float | None], after: Mapping[str, float | None], kl: float | None
) -> tuple[bool, list[str]]:
    """Return whether a run made its model worse at telling pairs apart, and the warnings in plain words.

    Accuracy decides, the margin where there is no accuracy (KTO) or where it could not rise.
    """
    said, worse = [], False
    was, now = before["accuracy"], after["accuracy"]
    if was is not None and now is not None and (now < was or now == was < 1):
        worse = now < was
        said.append(f"This run made the model worse by {100 * (was - now):.1f} points of accuracy ({100 * was:.1f}% before, "
                    f"{100 * now:.1f}% after)." if worse else f"Accuracy did not rise ({100 * now:.1f}% before and after): this run "
                    "made the model no better.")  # fmt: skip
    else:
        start, end = before["margin"], after["margin"]
        if start is not None and end is not None and end <= start and (was is None or was == 1):
            worse = end < start
            said.append(f"This run made the model worse by {figure(start - end)} nats a token of margin ({figure(start)} before, "
                        f"{figure(end)} after)." if worse else f"The margin did not rise ({figure(end)} before and after): this run "
                        "made the model no better.")  # fmt: skip
    start, end = before["chosen"], after["chosen"]
    if start is not None and end is not None and end < start:
        said.append(f"The chosen answers became less likely, by {figure(start - end)} nats a token: the run pushed away what it "
                    "was to bring nearer.")  # fmt: skip
    if kl is not None and kl > FAR:
        said.append(
            f"The model is {figure(kl, 2)} nats a token from its base, more than {FAR:g}: what else the base could do may be lost."
        )
    return worse, said


# ------------------------------------------------------------------- matrix


def _matrix(path: Path, names: Sequence[str]) -> Facts | None:
    """Return the matrix beside the models as tables; None where there is none, `trouble` where it cannot be read."""
    if not path.is_file():
        return None
    try:
        return _compared(json.loads(path.read_text(encoding="utf-8")), names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {"trouble": f"{type(error).__name__}: {error}"}


def _compared(data: Facts, names: Sequence[str]) -> Facts:
    cultures, models = ([str(name) for name in data[key]] for key in ("cultures", "models"))
    tuned = [m for m in models if m != BASE]
    tables = {
        key: [dict(zip(models, map(_real, row), strict=True)) for _, row in zip(cultures, data[key], strict=True)]
        for key in ("likelihood", "accuracy")
    }
    told = zip(cultures, data["recognised"], data["n"], strict=True)
    rows: list[Facts] = [
        {"culture": c, "recognised": _real(share) if c in tuned else None, "n": n if isinstance(n, int) else None}
        for c, share, n in told
    ]
    return {
        "trouble": None,
        "models": models,
        "rows": rows,
        "other": sorted(tuned) != sorted(names),
        "chance": 1 / len(tuned) if tuned else None,
        "recognised": _mean([r["recognised"] for r in rows]),
        "tables": {key: _shaded(cultures, table, whole=key == "accuracy") for key, table in tables.items()},
        "ahead": {key: _ahead(cultures, table) for key, table in tables.items()},
    }


def _shaded(cultures: Sequence[str], table: Sequence[Mapping[str, float | None]], *, whole: bool) -> list[list[Facts]]:
    """Return cells with their shade, h0 to h5: of 0 to 1 for a `whole` table, else of the least to the most of a row."""
    made = []
    for culture, row in zip(cultures, table, strict=True):
        held = [v for v in row.values() if v is not None]
        low, high = (0.0, 1.0) if whole else (min(held, default=0.0), max(held, default=0.0))
        made.append([{"value": v, "own": m == culture, "heat": _heat(v, low, high)} for m, v in row.items()])
    return made


def _heat(value: float | None, low: float, high: float) -> str:
    return "h0" if value is None or high <= low else f"h{math.ceil(5 * min(1, max(0, (value - low) / (high - low))))}"


def _ahead(cultures: Sequence[str], table: Sequence[Mapping[str, float | None]]) -> Facts:
    """Return for how many cultures their own model beats every other tuned one and the base, and its mean lead on the others.

    `of` counts the cultures that have a model of their own and another to hold it against.
    """
    beats, base, leads, against = 0, 0, [], 0
    for culture, row in zip(cultures, table, strict=True):
        own, plain = row.get(culture), row.get(BASE)
        others = [v for m, v in row.items() if m not in (culture, BASE) and v is not None]
        if own is not None and others:
            beats += own > max(others)
            leads.append(own - math.fsum(others) / len(others))
        if own is not None and plain is not None:
            against += 1
            base += own > plain
    return {"beats": beats, "of": len(leads), "margin": _mean(leads), "base": base, "against": against}
