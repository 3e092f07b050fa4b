"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from leakbench.errors import StoreError


def write_file(path: Path, content: bytes) -> Path:
    """Write a file and have it on the disk: a reader finds the old one or the whole new one.

    Raises StoreError, one line that names the file, where it can't be written.
    """
    with replacing(path) as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return path


def read_file(path: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes. ValueError for anything else, OSError as always."""
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is no regular file")
    if path.stat().st_size > most:
        raise ValueError(f"{path} is larger than {most >> 20} MB")
    return path.read_bytes()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name, which takes the place of ``path`` at the end and goes away after an error."""
    temporary = None
    if path.exists() and not (path.is_file() or path.is_dir()):  # root would put a file in the place of /dev/null
        raise StoreError(f"{path} is no regular file: choose another name")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as stream:
            yield stream
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        temporary.replace(path)
        temporary = None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"{path} can't be written ({reason}): choose a folder that can") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
