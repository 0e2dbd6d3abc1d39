"""Intervals and tests that hold for few units: the jackknife with Student's t, exact ones of
proportions, and trainings as a level of their own.

A figure that is a function of sums over units is reckoned once more without each unit. What these
values vary by is its standard error (jackknife: Efron & Stein 1981, Annals of Statistics 9), and
Student's t with units − 1 degrees of freedom allows for how little few units tell of it. Where a
figure has bounds, that happens on the logit scale, so the interval stays within them.

Models that were trained several times vary by training too. Both variances are added, with the
degrees of freedom of Satterthwaite (1946, Biometrics Bulletin 2); and since few trainings can by
chance agree, an interval is never narrower than trainings alone make it. `python -m benchmarks
coverage` prints how often these intervals hold the truth and how often equal recipes are told
apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log
from typing import Any

LEVEL = 0.95
TINY = 1e-12  # a standard error below it is rounding: all units are alike
SHARE = (0.0, 1.0)
POSITIVE = (0.0, inf)


@dataclass(frozen=True)
class Uncertainty:
    """The variance of an estimate: that of its `units`, and of the trainings it is a mean of, each
    with its degrees of freedom.
    """

    units: float
    freedom: float
    trainings: float = 0.0
    repeats: float = 0.0  # degrees of freedom of the trainings; 0 where there is one

    @property
    def none(self) -> bool:
        """Whether nothing varies, so that nothing is known of how much it would."""
        return self.units + self.trainings <= TINY**2

    def half(self) -> float:
        """Return half the width of the 95% interval."""
        from scipy.stats import t

        at = 0.5 + LEVEL / 2
        widths = [t.ppf(at, df) * variance**0.5 for variance, df in self._levels()]
        return float(max(widths))

    def p(self, distance: float) -> float:
        """Return the two-sided p-value of an estimate that is so far from what it is tested
        against.
        """
        from scipy.stats import t

        found = [
            2 * t.sf(abs(distance) / variance**0.5, df) if variance else float(not distance)
            for variance, df in self._levels()
        ]
        return float(max(found))

    def _levels(self) -> list[tuple[float, float]]:
        """Return (variance, degrees of freedom) of units and trainings together and, where there
        are several, of trainings alone.
        """
        whole = self.units + self.trainings
        if not self.repeats:
            return [(whole, self.freedom)]
        parts = self.units**2 / self.freedom + self.trainings**2 / self.repeats
        both = whole**2 / parts if parts > TINY**4 else self.repeats
        return [(whole, both), (self.trainings, self.repeats)]


def jackknife(without: Any) -> float:
    """Return the variance of an estimate from its values without each unit, shape (units,)."""
    import numpy as np

    n = len(without)
    return float((n - 1) / n * np.square(without - without.mean()).sum())


def spread_between_trainings(figures: Any) -> tuple[float, float]:
    """Return the variance of a mean over trainings from the figure of each, shape (trainings,), and
    its degrees of freedom; 0 of one.
    """
    n = len(figures)
    return (float(figures.var(ddof=1) / n), n - 1.0) if n > 1 else (0.0, 0.0)


def join_spreads(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Return variance and degrees of freedom of the difference of two independent means (Welch
    1947, Biometrika 34).
    """
    (a, m), (b, n) = first, second
    if not m or not n or not a + b:
        return a + b, m + n
    return a + b, (a + b) ** 2 / (a**2 / m + b**2 / n)


def logit(value: Any, bounds: tuple[float, float], count: int) -> Any:
    """Return a figure within bounds on the logit scale, half a unit nearer to their middle, so that
    a figure at a bound is there too.
    """
    import numpy as np

    low, high = bounds
    share = ((value - low) / (high - low) * count + 0.5) / (count + 1)
    return np.log(share / (1 - share))


def unlogit(value: float, bounds: tuple[float, float]) -> float:
    """Return what lies at a place of the logit scale.

    >>> round(unlogit(float(logit(0.25, (0, 1), 10**9)), (0, 1)), 6)
    0.25
    """
    from math import exp

    low, high = bounds
    return low + (high - low) / (1 + exp(-value)) if value > -log(1e300) else low


def proportion(right: int, count: int) -> tuple[float, float]:
    """Return the exact 95% interval of a proportion (Clopper & Pearson 1934, Biometrika 26); of
    none or all its far end is α/2's root.

    >>> [round(end, 3) for end in proportion(6, 6)]
    [0.541, 1.0]
    """
    from scipy.stats import beta

    tail = (1 - LEVEL) / 2
    low = 0.0 if right == 0 else float(beta.ppf(tail, right, count - right + 1))
    high = 1.0 if right == count else float(beta.ppf(1 - tail, right + 1, count - right))
    return low, high
