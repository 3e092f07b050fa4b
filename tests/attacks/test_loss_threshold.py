"""Membership from the loss, against its formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakbench.attacks.loss_threshold import LossThreshold
from leakbench.contracts import Access, AttackContext, ImageClassifier, MembershipScores, TrainingData, Victim
from leakbench.data import Dataset
from leakbench.snn import SpikingNetwork


def scored(network: Any, images: Tensor, labels: Tensor, **params: int) -> MembershipScores:
    context = AttackContext(torch.Generator().manual_seed(0))
    return LossThreshold(**params)(Victim(network, Access.SCORES), images, labels, context)


def pixels(scale: float = 1.0) -> ImageClassifier:
    """A network whose logits are the pixels, times ``scale``."""
    layer = nn.Linear(2, 2, bias=False)
    nn.init.eye_(layer.weight)
    layer.weight.data *= scale
    return ImageClassifier(nn.Sequential(nn.Flatten(), layer), (1, 1, 2), 2).requires_grad_(False)


def test_the_score_is_the_log_odds_of_minus_the_cross_entropy_of_the_true_label() -> None:
    images = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]).view(3, 1, 1, 2)
    labels = torch.tensor([1, 1, 0])
    outcome = scored(pixels(), images, labels, repeats=3)
    loss = [-math.log1p(math.exp(-1)), -math.log1p(math.exp(1)), -math.log(2)]
    assert torch.allclose(torch.nn.functional.logsigmoid(outcome.scores), torch.tensor(loss).double(), atol=1e-7)
    assert outcome.cost.queries == 3 * 3
    assert outcome.cost.gradient_steps == 0


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e-3, 1.0, 40.0, 1e4, 1e30])
def test_the_scale_of_the_logits_hides_nothing(scale: float) -> None:
    """A network that multiplies them decides as before, and its probabilities are 1, or equal, to the last digit."""
    images = torch.rand(200, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 2
    plain, scaled = (scored(pixels(each), images, labels).scores for each in (1.0, scale))
    assert scaled.isfinite().all() and len(scaled.unique()) == len(plain.unique()) > 190
    assert torch.equal(scaled.argsort(), plain.argsort())


def test_a_spiking_victims_probabilities_are_averaged(digits: Dataset, digits_snn: SpikingNetwork) -> None:
    images, labels = digits.test.images[:20].float() / 255, digits.test.labels[:20]
    digits_snn.reseed(5)
    outcome = scored(digits_snn, images, labels, repeats=3)
    digits_snn.reseed(5)
    answers = torch.stack([digits_snn(images).softmax(1) for _ in range(3)])
    assert not torch.equal(answers[0], answers[1])  # noise of its own each time
    expected = answers.double().mean(0).gather(1, labels[:, None]).squeeze(1).logit()
    assert torch.allclose(outcome.scores, expected, atol=1e-5)


def test_one_answer_ranks_as_the_loss_does(digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    images, labels = digits_data.sample(50, torch.Generator().manual_seed(1))
    outcome = scored(digits_ann, images, labels, repeats=1)
    losses = nn.functional.cross_entropy(digits_ann(images), labels, reduction="none")
    assert torch.equal(outcome.scores.argsort(), losses.double().argsort(descending=True))
