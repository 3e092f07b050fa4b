"""Where LeakBench keeps things on this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from platformdirs import user_cache_path

from leakbench.errors import UsageError

NETWORKS = "networks"
"""folder of the store that users' own networks are in"""


def default_cache() -> Path:
    """The store: $LEAKBENCH_CACHE, else the user's cache folder."""
    given = os.environ.get("LEAKBENCH_CACHE", "")
    return user_path(given, "$LEAKBENCH_CACHE") if given else user_cache_path("leakbench")


def default_local_cache() -> Path | None:
    """Where copies of a store on a shared folder are kept: $LEAKBENCH_LOCAL_CACHE, else nowhere."""
    given = os.environ.get("LEAKBENCH_LOCAL_CACHE", "")
    return user_path(given, "$LEAKBENCH_LOCAL_CACHE") if given else None


def children(folder: Path) -> list[Path]:
    """What lies in a folder; nothing, where it can't be read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def own_files(folder: Path, ending: str) -> dict[Path, os.stat_result]:
    """Those of a folder whose names end so; nothing where it is a link, behind which others' files may lie."""
    found = {}
    for path in [] if folder.is_symlink() else children(folder):
        with contextlib.suppress(OSError):
            if path.name.endswith(ending):
                found[path] = path.lstat()
    return found


def kept_networks(cache: Path) -> dict[Path, os.stat_result]:
    """The users' own networks that lie in a store, as audits and runs with --ann leave them there."""
    folders = own_files(cache / NETWORKS, "")
    return {path: status for folder in folders for path, status in own_files(folder, ".safetensors").items()}


def use_networks(cache: Path, files: Iterable[Path]) -> None:
    """Those of the files that are networks of a store count as used now, where it may be written to."""
    for path in {one.absolute() for one in files} & kept_networks(cache.absolute()).keys():
        with contextlib.suppress(OSError):
            os.utime(path)


def remove_unused(files: Mapping[Path, os.stat_result], older_than_days: float) -> tuple[int, int]:
    """Remove those that were not written or used for so many days; (files, bytes) removed."""
    removed = []
    for path, status in files.items():
        if status.st_mtime <= time.time() - older_than_days * 86400:
            with contextlib.suppress(OSError):
                path.unlink()
                removed.append(status.st_size)
    return len(removed), sum(removed)


def user_path(given: str, origin: str) -> Path:
    """The path with ``~`` as a home folder, checked as :func:`checked_path` does; UsageError for an unknown user."""
    try:
        path = Path(given).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{origin}: {given!r} can't be used: {error}") from None
    return checked_path(path, origin)


def checked_path(path: Path, origin: str) -> Path:
    """``path``, whether a file is there or not; UsageError, which starts with ``origin``, where none can be.

    That is a name too long for the file system, or with a character that no name holds: most calls on files answer
    these with an exception of their own instead of "there is no such file".
    """
    try:
        path.lstat()
    except ValueError:
        raise UsageError(f"{origin}: {str(path)!r} holds a character that no file's name can: remove it") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{origin}: the name {_start(path)} is too long for a file: choose another") from None
    return path


def _start(path: Path) -> str:
    text = str(path)
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."


def remove_all(folder: Path | str) -> None:
    """Remove a folder and what can be removed of all in it, by the system's own tools.

    shutil.rmtree ends in a RecursionError where somebody nested thousands of folders. Folders may be there that their
    owner may not list.
    """
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        subprocess.run([*command, "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
        if not os.path.lexists(folder):
            return
