"""Integrate-and-fire neurons with the conventions of other frameworks: what an imported network's layers are made of.

    j(t)   = synapse * j(t-1) + weight * I(t)
    pre(t) = leak * u(t-1) + j(t)
    n(t)   = 1[pre > theta], 1[pre >= theta], or trunc(pre / theta) where pre > 0      fires: above, at, many
    u(t)   = pre - taken * n                                                           where it subtracts
             rest where n > 0, else pre                                                where it does not
    u(t)   = max(u(t), floor)

A spike is worth ``worth`` downstream, 1 elsewhere and theta in LeakBench's own neurons, which are the case of no
synapse, fires above, taken = worth = theta (or rest 0), and no floor. snnTorch's delayed reset by subtraction is
taken = theta / leak, as what is subtracted a step later is not leaked. All constants are a layer's own, one or one a
channel or neuron, and lie beside its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from leakbench.errors import UsageError
from leakbench.snn.neurons import LIF, Neuron, Run

Fires = Literal["above", "at", "many"]
FIRES: tuple[Fires, ...] = ("above", "at", "many")
CONSTANTS = ("weight", "leak", "synapse", "subtracts", "taken", "rest", "floor", "worth")
_LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class GeneralNeuron(Neuron):
    """Of layers that hold their constants themselves: ``leak`` and ``reset`` say nothing here."""

    model: ClassVar[str] = "general"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leak != 1 or self.reset != "soft":
            raise UsageError("neurons of imported networks have leak and reset layer by layer: leave these as they are")

    def layer(self, name: str) -> LIF:
        return General(name, self)


class General(LIF):
    """A layer of such neurons; see the module."""

    weight: Tensor
    """of currents, as 1 / tau where a neuron moves towards its input"""
    leak: Tensor
    synapse: Tensor
    """0: currents enter at once"""
    subtracts: Tensor
    """int64: 1 where a spike takes away, 0 where the membrane is reset to a value"""
    taken: Tensor
    rest: Tensor
    floor: Tensor
    """no membrane is lower after a step; the lowest float32 where nothing holds it"""
    worth: Tensor
    fires: Tensor
    """number in FIRES, int64 []"""

    def __init__(self, name: str, neuron: Neuron) -> None:
        super().__init__(name, neuron)
        usual = {
            "weight": 1.0, "leak": 1.0, "synapse": 0.0, "subtracts": 1, "taken": 1.0, "rest": 0.0, "floor": _LOWEST,
            "worth": 1.0, "fires": 0,
        }  # fmt: skip
        for constant, value in usual.items():
            self.register_buffer(constant, torch.tensor(value))

    def start(self, x: Tensor) -> Tensor:
        u = super().start(x)
        return torch.stack([u, torch.zeros_like(u)])

    def fire(self, x: Tensor, u: Tensor, run: Run) -> tuple[Tensor, Tensor, Tensor]:
        """``u`` [2, B, ...]: membranes and synaptic currents."""
        constants = [self.threshold, *(getattr(self, name) for name in CONSTANTS)]
        rule = FIRES[int(self.fires)]
        if run.watch is not None:
            spikes, pre, u = _steps(x, u, constants, rule, keep=True)
            run.watch(self.layer, x, pre / self.threshold, spikes)
        else:
            spikes, u = _Steps.apply(x, u, constants, rule, self.neuron)  # type: ignore[no-untyped-call]
        return spikes, u, (spikes.detach() / self.worth).sum(dtype=torch.float64).round().long()

    @property
    def span(self) -> Tensor:
        """What the membrane falls by at a spike that comes just at the threshold."""
        return torch.where(self.subtracts.bool(), self.taken, self.threshold - self.rest)

    @property
    def unit(self) -> Tensor:
        return self.worth

    def leaks(self) -> Tensor:
        return self.leak

    def response(self) -> Tensor:
        return self.worth * self.weight / (self.span * (1 - self.synapse))

    def activation(self) -> nn.Module:
        return ScaledReLU(self.response())


class ScaledReLU(nn.ReLU):
    """``scale * max(0, x)``, with a scale [] or one that is broadcast to the neurons'."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.clone())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


def _fired(pre: Tensor, theta: Tensor, rule: Fires) -> Tensor:
    """Spikes of one step, in pre's type."""
    match rule:
        case "above":
            return (pre > theta).to(pre.dtype)
        case "at":
            return (pre >= theta).to(pre.dtype)
    return (pre / theta).trunc().clamp_(min=0)


def _steps(x: Tensor, state: Tensor, constants: list[Tensor], rule: Fires, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes' worth [T, B, ...], membranes before each reset (empty, unless they are kept), the last state."""
    theta, weight, leak, synapse, subtracts, taken, rest, floor, worth = constants
    falls = subtracts.bool()
    u, j = state.unbind(0)
    out = torch.empty_like(x)
    pre = torch.empty_like(x) if keep else x.new_empty(0)
    for step, x_t in enumerate(x.unbind(0)):
        j = synapse * j + weight * x_t
        before = leak * u + j
        n = _fired(before, theta, rule)
        u = torch.where(falls | (n == 0), before - taken * n, rest)
        u = torch.maximum(u, floor)
        out[step] = worth * n
        if keep:
            pre[step] = before
    return out, pre, torch.stack([u, j])


class _Steps(torch.autograd.Function):
    """The equations over T steps with the surrogate derivative; keeps the membranes before the reset."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, state: Tensor, constants: list[Tensor], rule: Fires, neuron: Neuron
    ) -> tuple[Tensor, Tensor]:
        out, pre, last = _steps(x, state, constants, rule, keep=any(ctx.needs_input_grad[:2]))
        ctx.save_for_backward(pre, *constants)
        ctx.rule, ctx.neuron = rule, neuron
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_last: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        pre, theta, weight, leak, synapse, subtracts, taken, rest, floor, worth = ctx.saved_tensors
        neuron: Neuron = ctx.neuron
        v = pre / theta
        if ctx.rule == "many":  # of the threshold that is nearest
            v = v - (v.round() - 1).clamp(min=0)
        slope = neuron.surrogate(v) / theta  # of the number of spikes
        falls = subtracts.bool()
        g_u, carried = grad_last.unbind(0)  # by membranes, and by synaptic currents
        grad = torch.empty_like(grad_out)
        for step in reversed(range(len(grad_out))):
            before = pre[step]
            n = _fired(before, theta, ctx.rule)
            stays = falls | (n == 0)
            after = torch.where(stays, before - taken * n, rest)
            g_u = g_u * (after >= floor)
            at_n = worth * grad_out[step]
            if not neuron.detach_reset:
                at_n = at_n - g_u * torch.where(falls, taken, before - rest)
            g = slope[step] * at_n + g_u * stays
            g_j = g + carried
            grad[step] = weight * g_j
            g_u, carried = leak * g, synapse * g_j
        return grad, torch.stack([g_u, carried]), None, None, None
