"""The architectures by name. No torch here: names are listed and completed without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Vgg:
    """A member of the paper's family: convolution widths by block, width of the hidden FC layer."""

    blocks: tuple[tuple[int, ...], ...]
    hidden: int
    summary: str
    norm: bool = False
    """batch norm behind each convolution"""
    pool: Literal["average", "max"] = "average"


@dataclass(frozen=True)
class ResNet:
    """A residual network for small images (He 2016): widths of the stages and blocks in each."""

    widths: tuple[int, ...]
    depth: int
    """blocks of two convolutions a stage"""
    summary: str


_SMALL = ((32,), (64,), (128,))
_COLOUR = ((64, 64), (128, 128), (256, 256, 256))
_PAPER = (*_COLOUR, (512, 512, 512), (512, 512, 512))

FAMILY: dict[str, Vgg | ResNet] = {
    "vgg4": Vgg(_SMALL[:2], 128, "2 convolutions, for images of 8x8"),
    "vgg5": Vgg(_SMALL, 256, "3 convolutions, for images of 28x28"),
    "vgg9": Vgg(_COLOUR, 1024, "7 convolutions, for colour images on small machines"),
    "vgg16": Vgg(_PAPER, 4096, "13 convolutions, the paper's network"),
    "vgg4bn": Vgg(_SMALL[:2], 128, "vgg4 with batch norm", norm=True),
    "vgg5bn": Vgg(_SMALL, 256, "vgg5 with batch norm", norm=True),
    "vgg9bn": Vgg(_COLOUR, 1024, "vgg9 with batch norm", norm=True),
    "vgg16bn": Vgg(_PAPER, 4096, "vgg16 with batch norm", norm=True),
    "vgg5max": Vgg(_SMALL, 256, "vgg5 with max pooling", pool="max"),
    "vgg16max": Vgg(_PAPER, 4096, "vgg16 with max pooling", pool="max"),
    "resnet8": ResNet((16, 32, 64), 1, "3 residual blocks, for small machines"),
    "resnet20": ResNet((16, 32, 64), 3, "9 residual blocks, the CIFAR network of He 2016"),
    "resnet18": ResNet((64, 128, 256, 512), 2, "8 wide residual blocks, ResNet-18 for small images"),
}


def model_names() -> tuple[str, ...]:
    """The architectures that can be built by name."""
    return tuple(FAMILY)
