"""Image files that others made, read with care: known formats only, sizes checked before decoding."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from leakbench.data.dataset import LONGEST_SIDE
from leakbench.errors import DataError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""file names that count as images (torchvision's ImageFolder has the same)"""

# Pillow goes by content, not by name: unlisted formats (EPS starts an interpreter) are not even tried.
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Modes with more than 8 bits a channel would be clipped without a word.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")

T = TypeVar("T")


class Header(NamedTuple):
    """What an image says of itself before it is decoded."""

    grey: bool
    """one channel (Pillow's modes "L" and "1")"""
    width: int
    height: int


def read_header(root: Path, name: str) -> Header:
    """Mode and size of the image ``root``/``name``, upright as its EXIF orientation says.

    Raises DataError: broken, a format or a bit depth that is not read, a side longer than 1024 pixels.
    """
    return _opened(root, name, lambda image: Header(image.mode in ("L", "1"), *image.size))


def decode(root: Path, names: Sequence[str], mode: Literal["L", "RGB"], size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 [N, C, height, width] of the images ``root``/``names``, upright and converted to ``mode``.

    ``size`` is (width, height). Raises DataError for an image that is broken or has another size.
    """
    width, height = size
    images = np.empty((len(names), len(mode), height, width), np.uint8)

    def pixels(image: Image.Image) -> NDArray[np.uint8]:
        if is_transparent(image):
            raise DataError("has transparent pixels, whose colours nobody sees: put it on a background")
        return np.asarray(image.convert(mode)).reshape(*image.size[::-1], len(mode)).transpose(2, 0, 1)

    for position, name in enumerate(names):
        image = _opened(root, name, pixels)
        if image.shape != images.shape[1:]:
            stored_size = f"{image.shape[2]}x{image.shape[1]}"
            raise DataError(f"{root}: {name!a} is {stored_size} pixels, right would be {width}x{height}")
        images[position] = image
    return images


def pixels(
    where: str, content: bytes, formats: tuple[str, ...], mode: Literal["L", "RGB"], size: tuple[int, int]
) -> bytes:
    """The pixels of a file's ``content``, converted to ``mode``: row by row, the channels of a pixel side by side.

    ``formats`` are Pillow's names, ``size`` is (width, height), checked before anything is decoded. Raises DataError,
    which starts with ``where``: broken, another format or size, a bit depth that is not read.
    """
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            problem = _problem(image)
            if image.size != size:
                problem = f"is {image.width}x{image.height} pixels, right would be {size[0]}x{size[1]}"
            if not problem:
                return (image if image.mode == mode else image.convert(mode)).tobytes()
    except UnidentifiedImageError:
        problem = f"is no whole image in the format {' or '.join(formats)}"
    except Exception as error:  # Pillow's plugins raise what they like on broken files
        problem = f"can't be read ({' '.join(f'{type(error).__name__}: {error}'.split())})"
    raise DataError(f"{where} {problem}")


def _opened(root: Path, name: str, read: Callable[[Image.Image], T]) -> T:
    path = root / name
    # A named pipe or a device among hostile files would block or never end.
    if not path.is_file():
        raise DataError(f"{root}: {name!a} is missing or no regular file")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            problem = _problem(image)
            if not problem:
                return read(ImageOps.exif_transpose(image))
    except DataError as error:
        problem = str(error)
    except Exception as error:  # Pillow's plugins raise what they like on broken files
        problem = f"can't be read ({' '.join(f'{type(error).__name__}: {error}'.split())})"
    raise DataError(f"{root}: the image {name!a} {problem}: mend or remove it")


def is_transparent(image: Image.Image) -> bool:
    """Whether a pixel lets what is behind it be seen."""
    if not image.has_transparency_data:
        return False
    least = image.convert("RGBA").getchannel("A").getextrema()[0]
    return isinstance(least, int | float) and least < 255


def _deep(image: Image.Image) -> bool:
    """Whether a file has more than 8 bits a channel: Pillow takes the upper 8 of colours without a word."""
    for codec, _extents, _offset, args in image.tile if isinstance(image, ImageFile.ImageFile) else ():
        raw, *rest = args if isinstance(args, tuple) else (args,)
        deepest = max((number for number in rest if isinstance(number, int)), default=0)
        if ";16" in str(raw) or (codec.startswith("ppm") and deepest > 255):
            return True
    return False


def _problem(image: Image.Image) -> str:
    if max(image.size) > LONGEST_SIDE:
        return f"is {image.size[0]}x{image.size[1]} pixels, more than {LONGEST_SIDE} on a side"
    if getattr(image, "is_animated", False):
        return "holds several pictures, of which one would be read"
    if image.mode not in MODES:
        return f"has the pixel format {image.mode}, right would be 8 bits a channel"
    if _deep(image):
        return "has more than 8 bits a channel, right would be 8"
    return ""
