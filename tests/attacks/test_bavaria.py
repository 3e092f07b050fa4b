"""BaVarIA's posterior, its prior and its predictive distribution against scipy, and its scores against LiRA's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from memorisers import planted
from scipy import stats
from torch import Tensor

from leakbench.attacks.bavaria import Bavaria, Prior, StudentT, fitted_prior, predictive
from leakbench.attacks.lira import Moments, moments, normal_of, online_score
from leakbench.errors import NotApplicable
from leakbench.metrics.membership import auc, true_positives

EVERY = torch.ones(3, 1, dtype=torch.bool)


def test_the_predictive_distribution_is_the_integral_over_means_and_variances() -> None:
    prior, values = Prior(mean=0.5, weight=0.7, variance=1.3, freedom=3.0), [1.0, 2.5, 1.2]
    made = predictive(moments(torch.tensor(values).double()[:, None], EVERY), prior)

    means, variances = np.linspace(-20, 20, 1201)[:, None], np.exp(np.linspace(-5, 8, 801))[None]
    density = stats.invgamma.pdf(variances, prior.freedom / 2, scale=prior.freedom * prior.variance / 2)
    density = density * variances * stats.norm.pdf(means, prior.mean, np.sqrt(variances / prior.weight))

    def evidence(*seen: float) -> float:
        return float((density * np.prod([stats.norm.pdf(one, means, np.sqrt(variances)) for one in seen], 0)).sum())

    for x in (0.0, 3.0):
        expected = evidence(*values, x) / evidence(*values)
        assert float(made.log_density(torch.tensor([x]).double()).exp()) == pytest.approx(expected, rel=1e-3)


def test_density_and_tail_are_scipy_s() -> None:
    x = torch.tensor([-3.0, 0.0, 1.0, 8.0, 30.0]).double()
    made = StudentT(*(torch.full((5,), value).double() for value in (0.5, 2.0, 7.0)))
    theirs = stats.t(7.0, 0.5, 2.0)
    assert made.log_density(x).tolist() == pytest.approx(theirs.logpdf(x.numpy()).tolist())
    assert made.log_above(x).tolist() == pytest.approx(theirs.logsf(x.numpy()).tolist())


def test_tails_that_no_float_holds_keep_their_order() -> None:
    x = torch.tensor([30.0, 36.0, 37.0, 40.0, 60.0]).double()
    made = StudentT(*(torch.full((5,), value).double() for value in (0.0, 1.0, 2e6))).log_above(x)
    assert made.tolist() == pytest.approx(stats.norm.logsf(x.numpy()).tolist(), rel=2e-3)
    assert (made.diff() < 0).all()


def drawn(count: int, references: int, freedom: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Means and variances of images, and [references, images] values of these: variances of so many degrees."""
    random = np.random.default_rng(seed)
    variance = 2.0 * freedom / random.chisquare(freedom, count)
    mean = 1.0 + np.sqrt(variance / 0.25) * random.normal(size=count)
    values = mean + np.sqrt(variance) * random.normal(size=(references, count))
    return torch.from_numpy(mean), torch.from_numpy(variance), torch.from_numpy(values)


@pytest.mark.parametrize("references", [4, 8])
def test_the_prior_is_found_from_values_alone(references: int) -> None:
    _, _, values = drawn(40_000, references, 12.0)
    prior = fitted_prior(moments(values, torch.ones_like(values, dtype=torch.bool)))
    assert prior.mean == pytest.approx(1.0, abs=0.1)
    assert prior.variance == pytest.approx(2.0, rel=0.1)
    assert prior.freedom == pytest.approx(12.0, rel=0.15)
    assert prior.weight == pytest.approx(0.25, rel=0.1)


def test_images_of_one_variance_are_given_it() -> None:
    values = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 5000)))
    made = predictive(moments(values, torch.ones_like(values, dtype=torch.bool)))
    assert made.scale.tolist() == pytest.approx([1.0] * 5000, rel=0.15)
    assert made.mean.abs().max() < 0.1


def test_values_that_do_not_vary_give_finite_scores() -> None:
    made = predictive(Moments(torch.zeros(4).double(), torch.zeros(4).double(), torch.full((4,), 2)))
    for scores in (made.log_density(torch.arange(4).double()), made.log_above(torch.arange(4).double())):
        assert torch.isfinite(scores).all()


def simulated(references: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The victim's values [N] and its members, the references' [K, N] and theirs: images differ in everything."""
    random, count = np.random.default_rng(seed), 2000
    hard, gain = random.normal(2, 3, count), np.abs(random.normal(1, 0.5, count))
    spread = np.sqrt(1 / random.gamma(3, 0.5, count))
    halves = np.stack([random.permutation(count) < count // 2 for _ in range(references // 2 + 1)])
    trained = np.concatenate([halves[1:], ~halves[1:]])

    def values(inside: np.ndarray) -> Tensor:
        return torch.from_numpy(hard + gain * inside + spread * random.normal(size=inside.shape))

    return values(halves[0]), torch.from_numpy(halves[0]), values(trained), torch.from_numpy(trained)


def areas(references: int) -> tuple[float, float, float, float]:
    """AUC of BaVarIA and of LiRA's better variance, and both their shares of members found at 1 % FPR; of 6 draws."""
    rows = []
    for seed in range(6):
        x, members, values, trained = simulated(references, seed)
        inside, outside = (predictive(moments(values, who)).log_density(x) for who in (trained, ~trained))
        ours = inside - outside
        lira = [online_score(x, *(normal_of(values, who, own) for who in (trained, ~trained))) for own in (True, False)]
        of = [(auc(score, members).value, true_positives(score, members, 0.01).value) for score in (ours, *lira)]
        rows.append((of[0][0], max(of[1][0], of[2][0]), of[0][1], max(of[1][1], of[2][1])))
    return tuple(np.mean(rows, 0))  # type: ignore[return-value]


@pytest.mark.parametrize("references", [4, 16])
def test_it_is_no_worse_than_lira_with_either_variance(references: int) -> None:
    ours, lira, found, found_by_lira = areas(references)
    assert ours > lira - 0.002
    assert found > 1.1 * found_by_lira


def scored(height: float, seed: int = 0, mode: str = "online", references: int = 8) -> tuple[Tensor, Tensor]:
    """Scores, and who is a member."""
    given = planted(height, seed=seed, references=references)
    attack = Bavaria(mode=mode, repeats=1)
    outcome = attack(given.victim(), given.candidates.images, given.candidates.labels, given.context)
    return outcome.scores, given.members


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_it_finds_members_of_a_memoriser_and_chance_is_in_its_interval_without(mode: str) -> None:
    assert true_positives(*scored(4.0, mode=mode), 0.01).value > 0.9
    empty = [auc(*scored(0.0, seed, mode)) for seed in range(8)]
    assert sum(area.low <= 0.5 <= area.high for area in empty) >= 6


def test_too_few_references_are_refused() -> None:
    with pytest.raises(NotApplicable, match="bavaria needs at least 4 reference networks, got 2"):
        scored(1.0, references=2)
