"""Writing networks as NIR 1.0 files, with the settings beside them that NIR can't hold.

Spikes of LeakBench's own neurons are worth their threshold: a Scale node behind them says so. Layout and names of
fields are those of ``nir.write`` (nir 1.0.8), types of all arrays float64 or int64.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from leakbench.errors import NotApplicable, UsageError
from leakbench.foreign.assemble import IMAGE
from leakbench.foreign.hdf5 import need_h5py
from leakbench.foreign.layers import layer_of
from leakbench.foreign.modules import Place, Walk
from leakbench.models.graph import Node
from leakbench.snn import LIF, Neuron, SpikingNetwork
from leakbench.snn.blocks import Affine, SumPool
from leakbench.snn.general import FIRES, General, GeneralNeuron
from leakbench.snn.neurons import TimeFixedDropout

VERSION = "1.0.8"
"""of nir, whose layout it is"""
DT = 1e-4
"""seconds a step, as most exporters have it"""

Fields = dict[str, Any]


def nir_and_settings(network: SpikingNetwork) -> tuple[bytes, str]:
    """A file's bytes and the JSON beside it. NotApplicable, one line, names what neither can say."""
    need_h5py()
    import h5py

    if type(network.config.neuron) not in (Neuron, GeneralNeuron):
        raise NotApplicable(f"NIR has no {network.config.neuron.model} neurons")
    nodes, edges, layers = _nodes(network)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        text = h5py.string_dtype()
        file.create_dataset("version", data=VERSION, dtype=text)
        root = file.create_group("node")
        root.create_dataset("type", data="NIRGraph", dtype=text)
        group = root.create_group("nodes")
        for name, fields in nodes.items():
            node = group.create_group(name)
            for field, value in fields.items():
                if isinstance(value, str):
                    node.create_dataset(field, data=value, dtype=text)
                else:
                    node.create_dataset(field, data=value)
        root.create_dataset("edges", data=np.array(edges, dtype=object), dtype=text)
    return content.getvalue(), json.dumps(_settings(network, layers), indent=1) + "\n"


def _settings(network: SpikingNetwork, layers: Mapping[str, Fields]) -> dict[str, Any]:
    config = network.config
    if config.encoder not in ("poisson", "direct"):
        raise NotApplicable(f"NIR files are read with the encoders poisson and direct, not {config.encoder}")
    if not config.readout.sums:
        raise NotApplicable("a readout other than a sum or a mean over steps is not written")
    over = "mean" if config.readout.over == "mean" else "sum"
    said = {
        "format": 1, "framework": "none", "timesteps": config.timesteps, "dt": DT, "integration": "euler",
        "input": {"encoder": config.encoder, "range": list(network.input_range)},
        "readout": {"over": over, "scale": config.readout.scale},
    }  # fmt: skip
    return {**said, "layers": dict(layers)}


def _nodes(network: SpikingNetwork) -> tuple[dict[str, Fields], list[tuple[str, str]], dict[str, Fields]]:
    """Nodes, edges, and what the settings say of each layer of neurons."""
    walk, shapes = Walk(network.body), _shapes(network)
    nodes: dict[str, Fields] = {"input": {"type": "Input", "shape": np.array(network.image_shape)}}
    edges: list[tuple[str, str]] = []
    layers: dict[str, Fields] = {}
    ends = {IMAGE: ["input"]}
    for place in walk.places:
        sources = [source for one in place.inputs for source in ends[one]]
        made = _made(place, shapes, layers)
        if made is None:  # a sum is several edges into what comes next
            ends[place.name] = sources
            continue
        names = [f"{place.name.replace('.', '_')}{suffix}" for suffix, _ in made]
        edges += [(source, names[0]) for source in sources] + list(itertools.pairwise(names))
        nodes |= {name: fields for name, (_, fields) in zip(names, made, strict=True)}
        ends[place.name] = names[-1:]
    if len(ends[walk.last]) != 1:
        raise NotApplicable("the logits are a sum of branches, which no node of NIR stands for")
    nodes["output"] = {"type": "Output", "shape": np.array([network.classes])}
    return nodes, [*edges, (ends[walk.last][0], "output")], layers


def _made(
    place: Place, shapes: Mapping[str, tuple[int, ...]], layers: dict[str, Fields]
) -> list[tuple[str, Fields]] | None:
    """The nodes that a place becomes, each with what stands behind the place's name; None where it has none."""
    module = place.module
    if module is None:
        if place.function == "cat":
            raise NotApplicable("NIR can't join channels of several nodes")
        return [("", _flatten())] if place.function == "flatten" else None
    if isinstance(module, LIF):
        return _neurons(module, place, shapes[place.name], layers)
    if isinstance(module, TimeFixedDropout):
        return None
    if isinstance(module, SumPool | Affine):
        return [("", _block(module, place.name, shapes[place.name]))]
    try:
        node, tensors = layer_of(module, place.name)
    except UsageError as error:
        raise NotApplicable(f"NIR has no node for it: {error}") from None
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    return _layer(node, arrays, place.name, shapes[place.name])


def _layer(node: Node, arrays: Fields, name: str, shape: tuple[int, ...]) -> list[tuple[str, Fields]] | None:
    """``shape``: of what enters."""
    sides = {"stride": np.array(node.stride), "padding": np.array(node.padding)}
    match node.op:
        case "same":
            return None
        case "conv":
            usual = {"dilation": np.array(node.dilation), "groups": np.array(node.groups)}
            bias = {"bias": arrays.get("bias", np.zeros(node.out))}
            return [("", {"type": "Conv2d", "input_shape": np.array(shape[1:]), **sides, **usual, **arrays, **bias})]
        case "linear":
            return [("", {"type": "Affine" if "bias" in arrays else "Linear", **arrays})]
        case "avgpool" | "sumpool":
            kind = "AvgPool2d" if node.op == "avgpool" else "SumPool2d"
            return [("", {"type": kind, "kernel_size": np.array(node.kernel), **sides})]
        case "mean":
            whole = {"kernel_size": np.array(shape[1:]), "stride": np.array(shape[1:]), "padding": np.array([0, 0])}
            return [("", {"type": "AvgPool2d", **whole})]
        case "flatten":
            return [("", _flatten())]
    raise NotApplicable(f"NIR has no node for the layer {name!r} ({node.op})")


def _block(module: SumPool | Affine, name: str, shape: tuple[int, ...]) -> Fields:
    if isinstance(module, SumPool):
        sides = {"kernel_size": module.kernel_size, "stride": module.stride, "padding": module.padding}
        return {"type": "SumPool2d", **{field: np.array(value) for field, value in sides.items()}}
    if bool((module.shift != 0).any()):
        raise NotApplicable(f"NIR has no node for the layer {name!r}, which adds to spikes")
    return {"type": "Scale", "scale": module.scale.double().expand(shape).numpy().copy()}


def _flatten() -> Fields:
    return {"type": "Flatten", "start_dim": np.array(0), "end_dim": np.array(-1)}


def _neurons(layer: LIF, place: Place, shape: tuple[int, ...], layers: dict[str, Fields]) -> list[tuple[str, Fields]]:
    def full(value: float | Tensor) -> Any:
        return torch.as_tensor(value, dtype=torch.float64).expand(shape).numpy().copy()

    name = place.name.replace(".", "_")
    leak, synapse = torch.as_tensor(layer.leaks()), torch.zeros(())
    weight, rest, floor = torch.ones(()), torch.zeros(()), None
    subtracts, delayed, fires, shift = layer.neuron.reset == "soft", False, "above", 0
    if isinstance(layer, General):
        synapse, weight, rest, fires = layer.synapse, layer.weight, layer.rest, FIRES[int(layer.fires)]
        subtracts = bool(layer.subtracts.bool().all())
        if layer.shift is not None:
            shift = int(layer.shift.flatten()[0])
            if bool((layer.shift != shift).any()):
                raise NotApplicable(f"membranes of {name!r} leak by different shifts")
        floor = float(layer.floor) if float(layer.floor) > torch.finfo(torch.float32).min else None
        if subtracts:
            plain, late = (torch.allclose(layer.taken, theta) for theta in (layer.threshold, layer.threshold / leak))
            delayed = late and not plain
            if not (plain or late):
                raise NotApplicable(f"spikes of {name!r} take away another amount than the threshold")
        if bool((synapse != 0).any()):
            raise NotApplicable(f"the neurons {name!r} have a synapse: not written yet")
    if bool((layer.initial != layer.initial.flatten()[0]).any()):
        raise NotApplicable(f"membranes of {name!r} begin at different values")
    kept = {"reset": "subtract" if subtracts else "value", "fires": fires, "floor": "none" if floor is None else floor}
    kept |= {"reset_delay": True} if delayed else {}
    kept |= {"leak_shift": shift} if shift else {}
    layers[name] = kept | {"initial": float(layer.initial.flatten()[0])}
    common = {"v_threshold": full(layer.threshold), "v_reset": full(0.0 if subtracts else rest)}
    if bool((leak == 1).all()):
        fields: Fields = {"type": "IF", "r": full(weight.double() / DT), **common}
    else:
        if bool((leak == 1).any()):
            raise NotApplicable(f"some neurons of {name!r} leak and some do not")
        tau = DT / (1 - leak.double())
        fields = {"type": "LIF", "tau": full(tau), "r": full(weight.double() * tau / DT), "v_leak": full(0.0), **common}
    made = [("", fields)]
    unit = layer.unit.double()
    if bool((unit != 1).any()):
        if unit.numel() > 1 and unit.numel() != shape[0]:
            raise NotApplicable(f"spikes of {name!r} are worth something else for each neuron")
        made.append(("_worth", {"type": "Scale", "scale": full(unit)}))
    return made


@torch.no_grad()
def _shapes(network: SpikingNetwork) -> dict[str, tuple[int, ...]]:
    """Layer -> the shape of what enters it for one image."""
    shapes: dict[str, tuple[int, ...]] = {}
    relu = network.reconvert().body  # runs without a simulation
    names = {name for name, module in relu.named_modules() if not list(module.children())}
    handles = []
    for name, module in relu.named_modules():
        if name in names or isinstance(network.body.get_submodule(name), nn.MaxPool2d):

            def note(_module: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                shapes[name] = tuple(args[0].shape[1:])

            handles.append(module.register_forward_pre_hook(note))
    relu(torch.zeros(1, *network.image_shape))
    for handle in handles:
        handle.remove()
    return shapes
