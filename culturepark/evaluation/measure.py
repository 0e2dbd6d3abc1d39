"""A figure is a function of sums over independent units: so every figure gets its interval, spread
and paired test the same way.

Intervals are those of `intervals`: from the figure without each unit, which takes with it all that
was asked of it in all seeds. Differences of two models are taken on the units that both were asked.
Of two sets of weights, their p-value is a permutation test's that swaps the models' attempts unit
by unit (Good 2005, §3.2); where one is a mean of several trainings, trainings are part of what
varies. P-values are corrected for the number of comparisons by Holm (1979).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from culturepark.evaluation import intervals
from culturepark.evaluation.intervals import SHARE, Uncertainty
from culturepark.evaluation.types import STRIDE
from culturepark.records import Record

DRAWS = 2_000
FEW = (
    6  # units below which no interval is told: its ends would say more of the few than of the many
)
Sums = Mapping[tuple[int, str], Sequence[float]]
Ends = tuple[float | None, float | None]


@dataclass(frozen=True)
class Measure:
    """A figure before it is reckoned.

    `units` maps (seed, unit) to that unit's sums, a vector of one length for all; `value` maps
    total sums, an array of shape (..., length), to the figure, shape (...), NaN where there is
    none. `better` says which way is good, "" where neither is. `headline`: it is what leaderboards
    show and compare. `what` names the units ("questions"), `note` is told beside the figure.
    `alike` names settings that two models must share for this figure to be comparable, beside those
    that all must; `tested` whether differences of it may be: not where its units are as many as one
    likes. `within` are the bounds of the figure, where it has any; `share`: it is the mean of
    units' own values from 0 to 1, weighted or not; `square` is its square, which chance may take
    below 0, where it is a root; `few` the units below which it gets no interval. `warning` says why
    the figure is not to be relied on, where it is not.
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
    within: tuple[float, float] | None = None
    share: bool = False
    square: Callable[[Any], Any] | None = None
    few: int = FEW
    warning: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a figure of: name, culture, subset."""
        return self.name, self.culture, self.subset

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The bounds of the figure; None where it has none."""
        return SHARE if self.share else self.within


class Figure(Record):
    """A reckoned figure. `value` is None where nothing gives one. `low` and `high` bound its 95%
    interval.

    `n` counts units; `seeds` how often each was asked, `spread` is the standard deviation over
    seeds (None for one). `trainings` are those of the model: with one, the interval is of these
    weights and says nothing of the recipe that made them. `reason` says why there is no interval,
    or why it has one end, `warning` why the figure itself is not to be relied on.
    """

    name: str
    culture: str = ""
    subset: str = ""
    value: float | None
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    seeds: int = 1
    trainings: int = 1
    n: int = 0
    what: str = "units"
    better: Literal["high", "low", ""] = "high"
    headline: bool = False
    note: str = ""
    reason: str = ""
    warning: str = ""


class Difference(Record):
    """How far one model's figure is from another's, on the units that both were asked: `value` =
    first − second.

    `trainings` are those of the model that has more of them. With one, interval and p-value are of
    these weights alone.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int = 0
    trainings: int = 1


def mean(sums: Any) -> Any:
    """Return totals of (sum, count), shape (..., 2), as means; NaN where nothing was counted."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]


def estimate(measure: Measure) -> Figure:
    """Return a measure's figure: the mean over seeds, its interval over units (and trainings) and
    its spread over seeds.
    """
    import numpy as np

    units, seeds = _list_units(measure)
    table = _build_table(measure, units, seeds)
    value = spread = low = high = None
    reason = ""
    if units:
        each = np.array([measure.value(table[s].sum(0)) for s in range(len(seeds))], dtype=float)
        value = _finite(each.mean())
        spread = _finite(each.std(ddof=1)) if len(seeds) > 1 else None
        if value is not None:
            (low, high), reason = _find_interval(measure, table, seeds, value)
    return Figure(
        name=measure.name,
        culture=measure.culture,
        subset=measure.subset,
        value=value,
        low=low,
        high=high,
        spread=spread,
        seeds=len(seeds),
        trainings=len(_group_trainings(seeds)) or 1,
        n=len(units),
        what=measure.what,
        better=measure.better,
        headline=measure.headline,
        note=measure.note,
        reason=reason,
        warning=measure.warning,
    )


def compare(first: Measure, second: Measure, draws: int = DRAWS, seed: int = 0) -> Difference:
    """Return how two models differ in a measure, on the units that both were asked, with interval
    and p-value.

    Where both were trained equally often, their trainings are paired in order, as those of one
    seed. Else the p-value of two sets of weights is that of `draws` permutations, two-sided: (1 +
    those at least as far apart) / (1 + draws), so it is never 0.
    """
    both = {u for _, u in first.units} & {u for _, u in second.units}
    shared = sorted(both)
    if not shared:
        return Difference(value=None)
    seeds = [sorted({s for s, u in m.units if u in both}) for m in (first, second)]
    a, b = (_build_table(m, shared, asked) for m, asked in zip((first, second), seeds, strict=True))
    found = _finite(_mean_of(first, a) - _mean_of(second, b))
    trainings = max(len(_group_trainings(asked)) for asked in seeds)
    bare = Difference(value=found, n=len(shared), trainings=trainings)
    if found is None or len(shared) < max(first.few, second.few):
        return bare
    error = _find_error(_drop_each(first, a, seeds[0]), _drop_each(second, b, seeds[1]))
    if trainings == 1:
        p = _permute_p_value(first, second, a.mean(0), b.mean(0), draws, seed)
        return bare.model_copy(update={"p": p, **_find_ends(found, error)})
    if error is None or error.none:
        return bare
    return bare.model_copy(update={"p": error.p(found), **_find_ends(found, error)})


def _find_ends(found: float, error: Uncertainty | None) -> dict[str, float]:
    """Return the ends of a difference's interval; nothing where nothing varies, or where a unit
    alone holds a part of the figure.
    """
    if error is None or error.none:
        return {}
    half = error.half()
    return {"low": found - half, "high": found + half}


def _permute_p_value(
    first: Measure, second: Measure, a: Any, b: Any, draws: int, seed: int
) -> float | None:
    """Return the p-value of swapping the labels of whole units; their sums are means over seeds, so
    that both sides have one table.
    """
    import numpy as np

    observed = _finite(first.value(a.sum(0)) - second.value(b.sum(0)))
    if observed is None:
        return None
    swap = np.random.default_rng(seed + 1).integers(0, 2, size=(draws, len(a))).astype(float)
    left, right = a.sum(0) + swap @ (b - a), b.sum(0) + swap @ (a - b)
    with np.errstate(invalid="ignore"):
        apart = np.abs(first.value(left) - second.value(right))
    apart = apart[np.isfinite(apart)]
    return (1 + int((apart >= abs(observed) - 1e-12).sum())) / (1 + len(apart))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are, by Holm's step-down method (1979,
    Scandinavian Journal of Statistics 6).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    made, most, count = [0.0] * len(values), 0.0, len(values)
    for rank, i in enumerate(sorted(range(count), key=values.__getitem__)):
        most = max(most, min(1.0, (count - rank) * values[i]))
        made[i] = most
    return made


# --------------------------------------------------------------- intervals


@dataclass(frozen=True)
class LeftOut:
    """A figure of each training, shape (trainings,), and of each without each unit, shape
    (trainings, units).
    """

    whole: Any
    without: Any


def _drop_each(
    measure: Measure, table: Any, seeds: Sequence[int], value: Callable[[Any], Any] | None = None
) -> LeftOut:
    """Return a measure's figure for each training, the mean over its seeds, whole and without each
    unit.
    """
    import numpy as np

    value = value or measure.value
    groups = _group_trainings(seeds).values()
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [(value(part.sum(0)), value(part.sum(0) - part)) for part in table]
    whole, without = (
        np.array([np.mean([parts[s][i] for s in group], axis=0) for group in groups])
        for i in (0, 1)
    )
    return LeftOut(whole, without)


def _group_trainings(seeds: Sequence[int]) -> dict[int, list[int]]:
    """Return the places of the seeds of each training: a seed of attempts is training × STRIDE +
    seed.
    """
    made: dict[int, list[int]] = {}
    for place, seed in enumerate(seeds):
        made.setdefault(seed // STRIDE, []).append(place)
    return made


def _find_error(first: LeftOut, second: LeftOut | None = None) -> Uncertainty | None:
    """Return the error of a figure, or of the difference of two; None where it is none without some
    unit.
    """
    import numpy as np

    units, parts = first.without.mean(0), intervals.spread_between_trainings(first.whole)
    if second is not None:
        units = units - second.without.mean(0)
        alike = len(first.whole) == len(second.whole)
        parts = (
            intervals.spread_between_trainings(first.whole - second.whole)
            if alike
            else intervals.join_spreads(parts, intervals.spread_between_trainings(second.whole))
        )
    if not np.isfinite(units).all():
        return None
    return Uncertainty(intervals.jackknife(units), len(units) - 1, *parts)


def _find_interval(
    measure: Measure, table: Any, seeds: Sequence[int], value: float
) -> tuple[Ends, str]:
    """Return the ends of a figure's interval, None where there is none, and why, or why it has one
    end.
    """
    count = table.shape[1]
    if count < measure.few:
        many = "one unit" if count == 1 else f"{count} units, fewer than {measure.few}"
        return (None, None), f"{many}: no interval"
    if (exact := _find_exact_interval(measure, table)) is not None:
        at = (
            f"all {count} units are alike: one end is that of the rule of three"
            if exact[0] == 0 or exact[1] == 1
            else ""
        )
        return exact, at
    if measure.square is not None:
        return _find_root_interval(measure, table, seeds, value)
    each, bounds = _drop_each(measure, table, seeds), measure.bounds
    curved = bounds is not None and isfinite(bounds[1])
    if bounds is not None and curved:
        each = LeftOut(
            intervals.logit(each.whole, bounds, count),
            intervals.logit(each.without, bounds, count - 1),
        )
    error = _find_error(each)
    if error is None or error.none:
        return (None, None), LONE if error is None else ALIKE
    if bounds is None or not curved:
        low = value - error.half()
        return (low if bounds is None else max(low, bounds[0]), value + error.half()), ""
    middle = float(intervals.logit(value, bounds, count))
    low, high = (intervals.unlogit(middle + side * error.half(), bounds) for side in (-1, 1))
    return (min(low, value), max(high, value)), ""


LONE = "without one of its units there is no figure: no interval"
ALIKE = "all units are alike: no interval"


def _find_root_interval(
    measure: Measure, table: Any, seeds: Sequence[int], value: float
) -> tuple[Ends, str]:
    """Return the interval of a root: that of its square, which is smooth where the root is not."""
    each = _drop_each(measure, table, seeds, measure.square)
    error = _find_error(each)
    if error is None or error.none:
        return (None, None), LONE if error is None else ALIKE
    middle = float(each.whole.mean())
    low, high = (max(0.0, middle + side * error.half()) ** 0.5 for side in (-1, 1))
    return (min(low, value), max(high, value)), ""


def _find_exact_interval(measure: Measure, table: Any) -> Ends | None:
    """Return the exact interval of a share of units that are each wholly right or wrong, and count
    the same; None for anything else.

    Where all of them are right, or all wrong, it is that even of units that count differently:
    nothing varies, and yet it might.
    """
    if not measure.share:
        return None
    own = measure.value(table.sum(0))
    right, many = int((own == 1).sum()), len(own)
    if right == many or (own == 0).all():
        return intervals.proportion(right, many)
    once = measure.value is mean and len(table) == 1 and len(set(table[0, :, 1])) == 1
    return intervals.proportion(right, many) if once and ((own == 0) | (own == 1)).all() else None


# ------------------------------------------------------------------ arrays


def _list_units(measure: Measure) -> tuple[list[str], list[int]]:
    return sorted({u for _, u in measure.units}), sorted({s for s, _ in measure.units})


def _build_table(measure: Measure, units: Sequence[str], seeds: Sequence[int]) -> Any:
    """Return the sums as an array, shape (seeds, units, length); a unit that was not asked in a
    seed adds nothing there.
    """
    import numpy as np

    length = len(next(iter(measure.units.values()), ()))
    made = np.zeros((len(seeds), len(units), length))
    rows, columns = {s: i for i, s in enumerate(seeds)}, {u: i for i, u in enumerate(units)}
    for (s, u), sums in measure.units.items():
        if u in columns:
            made[rows[s], columns[u]] += sums
    return made


def _mean_of(measure: Measure, table: Any) -> float:
    import numpy as np

    return float(np.mean([measure.value(part.sum(0)) for part in table]))


def _finite(value: Any) -> float | None:
    return float(value) if isfinite(value) else None
