"""Queries of an attack that is killed and goes on are counted once where it asks the same again, and else all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from leakbench.contracts import Access, AttackContext, Victim
from leakbench.models.storage import build_ann
from leakbench.runtime.checkpoints import CheckpointFolder
from leakbench.runtime.isolation.handlers import AttackHandler
from leakbench.runtime.isolation.messages import Message

IMAGES = torch.rand(8, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Call:
    """One call of an attack whose states lie in a folder."""

    def __init__(self, folder: Path) -> None:
        network = build_ann("vgg4", (1, 8, 8), 3, (0, 1), torch.Generator().manual_seed(0)).eval()
        self.context = AttackContext(torch.Generator())
        kept = CheckpointFolder(folder, {}, 0.0)
        self.context.checkpoints = kept.checkpoint
        victim = Victim(network, Access.LABELS, self.context.cost)
        self._handler = AttackHandler(cast(Any, None), victim, self.context, members=False)

    def ask(self, *numbers: int) -> None:
        for number in numbers:
            self._handler(Message({"type": "labels"}, {"images": IMAGES[number]}))

    def load(self, name: str) -> bool:
        answer = self._handler(Message({"type": "load", "name": name}, {}))
        assert answer is not None
        return bool(answer[0]["found"])

    def save(self, name: str) -> None:
        self._handler(Message({"type": "save", "name": name, "last": True}, {}))

    @property
    def queries(self) -> int:
        return self.context.cost.queries


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """States of a call that asked about image 0, then about two in one loop, one in between, and one in another."""
    call = Call(tmp_path)
    call.ask(0)
    assert not call.load("first")
    call.ask(1, 2)
    call.save("first")
    call.ask(3)
    assert not call.load("second")
    call.ask(4)
    call.save("second")
    assert call.queries == 25
    return tmp_path


def test_who_asks_the_same_again_is_not_charged_twice(killed: Path) -> None:
    call = Call(killed)
    call.ask(0)
    assert call.load("first") and call.queries == 15
    call.ask(3)
    assert call.load("second") and call.queries == 25
    call.ask(5)
    assert call.queries == 30


@pytest.mark.parametrize("first", [(), (5,), (0, 5), (5, 6, 7)])
def test_answers_to_other_questions_are_counted_beside_those_that_were_kept(killed: Path, first: tuple[int]) -> None:
    call = Call(killed)
    call.ask(*first)
    assert call.load("first")
    assert call.queries == 5 * len(first) + 15


def test_a_state_that_is_asked_for_late_is_no_way_around(tmp_path: Path) -> None:
    call = Call(tmp_path)
    call.ask(1, 2, 3)
    call.save("never asked for")
    call = Call(tmp_path)
    call.ask(4, 5, 6)
    assert call.load("never asked for") and call.queries == 30


def test_what_was_asked_in_several_lives_is_counted_once_each(tmp_path: Path) -> None:
    """States whose loops began after other questions lead to no state whose questions are forgotten."""
    call = Call(tmp_path)
    assert not call.load("a")
    call.ask(0)
    call.save("a")
    call = Call(tmp_path)
    call.ask(1)
    assert call.load("a") and call.queries == 10
    assert not call.load("b")
    call.ask(2)
    call.save("b")
    call = Call(tmp_path)
    call.ask(3)
    assert call.load("b") and call.queries == 20  # 3, and 0 to 2
    call.save("c")
    call = Call(tmp_path)
    call.ask(1)
    assert call.load("a") and call.load("b") and call.queries == 15  # 0 to 2
    assert call.load("c") and call.queries == 35


def test_a_loop_that_was_begun_later_is_added_to_what_was_asked_by_then(killed: Path) -> None:
    call = Call(killed)
    call.ask(0)
    assert call.load("first")
    call.ask(3, 5)
    assert call.load("second") and call.queries == 50
