"""A ranking of defences that tells what the scores can't decide: pairs, ties and an interval of ranks for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leakbench.errors import UsageError
from leakbench.metrics.estimate import CONFIDENCE
from leakbench.metrics.intervals import holm, paired_difference


@dataclass(frozen=True, eq=False)
class Ranking:
    """D defences, the one that leaks least first."""

    p: NDArray[np.float64]
    """[D, D]: of no difference between two of them, two-sided, adjusted for the number of pairs (Holm 1979); NaN where
    nothing tells, and on the diagonal"""
    ranks: tuple[tuple[int, int], ...]
    """of each defence the best and the worst rank that it may have, 1 to D"""
    ties: tuple[tuple[int, int], ...]
    """pairs whose scores are the same for each seed and class"""


def ranking(scores: ArrayLike) -> Ranking:
    """Rank D defences by scores [D, S seeds, C classes] of the same seeds and classes; the lowest mean leaks least.

    Each pair is compared by :func:`leakbench.metrics.intervals.paired_difference`, the other defences as peers:
    Student's t with variance V_classes + max(V_seeds, 2 m / S), m the mean square of seed x defence over all of them.
    A defence's ranks are 1 + the number of those significantly better to D - the number of those significantly worse,
    at .05 after Holm. Simulated with 6 equal defences, 3 seeds, 10 and 40 classes (tests/metrics/test_ranking.py), one
    of them is told from another in 0 to 2.6 % of draws. One seed says nothing of another network: then nothing is
    significant, and each defence may have any rank.

    Raises UsageError for other shapes and fewer than 2 defences, NumericalError for NaN or infinity.
    """
    x = np.asarray(scores, dtype=np.float64)
    if x.ndim != 3 or len(x) < 2:
        raise UsageError(f"a ranking needs scores [defences, seeds, classes] of at least 2 defences, got {x.shape}")
    pairs = list(combinations(range(len(x)), 2))
    differences = [paired_difference(x[i], x[j], list(np.delete(x, (i, j), axis=0))) for i, j in pairs]
    adjusted = np.full((len(x), len(x)), math.nan)
    worse = np.zeros((len(x), len(x)), dtype=bool)
    p_values = [one.p if x.shape[1] > 1 else math.nan for one in differences]
    for (i, j), p, difference in zip(pairs, holm(p_values), differences, strict=True):
        adjusted[i, j] = adjusted[j, i] = p
        if p < 1 - CONFIDENCE:
            worse[(i, j) if difference.value > 0 else (j, i)] = True
    better, behind = worse.sum(1).tolist(), worse.sum(0).tolist()
    return Ranking(
        p=adjusted,
        ranks=tuple((1 + above, len(x) - below) for above, below in zip(better, behind, strict=True)),
        ties=tuple((i, j) for i, j in pairs if (x[i] == x[j]).all()),
    )
