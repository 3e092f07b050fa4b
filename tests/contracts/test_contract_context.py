"""What every plugin call is handed."""

from __future__ import annotations

from typing import Any

import torch

from leakbench.contracts import AttackContext, Context


def fresh() -> Context:
    return Context(torch.Generator().manual_seed(0))


def test_steps_are_counted_and_shown() -> None:
    shown: list[tuple[str, int, int]] = []
    ours = AttackContext(torch.Generator(), progress=lambda *args: shown.append(args))
    assert list(ours.steps(3, "here")) == [0, 1, 2]
    assert ours.cost.gradient_steps == 3
    assert shown == [("here", 0, 3), ("here", 1, 3), ("here", 2, 3), ("here", 3, 3)]
    for _ in ours.steps(5, "there"):
        break
    assert ours.cost.gradient_steps == 4  # only what was done


def test_seeds_come_from_the_generator() -> None:
    first, again = fresh(), fresh()
    seeds = [first.seed() for _ in range(5)]
    assert seeds == [again.seed() for _ in range(5)]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_shared_artifacts_go_through_the_store_where_there_is_one() -> None:
    built = {"x": torch.ones(1)}
    assert fresh().shared("name", 1, {}, lambda _own: built) is built
    asked: list[Any] = []
    ours = fresh()
    ours.shared_store = lambda *args: asked.append(args[:3]) or {"x": torch.zeros(1)}  # type: ignore[func-returns-value]
    assert ours.shared("name", 2, {"a": 1}, lambda _own: built)["x"].item() == 0
    assert asked == [("name", 2, {"a": 1})]
