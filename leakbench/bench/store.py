"""The store: artifacts under the hash of what made them.

An artifact is a folder with ``tensors.safetensors``, ``record.json`` and ``manifest.json`` (what made it, and the
sha256 of the other two). It is written under a temporary name, synced and renamed, so that it is there whole or not
at all; a lock per key lets two runs share a store; hashes are checked when it is read, and a damaged artifact is
built again with a warning. Nothing is ever pickled.

In the key: stage name and version, parameters, parents' keys, seed. Left out: device, paths, worker counts, times, and
the environment (versions, processor, ...). The latter is kept beside the artifact, with those of all that it was made
from, so that a result can say which machines and versions had a hand in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from leakbench.errors import StoreError

log = logging.getLogger("leakbench")
_FORMAT = 2


@dataclass(frozen=True)
class Artifact:
    """What is kept: tensors and a JSON record, under a key."""

    key: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    environments: tuple[Mapping[str, str], ...] = ()
    """the distinct environments that it (first) and all artifacts behind it were made in"""


@dataclass(frozen=True)
class Entry:
    """What ``cache ls`` shows of an artifact."""

    key: str
    stage: str
    bytes: int
    used: float
    """time of last use, seconds since the epoch"""
    path: Path


class _Damaged(Exception):
    """An artifact is there but can't be what was written."""


Content = tuple[Mapping[str, Tensor], Mapping[str, Any]]


def artifact_key(stage: str, version: int, inputs: Mapping[str, Any]) -> str:
    """sha256 over the canonical JSON of what makes an artifact."""
    text = json.dumps(
        {"format": _FORMAT, "stage": stage, "version": version, "inputs": inputs},
        sort_keys=True,
        allow_nan=False,
    )
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """A folder of artifacts. What this object makes is marked with ``environment``: Python, versions, processor, ..."""

    def __init__(self, root: Path, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        self.root = root
        self.environment = dict(environment)
        self._builds = _Builds()
        try:
            (root / "objects").mkdir(parents=True, exist_ok=True)
            (root / "locks").mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(f"can't use {str(root)!r} as cache: {error.strerror}: give another with --cache") from None

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
        ``build`` takes from this store.
        """
        key = artifact_key(stage, version, inputs)
        artifact = self._load_or_warn(key)
        if artifact is None:
            with FileLock(self.root / "locks" / f"{key}.lock"):
                with contextlib.suppress(_Damaged):  # said already
                    artifact = self._load(key)  # another run may have made it while this one waited
                if artifact is None:
                    with self._builds.running() as used:
                        tensors, record = build()
                    behind = [one for parent in parents for one in parent.environments]
                    environments = _distinct([self.environment, *behind, *used])
                    artifact = Artifact(key, dict(tensors), json.loads(json.dumps(record)), environments)
                    self._write(stage, version, inputs, artifact)
        self._builds.uses(artifact)
        return artifact

    def read(self, key: str) -> Artifact | None:
        """The artifact, or None where it is not there or damaged; the latter with a warning."""
        artifact = self._load_or_warn(key)
        if artifact is not None:
            self._builds.uses(artifact)
        return artifact

    def _load_or_warn(self, key: str) -> Artifact | None:
        try:
            return self._load(key)
        except _Damaged as error:
            log.warning("damaged artifact %s (%s): it is built again", key[:12], error)
            return None

    def _load(self, key: str) -> Artifact | None:
        folder = self._folder(key)
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            parts = {name: (folder / name).read_bytes() for name in ("tensors.safetensors", "record.json")}
            for name, content in parts.items():
                if hashlib.sha256(content).hexdigest() != manifest["sha256"][name]:
                    raise _Damaged(f"{name} was altered")
            artifact = Artifact(
                key,
                load_tensors(parts["tensors.safetensors"]),
                json.loads(parts["record.json"]),
                tuple(manifest["environments"]),
            )
        except FileNotFoundError as error:
            if not folder.exists():
                return None
            raise _Damaged(f"{Path(error.filename).name} is missing") from None
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise _Damaged(str(error)) from None
        except OSError as error:
            raise StoreError(f"can't read the cache at {str(folder)!r}: {error.strerror}") from None
        with contextlib.suppress(OSError):  # a cache that may only be read is still good for reading
            os.utime(folder / "manifest.json")
        return artifact

    def _write(self, stage: str, version: int, inputs: Mapping[str, Any], artifact: Artifact) -> None:
        folder = self._folder(artifact.key)
        parts = {
            "tensors.safetensors": dump_tensors(
                {k: v.detach().cpu().contiguous().clone() for k, v in artifact.tensors.items()}
            ),
            "record.json": _json(artifact.record),
        }
        manifest = {
            "format": _FORMAT,
            "stage": stage,
            "version": version,
            "inputs": inputs,
            "made_by": self.environment,
            "environments": artifact.environments,
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()},
        }
        temporary: Path | None = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".making-{artifact.key}-", dir=folder.parent))
            for name, content in {**parts, "manifest.json": _json(manifest)}.items():
                write_synced(temporary / name, content)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        except OSError as error:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
            raise StoreError(f"can't write to the cache at {str(self.root)!r}: {error.strerror}") from None

    def _folder(self, key: str) -> Path:
        return self.root / "objects" / key[:2] / key

    # --- housekeeping --------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """All artifacts, in no order."""
        for folder in (self.root / "objects").glob("??/*"):
            manifest = folder / "manifest.json"
            try:
                stage = "(unfinished)" if folder.name.startswith(".") else json.loads(manifest.read_bytes())["stage"]
                used = (manifest if manifest.exists() else folder).stat().st_mtime
                size = sum(file.stat().st_size for file in folder.iterdir())
            except (OSError, ValueError, KeyError, TypeError):
                stage, used, size = "(damaged)", 0.0, sum(f.stat().st_size for f in folder.glob("*"))
            yield Entry(folder.name, str(stage), size, used, folder)

    def prune(self, older_than_days: float) -> tuple[int, int]:
        """Remove what was not used for so many days; (artifacts, bytes) removed. 0 removes everything."""
        limit = time.time() - older_than_days * 86400
        count = size = 0
        for entry in list(self.entries()):
            if entry.used > limit:
                continue
            # whoever is building or reading it holds the lock: leave it alone
            key = entry.key.removeprefix(".making-").partition("-")[0]
            lock = FileLock(self.root / "locks" / f"{key}.lock", timeout=0)
            try:
                with lock:
                    shutil.rmtree(entry.path)
            except (TimeoutError, OSError):
                continue
            count, size = count + 1, size + entry.bytes
        for path in (self.root / "locks").glob("*.lock"):
            if path.stat().st_mtime > limit:
                continue
            # removed while it is held: whoever opened it meanwhile sees that it is gone and takes a new one
            with contextlib.suppress(TimeoutError, OSError), FileLock(path, timeout=0):
                path.unlink()
        return count, size


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


def _distinct(environments: Iterable[Mapping[str, str]]) -> tuple[Mapping[str, str], ...]:
    distinct: list[Mapping[str, str]] = []
    for one in environments:
        if one not in distinct:
            distinct.append(one)
    return tuple(distinct)


def _json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, indent=1, sort_keys=True).encode()


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and have it on the disk before returning."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
