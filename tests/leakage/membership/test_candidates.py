"""Candidates and what references are trained on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from planned_cells import planned
from torch import Tensor

from leakbench.bench.pipeline import Pipeline
from leakbench.cells import AttackCell, ReferenceCell
from leakbench.contracts import Cost, MembershipScores
from leakbench.data import Split
from leakbench.errors import NotApplicable
from leakbench.leakage.halves import halves
from leakbench.leakage.membership.candidates import (
    candidates_of,
    population_of,
    question_of,
    reference_training,
    unseen_training,
)
from leakbench.leakage.membership.kind import Score
from leakbench.runtime.workspace import Settings, Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    cache = tmp_path_factory.mktemp("candidates") / "cache"
    return Pipeline(Settings(cache=str(cache)), lambda *_: None).workspace


@pytest.fixture(scope="module")
def cells() -> dict[str, AttackCell]:
    made = planned(attack=["lira"], defense=["han2020"], preset="quick")
    return {cell.defense.name: cell for cell in made if type(cell) is AttackCell}


def reading(workspace: Workspace, count: int) -> Tensor:
    read = torch.zeros(len(workspace.dataset("digits").train), dtype=torch.bool)
    read[torch.randperm(len(read), generator=torch.Generator().manual_seed(0))[:count]] = True
    return read


def test_references_are_as_large_as_the_victim_and_pairs_are_complementary(
    workspace: Workspace, cells: dict[str, AttackCell]
) -> None:
    cell = cells["han2020"]
    data = workspace.dataset("digits")
    asked = candidates_of(workspace, cell, lambda: reading(workspace, 0))
    assert cell.references == 4
    made = [
        reference_training(workspace, ReferenceCell.beside(cell, number), lambda: reading(workspace, 0))
        for number in range(4)
    ]
    inside = torch.stack([one.members for one in made])
    assert (inside.sum(0) == 2).all()
    assert torch.equal(inside[0], ~inside[1]) and torch.equal(inside[2], ~inside[3])
    assert not torch.equal(inside[0], inside[2])
    for one in made:
        assert len(one.images) == len(one.labels) == len(data.train)
        known = {image.numpy().tobytes() for image in one.images}
        trained = torch.tensor([image.numpy().tobytes() in known for image in asked.images])
        assert torch.equal(trained, one.members)
        # what the victim was trained on and is no candidate, all of it
        rest = torch.ones(len(data.train), dtype=torch.bool)
        rest[asked.rows[asked.members]] = False
        assert all(image.numpy().tobytes() in known for image in data.train.images[rest])
        # in their places, and so are members: who reads the first images reads as many candidates as of the victim
        rest[asked.rows[asked.members & one.members]] = True
        assert torch.equal(one.images[rest], data.train.images[rest])
        assert torch.equal(one.labels[rest], data.train.labels[rest])


def test_references_of_the_overfitted_control_are_as_small_as_it(
    workspace: Workspace, cells: dict[str, AttackCell]
) -> None:
    cell, read = cells["overfitted"], reading(workspace, 100)
    asked = candidates_of(workspace, cell, lambda: read)
    assert len(asked.labels) == 200
    assert bool(read[asked.rows[asked.members]].all())
    made = reference_training(workspace, ReferenceCell.beside(cell, 1), lambda: read)
    assert len(made.images) == int(made.members.sum()) == 100


def test_asked_of_the_conversion_members_are_what_it_read_and_others_what_it_did_not(
    workspace: Workspace, cells: dict[str, AttackCell]
) -> None:
    cell, read = cells["han2020"], reading(workspace, 16)
    asked = candidates_of(workspace, cell, lambda: read, "conversion")
    assert torch.equal(read[asked.rows], asked.members)
    assert int(asked.members.sum()) == 16
    assert len(asked.labels) == 16 + min(1000, int((~read).sum()))
    # all were read: test images are the others; none was: nothing to ask for but what the network was trained on
    for count in (len(read), 0):
        whole = reading(workspace, count)
        usual = candidates_of(workspace, cell, lambda whole=whole: whole)
        made = candidates_of(workspace, cell, lambda whole=whole: whole, "conversion")
        assert torch.equal(made.members, usual.members) and torch.equal(made.images, usual.images)
        assert bool((made.rows[~made.members] == -1).all())


def test_the_population_is_of_the_half_that_has_no_candidates(
    workspace: Workspace, cells: dict[str, AttackCell]
) -> None:
    data = workspace.dataset("digits")
    population = population_of(workspace, cells["han2020"])
    _, others = halves(data.test.labels)
    assert len(population.labels) == len(others)
    shown = {(image * 255).round().byte().numpy().tobytes() for image in population.images}
    assert shown == {image.numpy().tobytes() for image in data.test.images[others]}


def test_the_network_trained_on_other_images_has_seen_no_candidate_and_no_copy_of_one(
    workspace: Workspace, cells: dict[str, AttackCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cell = workspace.dataset("digits"), cells["unseen"]
    asked = candidates_of(workspace, cell, lambda: reading(workspace, 0))
    usual = candidates_of(workspace, cells["han2020"], lambda: reading(workspace, 0))
    assert torch.equal(asked.images, usual.images)  # the very images that are asked about of the networks in question
    made = unseen_training(workspace, cell)
    assert len(made.images) == len(made.labels) == len(data.train) - int(asked.members.sum())
    held = {image.numpy().tobytes() for image in made.images}
    assert not any(image.numpy().tobytes() in held for image in asked.images)
    twin = data.train.images.clone()
    copied, by = asked.rows[asked.members][0], next(n for n in range(len(twin)) if n not in asked.rows.tolist())
    twin[by] = twin[copied]
    changed(workspace, monkeypatch, twin, data.test)
    again = unseen_training(workspace, cell)
    asked = candidates_of(workspace, cell, lambda: reading(workspace, 0))
    held = {image.numpy().tobytes() for image in again.images}
    assert not any(image.numpy().tobytes() in held for image in asked.images)


def test_without_half_of_the_training_images_it_would_be_another_network(
    workspace: Workspace, cells: dict[str, AttackCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = workspace.dataset("digits")
    few = Split(data.train.images[:250], data.train.labels[:250])
    made = replace(data, train=few, fingerprint="few")
    monkeypatch.setattr(workspace, "dataset", lambda _name: made)
    with pytest.raises(NotApplicable, match="too few training images are left"):
        unseen_training(workspace, cells["unseen"])


def test_of_the_conversion_the_network_trained_on_other_images_is_asked_about_those(
    workspace: Workspace, cells: dict[str, AttackCell]
) -> None:
    """Of a defence that read all training images or none the others are test images, as they are of this control."""
    asked = candidates_of(workspace, cells["unseen"], lambda: reading(workspace, 16), "conversion")
    assert torch.equal(asked.rows, candidates_of(workspace, cells["unseen"], lambda: reading(workspace, 0)).rows)
    assert bool((asked.rows[~asked.members] == -1).all())


def test_the_question_is_that_of_the_training_where_the_conversion_read_all_or_nothing(
    workspace: Workspace, cells: dict[str, AttackCell]
) -> None:
    every = len(workspace.dataset("digits").train)
    told = [question_of(cells["han2020"], reading(workspace, count), "conversion") for count in (0, 16, every)]
    assert told == ["training", "conversion", "training"]
    assert question_of(cells["unseen"], reading(workspace, 16), "conversion") == "training"
    assert question_of(cells["han2020"], reading(workspace, 16), "training") == "training"


def changed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, train: Tensor, test: Split) -> None:
    """The digits with other training images, and another test set."""
    digits = workspace.dataset("digits")
    name = f"{train.sum()}-{test.images.sum()}-{len(test)}"
    made = replace(digits, train=Split(train, digits.train.labels), test=test, fingerprint=name)
    monkeypatch.setattr(workspace, "dataset", lambda _name: made)


def test_an_image_on_both_sides_is_no_candidate(
    workspace: Workspace,
    cells: dict[str, AttackCell],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data, cell, read = workspace.dataset("digits"), cells["han2020"], reading(workspace, 16)
    nonmembers, _ = halves(data.test.labels)
    train = data.train.images.clone()
    train[:5] = data.test.images[nonmembers[:5]]
    _, others = halves(data.test.labels)
    train[5:7] = data.test.images[others[:2]]  # of the population
    one, other = int(read.nonzero()[-1]), int((~read).nonzero()[-1])
    train[other] = train[one]  # the one is read, the other is not
    changed(workspace, monkeypatch, train, data.test)
    asked = candidates_of(workspace, cell, lambda: read)
    held = {image.numpy().tobytes() for image in train}
    assert sum(image.numpy().tobytes() in held for image in asked.images) == int(asked.members.sum())
    assert int(asked.members.sum()) == int((~asked.members).sum()) == len(nonmembers) - 5
    assert not set(asked.rows.tolist()) & {*range(5)}
    assert "digits: training images among the test images: 7, no candidates" in caplog.text
    assert (asked.left_out, Score(asked).inputs["left_out"]) == (10, 10)  # of five pairs both
    population = population_of(workspace, cell)
    assert not held & {(image * 255).round().byte().numpy().tobytes() for image in population.images}
    conversion = candidates_of(workspace, cell, lambda: read, "conversion")
    assert int(conversion.members.sum()) == 15 and not {one, other} & set(conversion.rows.tolist())


def test_what_an_attack_writes_into_labels_and_images_stays_with_it(
    workspace: Workspace, cells: dict[str, AttackCell]
) -> None:
    asked = candidates_of(workspace, cells["han2020"], lambda: torch.zeros(0))
    images, labels = asked.images.clone(), asked.labels.clone()

    def attack(_victim: object, handed: Tensor, of: Tensor, _context: object) -> MembershipScores:
        handed.zero_()
        of.zero_()
        return MembershipScores(torch.zeros(len(of)), Cost(), {})

    context: Any = SimpleNamespace()
    task = Score(asked)
    stored = task.to_tensors(task.run(attack, None, context), context)  # type: ignore[arg-type]
    assert torch.equal(stored["labels"], labels) and torch.equal(asked.images, images)


def test_without_a_candidate_on_either_side_nothing_can_be_asked(
    workspace: Workspace, cells: dict[str, AttackCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = workspace.dataset("digits")
    changed(workspace, monkeypatch, data.train.images, Split(data.train.images[:50], data.train.labels[:50]))
    with pytest.raises(NotApplicable, match="every image that could be asked about is among the members"):
        candidates_of(workspace, cells["han2020"], lambda: reading(workspace, 0))


def test_one_test_image_of_a_class_is_no_population(
    workspace: Workspace, cells: dict[str, AttackCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = workspace.dataset("digits")
    firsts = torch.tensor([int((data.test.labels == c).nonzero()[0]) for c in range(10)])
    changed(workspace, monkeypatch, data.train.images, Split(data.test.images[firsts], data.test.labels[firsts]))
    assert int((~candidates_of(workspace, cells["han2020"], lambda: reading(workspace, 0)).members).sum()) == 10
    with pytest.raises(NotApplicable, match="none is left to compare with"):
        population_of(workspace, cells["han2020"])


def test_a_preset_says_how_many_are_asked_about(workspace: Workspace, cells: dict[str, AttackCell]) -> None:
    assert {cell.candidates for cell in cells.values()} == {300}
    assert {cell.candidates for cell in planned(attack=["lira"], defense=["han2020"], preset="standard")} == {1000}
    few = cells["han2020"].model_copy(update={"candidates": 7})
    asked = candidates_of(workspace, few, lambda: reading(workspace, 0))
    assert (int(asked.members.sum()), int((~asked.members).sum())) == (7, 7)
    assert len(population_of(workspace, few).labels) == 7
