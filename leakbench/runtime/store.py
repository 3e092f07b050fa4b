"""The store: artifacts under the hash of what made them.

An artifact is written under a temporary name, synced and renamed, so that it is there whole or not at all. A lock or a
lease per key (:mod:`leakbench.runtime.locks`) lets runs on one machine or several share a store. Should two build the
same nevertheless, who comes second takes what the first one left. A damaged artifact is built again with a warning.

A store on a shared folder may keep copies of what it reads and writes in a folder of this machine, laid out as a store.
Such a copy is checked as an artifact is; a damaged one is read from the shared folder again.

On the disk::

    objects/ab/ab12...                  an artifact, in the folder of its key's first two digits
    objects/ab/.making-ab12...-<token>  an artifact that is being written, or that a killed run left half written
    objects/ab/.removing-ab12...-...    something that is being removed
    objects/ab/.state-ab12...           how far the making of an artifact has come, for a run that goes on
    locks/ab12....lock, ab12....lease   held while an artifact is built
    locks/leases                        says that leases are used
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import OutOfMemoryError

from leakbench.errors import StoreError, printable
from leakbench.paths import children
from leakbench.runtime.artifact import (
    Artifact,
    ArtifactRecord,
    Content,
    artifact_key,
    encode,
    read_artifact,
    read_stage,
)
from leakbench.runtime.locks import Locks
from leakbench.runtime.untrusted_files import Damaged, discard, mode_of, open_folder, was_replaced

__all__ = ["Artifact", "ArtifactRecord", "Content", "Entry", "NotStored", "Store", "artifact_key", "write_synced"]

log = logging.getLogger("leakbench")
_KEY = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"[0-9a-f]{2}")
_LEFTOVER = re.compile(r"\.(making|removing|state)-.*|.*\.part", re.DOTALL)
_DAY = 86400  # seconds
_STATES_KEPT = 30 * _DAY
"""seconds after which nobody is expected to go on with a stage that was interrupted"""
# what a rename says when somebody else was faster, or took what is being written for a leftover
_LOST = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
_PASSING = (OutOfMemoryError, getattr(torch, "AcceleratorError", OutOfMemoryError), MemoryError, OSError, StoreError)
"""errors of the machine and not of what is built: the same build may well succeed later"""
_TRIES = 100  # each may be lost to another run that makes the same artifact


@dataclass(frozen=True)
class Entry:
    """What ``cache ls`` shows of an artifact."""

    key: str
    stage: str
    bytes: int
    used: float
    """time of last use, seconds since the epoch"""
    path: Path


class NotStored(BaseException):
    """An artifact is not in a store that is read only. No Exception: no plugin is at fault, and none may catch it."""


class Store:
    """A folder of artifacts. What this object makes is marked with ``environment``: Python, versions, processor, ...

    With ``local``, a folder on a disk of this machine, copies of artifacts are kept there and read from there.
    StoreError, which names the ``option``, where one of the folders can't be used.
    """

    def __init__(
        self,
        root: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
        local: Path | None = None,
        option: str = "--cache",
    ) -> None:
        self.root = root
        self.environment = dict(environment)
        self.read_only = False
        """whether it is an error (:class:`NotStored`) to ask for what would have to be made"""
        self.built = 0
        """how many artifacts this object began to make"""
        self._builds = _Builds()
        try:
            (root / "objects").mkdir(parents=True, exist_ok=True)
            self._locks = Locks(root / "locks")
        except OSError as error:
            raise StoreError(
                f"can't use {str(root)!r} as cache: {error.strerror}: give another with {option}"
            ) from None
        self._copies = None if local is None else _Copies(local, root)
        for path in self._everything():
            if _LEFTOVER.fullmatch(path.name):
                kept = _STATES_KEPT if path.name.startswith(".state-") else _DAY
                with contextlib.suppress(OSError):
                    if path.lstat().st_mtime < time.time() - kept:
                        self._remove(path)

    def get_or_make(
        self,
        stage: str,
        version: int,
        inputs: Mapping[str, Any],
        build: Callable[[], Content],
        parents: Iterable[Artifact] = (),
    ) -> Artifact:
        """The artifact of these inputs: read, or built and kept.

        Its environments are this store's and those of its parents, where parents are the ones named and the ones that
        ``build`` takes from this store. NotStored where it would have to be built in a store that is read only.
        """
        key = artifact_key(stage, version, inputs)
        artifact = self._load_or_warn(key)
        if artifact is None:
            if self.read_only:
                raise NotStored(stage)
            with self._locked(key):
                # NFS remembers for a while that there was no such folder; who makes it asks the server
                with contextlib.suppress(OSError):
                    self._folder(key).parent.mkdir()
                with contextlib.suppress(Damaged):  # said already
                    artifact = self._load(key)  # another run may have made it while this one waited
                if artifact is None:
                    self.built += 1
                    with self._builds.running() as used:
                        content = build()
                    behind = [one for parent in parents for one in parent.environments]
                    environments = _distinct([self.environment, *behind, *used])
                    artifact, files = encode(stage, version, inputs, content, environments)
                    winner = self._publish(key, files)
                    if winner is not None:
                        artifact = winner
                    elif self._copies is not None:
                        self._copies.keep(key, files)
        self._builds.uses(artifact)
        return artifact

    def read(self, key: str) -> Artifact | None:
        """The artifact, or None where it is not there or damaged; the latter with a warning."""
        artifact = self._load_or_warn(key)
        if artifact is not None:
            self._builds.uses(artifact)
        return artifact

    @contextlib.contextmanager
    def state(self, key: str) -> Iterator[Path | None]:
        """The folder of the states of an artifact that is being built: an interrupted build goes on from them.

        For use inside a build. It is removed when the artifact is there, and where the build fails by its own fault:
        not where memory or a disk did. None where there can't be one: the build then goes on without.
        """
        folder = self._folder(key).with_name(f".state-{key}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            yield None
            return
        if folder.is_symlink():  # others write to a store, too, and may lead anywhere
            yield None
            return
        try:
            yield folder
        except _PASSING:
            raise
        except Exception:
            with contextlib.suppress(OSError):
                discard(folder, key)
            raise

    def _folder(self, key: str) -> Path:
        return self.root / "objects" / key[:2] / key

    # --- reading -------------------------------------------------------------------------------------------------

    def _load_or_warn(self, key: str) -> Artifact | None:
        copy = None if self._copies is None else self._copies.read(key)
        try:
            return self._load(key) if copy is None else copy
        except Damaged as error:
            log.warning("damaged artifact %s (%s): it is built again", key[:12], printable(str(error)))
            return None

    def _load(self, key: str) -> Artifact | None:
        found = self.found(key)
        if found is None:
            return None
        artifact, files = found
        if self._copies is not None:
            self._copies.keep(key, files)
        return artifact

    def found(self, key: str) -> tuple[Artifact, Mapping[str, bytes]] | None:
        """An artifact and its files as they lie in this folder; None where it is not there. Raises Damaged."""
        folder = self._folder(key)
        try:
            while True:
                with open_folder(folder.parent) as shard, open_folder(key, inside=shard) as opened:
                    try:
                        return read_artifact(opened, key)
                    except Damaged:
                        if not was_replaced(opened, folder):
                            raise
                        # look again: it was removed or replaced while it was read
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"can't read the cache at {str(folder)!r}: {error.strerror}") from None

    @contextlib.contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """What no two who use this store are to do at once, such as writing into one folder, whatever it is called.

        Where that can't be kept, as in a store that may only be read, it is done all the same.
        """
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):
                held.enter_context(self._locks.held(hashlib.sha256(os.fsencode(what)).hexdigest()))
            yield

    # --- writing -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Holds a key. Raises StoreError where it can't be written that it is held."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._locks.held(key))
            except OSError as error:
                raise self._unwritable(error) from None
            yield

    def _publish(self, key: str, files: Mapping[str, bytes]) -> Artifact | None:
        """Put a key's files where nothing or something damaged lies; a good artifact that lies there is returned."""
        try:
            self._clear_leftovers(key)
            return self.put(key, files)
        except OSError as error:
            raise self._unwritable(error) from None

    def put(self, key: str, files: Mapping[str, bytes]) -> Artifact | None:
        """As :meth:`_publish`, beside others that write the same key. Raises OSError."""
        folder = self._folder(key)
        for _ in range(_TRIES):
            try:
                self._write(key, files)
                return None
            except OSError as error:
                if error.errno not in _LOST:
                    raise
            with contextlib.suppress(Damaged):
                winner = self.found(key)
                if winner is not None:
                    return winner[0]
            with contextlib.suppress(FileNotFoundError):
                discard(folder, key)
        raise StoreError(f"can't write to the cache at {str(self.root)!r}: something removes what is written there")

    def _clear_leftovers(self, key: str) -> None:
        """Remove what killed runs left of a key. Whoever calls this holds the key's lock."""
        for path in children(self._folder(key).parent):
            if _LEFTOVER.fullmatch(path.name) and key in path.name:
                with contextlib.suppress(OSError):
                    discard(path, key)

    def _write(self, key: str, files: Mapping[str, bytes]) -> None:
        """Write the files into a new folder and rename it. Raises OSError where something lies there already."""
        folder = self._folder(key)
        shard = folder.parent
        mode = mode_of(shard)
        if mode and not stat.S_ISDIR(mode):
            # never removes a folder that another run has put there meanwhile
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                shard.unlink()
        shard.mkdir(parents=True, exist_ok=True)
        temporary = shard / f".making-{key}-{secrets.token_hex(8)}"
        temporary.mkdir()
        try:
            for name, content in files.items():
                write_synced(temporary / name, content)
            temporary.rename(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                discard(temporary, key)
            raise

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(f"can't write to the cache at {str(self.root)!r}: {error.strerror}")

    # --- housekeeping --------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """All artifacts, in no order."""
        for path in self._everything():
            with contextlib.suppress(OSError):  # removed meanwhile, or not to be looked at
                yield _entry(path)

    def prune(self, older_than_days: float) -> tuple[int, int]:
        """Remove what was not used for so many days; (artifacts, bytes) removed. 0 removes everything."""
        limit = time.time() - older_than_days * _DAY
        removed = [entry.bytes for entry in self.entries() if entry.used <= limit and self._remove(entry.path)]
        self._locks.prune(limit)
        return len(removed), sum(removed)

    def _remove(self, path: Path) -> bool:
        """Remove an artifact or a leftover, unless its key is held: somebody builds it."""
        key = _KEY.search(path.name)
        try:
            if key is None:
                discard(path, "unnamed")
            else:
                with self._locks.removed(key.group()):
                    discard(path, key.group())
        except OSError:
            return False
        return True

    def _everything(self) -> Iterator[Path]:
        """Artifacts, leftovers, and what lies where a folder of artifacts should; nothing else that may be there."""
        for shard in children(self.root / "objects"):
            if _SHARD.fullmatch(shard.name) and stat.S_ISDIR(mode_of(shard)):
                for path in children(shard):
                    if _KEY.fullmatch(path.name) or _LEFTOVER.fullmatch(path.name):
                        yield path
            elif _SHARD.fullmatch(shard.name) or _LEFTOVER.fullmatch(shard.name):
                yield shard


class _Copies:
    """Copies of a store's artifacts on a disk of this machine."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self._shared = shared
        self._store = Store(folder, option="--local-cache")
        self._full = False
        if folder.samefile(shared):
            raise StoreError(
                f"--local-cache: {str(folder)!r} is the cache itself: name a folder on this machine's disk"
            )

    def read(self, key: str) -> Artifact | None:
        """The copy; None where there is none or, with a warning, a damaged one."""
        try:
            found = self._store.found(key)
        except Damaged as error:
            reason, shared = printable(str(error)), printable(str(self._shared))
            log.warning("damaged copy of artifact %s (%s): it is read from %s again", key[:12], reason, shared)
            return None
        return None if found is None else found[0]

    def keep(self, key: str, files: Mapping[str, bytes]) -> None:
        """Keep a copy; without one, and with a warning the first time, where it can't be written."""
        if self._full:
            return
        try:
            self._store.put(key, files)
        except (OSError, StoreError) as error:
            self._full = True
            reason = error.strerror if isinstance(error, OSError) else str(error)
            log.warning("no more copies are kept in the local cache at %r: %s", str(self._store.root), reason)


class _Builds(threading.local):
    """The environments that the builds running in this thread have come by, the innermost build last."""

    def __init__(self) -> None:
        self._used: list[list[Mapping[str, str]]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[list[Mapping[str, str]]]:
        """Collects the environments of all artifacts that are read or made before it ends."""
        used: list[Mapping[str, str]] = []
        self._used.append(used)
        try:
            yield used
        finally:
            self._used.pop()

    def uses(self, artifact: Artifact) -> None:
        """The build that runs, if any, was given this artifact."""
        if self._used:
            self._used[-1].extend(artifact.environments)


def _distinct(environments: Iterable[Mapping[str, str]]) -> tuple[dict[str, str], ...]:
    distinct: list[dict[str, str]] = []
    for one in environments:
        if one not in distinct:
            distinct.append(dict(one))
    return tuple(distinct)


def _entry(path: Path) -> Entry:
    """What ``cache ls`` shows of a path. Raises FileNotFoundError where nothing is there any more."""
    status = path.lstat()
    stage, used = "(unfinished)", status.st_mtime
    if not _LEFTOVER.fullmatch(path.name):
        try:
            with open_folder(path) as folder:
                stage = read_stage(folder)
                used = os.stat("manifest.json", dir_fd=folder, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            raise
        except (Damaged, OSError):
            stage, used = "(damaged)", 0.0
    files = children(path) if stat.S_ISDIR(status.st_mode) else [path]
    return Entry(path.name, stage, sum(file.lstat().st_size for file in files), used, path)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and have it on the disk before returning."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
