"""The files of a published folder, or of a tar of it: regular files only, of bounded size, none from elsewhere."""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from leakbench.errors import DataError

MOST_TAR_BYTES = 2**30
MOST_MEMBERS = 100_000
_BLOCK = 512
_MOST_HEADER = 2**16
"""bytes of one read: tarfile reads a long name, or other words on the next file, whole"""

Found = tuple[re.Match[str], bytes]
"""a file's name, matched, and its content"""


def read_tree(path: Path, top: str, wanted: re.Pattern[str], most_bytes: int) -> Iterator[Found]:
    """The files whose names match, in the order in which they lie there: those below a folder, or, of an uncompressed
    tar, those below its folder ``top``.

    A name is the path below the folder, with "/" between its parts. Other files and what is hidden (names that start
    with ".") are passed over. A tar is read as it lies and never unpacked.

    Raises DataError, one line that names the file at fault: a link, a pipe or a device, a name that leaves the folder,
    a file of more than ``most_bytes``, a tar of more than 1 GiB or 100,000 members, one that is compressed, cut off or
    damaged.
    """
    return _of_folder(path, wanted, most_bytes) if path.is_dir() else _of_tar(path, top, wanted, most_bytes)


def read_regular(path: str, most_bytes: int) -> bytes | None:
    """The content of a file, None where nothing is. Raises DataError: a link, a pipe, a device, over ``most_bytes``."""
    try:
        # a pipe is opened without waiting for its writer
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path!a} is no regular file")
            _check_size(path, status.st_size, most_bytes)
            return file.read(status.st_size)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "it is a link" if Path(path).is_symlink() else error.strerror
        raise DataError(f"{path!a} can't be read: {reason}") from None


def _of_folder(root: Path, wanted: re.Pattern[str], most_bytes: int) -> Iterator[Found]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename!a} can't be read: {error.strerror}")

    for where, folders, files in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in folders:
            if Path(where, name).is_symlink():
                raise DataError(f"{str(Path(where, name))!a} can't be read: it is a link")
        below = Path(where).relative_to(root).as_posix()
        for name in sorted(files):
            # plain strings: there may be 60,000 files
            matched = wanted.fullmatch(f"{below}/{name}") if name[0] != "." else None
            content = None if matched is None else read_regular(f"{where}/{name}", most_bytes)
            if matched is not None and content is not None:
                yield matched, content


def _of_tar(path: Path, top: str, wanted: re.Pattern[str], most_bytes: int) -> Iterator[Found]:
    try:
        if path.stat().st_size > MOST_TAR_BYTES:
            raise DataError(f"{path} is larger than {MOST_TAR_BYTES // 2**20} MB, which no copy of this set is")
        with _Headers(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for number, member in enumerate(archive):
                if number == MOST_MEMBERS:  # tarfile keeps them all in memory
                    raise DataError(f"{path} holds more than {MOST_MEMBERS:,} files, which no copy of this set does")
                name = member.name.removeprefix("./")
                parts = name.split("/")
                if name.startswith("/") or ".." in parts:
                    raise DataError(f"{path}: {name!a} leaves the folder {top}: pack that folder alone")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise DataError(f"{path}: {name!a} is a link or no regular file: pack the files themselves")
                inside = name.removeprefix(f"{top}/")
                matched = wanted.fullmatch(inside) if inside != name else None
                if matched is None or any(part.startswith(".") for part in parts):
                    continue
                _check_size(f"{path}: {name}", member.size, most_bytes)
                content = os.pread(file.fileno(), member.size, member.offset_data)
                if len(content) < member.size:
                    raise DataError(f"{path} is cut off or damaged at byte {member.offset_data:,}: get it anew")
                yield matched, content
            # tarfile takes a damaged header for the end, where blocks of zeros are
            if os.pread(file.fileno(), _BLOCK, archive.offset) != bytes(_BLOCK):
                raise DataError(f"{path} is cut off or damaged at byte {archive.offset:,}: get it anew")
    except DataError:
        raise
    except Exception as error:  # tarfile raises what it likes on broken files
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path} can't be read as an uncompressed tar ({reason}): get or pack it anew") from None


class _Headers(io.FileIO):
    """A tar of which headers are read: what a hostile one says of their size does not fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises tarfile.ReadError: of more than a long name needs, or to the end, as a negative size means."""
        if size is None or not 0 <= size <= _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _check_size(where: str, size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise DataError(f"{where!a} is {size:,} bytes: right would be {most_bytes:,} at most")
