"""The deployed network hands out what the threat model allows."""

from __future__ import annotations

import pytest
import torch
from tiny_plugins import SHAPE, tiny

from leakbench.contracts import Access, Cost, Victim
from leakbench.errors import NotApplicable


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
