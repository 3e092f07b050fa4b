"""Residual networks for small images: He, Zhang, Ren, Sun, "Deep Residual Learning", CVPR 2016, section 4.2.

A 3x3 stem, then stages of blocks of two 3x3 convolutions with batch norm; the first block of every stage but the first
halves the map, and its shortcut is a 1x1 convolution with batch norm (option B); global average pooling; one FC layer.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


def resnet8(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """3 residual blocks, for small machines."""
    return _resnet(image_shape, classes, generator, (16, 32, 64), 1)


def resnet20(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """9 residual blocks, the CIFAR network of He 2016."""
    return _resnet(image_shape, classes, generator, (16, 32, 64), 3)


def resnet18(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """8 wide residual blocks, ResNet-18 for small images."""
    return _resnet(image_shape, classes, generator, (64, 128, 256, 512), 2)


class Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, channels, H, W] -> [B, out, H / stride, W / stride]."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return cast(Tensor, self.relu2(y + self.shortcut(x)))


def _resnet(
    image_shape: Shape, classes: int, generator: torch.Generator, widths: tuple[int, ...], depth: int
) -> nn.Module:
    """An untrained network for images [C, H, W], Kaiming-normal from ``generator``.

    ``widths`` of the stages, of ``depth`` blocks of two convolutions each.

    A stage halves the map only while it has two pixels, so that deep members fit small images.
    """
    side, channels = min(image_shape[1:]), widths[0]
    layers: list[nn.Module] = [
        nn.Conv2d(image_shape[0], channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
    ]  # fmt: skip
    for stage, width in enumerate(widths):
        for number in range(depth):
            halves = stage > 0 and number == 0 and side >= 2
            layers.append(Block(channels, width, 2 if halves else 1))
            channels = width
            side = (side + 1) // 2 if halves else side
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
