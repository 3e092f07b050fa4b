"""A small network in doubles, and what goes in and out of its layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.snn import SpikingConfig, SpikingNetwork

SHAPE = (2, 6, 6)


# Doubles: only the order of summation differs, by some 1e-15 relative an operation.
def assert_same(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


THETAS = [1.3, 0.9, 0.6]


def toy_ann(dropout: float = 0.0, seed: int = 5) -> ImageClassifier:
    """conv - pool - conv - FC - FC on 2x6x6 images in [-1, 1]."""
    body = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(45, 8, bias=False), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3, bias=False),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for parameter in body.parameters():
        nn.init.kaiming_normal_(parameter, generator=generator)
    return ImageClassifier(body, SHAPE, 3, (-1.0, 1.0))


def toy_snn(config: SpikingConfig, thetas: list[Any] = THETAS, dropout: float = 0.0) -> SpikingNetwork:
    """In doubles, so that no spike depends on rounding."""
    network = SpikingNetwork.from_ann(toy_ann(dropout), config).double()
    for layer, theta in zip(network.neurons, thetas, strict=True):
        layer.set_threshold(theta)
    return network


def toy_images(batch: int = 4) -> Tensor:
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


class Recorder:
    """What goes into the body and what its neurons put out, [T, B, ...], over all chunks of a simulation."""

    def __init__(self, network: SpikingNetwork) -> None:
        self._inputs: list[Tensor] = []
        self._spikes: list[list[Tensor]] = [[] for _ in network.neurons]
        network.body.register_forward_pre_hook(lambda _, args: self._inputs.append(args[0].detach()))
        for kept, layer in zip(self._spikes, network.neurons, strict=True):
            layer.register_forward_hook(lambda _, _args, out, kept=kept: kept.append(out.detach()))

    def encoded(self, steps: int) -> Tensor:
        joined = torch.cat(self._inputs)
        return joined.view(steps, -1, *joined.shape[1:])

    def spikes(self, steps: int) -> list[Tensor]:
        return [torch.cat(kept).unflatten(0, (steps, -1)) for kept in self._spikes]

    @property
    def chunks(self) -> int:
        return len(self._inputs)
