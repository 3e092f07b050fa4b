"""What a spiking network's logits are made of: its last layer's output over the steps of a simulation.

    m(t) = leak * m(t-1) + out(t)            m(0) = 0
    logits = scale * m(T), or scale * the mean or the sum of m(1) ... m(T)

Without a leak factor (0) m is the output itself, so the mean and the sum of m are those of the output. Other factors
are membranes that never fire, as other frameworks read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from leakbench.errors import UsageError


@dataclass(frozen=True)
class Readout:
    """The mean of what the last layer puts out, unless it says otherwise."""

    leak: float = 0.0
    over: Literal["mean", "sum", "last"] = "mean"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.leak <= 1:
            raise UsageError(f"a readout's leak must be in [0, 1], got {self.leak}")
        if self.over not in ("mean", "sum", "last"):
            raise UsageError(f"a readout is over 'mean', 'sum' or 'last', got {self.over!r}")
        if not 0 < self.scale < float("inf"):
            raise UsageError(f"a readout's scale must be above 0 and finite, got {self.scale}")

    @property
    def sums(self) -> bool:
        """Whether the sum of outputs over steps is all that it needs."""
        return self.leak == (1 if self.over == "last" else 0)

    @property
    def tensors(self) -> int:
        """How many its state has."""
        return 1 if self.sums else 2

    def with_sum(self, total: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The state after more steps whose outputs sum up to ``total`` [B, classes], where their sum is enough.

        () is the state before the first step.
        """
        assert self.sums
        return (state[0] + total,) if state else (total,)

    def with_outputs(self, outputs: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The state after more steps' outputs [t, B, classes]."""
        if self.sums:
            return self.with_sum(outputs.sum(0), state)
        m, summed = state or (torch.zeros_like(outputs[0]), torch.zeros_like(outputs[0]))
        for out in outputs.unbind(0):
            m = self.leak * m + out
            summed = summed + m
        return m, summed

    def logits(self, state: Sequence[Tensor], steps: int) -> Tensor:
        """[B, classes] from the state after ``steps`` steps."""
        value = state[0] if self.over == "last" else state[-1]
        if self.over == "mean":
            value = value / steps
        return value if self.scale == 1 else value * self.scale

    def gain(self, steps: int) -> float:
        """The logit of a class whose output is 1 at each of ``steps`` steps: 1 of the mean."""
        return float(self.logits(self.with_outputs(torch.ones(steps, 1, 1, dtype=torch.float64), ()), steps))
