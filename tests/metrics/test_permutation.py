"""The permutation test: against every arrangement written out, and sure only of what is there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pytest
from by_hand import cell, place
from numpy.typing import NDArray
from scipy.stats import binomtest, kstest

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.permutation import label_permutation_p

Array = NDArray[np.float64]


def noise(classes: int, rng: np.random.Generator, alike: float = 1.0) -> Array:
    """The table of a judge that sees nothing of the class: rows from a Dirichlet, peaked where ``alike`` is small."""
    return rng.dirichlet(np.full(classes, alike), classes)


def enumerated(table: Array) -> float:
    """The share of all arrangements with at least the observed trace."""
    rows = range(len(table))
    traces = np.array([sum(table[r, o[r]] for r in rows) for o in itertools.permutations(rows)])
    return float(np.mean(traces >= table.trace() - 1e-12))


def together(tables: Iterable[Array]) -> float:
    """The p of several seeds, as a row of the results has it."""
    group = place(
        *(cell("a", "b", overall={"p_value": label_permutation_p(one)}, seed=s) for s, one in enumerate(tables))
    )
    assert group.p is not None
    return group.p


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_tries_all_arrangements_where_they_are_few(classes: int) -> None:
    for seed in range(5):
        table = noise(classes, np.random.default_rng(seed))
        assert label_permutation_p(table) == pytest.approx(enumerated(table), rel=1e-12)


@pytest.mark.slow
def test_random_arrangements_agree_with_all() -> None:
    table = noise(8, np.random.default_rng(0)) + 0.1 * np.eye(8)
    exact = enumerated(table)
    # five standard deviations of a share of 9999
    assert label_permutation_p(table) == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 9999))


@pytest.mark.parametrize(("classes", "least"), [(3, 1 / 6), (4, 1 / 24), (5, 1 / 120), (10, 1e-4), (200, 1e-4)])
def test_images_that_tell_reach_the_smallest_p(classes: int, least: float) -> None:
    """One over all arrangements, and no less than one over those that are tried and the one that was."""
    table = 0.9 * np.eye(classes) + 0.1 * noise(classes, np.random.default_rng(1))
    assert label_permutation_p(table) == pytest.approx(least, rel=1e-12)


def test_a_weak_signal_shows_when_seeds_are_combined() -> None:
    # the signal is 1.8 standard deviations of one seed's trace, 4.3 of the sum of six
    rng = np.random.default_rng(2)
    tables = [noise(10, rng) + 0.05 * np.eye(10) for _ in range(6)]
    alone = [label_permutation_p(table) for table in tables]
    assert together(tables) < 0.001 < 0.01 < float(np.median(alone))


@pytest.mark.slow
@pytest.mark.parametrize("alike", [0.2, 10.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_p_is_uniform_where_nothing_is_told_however_alike_a_class_images_are(alike: float, seeds: int) -> None:
    rng = np.random.default_rng(3)
    found = [together(noise(10, rng, alike) for _ in range(seeds)) for _ in range(200)]
    # a wrong test gives p values of 1e-10 here; a right one fails once in a thousand seeds
    assert kstest(found, "uniform").pvalue > 0.001


@pytest.mark.slow
def test_copies_of_one_image_fool_a_test_that_counts_images_and_not_this_one() -> None:
    # a class's ten images are one image; the judge is sure of each, and names classes at random
    rng = np.random.default_rng(4)
    counted, permuted = 0, 0
    for _ in range(200):
        table = np.eye(10)[rng.integers(0, 10, 10)]
        hits = 10 * int(np.trace(table))
        counted += binomtest(hits, 100, 0.1, alternative="greater").pvalue < 0.05
        permuted += label_permutation_p(table) < 0.05
    # P(at least two of ten named right by chance) = .26; 20 is 2.4 standard deviations above 200 * .05
    assert counted > 40
    assert permuted <= 20


def test_classes_without_images_take_no_part() -> None:
    table = noise(10, np.random.default_rng(5)) + 0.05 * np.eye(10)
    present = np.array([7, 0, 3, 4])
    rows = table[present]
    expected = label_permutation_p(rows[:, present])
    assert label_permutation_p(rows, present) == expected
    # all 24 arrangements are tried, so the order of the rows is nothing
    assert label_permutation_p(rows[::-1], present[::-1]) == pytest.approx(expected, rel=1e-12)
    rows[:, [1, 2, 5]] += 1.0
    assert label_permutation_p(rows, present) == expected


@pytest.mark.slow
def test_identical_images_tell_nothing() -> None:
    row = np.random.default_rng(6).dirichlet(np.ones(200))
    assert label_permutation_p(np.tile(row, (200, 1))) == 1


def test_one_class_tells_nothing() -> None:
    assert label_permutation_p([[0.1, 0.9]], [1]) == 1


def test_is_deterministic() -> None:
    table = noise(20, np.random.default_rng(7))
    assert label_permutation_p(table) == label_permutation_p(table)


@pytest.mark.parametrize(
    ("table", "classes", "message"),
    [
        (np.zeros(3), None, "needs a table"),
        (np.zeros((0, 3)), None, "needs a table"),
        (np.zeros((1, 3, 3)), None, "needs a table"),
        (np.zeros((2, 3)), None, "2 rows"),
        (np.zeros((2, 3)), [0, 1, 2], "2 rows"),
        (np.zeros((2, 3)), [0.0, 1.0], "integer"),
        (np.zeros((2, 3)), [1, 1], "distinct"),
        (np.zeros((2, 3)), [0, 3], r"within 0\.\.2"),
        (np.zeros((2, 3)), [-1, 0], r"within 0\.\.2"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table: Array, classes: list[int] | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        label_permutation_p(table, classes)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_never_silent(bad: float) -> None:
    with pytest.raises(NumericalError):
        label_permutation_p(np.full((3, 3), bad))
