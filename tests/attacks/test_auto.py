"""The ensemble: its budget, which images go on to dearer attacks, and what masked gradients do to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from leakbench.attacks import auto
from leakbench.attacks.auto import GRADIENT_STEPS, QUERIES, AutoV1
from leakbench.contracts import Access, Attack, AttackContext, ImageClassifier, Params, Victim
from leakbench.errors import NoSignal, UsageError
from leakbench.snn import SpikingNetwork

TEN = torch.arange(10)


def spent(network: SpikingNetwork | ImageClassifier, targets: Tensor = TEN) -> AttackContext:
    context = AttackContext(torch.Generator().manual_seed(0))
    AutoV1()(Victim(network, Access.WEIGHTS), targets, context)
    return context


def test_it_has_no_knobs() -> None:
    with pytest.raises(UsageError, match=r"unknown parameter auto-v1\.iterations"):
        AutoV1(iterations=3)


@pytest.mark.long
@pytest.mark.slow
def test_the_budget_holds_and_is_printed(digits_snn: SpikingNetwork) -> None:
    context = spent(digits_snn, torch.tensor([2, 5]))
    found = context.findings
    assert found["budget, gradient steps an image"] == GRADIENT_STEPS
    assert found["budget, queries an image"] == QUERIES
    assert context.cost.queries <= 2 * QUERIES
    assert context.cost.gradient_steps <= GRADIENT_STEPS  # both fit one batch


@pytest.mark.long
@pytest.mark.slow
def test_the_budget_is_what_its_attacks_may_spend(monkeypatch: pytest.MonkeyPatch, digits_snn: SpikingNetwork) -> None:
    """No image ever satisfies: everything is tried, and the figures are exact."""
    monkeypatch.setattr(auto, "SATISFIED", 2.0)
    context = spent(digits_snn, torch.tensor([3]))
    assert context.cost.gradient_steps == GRADIENT_STEPS
    assert context.cost.queries == QUERIES


class Fixed(Attack[Params]):
    """Hands back grey of one brightness, or finds nothing."""

    name = "fixed"
    needs = Access.WEIGHTS

    def __init__(self, name: str, brightness: float | None) -> None:
        super().__init__()
        self.name, self.brightness = name, brightness  # type: ignore[misc]
        self.asked: list[Tensor] = []

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:  # noqa: ARG002
        self.asked.append(targets)
        if self.brightness is None:
            raise NoSignal("zero gradients: none")
        return torch.full((len(targets), *victim.image_shape), self.brightness)


def bright_or_dark() -> ImageClassifier:
    linear = torch.nn.Linear(4, 2, bias=False)
    torch.nn.init.constant_(linear.weight[0], 2.0)
    torch.nn.init.constant_(linear.weight[1], -2.0)
    body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU(), linear)
    return ImageClassifier(body, (1, 2, 2), 2).eval().requires_grad_(False)


def ensemble(monkeypatch: pytest.MonkeyPatch, *attacks: Any) -> AttackContext:
    monkeypatch.setattr(auto, "ATTACKS", attacks)
    context = AttackContext(torch.Generator().manual_seed(0))
    AutoV1()(Victim(bright_or_dark(), Access.WEIGHTS), torch.tensor([0, 1, 0]), context)
    return context


def test_only_images_that_satisfy_nobody_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # bright images are class 0 for certain; class 1 is never better than even
    first, again, last = Fixed("a", 0.9), Fixed("b", 0.8), Fixed("c", 0.0)
    found = ensemble(monkeypatch, first, again, last).findings
    assert [targets.tolist() for targets in (*first.asked, *again.asked, *last.asked)] == [[0, 1, 0], [1], [1]]
    assert found["images that went on to c"] == 1
    assert found["images won by a"] == 2


def test_masked_from_one_attack_is_not_masked_from_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ensemble(monkeypatch, Fixed("blind", None), Fixed("seeing", 0.9), Fixed("other", 0.9)).findings
    assert found["no signal to blind"] == 1
    with pytest.raises(NoSignal, match="zero gradients"):
        ensemble(monkeypatch, Fixed("blind", None), Fixed("blind too", None))


@pytest.mark.slow
def test_on_its_way_it_has_the_best_of_the_members_that_were_done(
    monkeypatch: pytest.MonkeyPatch, digits_ann: ImageClassifier
) -> None:
    """What a later member is at is shown when it was compared; its steps count for the images that it works on."""
    first = auto.Inversion(iterations=15, restarts=1, confidence_draws=1)
    second = auto.Inversion(iterations=100, restarts=1, confidence_draws=1)
    monkeypatch.setattr(auto, "ATTACKS", (first, second))
    victim, context = Victim(digits_ann, Access.WEIGHTS), AttackContext(torch.Generator().manual_seed(0))
    one = first(victim, TEN, AttackContext(torch.Generator().manual_seed(0)))
    monkeypatch.setattr(auto, "SATISFIED", 0.6)
    made = AutoV1()(victim, TEN, context)
    went_on = context.findings["images that went on to inversion"]
    assert 0 < went_on < 10
    assert made.spent == 15 + 1 + auto.DRAWS + 100 + 1 + auto.DRAWS
    (kept,) = made.snapshots
    assert kept.budget == 30
    assert torch.equal(kept.images, (one.images * 255).round().to(torch.uint8))
