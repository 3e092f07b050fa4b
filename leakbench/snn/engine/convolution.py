"""The shape of a convolution, and its weights as the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakbench.snn.engine.vectors import LANES, OUTPUT

SMALL_FAN_IN = 32
"""inputs of a neuron up to which all are read, zeros as well: processors mispredict the ends of such short lists"""
CACHE = 700_000
"""bytes of weights that stay in a core's second cache"""


@dataclass(frozen=True)
class Convolution:
    """The shape; a linear layer is one of a single pixel."""

    height: int
    width: int
    stride: int
    padding: int

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of its output for maps of this height and width."""
        return (
            (height + 2 * self.padding - self.height) // self.stride + 1,
            (width + 2 * self.padding - self.width) // self.stride + 1,
        )

    def tiled(self, channels_in: int, channels: int, height: int, width: int) -> bool:
        """Whether a quarter of the multiplications is enough (:mod:`~leakbench.snn.engine.winograd`), and pays."""
        size = self.height, self.width, self.stride
        in_vectors = channels_in % LANES == channels % LANES == 0
        return size == (3, 3, 1) and self.padding <= 2 and in_vectors and min(height, width) >= OUTPUT


def small_fan_in(inputs: int) -> bool:
    """Whether neurons of so many inputs read all of them, zeros as well."""
    return inputs <= SMALL_FAN_IN


def vectors_in_a_block(channels: int, rows: int) -> int:
    """How many vectors of output channels a block of weights has: as many as let its rows stay in the cache."""
    return next(v for v in (4, 2, 1) if channels % (v * LANES) == 0 and (v == 1 or rows * v * LANES * 4 <= CACHE))


def pack(weight: Tensor, unit: Tensor) -> Tensor:
    """Weights [C_out, C_in, KH, KW] times what a spike is worth, as the kernels read them."""
    channels, channels_in, height, width = weight.shape
    rows = height * width * channels_in
    block = vectors_in_a_block(channels, rows) * LANES
    # without a copy where the weights are in channels last
    by_output = weight.detach().permute(0, 2, 3, 1).reshape(channels // block, block, rows)
    packed = torch.empty(channels // block, rows, block)
    for block_of_rows, part in zip(packed, by_output, strict=True):
        block_of_rows.copy_(part.t())  # two axes at a time: torch does these in blocks
    return packed.mul_(unit.repeat(height * width)[:, None])
