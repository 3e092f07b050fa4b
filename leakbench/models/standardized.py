"""Weights of a network without batch norm, kept in a standard form while they are trained.

Scaled weight standardization: what a neuron reads has weights of mean 0, whose length is learnt by itself (Qiao et al.
2019, arXiv 1903.10520; Brock, De, Smith: Characterizing signal propagation, ICLR 2021, arXiv 2101.08692). For the
optimiser it does what batch norm does, without biases and statistics, and nothing of it is left in the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_GAIN = math.sqrt(2 / (1 - 1 / math.pi))
"""length of the weights of a neuron behind which ReLU keeps the variance of independent inputs (their gamma)"""


class _Standard(nn.Module):
    """Weights [outputs, ...] of mean 0 and of a length that is learnt for each output."""

    def __init__(self, weight: Tensor, length: float) -> None:
        super().__init__()
        self._dims = tuple(range(1, weight.ndim))
        self.length = nn.Parameter(torch.full((len(weight), *(1 for _ in self._dims)), length, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        centred = weight - weight.mean(self._dims, keepdim=True)
        return self.length * centred / centred.square().sum(self._dims, keepdim=True).sqrt().clamp_min(1e-6)


@contextmanager
def standardized(network: nn.Module) -> Iterator[None]:
    """Inside, the weights of convolutions and linear layers are in standard form; afterwards they are plain, with the
    last values. The last layer, which no ReLU follows, begins with weights of length 1."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        standard = _Standard(layer.weight, 1.0 if layer is layers[-1] else _GAIN)
        parametrize.register_parametrization(layer, "weight", standard)
    yield
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
