"""Where LeakBench keeps things on this machine."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

from platformdirs import user_cache_path

from leakbench.errors import UsageError


def default_cache() -> Path:
    """The store: $LEAKBENCH_CACHE, else the user's cache folder."""
    given = os.environ.get("LEAKBENCH_CACHE", "")
    return checked_path(Path(given).expanduser(), "$LEAKBENCH_CACHE") if given else user_cache_path("leakbench")


def default_local_cache() -> Path | None:
    """Where copies of a store on a shared folder are kept: $LEAKBENCH_LOCAL_CACHE, else nowhere."""
    given = os.environ.get("LEAKBENCH_LOCAL_CACHE", "")
    return checked_path(Path(given).expanduser(), "$LEAKBENCH_LOCAL_CACHE") if given else None


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
