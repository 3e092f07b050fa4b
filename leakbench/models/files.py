"""Networks in files of their own: safetensors, whose metadata says how the network is built and simulated.

    metadata["leakbench"] = {"format": 1, "network": the record of leakbench.models.storage.save_network}

Tensors are the network's parameters and buffers by name, as in ``body.n1.weight`` of a graph's first node
(:mod:`leakbench.models.graph`) or ``body.n2.threshold`` of its neurons. No code is in such a file, and none is run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from leakbench import registry
from leakbench.contracts import ImageClassifier
from leakbench.errors import LeakBenchError, UsageError, printable
from leakbench.models.catalogue import Architecture
from leakbench.models.storage import save_network
from leakbench.models.untrusted import NetworkRecord, NoNetwork, network_of
from leakbench.snn import SpikingNetwork

FORMAT = 1
_KEY = "leakbench"
_LARGEST = 1 << 32
"""bytes of a file"""


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: int
    network: NetworkRecord


def network_bytes(network: SpikingNetwork | ImageClassifier) -> bytes:
    """A network as such a file. UsageError for one that a third party's code builds: the file would not say how."""
    if not registry.is_built_in("model", Architecture.parse(network.arch).model):
        raise UsageError(f"a network of {network.arch!r} is built by a third party's code, which no file holds")
    tensors, record = save_network(network)
    metadata = {_KEY: json.dumps({"format": FORMAT, "network": record}, sort_keys=True, allow_nan=False)}
    return save({name: tensor.clone() for name, tensor in sorted(tensors.items())}, metadata)


def read_network(path: Path, what: str) -> SpikingNetwork | ImageClassifier:
    """The network of a file, in eval mode. UsageError, one line that begins with ``what``, where it holds none."""
    where = f"{what} {str(path)!r}"
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{where} is larger than {_LARGEST} bytes")
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise UsageError(f"{what}: no such file {str(path)!r}") from None
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{where} is no readable safetensors file: {error}") from None
    if text is None:
        raise UsageError(f'{where} does not say what network it holds: its metadata has no "{_KEY}"')
    try:
        said = _Said.model_validate_json(text)
    except (ValidationError, RecursionError) as error:
        why = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "nested too deeply"}
        place = ".".join(str(part) for part in why["loc"])
        raise UsageError(f"{where} says nothing that is a network: {place}: {why['msg']}") from None
    if said.format != FORMAT:
        raise UsageError(f"{where} is of format {said.format}, and this LeakBench reads format {FORMAT}")
    model = Architecture.parse(said.network.arch).model
    if not registry.is_built_in("model", model):  # loading one would run code that nobody named
        raise UsageError(f"{where} holds a network of the model {printable(model)[:100]!r}, which is not built in")
    try:
        network = network_of(said.network, tensors, torch.device("cpu"))
    except NoNetwork as error:
        raise UsageError(f"{where} holds no network: {error}") from None
    except LeakBenchError as error:
        raise UsageError(f"{where} holds no network: {error}") from None
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UsageError(f"{where} holds NaN or infinity in {name.removeprefix('body.')!r}")
    return network


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
