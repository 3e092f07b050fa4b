"""States of stages that are being computed, in a folder beside the artifact that is to be.

A state is one safetensors file, written under a temporary name, synced and renamed. What is damaged, or was written
for another computation or in another environment, counts as nothing: the computation starts over. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from leakbench.contracts import Checkpoint, State
from leakbench.runtime.store import write_synced
from leakbench.runtime.untrusted_files import Damaged, open_folder, read_file

log = logging.getLogger("leakbench")

EVERY = 60.0
"""seconds between two states that are written: what an interruption costs at most"""
_LIMIT = 2**34  # bytes of a file


class CheckpointFolder:
    """The checkpoints of one stage. Whoever owns the folder removes it when the artifact is complete.

    States of computations that are done wait in memory until the next one is written, so that a stage of many short
    computations writes no more often than one long one.
    """

    def __init__(self, path: Path, environment: Mapping[str, str], every: float | None = None) -> None:
        """``path`` is a folder on the artifact's file system; ``environment`` says what numbers depend on.

        At most one state in ``every`` seconds is written (EVERY, if not given), whatever number of computations there
        are.
        """
        self._path, self._environment, self._every = path, dict(environment), EVERY if every is None else every
        self._written = time.monotonic()
        self._waiting: dict[str, dict[str, Tensor]] = {}

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint of this name: what ``Context.checkpoints`` takes."""
        return _FileCheckpoint(self, name)

    def load(self, name: str) -> dict[str, Tensor] | None:
        try:
            with open_folder(self._path) as folder:
                return self._decoded(name, read_file(folder, self._file(name).name, _LIMIT))
        except (OSError, Damaged):
            return None

    def save(self, name: str, state: Callable[[], State], last: bool) -> None:
        due = time.monotonic() - self._written >= self._every
        if last or due:
            self._waiting[name] = {key: _copied(tensor) for key, tensor in state().items()}
        if due:
            self._write()

    def _write(self) -> None:
        try:
            for name, tensors in self._waiting.items():
                path = self._file(name)
                part = path.with_name(f".{path.stem}-{secrets.token_hex(8)}.part")
                try:
                    write_synced(part, self._encoded(name, tensors))
                    part.replace(path)
                finally:
                    with contextlib.suppress(OSError):
                        part.unlink(missing_ok=True)
        except OSError as error:  # a full disk costs the chance to go on later, and not the run
            log.warning("the state of a stage can't be kept at %r: %s", str(self._path), error.strerror)
        self._waiting.clear()
        self._written = time.monotonic()

    def _file(self, name: str) -> Path:
        return self._path / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"

    def _encoded(self, name: str, tensors: Mapping[str, Tensor]) -> bytes:
        # sums go along with the layout in memory, which the format itself does not keep
        strides = {key: list(tensor.stride()) for key, tensor in tensors.items()}
        packed = {key: tensor.contiguous() for key, tensor in tensors.items()}
        metadata = {
            "name": name,
            "environment": json.dumps(self._environment, sort_keys=True),
            "strides": json.dumps(strides, sort_keys=True),
        }
        return dump_tensors(packed, metadata | {"sha256": _digest(metadata, packed)})

    def _decoded(self, name: str, content: bytes) -> dict[str, Tensor]:
        """Raises Damaged where the content is no state of this name and environment."""
        try:
            packed = load_tensors(content)
            length = int.from_bytes(content[:8], "little")
            metadata: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
            digest = metadata.pop("sha256")
            if digest != _digest(metadata, packed) or metadata["name"] != name:
                raise Damaged("it is another state")
            if metadata["environment"] != json.dumps(self._environment, sort_keys=True):
                raise Damaged("it was written in another environment")
            strides = json.loads(metadata["strides"])
            return {key: _laid_out(tensor, strides[key]) for key, tensor in packed.items()}
        except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, RecursionError):
            raise Damaged("it holds no state") from None


class _FileCheckpoint(Checkpoint):
    def __init__(self, folder: CheckpointFolder, name: str) -> None:
        self._folder, self._name = folder, name

    def load(self) -> dict[str, Tensor] | None:
        return self._folder.load(self._name)

    def save(self, state: Callable[[], State], last: bool = False) -> None:
        self._folder.save(self._name, state, last)


def _copied(tensor: Tensor) -> Tensor:
    """A copy on the CPU in the same layout, dense."""
    source = tensor.detach()
    copy = torch.empty_like(source, device="cpu", memory_format=torch.preserve_format)
    return copy.copy_(source)


def _laid_out(tensor: Tensor, strides: list[int]) -> Tensor:
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
