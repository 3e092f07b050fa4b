"""Convolutions of 3x3 with fewer multiplications than oneDNN's: for training ANNs, and synthesis on them.

Half of the time of a training on a CPU is theirs, or more. Layers that are large enough take Winograd's F(4x4, 3x3)
(:mod:`leakbench.snn.engine.winograd`); on maps of one or two pixels a side, where a convolution mostly multiplies its
padding, they are linear layers. Results round otherwise, by some 1e-6 of the largest number, as those of another
library's convolution do. Which layers take which follows from shapes, not from the processor.

They are for weights that nobody chose against them. Sixteen outputs are computed together and share their rounding:
weights that make some of these huge, and silence them, hide the gradients of the others. So no attack takes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import ModuleNetwork
from leakbench.snn import SpikingNetwork

WORTHWHILE = 8_000_000
"""multiplications of a plain convolution of an image from which another way is faster: layers, and so networks, of
small images are left as they are"""
FEWEST = 512
"""pixels of a batch's maps below which the weights' transform takes longer than it saves"""
FLAT = 2
"""pixels a side up to which a convolution is a linear layer"""


@contextmanager
def fast_convolutions(network: nn.Module) -> Iterator[None]:
    """Inside, convolutions of ``network`` whose gradients are asked for in float32 on a CPU take the faster way.

    Not those of spiking networks, nor of modules whose layers can't be read: they may feed membranes, which are
    compared with a threshold. For one thread; what is copied inside keeps the faster way.
    """
    spikes = any(isinstance(module, ModuleNetwork | SpikingNetwork) for module in network.modules())
    layers = [m for m in network.modules() if not spikes and isinstance(m, nn.Conv2d) and _usual(m)]
    for layer in layers:
        layer._conv_forward = partial(_convolve, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("_conv_forward", None)


def _usual(layer: nn.Conv2d) -> bool:
    """Whether it is one that can be replaced, and that no subclass and no call around this one computes otherwise."""
    own = "_conv_forward" in vars(layer) or type(layer)._conv_forward is not nn.Conv2d._conv_forward
    sides = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    usual = sides == ((3, 3), (1, 1), (1, 1), (1, 1)) and layer.groups == 1 and layer.padding_mode == "zeros"
    return usual and not own


def _convolve(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What the layer makes of maps [B, C, H, W]."""
    exact = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    followed = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if exact and followed and x.ndim == 4 and x.shape[1] == weight.shape[1]:  # else PyTorch says what is wrong
        height, width = x.shape[2:]
        if height * width * weight.numel() >= WORTHWHILE and len(x) * height * width >= FEWEST:
            # not imported before it is needed: it loads Numba
            from leakbench.snn.engine.convolution import Convolution
            from leakbench.snn.engine.winograd import convolution

            maps = None
            if max(height, width) <= FLAT:
                maps = _linear(x, weight)
            elif Convolution(3, 3, 1, 1).tiled(x.shape[1], len(weight), height, width):
                maps = convolution(x, weight)
            if maps is not None:
                return maps if bias is None else maps + bias[:, None, None]
    plain: Tensor = nn.Conv2d._conv_forward(layer, x, weight, bias)
    return plain


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution with padding 1 of maps [B, C, H, W] of at most two pixels a side, each of which reads all others.

    Weight [K, C, 3, 3].
    """
    height, width = x.shape[2:]
    # of the output at (i, j) the input at (a, b) meets the kernel at (1 + a - i, 1 + b - j)
    parts = [weight[:, :, 1 - i : 1 - i + height, 1 - j : 1 - j + width] for i in range(height) for j in range(width)]
    matrix = torch.stack(parts).flatten(0, 1).permute(0, 2, 3, 1).flatten(1)
    maps = functional.linear(x.permute(0, 2, 3, 1).flatten(1), matrix)
    return maps.view(len(x), height, width, len(weight)).permute(0, 3, 1, 2)
