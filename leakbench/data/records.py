"""Images of a published set as records, and the digest that tells that they are that set.

A record is the number of a class, one byte, then the pixels row by row, with the channels of a pixel side by side.

The digest of a split: sha256 of each record; these sorted and put together; sha256 of that, in hex. It is the same
whatever the files are called, the format that they are kept in and their order. Equal images stay: CIFAR-100 has some.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leakbench.data.dataset import Arrays
from leakbench.errors import DataError

_MOST_NAMED = 5
"""classes that an error names"""

Records = NDArray[np.uint8]
"""[N, 1 + pixels]"""


@dataclass(frozen=True)
class Published:
    """What a split of a published set holds."""

    each: int
    """images of a class"""
    digest: str

    def in_order(self, where: object, records: Records) -> Records:
        """The records in the order of their digests, so that all containers of a set give the same data.

        Raises DataError, which starts with ``where``, where they are not the published ones.
        """
        digests = [hashlib.sha256(record).digest() for record in records]
        order = sorted(range(len(digests)), key=digests.__getitem__)
        found = hashlib.sha256(b"".join(digests[number] for number in order)).hexdigest()
        if found != self.digest:
            right = f"digest {found[:16]}..., right would be {self.digest[:16]}..."
            raise DataError(f"{where}: an image or more is not the published one ({right})")
        return records[order]


class Collector:
    """Fills the records of a split, whose classes have the same number of images."""

    def __init__(self, where: Path, folders: Sequence[str], each: int, pixels: int) -> None:
        """``folders``: what the classes are called in errors; ``each``: images of a class, of so many ``pixels``."""
        self._where = where
        self._folders = folders
        self._each = each
        self._counts = [0] * len(folders)
        self._records = np.empty((len(folders), each, 1 + pixels), np.uint8)

    def add(self, label: int, pixels: bytes) -> None:
        """One image more. Raises DataError where the class is full."""
        count = self._counts[label]
        if count == self._each:
            raise DataError(f"{self._where}: {self._folders[label]} holds more than its {self._each:,} images")
        self._records[label, count, 0] = label
        self._records[label, count, 1:] = np.frombuffer(pixels, np.uint8)
        self._counts[label] += 1

    @property
    def missing(self) -> dict[str, int]:
        """How many images each class is short of, of the classes that are."""
        pairs = zip(self._folders, self._counts, strict=True)
        return {folder: self._each - count for folder, count in pairs if count < self._each}

    @property
    def size(self) -> int:
        """How many images there are when none is missing."""
        return self._each * len(self._folders)

    @property
    def records(self) -> Records:
        """All of them, class by class; not defined while some are missing."""
        return self._records.reshape(self.size, -1)


def check_complete(where: Path, collectors: Sequence[Collector], layout: str) -> None:
    """Raises DataError, which says how many images of which classes are missing, where any is.

    ``layout`` is how the files of a set are called.
    """
    missing = [pair for collector in collectors for pair in collector.missing.items()]
    if sum(count for _, count in missing) == sum(collector.size for collector in collectors):
        raise DataError(f"{where} holds no image of the set: right would be {layout}")
    if missing:
        shown = ", ".join(f"{count:,} of {folder}" for folder, count in missing[:_MOST_NAMED])
        more = f" and of {len(missing) - _MOST_NAMED} classes more" if len(missing) > _MOST_NAMED else ""
        raise DataError(f"{where}: images are missing: {shown}{more}: get the set anew")


def arrays(records: Records, shape: tuple[int, int, int]) -> Arrays:
    """The split of these records, with images of the ``shape`` (C, H, W)."""
    channels, height, width = shape
    images = records[:, 1:].reshape(len(records), height, width, channels).transpose(0, 3, 1, 2)
    return Arrays(np.ascontiguousarray(images), records[:, 0].astype(np.int64))
