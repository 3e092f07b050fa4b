"""Public images: what an attacker may have who has none of the private ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leakbench.data.catalogue import check_dataset, dataset_label, read_dataset
from leakbench.data.dataset import FLIPS, Dataset, among
from leakbench.data.half import base_name, public_half
from leakbench.errors import UsageError
from leakbench.registry import is_built_in

if TYPE_CHECKING:
    from leakbench.contracts import PublicImages

PHOTOS = "photos"
HALF = "half"

_CROPS = 10_000
_SEED = 0
_MOST_BYTES = 2**31
"""of the images in memory: 10,000 of 224x224 pixels in colour take 1.5 GB"""
_BY_ACCIDENT = 0.01
"""share of either's images, at most, that are in both data sets: published ones have a few in common"""

Shape = tuple[int, int, int]
"""(C, H, W)"""


def public_source(given: str | None, private: str) -> str:
    """Which public images go with the private data set of that name: ``given``, checked, or the default.

    That is ``half`` (the other half) for a data set with ``:half``, else ``photos``. Looks at names only. Raises
    UnknownName with the nearest name, UsageError for a source that does not go with the private data.
    """
    halved = private != base_name(private)
    if given is None:
        return HALF if halved else PHOTOS
    check_dataset(given, "public images", (PHOTOS, HALF))
    if given == HALF and not halved:
        raise UsageError(f"public images {HALF!r} go with a data set like digits:half, not with {private!r}")
    if base_name(given).removesuffix(FLIPS) == base_name(private).removesuffix(FLIPS):
        raise _private(given, private)
    return given


def public_images(source: str, private: Dataset, folder: Path | None = None) -> PublicImages:
    """Images of the private ones' shape, from ``source``; those that are too many for the memory are left out.

    ``photos``: random crops, always the same, of two photographs. ``half``: the other half of a private data set
    with ``:half``. Else another data set as :func:`leakbench.data.load_dataset` takes it: its training images, of all
    classes. Images are resized with antialiasing; colours become grey by their luma (ITU-R 601), grey becomes three
    equal channels.

    Of another data set, images that are private training images are left out.

    ``folder`` is where data sets are kept. Raises UsageError where the images would be the private ones, and as
    :func:`public_source` and :func:`leakbench.data.load_dataset` do.
    """
    import torch

    from leakbench.contracts import PublicImages

    if public_source(source, private.name) == PHOTOS:
        count = min(_CROPS, _most(private.image_shape))
        crops = _crops(_photographs(), count, private.image_shape)
        origin = f"{count:,} random crops of the two photographs that come with scikit-learn"
        return PublicImages(torch.from_numpy(crops), origin)
    if source == HALF:
        data = read_dataset(base_name(private.name), folder)
        images_of_others = public_half(data)
        origin = f"training images of the other {len(data.classes) // 2} classes of {dataset_label(data.name)}"
    else:
        data = read_dataset(source, folder)
        shared = among(data.train.images.numpy(), private.train.images.numpy())
        if shared.sum() > _BY_ACCIDENT * min(len(private.train), len(data.train)):
            raise _private(source, private.name)
        images_of_others = data.train.images[torch.from_numpy(~shared)]
        same = len(set(data.classes) & set(private.classes))
        origin = f"training images of {dataset_label(data.name)}"
        # anybody's file may have that name, and other images another time
        origin += "" if is_built_in("dataset", base_name(source)) else f" ({data.fingerprint[:12]})"
        origin += f" ({same} of its {len(data.classes)} classes have names of private ones)" if same else ""
        origin += f", without {shared.sum():,} that are private" if shared.any() else ""
    images = _fitted(_some(images_of_others.numpy(), _most(private.image_shape)), private.image_shape)
    return PublicImages(torch.from_numpy(images), f"{len(images):,} {origin}")


def _private(given: str, private: str) -> UsageError:
    return UsageError(f"public images {given!r} would be the private ones of {private!r}: name others, or {PHOTOS}")


def _most(shape: Shape) -> int:
    return max(1, _MOST_BYTES // int(np.prod(shape)))


def _some(images: NDArray[np.uint8], most: int) -> NDArray[np.uint8]:
    """All of them, or ``most`` at random, always the same ones."""
    if len(images) <= most:
        return images
    return images[np.sort(np.random.RandomState(_SEED).permutation(len(images))[:most])]


def _photographs() -> list[NDArray[np.uint8]]:
    """uint8 [H, W, 3] each: a temple and a flower."""
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def _crops(photographs: list[NDArray[np.uint8]], count: int, shape: Shape) -> NDArray[np.uint8]:
    """uint8 [count, C, H, W]: crops from anywhere, of any size from twice the wanted one to the whole photograph."""
    channels, height, width = shape
    photos = [Image.fromarray(pixels).convert(_mode(channels)) for pixels in photographs]
    # RandomState's numbers are frozen by numpy's promise; the newer generators' may change.
    random = np.random.RandomState(_SEED)
    crops = np.empty((count, *shape), np.uint8)
    for crop in crops:
        photo = photos[random.randint(len(photos))]
        largest = min(photo.width / width, photo.height / height)
        # even in the logarithm: a photograph looks alike at every scale
        factor = np.exp(random.uniform(np.log(min(2, largest)), np.log(largest)))
        w, h = max(1, int(factor * width)), max(1, int(factor * height))
        left, top = random.randint(photo.width - w + 1), random.randint(photo.height - h + 1)
        crop[:] = _resized(photo, shape, (left, top, left + w, top + h))
    return crops


def _fitted(images: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """uint8 images [N, 1 or 3, H, W] in another shape."""
    if images.shape[1:] == shape:
        return images
    fitted = np.empty((len(images), *shape), np.uint8)
    for image, out in zip(images, fitted, strict=True):
        pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        picture = Image.fromarray(pixels).convert(_mode(shape[0]))
        out[:] = _resized(picture, shape, (0, 0, *picture.size))
    return fitted


def _resized(picture: Image.Image, shape: Shape, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    channels, height, width = shape
    # Pillow widens its triangle filter where it shrinks: that is the antialiasing.
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def _mode(channels: int) -> str:
    return "L" if channels == 1 else "RGB"
