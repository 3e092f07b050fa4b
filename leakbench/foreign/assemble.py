"""A spiking network out of another framework's parts: operations, weights, and the constants of its neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from leakbench.contracts import InputRange
from leakbench.errors import UsageError
from leakbench.foreign.settings import InputSettings
from leakbench.models.graph import Graph, GraphBody, Node
from leakbench.models.storage import build_ann
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.general import FIRES, General, GeneralNeuron
from leakbench.snn.readout import Readout

IMAGE = ""
"""name of what enters the network"""
SAME = "same"
"""operation of a part that changes nothing"""


@dataclass(frozen=True)
class Neurons:
    """Constants of one layer, [] or of the neurons' shape, in units in which a membrane at rest is 0; see
    :mod:`leakbench.snn.general`."""

    threshold: Tensor
    leak: Tensor
    weight: Tensor
    synapse: Tensor
    taken: Tensor | None
    """None where the membrane is reset to ``rest``"""
    rest: Tensor
    initial: Tensor
    floor: float | None
    fires: str
    shift: int | None = None
    """k of a leak by v >> k, which stands for the factor"""


@dataclass(frozen=True)
class Part:
    """One operation of a network by a name."""

    name: str
    node: Node
    """whose inputs are not used"""
    inputs: tuple[str, ...]
    """names; more than one are summed up, unless the node is a "cat\""""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    neurons: Neurons | None = None


def assembled(
    parts: Sequence[Part],
    image_shape: tuple[int, int, int],
    classes: int,
    timesteps: int,
    enters: InputSettings,
    readout: Readout,
) -> SpikingNetwork:
    """The network of ``parts``, which come in an order in which they can be computed; the last gives the logits.

    UsageError where they do not fit each other.
    """
    normalised = None
    if enters.mean is not None or enters.std is not None:
        normalised = _normalised(enters, image_shape[0])
    graph, placed, filled = laid_out(parts, normalised)
    ann = build_ann(str(graph), image_shape, classes, InputRange(*enters.range))
    config = SpikingConfig(timesteps, enters.encoder, GeneralNeuron(), readout=readout)
    network = SpikingNetwork.from_ann(ann, config)
    layers = {layer.layer: layer for layer in network.neurons}
    for name, part in placed.items():
        layer = layers.get(name)
        if layer is not None and part.neurons is not None:
            assert isinstance(layer, General) and isinstance(network.body, GraphBody)
            _set(layer, part.neurons, part.name, network.body.shapes[int(name[1:])])
    wanted = dict(network.body.named_parameters()) | {
        name: tensor for name, tensor in network.body.named_buffers() if name.partition(".")[0] not in layers
    }
    fill_in(wanted, placed, filled)
    return network.eval().requires_grad_(False)


def laid_out(
    parts: Sequence[Part], normalised: Mapping[str, Tensor] | None
) -> tuple[Graph, dict[str, Part], dict[str, Tensor]]:
    """The graph of ``parts``; the part at each of its nodes ("n1", "n2", ...); and their tensors ("n1.weight", ...).

    ``normalised``: scale and shift of what enters first.
    """
    numbers = {IMAGE: 0}
    nodes: list[Node] = []
    filled: dict[str, Tensor] = {}
    if normalised is not None:
        nodes.append(Node("affine", (0,)))
        numbers[IMAGE] = 1
        filled |= {f"n1.{name}": tensor for name, tensor in normalised.items()}
    placed: dict[str, Part] = {}
    for part in parts:
        inputs = tuple(numbers[name] for name in part.inputs)
        if len(inputs) > 1 and part.node.op not in ("add", "cat"):  # also of SAME
            nodes.append(Node("add", inputs))
            inputs = (len(nodes),)
        if part.node.op == SAME or (part.node.op == "add" and len(inputs) == 1):
            (numbers[part.name],) = inputs
            continue
        nodes.append(replace(part.node, inputs=inputs))
        numbers[part.name] = number = len(nodes)
        placed[f"n{number}"] = part
        filled |= {f"n{number}.{name}": tensor for name, tensor in part.tensors.items()}
    return Graph(tuple(nodes)), placed, filled


@torch.no_grad()
def fill_in(wanted: Mapping[str, Tensor], placed: Mapping[str, Part], filled: dict[str, Tensor]) -> None:
    """Sets the tensors of a graph's body in place to what :func:`laid_out` gives; UsageError where sizes differ."""
    for name, tensor in wanted.items():
        node, _, constant = name.partition(".")
        said = placed[node].name if node in placed else "input"
        value = filled.pop(name)
        if value.numel() != tensor.numel():
            raise UsageError(f"node {said!r}: its {constant} is {list(value.shape)} instead of {list(tensor.shape)}")
        tensor.copy_(value.reshape(tensor.shape))


def _normalised(enters: InputSettings, channels: int) -> dict[str, Tensor]:
    """Scale and shift of (x - mean) / std."""
    enters.check(channels)
    mean, std = (
        torch.tensor(value if value is not None else (usual,) * channels, dtype=torch.float64)
        for value, usual in ((enters.mean, 0.0), (enters.std, 1.0))
    )
    return {"scale": 1 / std, "shift": -mean / std}


def _set(layer: General, neurons: Neurons, name: str, shape: tuple[int, ...]) -> None:
    """Sets the constants of a layer of neurons [*shape]."""
    subtracts = neurons.taken is not None
    constants = {
        "threshold": neurons.threshold, "leak": neurons.leak, "weight": neurons.weight, "synapse": neurons.synapse,
        "taken": neurons.taken if neurons.taken is not None else torch.tensor(1.0), "rest": neurons.rest,
        "initial": neurons.initial,
    }  # fmt: skip
    for constant, value in constants.items():
        if not torch.isfinite(value).all():
            raise UsageError(f"node {name!r}: its {constant} is no finite number")
        if value.dim() and value.shape != shape and value.shape != (shape[0], *[1] * (len(shape) - 1)):
            said = f"of {list(value.shape)} neurons, and there are {list(shape)}"
            raise UsageError(f"node {name!r}: its {constant} is {said}")
        setattr(layer, constant, _compact(value).to(torch.get_default_dtype()))
    for constant in ("leak", "synapse"):
        value = getattr(layer, constant)
        if not ((value >= 0) & (value <= 1)).all():
            raise UsageError(f"node {name!r}: a membrane or current keeps {float(value.max())} of itself each step, "
                             "and that must be in [0, 1]: another dt?")  # fmt: skip
    if not (layer.threshold > 0).all():
        raise UsageError(f"node {name!r}: thresholds must be above the resting value")
    layer.subtracts.fill_(int(subtracts))
    layer.fires.fill_(FIRES.index(neurons.fires))
    if neurons.floor is not None:
        layer.floor.fill_(neurons.floor)
    if neurons.shift is not None:
        layer.set_shift(neurons.shift)


def shifted(neurons: Neurons, shift: int, name: str) -> Neurons:
    """The neurons of a chip that leaks by v >> ``shift``. UsageError where they leak by another factor than that does.

    2^-22 is what rounding a time constant or a factor to float32 explains.
    """
    factor = 1 - 2.0**-shift
    far = (neurons.leak - factor).abs().max()
    if not far <= 2.0**-22:
        given = float(neurons.leak.flatten()[(neurons.leak - factor).abs().argmax()])
        raise UsageError(
            f"node {name!r}: leak_shift {shift} leaves {factor:.6g} of a membrane after a step, and the network's own "
            f"neurons leave {given:.6g}"
        )
    if neurons.taken is not None and torch.equal(neurons.taken, neurons.threshold / neurons.leak):
        raise UsageError(f"node {name!r}: with leak_shift a spike takes the threshold away at once: no reset_delay")
    return replace(neurons, shift=shift)


def _compact(value: Tensor) -> Tensor:
    """A constant of the neurons' shape [C, ...] as one number, or one a channel [C, 1, ...], where it is no more."""
    if value.numel() and bool((value == value.flatten()[0]).all()):
        return value.flatten()[0]
    if value.dim() > 1:
        first = value[(slice(None), *[slice(0, 1)] * (value.dim() - 1))]
        if bool((value == first).all()):
            return first
    return value
