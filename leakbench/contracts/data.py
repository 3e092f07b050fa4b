"""Images that plugins are handed: the private ones, counted, and public ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from leakbench.contracts.checkpoint import State


class TrainingData:
    """The only handle by which a defence reaches private data. It counts every image that it hands out.

    Shapes and the number of classes are free: a deployer knows them without any image.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        """``images`` uint8 [N, C, H, W] in 0..255, ``labels`` int64 [N]."""
        self._images = images
        self._labels = labels
        self._seen = torch.zeros(len(images), dtype=torch.bool)
        self._handed = 0

    def __len__(self) -> int:
        return len(self._images)

    @property
    def images_read(self) -> int:
        """How many different training images were handed out so far."""
        return int(self._seen.sum())

    @property
    def read_mask(self) -> Tensor:
        """bool [N]: which training images were handed out so far; a copy."""
        return self._seen.clone()

    @property
    def reads(self) -> int:
        """How many images were handed out so far, repeats included."""
        return self._handed

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images of ``index`` [B], floats in [0, 1], with their labels."""
        images, labels = self.pixels(index)
        return images.float() / 255, labels

    def pixels(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The same as bytes: uint8 in 0..255."""
        self._seen[index] = True
        self._handed += len(index)
        return self._images[index], self._labels[index]

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``count`` different images (all of them, if there are fewer) in random order, with their labels."""
        return self.take(torch.randperm(len(self), generator=generator)[:count])

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled pass over all images."""
        for index in torch.randperm(len(self), generator=generator).split(size):
            yield self.take(index)

    def state(self) -> State:
        """What was read so far, for loops that are resumed."""
        return {"seen": self._seen, "handed": torch.tensor(self._handed)}

    def restore(self, state: State) -> None:
        """Adds what an interrupted run had read: nothing is ever forgotten."""
        self._seen |= state["seen"]
        self._handed = max(self._handed, int(state["handed"]))


class LabeledImages(NamedTuple):
    """Images with their classes, as an attacker holds them."""

    images: Tensor
    """float [N, C, H, W] in [0, 1]"""
    labels: Tensor
    """int64 [N]"""


class PublicImages(NamedTuple):
    """Images that anybody can have: of the private ones' kind and shape, and of other classes."""

    images: Tensor
    """uint8 [N, C, H, W] in 0..255"""
    source: str
    """where they come from, one line"""
