"""Membership metrics against scikit-learn, closed forms, and how often the interval holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import roc_auc_score
from torch import Tensor

from leakbench.errors import LeakBenchError, NumericalError, UsageError
from leakbench.metrics.membership import MembershipAuc, MembershipP, ScoredCandidates, auc


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
