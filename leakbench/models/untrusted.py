"""Networks that others describe: built after everything in them was looked at, by no code of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue
from torch import Tensor

from leakbench.contracts import ImageClassifier, Precision
from leakbench.errors import LeakBenchError
from leakbench.models.catalogue import Architecture
from leakbench.models.storage import load_network
from leakbench.snn import SpikingNetwork

MOST_STEPS = 100_000
"""of a network's simulation, and the largest whole number among its settings"""
_LONGEST_TEXT = 100_000


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("characters that can't be printed")
    return text


class NetworkRecord(BaseModel):
    """What :func:`~leakbench.models.storage.save_network` says of a network, as somebody else wrote it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    arch: Annotated[str, Field(min_length=1, max_length=_LONGEST_TEXT), AfterValidator(_printable)]
    image_shape: Annotated[list[Annotated[int, Field(ge=1, le=1 << 16)]], Field(min_length=3, max_length=3)]
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
        return load_network(tensors, record.model_dump(), device)
    except LeakBenchError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise NoNetwork(f"it can't be built ({type(error).__name__})") from None


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
