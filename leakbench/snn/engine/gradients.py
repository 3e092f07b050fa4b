"""The gradients of a convolution of spikes: of what enters it and of its weights.

Maps lie as [T, B, H, W, C].
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional

from leakbench.snn.engine import kernels, winograd
from leakbench.snn.engine.convolution import CACHE, Convolution, small_fan_in, vectors_in_a_block
from leakbench.snn.engine.threads import as_array, share
from leakbench.snn.engine.vectors import LANES, OUTPUT

_AT_ONCE = 4_000_000
"""bytes of gradients that a product of matrices has at a time, so that what enters it is still in a cache"""


def input_gradient(grad: Tensor, weight: Tensor, conv: Convolution, shape: torch.Size, half: bool) -> Tensor:
    """From the gradient of a convolution's output, [..., H, W, C], to that of its input, [..., H, W, C].

    ``half``: oneDNN's convolutions multiply in bfloat16. With AMX that is faster than tiles in float32 on maps larger
    than a tile, and not on others.
    """
    height, width, channels = shape[2:]
    if conv.height == conv.width == height == width == 1:
        return grad @ weight[:, :, 0, 0]
    in_half = half and min(height, width) > OUTPUT
    if conv.tiled(channels, grad.shape[-1], height, width) and not in_half:
        tiled = winograd.input_gradient(grad.flatten(0, -4), weight, conv.padding, height, width)
        return tiled.view(*grad.shape[:-3], height, width, channels)
    if conv.stride == 1 and max(height, width) < OUTPUT:
        return _per_kernel_offset(grad, weight, conv, height, width)
    if conv.stride == 1 and conv.padding < min(conv.height, conv.width):
        dtype = torch.bfloat16 if half else torch.float32
        out = grad.new_empty(*grad.shape[:-3], height, width, channels)
        _by_turned_kernel(grad.flatten(0, -4), weight, conv, dtype, out.flatten(0, -4))
        return out
    maps = grad.flatten(0, -4).permute(0, 3, 1, 2)
    like = maps.new_empty(1).expand(len(maps), channels, height, width)
    sides = [conv.stride] * 2, [conv.padding] * 2
    gradient: Tensor = torch.ops.aten.convolution_backward(
        maps, like, weight, None, *sides, [1, 1], False, [0, 0], 1, [True, False, False]
    )[0]
    return gradient.permute(0, 2, 3, 1).reshape(*grad.shape[:-3], height, width, channels)


def _by_turned_kernel(grad: Tensor, weight: Tensor, conv: Convolution, dtype: torch.dtype, out: Tensor) -> None:
    """The same of maps [N, H', W', K] into ``out`` [N, H, W, C], multiplied in ``dtype``.

    oneDNN is faster at a convolution by the turned kernel than at its backward pass.
    """
    turned = weight.flip(2, 3).transpose(0, 1).to(dtype).contiguous(memory_format=torch.channels_last)
    padding = (conv.height - 1 - conv.padding, conv.width - 1 - conv.padding)
    at_once = max(1, _AT_ONCE // (grad[0].numel() * 4))
    for maps, gradient in zip(grad.split(at_once), out.split(at_once), strict=True):
        convolved = functional.conv2d(maps.to(dtype).permute(0, 3, 1, 2), turned, padding=padding)
        gradient.copy_(convolved.permute(0, 2, 3, 1))


def _per_kernel_offset(grad: Tensor, weight: Tensor, conv: Convolution, height: int, width: int) -> Tensor:
    """The same, one offset of the kernel after the other: on few pixels a convolution mostly multiplies its padding."""
    gradient = grad.new_zeros(*grad.shape[:-3], height, width, weight.shape[1])
    by_offset = weight.permute(2, 3, 0, 1).contiguous()
    for a in range(conv.height):
        top, low = a - conv.padding, min(grad.shape[-3], height + conv.padding - a)
        for b in range(conv.width):
            left, right = b - conv.padding, min(grad.shape[-2], width + conv.padding - b)
            first_i, first_j = max(0, -top), max(0, -left)
            if first_i < low and first_j < right:
                part = grad[..., first_i:low, first_j:right, :] @ by_offset[a, b]
                gradient[..., first_i + top : low + top, first_j + left : right + left, :] += part
    return gradient


def weights_gradient(read: list[Tensor], binary: bool, grad: Tensor, conv: Convolution, shape: torch.Size) -> Tensor:
    """From spikes and the gradient [T, B, H, W, C] of a convolution's output to that of its weights.

    ``read`` has what a spike is worth and then the spikes, or, where they are few, their lists.
    """
    unit, *spikes = read
    channels_in, channels = shape[4], grad.shape[4]
    if len(spikes) > 1:
        total = _listed_weights_gradient(spikes, binary, grad, conv, shape)
    elif small_fan_in(conv.height * conv.width * channels_in):
        total = _small_weights_gradient(spikes[0].flatten(0, 1), grad.flatten(0, 1), conv)
    else:
        total = winograd.weights_gradient(spikes[0].flatten(0, 1), grad.flatten(0, 1), conv.padding)
    return winograd.by_output(total.mul_(unit[:, None]).view(conv.height, conv.width, channels_in, channels))


def _small_weights_gradient(spikes: Tensor, grad: Tensor, conv: Convolution) -> Tensor:
    """[KH * KW, C_in, C] of a layer of small fan-in: what its neurons read, zeros as well, as rows of a matrix."""
    height, width, channels = grad.shape[1:]
    channels_in, side = spikes.shape[3], 2 * [conv.padding]
    total = grad.new_zeros(conv.height * conv.width * channels_in, channels)
    at_once = max(1, _AT_ONCE // (height * width * channels * 4))
    for maps, gradients in zip(spikes.split(at_once), grad.split(at_once), strict=True):
        read = functional.pad(maps.permute(3, 0, 1, 2).float(), side + side)
        offsets = itertools.product(range(conv.height), range(conv.width))
        rows = torch.stack([read[..., a : a + height, b : b + width] for a, b in offsets])
        total.addmm_(rows.view(len(total), -1), gradients.reshape(-1, channels))
    return total.view(-1, channels_in, channels)


def _listed_weights_gradient(
    lists: list[Tensor], binary: bool, grad: Tensor, conv: Convolution, shape: torch.Size
) -> Tensor:
    """[KH * KW, C_in, C], for spikes that are worth 1."""
    ends, index, value = lists
    batch, width, channels_in = shape[1], shape[3], shape[4]
    channels = grad.shape[4]
    vectors = vectors_in_a_block(channels, 0)
    frame_h = grad.shape[2] + 2 * (conv.height - 1 - conv.padding)
    frame_w = grad.shape[3] + 2 * (conv.width - 1 - conv.padding)
    group = max(1, CACHE // (frame_h * frame_w * vectors * LANES * 4))
    grad = grad.contiguous()
    parts: dict[int, Tensor] = {}

    def work(first: int, last: int) -> None:
        out = parts[first] = torch.zeros(conv.height * conv.width, channels_in, channels)
        arrays = [group, width, channels_in, conv.height, conv.width, conv.padding, ends, index, value]
        arrays += [not binary, grad, vectors, out]
        kernels.events_to_weights(first, last, *(as_array(a) for a in arrays))

    share(batch, work)
    # in the order of the images, whichever thread came first
    total, *others = (parts[first] for first in sorted(parts))
    for part in others:
        total += part
    return total
