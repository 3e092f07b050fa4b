"""The paper's VGG16 and smaller members of its family: bias-free, average pooling, no batch norm.

Conv 3x3 with padding 1, ReLU; average pooling 2 after each block; then FC - ReLU - dropout .5 - FC.
Variants have a batch norm behind each convolution, or max pooling.
"""

from __future__ import annotations

import torch
from torch import nn

from leakbench.models.family import Vgg


def vgg(family: Vgg, image_shape: tuple[int, int, int], classes: int, generator: torch.Generator) -> nn.Sequential:
    """An untrained network for images [C, H, W], Kaiming-normal from ``generator``.

    A map of one pixel is not pooled any further, so that deep members fit small images.
    """
    channels, height, width = image_shape
    layers: list[nn.Module] = []
    for block in family.blocks:
        for out in block:
            layers.append(nn.Conv2d(channels, out, 3, padding=1, bias=False))
            if family.norm:
                layers.append(nn.BatchNorm2d(out))
            layers.append(nn.ReLU())
            channels = out
        if min(height, width) >= 2:
            layers.append(nn.AvgPool2d(2) if family.pool == "average" else nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    layers += [
        nn.Flatten(),
        nn.Linear(channels * height * width, family.hidden, bias=False),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(family.hidden, classes, bias=False),
    ]
    network = nn.Sequential(*layers)
    for module in network:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
    return network
