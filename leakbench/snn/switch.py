"""Temporal switch coding: a value is the interval between two spikes (Han & Roy, ECCV 2020).

An on-spike adds a synapse's weight to the running current of the neuron behind it, an off-spike takes it away again,
and each step the neuron adds its current to its potential. So it counts what was on for how long, at two additions a
synapse. The layers take turns: while the neurons of one layer are on, those of the next integrate, and switch on in
the window of T steps after it. An image is through after T steps a layer, the input's own window included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakbench.errors import UsageError
from leakbench.snn.neurons import LIF, Neuron, Run


@dataclass(frozen=True)
class SwitchNeuron(Neuron):
    """Neurons that integrate one window and switch on in the next; the surrogate is not used."""

    model: ClassVar[str] = "switch"
    windows: ClassVar[bool] = True
    encoders: ClassVar[tuple[str, ...]] = ("switch", "direct")
    """direct: pixels as they are, not rounded to steps"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leak != 1 or self.reset != "soft":
            raise UsageError("switch neurons keep what they integrate: leak must be 1 and reset 'soft'")

    def layer(self, name: str) -> LIF:
        return Switch(name, self)


class Switch(LIF):
    """V = sum of the current over a window of T steps, then on for n = clip(floor(V / theta), 0, T) steps.

    Behind a neuron that is on for n steps at theta a step stands what theta n / T at each step is: between the neurons
    all is linear, so one pass on these values is the simulation of T steps. Currents [1, B, ...] are the mean over the
    window, biases in them. The gradient is that of the clip: straight through the floor where 0 < V < T theta.
    """

    def fire(self, x: Tensor, u: Tensor, run: Run) -> tuple[Tensor, Tensor, Tensor]:
        steps = run.stop - run.start
        v = (x.detach() * steps + u) / self.threshold
        on = v.floor().clamp(0, steps)
        inside = (v > 0) & (v < steps)
        out = on * self.threshold / steps + inside * (x - x.detach())
        if run.watch is not None:
            run.watch(self.layer, x, v / steps, out)
        # one spike that switches on and one that switches off
        return out, u, 2 * torch.count_nonzero(on)
