"""Convolutions of 3x3 with a quarter of the multiplications: gradients that no list of spikes makes cheaper, and ANNs.

Winograd's F(4x4, 3x3) as in Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016), section
4.1, with points that round less. Tiles of the maps become 36 points each, the convolution is a product of matrices at
each point, and what comes out is turned back into 4x4 outputs. It rounds otherwise than a plain convolution, some 1e-6
of the largest output: nothing for a gradient or an ANN, too much for membranes that are compared with a threshold.
Products of points are in float32 (autocast is the caller's to switch off): they are sums and differences of neighbours,
of which a rounded one tells little.

Maps lie as [N, H, W, C], float32, C a multiple of LANES.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from leakbench.snn.engine import kernels
from leakbench.snn.engine.threads import share
from leakbench.snn.engine.vectors import OUTPUT, PATCH, WINOGRAD

_POINTS = PATCH**2
_BYTES = 4_000_000
"""of the points that are worked on at a time: small enough for a cache, large enough for products of matrices"""
_FEWEST = 64
"""tiles in a product of matrices below which it reads its weights too often"""


def _kernel_transform() -> Tensor:
    """G of F(4x4, 3x3) along both sides, [36, 9]: a point p has (1, p, p^2) over the product of p - q."""
    points = [0.0, *(sign * p for p in WINOGRAD for sign in (1, -1))]
    rows = [[p**power / math.prod(p - q for q in points if q != p) for power in range(3)] for p in points]
    g = torch.tensor([*rows, [0, 0, 1]], dtype=torch.float64)
    return torch.kron(g, g).float()


G = _kernel_transform()


def input_gradient(grad: Tensor, weight: Tensor, padding: int, height: int, width: int) -> Tensor:
    """From the gradient [N, H', W', K] of a convolution's output to that of its input, [N, height, width, C].

    Weight [K, C, 3, 3].
    """
    # a convolution by the turned kernel: here its transform is turned instead
    return _convolved(grad, _points(weight, G.flip(1)), 2 - padding, height, width)


def _points(weight: Tensor, transform: Tensor) -> Tensor:
    """Weight [K, C, 3, 3] at each point, [36, K, C]."""
    return (transform @ weight.detach().permute(2, 3, 0, 1).reshape(9, -1)).view(_POINTS, *weight.shape[:2])


def _convolved(maps: Tensor, weights: Tensor, padding: int, height: int, width: int) -> Tensor:
    """Of maps [N, H', W', A] and weights [36, A, B] at the points: [N, height, width, B]."""
    channels, out_channels = weights.shape[1:]
    out = maps.new_empty(len(maps), height, width, out_channels)
    rows, columns = -(-height // OUTPUT), -(-width // OUTPUT)
    for begin, tiles in _chunks(len(maps) * rows * columns, channels + out_channels):
        points = maps.new_empty(_POINTS, tiles, channels)
        share(tiles, kernels.maps_to_points, [begin, maps, padding, True, rows, columns, points])
        product = torch.bmm(points, weights)
        share(tiles, kernels.points_to_maps, [begin, product, rows, columns, out])
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        maps = x.permute(0, 2, 3, 1).contiguous()
        ctx.save_for_backward(maps, weight)
        return _convolved(maps, _points(weight, G).transpose(1, 2), 1, *maps.shape[1:3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        maps, weight = ctx.saved_tensors
        grad, to_input, to_weight = grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            to_input = input_gradient(grad, weight, 1, *maps.shape[1:3]).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            to_weight = by_output(weights_gradient(maps, grad, 1))
        return to_input, to_weight


def convolution(x: Tensor, weight: Tensor) -> Tensor:
    """That of maps [N, C, H, W] with ``weight`` [K, C, 3, 3] and padding 1, float32 in channels last: [N, K, H, W].

    It can be differentiated once.
    """
    out: Tensor = _Convolution.apply(x, weight)  # type: ignore[no-untyped-call]
    return out.permute(0, 3, 1, 2)  # not within: a view that a function returns can't be changed in place


def weights_gradient(spikes: Tensor, grad: Tensor, padding: int) -> Tensor:
    """From inputs [N, H, W, C], int8 or float32, and the gradient [N, H', W', K] of a convolution's output to that of
    its weights [3, 3, C, K]."""
    channels_in, channels = spikes.shape[3], grad.shape[3]
    rows, columns = -(-grad.shape[1] // OUTPUT), -(-grad.shape[2] // OUTPUT)
    total = grad.new_zeros(_POINTS, channels_in, channels)
    for begin, tiles in _chunks(len(grad) * rows * columns, channels + channels_in):
        entered, left = (grad.new_empty(_POINTS, tiles, c) for c in (channels_in, channels))
        share(tiles, kernels.maps_to_points, [begin, spikes, padding, True, rows, columns, entered])
        share(tiles, kernels.maps_to_points, [begin, grad, 0, False, rows, columns, left])
        total.baddbmm_(entered.transpose(1, 2), left)
    return (G.t() @ total.flatten(1)).view(3, 3, channels_in, channels)


def by_output(total: Tensor) -> Tensor:
    """From [KH, KW, C, K] to [K, C, KH, KW] in channels last, as parameters have their gradients."""
    height, width, channels_in, channels = total.shape
    # a transpose of two axes, which torch does in blocks
    return total.flatten(0, -2).t().contiguous().view(channels, height, width, channels_in).permute(0, 3, 1, 2)


def _chunks(tiles: int, channels: int) -> Iterator[tuple[int, int]]:
    """First tile and number of tiles of each part."""
    most = max(_FEWEST, _BYTES // (_POINTS * channels * 4))
    for begin in range(0, tiles, most):
        yield begin, min(most, tiles - begin)
