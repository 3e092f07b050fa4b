"""Small published sets in class folders and tars, and their digest computed from its definition."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def picture(seed: int, *shape: int) -> NDArray[np.uint8]:
    """Pixels [height, width] or [height, width, channels]."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    """The content of an image file of one of Pillow's formats."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def digest_of(images: Sequence[tuple[int, NDArray[np.uint8]]]) -> str:
    """Of (class, pixels [height, width, channels])."""
    each = sorted(hashlib.sha256(bytes([label]) + pixels.tobytes()).digest() for label, pixels in images)
    return hashlib.sha256(b"".join(each)).hexdigest()


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(path: Path, top: str, files: Mapping[str, bytes], *others: tarfile.TarInfo, mode: Any = "w") -> Path:
    """A tar with ``files`` below its folder ``top``, then empty members."""
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in others:
            archive.addfile(entry)
    return path


def special(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    """A member that is no regular file."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, linkname
    return entry
