"""Membership metrics against scikit-learn, closed forms, and how often the interval holds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import beta, mannwhitneyu, norm
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from leakbench.errors import LeakBenchError, NumericalError, UsageError
from leakbench.metrics.membership import (
    MembersAgainstMembers,
    MembershipAuc,
    MembershipLowerP,
    MembershipP,
    MembershipTailP,
    ScoredCandidates,
    TruePositives1,
    _allowed,
    _found,
    advantage,
    auc,
    found_by_chance,
    roc,
    tail_p,
    true_positives,
)


def scored(members: int, others: int, shift: float, seed: int, digits: int = 9) -> tuple[Tensor, Tensor]:
    """Normal scores, those of members higher by ``shift``; few ``digits`` make ties."""
    random = np.random.default_rng(seed)
    scores = np.concatenate([random.normal(shift, 1, members), random.normal(0, 1, others)]).round(digits)
    return torch.from_numpy(scores), torch.arange(members + others) < members


@pytest.mark.parametrize(("members", "others", "shift", "digits"), [(30, 50, 1.0, 9), (200, 200, 0.2, 1), (5, 3, 0, 0)])
def test_the_area_is_scikit_learn_s(members: int, others: int, shift: float, digits: int) -> None:
    scores, truth = scored(members, others, shift, 1, digits)
    estimate = auc(scores, truth)
    assert estimate.value == pytest.approx(roc_auc_score(truth.numpy(), scores.numpy()), abs=1e-12)
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1
    assert estimate.n == members + others


def test_the_area_does_not_depend_on_the_order_or_on_the_scale_of_scores() -> None:
    scores, truth = scored(40, 40, 0.7, 2)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    assert auc(scores[order], truth[order]) == auc(scores, truth)
    assert auc(scores.exp(), truth) == auc(scores, truth)


def test_the_interval_has_a_width_where_all_members_are_above_all_others() -> None:
    few, many = (auc(torch.arange(2.0 * n), torch.arange(2 * n) >= n) for n in (10, 1000))
    assert (few.value, few.high, many.value) == (1.0, 1.0, 1.0)
    assert 0.6 < few.low < 0.95
    assert 0.99 < many.low < 1.0


def test_at_chance_the_interval_is_that_of_the_exact_variance() -> None:
    """Of equal distributions the area's variance is (m + n + 1) / (12 m n) (Mann & Whitney 1947)."""
    m = 200
    scores = torch.arange(2.0 * m)
    estimate = auc(scores, torch.arange(2 * m) % 4 > 1)  # pairs: the ranks' sums differ by m
    spread = 1.959964 * ((2 * m + 1) / (12 * m * m)) ** 0.5
    assert estimate.high - estimate.low == pytest.approx(2 * spread, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_the_interval_holds_as_often_as_it_says(shift: float) -> None:
    """Of 400 draws of normal scores, whose area is known, some 380 intervals hold it: 363 at least, at p = .001."""
    truth = float(norm.cdf(shift / 2**0.5))
    estimates = [auc(*scored(60, 60, shift, seed)) for seed in range(400)]
    assert sum(one.low <= truth <= one.high for one in estimates) >= 363


def test_p_is_scipy_s_and_one_sided() -> None:
    scores, truth = scored(50, 70, 0.6, 5)
    measured = MembershipP().measure(ScoredCandidates(scores, truth)).estimate.value
    expected = mannwhitneyu(scores[truth].numpy(), scores[~truth].numpy(), alternative="greater").pvalue
    assert measured == pytest.approx(float(expected), abs=1e-15)
    assert MembershipP().measure(ScoredCandidates(-scores, truth)).estimate.value > 0.5
    assert MembershipAuc().measure(ScoredCandidates(scores, truth)).estimate == auc(scores, truth)


@pytest.mark.parametrize(("members", "others"), [(3, 3), (4, 4), (1, 1000)])
def test_few_members_below_all_others_are_as_likely_as_above(members: int, others: int) -> None:
    """Both are one order of all: nothing is certain of few images."""
    truth = torch.arange(members + others) < members
    scores = torch.arange(members + others).double()
    below = MembershipLowerP().measure(ScoredCandidates(scores, truth)).estimate.value
    above = MembershipP().measure(ScoredCandidates(-scores, truth)).estimate.value
    assert below == above == pytest.approx(1 / math.comb(members + others, members), rel=1e-9)


@pytest.mark.parametrize(
    ("error", "scores", "members", "says"),
    [
        (UsageError, torch.zeros(3), torch.ones(4, dtype=torch.bool), r"both be \[N\]"),
        (UsageError, torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool), r"both be \[N\]"),
        (UsageError, torch.zeros(3), torch.ones(3, dtype=torch.bool), "members and others"),
        (UsageError, torch.zeros(3), torch.zeros(3, dtype=torch.bool), "members and others"),
        (NumericalError, torch.tensor([0.0, float("nan")]), torch.tensor([True, False]), "NaN"),
    ],
)
def test_what_is_no_set_of_scores_is_refused(
    error: type[LeakBenchError], scores: Tensor, members: Tensor, says: str
) -> None:
    with pytest.raises(error, match=says):
        auc(scores, members)


def test_true_positives_are_those_above_all_but_a_share_of_the_others() -> None:
    others = torch.arange(200.0).double()  # at 1 % two may be above: the threshold is 197
    members = torch.tensor([197.0, 197.5, 198.5, 500.0, 3.0]).double()
    scores, truth = torch.cat([members, others]), torch.arange(205) < 5
    found = true_positives(scores, truth, 0.01)
    assert (found.value, found.n) == (0.6, 5)  # 197 itself is no higher than an other
    # wider than Jeffreys' with the threshold as given
    assert found.low < beta.ppf(0.025, 3.5, 2.5) and found.high > beta.ppf(0.975, 3.5, 2.5)
    # with very many others the threshold is known, and Jeffreys' interval is left
    many = torch.linspace(0, 1, 100_000).double()
    few = torch.cat([torch.full((40,), 2.0), torch.full((60,), -1.0)]).double()
    known = true_positives(torch.cat([few, many]), torch.arange(100_100) < 100, 0.01)
    assert (known.low, known.high) == pytest.approx((beta.ppf(0.025, 40.5, 60.5), beta.ppf(0.975, 40.5, 60.5)))
    all_found = true_positives(torch.cat([others + 300, others]), torch.arange(400) < 200, 0.01)
    assert (all_found.value, all_found.high) == (1.0, 1.0)
    assert 0.1 < all_found.low < 0.5  # in 13 % of data sets with 200 others none is above the threshold of 1 %
    none_found = true_positives(torch.cat([others - 300, others]), torch.arange(400) < 200, 0.01)
    assert (none_found.value, none_found.low) == (0.0, 0.0)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("others", "rate"), [(178, 0.01), (1000, 0.01), (1000, 0.001)])
@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (0.5, 1.0), (1.8, 1.0), (0.3, 2.0)])
def test_intervals_of_true_positives_hold_the_share_at_the_true_rate(
    others: int, rate: float, shift: float, spread: float
) -> None:
    random = np.random.default_rng(others)
    share = norm.sf((norm.isf(rate) - shift) / spread)
    truth, held = torch.arange(200 + others) < 200, 0
    for _ in range(200):
        scores = np.concatenate([random.normal(shift, spread, 200), random.normal(0, 1, others)])
        found = true_positives(torch.from_numpy(scores), truth, rate)
        held += found.low <= share <= found.high
    assert held >= 180  # of 190: under a true coverage of 95 % fewer come out once in 1000 times


@pytest.mark.parametrize(
    ("others", "rate", "expected"),
    [(178, 0.01, 2 / 179), (300, 0.01, 4 / 301), (1000, 0.01, 11 / 1001), (1000, 0.001, 2 / 1001)],
)
def test_guessing_finds_slightly_more_than_the_rate(others: int, rate: float, expected: float) -> None:
    assert found_by_chance(others, rate) == pytest.approx(expected)
    random = np.random.default_rng(others)
    drawn = torch.from_numpy(random.normal(size=(2000, 20 + others)))
    # the value of true_positives without its interval
    shares = [_found(one[:20], one[20:], _allowed(rate, others)) / 20 for one in drawn]
    assert true_positives(drawn[0], torch.arange(20 + others) < 20, rate).value == shares[0]
    assert abs(np.mean(shares) - expected) < 4 * np.std(shares) / len(shares) ** 0.5
    assert np.mean(shares) > rate


def test_a_rate_that_no_other_could_be_within_is_refused_with_the_number_that_is_needed() -> None:
    scores, truth = scored(50, 999, 0.0, 1)
    with pytest.raises(UsageError, match=r"0\.1 % needs at least 1000 images .* there are 999"):
        true_positives(scores, truth, 0.001)
    assert TruePositives1().measure(ScoredCandidates(scores, truth)).estimate.n == 50
    assert true_positives(*scored(50, 1000, 0.0, 1), 0.001).n == 50
    with pytest.raises(UsageError, match="at least 100 images"):
        true_positives(*scored(50, 99, 0.0, 1), 0.01)


def test_the_tail_s_p_is_that_of_all_orders() -> None:
    """Of 3 members and 4 others in every order: the share of orders that find as many members."""
    orders = list(itertools.combinations(range(7), 3))  # places of the members, the highest first

    def found(places: tuple[int, ...], allowed: int) -> int:
        others = [place for place in range(7) if place not in places]
        return sum(place < others[allowed] for place in places)

    for allowed, rate in ((0, 0.0), (1, 0.25)):
        for places in orders:
            scores = torch.tensor([7.0 - place for place in range(7)]).double()
            truth = torch.tensor([place in places for place in range(7)])
            expected = sum(found(other, allowed) >= found(places, allowed) for other in orders) / len(orders)
            assert tail_p(scores, truth, rate) == pytest.approx(expected)


def test_few_that_are_given_away_for_certain_are_found_where_the_average_says_nothing() -> None:
    scores, truth = scored(500, 500, 0.0, 4)
    scores[:10] = 100.0
    scores[10:30] = -100.0  # and the average does not rise
    given = ScoredCandidates(scores, truth)
    assert MembershipP().measure(given).estimate.value > 0.05
    assert MembershipTailP().measure(given).estimate.value < 0.01


@pytest.mark.slow
def test_the_tail_s_p_is_small_no_more_often_than_it_says() -> None:
    """Of 2000 draws without members to find, below .05 at most 5 % and some more by chance: 134 at p = .001."""
    values = [
        MembershipTailP().measure(ScoredCandidates(*scored(100, 150, 0.0, s))).estimate.value for s in range(2000)
    ]
    assert sum(value < 0.05 for value in values) <= 134


def test_the_advantage_is_scikit_learn_s_largest_difference() -> None:
    scores, truth = scored(60, 90, 0.8, 6)
    fpr, tpr, _ = roc_curve(truth.numpy(), scores.numpy())
    estimate = advantage(scores, truth)
    assert estimate.value == pytest.approx(float((tpr - fpr).max()))
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1
    apart = advantage(torch.arange(40.0).double(), torch.arange(40) >= 20)
    assert (apart.value, apart.high) == (1.0, 1.0)
    assert 0.7 < apart.low < 1


@pytest.mark.long
@pytest.mark.slow
def test_the_advantage_of_a_guess_has_0_within_its_interval() -> None:
    """A maximum over thresholds is above 0 by itself: the interval takes that away. All but 1.5 of 60 at most are
    expected to have it, all but 5 at p = .004."""
    estimates = [advantage(*scored(100, 100, 0.0, seed)) for seed in range(60)]
    assert sum(one.low <= 0 for one in estimates) >= 55
    assert np.mean([one.value for one in estimates]) > 0.05


def test_the_roc_is_scikit_learn_s_at_its_false_positives() -> None:
    scores, truth = scored(80, 300, 0.7, 7)
    fpr, tpr, _ = roc_curve(truth.numpy(), scores.numpy(), drop_intermediate=False)
    points = roc(scores, truth)
    assert points[0][0] == 0 and points[-1] == (1.0, 1.0)
    assert len(points) < 60
    for rate, found in points:
        assert found == pytest.approx(tpr[fpr <= rate + 1e-12].max())


def test_members_against_members_are_alike_whatever_the_others_are() -> None:
    scores, truth = scored(400, 400, 3.0, 8)
    halves = MembersAgainstMembers().measure(ScoredCandidates(scores, truth)).estimate
    assert halves.low < 0.5 < halves.high
    assert halves.n == 400
    # a network that was trained to answer differently about halves that somebody could have guessed
    for seed in range(3):
        guessed, made = truth.nonzero().squeeze(1), scores.clone()
        made[guessed[torch.randperm(400, generator=torch.Generator().manual_seed(seed))[:200]]] += 3.0
        halves = MembersAgainstMembers().measure(ScoredCandidates(made, truth)).estimate
        assert halves.low < 0.5 < halves.high
    with pytest.raises(UsageError, match="two or more"):
        MembersAgainstMembers().measure(ScoredCandidates(torch.rand(3).double(), torch.tensor([True, False, False])))
