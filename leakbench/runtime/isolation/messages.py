"""What goes over the pipes to and from a plugin's process: JSON and safetensors, each of a size that is told first.

Nothing is pickled. Who reads trusts nothing: whatever is no message in this form is :class:`Broken`.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

HEADER = struct.Struct("<QQ")
"""bytes of the JSON, bytes of the tensors"""
MOST_JSON = 1 << 24
MOST_TENSORS = 1 << 30
"""bytes: of the largest state of an attack that is to go on after an interruption, with room to spare"""
DESCRIBE, COMPUTE = b"describe", b"compute"
"""what the warm process is asked for a copy to do"""
_LAYOUTS = "layouts"
_DEEPEST = 50
"""objects and arrays within each other"""
_LARGEST = 1 << 64
"""whole number, as seeds are"""


class Broken(Exception):
    """What came over a pipe is no message; the text says in a few words why."""


class Message(NamedTuple):
    """A message: ``head["type"]`` says what it is."""

    head: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def type(self) -> str:
        return str(self.head.get("type"))


def encode(head: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> bytes:
    """A message's bytes. Tensors go along with their layout in memory: sums are taken in its order."""
    packed: dict[str, Tensor] = {}
    layouts: dict[str, list[int]] = {}
    for name, tensor in (tensors or {}).items():
        dense = tensor.detach().to("cpu")
        if dense.stride() != _plain_strides(dense.shape):  # is_contiguous() overlooks dimensions of size 1
            dense = torch.empty_like(dense, memory_format=torch.preserve_format).copy_(dense)
            layouts[name] = list(dense.stride())
        packed[name] = dense.contiguous().clone()  # none shares memory with another
    text = json.dumps({**head, _LAYOUTS: layouts} if layouts else dict(head), allow_nan=False).encode()
    body = dump_tensors(packed) if packed else b""
    return HEADER.pack(len(text), len(body)) + text + body


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def check_sizes(text: int, body: int) -> None:
    """Broken where a plugin's message of these sizes is too large. What plugins are sent, as public photographs, may be
    of any size."""
    if text > MOST_JSON or body > MOST_TENSORS:
        raise Broken(f"a message of {text + body} bytes is too large: {MOST_TENSORS} at most")


def decode(text: bytes, body: bytes) -> Message:
    """The message of these bytes, or Broken."""
    try:
        head = json.loads(text, parse_constant=_no_number)
        if not isinstance(head, dict):
            raise Broken("a message is no JSON object")
        _check_plain(head)
        layouts = head.pop(_LAYOUTS, {})
        tensors = load_tensors(body) if body else {}
        for name, strides in layouts.items():
            tensors[name] = _laid_out(tensors[name], strides)
    except (ValueError, RecursionError, SafetensorError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise Broken(f"what it sent is no message ({type(error).__name__})") from None
    return Message(head, tensors)


def _plain_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(max(1, size) for size in shape[dim + 1 :]) for dim in range(len(shape)))


def _no_number(text: str) -> float:
    raise ValueError(text)


def _check_plain(head: Any) -> None:
    """ValueError where some JSON is what others could not write again: too deep, not finite, no Unicode, too large."""
    level = [head]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += [*one, *one.values()]
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str):
                one.encode()
            elif isinstance(one, float) and not math.isfinite(one):
                raise ValueError("infinite")
            elif isinstance(one, int) and abs(one) >= _LARGEST:
                raise ValueError("large")
        level = below
        if not level:
            return
    raise ValueError("depth")


def _laid_out(tensor: Tensor, strides: Any) -> Tensor:
    """The tensor in another dense layout; ValueError for strides of none."""
    if not (isinstance(strides, list) and len(strides) == tensor.dim() and all(type(one) is int for one in strides)):
        raise ValueError("strides")
    order = sorted(range(tensor.dim()), key=lambda dim: (-strides[dim], -tensor.shape[dim]))
    below = 1
    for dim in reversed(order):
        if tensor.shape[dim] > 1 and strides[dim] != below:
            raise ValueError("strides")
        below *= tensor.shape[dim]
    if any(one < 0 or one > max(1, math.prod(tensor.shape)) for one in strides):
        raise ValueError("strides")
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)
