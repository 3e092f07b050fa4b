"""A user's own arrays: an .npz file with images and labels of two splits, as Keras and MedMNIST publish them."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from leakbench.data.dataset import FLIPS, Arrays, Dataset, make_dataset, size_problem
from leakbench.data.third_party import MOST_BYTES, check_labels, megabytes
from leakbench.errors import DataError, UsageError
from leakbench.paths import user_path

_ENDING = ".npz"
NAMES = (("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels"))
"""of the arrays: either the first or the second ones; others in the file are left alone"""

Shape = tuple[int, ...]


def is_npz(name: str) -> bool:
    """Whether a data set's name is that of such a file: ``FILE.npz`` or ``FILE.npz:flips``."""
    return name.removesuffix(FLIPS).endswith(_ENDING)


def load_npz(name: str) -> Dataset:
    """The data set of the arrays in a file; its name ends in ``:flips`` where mirrored images keep their class.

    Images are uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels and sides of 8 to 1024 pixels;
    labels are whole numbers [N] or [N, 1] from 0 on, each of them in both splits. Classes are named by their numbers.

    Files may come from anyone: nothing is unpickled, and types, shapes and sizes are checked before an array is read.

    Raises UsageError (no such file) and DataError (its content), one line that names the file and the array at fault.
    """
    given = name.removesuffix(FLIPS)
    path = user_path(given, "data set")
    if not path.is_file():
        raise UsageError(f"no such file {given!r}: give an .npz file with the arrays {', '.join(NAMES[0])}")
    try:
        with zipfile.ZipFile(path) as archive:
            there = {member.removesuffix(".npy") for member in archive.namelist()}
            names = next((names for names in NAMES if there.issuperset(names)), None)
            if names is None:
                wanted = " or ".join(", ".join(names) for names in NAMES)
                raise DataError(f"{path} must hold the arrays {wanted}, and holds {_some(there)}")
            train, test = (_split(archive, path, *names[at : at + 2]) for at in (0, 2))
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{path} does not fit into the memory") from None
    except Exception as error:  # zip and npy readers raise what they like on broken files
        raise DataError(f"{path} can't be read ({' '.join(f'{type(error).__name__}: {error}'.split())})") from None
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = f"{list(train.images.shape[1:])} and {list(test.images.shape[1:])}"
        raise DataError(f"{path}: train and test images must be alike, and are {shapes}")
    count = check_labels(str(path), train.labels, test.labels)
    source = f"npz file {path.name!r}, its own train and test images"  # not the whole path: reports are handed around
    return make_dataset(name, [str(number) for number in range(count)], train, test, source, name.endswith(FLIPS))


def _split(archive: zipfile.ZipFile, path: Path, images: str, labels: str) -> Arrays:
    shape, _ = _header(archive, path, images)
    layout = _layout(shape)
    if layout is None:
        _refuse(path, images, f"must be [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3, and is {list(shape)}")
    problem = size_problem(*_picked(shape, layout)[2:])
    if problem:
        _refuse(path, images, problem)
    of_labels, _ = _header(archive, path, labels)
    if of_labels not in ((shape[0],), (shape[0], 1)):
        _refuse(path, labels, f"must be [{shape[0]}], a label for each of {images}, and is {list(of_labels)}")
    pixels = _array(archive, images).reshape(shape + (1,) * (len(shape) == 3)).transpose(layout)
    numbers = _array(archive, labels).reshape(-1)
    if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < 2**31:
        _refuse(path, labels, f"must run from 0 on, and run from {numbers.min()} to {numbers.max()}")
    return Arrays(np.ascontiguousarray(pixels), numbers.astype(np.int64))


def _layout(shape: Shape) -> tuple[int, int, int, int] | None:
    """Which axes of [N, H, W, C] or [N, C, H, W] make [N, C, H, W]."""
    if len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)):
        return (0, 3, 1, 2)
    return (0, 1, 2, 3) if len(shape) == 4 and shape[1] in (1, 3) else None


def _picked(shape: Shape, layout: tuple[int, int, int, int]) -> list[int]:
    return [(*shape, 1)[axis] for axis in layout]


def _header(archive: zipfile.ZipFile, path: Path, name: str) -> tuple[Shape, np.dtype[Any]]:
    """Shape and type of an array, from its first bytes. DataError where these are not what is read here."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            _refuse(path, name, f"has the npy version {version}, right would be (1, 0): save it with numpy.savez")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        start = stream.tell()
    if name in (NAMES[0][0], NAMES[0][2], NAMES[1][0], NAMES[1][2]):
        if dtype != np.uint8:
            _refuse(path, name, f"must be uint8 in 0..255, and is {dtype}")
    elif dtype.kind not in "iu":
        _refuse(path, name, f"must be whole numbers, and is {dtype}")
    size = math.prod(shape) * dtype.itemsize
    if size > MOST_BYTES:
        _refuse(path, name, f"is {megabytes(size)}, more than {megabytes(MOST_BYTES)}")
    if not all(side > 0 for side in shape) or start + size != member.file_size:
        _refuse(path, name, f"says that it is {list(shape)}, and holds {member.file_size - start:,} bytes")
    return shape, dtype


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _refuse(path: Path, name: str, problem: str) -> NoReturn:
    raise DataError(f"{path}: {name} {problem}")


def _some(names: set[str]) -> str:
    shown = ", ".join(f"{name[:60]!a}" for name in sorted(names)[:6])
    return f"{shown}{', ...' if len(names) > 6 else ''}" or "none"
