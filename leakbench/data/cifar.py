"""CIFAR-10 and CIFAR-100: lossless images in class folders, a tar of these, or the published binary archive.

Whichever it is, the images are checked against the set's digest and come in the order of their own, so that all give
the same data. The published Python version is not read: it is pickled, and whoever can forge its md5 runs code on the
reader's machine. https://www.cs.toronto.edu/~kriz/cifar.html describes the sets and has the archives' md5.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from leakbench.data.dataset import LARGER, Availability, Dataset, GridDefaults, make_dataset
from leakbench.data.decoded import DecodedCopy
from leakbench.data.download import fetch
from leakbench.data.images import pixels
from leakbench.data.records import Collector, Published, Records, arrays, check_complete
from leakbench.data.trees import read_tree
from leakbench.errors import DataError

_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_PARTS = ("train", "test")
_IMAGE = re.compile(r"(train|test)/([^/]+)/[^/]+\.(?i:png|webp|jpe?g)")
_MOST_BYTES = 2**16
"""of an image file: ten times what 32x32 pixels take"""


@dataclass(frozen=True)
class CifarSet:
    """One of the sets.

    Its archive has files of records (label bytes, then 3072 pixel bytes, a channel after the other).
    """

    name: str
    title: str
    classes: tuple[str, ...]
    """in the order of their numbers, spelt as in the archive, as folders are called, too"""
    train: Published
    test: Published
    archive: str
    md5: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    label_bytes: int
    """how many label bytes a record of the archive starts with; the last is the class (CIFAR-100: coarse, then fine)"""
    defaults: GridDefaults = field(default_factory=GridDefaults)

    def __call__(self, folder: Path) -> Dataset:
        path = self._path(folder)
        copy = DecodedCopy(self.name, (self.train, self.test), len(self.classes), _PIXELS)
        splits = copy.read() if path is not None else None
        if path is None or splits is None:
            if path is None or path.name == self.archive:
                (path,) = fetch(self.name, _MIRRORS, {self.archive: self.md5}, folder)
                read = self._from_archive(path)
            else:
                read = self._from_images(path)
            pairs = zip((self.train, self.test), _PARTS, read, strict=True)
            splits = [split.in_order(f"{path}: {part}", records) for split, part, records in pairs]
            copy.write(splits)
        train, test = (arrays(records, _SHAPE) for records in splits)
        source = f"{self.title}, all {len(train.labels) + len(test.labels):,} images checked by digest"
        return make_dataset(self.name, self.classes, train, test, source, flips=True)

    def availability(self, folder: Path) -> Availability:
        path = self._path(folder)
        if path is not None:
            return Availability(self.name, True, str(path))
        return Availability(
            self.name,
            False,
            f"downloaded on first use (about 160 MB); without network: put {self.archive} from {_MIRRORS[0]} "
            f"into {folder}, or lossless images as {self.name}/{{train,test}}/CLASS/NAME.png (or .webp) or as "
            f"{self.name}.tar of that folder",
        )

    def _path(self, folder: Path) -> Path | None:
        """What of the set lies in the folder, if anything does."""
        if any((folder / self.name / part).is_dir() for part in _PARTS):
            return folder / self.name
        return next((path for name in (f"{self.name}.tar", self.archive) if (path := folder / name).is_file()), None)

    def _from_images(self, path: Path) -> list[Records]:
        labels = {name: number for number, name in enumerate(self.classes)}
        splits = {
            part: Collector(path, [f"{part}/{name}" for name in self.classes], split.each, _PIXELS)
            for part, split in zip(_PARTS, (self.train, self.test), strict=True)
        }
        for found, content in read_tree(path, self.name, _IMAGE, _MOST_BYTES):
            part, class_name = found.groups()
            where = f"{path}: {found.string!a}"
            if class_name not in labels:
                raise DataError(f"{where}: {self.title} has no class {class_name!a}")
            # of WebP's two codings VP8 loses, VP8L does not
            if content.startswith(b"\xff\xd8\xff") or (content[8:12] == b"WEBP" and content[12:16] == b"VP8 "):
                raise DataError(f"{where} is compressed with loss: right would be PNG or lossless WebP")
            splits[part].add(labels[class_name], pixels(where, content, ("PNG", "WEBP"), "RGB", _SHAPE[1:]))
        check_complete(path, list(splits.values()), f"{self.name}/{{train,test}}/CLASS/NAME.png or .webp")
        return [split.records for split in splits.values()]

    def _from_archive(self, path: Path) -> list[Records]:
        try:
            with tarfile.open(path, "r:gz") as archive:
                return [
                    self._records(path, archive, files, split.each * len(self.classes))
                    for files, split in ((self.train_files, self.train), (self.test_files, self.test))
                ]
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise DataError(f"{path} can't be read ({error}): replace it") from None

    def _records(self, path: Path, archive: tarfile.TarFile, files: Sequence[str], images: int) -> Records:
        count = images // len(files)
        size = count * (self.label_bytes + _PIXELS)
        records = np.empty((images, 1 + _PIXELS), np.uint8)
        for rows, file in zip(np.split(records, len(files)), files, strict=True):
            body = _member(path, archive, file, size)
            if len(body) != size:
                raise DataError(f"{path}: {file} holds {len(body)} bytes, right would be {size}")
            stored = np.frombuffer(body, np.uint8).reshape(count, self.label_bytes + _PIXELS)
            rows[:, 0] = stored[:, self.label_bytes - 1]
            planes = stored[:, self.label_bytes :].reshape(count, 3, -1)
            rows[:, 1:] = planes.transpose(0, 2, 1).reshape(count, -1)
        return records


def _member(path: Path, archive: tarfile.TarFile, name: str, longest: int) -> bytes:
    """The bytes of a regular file in the archive, at most one more than ``longest``."""
    entry = next((member for member in archive.getmembers() if member.name.removeprefix("./") == name), None)
    stream = archive.extractfile(entry) if entry is not None and entry.isreg() else None
    if stream is None:
        raise DataError(f"{path} holds no file {name}: it is not the binary version of CIFAR")
    return stream.read(longest + 1)


CIFAR10 = CifarSet(
    name="cifar10",
    title="CIFAR-10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    train=Published(5000, "d59acf989e068e709ce686cda292672c7b212c08d29d3d3e6d8c3aa99eba6a85"),
    test=Published(1000, "899683d46c3a8c66fd56e1af12202e69fe5a4517be10b0f68e04c78fe585c57c"),
    archive="cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    train_files=tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
    test_files=("cifar-10-batches-bin/test_batch.bin",),
    label_bytes=1,
)
"""60,000 colour photographs of 32x32 pixels in 10 classes."""
_FINE_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""
CIFAR100 = CifarSet(
    name="cifar100",
    title="CIFAR-100",
    classes=tuple(_FINE_CLASSES.split()),
    train=Published(500, "36ce7a701fbea47796e570c34382aad50f2539687cfcbc6ae96e2f56530d29b6"),
    test=Published(100, "d3cd5d87a1b9317a0982c8ef5535fe3b86da8da90b13ce5e9b23ea06400dd5eb"),
    archive="cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    train_files=("cifar-100-binary/train.bin",),
    test_files=("cifar-100-binary/test.bin",),
    label_bytes=2,
    defaults=replace(LARGER, fewest_synthetic_images=100),
)
"""60,000 colour photographs of 32x32 pixels in 100 classes."""
