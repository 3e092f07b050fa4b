"""Data sets that others wrote: what their function returns, checked, and torchvision's data sets as arrays."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leakbench import registry
from leakbench.data.dataset import Arrays, Dataset, Split, fingerprint, make_dataset, size_problem
from leakbench.data.images import MODES, is_transparent
from leakbench.errors import DataError, LeakBenchError, PluginError, described

MOST_BYTES = 4 * 2**30
"""of the images of a split in memory"""


class Pairs(Protocol):
    """A data set in the manner of torchvision: ``(image, label)`` by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def built(name: str, folder: Path) -> Dataset:
    """The data set that a third party's function makes.

    It is called with ``folder``, where data sets are kept, and returns a :class:`Dataset` or a pair of torchvision's
    (see :func:`from_torchvision`). Its fingerprint is taken here, and is of the content.

    Raises PluginError where the function can't be had, fails or returns something else, DataError for unfit data.
    """
    build = registry.load("dataset", name)
    label = registry.label(name)
    try:
        built: Any = build(folder)
    except LeakBenchError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"the data set {label!r} can't be built: {described(error)}") from error
    if isinstance(built, tuple | list) and len(built) == 2:
        built = from_torchvision(built[0], built[1], label)
    if not isinstance(built, Dataset):
        right = "a leakbench.data.Dataset or a pair (train, test)"
        raise PluginError(f"the data set {label!r} must return {right}, and returns a {type(built).__name__}")
    problem = size_problem(*built.image_shape[1:])
    if problem:
        raise DataError(f"{label}: {problem}")
    train, test = (Split(split.images.cpu().contiguous(), split.labels.cpu()) for split in (built.train, built.test))
    count = check_labels(label, train.labels.numpy(), test.labels.numpy())
    classes, flips = tuple(built.classes), bool(built.flips)
    if count != len(classes):
        raise DataError(f"{label}: {len(classes)} classes have names, and {count} have images")
    return Dataset(name, classes, train, test, str(built.source), fingerprint(classes, train, test, flips), flips)


def from_torchvision(train: Pairs, test: Pairs, name: str, flips: bool = False) -> Dataset:
    """A data set of two of torchvision's, or of anything with a length that gives ``(image, label)`` by number.

    Images are Pillow's with 8 bits a channel, or arrays or tensors: uint8 [H, W], [H, W, C] or [C, H, W], or floats in
    [0, 1]; all of one size, grey if every one is, else RGB. Labels are whole numbers from 0 on. Class names are
    ``train.classes`` where there are any, else the labels. ``flips``: whether mirrored images keep their class, which
    letters and digits do not.

    Raises DataError, one line that names the split and the number of the image at fault.
    """
    splits = [_arrays(f"{name}: {part}", pairs) for part, pairs in (("train", train), ("test", test))]
    channels = max(split.images.shape[1] for split in splits)
    train_split, test_split = (
        split._replace(images=np.ascontiguousarray(np.repeat(split.images, channels, 1)))
        if split.images.shape[1] < channels
        else split
        for split in splits
    )
    count = check_labels(name, train_split.labels, test_split.labels)
    given, others = (getattr(pairs, "classes", None) for pairs in (train, test))
    if given is not None and others is not None and list(given) != list(others):
        odd = sorted({str(one) for one in given} ^ {str(one) for one in others})
        what = f"{odd[0]!a} is a class of one of them alone" if odd else "they name the same classes in another order"
        raise DataError(f"{name}: labels of train and test must be of one list of classes: {what}")
    classes = [str(one) for one in given] if given is not None else [str(number) for number in range(count)]
    source = f"{type(train).__name__}, converted"
    return make_dataset(name, classes, train_split, test_split, source, flips)


def check_labels(who: str, train: NDArray[Any], test: NDArray[Any]) -> int:
    """How many classes there are: 0, 1, 2, ..., each with two images to train on and one to test on, or DataError."""
    kinds, counts = np.unique(train, return_counts=True)
    count = len(kinds)
    if count < 2:
        raise DataError(f"{who}: train labels name {count} class{'es' * (count != 1)}: two or more are needed")
    if not np.array_equal(kinds, np.arange(count)):
        raise DataError(f"{who}: train labels must be 0 to {count - 1} for {count} classes, and go up to {kinds[-1]}")
    if counts.min() < 2:
        raise DataError(f"{who}: class {counts.argmin()} has one image to train on: two or more are needed")
    others = np.unique(test)
    if not np.array_equal(others, kinds):
        odd = sorted(set(others.tolist()) ^ set(kinds.tolist()))[0]
        raise DataError(f"{who}: class {odd} is in only one of train and test")
    return count


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 2**20:,.0f} MB"


# --- torchvision -------------------------------------------------------------------------------------------------


def _arrays(where: str, pairs: Pairs) -> Arrays:
    try:
        count = len(pairs)
    except Exception as error:
        raise DataError(f"{where} must have a length: {described(error)}") from None
    if not count:
        raise DataError(f"{where} holds no image")
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for index in range(count):
        item = f"{where}[{index}]"
        try:
            image, label = pairs[index]
        except Exception as error:  # whatever others' readers raise
            raise DataError(f"{item} must be (image, label): {described(error)}") from None
        images.append(_pixels(item, image))
        labels.append(_label(item, label))
        if images[-1].shape[1:] != images[0].shape[1:]:
            sizes = (f"{one.shape[2]}x{one.shape[1]}" for one in (images[-1], images[0]))
            raise DataError(f"{item} is {' pixels, and the first is '.join(sizes)}: resize them to one size")
        if count * images[-1].size > MOST_BYTES:
            raise DataError(f"{where}: {count} images are {megabytes(count * images[-1].size)}: choose fewer")
    channels = max(len(image) for image in images)
    stacked = np.empty((count, channels, *images[0].shape[1:]), np.uint8)
    for image, row in zip(images, stacked, strict=True):
        row[:] = image  # grey among colours: three equal channels
    return Arrays(stacked, np.array(labels, np.int64))


def _pixels(at: str, image: Any) -> NDArray[np.uint8]:
    """uint8 [1 or 3, H, W]."""
    if isinstance(image, Image.Image):
        if image.mode not in MODES:
            raise DataError(f"{at} has the pixel format {image.mode}, right would be 8 bits a channel")
        if is_transparent(image):
            raise DataError(f"{at} has transparent pixels, whose colours nobody sees: put it on a background")
        pixels = np.asarray(image.convert("L" if image.mode in ("L", "1") else "RGB"))
    else:
        try:
            pixels = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
        except Exception as error:
            raise DataError(f"{at} is no image: {described(error)}") from None
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.shape[0] not in (1, 3):
        pixels = pixels.transpose(2, 0, 1)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        raise DataError(f"{at} must be [H, W], [H, W, C] or [C, H, W] with C 1 or 3, and is {list(pixels.shape)}")
    problem = size_problem(*pixels.shape[1:])
    if problem:
        raise DataError(f"{at}: {problem}")
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6):  # NaN is in no range
            raise DataError(f"{at} must be within 0 and 1: leave out the normalisation, networks have their own")
        pixels = np.round(pixels.clip(0, 1) * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise DataError(f"{at} must be uint8 or floats in [0, 1], and is {pixels.dtype}")
    return pixels


def _label(at: str, label: Any) -> int:
    try:
        number = operator.index(label.item() if getattr(label, "size", None) == 1 else label)
    except Exception:
        raise DataError(f"{at} must have a whole number as its label, got a {type(label).__name__}") from None
    if not 0 <= number < 2**31:
        raise DataError(f"{at} has the label {number}: classes are counted from 0")
    return number
