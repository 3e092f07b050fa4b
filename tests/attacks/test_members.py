"""What ensembles of several readings share: each search to its budget, and a choice that no reading makes alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from leakbench.attacks import members
from leakbench.attacks.members import INVERSION, Candidates, Member, Reading, chosen, margins, run_members
from leakbench.contracts import AttackContext
from leakbench.contracts.snapshots import Snapshots

QUICK = INVERSION.params.model_copy(update={"iterations": 3})
MEMBER = Member("fake", lambda images: images)
TARGET = torch.tensor([0])


def context() -> AttackContext:
    return AttackContext(torch.Generator().manual_seed(0))


def logits_by(bright: float, dark: float) -> Callable[[Tensor], Tensor]:
    """Class 0 gets ``bright`` where an image is bright and ``dark`` where it is not; class 1 gets 0."""

    def model(images: Tensor) -> Tensor:
        lit = images.flatten(1).mean(1) > 0.5
        return torch.stack([torch.where(lit, bright, dark), torch.zeros(len(images))], 1)

    return model


def drawn(*brightness: float, images: int = 1) -> list[Candidates]:
    return [Candidates(Member(f"of {one}", MEMBER.model), torch.full((images, 1, 2, 2), one)) for one in brightness]


def test_an_image_that_only_the_victim_likes_loses() -> None:
    trap, picture = both = drawn(0.9, 0.1)
    victim = Reading("victim", logits_by(2.0, 1.5))
    others = [Reading(name, logits_by(-1.0, 1.0)) for name in ("one", "other")]
    assert torch.equal(chosen("test", both, [victim], TARGET, context()), trap.images)
    here = context()
    assert torch.equal(chosen("test", both, [victim, *others], TARGET, here), picture.images)
    assert here.findings["images won by of 0.1"] == 1 and here.findings["images won by of 0.9"] == 0


def test_many_images_are_read_in_parts_that_change_no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(650, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    drawn_by, targets, sizes = [Candidates(MEMBER, images)], torch.arange(650) % 4, []

    def model(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.flatten(1)

    in_parts = margins("test", Reading("r", model), drawn_by, targets, context())
    assert max(sizes) == 300
    monkeypatch.setattr(members, "_TOGETHER", 1000)
    assert torch.equal(margins("test", Reading("r", model), drawn_by, targets, context()), in_parts)
    assert max(sizes) == 650


def test_margins_are_in_the_units_of_the_reading_and_no_number_counts_for_nothing() -> None:
    targets, both = torch.tensor([0, 1]), drawn(0.9, 0.1, images=2)
    small, usual, large = (
        margins("test", Reading("r", logits_by(3.0 * unit, 1.0 * unit)), both, targets, context())
        for unit in (1e-8, 1.0, 1e8)
    )
    assert small.shape == (2, 2) and torch.allclose(small, usual) and torch.allclose(large, usual)
    assert torch.allclose(usual[0] / usual[1], torch.tensor([3.0, 3.0]))
    assert (usual[:, 0] > 0).all() and (usual[:, 1] < 0).all()
    broken = Reading("broken", logits_by(float("nan"), 0.0))
    assert not margins("test", broken, both[:1], targets, context()).any()
    halves = [logits_by(3.0, 1.0), logits_by(3.0, float("inf"))]
    whole, half = (margins("test", Reading("r", model), both, targets, context()) for model in halves)
    assert torch.equal(half[0].sign(), whole[0].sign()) and half[0].all()
    assert not half[1].any()  # of images without a number nothing is known, of the others as much as before
    silent = Reading("silent", lambda images: torch.zeros(len(images), 2))
    assert not margins("test", silent, both, targets, context()).any()


def test_each_target_pays_for_its_own_batch_in_every_member() -> None:
    member = Member("seeing", lambda images: images.flatten(1)[:, :2], QUICK)
    here, targets = context(), torch.zeros(600, dtype=torch.long)
    here.snapshots = Snapshots(here.cost, len(targets), (1, 2, 2))
    run_members("test", [member, member], targets, (1, 2, 2), here)
    assert here.snapshots.spent == 2 * QUICK.iterations


def test_masked_from_one_member_is_not_masked_from_all() -> None:
    blind = Member("blind", lambda images: 0 * images.flatten(1)[:, :2], QUICK)
    seeing = Member("seeing", lambda images: images.flatten(1)[:, :2], QUICK)
    here = context()
    found = run_members("test", [blind, seeing], TARGET, (1, 2, 2), here)
    assert [own.member.name for own in found] == ["seeing"] and here.findings["no signal to blind"] == 1
    assert run_members("test", [blind, blind], TARGET, (1, 2, 2), context()) == []
