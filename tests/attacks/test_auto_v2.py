"""The recommended ensemble: its parts, their budgets, and that no claim of the victim stops them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakbench import registry
from leakbench.attacks import auto_v2, distilled, pruned, repaired
from leakbench.contracts import Access, AttackContext, ImageClassifier, PublicImages, Reconstruction, Victim
from leakbench.data import Dataset
from leakbench.errors import NoSignal, NotApplicable, UsageError
from leakbench.snn import SpikingNetwork

MODULES: dict[str, Any] = {"auto-v2": auto_v2, "repaired": repaired, "pruned": pruned, "distilled": distilled}
PARTS = registry.together("attack", "auto")
every = pytest.mark.parametrize("name", PARTS)
short = pytest.mark.usefixtures("ensemble_in_short")


def run(
    name: str, network: SpikingNetwork | ImageClassifier, targets: Tensor, public: Tensor, seed: int = 0
) -> tuple[Reconstruction, AttackContext]:
    if isinstance(network, SpikingNetwork):
        network.reseed(seed)
    context = AttackContext(torch.Generator().manual_seed(seed), public=PublicImages(public, "the tests'"))
    attack: Callable[..., Reconstruction] = registry.load("attack", name)()
    return attack(Victim(network, Access.WEIGHTS), targets, context), context


@pytest.fixture
def public(digits: Dataset) -> Tensor:
    return digits.train.images[:200].flip(2)


def test_auto_is_all_of_its_newest_version_and_has_no_knobs() -> None:
    assert PARTS == tuple(MODULES) == registry.together("attack", "auto-v2")
    assert registry.together("attack", "direct") == ("direct",)
    for name in PARTS:
        with pytest.raises(UsageError, match=rf"unknown parameter {name}\.iterations"):
            registry.load("attack", name)(iterations=3)


@every
def test_it_says_what_it_needs(name: str, digits_ann: ImageClassifier) -> None:
    attack = registry.load("attack", name)()
    public = PublicImages(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "the tests'")
    with pytest.raises(NotApplicable, match=f"{name} needs {attack.needs.name}"):
        context = AttackContext(torch.Generator(), public=public)
        attack(Victim(digits_ann, Access(attack.needs - 1)), torch.tensor([0]), context)
    if attack.uses_public:
        with pytest.raises(NotApplicable, match=f"{name} needs public images"):
            attack(Victim(digits_ann, Access.WEIGHTS), torch.tensor([0]), AttackContext(torch.Generator()))


@pytest.mark.long
@pytest.mark.slow
@every
def test_the_budget_is_what_it_spends(name: str, digits_snn: SpikingNetwork, public: Tensor) -> None:
    module = MODULES[name]
    _, context = run(name, digits_snn, torch.tensor([2, 5]), public)
    found = context.findings
    assert found["budget, gradient steps an image"] == module.GRADIENT_STEPS
    assert found.get("budget, queries an image", 0) == getattr(module, "QUERIES", 0)
    assert found.get("budget, queries for all images", 0) == getattr(module, "SHARED_QUERIES", 0)
    # both images fit one batch, and all of it was spent
    assert context.cost.gradient_steps == module.GRADIENT_STEPS
    assert context.cost.queries == getattr(module, "SHARED_QUERIES", 0) + 2 * getattr(module, "QUERIES", 0)


@pytest.mark.long
@pytest.mark.slow
@short
@every
def test_the_same_seed_gives_the_same_images(
    name: str, digits_snn: SpikingNetwork, public: Tensor, digits_ann: ImageClassifier
) -> None:
    for network in (digits_ann, digits_snn):
        first, again, other = (run(name, network, torch.tensor([1, 7]), public, seed)[0].images for seed in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)


@short
@every
def test_it_runs_whatever_the_victim_claims(name: str, digits_ann: ImageClassifier, public: Tensor) -> None:
    """A victim that is certain of its class costs as many steps as one that is not."""
    steps = {"auto-v2": 5 * 3, "repaired": (5 + 3 + 3) * 3, "pruned": (2 + 2 * 3) * 3, "distilled": (2 + 1) * 3}
    for factor in (1e6, 1e-6):
        _, context = run(name, scaled(digits_ann, factor), torch.tensor([3, 4]), public)
        assert context.cost.gradient_steps == steps[name]


def scaled(ann: ImageClassifier, factor: float) -> ImageClassifier:
    """The same network with its logits times a factor."""
    network = copy.deepcopy(ann)
    with torch.no_grad():
        list(network.parameters())[-1].mul_(factor)
    return network


@short
@pytest.mark.parametrize("name", [name for name in PARTS if name != "distilled"])  # whose student has a gradient
def test_a_victim_without_any_gradient_gives_no_signal(name: str, digits_ann: ImageClassifier, public: Tensor) -> None:
    with pytest.raises(NoSignal):
        run(name, scaled(digits_ann, 0.0), torch.tensor([0]), public)


@short
def test_a_network_without_a_layer_to_prune_is_attacked_by_the_others(public: Tensor) -> None:
    body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = ImageClassifier(body, (1, 8, 8), 4)
    for name in PARTS:
        if name == "pruned":
            with pytest.raises(NotApplicable, match="linear last layer"):
                run(name, network, torch.tensor([0, 3]), public)
        else:
            assert run(name, network, torch.tensor([0, 3]), public)[0].images.shape == (2, 1, 8, 8)


@short
def test_the_first_images_cost_as_little_as_a_search(digits_ann: ImageClassifier, public: Tensor) -> None:
    outcome, _ = run("auto-v2", digits_ann, torch.tensor([3, 4]), public)
    assert outcome.snapshots[0].budget == 1


@short
def test_the_student_is_handed_over(digits_ann: ImageClassifier, public: Tensor) -> None:
    outcome, _ = run("distilled", digits_ann, torch.tensor([0]), public)
    assert isinstance(outcome.student, ImageClassifier) and outcome.student is not digits_ann
    assert run("pruned", digits_ann, torch.tensor([0]), public)[0].student is None
