"""A run's pictures, read with distrust and embedded."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from leakbench.errors import DataError

FOLDER = "images"
MAX_BYTES = 4 << 20
MAX_SIDE = 96
"""pixels; a larger picture is shrunk to keep the page small"""
SMOOTH_SIDE = 16
"""pixels; a picture up to this size is drawn smoothly: as squares it is hard to read"""
SHOWN_SIDE = 64
"""CSS pixels that a picture takes up at most"""


@dataclass(frozen=True)
class Embedded:
    """A picture as a data: URI and its size on the page: a whole multiple, so that pixels stay square unless smooth."""

    uri: str
    width: int
    height: int
    shrunk: bool
    smooth: bool


def inside(run: Path, path: str) -> Path:
    """``run``/``path``, which must be a plain file below ``run``/images and reached through no link.

    Raises DataError, one line that names the path, where it is anything else.
    """
    parts = PurePosixPath(path).parts
    plain = bool(parts) and parts[0] == FOLDER and len(parts) > 1 and ".." not in parts
    if not plain or "\\" in path or ":" in path or "\0" in path:
        raise DataError(f"{path!r} is no path below {FOLDER}/: it is not opened")
    file = run
    for part in parts:
        file = file / part
        if file.is_symlink():
            raise DataError(f"{path!r} leads through a link: it is not opened")
    if not file.is_file():
        raise DataError(f"{path!r} is missing")
    # The check above can't know every kind of link that a platform has.
    if not file.resolve().is_relative_to((run / FOLDER).resolve()):
        raise DataError(f"{path!r} leaves {FOLDER}/: it is not opened")
    return file


def content(run: Path, path: str) -> bytes:
    """The bytes of the file at ``run``/``path``. Raises DataError where :func:`inside` does, and above MAX_BYTES."""
    with inside(run, path).open("rb") as file:
        found = file.read(MAX_BYTES + 1)
    if len(found) > MAX_BYTES:
        raise DataError(f"{path!r} is larger than {MAX_BYTES >> 20} MiB")
    return found


def opened(run: Path, path: str) -> Image.Image:
    """The PNG at ``run``/``path``, grey (L) or RGB.

    Raises DataError where :func:`content` does, and for a file that is no PNG or damaged.
    """
    try:
        with Image.open(io.BytesIO(content(run, path)), formats=["PNG"]) as image:
            if max(image.size) > 4096:
                raise DataError(f"{path!r} is {image.width} x {image.height} pixels: it is not shown")
            return image.convert("L" if image.mode in ("L", "1") else "RGB")
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds on damaged files; none of them may stop a report
        raise DataError(f"{path!r} is no readable PNG ({type(error).__name__})") from error


def embed(run: Path, path: str) -> Embedded:
    """The picture of :func:`opened`, written anew: what is no pixel (text chunks, trailing bytes) stays behind."""
    picture = opened(run, path)
    shrunk = max(picture.size) > MAX_SIDE
    if shrunk:
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    side = max(picture.size)
    factor: float = SHOWN_SIDE // side if side <= SHOWN_SIDE else SHOWN_SIDE / side
    width, height = (max(1, round(length * factor)) for length in picture.size)
    smooth = side <= SMOOTH_SIDE
    if smooth:
        # here and not by the browser, which prints small pictures in squares whatever its style says; half the size
        # on the page looks the same and takes a third of the bytes
        picture = picture.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return Embedded(uri, width, height, shrunk, smooth)
