"""Did it work? The tiny base, adapters tuned on its corpus and the embedded engine at every
benchmark, in one table; and what stands behind it.

First, each formula beside an independent computation. Then a park's corpus, two objectives tuned in
three seeds, and every model at every benchmark: `sft` and `shares` are each culture's own model
(three trainings, averaged), `sft/NAME` the eight adapters of the first, each asked about every
culture. Real data are read from CULTUREPARK_DATA; what needs them is left out, and said, without.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import culturepark as cp
from culturepark.evaluation.comparison import BenchmarkTable, Comparison, FigureRow
from culturepark.evaluation.measure import Figure
from culturepark.evaluation.result import Result
from culturepark.local_models import base

DATA = Path(os.environ.get("CULTUREPARK_DATA", Path(__file__).parents[2] / "shared" / "data"))
SAMPLES, SEEDS, EPOCHS = 200, (0, 1, 2), 3
SPLIT = {
    "validation": 0.1,
    "test": 0.3,
}  # of the questions: enough are held out for differences to be tested
OWN = ("base=local/tiny", "embedded")
BESIDE = ("alignment", "margin", "steerability", "specific gain", "spread")


def main() -> None:
    """Print the agreements, the table, and where tuned models beat their base."""
    agreements()
    began = time.perf_counter()
    base.find_base("tiny")
    built = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        run = cp.run("park", samples=SAMPLES, split=SPLIT, out=folder, formats=("trl", "shares"))
        for seed in SEEDS:
            cp.tune(
                "sft",
                run,
                "tiny",
                name=f"sft{seed}",
                epochs=EPOCHS,
                rows=8,
                seed=seed,
                patience=0,
                device="cpu",
            )
            cp.tune("shares", run, "tiny", name=f"shares{seed}", seed=seed, device="cpu")
        tuned = time.perf_counter()
        models = run.folder / "models"
        own = [
            f"{o}=" + ",".join(f"{models}/{o}{s}/{{culture}}" for s in SEEDS)
            for o in ("sft", "shares")
        ]
        single = [
            f"sft/{f.name}={f}"
            for f in sorted((models / "sft0").iterdir())
            if (f / "manifest.json").is_file()
        ]
        found = evaluated(str(folder), [*OWN, *own], single)
        asked = time.perf_counter()
        board = cp.compare(run.folder, against="base", name="board", out=folder)
        for table in board.tables:
            told(table, found)
        ahead(board)
    minutes = [
        f"{(b - a) / 60:.1f}"
        for a, b in ((began, tuned), (tuned, asked), (asked, time.perf_counter()))
    ]
    print(
        f"\nminutes: corpus and {2 * 8 * len(SEEDS)} adapters {minutes[0]} (of them the tiny base"
        f" {built / 60:.1f}), {sum(sum(f.counts.values()) for f in found):,} answers {minutes[1]},"
        f" the board {minutes[2]}; one core a model, two in all"
    )


def evaluated(out: str, several: Sequence[str], single: Sequence[str]) -> list[Result]:
    """Put every benchmark to every model that can take it."""
    every = [*several, *single]
    found = cp.evaluate("park", ["survey"], every, out=out)
    found += cp.evaluate("park", ["vsm13"], every, out=out, count=200)
    found += cp.evaluate("park", ["education"], several, out=out, learner="embedded", count=8)
    if not DATA.is_dir():
        print(f"no data at {DATA}: opinions, moderation, hatecheck and care are left out")
        return found
    found += cp.evaluate(
        "park",
        ["opinions"],
        several,
        out=out,
        data=[DATA / "survey/global_opinions/distributions.json"],
        limit=40,
    )
    found += cp.evaluate(
        "park",
        ["moderation"],
        every,
        out=out,
        data=[DATA / "moderation/by_culture"],
        limit=60,
        seeds=SEEDS,
        options={"without": "chinese_cdial*"},
    )
    found += cp.evaluate(
        "park",
        ["hatecheck"],
        several,
        out=out,
        data=[DATA / "moderation/hatecheck"],
        limit=60,
        seeds=SEEDS,
    )
    care = [DATA / f"open_qa/care_{c}.json" for c in ("chinese", "japanese")]
    return found + cp.evaluate(
        "park",
        ["care"],
        ["base=local/tiny", "embedded", f"sft/chinese={_of(single, 'chinese')}"],
        out=out,
        data=care,
        judge="embedded",
        limit=20,
    )


def _of(single: Sequence[str], culture: str) -> str:
    return next(m.partition("=")[2] for m in single if m.startswith(f"sft/{culture}="))


# ------------------------------------------------------------------ tables


def told(table: BenchmarkTable, found: Sequence[Result]) -> None:
    """Print a benchmark's figures over all cultures: headline, its part on held-out questions, and
    some that stand beside it.
    """
    print(f"\n-- {table.benchmark}: {table.title}")
    mine = [r for r in found if r.benchmark == table.benchmark]
    there = {(f.name, f.subset): f.headline for r in mine for f in r.figures if not f.culture}
    shown = [k for k, headline in there.items() if headline and k[1] in ("", "held-out")]
    shown += [k for k in ((n, "") for n in BESIDE) if k in there and k not in shown]
    print(f"{'':15}" + "".join(f"{' '.join(filter(None, k)):>30}" for k in shown) + "   answers")
    for r in mine:
        cells = "".join(f"{_cell(r.figure(name, '', subset)):>30}" for name, subset in shown)
        lost = sum(n for status, n in r.counts.items() if status != "ok")
        print(
            f"{r.model:15}{cells}   {sum(r.counts.values()):,}"
            + (f", {lost:,} not read" if lost else "")
        )


def _cell(f: Figure | None) -> str:
    if f is None or f.value is None:
        return "–"
    spread = "" if f.spread is None else f" ±{f.spread:.3f}"
    return f"{f.value:.3f}" + ("" if f.low is None else f" [{f.low:.3f}, {f.high:.3f}]") + spread


def ahead(board: Comparison) -> None:
    """Print how far each culture's own models are from the base: over all, and for how many
    cultures the interval, and the test, say so.
    """
    print(
        f"\n-- own models against their base; p after Holm over {board.comparisons} comparisons;"
        " cultures: better/worse by interval, by test"
    )
    for table in board.tables:
        for name, subset in dict.fromkeys(
            (r.name, r.subset) for r in table.rows if r.subset in ("", "held-out")
        ):
            rows = [r for r in table.rows if (r.name, r.subset) == (name, subset)]
            for label in ("sft", "shares"):
                whole = [_apart(r, label) for r in rows if not r.culture]
                each = [d for r in rows if r.culture and (d := _apart(r, label)) is not None]
                print(
                    f"{table.benchmark:11}{' '.join(filter(None, (name, subset))):20}{label:7}{_said(whole[0] if whole else None):46}{_sides(each, interval=True)}"  # noqa: E501
                    f" by interval, {_sides(each, interval=False)} by test, of {len(each)}"
                )


Apart = tuple[
    float, float, float, float
]  # how much better than the base, its interval, the corrected p


def _apart(row: FigureRow, label: str) -> Apart | None:
    """Return how much better than the base a model is, above 0 whichever way is better; None where
    they were not compared.
    """
    for pair in row.pairs:
        d = pair.difference
        if (
            {pair.first, pair.second} == {label, "base"}
            and d.value is not None
            and d.low is not None
            and d.high is not None
        ):
            sign = (1 if pair.first == label else -1) * (-1 if row.better == "low" else 1)
            low, high = sorted((sign * d.low, sign * d.high))
            return sign * d.value, low, high, 1.0 if pair.corrected is None else pair.corrected
    return None


def _said(apart: Apart | None) -> str:
    return (
        "–"
        if apart is None
        else f"all {apart[0]:+.3f} [{apart[1]:+.3f}, {apart[2]:+.3f}] p {apart[3]:.3f}"
    )


def _sides(each: Sequence[Apart], *, interval: bool) -> str:
    sure = [a for a in each if (a[1] > 0 or a[2] < 0) and (interval or a[3] < 0.05)]
    return f"{sum(a[0] > 0 for a in sure)}/{sum(a[0] < 0 for a in sure)}"


# -------------------------------------------------------------- agreements


def agreements() -> None:
    """Print the largest differences between our figures and independent computations of them."""
    import numpy as np
    from scipy.spatial.distance import jensenshannon
    from sklearn.metrics import f1_score

    from culturepark.evaluation.kinds import vsm
    from culturepark.local_models.choices import compute_divergence

    rng = np.random.default_rng(0)
    ps, qs = rng.dirichlet(np.ones(5), 1000), rng.dirichlet(np.ones(5), 1000)
    js = max(
        abs(compute_divergence(list(p), list(q)) - jensenshannon(p, q, base=2))
        for p, q in zip(ps, qs, strict=True)
    )
    print(f"Jensen–Shannon distance against scipy, 1,000 random pairs: largest difference {js:.1e}")
    print(
        "macro-F1 against scikit-learn, 200 random labellings of 3 classes: largest difference"
        f" {_f1(rng, f1_score):.1e}"
    )
    means = rng.uniform(1, 5, (1000, 24))
    apart = max(
        abs(vsm.score(d, dict(zip(vsm.ITEMS, m, strict=True))) - BY_HAND[d] @ m)
        for m in means
        for d in vsm.FORMULAS
    )
    print(
        "VSM 2013 formulas against a coefficient matrix written apart, 1,000 random peoples:"
        f" largest difference {apart:.1e}"
    )


def _f1(rng: Any, theirs: Any) -> float:
    import numpy as np

    from culturepark.evaluation.kinds.moderation import f1 as ours

    most = 0.0
    for _ in range(200):
        gold, said = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
        counts = [
            [int(((gold == c) & (said == c)).sum()), int((gold == c).sum()), int((said == c).sum())]
            for c in range(3)
        ]
        most = max(most, abs(float(ours(np.array(counts))) - theirs(gold, said, average="macro")))
    return most


def _matrix() -> dict[str, Any]:
    """Return the coefficients of m01…m24 by dimension, as the manual prints the formulas."""
    import numpy as np

    made = {}
    for name, terms in {
        "pdi": {7: 35, 2: -35, 20: 25, 23: -25},
        "idv": {4: 35, 1: -35, 9: 35, 6: -35},
        "mas": {5: 35, 3: -35, 8: 35, 10: -35},
        "uai": {18: 40, 15: -40, 21: 25, 24: -25},
        "lto": {13: 40, 14: -40, 19: 25, 22: -25},
        "ivr": {12: 35, 11: -35, 17: 40, 16: -40},
    }.items():
        row = np.zeros(24)
        for item, weight in terms.items():
            row[item - 1] = weight
        made[name] = row
    return made


BY_HAND = _matrix()
