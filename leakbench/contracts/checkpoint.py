"""Where long computations keep their state, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

State = Mapping[str, Tensor]


class Checkpoint:
    """A place for the state of one computation. This one keeps nothing; the framework's keeps files.

    States are written now and then, whole or not at all, and are removed when the stage is done.
    """

    def load(self) -> dict[str, Tensor] | None:
        """The last state that was kept, on the CPU, in the layout that it had; None where there is none."""
        return None

    def save(self, state: Callable[[], State], last: bool = False) -> None:
        """Keeps what ``state`` returns, if it is time to; it is not called otherwise.

        ``last``: the computation is done. Its state is taken now, and written with the next one that is.
        """


class Stateful(Protocol):
    """Something that can be put back to what it was."""

    def state(self) -> State:
        """All that changes."""

    def restore(self, state: State) -> None:
        """Becomes what it was when :meth:`state` gave this. Raises KeyError or RuntimeError where it does not fit."""


class Stopwatch:
    """Seconds that a computation took, those before an interruption included."""

    def __init__(self) -> None:
        self.restart()

    def restart(self, seconds: float = 0.0) -> None:
        """Goes on from so many seconds."""
        self._before, self._start = seconds, time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._start

    def state(self) -> State:
        return {"seconds": torch.tensor(self.seconds, dtype=torch.float64)}

    def restore(self, state: State) -> None:
        self.restart(float(state["seconds"]))
