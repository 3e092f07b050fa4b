"""Gradient search in the latent space: from the pool's best up, by the victim's own confidence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakbench.attacks.generative_prior import GenerativePrior
from leakbench.contracts import Access, AttackContext, ImageClassifier, PublicImages, Reconstruction, Victim
from leakbench.data import Dataset
from leakbench.errors import NoSignal
from leakbench.snn import SpikingNetwork

TARGETS = torch.arange(10)
FAST = {"gan_steps": 150, "pool": 300}


def attacked(network: ImageClassifier | SpikingNetwork, digits: Dataset, **params: Any) -> Reconstruction:
    # upside-down digits: of the private ones' kind, and most of them none
    public = PublicImages(digits.train.images.flip(2), "the tests'")
    attack = GenerativePrior(**{**FAST, **params})
    return attack(
        Victim(network, Access.WEIGHTS), TARGETS, AttackContext(torch.Generator().manual_seed(0), public=public)
    )


def confidence(ann: ImageClassifier, images: Tensor) -> Tensor:
    reached: Tensor = ann(images).softmax(1).gather(1, TARGETS[:, None]).squeeze(1)
    return reached


@pytest.mark.long
@pytest.mark.slow
def test_it_climbs_above_the_pool_and_more_starts_never_lower_it(digits_ann: ImageClassifier, digits: Dataset) -> None:
    # one unshifted answer: what chooses is then what is compared
    def reached(**params: Any) -> Tensor:
        return confidence(digits_ann, attacked(digits_ann, digits, pool=40, confidence_draws=1, **params).images)

    pool = reached(iterations=1, starts=1, lr=1e-6)
    one, two = reached(iterations=30, starts=1), reached(iterations=30, starts=2)
    assert one.mean() > pool.mean() + 0.1
    assert (one >= pool - 1e-3).all()
    assert (two >= one - 1e-6).all()
    assert (two > one + 1e-6).any()


@pytest.mark.slow
def test_what_it_took(digits_snn: SpikingNetwork, digits: Dataset) -> None:
    made = attacked(digits_snn, digits, iterations=4, starts=2, confidence_draws=3)
    # the pool's best and each start's end; the pool itself is scored by the twin, without asking
    assert made.cost.queries == 3 * 3 * 10
    assert made.cost.gradient_steps == 2 * 4
    assert sum(value for name, value in made.findings.items() if name.startswith("images won by")) == 10
    assert 0 <= made.findings["share of starts in their class"] <= 1


@pytest.mark.long
@pytest.mark.slow
def test_the_scale_of_the_logits_does_not_matter(digits_ann: ImageClassifier, digits: Dataset) -> None:
    scaled = nn.Sequential(digits_ann.body, Scale(2.0**-6))
    small = ImageClassifier(scaled, digits_ann.image_shape, 10, digits_ann.input_range).eval().requires_grad_(False)
    ends = [attacked(network, digits, iterations=10, starts=1) for network in (digits_ann, small)]
    # a power of two changes no digit: the same search; the victim's choice between its two ends may be another
    same = [torch.equal(*pair) for pair in zip(ends[0].images, ends[1].images, strict=True)]
    assert sum(same) >= 7


@pytest.mark.slow
def test_a_victim_without_gradients_gives_no_signal(digits_ann: ImageClassifier, digits: Dataset) -> None:
    stepped = nn.Sequential(Step(), digits_ann.body)
    network = ImageClassifier(stepped, digits_ann.image_shape, 10).eval().requires_grad_(False)
    with pytest.raises(NoSignal, match="zero gradients: generative_prior: start 1 of 3"):
        attacked(network, digits, iterations=2)


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Step(nn.Module):
    """Pixels become black or white: the answers differ, and no gradient says how."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 1.0).round()
