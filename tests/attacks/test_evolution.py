"""Evolution in the latent space: from scores alone, above the pool's best."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from leakbench.attacks.evolution import Evolution, _weights
from leakbench.contracts import Access, AttackContext, ImageClassifier, PublicImages, Reconstruction, Victim
from leakbench.data import Dataset
from leakbench.snn import SpikingNetwork

TARGETS = torch.arange(10).repeat_interleave(2)


def attacked(network: ImageClassifier | SpikingNetwork, digits: Dataset, **params: Any) -> Reconstruction:
    # upside-down digits: of the private ones' kind, and most of them none
    public = PublicImages(digits.train.images.flip(2), "the tests'")
    attack = Evolution(**{"gan_steps": 150, "pool": 300, **params})
    return attack(
        Victim(network, Access.SCORES), TARGETS, AttackContext(torch.Generator().manual_seed(0), public=public)
    )


@pytest.mark.slow
def test_it_raises_the_confidence_above_the_pools_best(digits_ann: ImageClassifier, digits: Dataset) -> None:
    made = attacked(digits_ann, digits, iterations=10, confidence_draws=1)
    before, after = (made.findings[f"confidence, {name}"] for name in ("the pool", "evolution"))
    assert after > before + 0.05
    reached = digits_ann(made.images).softmax(1).gather(1, TARGETS[:, None])
    assert float(reached.mean()) >= after - 1e-5


@pytest.mark.slow
def test_it_raises_it_through_spikes_too(digits_snn: SpikingNetwork, digits: Dataset) -> None:
    network = digits_snn.configured(digits_snn.config)  # its noise starts anew, as of one from the store
    made = attacked(network, digits, iterations=10)
    assert made.findings["confidence, evolution"] > made.findings["confidence, the pool"]


@pytest.mark.parametrize("iterations", [2, 4])
def test_the_pool_is_asked_once_and_every_generation_once(
    iterations: int, digits_ann: ImageClassifier, digits: Dataset
) -> None:
    made = attacked(digits_ann, digits, gan_steps=1, pool=150, iterations=iterations, population=6, confidence_draws=3)
    # both candidates of an image are confirmed by three answers
    assert made.cost.queries == 150 + 20 * (6 * iterations + 2 * 3)
    assert made.cost.gradient_steps == iterations


def test_weights_are_those_of_the_strategys_authors() -> None:
    raw = [math.log(4.5) - math.log(rank) for rank in (1, 2, 3, 4)]
    assert _weights(4).tolist() == pytest.approx([value / sum(raw) for value in raw])
    assert _weights(1).tolist() == [1.0]
