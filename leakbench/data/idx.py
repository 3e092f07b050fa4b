"""MNIST and Fashion-MNIST: gzipped IDX files, of a Debian package or as published."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leakbench.data.dataset import Arrays, Availability, Dataset, GridDefaults, make_dataset
from leakbench.data.download import fetch
from leakbench.errors import DataError

_UNSIGNED_BYTES = 0x08
_DEFAULTS = GridDefaults(model="vgg5")


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The uint8 array of a gzipped IDX file (magic 0, 0, 8, dimensions; big-endian uint32 sizes; bytes).

    ``shape`` is what the file must hold: a false header can't make it read more. Raises DataError otherwise.
    """
    count = math.prod(shape)
    try:
        with gzip.open(path) as file:
            magic = file.read(4)
            sizes = file.read(4 * len(shape))
            body = file.read(count + 1)  # one more: trailing bytes show, and the end's checksum is read
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}): replace it") from None
    if magic != bytes([0, 0, _UNSIGNED_BYTES, len(shape)]):
        raise DataError(f"{path} is no IDX file of bytes with {len(shape)} dimensions (magic {magic.hex()})")
    stored_shape = struct.unpack(f">{len(shape)}I", sizes) if len(sizes) == 4 * len(shape) else ()
    if stored_shape != shape:
        raise DataError(f"{path} says it holds {list(stored_shape)} values, right would be {list(shape)}: replace it")
    if len(body) != count:
        raise DataError(f"{path} holds {'more' if len(body) > count else 'less'} than its header says: replace it")
    return np.frombuffer(bytearray(body), np.uint8).reshape(shape)


@dataclass(frozen=True)
class IdxSet:
    """A data set of four gzipped IDX files with the names that MNIST gave them."""

    name: str
    classes: tuple[str, ...]
    flips: bool
    torchvision: str
    """the class in torchvision.datasets that knows mirrors and checksums, and names the folder: NAME/raw"""
    download_size: str
    package: str = ""
    """the Debian package that brings the files"""
    package_folder: Path | None = None
    train_images: int = 60_000
    test_images: int = 10_000
    side: int = 28
    defaults: GridDefaults = _DEFAULTS

    _FILES = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )

    def __call__(self, folder: Path) -> Dataset:
        packaged = self._packaged()
        # Debian packs the files anew: the published checksums don't hold there, and apt checked the package.
        paths = packaged or self._published(folder)
        train_images, train_labels, test_images, test_labels = paths
        return make_dataset(
            self.name,
            self.classes,
            self._read(train_images, train_labels, self.train_images),
            self._read(test_images, test_labels, self.test_images),
            f"Debian package {self.package}" if packaged else f"the published {self.torchvision} files, md5 checked",
            self.flips,
        )

    def availability(self, folder: Path) -> Availability:
        if self._packaged():
            return Availability(self.name, True, f"Debian package {self.package} ({self.package_folder})")
        raw = self._raw(folder)
        if all((raw / file).is_file() for file in self._FILES):
            return Availability(self.name, True, str(raw))
        package = f"install the Debian package {self.package} or " if self.package else ""
        by_hand = f"{package}put {', '.join(self._FILES)} into {raw}"
        detail = f"downloaded on first use ({self.download_size}); without network: {by_hand}"
        return Availability(self.name, False, detail)

    def _packaged(self) -> list[Path]:
        if self.package_folder is None:
            return []
        paths = [self.package_folder / file for file in self._FILES]
        return paths if all(path.is_file() for path in paths) else []

    def _raw(self, folder: Path) -> Path:
        return folder / self.torchvision / "raw"  # torchvision's own layout: its downloads are found

    def _published(self, folder: Path) -> list[Path]:
        import torchvision.datasets

        published = getattr(torchvision.datasets, self.torchvision)
        checksums = dict(published.resources)
        files = {file: checksums[file] for file in self._FILES}
        return fetch(self.name, published.mirrors, files, self._raw(folder))

    def _read(self, images: Path, labels: Path, count: int) -> Arrays:
        pixels = read_idx(images, (count, self.side, self.side))
        return Arrays(pixels[:, None], read_idx(labels, (count,)).astype(np.int64))


MNIST = IdxSet(
    name="mnist",
    classes=tuple(str(digit) for digit in range(10)),
    flips=False,
    torchvision="MNIST",
    download_size="12 MB",
)
"""70,000 grey handwritten digits of 28x28 pixels."""
FASHION_MNIST = IdxSet(
    name="fashion-mnist",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    flips=True,
    torchvision="FashionMNIST",
    download_size="31 MB",
    package="dataset-fashion-mnist",
    package_folder=Path("/usr/share/datasets/fashion-mnist"),
)
"""70,000 grey pictures of clothes of 28x28 pixels in 10 classes."""
