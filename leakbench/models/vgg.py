"""The paper's VGG16 and smaller members of its family: bias-free, average pooling, no batch norm.

Conv 3x3 with padding 1, ReLU; average pooling 2 after each block; then FC - ReLU - dropout .5 - FC.
Variants have a batch norm behind each convolution, or max pooling.
"""

from __future__ import annotations

import torch
from torch import nn

Shape = tuple[int, int, int]
Blocks = tuple[tuple[int, ...], ...]
"""widths of the convolutions, by block"""

SMALL: Blocks = ((32,), (64,), (128,))
COLOUR: Blocks = ((64, 64), (128, 128), (256, 256, 256))
PAPER: Blocks = (*COLOUR, (512, 512, 512), (512, 512, 512))


def vgg4(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """2 convolutions, for images of 8x8."""
    return _vgg(image_shape, classes, generator, SMALL[:2], 128)


def vgg5(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """3 convolutions, for images of 28x28."""
    return _vgg(image_shape, classes, generator, SMALL, 256)


def vgg9(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """7 convolutions, for colour images on small machines."""
    return _vgg(image_shape, classes, generator, COLOUR, 1024)


def vgg16(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """13 convolutions, the paper's network."""
    return _vgg(image_shape, classes, generator, PAPER, 4096)


def vgg4bn(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg4 with batch norm."""
    return _vgg(image_shape, classes, generator, SMALL[:2], 128, norm=True)


def vgg5bn(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg5 with batch norm."""
    return _vgg(image_shape, classes, generator, SMALL, 256, norm=True)


def vgg9bn(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg9 with batch norm."""
    return _vgg(image_shape, classes, generator, COLOUR, 1024, norm=True)


def vgg16bn(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg16 with batch norm."""
    return _vgg(image_shape, classes, generator, PAPER, 4096, norm=True)


def vgg5max(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg5 with max pooling."""
    return _vgg(image_shape, classes, generator, SMALL, 256, pool=nn.MaxPool2d)


def vgg16max(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg16 with max pooling."""
    return _vgg(image_shape, classes, generator, PAPER, 4096, pool=nn.MaxPool2d)


def _vgg(
    image_shape: Shape,
    classes: int,
    generator: torch.Generator,
    blocks: Blocks,
    hidden: int,
    *,
    norm: bool = False,
    pool: type[nn.AvgPool2d] | type[nn.MaxPool2d] = nn.AvgPool2d,
) -> nn.Sequential:
    """An untrained network for images [C, H, W], Kaiming-normal from ``generator``; ``hidden``: width of the FC layer.

    A map of one pixel is not pooled any further, so that deep members fit small images.
    """
    channels, height, width = image_shape
    layers: list[nn.Module] = []
    for block in blocks:
        for out in block:
            layers.append(nn.Conv2d(channels, out, 3, padding=1, bias=False))
            if norm:
                layers.append(nn.BatchNorm2d(out))
            layers.append(nn.ReLU())
            channels = out
        if min(height, width) >= 2:
            layers.append(pool(2))
            height, width = height // 2, width // 2
    layers += [
        nn.Flatten(),
        nn.Linear(channels * height * width, hidden, bias=False),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(hidden, classes, bias=False),
    ]
    network = nn.Sequential(*layers)
    for module in network:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
    return network
