"""The deployed network hands out what the threat model allows."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from tiny_plugins import SHAPE, tiny
from torch import Tensor, nn

from leakbench.contracts import Access, Cost, ImageClassifier, Victim
from leakbench.errors import NoSignal, NotApplicable
from leakbench.models.storage import build_ann
from leakbench.snn import SpikingConfig, SpikingNetwork


def test_a_victim_at_some_access_never_grants_more_than_it_has() -> None:
    cost = Cost()
    assert Victim(tiny(), Access.LABELS).restricted_to(Access.WEIGHTS, cost).access == Access.LABELS
    assert Victim(tiny(), Access.WEIGHTS).restricted_to(Access.SCORES, cost).access == Access.SCORES
    assert Access.LABELS < Access.SCORES < Access.WEIGHTS


def test_answers_of_a_victim() -> None:
    network = tiny()
    images = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    victim = Victim(network, Access.SCORES)
    scores = victim.scores(images)
    assert torch.equal(scores, network(images))
    assert not scores.requires_grad  # no gradients without the weights
    assert torch.equal(victim.labels(images), scores.argmax(1))
    assert victim.cost.queries == 12
    assert (victim.image_shape, victim.classes) == (SHAPE, 3)


def test_a_refused_query_costs_nothing() -> None:
    victim = Victim(tiny(), Access.LABELS)
    with pytest.raises(NotApplicable):
        victim.scores(torch.zeros(4, *SHAPE))
    assert victim.cost.queries == 0


def silent_snn() -> SpikingNetwork:
    """Of which no neuron ever reaches its threshold, and whose ReLU network answers."""
    ann = build_ann("vgg4", (1, 8, 8), 3, (0, 1), torch.Generator().manual_seed(0))
    network = SpikingNetwork.from_ann(ann, SpikingConfig(4))
    for layer in network.neurons:
        layer.set_threshold(torch.tensor(1e6))
    return network.requires_grad_(False)


@pytest.mark.parametrize("needs", Access)
def test_a_spiking_network_that_is_silent_has_its_weights_to_tell(needs: Access) -> None:
    victim = Victim(silent_snn(), Access.WEIGHTS)
    with nullcontext() if needs == Access.WEIGHTS else pytest.raises(NoSignal, match="constant network"):
        victim.require_answers(needs)
    # whose images are there answers by its answers to them
    with pytest.raises(NoSignal, match="and the images that are asked about, the same answer"):
        victim.require_answers(needs, torch.rand(5, 1, 8, 8))


def test_a_network_that_answers_to_the_images_alone_that_are_asked_about_can_be_attacked() -> None:
    class Known(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            mean = images.flatten(1).mean(1, keepdim=True)
            return torch.where((mean - 0.123).abs() < 1e-3, torch.tensor([[1.0, 0, 0]]), torch.zeros(1, 3))

    body = nn.Sequential(Known(), nn.Linear(3, 3))
    victim = Victim(ImageClassifier(body, SHAPE, 3).requires_grad_(False), Access.SCORES)
    with pytest.raises(NoSignal, match="constant network"):
        victim.require_answers(Access.SCORES)
    victim.require_answers(Access.SCORES, torch.full((2, *SHAPE), 0.123))
