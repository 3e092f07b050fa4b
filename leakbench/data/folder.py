"""A user's own images: ``folder:PATH``, one subfolder a class."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leakbench.data.dataset import FLIPS, SMALLEST_SIDE, Arrays, Dataset, make_dataset
from leakbench.data.images import EXTENSIONS, Header, decode, read_header
from leakbench.data.third_party import MOST_BYTES, megabytes
from leakbench.errors import DataError, UsageError

log = logging.getLogger("leakbench")

PREFIX = "folder:"

_TEST_SHARE = 0.2
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
"""how others call their splits"""
_SPLIT_SEED = 0

ImageNames = list[tuple[str, list[str]]]
"""(class, names of its images relative to the data set's folder), sorted"""


def load_folder(name: str) -> Dataset:
    """The data set ``folder:PATH``, or ``folder:PATH:flips`` where mirrored images keep their class.

    PATH holds one subfolder a class with images anywhere below it (as for torchvision's ImageFolder), split
    80/20 within each class, always the same way; or the subfolders train and test with such subfolders, which
    are then the splits (other subfolders beside them are left alone). Classes and images are in the order of
    their names; hidden files are passed over, and, with a warning, files that are no images by their names. All images
    have the same size, at least 8x8; they are grey if every one has a single 8-bit or 1-bit channel, else RGB.

    Files may come from anyone: links that leave PATH, linked folders and special files are refused.

    Raises UsageError (PATH is no folder) and DataError (its content), one line that names the file at fault.
    """
    given = name.removeprefix(PREFIX).removesuffix(FLIPS)
    root = _existing_folder(given)
    # Images right inside a folder "train" are a class of trains.
    has_train, has_test = ((root / part).is_dir() and bool(_subfolders(root / part)) for part in ("train", "test"))
    if has_train != has_test:
        have, lack = ("train", "test") if has_train else ("test", "train")
        raise DataError(
            f"{root} has class subfolders in {have} but none in {lack}: give both, or one subfolder a class"
        )
    if has_train:
        classes, train, test = _own_splits(root)
        origin = "its own train and test subfolders"
    else:
        _refuse_other_splits(root)
        classes, train, test = _fixed_split(root)
        origin = "fixed stratified 80/20 split"
    first = _common_header(root, [image for _, images in (*train, *test) for image in images])
    return make_dataset(
        name,
        classes,
        _read(root, train, first),
        _read(root, test, first),
        f"image folder {root.name!r}, {origin}",  # not the whole path: reports are handed around
        flips=name.endswith(FLIPS),
    )


def _existing_folder(given: str) -> Path:
    try:
        path = Path(given).expanduser().resolve()
        exists = bool(given) and path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # no such user after "~", a name too long or with a NUL, ...
        raise UsageError(f"the folder {given!r} can't be used: {error}") from None
    if not exists:
        right = f"folder:PATH or folder:PATH{FLIPS}, with one subfolder of images for each class"
        raise UsageError(f"no such folder {given!r}: give {right}")
    return path


def _subfolders(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        raise DataError(f"{folder} can't be read: {error.strerror}") from None


def _refuse_other_splits(root: Path) -> None:
    """DataError where the subfolders are splits by other names, which would be two classes: their labels."""
    parts = _subfolders(root)
    if parts and all(part.lower() in _SPLITS for part in parts) and any(_subfolders(root / part) for part in parts):
        raise DataError(f"{root} has the subfolders {' and '.join(parts)}: call the splits train and test")


def _own_splits(root: Path) -> tuple[list[str], ImageNames, ImageNames]:
    train, test = _find(root, "train", 2), _find(root, "test", 1)
    classes = [name for name, _ in train]
    differing = sorted(set(classes) ^ {name for name, _ in test})
    if differing:
        raise DataError(f"{root}: the class {differing[0]!a} is in only one of train and test")
    return classes, train, test


def _fixed_split(root: Path) -> tuple[list[str], ImageNames, ImageNames]:
    classes = _find(root, "", 2)
    # RandomState's numbers are frozen by numpy's promise; the newer generators' may change.
    random = np.random.RandomState(_SPLIT_SEED)
    train: ImageNames = []
    test: ImageNames = []
    for name, images in classes:
        held_out = set(random.permutation(len(images))[: max(1, round(_TEST_SHARE * len(images)))].tolist())
        train.append((name, [image for number, image in enumerate(images) if number not in held_out]))
        test.append((name, [image for number, image in enumerate(images) if number in held_out]))
    return [name for name, _ in classes], train, test


def _find(root: Path, part: str, fewest: int) -> ImageNames:
    """The classes below ``root``/``part`` with their images; at least two classes of ``fewest`` images."""
    base = root / part
    _refuse_linked_folder(root, base)
    folders = _subfolders(base)
    if len(folders) < 2:
        raise DataError(f"{base} has {len(folders)} class subfolders: two or more are needed, one for each class")
    others: list[str] = []
    classes = [(name, _images_below(root, base / name, others)) for name in folders]
    if others:
        what = f"{others[0]!a} and {len(others) - 1:,} more are" if others[1:] else f"{others[0]!a} is"
        log.warning(f"{root}: {what} passed over: {', '.join(EXTENSIONS)} count as images")
    for name, images in classes:
        if len(images) < fewest:
            raise DataError(
                f"{base}: the class {name!a} holds {len(images)} images ({', '.join(EXTENSIONS)}): "
                f"{fewest} or more are needed"
            )
    return classes


def _images_below(root: Path, folder: Path, others: list[str]) -> list[str]:
    """The images of a class, by their names below ``root``; to ``others`` the files go that are none."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename!a} can't be read: {error.strerror}")

    names: list[str] = []
    _refuse_linked_folder(root, folder)
    for where, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if name[0] != "."]
        for name in folders:
            _refuse_linked_folder(root, Path(where) / name)
        for name in files:
            if name[0] == ".":
                continue
            path = Path(where) / name
            inside = path.relative_to(root).as_posix()
            if not name.lower().endswith(EXTENSIONS):
                others.append(inside)
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise DataError(f"{root}: {inside!a} is a link that leaves the folder: put the image itself there")
            names.append(inside)
    return sorted(names)


def _refuse_linked_folder(root: Path, folder: Path) -> None:
    # A link to a folder leaves PATH, counts images twice or runs in circles.
    if folder.is_symlink():
        inside = folder.relative_to(root).as_posix()
        raise DataError(f"{root}: {inside!a} is a link to a folder: put the folder itself there")


def _common_header(root: Path, names: list[str]) -> Header:
    """The size that all images share, and whether all are grey."""
    first = read_header(root, names[0])
    if min(first.width, first.height) < SMALLEST_SIDE:
        raise DataError(
            f"{root}: {names[0]!a} is {first.width}x{first.height} pixels: "
            f"at least {SMALLEST_SIDE}x{SMALLEST_SIDE} are needed"
        )
    grey, other = first.grey, ""
    for name in names[1:]:
        header = read_header(root, name)
        if (header.width, header.height) != (first.width, first.height):
            raise DataError(
                f"{root}: {name!a} is {header.width}x{header.height} pixels, but {names[0]!a} is "
                f"{first.width}x{first.height}: all images must have the same size"
            )
        if header.grey != first.grey:
            other = other or name
        grey = grey and header.grey
    if other:
        coloured, plain = (other, names[0]) if first.grey else (names[0], other)
        log.warning(f"{root}: {coloured!a} is in colour or transparent and {plain!a} is grey: all are read as colour")
    return first._replace(grey=grey)


def _read(root: Path, classes: ImageNames, header: Header) -> Arrays:
    names = [image for _, images in classes for image in images]
    labels: NDArray[np.int64] = np.repeat(
        np.arange(len(classes), dtype=np.int64), [len(images) for _, images in classes]
    )
    size = len(names) * header.width * header.height * (1 if header.grey else 3)
    if size > MOST_BYTES:
        raise DataError(
            f"{root}: {len(names):,} images of {header.width}x{header.height} pixels are {megabytes(size)} in memory, "
            f"more than {megabytes(MOST_BYTES)}: make them smaller, or fewer"
        )
    return Arrays(decode(root, names, "L" if header.grey else "RGB", (header.width, header.height)), labels)
