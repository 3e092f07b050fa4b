"""Artifacts and their files.

An artifact is a folder with ``tensors.safetensors``, ``record.json`` and ``manifest.json`` (what made it, and size and
sha256 of the other two). When it is read, the files must fit the manifest, and the manifest the key. Nothing is ever
pickled.

In the key: stage name and version, parameters, parents' keys, seed. Left out: device, paths, worker counts, times, and
the environment (versions, processor, ...). The latter is kept beside the artifact, with those of all that it was made
from, so that a result can say which machines and versions had a hand in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from leakbench.errors import StoreError
from leakbench.runtime.untrusted_files import Damaged, parse_object, read_file

_FORMAT = 2
_PARTS = ("tensors.safetensors", "record.json")
_MANIFEST_LIMIT = 2**24  # bytes; some KB are usual


@dataclass(frozen=True)
class Artifact:
    """What is kept: tensors and a JSON record, under a key."""

    key: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    environments: tuple[Mapping[str, str], ...] = ()
    """the distinct environments that it (first) and all artifacts behind it were made in"""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """what it was made from, as its key says"""


class ArtifactRecord(BaseModel):
    """Base of what stages keep in their artifacts' records. Another layout needs another version of the stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, artifact: Artifact) -> Self:
        """The artifact's record. StoreError, which names the field, where it is laid out in another way."""
        try:
            return cls.model_validate(artifact.record)
        except ValidationError as error:
            first = error.errors()[0]
            field_name = ".".join(map(str, first["loc"]))
            reason = f"{field_name}: {first['msg']}"
            raise StoreError(f"the record of artifact {artifact.key[:12]} is no {cls.__name__}: {reason}") from None


class _Manifest(BaseModel):
    """``manifest.json``: what made an artifact, where, and what its other files must be."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: int
    stage: str
    version: int
    inputs: dict[str, Any]
    made_by: dict[str, str]
    """its own environment"""
    environments: list[dict[str, str]]
    """its own and those of all artifacts behind it"""
    sizes: dict[str, int]
    """of the other files, bytes"""
    sha256: dict[str, str]
    """of the other files"""


Content = tuple[Mapping[str, Tensor], Mapping[str, Any]]


def artifact_key(stage: str, version: int, inputs: Mapping[str, Any]) -> str:
    """sha256 over the canonical JSON of what makes an artifact: the same before and after it went through a file."""
    value = {"format": _FORMAT, "stage": stage, "version": version, "inputs": inputs}
    as_read = json.loads(json.dumps(value, allow_nan=False))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def encode(
    stage: str,
    version: int,
    inputs: Mapping[str, Any],
    content: Content,
    environments: Sequence[Mapping[str, str]],
) -> tuple[Artifact, dict[str, bytes]]:
    """The artifact as it will be read (its order, its memory layout), and its files by name.

    ``environments`` starts with the one that it was made in.
    """
    tensors, record = content
    parts = {
        "tensors.safetensors": dump_tensors(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        ),
        "record.json": _json(record),
    }
    manifest = _Manifest(
        format=_FORMAT,
        stage=stage,
        version=version,
        inputs=json.loads(json.dumps(inputs)),
        made_by=dict(environments[0]),
        environments=[dict(one) for one in environments],
        sizes={name: len(part) for name, part in parts.items()},
        sha256={name: hashlib.sha256(part).hexdigest() for name, part in parts.items()},
    )
    key = artifact_key(stage, version, inputs)
    artifact = Artifact(key, *_decoded(parts), tuple(manifest.environments), manifest.inputs)
    return artifact, {**parts, "manifest.json": _json(manifest.model_dump())}


def read_artifact(folder: int, key: str) -> tuple[Artifact, dict[str, bytes]]:
    """The artifact in an open folder, which counts as used from now on, and its files as they are.

    Raises Damaged where it isn't the one of this key, bit for bit, and OSError where it may not be read.
    """
    try:
        content = read_file(folder, "manifest.json", _MANIFEST_LIMIT)
        manifest = _Manifest.model_validate(parse_object(content, "manifest.json"))
        its_key = artifact_key(manifest.stage, manifest.version, manifest.inputs)
    except (ValueError, TypeError, RecursionError):
        raise Damaged("manifest.json is no manifest") from None
    if manifest.format != _FORMAT or its_key != key:
        raise Damaged("it is another artifact")
    if manifest.environments[:1] != [manifest.made_by]:
        raise Damaged("manifest.json tells of other environments than its own")
    parts = {}
    for name in _PARTS:
        parts[name] = read_file(folder, name, manifest.sizes.get(name, 0))
        if hashlib.sha256(parts[name]).hexdigest() != manifest.sha256.get(name):
            raise Damaged(f"{name} was altered")
    artifact = Artifact(key, *_decoded(parts), tuple(manifest.environments), manifest.inputs)
    with contextlib.suppress(OSError):  # a cache that may only be read is still good for reading
        os.utime("manifest.json", dir_fd=folder, follow_symlinks=False)
    return artifact, {**parts, "manifest.json": content}


def read_stage(folder: int) -> str:
    """The stage that made the artifact in an open folder, of any version. Raises Damaged and OSError."""
    content = read_file(folder, "manifest.json", _MANIFEST_LIMIT)
    stage = parse_object(content, "manifest.json").get("stage")
    if not isinstance(stage, str):
        raise Damaged("manifest.json names no stage")
    return stage


def _decoded(parts: Mapping[str, bytes]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = load_tensors(parts["tensors.safetensors"])
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError):
        raise Damaged("tensors.safetensors holds no tensors") from None
    # safetensors returns them in another order each time
    return dict(sorted(tensors.items())), parse_object(parts["record.json"], "record.json")


def _json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, indent=1, sort_keys=True).encode()
