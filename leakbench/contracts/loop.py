"""Loops that go on where an interrupted run stopped, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from leakbench.contracts.checkpoint import Checkpoint, State, Stateful
from leakbench.contracts.generators import set_state

Part = Tensor | nn.Module | Optimizer | LRScheduler | torch.Generator | Stateful
"""what a loop changes: tensors and networks in place, and what gives and takes its state itself"""


class Loop:
    """Steps whose state is kept in ``checkpoint``, with that of ``around``: generators, counters, ... .

    All that the steps change and that is read later has to be among the parts.
    """

    def __init__(self, checkpoint: Checkpoint | None = None, around: Mapping[str, Part] | None = None) -> None:
        self._checkpoint = checkpoint if checkpoint is not None else Checkpoint()
        self._around = dict(around or {})

    def steps(self, total: int, **parts: Part) -> Iterator[int]:
        """``range(total)``, but for the steps that an earlier run did, whose outcome is put back.

        A loop that is left early (break, an exception) goes on from the last state that was kept before.
        """
        everything = {f"around {name}": part for name, part in self._around.items()} | parts
        done = 0

        def state() -> dict[str, Tensor]:
            tensors = {"step": torch.tensor(done)}
            for name, part in everything.items():
                tensors |= {f"{name}/{key}": tensor for key, tensor in _state(part).items()}
            return tensors

        kept = self._checkpoint.load()
        if kept is not None:
            done = _restored(everything, kept, total)
        while done < total:
            yield done
            done += 1
            self._checkpoint.save(state, last=done == total)


class Variables:
    """Tensors by name, for loops that put others in their places: ``v = Variables(x=x)``, then ``v.x = v.x + 1``."""

    def __init__(self, **tensors: Tensor) -> None:
        self.__dict__.update(tensors)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Tensor: ...

        def __setattr__(self, name: str, value: Tensor) -> None: ...

    def state(self) -> State:
        return dict(self.__dict__)

    def restore(self, state: State) -> None:
        if state.keys() != self.__dict__.keys():
            raise KeyError("other variables")
        for name, tensor in state.items():
            self.__dict__[name] = tensor.to(self.__dict__[name].device)


class Rows:
    """Tensors [B, ...] that come batch by batch, in a loop, and are one in the end."""

    def __init__(self) -> None:
        self._batches: list[Tensor] = []

    def add(self, batch: Tensor) -> None:
        self._batches.append(batch.cpu())

    @property
    def tensor(self) -> Tensor:
        """[N, ...] on the CPU. At least one batch has to be there."""
        return torch.cat(self._batches)

    def state(self) -> State:
        return {"rows": self.tensor} if self._batches else {}

    def restore(self, state: State) -> None:
        self._batches = [state["rows"]] if state else []


class ShuffledPasses:
    """Indices of ``count`` things in batches, pass after pass, each in an order of its own."""

    def __init__(self, count: int, size: int, generator: torch.Generator) -> None:
        self._count, self._size, self._generator = count, size, generator
        self._order = torch.empty(0, dtype=torch.long)
        self.batches = -(-count // size)
        """in a pass"""

    def batch(self, step: int) -> Tensor:
        """The indices of a step. Steps come in turn: the first one of a pass draws its order."""
        first = step % self.batches * self._size
        if not first:
            self._order = torch.randperm(self._count, generator=self._generator)
        return self._order[first : first + self._size]

    def state(self) -> State:
        return {"order": self._order}

    def restore(self, state: State) -> None:
        self._order = state["order"]


def global_generators(device: torch.device) -> dict[str, Part]:
    """The generators that dropout and the like draw from, on the CPU and on ``device``."""
    generators: dict[str, Part] = {"global": torch.default_generator}
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        generators["global_cuda"] = torch.cuda.default_generators[index]
    return generators


def _state(part: Part) -> State:
    if isinstance(part, Tensor):
        return {"": part}
    if isinstance(part, torch.Generator):
        return {"": part.get_state()}
    if isinstance(part, nn.Module):
        return part.state_dict()
    if isinstance(part, Optimizer):
        return optimizer_state(part)
    if isinstance(part, LRScheduler):
        return {"position": torch.tensor([part.last_epoch, part._step_count])}
    return part.state()


def _restored(parts: Mapping[str, Part], kept: State, total: int) -> int:
    """How many steps were done in the state that ``parts`` now are in; 0 and nothing restored where it is another's."""
    grouped: dict[str, dict[str, Tensor]] = {name: {} for name in parts}
    before = {name: dict(_copied(_state(part))) for name, part in parts.items()}
    try:
        done = int(kept["step"])
        for key, tensor in kept.items():
            if key != "step":
                name, _, inner = key.partition("/")
                grouped[name][inner] = tensor
        if not 0 <= done <= total:
            raise KeyError("another number of steps")
        for name, part in parts.items():
            _restore(part, grouped[name])
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError):
        for name, part in parts.items():
            _restore(part, before[name])
        return 0
    return done


def _copied(state: State) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@torch.no_grad()
def _restore(part: Part, state: State) -> None:
    if isinstance(part, Tensor):
        if part.shape != state[""].shape:
            raise RuntimeError("another shape")
        part.copy_(state[""])
    elif isinstance(part, torch.Generator):
        set_state(part, state[""])
    elif isinstance(part, nn.Module):
        part.load_state_dict(dict(state))
    elif isinstance(part, Optimizer):
        restore_optimizer(part, state)
    elif isinstance(part, LRScheduler):
        # what a schedule computes follows from its position and the optimiser's rates
        part.last_epoch, part._step_count = state["position"].tolist()
        part._last_lr = [group["lr"] for group in part.optimizer.param_groups]
    else:
        part.restore(state)


def optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """Its moments by the number of their parameter, and the learning rates."""
    state: dict[str, Tensor] = {
        "rates": torch.tensor([group["lr"] for group in optimizer.param_groups], dtype=torch.float64)
    }
    for number, parameter in enumerate(_parameters(optimizer)):
        moments: Mapping[str, Any] = optimizer.state.get(parameter, {})
        state |= {f"{number}.{key}": value for key, value in moments.items() if isinstance(value, Tensor)}
    return state


def restore_optimizer(optimizer: Optimizer, state: State) -> None:
    parameters = _parameters(optimizer)
    moments: dict[Tensor, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name != "rates":
            number, _, key = name.partition(".")
            parameter = parameters[int(number)]
            # Adam counts its steps on the CPU
            moments.setdefault(parameter, {})[key] = value if key == "step" else value.to(parameter.device)
    optimizer.state.clear()
    optimizer.state.update(moments)
    for group, rate in zip(optimizer.param_groups, state["rates"].tolist(), strict=True):
        group["lr"] = rate


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
