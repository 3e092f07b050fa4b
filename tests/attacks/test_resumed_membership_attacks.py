"""Attacks on membership that are interrupted end with the scores and the cost of those that are not."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from interruption import Checkpoints, goes_on
from memorisers import Planted, planted

from leakbench import registry
from leakbench.contracts import Access, AttackContext, LabeledImages, Progress, Reference, Victim
from leakbench.data import Dataset
from leakbench.snn import SpikingNetwork

ATTACKS: dict[str, dict[str, Any]] = {
    "attack_p": {"repeats": 3},
    "rmia": {"repeats": 2},
    "lira": {"repeats": 2},
    "bavaria": {"repeats": 2},
    "noise_mia": {"draws": 4},
    "label_only_mia": {"draws": 4},
    "gradient_mia": {},
    "shadow_mia": {"repeats": 2},
    "auto_mia-v1": {},
    "auto_mia-v2": {},
    "auto_mia-v3": {},
}
SPIKING: dict[str, dict[str, Any]] = {
    "threshold_membership": {"draws": 2},
    "trajectory_mia": {"repeats": 1},
    "auto_mia-v2": {},
    "auto_mia-v3": {},
}


def run(name: str, params: dict[str, Any], given: Planted, context: AttackContext, victim: Victim) -> Any:
    outcome = registry.load("attack", name)(**params)(victim, given.candidates.images, given.candidates.labels, context)
    return outcome.scores.tolist(), outcome.cost.queries, outcome.cost.gradient_steps, dict(outcome.findings)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_interrupted_attack_ends_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    given = planted(1.0, candidates=20, population=12)

    def once(progress: Progress, checkpoints: Checkpoints | None) -> Any:
        generator = torch.Generator().manual_seed(3)
        context = AttackContext(generator, progress=progress, checkpoints=checkpoints)
        context.references, context.population = given.context.references, given.context.population
        return run(name, ATTACKS[name], given, context, given.victim())

    goes_on(once, tmp_path, 0.6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lira", *SPIKING])
def test_so_does_one_on_a_network_whose_answers_are_noisy(
    name: str, digits: Dataset, digits_snn: SpikingNetwork, tmp_path: Path
) -> None:
    images, labels = digits.test.images[:8].float() / 255, digits.test.labels[:8]
    first, second = torch.arange(8) < 4, torch.arange(8) % 2 == 0
    asked = planted(0.0, candidates=8)
    given = replace(asked, candidates=LabeledImages(images, labels))

    def opened(seed: int = 7) -> Victim:
        network = copy.deepcopy(digits_snn)
        network.reseed(seed)
        return Victim(network, Access.WEIGHTS)

    references = tuple(Reference(members, opened) for half in (first, second) for members in (half, ~half))

    def once(progress: Progress, checkpoints: Checkpoints | None) -> Any:
        generator = torch.Generator().manual_seed(3)
        context = AttackContext(generator, progress=progress, checkpoints=checkpoints, references=references)
        return run(name, {**ATTACKS, **SPIKING}[name], given, context, opened(5))

    goes_on(once, tmp_path, 0.6)
