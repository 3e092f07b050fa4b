"""Loops that go on where an interrupted run stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakbench.contracts import AttackContext, Checkpoint, Context, Loop, Rows, ShuffledPasses, Stopwatch, Variables


class Memory(Checkpoint):
    """Keeps every state."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] | None = None

    def load(self) -> dict[str, Tensor] | None:
        return self.state

    def save(self, state: Callable[[], Mapping[str, Tensor]], last: bool = False) -> None:  # noqa: ARG002
        self.state = {key: tensor.detach().clone() for key, tensor in state().items()}


def learning(checkpoint: Checkpoint, stop: int | None, kind: type[torch.optim.Optimizer], **given: Any) -> list[Any]:
    """A network with batch norm and dropout after 12 steps over 10 images; ``stop`` breaks it off before a step."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Flatten(), nn.Linear(16, 3))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = kind(network.parameters(), lr=0.1, **given)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    batches = ShuffledPasses(10, 4, generator)
    images = torch.rand(10, 1, 4, 4, generator=generator)
    around = {"generator": generator, "global": torch.default_generator}
    did: list[int] = []
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule, "batches": batches}
    for step in Loop(checkpoint, around).steps(12, **parts):
        if step == stop:
            break
        did.append(step)
        x = images[batches.batch(step)] + 0.1 * torch.rand(1, generator=generator)
        optimizer.zero_grad(set_to_none=True)
        network(x).square().mean().backward()
        optimizer.step()
        schedule.step()
    tensors = [tensor.tolist() for tensor in network.state_dict().values()]
    return [did, tensors, generator.get_state().tolist(), torch.rand(1).item(), optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize("stop", [1, 3, 7, 11])
@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
        (torch.optim.SGD, {}),
        (torch.optim.Adam, {"amsgrad": True}),
    ],
)
def test_learning_goes_on_bit_for_bit(kind: type[torch.optim.Optimizer], given: dict[str, Any], stop: int) -> None:
    did, *whole = learning(Checkpoint(), None, kind, **given)
    assert did == list(range(12))
    memory = Memory()
    learning(memory, stop, kind, **given)
    did, *resumed = learning(memory, None, kind, **given)
    assert did == list(range(stop, 12))
    assert resumed == whole
    # what is done is not done again, and its outcome is there
    did, *again = learning(memory, None, kind, **given)
    assert did == []
    assert again == whole


def counted(checkpoint: Checkpoint, total: int, **parts: Any) -> list[int]:
    return list(Loop(checkpoint).steps(total, **parts))


@pytest.mark.parametrize(
    "parts",
    [
        {"x": torch.zeros(3)},
        {"y": torch.zeros(2)},
        {"x": Variables(y=torch.zeros(2))},
        {"x": torch.zeros(2), "y": torch.zeros(2)},
        {"x": nn.Linear(2, 2)},
        {"x": torch.Generator()},
    ],
    ids=["shape", "name", "variables", "more", "network", "generator"],
)
def test_the_state_of_another_loop_is_left_alone(parts: dict[str, Any]) -> None:
    memory = Memory()
    counted(memory, 3, x=torch.ones(2))
    part = next(iter(parts.values()))
    before = {key: value.clone() for key, value in part.state_dict().items()} if isinstance(part, nn.Module) else {}
    assert counted(memory, 3, **parts) == [0, 1, 2]
    if isinstance(part, Tensor):
        assert not part.any()
    if isinstance(part, nn.Module):
        assert all(torch.equal(value, before[key]) for key, value in part.state_dict().items())


def test_a_longer_loops_state_is_left_alone() -> None:
    memory, x = Memory(), torch.zeros(2)
    counted(memory, 5, x=x)
    assert counted(memory, 3, x=x) == [0, 1, 2]


def test_a_pass_is_every_index_once_and_each_in_an_order_of_its_own() -> None:
    batches = ShuffledPasses(10, 4, torch.Generator().manual_seed(0))
    drawn = [batches.batch(step) for step in range(6)]
    assert [len(batch) for batch in drawn] == [4, 4, 2, 4, 4, 2]
    first, second = torch.cat(drawn[:3]), torch.cat(drawn[3:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(10))
    assert not torch.equal(first, second)
    # the draws of a plain loop over permutations
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(first, torch.randperm(10, generator=generator))
    assert torch.equal(second, torch.randperm(10, generator=generator))


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_rows_come_batch_by_batch_and_go_on(stop: int) -> None:
    batches = torch.arange(22.0).view(11, 2).split(3)
    checkpoint = Memory()
    for last in (stop, None):
        did, rows = [], Rows()
        for step in Loop(checkpoint).steps(len(batches), rows=rows):
            if step == last:
                break
            did.append(step)
            rows.add(batches[step])
    assert did == list(range(stop, 4))
    assert torch.equal(rows.tensor, torch.cat(batches))


def test_without_a_place_nothing_is_ever_taken() -> None:
    class Untouchable:
        def state(self) -> Any:
            raise AssertionError

        restore = state

    assert counted(Checkpoint(), 3, part=Untouchable()) == [0, 1, 2]


def remembering(context: Context, memories: dict[str, Memory]) -> Context:
    context.checkpoints = lambda name: memories.setdefault(name, Memory())
    return context


def test_names_that_come_again_are_other_checkpoints() -> None:
    memories: dict[str, Memory] = {}
    context = remembering(Context(torch.Generator()), memories)
    for name in ("a", "a", "b", "a"):
        context.checkpoint(name)
    assert list(memories) == ["a", "a (2)", "b", "a (3)"]
    assert Context(torch.Generator()).checkpoint("a").load() is None


def test_once_is_once_with_draws_and_all() -> None:
    memories: dict[str, Memory] = {}
    calls: list[int] = []

    def run() -> list[Any]:
        context = remembering(Context(torch.Generator().manual_seed(4)), memories)

        def draw() -> Tensor:
            calls.append(1)
            return torch.rand(2, generator=context.generator)

        return [context.once("draw", draw).tolist(), context.once("draw", draw).tolist(), context.seed()]

    first = run()
    assert first[0] != first[1]
    assert run() == first
    assert len(calls) == 2


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_once_gives_its_value_on_the_same_device_again(device: str) -> None:
    """As answers that are kept on the CPU while the network is on a GPU, for which the meta device stands here."""
    memories: dict[str, Memory] = {}
    for _ in range(2):
        context = remembering(Context(torch.Generator(), torch.device("meta")), memories)
        assert context.once("ask", lambda: torch.ones(2, device=device)).device.type == device


def test_an_attacks_steps_bring_back_costs_and_findings() -> None:
    memories: dict[str, Memory] = {}

    def run(last: int | None) -> AttackContext:
        context = AttackContext(torch.Generator())
        remembering(context, memories)
        x = torch.zeros(1)
        for step in context.steps(6, "attacking", x=x):
            if step == last:
                break
            x += 1
            context.cost.queries += 10
            context.finding(f"step \u202e {step}", step / 3)
        return context

    assert run(4).cost.gradient_steps == 5
    again = run(None)
    assert (again.cost.queries, again.cost.gradient_steps) == (60, 6)
    assert list(again.findings.items()) == [(f"step \u202e {step}", step / 3) for step in range(6)]


def test_steps_that_say_nothing_of_what_they_change_are_all_done() -> None:
    memories: dict[str, Memory] = {}
    context = AttackContext(torch.Generator())
    remembering(context, memories)
    assert list(context.steps(2, "a")) == [0, 1]
    assert not memories


def test_seconds_of_before_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr("leakbench.contracts.checkpoint.time.perf_counter", lambda: now[0])
    first = Stopwatch()
    now[0] = 15
    state = first.state()
    now[0] = 100
    second = Stopwatch()
    now[0] = 101
    second.restore(state)
    now[0] = 103
    assert second.seconds == 5 + 2
