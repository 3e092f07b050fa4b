"""The Mann-Whitney test where most scores are one number: by going through all choices, and by its size."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, rankdata

from leakbench.metrics.rank_sum import rank_sum_p


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("members", [1, 3, 7])
def test_it_is_the_share_of_all_choices_with_as_high_a_rank_sum(seed: int, members: int) -> None:
    draw = np.random.default_rng(seed)
    scores = np.full(11, 2.0)
    scores[draw.permutation(11)[:5]] = draw.integers(0, 5, 5)  # with ties among them, too
    ranks = rankdata(scores)
    sums = np.array([ranks[list(choice)].sum() for choice in itertools.combinations(range(11), members)])
    one, other = scores[:members], scores[members:]
    assert rank_sum_p(one, other, "greater") == pytest.approx(np.mean(sums >= ranks[:members].sum() - 1e-9))
    assert rank_sum_p(one, other, "less") == pytest.approx(np.mean(sums <= ranks[:members].sum() + 1e-9))


def test_one_member_that_differs_is_as_likely_as_there_are_members() -> None:
    scores = np.zeros(1016)
    scores[0] = -1.0
    assert rank_sum_p(scores[:16], scores[16:], "less") == pytest.approx(16 / 1016)
    assert rank_sum_p(scores[:16], scores[16:], "greater") == pytest.approx(1.0)


def test_it_is_scipy_s_where_no_score_is_that_of_most() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=30).round(1), draw.normal(size=50).round(1)
    assert rank_sum_p(one, other, "less") == float(mannwhitneyu(one, other, alternative="less").pvalue)


@pytest.mark.parametrize(("members", "others", "apart"), [(64, 1000, 400), (300, 300, 200)])
def test_near_ranks_are_taken_for_one_where_counting_would_take_long(members: int, others: int, apart: int) -> None:
    """The answer stays near that of the normal approximation, which holds where so many scores differ."""
    draw = np.random.default_rng(1)
    scores = np.zeros(members + others)
    scores[draw.permutation(len(scores))[:apart]] = draw.normal(size=apart)
    scores[:members] += 0.3 * (scores[:members] != 0)
    p = rank_sum_p(scores[:members], scores[members:], "greater")
    rough = float(mannwhitneyu(scores[:members], scores[members:], alternative="greater").pvalue)
    assert p == pytest.approx(rough, rel=0.1) and p != rough


def test_few_members_among_equal_scores_are_found_no_more_often_than_the_level() -> None:
    """Scipy's approximation finds 2 to 4 of 100 such draws at a level of 1 in 300, scores saying nothing."""
    draw, level, found = np.random.default_rng(2), 1 / 300, 0
    for _ in range(600):
        scores = np.zeros(1016)
        scores[draw.permutation(1016)[:20]] = -draw.random(20)
        found += rank_sum_p(scores[:16], scores[16:], "less") < level
    assert found <= 600 * level + 3 * math.sqrt(600 * level)
