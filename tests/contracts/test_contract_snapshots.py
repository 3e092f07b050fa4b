"""What an attack offers on its way: what is kept of it, at what cost, and that it changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from leakbench.contracts import Access, Attack, AttackContext, ImageClassifier, Params, Reconstruction, Victim
from leakbench.contracts.snapshots import LADDER
from leakbench.errors import PluginError

SHAPE = (1, 2, 2)
Run = Callable[[Victim, Tensor, AttackContext], None]


class Scripted(Attack[Params]):
    """Does what a test says, and hands back white images."""

    name = "scripted"
    needs = Access.WEIGHTS

    def __init__(self, script: Run) -> None:
        super().__init__()
        self._script = script

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        self._script(victim, targets, context)
        return torch.ones(len(targets), *SHAPE)


def grey(count: int, level: float) -> Tensor:
    return torch.full((count, *SHAPE), level / 255)


def outcome(script: Run, targets: int = 2) -> Reconstruction:
    network = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), SHAPE, 3)
    context = AttackContext(torch.Generator().manual_seed(0))
    return Scripted(script)(Victim(network, Access.WEIGHTS), torch.arange(targets) % 3, context)


def levels(made: Reconstruction) -> dict[int, list[int]]:
    """Budget -> the grey of each target's image."""
    assert all(one.images.dtype == torch.uint8 and one.images.shape[1:] == SHAPE for one in made.snapshots)
    return {one.budget: one.images[:, 0, 0, 0].tolist() for one in made.snapshots}


def test_the_last_within_each_budget_is_kept() -> None:
    def script(_victim: Victim, targets: Tensor, context: AttackContext) -> None:
        for step in context.steps(40, "here"):
            context.snapshot(grey(len(targets), step + 1))

    made = outcome(script)
    assert made.spent == 40
    assert levels(made) == {1: [1, 1], 3: [3, 3], 10: [10, 10], 30: [30, 30]}  # what 100 would have is the outcome


def test_nothing_is_kept_of_attacks_that_offer_nothing() -> None:
    made = outcome(lambda _victim, _targets, context: [*context.steps(7, "here")] and None)
    assert made.snapshots == () and made.spent == 7


def test_queries_are_shared_by_the_targets() -> None:
    def script(victim: Victim, targets: Tensor, context: AttackContext) -> None:
        victim.scores(grey(6, 0))  # three for each of two
        context.snapshot(grey(len(targets), 5))
        victim.labels(grey(1, 0))
        context.snapshot(grey(len(targets), 6))

    made = outcome(script)
    assert made.spent == 3.5
    assert levels(made) == {3: [5, 5]}


def test_a_budget_is_kept_to_where_queries_are_fractions() -> None:
    def script(victim: Victim, targets: Tensor, context: AttackContext) -> None:
        for _ in range(9):
            victim.scores(grey(1, 0))
            context.snapshot(grey(len(targets), 0))
        context.snapshot(grey(len(targets), 7))
        victim.scores(grey(30, 0))

    *_, added = itertools.accumulate([1 / 9] * 9)
    assert added > 1  # as floats add up one by one; sum() is exact from Python 3.12 on
    assert levels(outcome(script, targets=9)) == {1: [7] * 9}


def test_batches_count_for_their_own_targets() -> None:
    def script(_victim: Victim, _targets: Tensor, context: AttackContext) -> None:
        for where, level in ((torch.tensor([2, 0]), 100), (torch.tensor([1]), 200)):
            with context.part(where):
                for step in context.steps(3, "here"):
                    if step == 2 or level == 100:
                        context.snapshot(torch.stack([grey(1, level + step + n * 10)[0] for n in range(len(where))]))
        for _ in context.steps(2, "both"):
            pass

    made = outcome(script, targets=3)
    assert made.cost.gradient_steps == 8 and made.spent == 5
    # the second batch offered nothing within one step: it had nothing then
    assert levels(made) == {1: [110, 0, 100], 3: [112, 202, 102]}


def test_parts_of_parts_and_what_one_batch_had_earlier() -> None:
    def script(_victim: Victim, _targets: Tensor, context: AttackContext) -> None:
        with context.part(torch.tensor([2, 1, 0])):
            with context.part(torch.tensor([0])):  # target 2
                for _ in context.steps(1, "here"):
                    context.snapshot(grey(1, 7))
            with context.part(torch.tensor([1, 2])):  # targets 1 and 0
                for _ in context.steps(4, "here"):
                    pass
                context.snapshot(torch.cat([grey(1, 8), grey(1, 9)]))
        for _ in context.steps(20, "rest"):
            pass

    # within 10 the third target still has what it had within 1
    assert levels(outcome(script, targets=3)) == {1: [0, 0, 7], 10: [9, 8, 7]}


def test_earlier_images_of_a_later_batch_reach_the_larger_budgets() -> None:
    def script(_victim: Victim, _targets: Tensor, context: AttackContext) -> None:
        for where, steps in ((0, (1, 3)), (1, (1,))):
            with context.part(torch.tensor([where])):
                for step in context.steps(4, "here"):
                    if step + 1 in steps:
                        context.snapshot(grey(1, 10 * (where + 1) + step))

    assert levels(outcome(script)) == {1: [10, 20], 3: [12, 20]}


def test_an_attack_inside_another_shows_nothing_of_its_own() -> None:
    def script(_victim: Victim, _targets: Tensor, context: AttackContext) -> None:
        with context.part(torch.tensor([1])):
            theirs = context.apart()
            for _ in theirs.steps(2, "there"):
                theirs.snapshot(grey(7, 1))  # of whatever targets it has
        context.snapshot(grey(2, 4))
        for _ in context.steps(9, "here"):
            pass

    made = outcome(script)
    assert made.cost.gradient_steps == 11 and made.spent == 11
    assert levels(made) == {1: [4, 0], 3: [4, 4]}  # the one that no step was spent on had it for nothing


def test_other_shapes_are_refused() -> None:
    with pytest.raises(PluginError, match=r"of all targets in hand, images \(2, 1, 2, 2\): got \(1, 1, 2, 2\)"):
        outcome(lambda _victim, _targets, context: context.snapshot(grey(1, 0)))


def test_values_out_of_range_are_cut_and_later_writes_leave_them_alone() -> None:
    def script(_victim: Victim, _targets: Tensor, context: AttackContext) -> None:
        images = torch.tensor([-1.0, 2.0]).view(2, 1, 1, 1).expand(2, *SHAPE).clone()
        context.snapshot(images)
        images.fill_(0.5)
        for _ in context.steps(LADDER[-1] + 1, "here"):
            pass
        context.snapshot(images)  # beyond the ladder

    assert levels(outcome(script)) == {1: [0, 255]}


def test_offering_draws_nothing_and_costs_nothing() -> None:
    drawn = []

    def script(offers: int) -> Run:
        def run(_victim: Victim, targets: Tensor, context: AttackContext) -> None:
            for _ in range(offers):
                context.snapshot(grey(len(targets), 1))
            drawn.append((context.seed(), torch.rand(1).item()))

        return run

    costs = []
    for offers in (0, 3):
        torch.manual_seed(1)
        made = outcome(script(offers))
        costs.append((made.cost.queries, made.cost.gradient_steps, made.findings))
    assert drawn[0] == drawn[1] and costs[0] == costs[1]
