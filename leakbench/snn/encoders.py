"""From an image in the network's input range to what enters the first layer at each time step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from leakbench.snn.noise import uniform

EncoderName = Literal["poisson", "direct"]
"""the codes of networks whose neurons answer step by step"""
Encoding = Literal["poisson", "direct", "switch"]


class _Poisson(torch.autograd.Function):
    """Signed Poisson code. Backward: straight through, as E[s] = x (Sharmin 2020)."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor, noise: Tensor) -> Tensor:
        return (noise <= x.abs()).to(x.dtype) * x.sign()

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.sum(0), None


def poisson(x: Tensor, keys: Tensor, start: int, stop: int) -> Tensor:
    """s = 1[U(0,1) <= |x|] * sign(x), fresh noise each step (docs/method.md, Networks and encoders).

    x [B, ...] in [-1, 1] -> spikes [stop - start, B, ...] in {-1, 0, 1}. The gradient passes straight through.
    """
    noise = uniform(keys, start, stop, tuple(x.shape[1:]))
    return cast(Tensor, _Poisson.apply(x, noise))  # type: ignore[no-untyped-call]


def direct(x: Tensor, _keys: Tensor, start: int, stop: int) -> Tensor:
    """Constant current: x at every step, [stop - start, B, ...]."""
    return x.unsqueeze(0).expand(stop - start, *x.shape)


def switch(x: Tensor, _keys: Tensor, start: int, stop: int) -> Tensor:
    """Temporal switch code: sign(x) for the first n = round(|x| T) of the T steps start ... stop - 1 (Han & Roy 2020).

    x [B, ...] in [-1, 1] -> the value n / T with its sign, one pass [1, B, ...]. The gradient passes straight through.
    """
    steps = stop - start
    values = (x * steps).round() / steps
    return (values.detach() + (x - x.detach())).unsqueeze(0)


Encoder = Callable[[Tensor, Tensor, int, int], Tensor]

ENCODERS: dict[Encoding, Encoder] = {"poisson": poisson, "direct": direct, "switch": switch}
