"""Spiking networks the slow way: one step at a time, written from the method and not from the engine.

Two formulations. :func:`unit_spikes` is method.md's: spikes of 1, thresholds theta_l / theta_(l-1), logits scaled by
the product of those thresholds. :func:`straight_through` has spikes of theta and lets autograd do the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Shape = Callable[[Tensor], Tensor]


def stages(body: nn.Sequential) -> list[nn.Sequential]:
    """The linear parts of a chain between its ReLUs; the last one is the output layer."""
    parts: list[list[nn.Module]] = [[]]
    for module in body:
        if isinstance(module, nn.ReLU):
            parts.append([])
        elif not isinstance(module, nn.Dropout):
            parts[-1].append(module)
    return [nn.Sequential(*part) for part in parts]


def unit_spikes(
    body: nn.Sequential, encoded: Tensor, thresholds: list[float], leak: float, reset: str
) -> tuple[list[Tensor], Tensor]:
    """Spikes [T, B, ...] in {0, 1} of each layer and logits [B, classes], for encoded input [T, B, ...]."""
    *hidden, last = stages(body)
    unit = [theta / before for theta, before in zip(thresholds, [1.0, *thresholds[:-1]], strict=True)]
    membranes: list[Tensor | float] = [0.0] * len(hidden)
    spikes: list[list[Tensor]] = [[] for _ in hidden]
    output = torch.zeros((), dtype=encoded.dtype)
    for x in encoded:
        for i, layer in enumerate(hidden):
            u = leak * membranes[i] + layer(x)
            x = (u > unit[i]).to(u.dtype)
            membranes[i] = u - unit[i] * x if reset == "soft" else torch.where(x > 0, torch.zeros_like(u), u)
            spikes[i].append(x)
        output = output + last(x)
    return [torch.stack(train) for train in spikes], output / len(encoded) * math.prod(unit)


class _Spike(torch.autograd.Function):
    """1[u > theta] forwards, slope(u / theta) / theta backwards."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, theta: Tensor, slope: Shape) -> Tensor:
        ctx.save_for_backward(u, theta)
        ctx.slope = slope
        return (u > theta).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        u, theta = ctx.saved_tensors
        return grad * ctx.slope(u / theta) / theta, None, None


def straight_through(
    currents: Tensor, membrane: Tensor, theta: Tensor, leak: float, reset: str, detach: bool, slope: Shape
) -> tuple[Tensor, Tensor]:
    """Spikes of theta [T, ...] and the last membrane of one layer, differentiable through all steps."""
    u, out = membrane, []
    for current in currents:
        u = leak * u + current
        fired = _Spike.apply(u, theta, slope)  # type: ignore[no-untyped-call]
        resetting = fired.detach() if detach else fired
        u = u - theta * resetting if reset == "soft" else u * (1 - resetting)
        out.append(theta * fired)
    return torch.stack(out), u


def straight_through_network(
    body: nn.Sequential, encoded: Tensor, thetas: list[Tensor], initials: list[Tensor], leak: float, slope: Shape
) -> Tensor:
    """Logits [B, classes] of a chain of soft-reset layers, differentiable through all layers and steps."""
    *hidden, last = stages(body)
    x = encoded
    for layer, theta, initial in zip(hidden, thetas, initials, strict=True):
        currents = torch.stack([layer(step) for step in x])
        x, _ = straight_through(currents, initial.expand(currents.shape[1:]), theta, leak, "soft", False, slope)
    return torch.stack([last(step) for step in x]).mean(0)
