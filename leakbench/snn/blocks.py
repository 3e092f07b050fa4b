"""Layers of imported networks that PyTorch has no module for, or that a conversion would make something else of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[int, int]


class SumPool(nn.AvgPool2d):
    """Sums over windows, padding counted."""

    def __init__(self, kernel: Pair, stride: Pair, padding: Pair) -> None:
        super().__init__(kernel, stride, padding, divisor_override=1)


class SpikeMax(nn.Module):
    """Maximum over windows at each step: of spikes, whether there was one. A conversion leaves it as it is."""

    def __init__(self, kernel: Pair, stride: Pair, padding: Pair) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H', W']."""
        return functional.max_pool2d(x, self.kernel, self.stride, self.padding)


class Affine(nn.Module):
    """scale * x + shift, one of each a channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        size = (shape[0], *[1] * (len(shape) - 1))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("shift", torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> the same."""
        return x * self.scale + self.shift
