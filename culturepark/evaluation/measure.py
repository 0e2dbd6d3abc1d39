"""A figure is a function of sums over independent units: so every figure gets its interval, spread and paired test the same way.

Intervals are percentiles of a bootstrap that redraws units (Efron & Tibshirani 1993, §13.3), each with all that was asked of it
in all seeds. Differences of two models are taken on the units that both were asked; their p-value is a permutation test's that
swaps the models' outcomes unit by unit (Good 2005, §3.2), and is corrected for the number of comparisons by Holm (1979).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from culturepark.records import Record

DRAWS = 2_000
FEW = 6  # units below which no interval is told: its ends would say more of the few than of the many
SAME = 1e-12  # draws that differ by no more are all one: nothing varies, so nothing is known of how much it would
BLOCK = 250  # draws that are reckoned at once
Sums = Mapping[tuple[int, str], Sequence[float]]


@dataclass(frozen=True)
class Measure:
    """A figure before it is reckoned.

    `units` maps (seed, unit) to that unit's sums, a vector of one length for all; `value` maps total sums, an array of shape
    (..., length), to the figure, shape (...), NaN where there is none. `better` says which way is good, "" where neither is.
    `headline`: it is what leaderboards show and compare. `what` names the units ("questions"), `note` is told beside the figure.
    `alike` names settings that two models must share for this figure to be comparable, beside those that all must;
    `tested` whether differences of it may be: not where its units are as many as one likes.
    """

    name: str
    units: Sums = field(repr=False)
    value: Callable[[Any], Any]
    culture: str = ""
    subset: str = ""
    better: Literal["high", "low", ""] = "high"
    headline: bool = False
    what: str = "units"
    note: str = ""
    alike: tuple[str, ...] = ()
    tested: bool = True

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a figure of: name, culture, subset."""
        return self.name, self.culture, self.subset


class Figure(Record):
    """A reckoned figure. `value` is None where nothing gives one. `low` and `high` bound its 95% interval.

    `n` counts units; `seeds` how often each was asked, `spread` is the standard deviation over seeds (None for one).
    """

    name: str
    culture: str = ""
    subset: str = ""
    value: float | None
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    seeds: int = 1
    n: int = 0
    what: str = "units"
    better: Literal["high", "low", ""] = "high"
    headline: bool = False
    note: str = ""


class Difference(Record):
    """How far one model's figure is from another's, on the units that both were asked: `value` = first − second."""

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int = 0


def mean(sums: Any) -> Any:
    """Return totals of (sum, count), shape (..., 2), as means; NaN where nothing was counted."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]


def estimate(measure: Measure, draws: int = DRAWS, seed: int = 0) -> Figure:
    """Return a measure's figure: the mean over seeds, its interval over units and its spread over seeds."""
    import numpy as np

    units, seeds = _sorted(measure)
    table = _table(measure, units, seeds)
    value = spread = low = high = None
    if units:
        each = np.array([measure.value(table[s].sum(0)) for s in range(len(seeds))], dtype=float)
        value = _finite(each.mean())
        spread = _finite(each.std(ddof=1)) if len(seeds) > 1 else None
        if value is not None and len(units) >= FEW:
            drawn = _redrawn(measure, table, _weights(len(units), draws, seed))
            low, high = _interval(drawn)
    return Figure(
        name=measure.name, culture=measure.culture, subset=measure.subset, value=value, low=low, high=high, spread=spread,
        seeds=len(seeds), n=len(units), what=measure.what, better=measure.better, headline=measure.headline, note=measure.note,
    )  # fmt: skip


def compare(first: Measure, second: Measure, draws: int = DRAWS, seed: int = 0) -> Difference:
    """Return how two models differ in a measure, on the units that both were asked, with interval and p-value.

    The p-value is two-sided; (1 + permutations at least as far apart) / (1 + permutations), so it is never 0.
    """
    import numpy as np

    both = {u for _, u in first.units} & {u for _, u in second.units}
    shared = sorted(both)
    if not shared:
        return Difference(value=None)
    a, b = (_table(m, shared, sorted({s for s, u in m.units if u in both})) for m in (first, second))
    found = _finite(_mean_of(first, a) - _mean_of(second, b))
    pooled = _finite(first.value(a.mean(0).sum(0)) - second.value(b.mean(0).sum(0)))
    if found is None or pooled is None or len(shared) < FEW:
        return Difference(value=found, n=len(shared))
    weights = _weights(len(shared), draws, seed)
    low, high = _interval(_redrawn(first, a, weights) - _redrawn(second, b, weights))
    # The labels of whole units are swapped: means over seeds first, so that both sides have one table.
    a, b = a.mean(0), b.mean(0)
    swap = np.random.default_rng(seed + 1).integers(0, 2, size=(draws, len(shared))).astype(float)
    left, right = a.sum(0) + swap @ (b - a), b.sum(0) + swap @ (a - b)
    with np.errstate(invalid="ignore"):
        apart = np.abs(first.value(left) - second.value(right))
    apart = apart[np.isfinite(apart)]
    p = (1 + int((apart >= abs(pooled) - 1e-12).sum())) / (1 + len(apart))
    return Difference(value=found, low=low, high=high, p=p, n=len(shared))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are, by Holm's step-down method (1979, Scandinavian Journal of Statistics 6).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    made, most, count = [0.0] * len(values), 0.0, len(values)
    for rank, i in enumerate(sorted(range(count), key=values.__getitem__)):
        most = max(most, min(1.0, (count - rank) * values[i]))
        made[i] = most
    return made


# ------------------------------------------------------------------ arrays


def _sorted(measure: Measure) -> tuple[list[str], list[int]]:
    return sorted({u for _, u in measure.units}), sorted({s for s, _ in measure.units})


def _table(measure: Measure, units: Sequence[str], seeds: Sequence[int]) -> Any:
    """Return the sums as an array, shape (seeds, units, length); a unit that was not asked in a seed adds nothing there."""
    import numpy as np

    length = len(next(iter(measure.units.values()), ()))
    made = np.zeros((len(seeds), len(units), length))
    rows, columns = {s: i for i, s in enumerate(seeds)}, {u: i for i, u in enumerate(units)}
    for (s, u), sums in measure.units.items():
        if u in columns:
            made[rows[s], columns[u]] += sums
    return made


@lru_cache(maxsize=4)  # the figures of a benchmark mostly share their number of units
def _weights(units: int, draws: int, seed: int) -> Any:
    """Return how often each unit is drawn, shape (draws, units)."""
    import numpy as np

    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=draws).astype(np.uint16)


def _redrawn(measure: Measure, table: Any, weights: Any) -> Any:
    """Return the figure under every draw, the mean over seeds, shape (draws,)."""
    import numpy as np

    blocks = [weights[at : at + BLOCK].astype(float) for at in range(0, len(weights), BLOCK)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.mean([np.concatenate([measure.value(block @ part) for block in blocks]) for part in table], axis=0)


def _mean_of(measure: Measure, table: Any) -> float:
    import numpy as np

    return float(np.mean([measure.value(part.sum(0)) for part in table]))


def _interval(drawn: Any) -> tuple[float | None, float | None]:
    """Return the middle 95% of the draws that gave a figure; None where fewer than nine in ten did, or all units are alike."""
    import numpy as np

    there = drawn[np.isfinite(drawn)]
    if len(there) < 0.9 * len(drawn):
        return None, None
    low, high = np.percentile(there, (2.5, 97.5))
    return (float(low), float(high)) if high - low > SAME else (None, None)


def _finite(value: Any) -> float | None:
    from math import isfinite

    return float(value) if isfinite(value) else None
