"""The worst case over attacks: by the definition, and whether its interval holds the truth."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri
from scipy.stats import binom

from leakbench.errors import UsageError
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.intervals import leakage_index
from leakbench.metrics.worst_case import Interval, WorstCase, worst_case

Array = NDArray[np.float64]
ATTACKS, IMAGES = 11, 10
NULL, REAL = 0.03, 0.95


def normal(value: float, error: float, n: int, confidence: float) -> Estimate:
    half = float(ndtri((1 + confidence) / 2)) * error
    return Estimate(value, value - half, value + half, n)


def test_one_attack_is_its_own_worst_case() -> None:
    assert worst_case({"inversion": partial(normal, 0.4, 0.1, 30)}) == WorstCase(
        "inversion", normal(0.4, 0.1, 30, 0.95)
    )


def test_limits_are_the_highest_of_all_attacks() -> None:
    # the best attack, the one with the highest lower limit and the one with the highest upper limit are three
    attacks: dict[str, Interval] = {
        "exact": partial(normal, 0.5, 0.01, 30),
        "best": partial(normal, 0.6, 0.1, 20),
        "vague": partial(normal, 0.2, 0.4, 10),
    }
    worst = worst_case(attacks)
    assert (worst.attack, worst.estimate.value, worst.estimate.n) == ("best", 0.6, 20)
    assert worst.estimate.low == pytest.approx(0.5 - 0.01 * ndtri(1 - 0.025 / 3), rel=1e-12)
    assert worst.estimate.high == pytest.approx(0.2 + 0.4 * ndtri(0.975), rel=1e-12)


def test_the_first_of_equal_attacks_is_named() -> None:
    assert worst_case({name: partial(normal, 0.5, 0.1, 3) for name in ("b", "a", "c")}).attack == "b"


def test_an_attack_without_interval_leaves_none() -> None:
    def exact(_: float) -> Estimate:
        return Estimate(0.1)

    worst = worst_case({"exact": exact, "best": partial(normal, 0.6, 0.1, 20)})
    assert worst.attack == "best" and worst.estimate.value == 0.6
    assert math.isnan(worst.estimate.low) and math.isnan(worst.estimate.high)


def test_no_attack_has_no_worst_case() -> None:
    with pytest.raises(UsageError, match="at least one attack"):
        worst_case({})


def index(scores: Array, confidence: float) -> Estimate:
    """The leakage index of shares [S, C]."""
    ends = np.full((1, scores.shape[1]), NULL), np.full((1, scores.shape[1]), REAL)
    return leakage_index(scores, *ends, images=IMAGES, confidence=confidence)


CLASSES, SEEDS, CELLS = 1.0, 0.5, 0.5
"""standard deviations in logits of what classes, networks and cells differ by"""


def equal_attacks(rng: np.random.Generator, shape: tuple[int, int], rate: float, agreement: float) -> Array:
    """Shares [ATTACKS, S, C] of images classified as the target class, by attacks that are all equally good.

    They agree to some extent on which classes and networks are easy.
    """

    def effect(size: tuple[int, int], deviation: float) -> Array:
        common, own = rng.normal(size=(1, *size)), rng.normal(size=(ATTACKS, *size))
        return deviation * (math.sqrt(agreement) * common + math.sqrt(1 - agreement) * own)

    seeds, classes = shape
    logits = logit(rate) + effect((1, classes), CLASSES) + effect((seeds, 1), SEEDS) + effect(shape, CELLS)
    return rng.binomial(IMAGES, expit(logits)) / IMAGES


def true_index(rate: float) -> float:
    """Over other classes and networks: the mean of a logistic-normal distribution, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    mean = weights @ expit(logit(rate) + math.sqrt(CLASSES**2 + SEEDS**2 + CELLS**2) * nodes) / weights.sum()
    return (float(mean) - NULL) / (REAL - NULL)


def coverage(records: int, shape: tuple[int, int], rate: float, agreement: float) -> tuple[float, float]:
    """How often the interval of the worst case holds the truth, and how often the best attack's own does."""
    rng, truth = np.random.default_rng(1), true_index(rate)
    held = naive = 0
    for _ in range(records):
        scores = equal_attacks(rng, shape, rate, agreement)
        attacks = {str(at): partial(index, one) for at, one in enumerate(scores)}
        worst = worst_case(attacks)
        alone = attacks[worst.attack](0.95)
        held += worst.estimate.low <= truth <= worst.estimate.high
        naive += alone.low <= truth <= alone.high
    return held / records, naive / records


def at_least(rate: float, records: int) -> float:
    """What the share of records falls short of in one of 1000 simulations; of 1000 records nothing is allowed for."""
    return rate if records >= 1000 else float(binom.ppf(0.001, records, rate)) / records


TIERS = pytest.mark.parametrize(
    "records",
    [
        pytest.param(60, id="short", marks=pytest.mark.slow),
        pytest.param(1000, id="full", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)


@TIERS
def test_eleven_equal_attacks_are_covered_and_not_by_the_best_ones_own_interval(records: int) -> None:
    held, naive = coverage(records, (4, 40), 0.5, 0.0)
    assert held >= at_least(0.95, records)
    assert naive < 0.9


@pytest.mark.long
@TIERS
@pytest.mark.parametrize("agreement", [0.5, 0.9])
@pytest.mark.parametrize(("shape", "rate"), [((3, 10), 0.05), ((3, 10), 0.5)])
def test_correlated_attacks_are_covered(shape: tuple[int, int], rate: float, agreement: float, records: int) -> None:
    held, _ = coverage(records, shape, rate, agreement)
    assert held >= at_least(0.95, records)
