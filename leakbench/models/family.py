"""The members of the VGG family by name. No torch here: names are listed and completed without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One member: convolution widths by block, width of the hidden FC layer."""

    blocks: tuple[tuple[int, ...], ...]
    hidden: int
    summary: str


FAMILY: dict[str, Family] = {
    "vgg4": Family(((32,), (64,)), 128, "2 convolutions, for images of 8x8"),
    "vgg5": Family(((32,), (64,), (128,)), 256, "3 convolutions, for images of 28x28"),
    "vgg9": Family(
        ((64, 64), (128, 128), (256, 256, 256)), 1024, "7 convolutions, for colour images on small machines"
    ),
    "vgg16": Family(
        ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
        4096,
        "13 convolutions, the paper's network",
    ),
}


def model_names() -> tuple[str, ...]:
    """The architectures that can be built by name."""
    return tuple(FAMILY)
