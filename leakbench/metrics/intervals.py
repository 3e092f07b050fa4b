"""Intervals for scores that cluster by class and by network: means, leakage indices, differences of defences.

Scores [S, C] are of S independently trained networks (seeds) and C classes, both taken as a sample of others of
their kind: an interval says where the mean over other networks and other classes would lie. With one seed it says
nothing about another network, with one class nothing about another class. The variance of the mean is

    V = V_classes + V_seeds,  V_classes = var(means of the C classes) / C,  V_seeds = var(means of the S seeds) / S,

and its distribution Student's t with Satterthwaite's (1946) V^2 / (V_classes^2 / (C-1) + V_seeds^2 / (S-1))
degrees of freedom. What is a cell's own (its images, the interaction) counts in both terms, so the intervals are
up to sqrt(2) too wide where neither classes nor seeds differ, and never too narrow on its account.

In closed form and not by the pigeonhole bootstrap (Owen 2007): no resample of 3 seeds has a mean beyond that of
the outermost seed, so whatever percentile is read off, two times in eight the truth lies outside where seeds are
what differs, and a cell's own noise counts three times. Simulated at 1, 3, 5 seeds, 10 and 100 classes, 10 images
a cell, with effects of classes (standard deviation up to 2 logits), of seeds (up to 1) and of cells, the 95 %
interval of a proportion (``images`` given) holds the truth 93-99 % of the time at rate .5 and 88-99.6 % at .02 and
.98, the bootstrap's 82-100 % and 71-100 %. Without random numbers, no order of seeds or classes matters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import CONFIDENCE, Estimate

Array = NDArray[np.float64]

UPPER = (1 + CONFIDENCE) / 2
Z = 1.959963984540054
"""the normal distribution's quantile of UPPER; written out, as SciPy takes a third as long to load as torch"""


@dataclass(frozen=True)
class Difference:
    """How much higher one defence's scores are than another's on the same networks' seeds and classes."""

    value: float
    low: float
    """of the 95 % interval, NaN as ``high`` where there is none"""
    high: float
    p: float
    """two-sided, of no difference: below .05 exactly where the interval excludes 0; NaN where nothing tells"""
    n: int
    """scores of each"""


def clustered_mean(scores: ArrayLike, images: int | None = None, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of scores [S, C] over seeds and classes with an interval of ``confidence``; n = S * C.

    Where each score is a proportion of ``images`` images, pass it: the interval is then Wilson's at the effective
    number of images, mean (1 - mean) / V, and Student's t for the normal quantile (Korn & Graubard 1998), at least
    as wide as Wilson's of all images as if independent. It stays in [0, 1], has a width at 0/n and n/n, and
    holds near 0 and 1, where Student's alone falls to 73 % (10 classes, rate .02).

    Without ``images`` no interval (NaN) for a single score, nor where neither classes nor seeds differ. Raises
    UsageError for other shapes, for ``images`` below 1 and for proportions outside [0, 1], NumericalError for NaN
    or infinity.
    """
    x = _checked("scores", scores)
    centre = float(x.mean())
    spread = _spread(x[None], np.ones(1), confidence)
    if images is not None:
        if images < 1 or x.min() < 0 or x.max() > 1:
            raise UsageError(f"scores of {images} images each must be proportions in [0, 1] of at least 1 image")
        return Estimate(centre, *_wilson(centre, spread, images * x.size, confidence), x.size)
    if not spread.variance:
        return Estimate(centre, n=x.size)
    half = spread.quantile * math.sqrt(spread.variance)
    return Estimate(centre, centre - half, centre + half, x.size)


def leakage_index(
    attack: ArrayLike,
    null: ArrayLike,
    real: ArrayLike,
    higher_leaks: bool = True,
    images: int | None = None,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Where an attack stands between what leaks nothing and real images: 0 to 1, with an interval of ``confidence``.

    (mean attack - mean null) / (mean real - mean null) of scores [S, C]; ``null`` and ``real`` may also be [1, C],
    the same for every seed. The formula serves distances as well, ``higher_leaks`` False. The three share classes
    (and seeds), so the interval is of the ratio as such: Fieller's (1954), all indices L at which the mean of
    attack - null - L (real - null) is not told from 0. Where the scale itself is not told from 0 that is every
    index: [0, 1]. ``images`` behind each score of the attack, if these are proportions, widen the interval to at
    least :func:`clustered_mean`'s, put on the scale; where none or all are hits, as if each class were one image.
    NaN without ``images`` where :func:`clustered_mean` has none.

    Value and limits are cut to [0, 1]: below 0 is worse than nothing, which leaks nothing; above 1 is easier to
    recognise than a real image. So the limits may coincide at 0 or 1, and a truth at 0 or 1 is held more often
    than 95 %. n = S * C. Raises UsageError for shapes that don't fit and where real images score no better than
    null (no scale), NumericalError for NaN or infinity.
    """
    x = _checked("attack", attack)
    low, high = (_like(x, name, _checked(name, given)) for name, given in (("null", null), ("real", real)))
    pair = np.stack([x - low, high - low])
    excess, scale = (float(one) for one in pair.mean((1, 2)))
    if not (scale > 0 if higher_leaks else scale < 0):
        raise UsageError(
            f"no scale for a leakage index: real images score {high.mean():.4g}, "
            f"{'not above' if higher_leaks else 'not below'} the null's {low.mean():.4g}"
        )
    spread = _spread(pair, np.array([1.0, -excess / scale]), confidence)
    limits = list(_fieller(excess, scale, spread)) if spread.variance else []
    if images is not None:
        # none or all everywhere tells nothing of how alike the images of a class are: each may be one image
        alone = clustered_mean(x, 1 if x.mean() in (0, 1) else images, confidence)
        limits += [(limit - float(low.mean())) / scale for limit in (alone.low, alone.high)]
    return _index(excess / scale, limits, x.size)


def ratio_of_estimates(attack: Estimate, null: Estimate, real: Estimate) -> Estimate:
    """The leakage index of a metric that is no mean over classes (a Fréchet distance, precision); n = attack's.

    The three are taken as independent and normal, with the standard error of their wider side, |limit - value| /
    1.96 (a limit that was cut at 0 says too little); one without interval as exact, and three exact ones give no
    interval. Fieller's interval and not simulated draws: for normal values it is exact, and needs no random
    numbers. Cut to [0, 1] as :func:`leakage_index`. No direction is checked: the sign cancels.

    Raises UsageError where null and real are within two standard errors of each other (no scale; the interval
    would have no end), NumericalError for NaN or infinity.
    """
    if not all(math.isfinite(one.value) for one in (attack, null, real)):
        raise NumericalError("a leakage index needs finite values, got NaN or infinity")
    excess, scale = attack.value - null.value, real.value - null.value
    own, base, top = (_standard_error(one) ** 2 for one in (attack, null, real))
    if not scale or abs(scale) < 2 * math.sqrt(base + top):
        raise UsageError(
            f"no scale for a leakage index: real images have {real.value:.4g}, null {null.value:.4g}, "
            "not two standard errors apart"
        )
    spread = _Spread(np.array([[own + base, base], [base, top + base]]), own + base + top, Z)
    return _index(excess / scale, _fieller(excess, scale, spread) if spread.variance else (), attack.n)


def paired_difference(
    a: ArrayLike, b: ArrayLike, peers: Sequence[ArrayLike] = (), *, alike: bool = False
) -> Difference:
    """The mean of ``a - b``, scores [S, C] of two defences on the same seeds and classes, with interval and p.

    Both are :func:`clustered_mean`'s of ``a - b``. ``peers`` are further defences of the same comparison on the same
    seeds and classes: few seeds tell little of how much a difference varies over networks, so the variance over seeds
    is at least 2 m / S, m the mean square of the interaction of seed and defence over all D of them, with
    f = (D - 1)(S - 1) degrees of freedom. Where the pair's own is larger it counts, with its S - 1; ``alike``, of
    scores on a scale on which defences vary about alike: with f / r^2, at least S - 1, where it is r times as large.

    Where it has no interval (one score; every difference the same) p is 1 for a mean difference of 0 and NaN for any
    other. Simulated without a difference, p < .05 comes up in 1 to 9 % of draws, the most with 3 seeds and no peers;
    ``alike``, of one score a seed, in 3 to 4 % where defences vary alike or by a factor of e^.6, in 5 to 12 % where one
    of the pair varies two or three times as much as all others. Raises UsageError for unlike shapes.
    """
    x, y, *others = (_checked(name, given) for name, given in (("a", a), ("b", b), *(("peers", one) for one in peers)))
    for other in (y, *others):
        if x.shape != other.shape:
            shapes = f"{x.shape} and {other.shape}"
            raise UsageError(f"a paired difference needs scores of the same seeds and classes, got {shapes}")
    parts = _parts((x - y)[None], np.ones(1))
    seeds = len(x)
    if others and seeds > 1:
        means = np.stack([x, y, *others]).mean(2)
        residual = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
        freedom = (len(means) - 1) * (seeds - 1)
        pooled = _Part(2 * float((residual**2).sum()) / freedom / seeds, freedom)
        parts = [_at_least(part, pooled, alike) if part.over == "seeds" else part for part in parts]
    if not (x - y).any():
        parts = []  # the same scores everywhere: a tie, whatever the others do
    return _difference(float((x - y).mean()), parts, float(np.abs(x - y).max()), x.size)


def unpaired_difference(a: ArrayLike, b: ArrayLike) -> Difference:
    """How much higher the mean of ``a`` is than that of ``b``, scores [S, C] and [T, D] of unrelated networks.

    Welch's: the variances of both means add up, as do their degrees of freedom by Satterthwaite. n = a's and b's.
    """
    x, y = _checked("a", a), _checked("b", b)
    parts = [*_parts(x[None], np.ones(1)), *_parts(y[None], np.ones(1))]
    largest = max(float(np.abs(x).max()), float(np.abs(y).max()))
    return _difference(float(x.mean()) - float(y.mean()), parts, largest, x.size + y.size)


def newcombe(a: Estimate, b: Estimate) -> Difference:
    """The difference of two proportions from their score intervals (Newcombe 1998, method 10)."""
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    from scipy.special import ndtr  # takes a third as long to load as torch

    error = (value - low if value > 0 else high - value) / Z
    p = 2 * float(ndtr(-abs(value) / error)) if error else math.nan
    return Difference(value, low, high, p, a.n + b.n)


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979): the chance that any true null is rejected stays below the level.

    NaN, of a pair that can't be tested, is no test and stays NaN.
    """
    tested = sorted((value, index) for index, value in enumerate(p) if not math.isnan(value))
    adjusted, floor = list(p), 0.0
    for rank, (value, index) in enumerate(tested):
        floor = adjusted[index] = max(floor, min(1.0, value * (len(tested) - rank)))
    return adjusted


class _Part(NamedTuple):
    """A term of the variance of a mean, and the degrees of freedom behind it."""

    variance: float
    freedom: float
    over: str = ""


def _parts(x: Array, weights: Array) -> list[_Part]:
    """The variance over classes and that over seeds of the weighted sum of the means of scores [K, S, C]."""
    parts = []
    for name, others, clusters in (("classes", 1, x.shape[2]), ("seeds", 2, x.shape[1])):
        if clusters > 1:
            # not weights @ covariance @ weights, which leaves rounding where the sum is the same everywhere
            parts.append(_Part(float(np.var(weights @ x.mean(others), ddof=1)) / clusters, clusters - 1, name))
    return parts


def _at_least(own: _Part, pooled: _Part, alike: bool) -> _Part:
    """The larger variance; where all vary ``alike``, the pair's own exceeds that of all by chance at first."""
    if own.variance <= pooled.variance or not alike:
        return max(own, pooled)
    return own._replace(freedom=max(own.freedom, pooled.freedom * (pooled.variance / own.variance) ** 2))


def _together(parts: Sequence[_Part], largest: float) -> tuple[float, float]:
    """Variance and Satterthwaite's degrees of freedom of a sum; no variance where only rounding of ``largest`` is."""
    variance = math.fsum(part.variance for part in parts)
    if variance <= (1e-12 * largest) ** 2:
        return 0.0, math.inf
    return variance, 1 / sum((part.variance / variance) ** 2 / part.freedom for part in parts)


def _difference(value: float, parts: Sequence[_Part], largest: float, n: int) -> Difference:
    variance, freedom = _together(parts, largest)
    if not variance:
        return Difference(value, math.nan, math.nan, math.nan if value else 1.0, n)
    from scipy.special import stdtr, stdtrit  # takes a third as long to load as torch

    error = math.sqrt(variance)
    half = float(stdtrit(freedom, UPPER)) * error
    return Difference(value, value - half, value + half, 2 * float(stdtr(freedom, -abs(value) / error)), n)


class _Spread(NamedTuple):
    covariance: Array
    """[K, K] of the means of K kinds of scores"""
    variance: float
    """of their weighted sum; 0 where neither classes nor seeds differ but for rounding"""
    quantile: float
    """how many standard errors the interval of the sum reaches to either side"""


def _normal_quantile(confidence: float) -> float:
    """Of the upper end of a two-sided interval. UsageError for a confidence outside of (0, 1)."""
    if not 0 < confidence < 1:
        raise UsageError(f"a confidence must be between 0 and 1, got {confidence}")
    if confidence == CONFIDENCE:
        return Z
    from scipy.special import ndtri  # takes a third as long to load as torch

    return float(ndtri((1 + confidence) / 2))


def _spread(x: Array, weights: Array, confidence: float) -> _Spread:
    """Of the means of scores [K, S, C], and of their sum with ``weights`` [K]."""
    from scipy.special import stdtrit  # takes a third as long to load as torch

    covariance = np.zeros((len(x), len(x)))
    for others, clusters in ((1, x.shape[2]), (2, x.shape[1])):
        if clusters > 1:
            covariance += np.cov(x.mean(others)) / clusters
    variance, freedom = _together(_parts(x, weights), float(np.abs(x).max()))
    z = _normal_quantile(confidence)
    return _Spread(covariance, variance, float(stdtrit(freedom, (1 + confidence) / 2)) if variance else z)


def _wilson(centre: float, spread: _Spread, images: int, confidence: float) -> tuple[float, float]:
    """The proportions p with (centre - p)^2 <= k p (1 - p): k is z^2 / n for n independent images."""
    binomial = centre * (1 - centre)
    k = max(
        _normal_quantile(confidence) ** 2 / images, spread.quantile**2 * spread.variance / binomial if binomial else 0.0
    )
    middle, half = centre + k / 2, math.sqrt(k * binomial + k**2 / 4)
    return max(0.0, (middle - half) / (1 + k)), min(1.0, (middle + half) / (1 + k))


def _fieller(excess: float, scale: float, spread: _Spread) -> tuple[float, float]:
    """The ends of all L with |excess - L scale| within the quantile of its standard error; infinite if unbounded."""
    (c, b), (_, a) = np.outer((excess, scale), (excess, scale)) - spread.quantile**2 * spread.covariance
    if a <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(0.0, b * b - a * c))
    return float((b - root) / a), float((b + root) / a)


def _index(value: float, limits: Sequence[float], n: int) -> Estimate:
    low, high = (min(limits), max(limits)) if limits else (math.nan, math.nan)
    value, low, high = np.clip((value, low, high), 0, 1).tolist()
    return Estimate(value, low, high, n)


def _standard_error(estimate: Estimate) -> float:
    if math.isnan(estimate.low):
        return 0.0
    return max(estimate.high - estimate.value, estimate.value - estimate.low) / Z


def _checked(name: str, scores: ArrayLike) -> Array:
    x = np.asarray(scores, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise UsageError(f"{name} must be [seeds, classes] with at least one score, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise NumericalError(f"{name}: the scores hold NaN or infinity")
    return x


def _like(attack: Array, name: str, x: Array) -> Array:
    if x.shape not in (attack.shape, (1, attack.shape[1])):
        raise UsageError(
            f"{name} needs the attack's seeds and classes {attack.shape}, or one seed's for all, got {x.shape}"
        )
    return np.broadcast_to(x, attack.shape)
