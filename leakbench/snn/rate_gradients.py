"""Gradients of a spiking network through its rates: spikes as they are, derivatives averaged over time.

Where a layer's derivative does not depend on the step, neither does the gradient that comes down to it (the logits are
a mean over steps; of another readout what a steady output comes to), so the backward pass runs once on time averages
and not once a step: a spiking forward pass and an ANN's backward pass, in memory that does not grow with T. Max pooling
between neurons pools the averages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from leakbench.errors import UsageError
from leakbench.snn.folding import replace
from leakbench.snn.graph import INPUT
from leakbench.snn.network import SpikingNetwork, sharing_copy
from leakbench.snn.neurons import LIF
from leakbench.snn.surrogates import Surrogate

Derivative = Literal["rga", "hart"]

# RGA's constants: the slope below the leak, and how far above the threshold currents still count
_LEAKY, _ABOVE = 0.2, 1.0


class RateNetwork(nn.Module):
    """A spiking network whose logits have the gradient of its rates.

    ``forward`` takes images [B, C, H, W] in [0, 1] and gives the spiking network's logits [B, classes] in one draw of
    its noise. The derivative of a layer's rate with respect to its mean current is

    - rga: a fixed piecewise constant function of the mean current (Bu et al., "Rate Gradient Approximation Attack
      Threats Deep Spiking Neural Networks", CVPR 2023, Eq. 13 and the authors' code);
    - hart: the mean over steps of a surrogate at each step's membrane, which is detached from the steps before it
      (Hao et al., "Threaten Spiking Neural Networks through Combining Rate and Temporal Information", ICLR 2024).
    """

    def __init__(self, network: SpikingNetwork, derivative: Derivative, surrogate: Surrogate | None = None) -> None:
        super().__init__()
        self.network = network
        self.derivative: Derivative = derivative
        self.surrogate = surrogate or Surrogate()
        if self.surrogate.looks_back:
            raise UsageError(
                "rates are averaged a chunk of time at once: take a surrogate that looks at one step alone"
            )
        body = sharing_copy(network.body)
        self._replays = {}
        for name, module in list(body.named_modules()):
            if isinstance(module, LIF):
                self._replays[module.layer] = replay = _Replay()
                replace(body, name, replay)
        self.body = body.eval()

    def forward(self, images: Tensor, seed: int | None = None) -> Tensor:
        """Logits [B, classes]; see the class."""
        means = _Means(self.network.passes, self.derivative, self.surrogate, self._constants())
        logits = self.network.observe(images.detach(), means.add, seed)
        for name, replay in self._replays.items():
            replay.rate, replay.slope = means.put_out[name], means.slope(name)
        x = self.network.input_range(images)
        # what entered in the mean, with the gradient that passes straight through the encoder
        replayed = cast(Tensor, self.body(x + (means.put_out[INPUT] - x).detach()))
        replayed = self.network.config.readout.gain(self.network.passes) * replayed
        return logits + (replayed - replayed.detach())

    def _constants(self) -> dict[str, _Constants]:
        return {one.layer: (one.leaks(), one.threshold, one.response()) for one in self.network.neurons}


_Constants = tuple[float | Tensor, Tensor, float | Tensor]
"""a layer's leak, threshold and response"""


@dataclass
class _Means:
    """Time averages of every layer, taken a chunk of time at a time; [B, ...] each."""

    passes: int
    derivative: Derivative
    surrogate: Surrogate
    layers: dict[str, _Constants]
    put_out: dict[str, Tensor] = field(default_factory=dict)
    inner: dict[str, Tensor] = field(default_factory=dict)
    """mean current over threshold (rga), or mean surrogate (hart)"""

    def add(self, layer: str, current: Tensor, v: Tensor, out: Tensor) -> None:
        self._sum(self.put_out, layer, out)
        if layer != INPUT:
            inner = current / self.layers[layer][1] if self.derivative == "rga" else self.surrogate(v)
            self._sum(self.inner, layer, inner)

    def _sum(self, into: dict[str, Tensor], layer: str, chunk: Tensor) -> None:
        mean = chunk.sum(0) / self.passes
        into[layer] = into[layer] + mean if layer in into else mean

    def slope(self, layer: str) -> Tensor:
        inner = self.inner[layer]
        leak, _, response = self.layers[layer]
        if self.derivative == "hart":
            return inner * response
        rising = (1 - _LEAKY + _LEAKY * leak) / (leak + _ABOVE)
        slopes = torch.where(inner < 1 - leak, inner.new_tensor(_LEAKY), rising)
        return torch.where((inner >= 0) & (inner <= 1 + _ABOVE), slopes, 0.0) * response


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, _current: Tensor, rate: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return rate.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None


class _Replay(nn.Module):
    """Puts out the rate that was observed, and multiplies gradients by the slope."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = torch.empty(0)
        self.slope = torch.empty(0)

    def forward(self, current: Tensor) -> Tensor:
        return cast(Tensor, _Replayed.apply(current, self.rate, self.slope))  # type: ignore[no-untyped-call]
