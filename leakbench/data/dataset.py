"""What a data set is: classes and two splits of images, with a fingerprint that tells one from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from leakbench.errors import DataError

if TYPE_CHECKING:  # torch is imported where tensors are made: listing data sets stays fast
    from torch import Tensor

    from leakbench.contracts import InputRange


PICTURES = 24
"""pixels of the shorter side of pictures, at least: small evaluation models can't tell much of them"""


def are_pictures(image_shape: tuple[int, int, int]) -> bool:
    """Whether images [C, H, W] are in colour and not small."""
    return image_shape[0] == 3 and min(image_shape[1:]) >= PICTURES


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, in the source's order, often by class: draw at random, not the first n."""

    images: Tensor
    """uint8 [N, C, H, W] in 0..255"""
    labels: Tensor
    """int64 [N]"""

    def __post_init__(self) -> None:
        import torch

        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise DataError(f"images must be uint8 [N, C, H, W], got {self.images.dtype} {list(self.images.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            got = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise DataError(f"labels must be int64 [{len(self.images)}], got {got}")

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A private data set: what a network is trained on (train) and measured on (test)."""

    name: str
    """what :func:`leakbench.data.load_dataset` was given; see :func:`leakbench.data.dataset_label`"""
    classes: tuple[str, ...]
    train: Split
    test: Split
    source: str
    """where it came from, one line for the report"""
    fingerprint: str
    """see :func:`fingerprint`"""
    flips: bool
    """whether a horizontal flip keeps the class, so that training may mirror images"""

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise DataError(f"{self.name}: a data set needs two or more classes with different names")
        for class_name in self.classes:
            # Class names come from file names and text files and go to terminals and reports.
            if not class_name or not class_name.isprintable():
                raise DataError(f"{self.name}: the class name {class_name!a} is empty or not printable: rename it")
        if self.image_shape[0] not in (1, 3):
            raise DataError(f"{self.name}: images must have 1 or 3 channels, got {self.image_shape[0]}")
        if self.test.images.shape[1:] != self.train.images.shape[1:]:
            raise DataError(f"{self.name}: train and test images differ in shape")
        for part, split in (("train", self.train), ("test", self.test)):
            if not len(split):
                raise DataError(f"{self.name}: the {part} split holds no image")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.classes):
                right = f"0..{len(self.classes) - 1}"
                raise DataError(f"{self.name}: {part} labels run from {low} to {high}, right would be {right}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def input_range(self) -> InputRange:
        """What networks see: [0, 1] for grey images, [-1, 1] for colour."""
        from leakbench.contracts import InputRange

        return InputRange(0.0, 1.0) if self.image_shape[0] == 1 else InputRange(-1.0, 1.0)


class Arrays(NamedTuple):
    """A split as a reader makes it; its tensors share this memory."""

    images: NDArray[np.uint8]
    """[N, C, H, W]"""
    labels: NDArray[np.int64]
    """[N]"""

    def split(self) -> Split:
        import torch

        return Split(torch.from_numpy(self.images), torch.from_numpy(self.labels))


def fingerprint(classes: Sequence[str], train: Split, test: Split, flips: bool) -> str:
    """sha256 (hex) of everything that training may depend on; the same on every machine.

    Hashed: a JSON line with class names, flips and both shapes; then, train before test, the image bytes and
    the labels as little-endian int64. Left out: the data set's name and source, so that a moved folder stays
    the same data.
    """
    head = {
        "classes": list(classes),
        "flips": flips,
        "train": list(train.images.shape),
        "test": list(test.images.shape),
    }
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode() + b"\n")
    for split in (train, test):
        digest.update(split.images.contiguous().numpy().data)
        digest.update(split.labels.numpy().astype("<i8").data)
    return digest.hexdigest()


def make_dataset(name: str, classes: Sequence[str], train: Arrays, test: Arrays, source: str, flips: bool) -> Dataset:
    """The data set of two read splits, with its fingerprint. Raises DataError where they are inconsistent."""
    splits = train.split(), test.split()
    return Dataset(name, tuple(classes), *splits, source, fingerprint(classes, *splits, flips), flips)


def among(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[N]: which of ``images`` are among ``others``, pixel by pixel and wherever they stand; none of another shape."""
    if images.shape[1:] != others.shape[1:]:
        return np.zeros(len(images), bool)
    known = {hashlib.sha256(one).digest() for one in np.ascontiguousarray(others)}
    return np.array([hashlib.sha256(one).digest() in known for one in np.ascontiguousarray(images)], bool)


FLIPS = ":flips"
"""behind the name of a data set of the user's own files: mirrored images keep their class"""

SMALLEST_SIDE, LONGEST_SIDE = 8, 1024
"""of images that users bring, in pixels"""


def size_problem(height: int, width: int) -> str:
    """What is wrong with images of this size, empty where nothing is."""
    if min(height, width) >= SMALLEST_SIDE and max(height, width) <= LONGEST_SIDE:
        return ""
    right = f"{SMALLEST_SIDE}x{SMALLEST_SIDE} to {LONGEST_SIDE}x{LONGEST_SIDE}"
    return f"images are {width}x{height} pixels, right would be {right}"


@dataclass(frozen=True)
class Availability:
    """Whether a data set can be loaded without a download."""

    name: str
    available: bool
    detail: str
    """where it is, or the one line that says what to do"""


@dataclass(frozen=True, eq=False)
class GridDefaults:
    """What a grid takes on a data set where nothing else is asked for and what its preset takes does not fit."""

    model: str = ""
    """of images that a preset's model is too large for; empty: the preset's"""
    timesteps: Mapping[str, int] = field(default_factory=dict)
    """preset -> T; of others their own"""
    synthetic_images: Mapping[str, int] = field(default_factory=dict)
    """preset -> how many images data-free defences synthesise in the paper's suite; of others its own"""
    fewest_synthetic_images: int = 1
    """the number of classes, where a suite would else ask for fewer: each class needs one"""


LARGER = GridDefaults(timesteps={"paper": 200}, synthetic_images={"paper": 10_000})
"""the PrivateSNN paper's numbers for CIFAR-100 and TinyImageNet"""


class Source(Protocol):
    """A built-in data set."""

    @property
    def name(self) -> str: ...

    @property
    def defaults(self) -> GridDefaults: ...

    def __call__(self, folder: Path) -> Dataset:
        """Reads it, from ``folder`` or a place of its own; downloads it into ``folder`` where it is missing.

        Raises DataError: missing and no way to download it, or damaged.
        """

    def availability(self, folder: Path) -> Availability:
        """Looks for its files: reads nothing large, downloads nothing."""
