"""The Mann-Whitney test, exact where many scores are one number."""

from __future__ import annotations

from typing import Literal

import numpy as np

_MOST = 3e8
"""additions of an exact test: a second or two"""
_COARSEST = 0.02
"""of all ranks, those that an exact test may take for one"""


def rank_sum_p(one: np.ndarray, other: np.ndarray, alternative: Literal["greater", "less"]) -> float:
    """P-value of ``one`` [m] being higher, or lower, than ``other`` [n], were both of one kind; one-sided.

    Scipy's normal approximation, but where one number is the score of more than a quarter of all: the rank sum may hang
    on the few that differ, and with few members its tails are far heavier than a normal's (1 of 16 members above 1000
    equal scores has p = .016, the approximation 1e-15). There it is exact: the share of all choices of m images among
    the m + n whose rank sum is as high. Where counting would take long, near ranks are taken for one, which leaves it
    exact; where that would be more than a fiftieth of all, so many scores differ that the approximation holds.
    """
    from scipy.stats import mannwhitneyu, rankdata  # scipy.stats takes half a second to load

    if len(one) > len(other):  # it counts choices of the smaller side
        return rank_sum_p(other, one, "less" if alternative == "greater" else "greater")
    everything = np.concatenate([one, other])
    _, places, counts = np.unique(everything, return_inverse=True, return_counts=True)
    commonest = int(counts.argmax())
    if 4 * counts[commonest] > len(everything):
        ranks = rankdata(everything)
        apart = places != commonest
        above = (ranks - ranks[~apart][0]) * (1 if alternative == "greater" else -1)
        additions = min(len(one), apart.sum()) * apart.sum() * 2 * np.abs(above).sum()
        # ranks are multiples of a half
        width = max(0.5, additions / _MOST / 2)
        if width <= max(0.5, _COARSEST * len(everything)):
            steps = np.rint(above / width).astype(np.int64)
            return _share(steps[apart], int(counts[commonest]), len(one), int(steps[: len(one)].sum()))
    return float(mannwhitneyu(one, other, alternative=alternative).pvalue)


def _share(apart: np.ndarray, equal: int, drawn: int, least: int) -> float:
    """Share of the draws without replacement from ``apart`` and so many zeros whose sum is ``least`` or more."""
    from scipy.special import gammaln

    def log_choices(n: int, k: np.ndarray | int) -> np.ndarray:
        return np.asarray(gammaln(n + 1) - gammaln(np.asarray(k) + 1) - gammaln(n - np.asarray(k) + 1))

    zero = -int(apart[apart < 0].sum())
    most = min(drawn, len(apart))
    # how many choices of k images have which sum, from the lowest to the highest possible one
    ways = np.zeros((most + 1, zero + int(apart[apart > 0].sum()) + 1))
    ways[0, zero] = 1
    low = high = zero  # sums so far
    for done, step in enumerate(apart[np.abs(apart).argsort()].tolist()):
        top = min(done + 1, most)
        ways[1 : top + 1, low + step : high + step + 1] += ways[:top, low : high + 1].copy()
        low, high = low + min(step, 0), high + max(step, 0)
    number = np.arange(max(0, drawn - equal), most + 1)
    weights = np.exp(log_choices(equal, drawn - number) - log_choices(equal + len(apart), drawn))
    return float(min(1.0, weights @ ways[number, max(0, least + zero) :].sum(axis=1)))
