"""CIFAR-10 and CIFAR-100 in their binary version, read straight from the published archive.

torchvision reads the Python version, which is pickled: whoever can forge its md5 runs code on the reader's
machine. Records of the binary version can be nothing but pixels and labels.
https://www.cs.toronto.edu/~kriz/cifar.html describes it and gives its checksums.
"""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leakbench.data.dataset import LARGER, Arrays, Availability, Dataset, GridDefaults, make_dataset
from leakbench.data.download import fetch
from leakbench.errors import DataError

_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_LONGEST_TEXT = 100_000


@dataclass(frozen=True)
class CifarSet:
    """One archive: files of records (label bytes, then 3072 pixel bytes) and a text file of class names."""

    name: str
    archive: str
    md5: str
    class_file: str
    classes: int
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    label_bytes: int
    """how many label bytes a record starts with; the last is the class (CIFAR-100: coarse, then fine)"""
    images_per_file: int
    test_images_per_file: int = 10_000
    defaults: GridDefaults = field(default_factory=GridDefaults)

    def __call__(self, folder: Path) -> Dataset:
        (path,) = fetch(self.name, _MIRRORS, {self.archive: self.md5}, folder)
        try:
            with tarfile.open(path, "r:gz") as archive:
                names = self._class_names(path, archive)
                train = self._read(path, archive, self.train_files, self.images_per_file)
                test = self._read(path, archive, self.test_files, self.test_images_per_file)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise DataError(f"{path} can't be read ({error}): replace it") from None
        return make_dataset(self.name, names, train, test, f"the published {self.archive}, md5 checked", flips=True)

    def availability(self, folder: Path) -> Availability:
        path = folder / self.archive
        if path.is_file():
            return Availability(self.name, True, str(path))
        return Availability(
            self.name,
            False,
            f"downloaded on first use (about 160 MB); without network: put {self.archive} from {_MIRRORS[0]} "
            f"into {folder}",
        )

    def _class_names(self, path: Path, archive: tarfile.TarFile) -> list[str]:
        text = _member(path, archive, self.class_file, _LONGEST_TEXT).decode("utf-8", errors="replace")
        names = text.split()
        if len(names) != self.classes:
            raise DataError(f"{path}: {self.class_file} names {len(names)} classes, right would be {self.classes}")
        return names

    def _read(self, path: Path, archive: tarfile.TarFile, files: tuple[str, ...], count: int) -> Arrays:
        images = np.empty((len(files) * count, *_SHAPE), np.uint8)
        labels = np.empty(len(images), np.int64)
        record = self.label_bytes + _PIXELS
        for number, file in enumerate(files):
            body = _member(path, archive, file, count * record)
            if len(body) != count * record:
                raise DataError(f"{path}: {file} holds {len(body)} bytes, right would be {count * record}")
            records: NDArray[np.uint8] = np.frombuffer(body, np.uint8).reshape(count, record)
            rows = slice(number * count, (number + 1) * count)
            images[rows] = records[:, self.label_bytes :].reshape(count, *_SHAPE)
            labels[rows] = records[:, self.label_bytes - 1]
        return Arrays(images, labels)


def _member(path: Path, archive: tarfile.TarFile, name: str, longest: int) -> bytes:
    """The bytes of a regular file in the archive, at most one more than ``longest``."""
    entry = next((member for member in archive.getmembers() if member.name.removeprefix("./") == name), None)
    stream = archive.extractfile(entry) if entry is not None and entry.isreg() else None
    if stream is None:
        raise DataError(f"{path} holds no file {name}: it is not the binary version of CIFAR")
    return stream.read(longest + 1)


CIFAR10 = CifarSet(
    name="cifar10",
    archive="cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    class_file="cifar-10-batches-bin/batches.meta.txt",
    classes=10,
    train_files=tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
    test_files=("cifar-10-batches-bin/test_batch.bin",),
    label_bytes=1,
    images_per_file=10_000,
)
"""60,000 colour photographs of 32x32 pixels in 10 classes."""
CIFAR100 = CifarSet(
    name="cifar100",
    archive="cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    class_file="cifar-100-binary/fine_label_names.txt",
    classes=100,
    train_files=("cifar-100-binary/train.bin",),
    test_files=("cifar-100-binary/test.bin",),
    label_bytes=2,
    images_per_file=50_000,
    defaults=LARGER,
)
"""60,000 colour photographs of 32x32 pixels in 100 classes."""
