"""The ranking of defences: against Student's t and Holm by their definitions, and how often it is wrong."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom
from scipy.stats import t as student

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.ranking import ranking

Array = NDArray[np.float64]


def scores(
    rng: np.random.Generator,
    means: Any,
    seeds: int = 3,
    classes: int = 10,
    interaction: float = 0.05,
    noise: float = 0.05,
) -> Array:
    """[D, S, C]: classes and networks differ, and networks differ by defence (``interaction``)."""
    shape = (len(means), seeds, classes)
    return np.asarray(
        np.reshape(means, (-1, 1, 1))
        + 0.2 * rng.normal(size=(1, 1, classes))
        + 0.1 * rng.normal(size=(1, seeds, 1))
        + interaction * rng.normal(size=(shape[0], seeds, 1))
        + noise * rng.normal(size=shape)
    )


def by_definition(x: Array) -> Array:
    """Student's t of all pairs with V_classes + max(V_seeds, 2 s^2 / S), Satterthwaite's freedom, Holm."""
    defenses, seeds, classes = x.shape
    means = x.mean(2)
    residual = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
    freedom = (defenses - 1) * (seeds - 1)
    pooled = 2 * (residual**2).sum() / freedom / seeds
    pairs, p = list(combinations(range(defenses), 2)), []
    for i, j in pairs:
        d = x[i] - x[j]
        over_classes, over_seeds = d.mean(0).var(ddof=1) / classes, d.mean(1).var(ddof=1) / seeds
        second, own = max((over_seeds, seeds - 1), (pooled, freedom))
        v = over_classes + second
        df = v**2 / (over_classes**2 / (classes - 1) + second**2 / own)
        p.append(2 * student.sf(abs(d.mean()) / math.sqrt(v), df))
    adjusted, floor = np.full((defenses, defenses), math.nan), 0.0
    for place, at in enumerate(np.argsort(p)):
        floor = max(floor, min(1.0, (len(p) - place) * p[at]))
        i, j = pairs[at]
        adjusted[i, j] = adjusted[j, i] = floor
    return adjusted


@pytest.mark.parametrize(("defenses", "seeds", "classes"), [(2, 3, 10), (5, 3, 10), (4, 5, 40)])
def test_p_is_that_of_the_definition(defenses: int, seeds: int, classes: int) -> None:
    for seed in range(5):
        x = scores(np.random.default_rng(seed), 0.05 * np.arange(defenses), seeds, classes)
        assert ranking(x).p == pytest.approx(by_definition(x), rel=1e-9, nan_ok=True)


def test_clear_differences_give_each_its_rank() -> None:
    x = scores(np.random.default_rng(0), [0.9, 0.1, 0.5], interaction=0.0, noise=0.01)
    assert ranking(x).ranks == ((3, 3), (1, 1), (2, 2))


def test_what_is_not_told_apart_shares_its_ranks() -> None:
    x = scores(np.random.default_rng(1), [0.5, 0.1, 0.5, 0.9], interaction=0.0, noise=0.01)
    assert ranking(x).ranks == ((2, 3), (1, 1), (2, 3), (4, 4))


def test_ranks_follow_their_defenses() -> None:
    x = scores(np.random.default_rng(2), [0.0, 0.1, 0.2, 0.3])
    order = [2, 0, 3, 1]
    straight, turned = ranking(x), ranking(x[order])
    assert turned.ranks == tuple(straight.ranks[at] for at in order)
    assert turned.p == pytest.approx(straight.p[np.ix_(order, order)], rel=1e-9, nan_ok=True)


def test_equal_scores_are_ties_whatever_the_others_do() -> None:
    x = scores(np.random.default_rng(3), [0.1, 0.5, 0.9], interaction=0.0, noise=0.01)
    x = np.concatenate([x, x[:1]])
    found = ranking(x)
    assert found.ties == ((0, 3),)
    assert found.p[0, 3] == found.p[3, 0] == 1
    assert found.ranks == ((1, 2), (3, 3), (4, 4), (1, 2))
    everything = ranking(np.zeros((3, 2, 4)))
    assert everything.ranks == ((1, 3),) * 3 and everything.ties == ((0, 1), (0, 2), (1, 2))


def test_one_seed_ranks_nothing() -> None:
    x = scores(np.random.default_rng(4), [0.1, 0.5, 0.9], seeds=1, interaction=0.0, noise=0.01)
    found = ranking(x)
    assert found.ranks == ((1, 3),) * 3 and np.isnan(found.p).all()


def test_a_difference_without_any_spread_ranks_nothing() -> None:
    x = np.zeros((2, 3, 10))
    x[1] = 0.5
    assert ranking(x).ranks == ((1, 2), (1, 2))


@pytest.mark.parametrize("x", [np.zeros((3, 4)), np.zeros((1, 3, 4)), np.zeros((0, 3, 4)), np.zeros((2, 0, 4))])
def test_other_shapes_are_refused(x: Array) -> None:
    with pytest.raises(UsageError):
        ranking(x)


def test_nan_is_never_silent() -> None:
    x = np.zeros((3, 3, 4))
    x[2, 1, 1] = math.nan
    with pytest.raises(NumericalError):
        ranking(x)


def wrong(records: int, defenses: int, seeds: int, classes: int, interaction: float, noise: float) -> float:
    """How often equal defences are ranked."""
    rng = np.random.default_rng(5)
    equal = (1, defenses)
    return float(
        np.mean(
            [
                any(
                    ranks != equal
                    for ranks in ranking(scores(rng, np.zeros(defenses), seeds, classes, interaction, noise)).ranks
                )
                for _ in range(records)
            ]
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("records", "defenses", "classes"),
    [
        (100, 6, 10),
        (100, 6, 40),
        pytest.param(1000, 6, 10, marks=pytest.mark.long),
        pytest.param(1000, 6, 40, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("interaction", [0.0, 0.05])
def test_equal_defenses_are_rarely_ranked(records: int, defenses: int, classes: int, interaction: float) -> None:
    assert wrong(records, defenses, 3, classes, interaction, 0.1) <= binom.ppf(0.999, records, 0.02) / records


def test_unequal_defenses_are_mostly_ranked() -> None:
    rng = np.random.default_rng(6)
    right = [ranking(scores(rng, [0.0, 0.4, 0.8])).ranks == ((1, 1), (2, 2), (3, 3)) for _ in range(100)]
    assert np.mean(right) >= 0.8
