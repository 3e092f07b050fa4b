"""Networks in files of their own: safetensors, whose metadata says how the network is built and simulated.

    metadata["leakbench"] = {"format": 1, "network": the record of leakbench.models.storage.save_network}

Tensors are the network's parameters and buffers by name, as in ``body.n1.weight`` of a graph's first node
(:mod:`leakbench.models.graph`) or ``body.n2.threshold`` of its neurons. No code is in such a file, and none is run.

Weights may be whole numbers: ``body.n1.weight`` of int8 with ``body.n1.weight_scale`` beside it, float32, [] or [OUT],
which it is a multiple of (:mod:`leakbench.snn.quantization`), and ``body.n1.bias`` of int32 with its own. They are read
as the float32 that they stand for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from leakbench import registry
from leakbench.contracts import ImageClassifier
from leakbench.errors import LeakBenchError, UsageError, printable
from leakbench.models.catalogue import Architecture
from leakbench.models.storage import save_network
from leakbench.models.untrusted import NetworkRecord, NoNetwork, network_of
from leakbench.snn import SpikingNetwork
from leakbench.snn.quantization import integers_of, product, weight_layers

FORMAT = 1
_KEY = "leakbench"
_LARGEST = 1 << 32
"""bytes of a file, and of what it is read as"""
_WHOLE = {".weight": torch.int8, ".bias": torch.int32}
"""how a tensor's name ends -> its type, where it is whole numbers with a scale beside it"""
_SCALE = "_scale"


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: int
    network: NetworkRecord


def network_bytes(network: SpikingNetwork | ImageClassifier) -> bytes:
    """A network as such a file, with int8 weights where its convolutions and linear layers all are int8 times a scale.

    UsageError for one that a third party's code builds: the file would not say how.
    """
    if not registry.is_built_in("model", Architecture.parse(network.arch).model):
        raise UsageError(f"a network of {network.arch!r} is built by a third party's code, which no file holds")
    tensors, record = save_network(network)
    tensors |= _integers(network, tensors)
    metadata = {_KEY: json.dumps({"format": FORMAT, "network": record}, sort_keys=True, allow_nan=False)}
    return save({name: tensor.clone() for name, tensor in sorted(tensors.items())}, metadata)


def _integers(network: SpikingNetwork | ImageClassifier, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """int8 weights and their scales by name; nothing where one of the weights is anything else."""
    found: dict[str, Tensor] = {}
    for layer in weight_layers(network):
        name = f"body.{layer}.weight"
        form = integers_of(tensors[name]) if name in tensors else None
        if form is None:
            return {}
        found |= {name: form[0], f"{name}{_SCALE}": form[1]}
    return found


def _dequantized(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors, with float32 in place of whole numbers and their scales. UsageError for a scale that is none."""
    whole = {
        name: tensor
        for name, tensor in tensors.items()
        if any(name.endswith(ending) and tensor.dtype == kind for ending, kind in _WHOLE.items())
    }
    if 4 * sum(tensor.numel() for tensor in whole.values()) > _LARGEST:
        raise UsageError(f"{where}: its weights would take more than {_LARGEST} bytes")
    read = {name: tensor for name, tensor in tensors.items() if name.removesuffix(_SCALE) not in whole}
    for name, tensor in whole.items():
        kind, shown = str(tensor.dtype).removeprefix("torch."), printable(name.removeprefix("body."))[:100]
        right = f"float32, [] or [{tensor.shape[0]}]" if tensor.dim() else "float32, []"
        scale = tensors.get(f"{name}{_SCALE}")
        if scale is None:
            raise UsageError(f"{where}: {shown!r} holds {kind} and lacks {shown + _SCALE!r} beside it: {right}")
        if scale.dtype != torch.float32 or list(scale.shape) not in ([], list(tensor.shape[:1])):
            given = f"{str(scale.dtype).removeprefix('torch.')} {list(scale.shape)}"
            raise UsageError(f"{where}: {shown + _SCALE!r} is {given} and must be {right}")
        if not (torch.isfinite(scale) & (scale > 0)).all():
            raise UsageError(f"{where}: {shown + _SCALE!r} holds a number that is not finite and above 0")
        read[name] = product(tensor, scale)
    return read


def read_network(path: Path, what: str) -> SpikingNetwork | ImageClassifier:
    """The network of a file, in eval mode. UsageError, one line that begins with ``what``, where it holds none."""
    where = f"{what} {str(path)!r}"
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{where} is larger than {_LARGEST} bytes")
        with path.open("rb"):  # safetensors says of one that may not be read that it is not there
            pass
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise UsageError(f"{what}: no such file {str(path)!r}") from None
    except IsADirectoryError:
        raise UsageError(f"{where} is a folder: give the network's file") from None
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{where} is no readable safetensors file: {error}") from None
    if text is None:
        instead = "give one that leakbench export --snn wrote, or FILE.py:FUNCTION that builds and fills it"
        raise UsageError(f'{where} holds weights and no network, its metadata has no "{_KEY}": {instead}')
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
    tensors = _dequantized(tensors, where)
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
