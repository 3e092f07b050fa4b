"""A measured value with its uncertainty: Wilson intervals for proportions, t intervals for means."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from leakbench.errors import NumericalError, UsageError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval and the number of observations behind it.

    ``low`` and ``high`` are NaN where no interval is defined (a count, a wall time): never made up.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 1

    def __post_init__(self) -> None:
        """UsageError where the ends of the interval are the wrong way round."""
        if self.low > self.high:
            raise UsageError(f"the low end of an interval, {self.low:g}, is above its high end, {self.high:g}")


def exact(value: float, n: int = 1) -> Estimate:
    """A value that was counted or computed, not sampled: no interval. NumericalError for NaN or infinity."""
    if not math.isfinite(value):
        raise NumericalError(f"a metric must be a finite number, got {value}")
    return Estimate(float(value), n=n)


def proportion(successes: int, n: int) -> Estimate:
    """``successes`` out of ``n`` with Wilson's score interval (Wilson 1927), in [0, 1].

    Unlike the normal approximation it has a non-zero width at 0/n and n/n. Raises UsageError unless
    0 <= successes <= n and n >= 1.
    """
    return _proportion(successes, n, "wilson")


def clopper_pearson(successes: int, n: int) -> Estimate:
    """``successes`` out of ``n`` with the exact interval (Clopper & Pearson 1934), which is never too narrow.

    Raises as :func:`proportion`.
    """
    return _proportion(successes, n, "exact")


def _proportion(successes: int, n: int, method: Literal["wilson", "exact"]) -> Estimate:
    if n < 1:
        raise UsageError(f"a proportion needs at least one observation, got n = {n}")
    if not 0 <= successes <= n:
        raise UsageError(f"successes must be within 0..{n}, got {successes}")
    from scipy.stats import binomtest  # takes half as long to load as torch

    interval = binomtest(successes, n).proportion_ci(CONFIDENCE, method=method)
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


def mean(values: Iterable[float]) -> Estimate:
    """The mean of independent values (classes, seeds) with Student's t interval.

    t and not a percentile bootstrap: with the three to ten seeds or classes of a grid a bootstrap is far too
    narrow (its spread is short by sqrt((n - 1) / n) and has normal, not t quantiles), and t needs no random
    numbers, so the same values always give the same interval. It may reach outside a bounded metric's range.

    No interval (NaN) for a single value, nor for identical values: they don't tell how far the next one may
    lie. Raises UsageError for no values, NumericalError for NaN or infinity.
    """
    array = np.asarray(list(values), dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise UsageError(f"a mean needs a flat list of at least one value, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise NumericalError("a mean needs finite values, got NaN or infinity")
    n = len(array)
    if (array == array[0]).all():
        return Estimate(float(array[0]), n=n)
    centre = float(array.mean())
    from scipy.stats import sem, t  # takes half as long to load as torch

    low, high = t.interval(CONFIDENCE, n - 1, loc=centre, scale=sem(array))
    return Estimate(centre, float(low), float(high), n)
