"""Attacks that are interrupted end with the images, the costs and the findings of those that are not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from interruption import Checkpoints, goes_on

from leakbench import registry
from leakbench.attacks import auto
from leakbench.attacks.loss_threshold import LossThreshold
from leakbench.contracts import Access, AttackContext, Progress, PublicImages, Victim
from leakbench.data import Dataset
from leakbench.snn import SpikingNetwork

_GAN: dict[str, Any] = {"gan_steps": 4, "pool": 20}
ATTACKS: dict[str, dict[str, Any]] = {
    "reconversion": {"iterations": 8},
    "direct": {"iterations": 8},
    "inversion": {"iterations": 6, "restarts": 2},
    "analog_twin": {"iterations": 6, "restarts": 2},
    "surrogate_zoo": {"iterations": 4, "trial": 2, "estimators": "own+rga+current", "finalists": 2},
    "spsa": {"iterations": 6},
    "extraction": {"queries": 100, "steps": 6, "iterations": 4, "restarts": 1, "width": 4},
    "decrypt": {"images": 40, "glance": 3, "steps": 6, "iterations": 4, "restarts": 2},
    "generative_prior": _GAN | {"iterations": 4, "starts": 2},
    "evolution": _GAN | {"iterations": 4, "population": 4},
    "label_only": _GAN | {"iterations": 4, "points": 5},
}
"""name -> parameters that keep it fast"""


def test_every_attack_on_classes_is_here() -> None:
    plugins = {name: registry.load("attack", name) for name in registry.entries("attack")}
    assert ATTACKS.keys() == {
        name for name, plugin in plugins.items() if plugin.leakage == "inversion" and not plugin.ensemble
    }


def context_of(progress: Progress, checkpoints: Checkpoints | None, public: PublicImages | None) -> AttackContext:
    # draws from the global generator count, too
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(3)
    return AttackContext(generator, progress=progress, checkpoints=checkpoints, public=public, flips=True)


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.4, 0.95])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_interrupted_attack_ends_as_if_it_had_not_been(
    name: str, part: float, digits: Dataset, digits_snn: SpikingNetwork, tmp_path: Path
) -> None:
    public = PublicImages(digits.train.images[:50].flip(2), "the tests'")

    def run(progress: Progress, checkpoints: Checkpoints | None) -> Any:
        attack = registry.load("attack", name)(**ATTACKS[name])
        victim = Victim(copy.deepcopy(digits_snn), Access.WEIGHTS)
        context = context_of(progress, checkpoints, public)
        outcome = attack(victim, torch.tensor([0, 3, 3]), context)
        cost = outcome.cost.queries, outcome.cost.gradient_steps
        snapshots = [(one.budget, one.images.tolist()) for one in outcome.snapshots]
        # the next draws are those of an uninterrupted run, too
        draws = context.seed(), torch.rand(1).item()
        return outcome.images.tolist(), cost, list(outcome.findings.items()), outcome.spent, snapshots, draws

    goes_on(run, tmp_path, part)


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_batches_that_were_done_are_not_searched_again(
    part: float, digits_ann: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches of each restart, the first of which is interrupted or done."""
    search = registry.load("attack", "inversion").run.__globals__["search"]
    monkeypatch.setitem(
        registry.load("attack", "inversion").run.__globals__,
        "search",
        lambda *args, **more: search(*args, **more, size=2),
    )

    def run(progress: Progress, checkpoints: Checkpoints | None) -> Any:
        attack = registry.load("attack", "inversion")(iterations=5, restarts=2)
        outcome = attack(
            Victim(digits_ann, Access.WEIGHTS), torch.tensor([0, 3, 3]), context_of(progress, checkpoints, None)
        )
        cost = outcome.cost.queries, outcome.cost.gradient_steps, outcome.spent
        assert outcome.cost.gradient_steps == 2 * 2 * 5 and outcome.spent == 2 * 5 + 2 * 4  # of each image half
        return outcome.images.tolist(), cost, [(one.budget, one.images.tolist()) for one in outcome.snapshots]

    goes_on(run, tmp_path, part)


@pytest.mark.slow
def test_answers_that_were_given_are_not_asked_for_again(
    digits: Dataset, digits_snn: SpikingNetwork, tmp_path: Path
) -> None:
    images, labels = digits.test.images[:5].float() / 255, digits.test.labels[:5]
    asked: list[int] = []

    class Counting(SpikingNetwork):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            asked[-1] += len(args[0]) == len(images)  # others are the framework's probes
            return super().forward(*args, **kwargs)

    def run(progress: Progress, checkpoints: Checkpoints | None) -> Any:
        asked.append(0)
        network = copy.deepcopy(digits_snn)
        network.__class__ = Counting
        victim = Victim(network, Access.SCORES)
        outcome = LossThreshold(repeats=4)(victim, images, labels, context_of(progress, checkpoints, None))
        return outcome.scores.tolist(), outcome.cost.queries

    goes_on(run, tmp_path, 0.5)
    assert asked == [4, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_an_ensemble_goes_on_in_the_member_that_was_interrupted(
    part: float, digits_snn: SpikingNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = tuple(registry.load("attack", name)(**ATTACKS[name]) for name in ("inversion", "spsa", "analog_twin"))
    monkeypatch.setattr(auto, "ATTACKS", members)

    def run(progress: Progress, checkpoints: Checkpoints | None) -> Any:
        victim = Victim(copy.deepcopy(digits_snn), Access.WEIGHTS)
        outcome = auto.AutoV1()(victim, torch.tensor([0, 3, 3]), context_of(progress, checkpoints, None))
        cost = outcome.cost.queries, outcome.cost.gradient_steps, outcome.spent
        snapshots = [(one.budget, one.images.tolist()) for one in outcome.snapshots]
        return outcome.images.tolist(), cost, list(outcome.findings.items()), snapshots

    goes_on(run, tmp_path, part)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("ensemble_in_short")
@pytest.mark.parametrize("part", [0.2, 0.4, 0.9])
@pytest.mark.parametrize("name", registry.together("attack", "auto"))
def test_the_newest_ensemble_goes_on_in_the_lesson_or_the_member_that_was_interrupted(
    name: str, part: float, digits: Dataset, digits_snn: SpikingNetwork, tmp_path: Path
) -> None:
    public = PublicImages(digits.train.images[:50].flip(2), "the tests'")

    def run(progress: Progress, checkpoints: Checkpoints | None) -> Any:
        victim = Victim(copy.deepcopy(digits_snn), Access.WEIGHTS)
        attack = registry.load("attack", name)()
        outcome = attack(victim, torch.tensor([0, 3, 3]), context_of(progress, checkpoints, public))
        cost = outcome.cost.queries, outcome.cost.gradient_steps
        return outcome.images.tolist(), cost, list(outcome.findings.items())

    goes_on(run, tmp_path, part)
