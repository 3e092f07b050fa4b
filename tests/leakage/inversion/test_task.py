"""What is kept of a class-inversion attack's outcome, and what is measured of a student that it handed over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from leakbench.contracts import Access, Attack, AttackContext, Context, ImageClassifier, Params, Victim
from leakbench.errors import PluginError
from leakbench.leakage.inversion.targets import attacked_classes, part_of_key
from leakbench.leakage.inversion.task import Reconstruct
from leakbench.models.storage import build_ann

CPU = torch.device("cpu")


class HandsOver(Attack[Params]):
    """Hands over the network that it is told to."""

    name = "hands_over"
    needs = Access.LABELS
    cites = "none"
    student: ImageClassifier | None = None

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        if self.student is not None:
            context.hand_over(self.student)
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


def network(seed: int, classes: int = 10) -> ImageClassifier:
    return build_ann("vgg4", (1, 8, 8), classes, (0, 1), torch.Generator().manual_seed(seed)).eval()


def kept(victim: ImageClassifier, student: ImageClassifier | None) -> dict[str, Tensor]:
    test = torch.randint(256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    task = Reconstruct(cast(Any, SimpleNamespace(network=victim)), torch.arange(victim.classes), 2, test, CPU)
    attack = HandsOver()
    attack.student = student
    outcome = task.run(attack, Victim(victim, Access.WEIGHTS), AttackContext(torch.Generator().manual_seed(4)))
    return task.to_tensors(outcome, Context(torch.Generator().manual_seed(5)))


def test_a_student_agrees_on_the_test_images_that_it_answers_as_the_victim() -> None:
    victim = network(0)
    assert kept(victim, victim)["agrees"].tolist() == [True] * 40
    other = network(1)
    test = torch.randint(256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8) / 255
    with torch.no_grad():
        expected = victim(test).argmax(1) == other(test).argmax(1)
    assert not expected.all()
    assert torch.equal(kept(victim, other)["agrees"], expected)


def test_who_hands_over_nothing_is_not_measured() -> None:
    assert "agrees" not in kept(network(0), None)


def test_a_student_of_one_attack_is_not_the_next_one_s() -> None:
    context = AttackContext(torch.Generator().manual_seed(4))
    first, second = HandsOver(), HandsOver()
    first.student = network(1)
    victim = Victim(network(0), Access.WEIGHTS)
    assert first(victim, torch.arange(2), context).student is first.student
    assert second(victim, torch.arange(2), context).student is None


def test_a_student_of_other_classes_is_refused() -> None:
    with pytest.raises(PluginError, match=r"hand over a student of 10 classes and images \(1, 8, 8\), got 7 and"):
        kept(network(0), network(1, classes=7))
    with pytest.raises(PluginError, match="must hand over an ImageClassifier, got Linear"):
        kept(network(0), cast(Any, torch.nn.Linear(1, 1)))


def test_fewer_classes_are_drawn_of_one_order() -> None:
    few, more = attacked_classes(100, 20), attacked_classes(100, 40)
    assert few.tolist() == sorted(set(few.tolist())) != list(range(20))
    assert set(few.tolist()) < set(more.tolist()) < set(range(100))
    assert attacked_classes(10, None).tolist() == attacked_classes(10, 20).tolist() == list(range(10))


def test_a_key_says_how_many_classes_only_where_not_all_are_attacked() -> None:
    assert part_of_key(10, 10) == {}
    assert part_of_key(100, 20) == {"classes": 20}
