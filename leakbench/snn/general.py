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

Integer hardware leaks by a shift, v -= v >> k, which rounds towards minus infinity. A layer with ``shift`` k > 0 does:

    pre(t) = u(t-1) - floor(u(t-1) / 2^k) + j(t)

With whole weights and thresholds all of it is whole, and exact up to 2^24. The derivative is that of the factor that it
rounds, 1 - 2^-k, which such a layer has as its leak.
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
MOST_SHIFT = 16
"""of a leak: more is none within the simulations that there are, and float32 could not hold 1 - 2^-k apart from 1"""
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
    shift: Tensor | None
    """int64: k of v >> k, 0 where a neuron leaks by its factor; None, and in no file, where all do"""

    def __init__(self, name: str, neuron: Neuron) -> None:
        super().__init__(name, neuron)
        usual = {
            "weight": 1.0, "leak": 1.0, "synapse": 0.0, "subtracts": 1, "taken": 1.0, "rest": 0.0, "floor": _LOWEST,
            "worth": 1.0, "fires": 0,
        }  # fmt: skip
        for constant, value in usual.items():
            self.register_buffer(constant, torch.tensor(value))
        self.register_buffer("shift", None)

    def set_shift(self, shift: int | Tensor) -> None:
        """Leak by v - floor(v / 2^k), with k [] or one a channel or neuron, in 1..MOST_SHIFT, or 0 for none there.

        Where it is above 0, it sets the factor that it stands for. UsageError for another number.
        """
        k = torch.as_tensor(shift, device=self.leak.device)
        if k.is_floating_point() or not ((k >= 0) & (k <= MOST_SHIFT)).all():
            raise UsageError(f"a leak's shift must be a whole number in 0..{MOST_SHIFT}, got {k.tolist()}"[:200])
        self.shift = k.long()
        self.leak = torch.where(k > 0, 1 - 2.0 ** -k.to(self.leak.dtype), self.leak)

    def check_shift(self) -> None:
        """UsageError where a shift that was read is none, or another than the leak beside it says."""
        if self.shift is None:
            return
        if not ((self.shift >= 0) & (self.shift <= MOST_SHIFT)).all():
            raise UsageError(f"the neurons {self.layer!r}: shift must be in 0..{MOST_SHIFT}")
        try:
            same = (self.shift == 0) | (self.leak == 1 - 2.0 ** -self.shift.to(self.leak.dtype))
        except RuntimeError:
            raise UsageError(f"the neurons {self.layer!r}: shift and leak are of different shapes") from None
        if not same.all():
            raise UsageError(f"the neurons {self.layer!r}: leak must be 1 - 2^-shift where shift is above 0")

    def start(self, x: Tensor) -> Tensor:
        u = super().start(x)
        return torch.stack([u, torch.zeros_like(u)])

    def fire(self, x: Tensor, u: Tensor, run: Run) -> tuple[Tensor, Tensor, Tensor]:
        """``u`` [2, B, ...]: membranes and synaptic currents."""
        constants = [self.threshold, *(getattr(self, name) for name in CONSTANTS)]
        rule = FIRES[int(self.fires)]
        if run.watch is not None:
            spikes, pre, u = _steps(x, u, constants, rule, True, self.shift)
            run.watch(self.layer, x, pre / self.threshold, spikes)
        else:
            spikes, u = _Steps.apply(x, u, constants, rule, self.neuron, self.shift)  # type: ignore[no-untyped-call]
        return spikes, u, (spikes.detach() / self.worth).sum(dtype=torch.float64).round().long()

    @property
    def span(self) -> Tensor:
        """What the membrane falls by at a spike that comes just at the threshold."""
        return torch.where(self.subtracts.bool(), self.taken, self.threshold - self.rest)

    @property
    def unit(self) -> Tensor:
        return self.worth

    @property
    def adds_up(self) -> bool:
        return False

    def lift(self, steps: int) -> Tensor:
        powers = self.synapse.unsqueeze(-1) ** torch.arange(steps, device=self.synapse.device)
        return self.weight * powers.cumsum(-1).mean(-1)

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


def _steps(
    x: Tensor, state: Tensor, constants: list[Tensor], rule: Fires, keep: bool, shift: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes' worth [T, B, ...], membranes before each reset (empty, unless they are kept), the last state."""
    theta, weight, leak, synapse, subtracts, taken, rest, floor, worth = constants
    falls = subtracts.bool()
    part = None if shift is None else 2.0 ** -shift.to(x.dtype)
    u, j = state.unbind(0)
    out = torch.empty_like(x)
    pre = torch.empty_like(x) if keep else x.new_empty(0)
    for step, x_t in enumerate(x.unbind(0)):
        j = synapse * j + weight * x_t
        kept = leak * u
        if part is not None:
            kept = torch.where(part < 1, u - torch.floor(u * part), kept)
        before = kept + j
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
        ctx: Any,
        x: Tensor,
        state: Tensor,
        constants: list[Tensor],
        rule: Fires,
        neuron: Neuron,
        shift: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        out, pre, last = _steps(x, state, constants, rule, any(ctx.needs_input_grad[:2]), shift)
        ctx.save_for_backward(pre, *constants)
        ctx.rule, ctx.neuron = rule, neuron
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_last: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
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
        return grad, torch.stack([g_u, carried]), None, None, None, None
