"""What passes between the layers of the fast path: spikes over T steps, or a value that is the same at every step.

Maps lie as [T, B, H, W, C]. Gradients pass along a ``token``: a tensor of the spikes' shape without memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from leakbench.snn.engine import kernels
from leakbench.snn.engine.threads import share


@dataclass(frozen=True)
class Constant:
    """A value that is the same at every step, [B, ...]: direct code, and what linear layers make of it."""

    value: Tensor


@dataclass(frozen=True)
class Spikes:
    """The output of neurons over T steps, or of the encoder."""

    token: Tensor
    """float32 [T, B, H, W, C]; the encoder's is the image, [B, H, W, C], as its gradient is a sum over steps"""
    maps: Tensor
    """int8 [T, B, H, W, C]: spikes, summed over the neurons that are pooled together"""
    counts: Tensor
    """int64 [T, B]: no fewer than the entries of ``maps`` that are not 0"""
    unit: Tensor
    """float32 [C]: what a spike is worth"""
    binary: bool
    """entries are 0 or 1"""
    flat: bool = False
    """stands for [T * B, C * H * W] and not for maps"""

    @cached_property
    def lists(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ends, index and value, as :func:`leakbench.snn.engine.kernels.list_spikes` writes them."""
        steps, batch, height, width = self.maps.shape[:4]
        begin = torch.zeros(steps * batch + 1, dtype=torch.int64)
        torch.cumsum(self.counts.flatten(), 0, out=begin[1:])
        size = max(1, int(begin[-1]))
        ends = torch.empty(steps, batch, height * width + 1, dtype=torch.int64)
        index, value = torch.empty(size, dtype=torch.int32), torch.empty(size)
        share(batch, kernels.list_spikes, [self.maps, begin, ends, index, value])
        return ends, index, value

    def no_denser_than(self, share: float) -> bool:
        """Whether no more than this share of the entries is not 0."""
        most = share * self.maps.numel()
        if self.binary or float(self.counts.sum()) <= most:
            return float(self.counts.sum()) <= most
        # where neurons are pooled, several spikes make one entry
        ends, _, _ = self.lists
        return float((ends[..., -1] - ends[..., 0]).sum()) <= most

    def dense(self) -> Tensor:
        """The values as the plain path has them: [T * B, C, H, W], or [T * B, features] where flat."""
        values = cast(Tensor, _Dense.apply(self.token, self.maps, self.unit))  # type: ignore[no-untyped-call]
        return values.flatten(1) if self.flat else values

    def mean(self) -> Tensor:
        """The mean over steps, [B, C, H, W], or [B, features] where flat."""
        values = cast(Tensor, _Mean.apply(self.token, self.maps, self.unit))  # type: ignore[no-untyped-call]
        return values.flatten(1) if self.flat else values

    def flattened(self) -> Spikes:
        """The same as features."""
        return replace(self, flat=True)

    def as_one_pixel(self) -> Spikes:
        """The same spikes as maps of one pixel with H * W * C channels: what a linear layer reads."""
        height, width, channels = self.maps.shape[2:]
        if height * width == 1:
            return replace(self, flat=False)
        shape = (*self.maps.shape[:2], 1, 1, height * width * channels)
        token = self.token.reshape(shape if self.token.dim() == 5 else shape[1:])
        return replace(self, token=token, maps=self.maps.view(shape), unit=self.unit.repeat(height * width), flat=False)


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, maps: Tensor, unit: Tensor) -> Tensor:
        ctx.steps, ctx.encoded = len(maps), token.dim() == 4
        return (maps.to(unit.dtype) * unit).flatten(0, 1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        grad = grad.permute(0, 2, 3, 1).unflatten(0, (ctx.steps, -1))
        return grad.sum(0) if ctx.encoded else grad, None, None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, maps: Tensor, unit: Tensor) -> Tensor:
        ctx.steps, ctx.encoded = len(maps), token.dim() == 4
        return (maps.sum(0, dtype=torch.int32) * (unit / len(maps))).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        grad = grad.permute(0, 2, 3, 1)
        if not ctx.encoded:
            grad = (grad / ctx.steps).expand(ctx.steps, *grad.shape)
        return grad, None, None


def encode(x: Tensor, keys: Tensor, start: int, stop: int) -> Spikes:
    """Signed Poisson spikes of x [B, C, H, W] in [-1, 1]: what :func:`leakbench.snn.encoders.poisson` puts out."""
    batch, channels, height, width = x.shape
    maps = torch.empty(stop - start, batch, height, width, channels, dtype=torch.int8)
    counts = torch.empty(stop - start, batch, dtype=torch.int64)
    arrays = [x.detach().contiguous().numpy(), keys.contiguous().numpy().view("uint32"), maps.numpy(), counts.numpy()]
    share(batch, lambda first, last: kernels.poisson(first, last, start, *arrays))
    return Spikes(x.permute(0, 2, 3, 1), maps, counts, torch.ones(channels), binary=False)
