"""A small network with one wide convolution."""

from __future__ import annotations

import torch
from torch import nn


def wide_stem(image_shape: tuple[int, int, int], classes: int, generator: torch.Generator) -> nn.Module:
    """One convolution of 5x5, pooled by four."""
    channels, height, width = image_shape
    network = nn.Sequential(
        nn.Conv2d(channels, 24, 5, padding=2, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(24 * (height // 4) * (width // 4), classes, bias=False),
    )
    for weight in network.parameters():
        nn.init.kaiming_normal_(weight, generator=generator)
    return network
