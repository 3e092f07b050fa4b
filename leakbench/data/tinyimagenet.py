"""TinyImageNet: 200 classes of 64x64 images in the folder tiny-imagenet-200, or the published zip of it.

A folder whose images were shrunk to 32x32 will do as well.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from leakbench.data.dataset import LARGER, Arrays, Availability, Dataset, GridDefaults, make_dataset
from leakbench.data.download import fetch
from leakbench.data.images import decode, read_header
from leakbench.errors import DataError

_MIRRORS = ("http://cs231n.stanford.edu/",)
_TREE = "tiny-imagenet-200"
_ARCHIVE = f"{_TREE}.zip"
_DEFAULTS = replace(LARGER, fewest_synthetic_images=200)
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class TinyImageNet:
    """Training images by class; the published validation images are the test split (test labels are secret).

    The published images have 64 pixels a side. A folder whose images were shrunk to 32 is read as well: most classes'
    first images say which it is, and the source, which the report shows, says so. Classes are ordered by their WordNet
    numbers, as for torchvision's ImageFolder; grey images become RGB.
    """

    name: str = "tinyimagenet"
    md5: str = "90528d7ca1a48142e341f4ef8d21d0de"
    classes: int = 200
    train_images_per_class: int = 500
    test_images: int = 10_000
    side: int = 64
    shrunk: int = 32
    defaults: GridDefaults = _DEFAULTS

    def __call__(self, folder: Path) -> Dataset:
        root = folder / _TREE
        if not root.is_dir():
            self._unpack(folder)
        wnids = self._wnids(root)
        train, train_labels = self._train_files(root, wnids)
        test, test_labels = self._test_files(root, wnids)
        widths = [read_header(root, name).width for name in train[:: self.train_images_per_class]]
        side = self.shrunk if median(widths) == self.shrunk else self.side
        published = "the published tiny-imagenet-200 folder" + (
            "" if side == self.side else f" with images shrunk to {side}x{side}"
        )
        return make_dataset(
            self.name,
            _class_names(root, wnids),
            Arrays(decode(root, train, "RGB", (side, side)), np.array(train_labels, np.int64)),
            Arrays(decode(root, test, "RGB", (side, side)), np.array(test_labels, np.int64)),
            f"{published}, its validation images as test split",
            flips=True,
        )

    def availability(self, folder: Path) -> Availability:
        for path in (folder / _TREE, folder / _ARCHIVE):
            if path.exists():
                return Availability(self.name, True, str(path))
        by_hand = f"put {_ARCHIVE} from {_MIRRORS[0]} into {folder}"
        return Availability(self.name, False, f"downloaded on first use (248 MB); without network: {by_hand}")

    def _unpack(self, folder: Path) -> None:
        from filelock import FileLock
        from torchvision.datasets.utils import extract_archive

        (archive,) = fetch(self.name, _MIRRORS, {_ARCHIVE: self.md5}, folder)
        try:
            # Unpacked beside and renamed: an interrupted run leaves no half tree that looks whole.
            with (
                FileLock(folder / ".unpack.lock"),
                tempfile.TemporaryDirectory(dir=folder, prefix=f".{_TREE}-") as fresh,
            ):
                if not (folder / _TREE).is_dir():
                    extract_archive(archive, fresh)
                    (Path(fresh) / _TREE).rename(folder / _TREE)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.name}: {archive} can't be unpacked into {folder}: {error}") from None

    def _wnids(self, root: Path) -> list[str]:
        wnids = sorted(set(_text(root, "wnids.txt").split()))
        # These names become paths: only WordNet numbers get through.
        wrong = next((wnid for wnid in wnids if not _WNID.fullmatch(wnid)), None)
        if wrong is not None:
            raise DataError(f"{root}: wnids.txt lists {wrong!a}, which is no WordNet number like n01443537")
        if len(wnids) != self.classes:
            raise DataError(f"{root}: wnids.txt lists {len(wnids)} classes, right would be {self.classes}")
        return wnids

    def _train_files(self, root: Path, wnids: Sequence[str]) -> tuple[list[str], list[int]]:
        names: list[str] = []
        for wnid in wnids:
            files = sorted(path.name for path in (root / "train" / wnid / "images").glob("*.JPEG"))
            if len(files) != self.train_images_per_class:
                raise DataError(
                    f"{root}: train/{wnid}/images holds {len(files)} images, right would be "
                    f"{self.train_images_per_class}: unpack {_ARCHIVE} anew"
                )
            names += [f"train/{wnid}/images/{name}" for name in files]
        return names, [label for label in range(len(wnids)) for _ in range(self.train_images_per_class)]

    def _test_files(self, root: Path, wnids: Sequence[str]) -> tuple[list[str], list[int]]:
        label_of = {wnid: label for label, wnid in enumerate(wnids)}
        names: list[str] = []
        labels: list[int] = []
        for number, line in enumerate(_text(root, "val/val_annotations.txt").splitlines(), 1):
            name, _, rest = line.partition("\t")
            wnid = rest.partition("\t")[0]
            if Path(name).name != name or wnid not in label_of:
                raise DataError(f"{root}: val/val_annotations.txt, line {number} is not 'file name, tab, class, ...'")
            names.append(f"val/images/{name}")
            labels.append(label_of[wnid])
        if len(set(names)) != self.test_images or len(names) != self.test_images:
            raise DataError(
                f"{root}: val/val_annotations.txt names {len(set(names))} images in {len(names)} lines, "
                f"right would be {self.test_images}"
            )
        return names, labels


def _class_names(root: Path, wnids: Sequence[str]) -> list[str]:
    """The first word for each class; the WordNet number is added where two classes have the same."""
    words = dict(line.split("\t", 1) for line in _text(root, "words.txt").splitlines() if "\t" in line)
    names = [words.get(wnid, wnid).partition(",")[0].strip() or wnid for wnid in wnids]
    often = Counter(names)
    return [f"{name} ({wnid})" if often[name] > 1 else name for name, wnid in zip(names, wnids, strict=True)]


def _text(root: Path, name: str) -> str:
    try:
        return (root / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{root}: {name} can't be read ({error}): unpack {_ARCHIVE} anew") from None


TINY_IMAGENET = TinyImageNet()
"""110,000 colour images of 64x64 pixels in 200 classes."""
