"""NIR files without NIR: the layout that `nir.write` gives them, by h5py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_nir(path: Path, nodes: Mapping[str, Mapping[str, Any]], edges: Sequence[tuple[str, str]]) -> Path:
    """``nodes``: name -> its type and fields. Numbers are float64, as exporters write them."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("version", data="1.0.8", dtype=h5py.string_dtype())
        root = file.create_group("node")
        root.create_dataset("type", data="NIRGraph", dtype=h5py.string_dtype())
        group = root.create_group("nodes")
        for name, fields in nodes.items():
            node = group.create_group(name)
            for field, value in fields.items():
                if isinstance(value, str):
                    node.create_dataset(field, data=value, dtype=h5py.string_dtype())
                else:
                    node.create_dataset(field, data=np.asarray(value))
        root.create_dataset("edges", data=np.array(edges, dtype=object), dtype=h5py.string_dtype())
    return path


def chain(path: Path, *parts: tuple[str, Mapping[str, Any]], shape: Sequence[int] = (1, 8, 8)) -> Path:
    """A file whose nodes follow one another, named by their numbers, between "input" and "output"."""
    nodes: dict[str, Mapping[str, Any]] = {"input": {"type": "Input", "shape": np.array(shape)}}
    nodes |= {str(number): {"type": kind, **fields} for number, (kind, fields) in enumerate(parts)}
    nodes["output"] = {"type": "Output", "shape": np.array([10])}
    return write_nir(path, nodes, list(zip(nodes, [*nodes][1:], strict=False)))


def conv(out: int, into: int, side: int = 3, seed: int = 0, **fields: Any) -> tuple[str, dict[str, Any]]:
    random = np.random.RandomState(seed)
    usual = {"stride": [1, 1], "padding": [side // 2, side // 2], "dilation": [1, 1], "groups": 1}
    weights = {"weight": _numbers(random, out, into, side, side), "bias": _numbers(random, out)}
    return "Conv2d", {**{name: np.array(value) for name, value in usual.items()}, **weights, **fields}


def linear(out: int, into: int, seed: int = 0) -> tuple[str, dict[str, Any]]:
    return "Linear", {"weight": _numbers(np.random.RandomState(seed), out, into) / 4}


def _numbers(random: np.random.RandomState, *shape: int) -> Any:
    """float64 that float32 can hold, as trained weights are."""
    return random.randn(*shape).astype(np.float32).astype(np.float64)


def lif(shape: Sequence[int], tau: float = 8e-4, r: float = 1.0, **fields: Any) -> tuple[str, dict[str, Any]]:
    full = {"tau": tau, "r": r, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0, **fields}
    return "LIF", {name: np.full(shape, value) for name, value in full.items()}


FLATTEN = ("Flatten", {"start_dim": np.array(0), "end_dim": np.array(-1), "input_type": "x"})
POOL = ("AvgPool2d", {"kernel_size": np.array([2, 2]), "stride": np.array([2, 2]), "padding": np.array([0, 0])})
