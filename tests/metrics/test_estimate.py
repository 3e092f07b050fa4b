"""Intervals: against the textbook formulas, and never of zero width where something is uncertain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtrit

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import Estimate, exact, mean, proportion

Z = 1.959963984540054


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson 1927, written out."""
    p = successes / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return centre - half, centre + half


@pytest.mark.slow
@given(st.data())
def test_proportion_is_wilsons_interval(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 5000))
    k = data.draw(st.integers(0, n))
    estimate = proportion(k, n)
    low, high = wilson(k, n)
    assert (estimate.value, estimate.n) == (k / n, n)
    # 1e-12: both are a handful of float64 operations on numbers of size one
    assert estimate.low == pytest.approx(max(low, 0), abs=1e-12)
    assert estimate.high == pytest.approx(min(high, 1), abs=1e-12)


@pytest.mark.slow
@given(st.integers(1, 10**6))
def test_none_and_all_have_an_interval_within_the_unit(n: int) -> None:
    none, every = proportion(0, n), proportion(n, n)
    assert none.low == 0 < none.high <= 1
    assert 0 <= every.low < 1 == every.high


def test_known_values() -> None:
    # Wilson 4/8 and 10/10, from published tables
    assert (round(proportion(4, 8).low, 3), round(proportion(4, 8).high, 3)) == (0.215, 0.785)
    assert round(proportion(10, 10).low, 2) == 0.72


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5), (1, -3)])
def test_impossible_proportions_are_refused(successes: int, n: int) -> None:
    with pytest.raises(UsageError):
        proportion(successes, n)


# rounded so that sums of squares of tiny differences don't vanish below float64's resolution
numbers = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


@pytest.mark.slow
@given(st.lists(numbers, min_size=2, max_size=30))
def test_mean_is_students_interval(values: list[float]) -> None:
    estimate = mean(values)
    assert estimate.value == pytest.approx(float(np.mean(values)), abs=1e-9)
    assert estimate.n == len(values)
    if len(set(values)) == 1:
        assert math.isnan(estimate.low) and math.isnan(estimate.high)
        return
    half = float(stdtrit(len(values) - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    # 1e-8 relative to values up to 1e3: the variance loses digits to cancellation
    assert estimate.high - estimate.value == pytest.approx(half, rel=1e-6, abs=1e-8)
    assert estimate.value - estimate.low == pytest.approx(half, rel=1e-6, abs=1e-8)


@pytest.mark.slow
def test_mean_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(3.0, 2.0, size=(2000, 5))
    hits = sum(e.low <= 3.0 <= e.high for e in map(mean, samples))
    # four standard deviations of a binomial(2000, .95) around its mean: a percentile bootstrap has about .84
    assert abs(hits - 1900) < 4 * math.sqrt(2000 * 0.95 * 0.05)


def test_one_value_has_no_interval() -> None:
    estimate = mean([0.25])
    assert (estimate.value, estimate.n) == (0.25, 1)
    assert math.isnan(estimate.low) and math.isnan(estimate.high)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_never_silent(bad: float) -> None:
    with pytest.raises(NumericalError):
        mean([1.0, bad])
    with pytest.raises(NumericalError):
        exact(bad)


def test_no_values_are_refused() -> None:
    with pytest.raises(UsageError):
        mean([])


def test_exact_has_no_interval() -> None:
    estimate = exact(7, n=3)
    assert isinstance(estimate, Estimate)
    assert (estimate.value, estimate.n) == (7.0, 3)
    assert math.isnan(estimate.low) and math.isnan(estimate.high)


def test_an_interval_s_ends_are_in_order() -> None:
    with pytest.raises(UsageError, match=r"low end of an interval, 0\.9, is above its high end, 0\.1"):
        Estimate(0.5, 0.9, 0.1, 10)
