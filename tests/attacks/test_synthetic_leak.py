"""Which images a synthetic set is near to."""

from __future__ import annotations

import math

import pytest
import torch
from memorisers import Planted, planted
from scipy.spatial.distance import cdist
from torch import Tensor

from leakbench.attacks.synthetic_leak import SyntheticLeak, distances
from leakbench.errors import NotApplicable
from leakbench.metrics.membership import auc, true_positives

RANDOM = torch.Generator().manual_seed(4)


def scores(given: Planted, synthetic: Tensor | None, neighbours: int = 1) -> Tensor:
    given.context.synthetic = synthetic
    attack = SyntheticLeak(neighbours=neighbours)
    outcome = attack(given.victim(), given.candidates.images, given.candidates.labels, given.context)
    assert outcome.cost.queries == 0  # it is the set that is looked at, and not the victim
    return outcome.scores


@pytest.mark.parametrize("neighbours", [1, 3, 50])
def test_distances_are_those_of_the_nearest(neighbours: int) -> None:
    images, others = torch.rand(7, 1, 4, 4, generator=RANDOM), torch.rand(20, 1, 4, 4, generator=RANDOM)
    expected = cdist(images.flatten(1), others.flatten(1))
    expected.sort(1)
    assert distances(images, others, neighbours).tolist() == pytest.approx(expected[:, :neighbours].mean(1).tolist())


def test_the_score_is_how_much_further_the_population_is() -> None:
    given = planted(0.0, candidates=40, population=30)
    synthetic = torch.rand(25, 1, 4, 4, generator=RANDOM)
    assert given.context.population is not None
    near, usual = (
        cdist(given.candidates.images.flatten(1), others.flatten(1)).min(1)
        for others in (synthetic, given.context.population.images)
    )
    made = scores(given, synthetic)
    assert made.exp().tolist() == pytest.approx((usual / near).tolist())


def test_copies_give_their_originals_away_however_little_is_left_of_them() -> None:
    given = planted(0.0)
    copied = given.candidates.images[given.members][:50]
    exact = scores(given, copied)
    assert math.isfinite(exact.max())
    assert true_positives(exact, given.members, 0.01).value >= 50 / 200
    noise = 0.5 * torch.rand(200, 1, 4, 4, generator=RANDOM)
    blurred = (given.candidates.images[given.members] + noise).clamp(0, 1)
    assert auc(scores(given, blurred), given.members).low > 0.6


def test_of_images_of_nobody_chance_is_within_the_interval() -> None:
    areas = []
    for seed in range(8):
        given = planted(0.0, seed=seed)
        areas.append(auc(scores(given, torch.rand(100, 1, 4, 4, generator=RANDOM)), given.members))
    assert sum(area.low <= 0.5 <= area.high for area in areas) >= 6


def test_a_defence_that_synthesised_nothing_is_not_asked() -> None:
    with pytest.raises(NotApplicable, match="synthetic_leak needs images that the defence synthesised"):
        scores(planted(0.0, candidates=20), None)
