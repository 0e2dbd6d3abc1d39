"""The page of a tuning job: what was made, how its losses went, what it did to held-out pairs, and
who knows whom best.
"""

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
from culturepark.local_models import manifest
from culturepark.local_models.manifest import Manifest
from culturepark.registry import OBJECTIVES
from culturepark.reports.curves import (
    Facts,
    chart,
    figure,
    frame,
    kept,
    logged,
    mean,
    real,
    stopped,
)
from culturepark.reports.show import number, percent

BASE = "base"  # the matrix' column of the model without an adapter
SIDES = ("accuracy", "margin", "chosen", "rejected")
FAR = 1.0  # nats a token from the base that are told as a warning
REWARD_MODELS = {  # what is tuned by `tune scpo`: its title, and its loss
    "reward": (
        "a reward model",
        "the negative log-likelihood that the preferred answer is the better one, in nats a pair",
    ),
    "scpo": (
        "a reward model of one country",
        "the weighted negative log-likelihood that the preferred answer is the better one, in nats"
        " a pair",
    ),
}


def write(place: Path, models: Sequence[Path]) -> Path:
    """Write <place>/report.html about tuned models and the matrix beside them, whole or not at all;
    return its path.

    The same manifests, curves and matrix give the same bytes. InputError where a folder holds no
    tuned model or none is given, ParkError if the page cannot be written.
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
    """Return the facts as one HTML page that needs nothing from outside: no script, no font, no
    picture.
    """
    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"num": number, "pct": percent, "figure": figure}
    source = files(__package__).joinpath("tuned.html.j2").read_text(encoding="utf-8")
    return made.from_string(source).render(f=facts, losses=_losses(facts), far=FAR)


def gather(place: Path, models: Sequence[Path]) -> Facts:
    """Return all that is told of a tuning job as JSON-able data; what is not known is None, never
    0.
    """
    if not models:
        raise InputError(f"no tuned model to report on in {place}")
    made = [manifest.read(folder) for folder in models]
    curves = [logged(folder / "curves.jsonl") for folder in models]
    rows = [_model(m, c) for m, c in zip(made, curves, strict=True)]
    judged = [_judged(m) for m in made if _compares(m)]
    axes = frame(curves)
    return {
        "job": place.absolute().name,
        "objectives": {o: _words(o)[0] for o in _several(m.objective for m in made)},
        "about": _about(made),
        "settings": _settings(made),
        "models": rows,
        "eval_loss": mean([r["eval_loss"] for r in rows]),
        "axes": axes,
        "charts": [chart(m.name, c, axes) for m, c in zip(made, curves, strict=True)],
        "keeps_best": all(m.settings.get("patience") for m in made),
        "judged": judged,
        "worse": sum(j["worse"] for j in judged),
        "matrix": _matrix(place / "matrix.json", [m.name for m in made]),
    }


def _words(objective: str) -> tuple[str, str]:
    """Return what an objective and its loss are called; an objective of somebody's own has its name
    alone, since a page runs nobody's code.
    """
    known = OBJECTIVES.get(objective)
    return (known.title, known.loss) if known else REWARD_MODELS.get(objective, (objective, ""))


def _losses(facts: Facts) -> dict[str, str]:
    """Return what each objective's loss is, of those that are known."""
    return {name: loss for name in facts["objectives"] if (loss := _words(name)[1])}


def _compares(m: Manifest) -> bool:
    """Say whether a model learnt which of two answers is better."""
    known = OBJECTIVES.get(m.objective)
    return known.compares if known else "base_margin" in m.scores


def jobs(folder: Path) -> list[Facts]:
    """Return the tuning jobs below a run's models/, one row each; none where there are none, and no
    complaint of odd files.
    """
    found: dict[Path, list[Facts]] = {}
    for path in sorted(folder.glob(f"models/*/*/{manifest.FILE}")):
        if not any(
            part.startswith(".") for part in path.relative_to(folder).parts
        ):  # what is still being written
            found.setdefault(path.parent.parent, []).append(_plain(path))
    return [_job(place, made) for place, made in found.items()]


def _job(place: Path, made: Sequence[Facts]) -> Facts:
    losses = [real(s.get("eval_loss")) for m in made if isinstance(s := m.get("scores"), Mapping)]
    return {
        "job": place.name,
        "objective": (
            "; ".join(_several(m.get("objective") or m.get("method") for m in made)) or None
        ),
        "base": "; ".join(_several(_public(m.get("base")) for m in made)) or None,
        "models": len(made),
        "eval_loss": mean(losses),
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
        "made": [
            " to ".join(_several((min(m.created for m in made), max(m.created for m in made))))
        ],
    }
    return [(name, "; ".join(_several(values)) or "–") for name, values in lines.items()]


def _settings(made: Sequence[Manifest]) -> list[tuple[str, str]]:
    """Return the settings as lines; what is not set is left out, what differs between models is
    told once each.
    """
    keys = dict.fromkeys(key for m in made for key in m.settings)
    rows = [(key, " / ".join(_several(_public(m.settings.get(key)) for m in made))) for key in keys]
    return [(key, value) for key, value in rows if value]


def _model(m: Manifest, curves: Facts) -> Facts:
    """Return a model's row; where it has no curves, the last figures that its manifest kept."""
    train, best = curves["train"], kept(curves["checks"])
    return {
        "name": m.name,
        "train": m.rows.get("train"),
        "validation": m.rows.get("validation"),
        "steps": None if curves["step"] is None else round(curves["step"]),
        "loss": train[-1][1] if train else real(m.scores.get("loss")),
        "diverged": bool(train) and train[-1][1] is None,
        "eval_loss": (
            best[1] if best else None if curves["checks"] else real(m.scores.get("eval_loss"))
        ),
        "best_step": round(best[0]) if best else None,
        "stopped": stopped(m.settings, curves),
    }


# -------------------------------------------------------------- preferences


def _judged(m: Manifest) -> Facts:
    """Return what a preference run did on held-out pairs, and in words where it did harm."""
    before = {key: real(m.scores.get(f"base_{key}")) for key in SIDES}
    after = {key: real(m.scores.get(key)) for key in SIDES}
    kl = real(m.scores.get("kl"))
    broken = [key for key in (*SIDES, "kl") if key in m.scores and real(m.scores[key]) is None]
    worse, said = _verdict(before, after, kl)
    if broken:
        said.insert(
            0,
            f"The model is broken: its {', '.join(broken)} on held-out pairs is not a finite"
            " number.",
        )
    there = any(v is not None for v in after.values()) or bool(broken)
    return {
        "name": m.name,
        "before": before,
        "after": after,
        "kl": kl,
        "there": there,
        "worse": worse or bool(broken),
        "warnings": said,
    }


def _verdict(
    before: Mapping[str, float | None], after: Mapping[str, float | None], kl: float | None
) -> tuple[bool, list[str]]:
    """Return whether a run made its model worse at telling pairs apart, and the warnings in plain
    words.

    Accuracy decides, the margin where there is no accuracy (KTO) or where it could not rise.
    """
    said, worse = [], False
    was, now = before["accuracy"], after["accuracy"]
    if was is not None and now is not None and (now < was or now == was < 1):
        worse = now < was
        said.append(
            f"This run made the model worse by {100 * (was - now):.1f} points of accuracy"
            f" ({100 * was:.1f}% before, {100 * now:.1f}% after)."
            if worse
            else (
                f"Accuracy did not rise ({100 * now:.1f}% before and after): this run "
                "made the model no better."
            )
        )
    else:
        start, end = before["margin"], after["margin"]
        if start is not None and end is not None and end <= start and (was is None or was == 1):
            worse = end < start
            said.append(
                f"This run made the model worse by {figure(start - end)} nats a token of margin"
                f" ({figure(start)} before, {figure(end)} after)."
                if worse
                else (
                    f"The margin did not rise ({figure(end)} before and after): this run "
                    "made the model no better."
                )
            )
    start, end = before["chosen"], after["chosen"]
    if start is not None and end is not None and end < start:
        said.append(
            f"The chosen answers became less likely, by {figure(start - end)} nats a token: the run"
            " pushed away what it was to bring nearer."
        )
    if kl is not None and kl > FAR:
        said.append(
            f"The model is {figure(kl, 2)} nats a token from its base, more than {FAR:g}: what else"
            " the base could do may be lost."
        )
    return worse, said


# ------------------------------------------------------------------- matrix


def _matrix(path: Path, names: Sequence[str]) -> Facts | None:
    """Return the matrix beside the models as tables; None where there is none, `trouble` where it
    cannot be read.
    """
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
        key: [
            dict(zip(models, map(real, row), strict=True))
            for _, row in zip(cultures, data[key], strict=True)
        ]
        for key in ("likelihood", "accuracy")
    }
    told = zip(cultures, data["recognised"], data["n"], strict=True)
    rows: list[Facts] = [
        {
            "culture": c,
            "recognised": real(share) if c in tuned else None,
            "n": n if isinstance(n, int) else None,
        }
        for c, share, n in told
    ]
    return {
        "trouble": None,
        "models": models,
        "rows": rows,
        "other": sorted(tuned) != sorted(names),
        "chance": 1 / len(tuned) if tuned else None,
        "recognised": mean([r["recognised"] for r in rows]),
        "tables": {
            key: _shaded(cultures, table, whole=key == "accuracy") for key, table in tables.items()
        },
        "ahead": {key: _ahead(cultures, table) for key, table in tables.items()},
    }


def _shaded(
    cultures: Sequence[str], table: Sequence[Mapping[str, float | None]], *, whole: bool
) -> list[list[Facts]]:
    """Return cells with their shade, h0 to h5: of 0 to 1 for a `whole` table, else of the least to
    the most of a row.
    """
    made = []
    for culture, row in zip(cultures, table, strict=True):
        held = [v for v in row.values() if v is not None]
        low, high = (0.0, 1.0) if whole else (min(held, default=0.0), max(held, default=0.0))
        made.append(
            [{"value": v, "own": m == culture, "heat": _heat(v, low, high)} for m, v in row.items()]
        )
    return made


def _heat(value: float | None, low: float, high: float) -> str:
    return (
        "h0"
        if value is None or high <= low
        else f"h{math.ceil(5 * min(1, max(0, (value - low) / (high - low))))}"
    )


def _ahead(cultures: Sequence[str], table: Sequence[Mapping[str, float | None]]) -> Facts:
    """Return for how many cultures their own model beats every other tuned one and the base, and
    its mean lead on the others.

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
    return {
        "beats": beats,
        "of": len(leads),
        "margin": mean(leads),
        "base": base,
        "against": against,
    }
