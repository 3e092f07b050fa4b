"""The entries that lie in a folder, which anybody may have filled: what is no entry is refused in one line."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from leakbench.bench.leaderboard.entries import MOST_BYTES, DefenseEntry, Entry, read_entry
from leakbench.errors import UsageError
from leakbench.runtime.untrusted_files import Damaged, open_folder, read_file

MOST_FILES = 10_000


@dataclass(frozen=True)
class EntryFile:
    """An entry and where it lies."""

    path: str
    """relative to the folder, in what UTF-8 can hold"""
    digest: str
    """sha256 of its content"""
    entry: Entry


def defense_file(path: Path) -> tuple[DefenseEntry, str]:
    """The entry of a defence in one file, and the file's sha256. UsageError, one line, where there is none."""
    try:
        with open_folder(path.parent.resolve()) as folder:
            content = read_file(folder, path.name, MOST_BYTES)
        entry = read_entry(content)
    except (Damaged, OSError):
        raise UsageError(f"{path} is no regular file of at most {MOST_BYTES >> 10} KB: give an entry") from None
    except UsageError as error:
        raise UsageError(f"{path} {error}") from None
    if not isinstance(entry, DefenseEntry):
        raise UsageError(f"{path} is the entry of an attack: give that of the defence which is broken")
    return entry, hashlib.sha256(content).hexdigest()


def entry_files(folder: Path, out: Path) -> tuple[list[EntryFile], list[str]]:
    """The entries in all files ``*.json`` below ``folder``, by path, and why others are none, a line each.

    Links are not followed; what lies in ``out`` is no entry. UsageError where ``folder`` is none, or holds more than
    MOST_FILES.
    """
    if not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is no folder: give the folder of entries")
    root, skipped = folder.resolve(), out.resolve()
    if root == skipped:
        raise UsageError(f"--out {str(out)!r} is the folder of entries: choose another")
    entries: list[EntryFile] = []
    refused: list[str] = []

    def refuse(path: str, why: str) -> None:
        refused.append(f"{_encodable(os.path.relpath(path, root))}: {why}")

    def unread(error: OSError) -> None:
        refuse(str(error.filename), f"can't be read: {error.strerror}")

    count = 0
    for path, folders, names, inside in os.fwalk(root, onerror=unread):
        folders[:] = sorted(name for name in folders if Path(path, name) != skipped)
        for name in folders:
            if Path(path, name).is_symlink():
                refuse(f"{path}/{name}", "is a link: it is not followed")
        for name in sorted(name for name in names if name.endswith(".json")):
            count += 1
            if count > MOST_FILES:
                raise UsageError(f"{str(folder)!r} holds more than {MOST_FILES:,} files *.json")
            file = f"{path}/{name}"
            try:
                content = read_file(inside, name, MOST_BYTES)
                digest = hashlib.sha256(content).hexdigest()
                entries.append(EntryFile(_encodable(os.path.relpath(file, root)), digest, read_entry(content)))
            except UsageError as error:
                refuse(file, str(error))
            except Damaged:
                refuse(file, f"is no regular file of at most {MOST_BYTES >> 10} KB (links are not followed)")
            except OSError as error:
                refuse(file, f"can't be read: {error.strerror}")
    return entries, refused


def _encodable(text: str) -> str:
    """A name of a file may have lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()
