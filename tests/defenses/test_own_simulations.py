"""Attacks with the weights on networks that simulate in their own way: coded in time, with adaptive neurons."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from on_digits import protect

from leakbench import registry
from leakbench.contracts import Access, Attack, AttackContext, Defense, ImageClassifier, TrainingData, Victim
from leakbench.defenses.adaptive import Zambrano2019
from leakbench.defenses.switch import HanRoy2020


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    "defense", [HanRoy2020(images=50), Zambrano2019(images=50, finetune=False)], ids=lambda defense: defense.name
)
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("reconversion", {"iterations": 20}),
        ("inversion", {"iterations": 40, "restarts": 1}),
        ("analog_twin", {"iterations": 40, "restarts": 1}),
        ("direct", {"iterations": 50, "zeta": 0.05}),
        ("surrogate_zoo", {"iterations": 30, "trial": 2, "finalists": 1}),
    ],
)
def test_attacks_work_on_it(
    defense: Defense[Any], name: str, params: dict[str, Any], digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = protect(defense, digits_ann, digits_data, 32)
    attack: Attack[Any] = registry.load("attack", name)(**params)
    made = attack(Victim(network, Access.WEIGHTS), torch.arange(10), AttackContext(torch.Generator().manual_seed(0)))
    noise = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(6))
    before, after = (network(images, seed=0).softmax(1).diagonal().mean() for images in (noise, made.images))
    assert after > before + 0.1
