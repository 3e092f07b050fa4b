"""The ensemble that trusts no claim of the victim: its budget, its choice by readings, and what decoys do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakbench import registry
from leakbench.attacks import auto_v2
from leakbench.attacks.auto_v2 import (
    AGREEMENT,
    GRADIENT_STEPS,
    LIKENESS,
    QUERIES,
    SHARED_QUERIES,
    SUSPECTED,
    AutoV2,
    Candidates,
    Member,
    Reading,
    chosen,
    margins,
    run_members,
)
from leakbench.contracts import Access, AttackContext, ImageClassifier, PublicImages, Reconstruction, Victim
from leakbench.data import Dataset
from leakbench.errors import NoSignal, NotApplicable, UsageError
from leakbench.snn import SpikingNetwork

Quick = Callable[..., None]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Quick:
    """Few steps of everything."""

    def change(**more: int) -> None:
        usual = auto_v2._INVERSION.params.model_copy(update={"iterations": 3})
        for member in (auto_v2._INVERSION, auto_v2._TWIN):
            monkeypatch.setattr(member, "params", usual)
        monkeypatch.setattr(auto_v2, "_GLANCE", usual)
        few = {"_LESSON": 60, "_HELD_OUT": 20, "SHARED_QUERIES": 80, "_PUPIL_STEPS": 3, "_REPAIR_STEPS": 3}
        for name, value in {**few, **more}.items():
            monkeypatch.setattr(auto_v2, name, value)

    return change


def run(
    network: SpikingNetwork | ImageClassifier, targets: Tensor, public: Tensor, seed: int = 0
) -> tuple[Reconstruction, AttackContext]:
    if isinstance(network, SpikingNetwork):
        network.reseed(seed)
    context = AttackContext(torch.Generator().manual_seed(seed), public=PublicImages(public, "the tests'"))
    return AutoV2()(Victim(network, Access.WEIGHTS), targets, context), context


@pytest.fixture
def public(digits: Dataset) -> Tensor:
    return digits.train.images[:200].flip(2)


def test_it_has_no_knobs_and_is_the_newest() -> None:
    with pytest.raises(UsageError, match=r"unknown parameter auto-v2\.iterations"):
        AutoV2(iterations=3)
    assert registry.load("attack", "auto") is AutoV2


def test_it_needs_weights_and_public_images(digits_ann: ImageClassifier) -> None:
    context = AttackContext(torch.Generator())
    with pytest.raises(NotApplicable, match="auto-v2 needs public images"):
        AutoV2()(Victim(digits_ann, Access.WEIGHTS), torch.tensor([0]), context)
    with pytest.raises(NotApplicable, match="auto-v2 needs WEIGHTS"):
        AutoV2()(Victim(digits_ann, Access.SCORES), torch.tensor([0]), context)


@pytest.mark.slow
def test_the_budget_is_what_it_spends_at_most(
    monkeypatch: pytest.MonkeyPatch, digits_snn: SpikingNetwork, public: Tensor
) -> None:
    monkeypatch.setattr(auto_v2, "SAME", -10.0)  # nothing is suspected, so that all members' images are read
    _, context = run(digits_snn, torch.tensor([2, 5]), public)
    found = context.findings
    assert found["budget, gradient steps an image"] == GRADIENT_STEPS
    assert found["budget, queries an image"] == QUERIES
    assert found["budget, queries for all images"] == SHARED_QUERIES
    assert found[SUSPECTED] == 0 < found[LIKENESS.format("pruned copies")]
    # both images fit one batch, and all of it was spent
    assert context.cost.gradient_steps == GRADIENT_STEPS
    assert context.cost.queries == SHARED_QUERIES + 2 * QUERIES


def test_the_same_seed_gives_the_same_images(
    quick: Quick, digits_snn: SpikingNetwork, public: Tensor, digits_ann: ImageClassifier
) -> None:
    quick()
    for network in (digits_ann, digits_snn):
        first, again, other = (run(network, torch.tensor([1, 7]), public, seed)[0].images for seed in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)


def test_members_run_whatever_the_victim_claims(quick: Quick, digits_ann: ImageClassifier, public: Tensor) -> None:
    """A victim that is certain of its class costs as many steps as one that is not."""
    quick()
    certain, timid = (copied(digits_ann, factor) for factor in (1e6, 1e-6))
    costs = [run(network, torch.tensor([3, 4]), public)[1].cost.gradient_steps for network in (certain, timid)]
    searches = 3 * (auto_v2._SEARCHES + 2 * auto_v2._COPIES + 4 * auto_v2._PRUNED_COPIES)
    assert costs == [searches + 3 + 3 * auto_v2._COPIES] * 2


def copied(ann: ImageClassifier, factor: float) -> ImageClassifier:
    """The same network with its logits times a factor."""
    import copy

    network = copy.deepcopy(ann)
    with torch.no_grad():
        list(network.parameters())[-1].mul_(factor)
    return network


MEMBER = Member("fake", lambda images: images, auto_v2._INVERSION.params)


def logits_by(bright: float, dark: float) -> Callable[[Tensor], Tensor]:
    """Class 0 gets ``bright`` where an image is bright and ``dark`` where it is not; class 1 gets 0."""

    def model(images: Tensor) -> Tensor:
        lit = images.flatten(1).mean(1) > 0.5
        return torch.stack([torch.where(lit, bright, dark), torch.zeros(len(images))], 1)

    return model


def test_an_image_that_only_the_victim_likes_loses() -> None:
    trap, picture = (
        Candidates(Member(name, MEMBER.model, MEMBER.params), torch.full((1, 1, 2, 2), value))
        for name, value in (("trap", 0.9), ("picture", 0.1))
    )
    victim = Reading("victim", logits_by(2.0, 1.5), 1.0)
    others = [Reading(name, logits_by(-1.0, 1.0), 1.0) for name in ("one", "other")]
    context = AttackContext(torch.Generator().manual_seed(0))
    target = torch.tensor([0])
    assert torch.equal(chosen([trap, picture], [victim], target, context), trap.images)
    assert torch.equal(chosen([trap, picture], [victim, *others], target, context), picture.images)
    assert context.findings["images won by picture"] == 1 and context.findings["images won by trap"] == 0


def test_margins_are_in_the_units_of_the_reading_and_no_number_counts_for_nothing() -> None:
    images = Candidates(MEMBER, torch.full((2, 1, 2, 2), 0.9))
    context = AttackContext(torch.Generator().manual_seed(0))
    small, large = (
        margins(Reading("r", logits_by(3.0 * unit, 0.0), unit), images, torch.tensor([0, 1]), context)
        for unit in (1e-8, 1e8)
    )
    assert torch.allclose(small, torch.tensor([3.0, -3.0])) and torch.allclose(small, large)
    broken = Reading("broken", logits_by(float("nan"), 0.0), 1.0)
    assert margins(broken, images, torch.tensor([0, 1]), context).tolist() == [0, 0]


def test_pictures_of_the_copies_that_lost_most_are_believed_where_decoys_are_suspected(
    monkeypatch: pytest.MonkeyPatch, quick: Quick, digits_ann: ImageClassifier, public: Tensor
) -> None:
    quick()
    kept: list[Any] = []

    def watched(drawn: Any, readings: Any, *more: Any) -> Tensor:
        kept.append(({own.member.copies for own in drawn}, {reading.name for reading in readings}))
        return chosen(drawn, readings, *more)

    monkeypatch.setattr(auto_v2, "chosen", watched)
    monkeypatch.setattr(auto_v2, "LEAST_LIKENESS", -10.0)
    names = "repaired copies", "pruned copies"
    for least, suspected in ((-10.0, 0), (10.0, 1)):
        monkeypatch.setattr(auto_v2, "SAME", least)
        findings = run(digits_ann, torch.tensor([0]), public)[1].findings
        assert findings[SUSPECTED] == suspected
    trusted = min(names, key=lambda name: findings[LIKENESS.format(name)])
    (all_members, usual), (only, of_copies) = kept
    assert all_members == {None, *names} and "the victim" in usual
    assert only == {trusted} and of_copies == {f"one of the {trusted}"}


def test_masked_from_one_member_is_not_masked_from_all() -> None:
    blind = Member("blind", lambda images: 0 * images.flatten(1)[:, :2], auto_v2._GLANCE)
    seeing = Member("seeing", lambda images: images.flatten(1)[:, :2], auto_v2._GLANCE)
    context = AttackContext(torch.Generator().manual_seed(0))
    drawn = run_members([blind, seeing], torch.tensor([0]), (1, 2, 2), context, 0)
    assert [own.member.name for own in drawn] == ["seeing"] and context.findings["no signal to blind"] == 1
    assert run_members([blind, blind], torch.tensor([0]), (1, 2, 2), context, 0) == []


def test_a_victim_without_any_gradient_gives_no_signal(
    quick: Quick, digits_ann: ImageClassifier, public: Tensor
) -> None:
    quick()
    with pytest.raises(NoSignal):
        run(copied(digits_ann, 0.0), torch.tensor([0]), public)


def test_a_network_without_a_layer_to_prune_is_attacked_all_the_same(quick: Quick, public: Tensor) -> None:
    quick()
    body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    outcome, context = run(ImageClassifier(body, (1, 8, 8), 4), torch.tensor([0, 3]), public)
    assert outcome.images.shape == (2, 1, 8, 8)
    assert LIKENESS.format("pruned copies") not in context.findings


def test_the_first_images_cost_as_little_as_a_search(quick: Quick, digits_ann: ImageClassifier, public: Tensor) -> None:
    """Who stops early has what the ReLU network draws: students come after it."""
    quick()
    outcome, _ = run(digits_ann, torch.tensor([3, 4]), public)
    assert outcome.snapshots[0].budget == 1


def test_the_agreement_is_a_share(quick: Quick, digits_ann: ImageClassifier, public: Tensor) -> None:
    quick()
    assert 0 <= run(digits_ann, torch.tensor([0]), public)[1].findings[AGREEMENT] <= 1


def test_to_agree_with_a_constant_answer_tells_nothing() -> None:
    assert auto_v2.above_constant(1.0, torch.zeros(8, dtype=torch.long)) == 0
    half = torch.tensor([0, 0, 1, 2])
    assert [auto_v2.above_constant(share, half) for share in (0.25, 0.5, 0.75, 1.0)] == [0, 0, 0.5, 1]


def test_pictures_with_nothing_in_common_say_nothing_of_decoys(
    monkeypatch: pytest.MonkeyPatch, quick: Quick, digits_ann: ImageClassifier, public: Tensor
) -> None:
    quick()
    monkeypatch.setattr(auto_v2, "LEAST_LIKENESS", 10.0)
    assert SUSPECTED not in run(digits_ann, torch.tensor([0]), public)[1].findings
