"""A run in one file: a zip of its record, its page, its pictures and its table, which opens on another machine.

A bundle may be anybody's. It is unpacked where it holds what a bundle holds and nothing else: one folder, plain
files of known names, no links, and no more than the limits below. What is unpacked goes to the disk in pieces.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from leakbench.errors import StoreError, UsageError
from leakbench.records import COMPLETE, MOST_BYTES
from leakbench.runtime.files import replacing

MOST_FILES = 50_000
_MOST_DIRECTORY = 16 << 20
"""bytes of a zip's own table of contents, which is read whole before anything of it can be checked"""
MOST_PACKED = MOST_BYTES + 2 * _MOST_DIRECTORY
"""bytes of the zip itself: pictures are packed already"""
_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x07"
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)
_PART = r"(?!\.)[\w=,.+-]{1,120}"
_FOLDER = re.compile(_PART, re.ASCII)
FILES = (COMPLETE.record, "grid.json", COMPLETE.page, f"{COMPLETE.tables}.csv")
_PICTURE = re.compile(rf"images(/{_PART}){{1,6}}\.png", re.ASCII)


def is_bundle(path: Path) -> bool:
    """Whether a zip is meant, by its name."""
    return path.suffix.lower() == ".zip" and not path.is_dir()


def write_bundle(folder: str, files: Mapping[str, bytes], out: Path) -> Path:
    """Write the zip: ``files`` by their path in a run's folder. The same files give the same bytes.

    UsageError where a name is none of a run's, or there is more than :func:`unpack` takes; StoreError where ``out``
    can't be written.
    """
    for name in files:
        if not _belongs(name):
            raise UsageError(f"{name!r} is no file of a run: it can't go into a bundle")
    size = sum(map(len, files.values()))
    if len(files) > MOST_FILES or size > MOST_BYTES:
        raise UsageError(
            f"the run has {len(files):,} files of {size >> 20} MB, a bundle takes {MOST_FILES:,} and "
            f"{MOST_BYTES >> 20} MB: pass on its folder"
        )
    with replacing(out) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            info = zipfile.ZipInfo(f"{folder}/{name}", _FIRST_DAY)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            bundle.writestr(info, content)
    return out


@contextlib.contextmanager
def opened(run: Path) -> Iterator[Path]:
    """The folder of a run: ``run`` itself, or where it is a bundle a temporary one with what is in it."""
    if not is_bundle(run):
        yield run
        return
    with tempfile.TemporaryDirectory(prefix="leakbench-") as folder:
        unpacked = unpack(run, Path(folder))
        try:
            yield unpacked
        except UsageError as error:  # of what lies in a folder that nobody knows
            raise UsageError(str(error).replace(str(unpacked), str(run))) from None


def unpack(bundle: Path, into: Path) -> Path:
    """Unpack a bundle into a folder that is empty; the run's own folder in it.

    UsageError, one line that starts with the file's name, where it is no bundle of a run.
    """
    try:
        if not bundle.is_file():  # a pipe would be waited for
            raise UsageError(f"{bundle} is no file: give a bundle that leakbench export --bundle wrote")
        _check_directory(bundle)
        with zipfile.ZipFile(bundle) as archive:
            members = archive.infolist()
            folder = _checked(members)
            for member in members:
                path = into / member.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                # no more is read than the size that the zip says, which is checked
                with archive.open(member) as packed, path.open("xb") as file:
                    shutil.copyfileobj(packed, file)
        return into / folder
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise UsageError(f"{bundle} is no zip that can be read: {error}") from None
    except _Refused as error:
        raise UsageError(f"{bundle} is no bundle of a run: {error}") from None
    except OSError as error:
        raise StoreError(f"{bundle} can't be unpacked: {error.strerror}") from None


class _Refused(Exception):
    """What is wrong with the content of a zip."""


def _belongs(name: str) -> bool:
    """Whether that is the path of a file of a run; no such path leaves its folder."""
    return name in FILES or _PICTURE.fullmatch(name) is not None


def _check_directory(bundle: Path) -> None:
    """Refuse what can't be checked piece by piece."""
    size = bundle.stat().st_size
    if size > MOST_PACKED:
        raise _Refused(f"it is larger than {MOST_PACKED >> 20} MB")
    with bundle.open("rb") as file:
        file.seek(max(0, size - (1 << 16) - 42))
        tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) < end + 22:
        raise _Refused("it is no zip")
    if _END_64 in tail[max(0, end - 20) : end]:
        raise _Refused("it is a zip64, which no bundle is")
    if int.from_bytes(tail[end + 12 : end + 16], "little") > _MOST_DIRECTORY:
        raise _Refused(f"it holds more than {MOST_FILES:,} files")


def _checked(members: list[zipfile.ZipInfo]) -> str:
    """The one folder that everything lies in."""
    if len(members) > MOST_FILES:
        raise _Refused(f"it holds more than {MOST_FILES:,} files")
    if sum(member.file_size for member in members) > MOST_BYTES:
        raise _Refused(f"it unpacks to more than {MOST_BYTES >> 20} MB")
    folders, names = set(), set()
    for member in members:
        folder, _, name = member.filename.partition("/")
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise _Refused(f"{member.filename!r} is no regular file")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Refused(f"{member.filename!r} is packed in an unknown way")
        if not _FOLDER.fullmatch(folder) or not _belongs(name):
            raise _Refused(f"{member.filename[:200]!r} is no file of a run")
        if member.filename in names:
            raise _Refused(f"{member.filename!r} stands in it twice")
        folders.add(folder)
        names.add(member.filename)
    if len(folders) != 1 or f"{min(folders)}/{COMPLETE.record}" not in names:
        raise _Refused(f"it must hold one folder, with {COMPLETE.record} in it")
    return str(min(folders))
