"""What the framework promises attacks, and what it refuses from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_plugins import SHAPE, Painter, one_line, painter, tiny
from torch import Tensor

from leakbench.contracts import Access, Attack, AttackContext, Params, Victim
from leakbench.errors import LeakBenchError, NotApplicable, NumericalError, PluginError, UsageError


def context() -> AttackContext:
    return AttackContext(torch.Generator().manual_seed(0))


TARGETS = torch.tensor([0, 2, 1, 1])


def test_an_attack_returns_checked_images_with_targets_and_cost() -> None:
    def paint(victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        for _ in context.steps(7, "painting"):
            victim.scores(torch.zeros(5, *SHAPE))
        victim.labels(torch.zeros(2, *SHAPE))
        return torch.linspace(-5e-5, 1 + 5e-5, len(targets) * 4).double().view(-1, *SHAPE).requires_grad_()

    ours = context()
    made = painter(paint)(Victim(tiny(), Access.WEIGHTS), TARGETS, ours)
    assert made.images.shape == (4, *SHAPE)
    assert (made.images.dtype, made.images.requires_grad) == (torch.float32, False)
    # rounding is clamped away
    assert (float(made.images.min()), float(made.images.max())) == (0, 1)
    assert torch.equal(made.targets, TARGETS)
    assert (made.cost.queries, made.cost.gradient_steps) == (7 * 5 + 2, 7)
    assert made.cost.seconds > 0
    assert made.cost is ours.cost
    # the next call counts from nothing
    assert painter(paint)(Victim(tiny(), Access.WEIGHTS), TARGETS, ours).cost.queries == 37


def test_the_cost_of_an_attack_is_its_own() -> None:
    victim = Victim(tiny(), Access.WEIGHTS)
    victim.scores(torch.zeros(3, *SHAPE))
    made = painter(lambda v, t, _: v.scores(torch.zeros(1, *SHAPE)).new_zeros(len(t), *SHAPE))(
        victim, TARGETS, context()
    )
    assert (victim.cost.queries, made.cost.queries) == (3, 1)


@pytest.mark.parametrize(
    ("paint", "error", "message"),
    [
        (lambda _v, t, _: torch.full((len(t), *SHAPE), 1.1), PluginError, "images in [0, 1]: clamp inside the attack"),
        (lambda _v, t, _: torch.full((len(t), *SHAPE), -0.1), PluginError, "images in [0, 1]: clamp inside the attack"),
        (lambda _v, t, _: torch.full((len(t), *SHAPE), float("nan")), NumericalError, "images with NaN or infinity"),
        (lambda _v, t, _: torch.full((len(t), *SHAPE), float("inf")), NumericalError, "images with NaN or infinity"),
        (lambda _v, t, _: torch.zeros(len(t) - 1, *SHAPE), PluginError, "shape (4, 1, 2, 2), got (3, 1, 2, 2)"),
        (lambda _v, t, _: torch.zeros(len(t), 3, 2, 2), PluginError, "shape (4, 1, 2, 2), got (4, 3, 2, 2)"),
        (lambda _v, t, _: torch.zeros(len(t), 4), PluginError, "shape (4, 1, 2, 2), got (4, 4)"),
        (lambda _v, _t, _c: None, PluginError, "shape (4, 1, 2, 2), got NoneType"),
        (lambda _v, t, _: torch.zeros(len(t), *SHAPE).numpy(), PluginError, "shape (4, 1, 2, 2), got ndarray"),
    ],
    ids=["above 1", "below 0", "NaN", "inf", "too few", "channels", "flat", "None", "numpy"],
)  # fmt: skip
def test_images_that_break_the_contract_are_refused(paint: Any, error: type[LeakBenchError], message: str) -> None:
    with pytest.raises(error) as found:
        painter(paint)(Victim(tiny(), Access.WEIGHTS), TARGETS, context())
    assert type(found.value) is error
    assert message in one_line(found) and one_line(found).startswith("painter")


def test_one_bad_pixel_is_enough() -> None:
    def paint(_victim: Victim, targets: Tensor, _context: AttackContext) -> Tensor:
        images = torch.zeros(len(targets), *SHAPE)
        images[2, 0, 1, 1] = float("nan")
        return images

    with pytest.raises(NumericalError):
        painter(paint)(Victim(tiny(), Access.WEIGHTS), TARGETS, context())


@pytest.mark.parametrize("granted", list(Access))
@pytest.mark.parametrize("needed", list(Access))
def test_an_attack_gets_what_it_needs_and_not_more(granted: Access, needed: Access) -> None:
    seen: list[Access] = []

    def paint(victim: Victim, targets: Tensor, _context: AttackContext) -> Tensor:
        seen.append(victim.access)
        uses: list[tuple[Access, Callable[[], object]]] = [
            (Access.LABELS, lambda: victim.labels(torch.zeros(1, *SHAPE))),
            (Access.SCORES, lambda: victim.scores(torch.zeros(1, *SHAPE))),
            (Access.WEIGHTS, lambda: victim.network),
        ]
        for level, use in uses:
            if level <= needed:
                use()
            else:
                with pytest.raises(NotApplicable, match=f"needs {level.name}, the victim grants {needed.name}"):
                    use()
        return torch.zeros(len(targets), *SHAPE)

    attack, victim = painter(paint, needed), Victim(tiny(), granted)
    if granted < needed:
        with pytest.raises(NotApplicable, match=f"painter needs {needed.name}, the victim grants {granted.name}"):
            attack(victim, TARGETS, context())
        assert not seen  # its code is not even started
    else:
        attack(victim, TARGETS, context())
        assert seen == [needed]


@pytest.mark.parametrize("targets", [[3], [-1, 0]])
def test_targets_outside_the_classes_are_refused(targets: list[int]) -> None:
    with pytest.raises(UsageError, match=r"targets must be classes 0\.\.2"):
        Painter()(Victim(tiny(), Access.WEIGHTS), torch.tensor(targets), context())


def test_no_targets_give_no_images() -> None:
    made = Painter()(Victim(tiny(), Access.WEIGHTS), torch.zeros(0, dtype=torch.long), context())
    assert made.images.shape == (0, *SHAPE)


def test_what_an_attack_raises_comes_through() -> None:
    def paint(_victim: Victim, _targets: Tensor, _context: AttackContext) -> Tensor:
        raise ZeroDivisionError("in the attack")

    with pytest.raises(ZeroDivisionError, match="in the attack"):
        painter(paint)(Victim(tiny(), Access.WEIGHTS), TARGETS, context())


class Talks(Attack[Params]):
    name = "talks"
    needs = Access.LABELS

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        for number in range(1001):
            context.finding(f"finding {number}", number)
        return torch.zeros(len(targets), *victim.image_shape)


def test_more_findings_than_fit_a_report_are_refused() -> None:
    with pytest.raises(PluginError, match="talks has 1001 findings: 1000 at most"):
        Talks()(Victim(tiny(), Access.WEIGHTS), torch.tensor([0]), context())
