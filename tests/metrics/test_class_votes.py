"""Votes, excluded classes and detectable leaks: against the definitions, by hand and by binomial sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from simulated_votes import Study, answers

from leakbench.errors import UsageError
from leakbench.metrics.class_votes import (
    Answers,
    Votes,
    count_votes,
    detection_power,
    excluded_classes,
    smallest_detectable_leak,
    votes_to_detect,
    votes_to_exclude,
)


def at_least(c: int, n: int, p: float) -> float:
    """P(Binomial(n, p) >= c)."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(c, n + 1))


def test_half_of_a_classs_images_are_a_vote() -> None:
    # class 0: 2 of 4 as 0, 1 as 1; class 1: 3 of 5 as 0, 2 as none; class 2: 1 of 2 as 0, 1 as 2
    targets = [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    accepted = [0, 0, 1, -1, 0, -1, 0, 0, -1, 0, 2]
    votes = count_votes([[Answers(targets, accepted)]], [0, 1, 2])
    assert votes.accepted[0, 0].tolist() == [[True, False, False], [True, False, False], [True, False, True]]
    assert votes.counts.tolist() == [[1, 0, 1]]
    order = np.random.default_rng(0).permutation(len(targets))
    shuffled = count_votes([[Answers(np.array(targets)[order], np.array(accepted)[order])]], [0, 1, 2])
    assert (shuffled.accepted == votes.accepted).all()


def test_one_image_a_class_votes_alone() -> None:
    votes = count_votes([[Answers([0, 1], [0, -1])], [Answers([1, 0], [0, 1])]], [0, 1])
    assert votes.accepted[:, 0].tolist() == [[[True, False], [False, False]], [[False, True], [True, False]]]


def test_classes_that_were_not_attacked_have_no_part() -> None:
    # 7 and 4 are attacked; an answer of 5 is none of them
    votes = count_votes([[Answers([7, 7, 4, 4], [7, 5, 5, 5])]], [7, 4])
    assert votes.accepted[0, 0].tolist() == [[True, False], [False, False]]


def test_an_attack_that_was_not_run_has_no_votes() -> None:
    votes = count_votes([[Answers([0, 1], [0, 1]), None], [Answers([0, 1], [0, 1]), Answers([0, 1], [0, 0])]], [0, 1])
    assert votes.run.tolist() == [[True, False], [True, True]]
    assert votes.counts.tolist() == [[2, 2], [1, 0]]


@pytest.mark.parametrize("images", [1, 2, 7])
def test_answers_of_simulated_votes_have_these_votes(images: int) -> None:
    rng = np.random.default_rng(0)
    votes, _ = Study(leaking=3, drawn=0.7, acceptance=0.05).votes(rng)
    run = votes.run.copy()
    run[1, 2] = False
    votes = Votes(votes.accepted & run[..., None, None], run)
    counted = count_votes(answers(votes, images, rng), np.arange(10))
    assert (counted.run == run).all()
    assert (counted.accepted == votes.accepted).all()


@pytest.mark.parametrize(
    ("cells", "classes", "message"),
    [
        ([], [0, 1], "at least one network"),
        ([[]], [0, 1], "at least one network"),
        ([[None], [None, None]], [0, 1], "the same attacks"),
        ([[None]], np.zeros(0, int), "distinct integers"),
        ([[None]], [0, 0], "distinct integers"),
        ([[None]], [-1, 0], "distinct integers"),
        ([[None]], [0.0, 1.0], "must be integers"),
        ([[Answers([0, 1], [0])]], [0, 1], "each image has"),
        ([[Answers([0.0, 1.0], [0, 1])]], [0, 1], "must be integers"),
        ([[Answers([[0, 1]], [[0, 1]])]], [0, 1], "one dimension"),
        ([[Answers([0, 2], [0, 1])]], [0, 1], "among the classes"),
        ([[Answers([0, 1], [0, -2])]], [0, 1], "-1 for none"),
        ([[Answers([0, 0], [0, 0])]], [0, 1], "no image was made for class 1"),
        ([[Answers(np.zeros(0, int), np.zeros(0, int))]], [0, 1], "no image was made for class 0"),
    ],
)
def test_answers_that_do_not_fit_are_refused(cells: Any, classes: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        count_votes(cells, classes)


@pytest.mark.parametrize(
    ("accepted", "run", "message"),
    [
        (np.zeros((2, 3, 4), bool), np.ones((2, 3), bool), "votes must be"),
        (np.zeros((2, 3, 4, 5), bool), np.ones((2, 3), bool), "votes must be"),
        (np.zeros((2, 3, 4, 4), bool), np.ones((2, 4), bool), "votes must be"),
        (np.zeros((0, 3, 4, 4), bool), np.ones((0, 3), bool), "at least one"),
        (np.zeros((2, 3, 4, 4)), np.ones((2, 3), bool), "must be bool"),
        (np.ones((1, 1, 2, 2), bool), np.zeros((1, 1), bool), "not run on"),
    ],
)
def test_votes_that_do_not_fit_are_refused(accepted: Any, run: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Votes(accepted, run)


def test_votes_to_exclude_are_those_of_the_method() -> None:
    assert [votes_to_exclude(networks) for networks in (3, 4, 5, 6, 8, 10)] == [1, 2, 2, 3, 4, 6]
    assert [votes_to_exclude(networks) for networks in (0, 1, 2)] == [0, 0, 0]
    with pytest.raises(UsageError, match="can't be -1"):
        votes_to_exclude(-1)


@pytest.mark.parametrize("networks", range(3, 40))
def test_a_drawn_class_is_rarely_excluded_and_no_more_votes_would_do(networks: int) -> None:
    least = votes_to_exclude(networks)
    assert 1 - at_least(least, networks, 0.8) <= 0.034 < 1 - at_least(least + 1, networks, 0.8)


def with_votes(counts: Any, networks: int, run: Any = None) -> Votes:
    """Votes for target classes alone, ``counts`` [attacks, C] of them, on the last networks."""
    counts = np.asarray(counts)
    accepted = np.zeros((networks, *counts.shape, counts.shape[1]), bool)
    for (attack, k), number in np.ndenumerate(counts):
        accepted[networks - number :, attack, k, k] = True
    return Votes(accepted, np.ones(accepted.shape[:2], bool) if run is None else np.asarray(run))


def test_a_class_is_excluded_under_all_attacks_or_not_at_all() -> None:
    assert excluded_classes(with_votes([[0, 1, 2, 0], [1, 1, 0, 3]], 4)) == (0, 1)
    assert excluded_classes(with_votes([[0, 1, 2, 0], [1, 1, 0, 3]], 3)) == ()
    assert excluded_classes(with_votes([[0, 1, 2, 0]], 3)) == (0, 3)


@pytest.mark.parametrize("networks", [1, 2])
def test_fewer_than_three_networks_exclude_nothing(networks: int) -> None:
    assert excluded_classes(with_votes([[0, 0]], networks)) == ()


def test_an_attack_excludes_by_the_networks_that_it_was_run_on() -> None:
    run = np.ones((4, 2), bool)
    run[0, 1] = False
    # of three networks one vote is too many, of four it is not
    assert excluded_classes(with_votes([[1, 0, 1], [0, 1, 0]], 4, run)) == (0, 2)
    run[1, 1] = False
    assert excluded_classes(with_votes([[1, 0, 1], [0, 1, 0]], 4, run)) == ()
    assert excluded_classes(with_votes([[0, 0]], 4, np.zeros((4, 1), bool))) == ()


@pytest.mark.parametrize(
    ("networks", "classes", "least"),
    # 3 / 100, 1 / 1000; 6 / 100, 4 / 1000; 10 / 1000; 4 / 125; 1 / 125; 1 / 40; 3 / 1600
    [(3, 10, 3), (4, 10, 3), (5, 10, 3), (4, 5, 4), (3, 5, 3), (1, 40, None), (3, 40, 2), (1, 100, 1), (5, 2, None)],
)
def test_votes_to_detect(networks: int, classes: int, least: int | None) -> None:
    assert votes_to_detect(networks, classes) == least


@pytest.mark.parametrize(("networks", "classes", "drawn", "p"), [(4, 10, 1, 0.8), (3, 10, 2, 0.8), (5, 40, 7, 0.3)])
def test_power_is_that_of_any_drawn_class(networks: int, classes: int, drawn: int, p: float) -> None:
    least = votes_to_detect(networks, classes)
    assert least is not None
    expected = 1 - (1 - at_least(least, networks, p)) ** drawn
    assert detection_power(networks, classes, drawn, p) == pytest.approx(expected, rel=1e-12)


def test_smallest_detectable_leak_is_the_first_with_enough_power() -> None:
    # P(3 of 3) = .512, of two classes .762, of three .884; P(3 of 4 or more) = .819
    assert smallest_detectable_leak(3, 10, 0.8) == 3
    assert smallest_detectable_leak(4, 10, 0.8) == 1
    assert smallest_detectable_leak(4, 10, 1.0) == 1
    assert smallest_detectable_leak(4, 10, 0.0) is None
    assert smallest_detectable_leak(1, 10, 1.0) is None
    assert detection_power(1, 10, 10, 1.0) == 0
    assert detection_power(4, 10, 0, 0.8) == 0


def test_detection_of_nonsense_is_refused() -> None:
    for networks, classes in ((0, 10), (4, 0)):
        with pytest.raises(UsageError, match="at least 1 network and 1 class"):
            votes_to_detect(networks, classes)
    for drawn, probability in ((11, 0.5), (-1, 0.5), (1, 1.1), (1, -0.1), (1, math.nan)):
        with pytest.raises(UsageError, match="can't be drawn"):
            detection_power(4, 10, drawn, probability)
