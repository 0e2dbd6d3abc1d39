"""How often a 95% interval holds the truth, by kind of figure and number of units; and how often
two equal recipes are told apart.

Units are drawn from a distribution whose figure is known; every interval is what `evaluate` tells.
Beside it stands the percentile bootstrap (Efron & Tibshirani 1993, §13.3), which was told before.
Then two recipes are trained anew and asked the same questions, many times over, with no difference
between them, and with one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from culturepark.evaluation.intervals import SHARE
from culturepark.evaluation.kinds import moderation, vsm
from culturepark.evaluation.measure import FEW, Measure, compare, estimate, mean
from culturepark.evaluation.types import STRIDE

UNITS = (6, 8, 12, 20, 50)
TIMES, DRAWS = 1_000, 500  # simulated studies of a row, and draws of each one's bootstrap
TRAININGS = (1, 2, 3, 5, 10)
TRIES, QUESTIONS = 1_000, 50
BETWEEN = (0.0, 0.01, 0.02, 0.05)  # standard deviation of a recipe's figure over trainings
AHEAD = 0.05  # how much better one recipe is, for the power
Rng = np.random.Generator


class BenchmarkKind(NamedTuple):
    """A kind of figure: draws the sums of so many units, shape (units, length), is read by a
    measure, and has a true value.
    """

    name: str
    draw: Callable[[Rng, int], Any]
    how: dict[str, Any]
    truth: float


def main() -> None:
    """Print both tables."""
    rng = np.random.default_rng(0)
    print(
        f"{TIMES:,} studies a row; coverage of the 95% interval, and its mean width; none: studies"
        " that get no interval, which do not count"
    )
    print(
        f"{'figure':28}{'units':>6}   {'bootstrap: covers':>18}{'width':>9}  "
        f" {'told now: covers':>17}{'width':>9}{'none':>8}"
    )
    for kind in kinds():
        for n in UNITS:
            print(f"{kind.name:28}{n:6}   {row(rng, kind, n)}", flush=True)
    print(
        f"\nThe share of {TRIES:,} studies in which two recipes differ (p < 0.05), {QUESTIONS}"
        " questions; the figure of a recipe varies by training with this"
    )
    print(
        f"standard deviation. Equal: nothing between them. Power: one is better by {AHEAD:g}. Of"
        " one training the test is of these weights, and no claim is made."
    )
    print(
        f"{'by training':>12}{'trainings':>11}   {'equal: units alone':>19}{'told now':>10}  "
        f" {'power: units alone':>19}{'told now':>10}"
    )
    for deviation in BETWEEN:
        for many in TRAININGS:
            equal, ahead = (told(rng, deviation, many, by) for by in (0.0, AHEAD))
            now = ["–", "–"] if many == 1 else [f"{equal[1]:.1%}", f"{ahead[1]:.0%}"]
            print(
                f"{deviation:12.2f}{many:11}   {equal[0]:19.1%}{now[0]:>10}  "
                f" {ahead[0]:19.0%}{now[1]:>10}",
                flush=True,
            )


# ---------------------------------------------------------------- coverage


def row(rng: Rng, kind: BenchmarkKind, n: int) -> str:
    """Return coverage and mean width of both intervals for so many units."""
    old, new = [], []
    for _ in range(TIMES):
        sums = kind.draw(rng, n)
        old.append(bootstrap(rng, kind.how["value"], sums))
        f = estimate(
            Measure("x", {(0, f"{i:03}"): tuple(s) for i, s in enumerate(sums)}, **kind.how)
        )
        new.append(None if f.low is None or f.high is None else (f.low, f.high))
    there = [ends for ends in new if ends is not None]
    right, width = covers(old, kind.truth)
    told_right, told_width = covers(there, kind.truth) if there else ("–", "–")
    return f"{right:>18}{width:>9}   {told_right:>17}{told_width:>9}{1 - len(there) / TIMES:>8.1%}"


def covers(ends: Sequence[tuple[float, float]], truth: float) -> tuple[str, str]:
    """Return the share of intervals that hold the truth, and their mean width."""
    held = np.mean([low - 1e-9 <= truth <= high + 1e-9 for low, high in ends])
    width = np.mean([high - low for low, high in ends])
    return f"{held:.1%}", f"{width:.3f}" if width < 10 else f"{width:.1f}"


def bootstrap(rng: Rng, value: Callable[[Any], Any], sums: Any) -> tuple[float, float]:
    """Return the percentile interval of units that are drawn again."""
    drawn = value(rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=DRAWS) @ sums)
    low, high = np.percentile(drawn[np.isfinite(drawn)], (2.5, 97.5))
    return float(low), float(high)


def kinds() -> list[BenchmarkKind]:
    """Return the kinds of figures, from the easiest."""
    share: dict[str, Any] = {"value": mean, "share": True}
    f1: dict[str, Any] = {
        "value": lambda s: moderation.f1(s.reshape(*s.shape[:-1], 2, 3)),
        "within": SHARE,
        "few": moderation.FEW_TEXTS,
    }
    far: dict[str, Any] = {"value": _far, "square": _square}
    near = float(_alignments(np.random.default_rng(1), 400_000).mean())
    return [
        BenchmarkKind("share right, one item a unit", _binary, share, 0.8),
        BenchmarkKind("mean of shares, 5 items", _shares, share, 2 / 3),
        BenchmarkKind("ratio, 1 to 10 items a unit", _ratio, share, 2 / 3),
        BenchmarkKind(
            "alignment (Jensen–Shannon)",
            lambda r, n: np.stack([_alignments(r, n), np.ones(n)], -1),
            {"value": mean, "within": SHARE},
            near,
        ),
        BenchmarkKind("macro-F1, two labels", _labels, f1, _true_f1()),
        BenchmarkKind("VSM distance, truth 20", lambda r, n: _people(r, n, 20.0), far, 20.0),
        BenchmarkKind("VSM distance, truth 80", lambda r, n: _people(r, n, 80.0), far, 80.0),
    ]


def _binary(rng: Rng, n: int) -> Any:
    return np.stack([(rng.random(n) < 0.8).astype(float), np.ones(n)], -1)


def _shares(rng: Rng, n: int) -> Any:
    return np.stack([rng.binomial(5, rng.beta(4, 2, n)) / 5, np.ones(n)], -1)


def _ratio(rng: Rng, n: int) -> Any:
    count = rng.integers(1, 11, n)
    return np.stack([rng.binomial(count, rng.beta(4, 2, n)), count], -1).astype(float)


def _alignments(rng: Rng, n: int) -> Any:
    """Return the agreement of models with peoples that are half like them."""
    people = rng.dirichlet(np.ones(4), n)
    like = rng.beta(1, 2, (n, 1))
    model = like * people + (1 - like) * rng.dirichlet(np.full(4, 0.5), n)
    middle = (people + model) / 2
    bits = (
        sum(
            np.where(x > 0, x * np.log2(np.maximum(x, 1e-300) / middle), 0).sum(-1)
            for x in (people, model)
        )
        / 2
    )
    return 1 - np.sqrt(np.maximum(bits, 0))


RARE, RIGHT = 0.4, 0.75  # the share of the rarer label, and of right answers


def _labels(rng: Rng, n: int) -> Any:
    gold = (rng.random(n) < RARE).astype(int)
    said = np.where(rng.random(n) < RIGHT, gold, 1 - gold)
    each = [[(gold == k) & (said == k), gold == k, said == k] for k in (0, 1)]
    return np.array(each, dtype=float).reshape(6, n).T


def _true_f1() -> float:
    wrong = 1 - RIGHT
    return sum(2 * RIGHT * share / (2 * RIGHT * share + wrong) for share in (RARE, 1 - RARE)) / 2


NOISE = (
    86.0  # the deviation of one respondent's PDI who answers at random: 1.41 √(2 · 35² + 2 · 25²)
)


def _people(rng: Rng, n: int, truth: float) -> Any:
    """Return respondents' errors on six dimensions in two halves, with counts, shape (n, 14)."""
    error = np.array([1, -1, 1, -1, 1, -1]) * truth / 6**0.5
    sums, half = np.zeros((n, 14)), np.arange(n) % 2
    for part in (0, 1):
        rows = half == part
        sums[rows, 6 * part : 6 * part + 6] = error + rng.normal(0, NOISE, (int(rows.sum()), 6))
        sums[rows, 12 + part] = 1
    return sums


def _errors(sums: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([sums[..., :6] / sums[..., 12:13], sums[..., 6:12] / sums[..., 13:14]], -2)


def _far(sums: Any) -> Any:
    return vsm.measure_distance(_errors(sums), np.ones(6, bool))


def _square(sums: Any) -> Any:
    return vsm.square_distance(_errors(sums), np.ones(6, bool))


# ----------------------------------------------------------------- recipes


def told(rng: Rng, deviation: float, trainings: int, ahead: float) -> tuple[float, float]:
    """Return in which share of studies two recipes are told apart, by units alone and as they are
    compared now.
    """
    found = [study(rng, deviation, trainings, ahead) for _ in range(TRIES)]
    alone, now = (float(np.mean([pair[i] < 0.05 for pair in found])) for i in (0, 1))
    return alone, now


def study(rng: Rng, deviation: float, trainings: int, ahead: float) -> tuple[float, float]:
    """Return both p-values of one study: each recipe trained so often, all asked the same
    questions.
    """
    easy, taste = rng.normal(0.7, 0.15, QUESTIONS), rng.normal(0, 0.05, (2, 1, QUESTIONS))
    by_training = rng.normal(0, deviation, (2, trainings, 1))
    answers = (
        easy
        + taste
        + by_training
        + rng.normal(0, 0.05, (2, trainings, QUESTIONS))
        + np.array([ahead, 0])[:, None, None]
    )
    first, second = answers
    now = compare(_recipe(first), _recipe(second), draws=200)
    alone = compare(
        _recipe(first.mean(0, keepdims=True)), _recipe(second.mean(0, keepdims=True)), draws=200
    )
    return alone.p or 1.0, now.p or 1.0


def _recipe(answers: Any) -> Measure:
    rows = (
        (r * STRIDE, f"q{i:02}", float(value))
        for r, each in enumerate(answers)
        for i, value in enumerate(each)
    )
    return Measure("x", {(seed, unit): (value, 1.0) for seed, unit, value in rows}, mean)


assert min(UNITS) >= FEW, "below that no interval is told"
