"""The worst case over attacks: how much the best of them gets out of a defence, with an interval.

The attack that did best did so partly by luck, so its own interval is too high. With A attacks the worst case's runs
from the highest lower limit at .025 / A to the highest upper limit at .025: all A lower limits at once are below what
they are limits of with probability .975 (Bonferroni), and the upper limit of whichever attack is truly the worst is
above it with .975. So 95 % or more, whatever the attacks' dependence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from leakbench.errors import UsageError
from leakbench.metrics.estimate import CONFIDENCE, Estimate

Interval = Callable[[float], Estimate]
"""an attack's value with the two-sided interval of the confidence that is asked for, each side missing half of the rest
(the intervals of :mod:`leakbench.metrics.intervals`)"""


@dataclass(frozen=True)
class WorstCase:
    """The highest value of several attacks."""

    attack: str
    """whose value is the highest, the first of several"""
    estimate: Estimate
    """its value and n, the 95 % interval of the worst case; NaN where an attack has no interval"""


def worst_case(attacks: Mapping[str, Interval]) -> WorstCase:
    """The worst case over ``attacks``, name -> interval, of which higher values leak more.

    With one attack it is that attack's own 95 % interval. Simulated with 11 equally good attacks (1000 draws each,
    tests/metrics/test_worst_case.py), it holds the true index in 95.7 to 99.9 % of draws, the own interval of the best
    attack in 79 to 99 %. No interval (NaN) where an attack has none. Raises UsageError without attacks.
    """
    if not attacks:
        raise UsageError("a worst case needs at least one attack")
    single = {name: interval(CONFIDENCE) for name, interval in attacks.items()}
    joint = [interval(1 - (1 - CONFIDENCE) / len(attacks)) for interval in attacks.values()]
    worst = max(single, key=lambda name: single[name].value)
    limits = [one.low for one in joint], [one.high for one in single.values()]
    # an attack without an interval may be the worst however low its value is
    known = not any(math.isnan(limit) for side in limits for limit in side)
    low, high = (max(side) if known else math.nan for side in limits)
    return WorstCase(worst, Estimate(single[worst].value, low, high, single[worst].n))
