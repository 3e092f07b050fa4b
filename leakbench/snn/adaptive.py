"""Adaptive spiking neurons, whose thresholds grow with each spike (Zambrano et al., Front. Neurosci. 12, 2019).

A neuron tells its input S, in units of its layer's scale, by an approximation S_hat that each spike raises. One step is
1 ms, decays are d = exp(-1 / tau):

    S_hat <- d_eta S_hat
    spike if S - S_hat > theta / 2:  S_hat <- S_hat + theta,  D <- D + m_f theta
    D <- d_gamma D,  theta <- theta_0 + D  with theta_0 = m_f
    E <- d_eta E + spike,  P <- d_phi P + (1 - d_phi) E

P is the postsynaptic potential of unit spikes, h P what it is worth. Constants and the order of the steps are those of
the group's public code. There the filters E and P stand in the neuron behind the synapse, and biases behind them; here
they stand before it: what is between is linear, so it is the same, and biases, sums and pooling keep their units.
A constant current enters unfiltered: only its onset could be. Logits are a mean over all steps, where the authors read
a filter of 50 ms at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from leakbench.errors import UsageError
from leakbench.snn.engine.threads import share
from leakbench.snn.neurons import LIF, Neuron, Run

TAU_PHI, TAU_GAMMA, TAU_ETA = 2.5, 15.0, 50.0
"""ms: membrane filter, threshold's decay, decay of S_hat and of the postsynaptic current"""
_BLOCK = 1024
"""neurons whose state and input fit in a core's first cache"""
_PHI, _GAMMA, _ETA = (math.exp(-1 / tau) for tau in (TAU_PHI, TAU_GAMMA, TAU_ETA))


@dataclass(frozen=True)
class AdaptiveNeuron(Neuron):
    """Adaptive spiking neurons; a layer's threshold is its scale, the input that comes out as it is: f(1) = 1."""

    m_f: float = 0.1
    """speed of the adaptation, and the threshold at rest: larger values make fewer and coarser spikes"""

    model: ClassVar[str] = "adaptive"
    encoders: ClassVar[tuple[str, ...]] = ("direct",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leak != 1 or self.reset != "soft":
            raise UsageError("adaptive neurons have decays of their own: leak must be 1 and reset 'soft'")
        if not 0 < self.m_f <= 1:
            raise UsageError(f"m_f must be in (0, 1], got {self.m_f}")

    def layer(self, name: str) -> LIF:
        return Adaptive(name, self)

    @cached_property
    def height(self) -> float:
        """h: what a spike is worth, such that an input of 1 comes out as 1; .1244 at m_f = .1."""
        return 1 / float(_unit_transfer(torch.ones((), dtype=torch.float64), self.m_f))

    def transfer(self, s: Tensor) -> Tensor:
        """f(S): the mean output for a constant input S, both in units of the layer's scale.

        max(0, h / (exp((c1 S + c2) / (c3 S + c4)) - 1) - c0 + h / 2), and 0 for S < 0; c0 such that f(theta_0 / 2) =
        h / 2: one spike more or less.
        """
        return (self.height * _unit_transfer(s.clamp(min=0), self.m_f)).clamp(min=0)


def _unit_transfer(s: Tensor, m_f: float) -> Tensor:
    """The transfer function of spikes of height 1."""
    rest = m_f
    c1, c2 = 2 * m_f * TAU_GAMMA**2, 2 * rest * TAU_ETA * TAU_GAMMA
    c3, c4 = TAU_GAMMA * (m_f * TAU_GAMMA + 2 * (m_f + 1) * TAU_ETA), rest * TAU_ETA * (TAU_GAMMA + TAU_ETA)
    c0 = 1 / math.expm1((c1 * rest / 2 + c2) / (c3 * rest / 2 + c4))
    return 1 / torch.expm1((c1 * s + c2) / (c3 * s + c4)) - c0 + 0.5


class Adaptive(LIF):
    """A layer of adaptive neurons: currents in, filtered spikes out, both in the ANN's units.

    Its state is stacked: D, S_hat, E and P. The gradient is that of all steps, thresholds included, with the surrogate
    at v = (S - S_hat) / theta + 1/2, which is 1 where the neuron fires and loses 1 at each spike.
    """

    neuron: AdaptiveNeuron

    @property
    def adds_up(self) -> bool:
        return False  # every state begins at 0

    def start(self, x: Tensor) -> Tensor:
        return x.new_zeros(4, *x.shape[1:])

    def fire(self, x: Tensor, u: Tensor, run: Run) -> tuple[Tensor, Tensor, Tensor]:
        s = x / self.threshold
        if run.watch is None:
            filtered, u, spikes = _Adapt.apply(s, u, self.neuron)  # type: ignore[no-untyped-call]
        else:
            filtered, u, spikes, gap, theta = _adapt(s, u, self.neuron.m_f, keep=True)
        worth = self.neuron.height * self.threshold
        # in place where it may be: what is new is a page fault every 4 KiB
        out = filtered * worth if filtered.requires_grad else filtered.mul_(worth)
        if run.watch is not None:
            run.watch(self.layer, x, gap / theta + 0.5, out)
        return out, u, spikes


def _adapt(s: Tensor, state: Tensor, m_f: float, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """P [T, B, ...], the last state, the number of spikes; S - S_hat and theta before each spike, if they are kept."""
    if not keep and s.device.type == "cpu" and s.dtype == torch.float32:
        return (*_adapt_in_cache(s, state, m_f), *s.new_empty(2, 0))
    grown, s_hat, current, potential = (part.clone() for part in state.unbind(0))
    out = torch.empty_like(s)
    gap, theta = (torch.empty_like(s if keep else s[:1]).expand_as(s) for _ in range(2))
    spikes = torch.zeros((), dtype=torch.int64, device=s.device)
    for s_t, out_t, gap_t, theta_t in zip(*(x.unbind(0) for x in (s, out, gap, theta)), strict=True):
        torch.add(grown, m_f, out=theta_t)
        torch.sub(s_t, s_hat.mul_(_ETA), out=gap_t)
        fired = gap_t > theta_t / 2
        step = fired * theta_t
        s_hat += step
        grown.add_(step, alpha=m_f).mul_(_GAMMA)
        current.mul_(_ETA).add_(fired)
        potential.lerp_(current, 1 - _PHI)
        out_t.copy_(potential)
        spikes += torch.count_nonzero(fired)
    return out, torch.stack([grown, s_hat, current, potential]), spikes, gap, theta


def _adapt_in_cache(s: Tensor, state: Tensor, m_f: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same without what a gradient needs, in one pass over memory."""
    from leakbench.snn.engine import kernels  # Numba takes a second to import

    order = sorted(range(1, s.dim()), key=s.stride, reverse=True)
    lies = [0, *order]  # neurons in the order in which they lie in memory
    s, state = s.permute(lies).contiguous(), state.permute(lies).clone(memory_format=torch.contiguous_format)
    out, blocks = torch.empty_like(s), -(-s[0].numel() // _BLOCK)
    spikes = torch.zeros(blocks, dtype=torch.int64)
    constants = [np.float32(constant) for constant in (m_f, _ETA, _GAMMA, 1 - _PHI)]
    arrays = [_BLOCK, s.flatten(1), state.flatten(1), *constants, out.flatten(1), spikes]
    share(blocks, kernels.adapt, arrays)
    back = [lies.index(dim) for dim in range(s.dim())]
    return out.permute(back), state.permute(back), spikes.sum()


class _Adapt(torch.autograd.Function):
    """The neuron's equations over T steps with the surrogate derivative, one pass each way."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, state: Tensor, neuron: AdaptiveNeuron) -> tuple[Tensor, Tensor, Tensor]:
        out, last, spikes, gap, theta = _adapt(s, state, neuron.m_f, keep=any(ctx.needs_input_grad))
        ctx.save_for_backward(gap, theta)
        ctx.neuron = neuron
        ctx.mark_non_differentiable(spikes)
        return out, last, spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_last: Tensor, _: Any) -> tuple[Tensor, Tensor, None]:
        gap, theta = ctx.saved_tensors
        neuron: AdaptiveNeuron = ctx.neuron
        v = gap / theta + 0.5
        slope = neuron.surrogate(v)
        grad = torch.empty_like(slope)
        grown, s_hat, current, potential = grad_last.unbind(0)
        for g_t, v_t, slope_t, gap_t, theta_t, out in zip(
            *(reversed(x.unbind(0)) for x in (grad_out, v, slope, gap, theta, grad)), strict=True
        ):
            potential = potential + g_t
            current = current + (1 - _PHI) * potential
            # what a spike is worth by S_hat and by the threshold's growth, over theta
            reset = s_hat + _GAMMA * neuron.m_f * grown
            at_v = slope_t * (current if neuron.detach_reset else current + theta_t * reset)
            torch.div(at_v, theta_t, out=out)
            grown = _GAMMA * grown + (gap_t > theta_t / 2) * reset - out * (v_t - 0.5)
            s_hat = _ETA * (s_hat - out)
            current, potential = _ETA * current, _PHI * potential
        return grad, torch.stack([grown, s_hat, current, potential]), None


class AdaptiveTransfer(nn.Module):
    """The transfer function as an ANN's activation, in its units: scale * f(x / scale)."""

    threshold: Tensor

    def __init__(self, layer: str, neuron: AdaptiveNeuron, scale: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.neuron = neuron
        self.register_buffer("threshold", scale.clone())

    def forward(self, current: Tensor) -> Tensor:
        return self.threshold * self.neuron.transfer(current / self.threshold)

    @property
    def unit(self) -> Tensor:
        """What one spike a step is worth, at rest."""
        return self.threshold
