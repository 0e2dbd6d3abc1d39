"""The page of a tuning job: its models, losses, effect on held-out pairs, and matrix."""

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
    average_known,
    build_axes,
    build_chart,
    describe_stop,
    find_best_check,
    format_figure,
    parse_finite,
    read_curves,
)
from culturepark.reports.show import number, percent

BASE = "base"  # the matrix' column of the model without an adapter
SIDES = ("accuracy", "margin", "chosen", "rejected")
FAR = 1.0  # nats per token from the base above which the report warns
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


def write_report(place: Path, models: Sequence[Path]) -> Path:
    """Write <place>/report.html about tuned models and the matrix beside them, whole or not at all;
    return its path.

    Equal manifests, curves and matrix give equal bytes. Raises InputError for a folder without a
    tuned model or if none is given, ParkError if the page cannot be written.
    """
    text = render_page(gather_facts(place, models))
    target, partial = place / "report.html", place / "report.html.partial"
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise ParkError(f"cannot write the report to {place}: {error.strerror or error}") from error
    return target


def render_page(facts: Facts) -> str:
    """Return the facts as one HTML page without scripts and external files."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"num": number, "pct": percent, "figure": format_figure}
    source = files(__package__).joinpath("tuned.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(f=facts, losses=_losses(facts), far=FAR)


def gather_facts(place: Path, models: Sequence[Path]) -> Facts:
    """Return everything that the page shows as JSON-able data; what is unknown is None, never 0."""
    if not models:
        raise InputError(f"no tuned model to report on in {place}")
    manifests = [manifest.read(folder) for folder in models]
    curves = [read_curves(folder / "curves.jsonl") for folder in models]
    rows = [_describe_model(m, c) for m, c in zip(manifests, curves, strict=True)]
    judgements = [_describe_judgement(m) for m in manifests if _compares(m)]
    axes = build_axes(curves)
    return {
        "job": place.absolute().name,
        "objectives": {o: _words(o)[0] for o in _list_unique(m.objective for m in manifests)},
        "about": _describe_origin(manifests),
        "settings": _describe_settings(manifests),
        "models": rows,
        "eval_loss": average_known([r["eval_loss"] for r in rows]),
        "axes": axes,
        "charts": [build_chart(m.name, c, axes) for m, c in zip(manifests, curves, strict=True)],
        "keeps_best": all(m.settings.get("patience") for m in manifests),
        "judged": judgements,
        "worse": sum(j["worse"] for j in judgements),
        "matrix": _read_matrix(place / "matrix.json", [m.name for m in manifests]),
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


def list_jobs(folder: Path) -> list[Facts]:
    """Return the tuning jobs below a run's models/, one row each; unreadable files are skipped."""
    by_folder: dict[Path, list[Facts]] = {}
    for path in sorted(folder.glob(f"models/*/*/{manifest.FILE}")):
        unfinished = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not unfinished:
            by_folder.setdefault(path.parent.parent, []).append(_read_manifest(path))
    return [_describe_job(place, manifests) for place, manifests in by_folder.items()]


def _describe_job(place: Path, manifests: Sequence[Facts]) -> Facts:
    losses = [
        parse_finite(s.get("eval_loss"))
        for m in manifests
        if isinstance(s := m.get("scores"), Mapping)
    ]
    return {
        "job": place.name,
        "objective": (
            "; ".join(_list_unique(m.get("objective") or m.get("method") for m in manifests))
            or None
        ),
        "base": "; ".join(_list_unique(_hide_folders(m.get("base")) for m in manifests)) or None,
        "models": len(manifests),
        "eval_loss": average_known(losses),
        "checked": sum(v is not None for v in losses),
        "page": (place / "report.html").is_file(),
    }


def _read_manifest(path: Path) -> Facts:
    """Return the data of a manifest, a hosted job's too; empty if it is not valid."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


# ------------------------------------------------------------------ numbers


def _list_unique(values: Iterable[object]) -> list[str]:
    """Return the distinct values as text, in order."""
    return list(dict.fromkeys(str(v) for v in values if v not in (None, "", [], (), {})))


def _hide_folders(value: Any) -> Any:
    """Return a value as text, without the folders above a local file."""
    if isinstance(value, list | tuple):
        return ", ".join(str(_hide_folders(v)) for v in value)
    if isinstance(value, str) and re.match(r"[/\\~]|[A-Za-z]:[/\\]", value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else value


# ------------------------------------------------------------------- header


def _describe_origin(manifests: Sequence[Manifest]) -> list[tuple[str, str]]:
    """Return base, corpus and machine of all models as lines; each distinct value once."""
    lines: dict[str, list[Any]] = {
        "base": [f"{_hide_folders(m.base)} {m.base_hash}".strip() for m in manifests],
        "licence of the base": [m.base_licence for m in manifests],
        "method": [m.settings.get("method") for m in manifests],
        "corpus": [_hide_folders(m.corpus) for m in manifests],
        "hash of the corpus": [m.corpus_hash for m in manifests],
        "machine": [m.machine for m in manifests],
        "versions": [", ".join(f"{k} {v}" for k, v in m.versions.items()) for m in manifests],
        "made": [
            " to ".join(
                _list_unique((min(m.created for m in manifests), max(m.created for m in manifests)))
            )
        ],
    }
    return [(name, "; ".join(_list_unique(values)) or "–") for name, values in lines.items()]


def _describe_settings(manifests: Sequence[Manifest]) -> list[tuple[str, str]]:
    """Return the settings as lines, without unset ones; each distinct value once."""
    keys = dict.fromkeys(key for m in manifests for key in m.settings)
    rows = [
        (key, " / ".join(_list_unique(_hide_folders(m.settings.get(key)) for m in manifests)))
        for key in keys
    ]
    return [(key, value) for key, value in rows if value]


def _describe_model(m: Manifest, curves: Facts) -> Facts:
    """Return a model's row; without curves, the figures in its manifest."""
    train, best = curves["train"], find_best_check(curves["checks"])
    return {
        "name": m.name,
        "train": m.rows.get("train"),
        "validation": m.rows.get("validation"),
        "steps": None if curves["step"] is None else round(curves["step"]),
        "loss": train[-1][1] if train else parse_finite(m.scores.get("loss")),
        "diverged": bool(train) and train[-1][1] is None,
        "eval_loss": (
            best[1]
            if best
            else None
            if curves["checks"]
            else parse_finite(m.scores.get("eval_loss"))
        ),
        "best_step": round(best[0]) if best else None,
        "stopped": describe_stop(m.settings, curves),
    }


# -------------------------------------------------------------- preferences


def _describe_judgement(m: Manifest) -> Facts:
    """Return a preference run's figures on held-out pairs, and warnings if it did harm."""
    before = {key: parse_finite(m.scores.get(f"base_{key}")) for key in SIDES}
    after = {key: parse_finite(m.scores.get(key)) for key in SIDES}
    kl = parse_finite(m.scores.get("kl"))
    broken = [
        key for key in (*SIDES, "kl") if key in m.scores and parse_finite(m.scores[key]) is None
    ]
    worse, warnings = _judge_change(before, after, kl)
    if broken:
        warnings.insert(
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
        "warnings": warnings,
    }


def _judge_change(
    before: Mapping[str, float | None], after: Mapping[str, float | None], kl: float | None
) -> tuple[bool, list[str]]:
    """Return whether a run made its model worse at judging pairs, and the warnings.

    Accuracy decides; the margin does if there is no accuracy (KTO) or if it could not rise.
    """
    warnings, worse = [], False
    was, now = before["accuracy"], after["accuracy"]
    if was is not None and now is not None and (now < was or now == was < 1):
        worse = now < was
        warnings.append(
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
            warnings.append(
                f"This run made the model worse by {format_figure(start - end)} nats per token"
                f" of margin ({format_figure(start)} before, {format_figure(end)} after)."
                if worse
                else (
                    f"The margin did not rise ({format_figure(end)} before and after): this run "
                    "made the model no better."
                )
            )
    start, end = before["chosen"], after["chosen"]
    if start is not None and end is not None and end < start:
        warnings.append(
            f"The chosen answers became less likely, by {format_figure(start - end)} nats per"
            " token: the run pushed away what it was to bring nearer."
        )
    if kl is not None and kl > FAR:
        warnings.append(
            f"The model is {format_figure(kl, 2)} nats per token from its base, more than {FAR:g}:"
            " what else the base could do may be lost."
        )
    return worse, warnings


# ------------------------------------------------------------------- matrix


def _read_matrix(path: Path, names: Sequence[str]) -> Facts | None:
    """Return the matrix beside the models as tables; None if there is none, `trouble` if it is
    unreadable.
    """
    if not path.is_file():
        return None
    try:
        return _describe_matrix(json.loads(path.read_text(encoding="utf-8")), names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {"trouble": f"{type(error).__name__}: {error}"}


def _describe_matrix(data: Facts, names: Sequence[str]) -> Facts:
    cultures, models = ([str(name) for name in data[key]] for key in ("cultures", "models"))
    tuned = [m for m in models if m != BASE]
    tables = {
        key: [
            dict(zip(models, map(parse_finite, row), strict=True))
            for _, row in zip(cultures, data[key], strict=True)
        ]
        for key in ("likelihood", "accuracy")
    }
    columns = zip(cultures, data["recognised"], data["n"], strict=True)
    rows: list[Facts] = [
        {
            "culture": c,
            "recognised": parse_finite(share) if c in tuned else None,
            "n": n if isinstance(n, int) else None,
        }
        for c, share, n in columns
    ]
    return {
        "trouble": None,
        "models": models,
        "rows": rows,
        "other": sorted(tuned) != sorted(names),
        "chance": 1 / len(tuned) if tuned else None,
        "recognised": average_known([r["recognised"] for r in rows]),
        "tables": {
            key: _shade_cells(cultures, table, whole=key == "accuracy")
            for key, table in tables.items()
        },
        "ahead": {key: _count_leads(cultures, table) for key, table in tables.items()},
    }


def _shade_cells(
    cultures: Sequence[str], table: Sequence[Mapping[str, float | None]], *, whole: bool
) -> list[list[Facts]]:
    """Return cells with their shade, h0 to h5: on a scale of 0 to 1 for a `whole` table, else from
    the minimum to the maximum of a row.
    """
    cells = []
    for culture, row in zip(cultures, table, strict=True):
        known = [v for v in row.values() if v is not None]
        low, high = (0.0, 1.0) if whole else (min(known, default=0.0), max(known, default=0.0))
        cells.append(
            [
                {"value": v, "own": m == culture, "heat": _choose_shade(v, low, high)}
                for m, v in row.items()
            ]
        )
    return cells


def _choose_shade(value: float | None, low: float, high: float) -> str:
    if value is None or high <= low:
        return "h0"
    return f"h{math.ceil(5 * min(1, max(0, (value - low) / (high - low))))}"


def _count_leads(cultures: Sequence[str], table: Sequence[Mapping[str, float | None]]) -> Facts:
    """Return for how many cultures their own model beats every other tuned one and the base, and
    its mean lead on the others.

    `of` counts the cultures that have a model of their own and another to compare it with.
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
        "margin": average_known(leads),
        "base": base,
        "against": against,
    }
