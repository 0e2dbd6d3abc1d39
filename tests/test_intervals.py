"""Intervals of few units and recipes of few trainings, held against computations written apart; and
what is told where there is none.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from culturepark.evaluation import intervals
from culturepark.evaluation.kinds import moderation, reward
from culturepark.evaluation.measure import Measure, compare, estimate, mean
from culturepark.evaluation.types import STRIDE


def measure(answers, value=mean, **how):
    """A figure of answers, shape (trainings, units), each unit worth one."""
    rows = ((r, i, v) for r, each in enumerate(np.atleast_2d(answers)) for i, v in enumerate(each))
    return Measure(
        "m", {(r * STRIDE, f"u{i:03}"): (float(v), 1.0) for r, i, v in rows}, value, **how
    )


def drawn(*shape, seed=0, **how):
    return np.random.default_rng(seed).normal(how.get("at", 0.6), how.get("by", 0.1), shape)


# ------------------------------------------------------------- one training


@pytest.mark.parametrize("n", [6, 9, 40])
def test_the_interval_of_a_mean_is_students(n):
    values = drawn(n)
    found = estimate(measure(values))
    assert (found.low, found.high) == pytest.approx(
        stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    )


def test_the_interval_of_a_ratio_is_that_of_the_jackknife_written_out():
    rng = np.random.default_rng(1)
    above, below = rng.integers(0, 9, 11) / 3.0, rng.integers(1, 5, 11) * 1.0
    units = {(0, f"u{i:02}"): (a, b) for i, (a, b) in enumerate(zip(above, below, strict=True))}
    without = [(above.sum() - a) / (below.sum() - b) for a, b in zip(above, below, strict=True)]
    error = math.sqrt(10 / 11 * sum((w - np.mean(without)) ** 2 for w in without))
    found, half = estimate(Measure("ratio", units, mean)), stats.t.ppf(0.975, 10) * error
    assert (found.value, found.low, found.high) == pytest.approx(
        (r := above.sum() / below.sum(), r - half, r + half)
    )


@pytest.mark.parametrize("right", [0, 1, 4, 7])
def test_the_interval_of_units_right_or_wrong_is_exact(right):
    found = estimate(measure([1.0] * right + [0.0] * (7 - right), share=True))
    exact = stats.binomtest(right, 7).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert ("rule of three" in found.reason) == (right in (0, 7))


def test_a_share_keeps_within_its_bounds_by_way_of_the_logit():
    values = np.array([1.0, 0.8, 1.0, 1.0, 0.9, 1.0, 0.6])
    found = estimate(measure(values, share=True))

    def on(p, n):
        p = (n * p + 0.5) / (n + 1)
        return math.log(p / (1 - p))

    without = [on(np.delete(values, i).mean(), 6) for i in range(7)]
    half = stats.t.ppf(0.975, 6) * math.sqrt(
        6 / 7 * sum((w - np.mean(without)) ** 2 for w in without)
    )
    ends = [1 / (1 + math.exp(-on(values.mean(), 7) - side * half)) for side in (-1, 1)]
    assert (found.low, found.high) == pytest.approx(ends) and found.high < 1


def test_a_root_has_the_interval_of_its_square_which_may_begin_at_zero():
    values = drawn(12, at=0.5, by=3)
    found = estimate(measure(values, lambda s: np.sqrt(np.maximum(mean(s), 0)), square=mean))
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert low < 0 and (found.low, found.high) == pytest.approx((0, math.sqrt(high)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.5], "one unit: no interval"),
        ([0.4, 0.6], "2 units, fewer than 6: no interval"),
        ([0.5] * 9, "all units are alike: no interval"),
    ],
)
def test_where_there_is_no_interval_it_says_why(values, said):
    found = estimate(measure(values, share=True))
    assert (found.value, found.low, found.high, found.reason) == (
        pytest.approx(np.mean(values)),
        None,
        None,
        said,
    )


def test_a_figure_that_hangs_on_one_unit_has_no_interval():
    lone = Measure("m", {(0, f"u{i}"): (float(i == 0), float(i == 0)) for i in range(8)}, mean)
    assert estimate(lone).reason == "without one of its units there is no figure: no interval"


def test_a_country_with_one_user_never_has_an_interval_of_no_width():
    rows = [(0, "only", "A", True), *((0, f"u{n}", "B", n % 3 > 0) for n in range(9))]
    alone = estimate(reward.accuracy(rows[:1], ("A",), culture="A"))
    assert (alone.value, alone.low, alone.reason) == (1.0, None, "one unit: no interval")
    both = estimate(reward.accuracy(rows, ("A", "B")))
    assert both.high - both.low > 0.1


def test_macro_f1_of_a_handful_of_texts_has_no_interval():
    sums = [
        (1.0, 1.0, 1.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 1.0, 0.0, 1.0, 0.0),
        (0.0, 0.0, 0.0, 1.0, 1.0, 1.0),
    ]

    def of(n):
        units = {(0, f"u{i}"): sums[i % 3] for i in range(n)}
        return estimate(
            Measure(
                "f1",
                units,
                lambda s: moderation.f1(s.reshape(*s.shape[:-1], 2, 3)),
                few=moderation.FEW_TEXTS,
            )
        )

    assert of(9).reason == "9 units, fewer than 12: no interval" and of(12).low is not None


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=6, max_size=30))
def test_an_interval_of_shares_holds_its_figure_and_has_a_width(values):
    found = estimate(measure(values, share=True))
    if found.low is None:
        assert found.reason
    else:
        assert (
            0 <= found.low <= found.value + 1e-9
            and found.value - 1e-9 <= found.high <= 1
            and found.high > found.low
        )


@pytest.mark.parametrize("n", [6, 12])
def test_intervals_of_few_units_hold_the_truth_nineteen_times_in_twenty(n):
    rng = np.random.default_rng(n)
    values = rng.binomial(5, rng.beta(4, 2, (600, n))) / 5
    found = [estimate(measure(v, share=True)) for v in values]
    assert 0.93 <= np.mean([f.low <= 2 / 3 <= f.high for f in found]) <= 0.975


# ---------------------------------------------------------------- trainings


def written_out(first, second):
    """The difference of two recipes with interval and p-value, from the formulas of the module's
    first lines.
    """
    d = first - second
    trainings, n = d.shape
    units, between = d.mean(0).var(ddof=1) / n, d.mean(1).var(ddof=1) / trainings
    df = (units + between) ** 2 / (units**2 / (n - 1) + between**2 / (trainings - 1))
    whole, alone = math.sqrt(units + between), math.sqrt(between)
    half = max(stats.t.ppf(0.975, df) * whole, stats.t.ppf(0.975, trainings - 1) * alone)
    p = max(
        2 * stats.t.sf(abs(d.mean()) / whole, df),
        2 * stats.t.sf(abs(d.mean()) / alone, trainings - 1),
    )
    return d.mean(), d.mean() - half, d.mean() + half, p


@pytest.mark.parametrize("trainings", [2, 3, 7])
def test_recipes_are_compared_over_trainings_paired_in_order(trainings):
    first, second = (
        drawn(trainings, 20, seed=s) + drawn(trainings, 1, seed=9 + s, at=0, by=0.03)
        for s in (1, 2)
    )
    found = compare(measure(first), measure(second))
    assert (found.value, found.low, found.high, found.p) == pytest.approx(
        written_out(first, second)
    )
    assert found.trainings == trainings


def test_recipes_trained_unequally_often_are_compared_by_welchs_test():
    first, second = drawn(5, 30, seed=1), drawn(2, 30, seed=2)
    found = compare(measure(first), measure(second))
    units = (first.mean(0) - second.mean(0)).var(ddof=1) / 30
    a, b = (x.mean(1).var(ddof=1) / len(x) for x in (first, second))
    repeats = (a + b) ** 2 / (a**2 / 4 + b**2)
    whole = units + a + b
    df = whole**2 / (units**2 / 29 + (a + b) ** 2 / repeats)
    t = abs(found.value)
    assert found.p == pytest.approx(
        max(2 * stats.t.sf(t / whole**0.5, df), 2 * stats.t.sf(t / (a + b) ** 0.5, repeats))
    )


def test_two_sets_of_weights_are_compared_over_units_alone():
    first, second = drawn(1, 15, seed=1), drawn(1, 15, seed=2, at=0.5)
    found = compare(measure(first), measure(second), draws=20_000)
    ends = stats.ttest_rel(first[0], second[0]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(ends)) and found.trainings == 1
    permuted = stats.permutation_test(
        (first[0], second[0]),
        lambda x, y: x.mean() - y.mean(),
        permutation_type="samples",
        n_resamples=20_000,
        rng=1,
    )
    assert found.p == pytest.approx(permuted.pvalue, abs=0.01)


def test_a_recipes_interval_is_of_its_trainings_too():
    same = drawn(1, 20) + np.zeros((3, 1))
    apart = same + np.array([[-0.1], [0.0], [0.1]])
    one, several, alike = (estimate(measure(x)) for x in (same[:1], apart, same))
    assert several.high - several.low > 2 * (one.high - one.low)
    assert (one.trainings, several.trainings, alike.trainings) == (1, 3, 3)
    assert (alike.low, alike.high) == pytest.approx((one.low, one.high))


def test_seeds_of_one_training_are_no_trainings():
    units = {(s, f"u{i}"): (v, 1.0) for s in range(3) for i, v in enumerate(drawn(8, seed=s))}
    assert (
        estimate(Measure("m", units, mean)).seeds,
        estimate(Measure("m", units, mean)).trainings,
    ) == (3, 1)


@pytest.mark.parametrize("trainings", [2, 3, 5])
def test_two_equal_recipes_are_told_apart_no_more_often_than_one_time_in_twenty(trainings):
    rng, told = np.random.default_rng(trainings), []
    for _ in range(400):
        by_training, by_question = rng.normal(0, 0.05, (2, trainings, 1)), rng.normal(0, 0.1, 30)
        first, second = 0.6 + by_question + by_training + rng.normal(0, 0.05, (2, trainings, 30))
        told.append(compare(measure(first), measure(second)).p < 0.05)
    assert np.mean(told) <= 0.07


def test_nothing_that_varies_gives_no_interval_and_no_p_value():
    same = np.ones((3, 8)) * 0.5
    found = compare(measure(same), measure(same))
    assert (found.value, found.low, found.p) == (0, None, None)
    assert intervals.Uncertainty(0.0, 5, 0.0, 2).none
