"""Reading and removing files in a folder that others write too: whatever lies there, nothing hangs and no code runs.

A pipe would block whoever opens it, a link may lead anywhere, a sparse file may be larger than memory, deep JSON
exhausts the stack. All of these are :class:`Damaged`, as is a file that is missing or can't be read back.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# what opening something else than a regular file or a folder gives, and what a broken disk gives
_NO_FILE = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EIO, errno.ESTALE}
_REMOVED = ".removing-"


class Damaged(Exception):
    """Something is there, but it can't be what was written."""


@contextlib.contextmanager
def open_folder(name: Path | str, inside: int | None = None) -> Iterator[int]:
    """The descriptor of a folder, by its path or by its name inside an open folder; links are not followed.

    Raises FileNotFoundError where nothing is there, Damaged where something else is, OSError where it may not be read.
    """
    try:
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=inside)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise Damaged("it is no folder") from None
        raise
    try:
        yield folder
    finally:
        os.close(folder)


def read_file(folder: int, name: str, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes in an open folder; links are not followed.

    Raises Damaged where it is missing, larger or anything else, OSError where it may not be read.
    """
    try:
        # a pipe is opened without waiting for its writer
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Damaged(f"{name} is no file")
            if status.st_size > limit:
                raise Damaged(f"{name} is too large")
            return file.read(status.st_size)
    except FileNotFoundError:
        raise Damaged(f"{name} is missing") from None
    except OSError as error:
        if error.errno in _NO_FILE:
            raise Damaged(f"{name} is no readable file") from None
        raise


def parse_object(content: bytes, name: str) -> dict[str, Any]:
    """The JSON object in a file's content. Raises Damaged where it is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise Damaged(f"{name} is no JSON") from None
    if not isinstance(value, dict):
        raise Damaged(f"{name} is no JSON object")
    return value


def mode_of(path: Path) -> int:
    """The mode (kind and permissions) of what lies at a path, a link being a link; 0 where nothing is there."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def was_replaced(folder: int, path: Path) -> bool:
    """Whether the open folder is no longer the one at the path."""
    try:
        return not os.path.samestat(os.fstat(folder), path.lstat())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            return True
        raise


def discard(path: Path, of: str) -> None:
    """Remove whatever lies at a path, all at once for those who look there, by renaming it first.

    What can't be removed under its new name, which tells what it is ``of``, is left there. Raises OSError where it
    can't be renamed.
    """
    aside = path.with_name(f"{_REMOVED}{of}-{secrets.token_hex(8)}")
    path.rename(aside)
    for _ in range(2):  # again, where somebody was writing into it meanwhile
        with contextlib.suppress(OSError, RecursionError):  # rmtree recurses into what may be deep
            if stat.S_ISDIR(mode_of(aside)):
                shutil.rmtree(aside)
            else:
                aside.unlink()
