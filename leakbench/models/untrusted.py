"""Networks that others describe: built after everything in them was looked at, by no code of theirs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue
from torch import Tensor

from leakbench import registry
from leakbench.contracts import ImageClassifier, InputRange, Precision
from leakbench.errors import LeakBenchError
from leakbench.models.catalogue import Architecture
from leakbench.models.storage import build_ann, load_network
from leakbench.snn import SpikingNetwork
from leakbench.snn.general import FIRES

MOST_STEPS = 100_000
"""of a network's simulation, and the largest whole number among its settings"""
_LONGEST_TEXT = 100_000
_MOST_PIXELS = 1 << 18
"""values of an image: 295x295 in colour, 512x512 in grey"""
_FEW_WEIGHTS = 1 << 20
"""a network that is built before they are compared with those that are there: 4 MiB"""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("characters that can't be printed")
    return text


def _of_reasonable_size(shape: list[int]) -> list[int]:
    # a built-in model's first linear layer grows with the image, before any weight can be compared
    if math.prod(shape) > _MOST_PIXELS:
        raise ValueError(f"images of more than {_MOST_PIXELS:,} values")
    return shape


class NetworkRecord(BaseModel):
    """What :func:`~leakbench.models.storage.save_network` says of a network, as somebody else wrote it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    arch: Annotated[str, Field(min_length=1, max_length=_LONGEST_TEXT), AfterValidator(_printable)]
    image_shape: Annotated[
        list[Annotated[int, Field(ge=1, le=1 << 16)]],
        Field(min_length=3, max_length=3),
        AfterValidator(_of_reasonable_size),
    ]
    classes: Annotated[int, Field(ge=2, le=1 << 20)]
    input_range: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=2, max_length=2)]
    precision: Precision = "float32"
    spiking: dict[str, JsonValue] | None = None


class NoNetwork(Exception):
    """What somebody said is no network; the text says in a few words why."""


def network_of(
    record: NetworkRecord, tensors: Mapping[str, Tensor], device: torch.device
) -> SpikingNetwork | ImageClassifier:
    """The network. NoNetwork, or an error of LeakBench's, where it is none or can't be built here."""
    _check_settings(record.spiking)
    rewrites = Architecture.parse(record.arch).rewrites
    if len(rewrites) > len(set(rewrites)):
        raise NoNetwork("its architecture is rewritten twice")
    try:
        _check_size(record, tensors)
        network = load_network(tensors, record.model_dump(), device)
        if isinstance(network, SpikingNetwork):
            _check_neurons(network, device)
        return network
    except LeakBenchError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise NoNetwork(f"it can't be built ({type(error).__name__})") from None


def _check_size(record: NetworkRecord, tensors: Mapping[str, Tensor]) -> None:
    """NoNetwork where a built-in model would have far more weights than are there: a few bytes would fill the memory.

    Of anything smaller, a tensor of another shape is told by its name.
    """
    if not registry.is_built_in("model", Architecture.parse(record.arch).model):
        return
    channels, height, width = record.image_shape
    with torch.device("meta"):
        ann = build_ann(record.arch, (channels, height, width), record.classes, InputRange(*record.input_range))
    # biases and batch norms may be folded away; the weights of layers are there in any case
    wanted = sum(weight.numel() for weight in ann.parameters() if weight.dim() > 1)
    given = sum(tensor.numel() for tensor in tensors.values())
    if wanted > max(2 * given, _FEW_WEIGHTS):
        raise NoNetwork(f"its architecture has {wanted:,} weights, and {given:,} numbers are there")


@torch.no_grad()
def _check_neurons(network: SpikingNetwork, device: torch.device) -> None:
    """NoNetwork where neurons have constants that none has; any error where these are of shapes that don't fit."""
    allowed: dict[str, Callable[[Tensor], Tensor]] = {
        "threshold": lambda x: x > 0,
        "leak": lambda x: (x >= 0) & (x <= 1),
        "synapse": lambda x: (x >= 0) & (x <= 1),
        "worth": lambda x: (x != 0) & x.isfinite(),
        "subtracts": lambda x: ((x == 0) | (x == 1)).reshape(1),  # one of a layer
        "fires": lambda x: ((x >= 0) & (x < len(FIRES))).reshape(1),
    }
    for layer in network.neurons:
        for name, constant in layer.named_buffers():
            if name in allowed and not allowed[name](constant).all():
                raise NoNetwork(f"the neurons {layer.layer!r} have a {name} that none has")
    with contextlib.suppress(LeakBenchError):  # which is said when it is used
        images = torch.zeros(1, *network.image_shape, device=device)
        network.configured(replace(network.config, timesteps=1)).simulate(images, seed=0)


def _check_settings(value: Any) -> None:
    """NoNetwork where one of a network's settings is beyond all reason: it would keep a machine busy for weeks."""
    if isinstance(value, Mapping):
        for one in value.values():
            _check_settings(one)
    elif isinstance(value, list):
        for one in value:
            _check_settings(one)
    elif isinstance(value, int) and abs(value) > MOST_STEPS:
        raise NoNetwork(f"one of its settings is {value}")
