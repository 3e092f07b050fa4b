"""RMIA and LiRA against a second derivation of their papers' formulas, and on networks without members to find."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from memorisers import Planted, planted
from scipy.stats import norm

from leakbench.attacks.auto_mia_v3 import AutoMiaV3
from leakbench.attacks.confidences import Confidences, true_class
from leakbench.attacks.lira import Lira, Normal, online_score
from leakbench.attacks.rmia import Rmia
from leakbench.contracts import LabeledImages, MembershipAttack
from leakbench.errors import NotApplicable
from leakbench.metrics.membership import auc


def probabilities(network: Any, asked: LabeledImages) -> np.ndarray:
    """Of the true classes, in float64, written out."""
    logits = network(asked.images).double().numpy()
    e = np.exp(logits - logits.max(1, keepdims=True))
    p: np.ndarray = (e / e.sum(1, keepdims=True))[np.arange(len(e)), asked.labels.numpy()]
    return p


def all_of(given: Planted, asked: LabeledImages) -> tuple[np.ndarray, np.ndarray]:
    """Of the victim [N], and of the references [K, N]."""
    networks = [reference.victim().network for reference in given.context.references]
    return probabilities(given.network, asked), np.array([probabilities(network, asked) for network in networks])


def scores(attack: Any, given: Planted) -> np.ndarray:
    outcome = attack(given.victim(), given.candidates.images, given.candidates.labels, given.context)
    made: np.ndarray = outcome.scores.numpy()
    return made


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_rmia_is_the_paper_s(mode: str, gamma: float) -> None:
    given = planted(1.0, candidates=80, population=50)
    masks = np.array([reference.members.numpy() for reference in given.context.references])
    assert given.context.population is not None
    p_x, refs_x = all_of(given, given.candidates)
    p_z, refs_z = all_of(given, given.context.population)
    a = 0.3
    ratio_z = p_z / (refs_z.mean(0) if mode == "online" else (1 + a) / 2 * refs_z.mean(0) + (1 - a) / 2)
    expected = []
    for n in range(80):
        out = refs_x[~masks[:, n], n].mean()
        inside = refs_x[masks[:, n], n].mean() if mode == "online" else a * out + (1 - a)
        expected.append(np.mean(p_x[n] / ((inside + out) / 2) / ratio_z > gamma))
    made = scores(Rmia(mode=mode, gamma=gamma, offline_a=a, repeats=1), given)
    # images of one share differ by less than the distance to the next share
    assert np.floor(made * 50 + 1e-9) / 50 == pytest.approx(np.array(expected))
    assert (np.unique(expected).size, np.unique(made).size) == (pytest.approx(30, abs=20), 80)


@pytest.mark.parametrize("variance", ["global", "sample"])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_lira_is_the_paper_s(mode: str, variance: str) -> None:
    given = planted(1.0, candidates=80)
    masks = np.array([reference.members.numpy() for reference in given.context.references])
    p, refs = all_of(given, given.candidates)
    phi, phis = np.log(p / (1 - p)), np.log(refs / (1 - refs))

    def fitted(n: int, chosen: np.ndarray) -> tuple[float, float]:
        values = phis[chosen[:, n], n]
        residuals = np.concatenate([phis[chosen[:, m], m] - phis[chosen[:, m], m].mean() for m in range(80)])
        pooled = math.sqrt((residuals**2).sum() / (len(residuals) - 80))
        return values.mean(), values.std(ddof=1) if variance == "sample" else pooled

    expected = []
    for n in range(80):
        mean_out, std_out = fitted(n, ~masks)
        if mode == "online":
            mean_in, std_in = fitted(n, masks)
            expected.append(norm.logpdf(phi[n], mean_in, std_in) - norm.logpdf(phi[n], mean_out, std_out))
        else:
            expected.append(-norm.logsf(phi[n], mean_out, std_out))
    made = scores(Lira(mode=mode, variance=variance, repeats=1), given)
    assert made == pytest.approx(np.array(expected), rel=1e-5, abs=1e-5)


def test_calibrated_ratios_of_untrained_images_have_mean_0_and_variance_1() -> None:
    inside = Normal(torch.tensor([1.0, 5.0, 0.0]).double(), torch.tensor([0.5, 2.0, 1.0]).double())
    outside = Normal(torch.tensor([0.0, 0.0, 0.0]).double(), torch.tensor([1.0, 0.3, 1.0]).double())
    draws = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = online_score(draws * outside.variance.sqrt(), inside, outside, calibrated=True)
    assert made.mean(0).tolist() == pytest.approx([0, 0, 0], abs=0.02)
    assert made.var(0).tolist() == pytest.approx([1, 1, 0], abs=0.05)  # the third ratio is always 1
    plain = online_score(draws, inside, outside)
    for image in range(2):  # the same order within an image
        both = torch.stack([plain[:50, image], online_score(draws, inside, outside, calibrated=True)[:50, image]])
        assert torch.equal(both[0].argsort(), both[1].argsort())


def test_a_confidence_near_1_keeps_its_digits() -> None:
    answered = Confidences(*true_class(torch.tensor([[50.0, 0.0], [0.0, 50.0], [900.0, 0.0]]), torch.tensor([0, 0, 0])))
    assert answered.logits.tolist() == pytest.approx([50, -50, 900])


def test_too_few_references_are_refused() -> None:
    given = planted(1.0, candidates=20, references=2)
    with pytest.raises(NotApplicable, match="lira needs at least 4 reference networks, got 2"):
        scores(Lira(), given)


def holds_half(name: str, seed: int) -> bool:
    """Whether the interval of the AUC has .5 in it, of networks that remember nothing."""
    given = planted(0.0, seed=seed, candidates=120, population=60)
    attacks: dict[str, MembershipAttack[Any]] = {
        "rmia": Rmia(repeats=1),
        "lira": Lira(repeats=1),
        "auto_mia": AutoMiaV3(),
    }
    attack = attacks[name]
    area = auc(torch.from_numpy(scores(attack, given)), given.members)
    return area.low <= 0.5 <= area.high


@pytest.mark.parametrize("name", ["rmia", "lira", "auto_mia"])
def test_of_40_networks_that_remember_nothing_chance_is_within_35_intervals(name: str) -> None:
    assert sum(holds_half(name, seed) for seed in range(40)) >= 35
