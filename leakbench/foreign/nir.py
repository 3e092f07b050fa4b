"""Networks in NIR, the neuromorphic intermediate representation (Pedersen et al., Nature Communications 15, 2024).

A file says what neurons are in continuous time, and neither its time step, nor who wrote it, nor whether spikes take a
threshold away: no node of NIR 1.0 can. All that is in :class:`~.settings.NetworkSettings`, without which no file is
read. Equations with a step dt, by forward Euler:

    LIF      leak 1 - dt / tau, currents times r dt / tau          IF  no leak, currents times r dt
    CubaLIF  its synapse 1 - dt / tau_syn, currents times w_in (dt / tau_syn) r (dt / tau_mem)
    LI       as LIF, without spikes: the last node, read out
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from leakbench.errors import UsageError, printable
from leakbench.foreign.assemble import IMAGE, SAME, Neurons, Part, assembled, shifted
from leakbench.foreign.settings import CONVENTIONS, NetworkSettings, NeuronSettings, settled
from leakbench.models.graph import Node
from leakbench.snn import SpikingNetwork
from leakbench.snn.blocks import Pair
from leakbench.snn.readout import Readout

Tree = Mapping[str, Any]
_SPIKING = ("IF", "LIF", "CubaLIF")
_LAYERS = ("Affine", "Linear", "Conv2d", "Scale", "SumPool2d", "AvgPool2d", "Flatten")
_CONSTANTS = ("r", "tau", "tau_mem", "tau_syn", "w_in", "v_leak", "v_threshold", "v_reset")
KNOWN = ("Input", "Output", *_LAYERS, *_SPIKING, "LI")
_MOST_NODES = 2000


def network_of_tree(tree: Tree, settings: NetworkSettings) -> SpikingNetwork:
    """The network of a file's groups and data sets. UsageError, one line, names the node that can't be taken."""
    graph = tree.get("node")
    if not isinstance(graph, Mapping) or not isinstance(graph.get("nodes"), Mapping):
        raise UsageError("it has no graph: no group 'node' with 'nodes'")
    nodes: dict[str, Tree] = {}
    for name, node in graph["nodes"].items():
        if not isinstance(node, Mapping) or not isinstance(node.get("type"), str):
            raise UsageError(f"{_named(name)} has no type")
        nodes[name] = node
    if len(nodes) > _MOST_NODES:
        raise UsageError(f"it has {len(nodes)} nodes: {_MOST_NODES} at most")
    for name, node in nodes.items():
        if node["type"] not in KNOWN:
            raise UsageError(f"{_named(name, node)} is none of {', '.join(KNOWN)}")
    for name, said in settings.layers.items():
        if name not in nodes:
            raise UsageError(f"the settings are of a layer that is not there: {printable(name)!r}")
        kind = nodes[name]["type"]
        if kind not in (*_SPIKING, "LI"):
            raise UsageError(f"the settings are of {_named(name, nodes[name])}, which is no layer of neurons")
        if kind == "LI" and said.model_copy(update={"input_weight": None}) != NeuronSettings():
            raise UsageError(f"{_named(name, nodes[name])} takes input_weight alone: it neither fires nor is reset")
    edges = _edges(graph.get("edges"), nodes)
    begin, end = (_only(nodes, kind) for kind in ("Input", "Output"))
    order = _sorted(nodes, edges)
    before = {name: [one for one, other in edges if other == name] for name in nodes}
    shape = _image_shape(nodes[begin])
    last = before[end]
    if len(last) != 1 or before[begin]:
        raise UsageError("its output must come from one node, and nothing may lead to its input")
    reader = _Reader(settings)
    parts: list[Part] = []
    for name in order:
        node = nodes[name]
        if name in (begin, end):
            continue
        inputs = tuple(IMAGE if one == begin else one for one in before[name])
        if not inputs:
            raise UsageError(f"{_named(name, node)} gets no input")
        if node["type"] == "LI":
            if name != last[0]:
                raise UsageError(f"{_named(name, node)} does not spike: it can only be the last node, that is read out")
            parts.append(Part(name, Node(SAME, ()), inputs))  # the readout does it
            continue
        parts.append(reader.part(name, node, inputs))
    used = {one for part in parts for one in part.inputs} | {last[0]}
    idle = [part.name for part in parts if part.name not in used]
    if idle:
        raise UsageError(f"{_named(idle[0])} leads nowhere")
    readout = reader.readout(last[0], nodes[last[0]])
    enters = settings.input
    return assembled(parts, shape, _classes(parts), settings.timesteps, enters, readout)


class _Reader:
    """What nodes mean under the settings."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        convention = CONVENTIONS[settings.framework]
        self._dt = settings.dt or convention.dt
        self._integration = settings.integration or convention.integration

    def part(self, name: str, node: Tree, inputs: tuple[str, ...]) -> Part:
        kind = node["type"]
        if kind in _SPIKING:
            return Part(name, Node("relu", ()), inputs, neurons=self._neurons(name, node))
        tensors = {
            ours: _numbers(name, node, theirs) for theirs, ours in (("weight", "weight"), ("bias", "bias"))
            if theirs in node
        }  # fmt: skip
        if "bias" in tensors and not bool(tensors["bias"].any()):  # convolutions without one are written with zeros
            del tensors["bias"]
        match kind:
            case "Affine" | "Linear":
                weight = _numbers(name, node, "weight")
                if weight.dim() != 2:
                    raise UsageError(f"{_named(name, node)}: its weight has {weight.dim()} axes, not 2")
                return Part(name, Node("linear", (), len(weight), bias="bias" in tensors), inputs, tensors)
            case "Conv2d":
                return Part(name, self._convolution(name, node, "bias" in tensors), inputs, tensors)
            case "Scale":
                scale = _numbers(name, node, "scale")
                each = scale.flatten(1)[:, :1] if scale.dim() > 1 else scale
                if scale.dim() > 1 and not bool((scale.flatten(1) == each).all()):
                    raise UsageError(f"{_named(name, node)}: one scale a channel can be taken, and it has more")
                return Part(name, Node("affine", ()), inputs, {"scale": each, "shift": torch.zeros_like(each)})
            case "Flatten":
                return Part(name, Node("flatten", ()), inputs)
        kernel = _pair(name, node, "kernel_size")
        stride = _pair(name, node, "stride")
        pooling = "sumpool" if kind == "SumPool2d" else "avgpool"
        return Part(name, Node(pooling, (), 0, kernel, stride, _pair(name, node, "padding")), inputs)

    def _convolution(self, name: str, node: Tree, bias: bool) -> Node:
        weight = _numbers(name, node, "weight")
        if weight.dim() != 4:
            raise UsageError(f"{_named(name, node)}: its weight has {weight.dim()} axes, not 4")
        kernel: Pair = (weight.shape[2], weight.shape[3])
        dilation = _pair(name, node, "dilation")
        stride = _pair(name, node, "stride")
        padding = node.get("padding")
        if isinstance(padding, str) and padding == "valid":
            around: Pair = (0, 0)
        elif isinstance(padding, str) and padding == "same":
            spans = tuple(gap * (side - 1) for gap, side in zip(dilation, kernel, strict=True))
            if any(span % 2 for span in spans) or stride != (1, 1):
                raise UsageError(f"{_named(name, node)}: 'same' padding is taken of odd kernels and stride 1")
            around = (spans[0] // 2, spans[1] // 2)
        else:
            around = _pair(name, node, "padding")
        groups = _numbers(name, node, "groups").flatten()
        if len(groups) != 1 or not 1 <= (count := float(groups)) <= 1e5 or count != round(count):
            raise UsageError(f"{_named(name, node)}: its groups is no whole number of at least 1")
        return Node("conv", (), len(weight), kernel, stride, around, dilation, round(count), bias)

    # --- neurons ---------------------------------------------------------------------------------------------------

    def _neurons(self, name: str, node: Tree) -> Neurons:
        said = settled(self._settings, name)
        for field in ("reset", "fires", "floor"):
            if said[field] is None:
                raise UsageError(_unsaid(name, node, field, self._settings.framework))
        shapes = {value.shape for field, value in node.items() if field in _CONSTANTS and isinstance(value, np.ndarray)}
        if len(shapes - {()}) > 1:
            raise UsageError(f"{_named(name, node)}: its constants are of different shapes")
        leak, weight, synapse = self._leaky(name, node, said["input_weight"])
        rest = _numbers(name, node, "v_leak") if "v_leak" in node else torch.zeros((), dtype=torch.float64)
        threshold, framework = _numbers(name, node, "v_threshold") - rest, self._settings.framework
        reset = (_numbers(name, node, "v_reset") if "v_reset" in node else torch.zeros_like(rest)) - rest
        subtracts, taken = said["reset"] == "subtract", None
        if framework == "snntorch" and (subtracts or node["type"] == "CubaLIF"):
            if said["reset_delay"] is None:
                raise UsageError(_unsaid(name, node, "reset_delay", "snntorch"))
            # without a delay, snnTorch tests a membrane that the threshold was taken off, as long as it is above it;
            # to 0 with a delay, it loses what a synapse brings in the step after a spike
            if said["reset_delay"] != subtracts:
                known = "reset_delay=False with subtract" if subtracts else "reset_delay=True with a reset to a value"
                raise UsageError(f"{_named(name, node)}: snnTorch's {known} can't be simulated")
        if subtracts:
            # Norse takes v_threshold away, and not what is above the resting value
            whole = threshold + rest if framework == "norse" else threshold
            taken = whole / leak if said["reset_delay"] else whole
        # SpikingJelly starts at the value of a reset, the others at rest
        usual = reset if framework == "spikingjelly" and not subtracts else torch.zeros_like(rest)
        start = usual if said["initial"] is None else torch.full_like(rest, said["initial"]) - rest
        floor = None if said["floor"] == "none" else float(said["floor"])
        if floor is not None and bool((rest != rest.flatten()[0]).any()):
            raise UsageError(f"{_named(name, node)}: a floor is taken with one v_leak for all its neurons")
        lowest = floor - float(rest.flatten()[0]) if floor is not None else None
        neurons = Neurons(threshold, leak, weight, synapse, taken, reset, start, lowest, said["fires"])
        return neurons if said["leak_shift"] is None else shifted(neurons, said["leak_shift"], name)

    def _leaky(self, name: str, node: Tree, said: Any) -> tuple[Tensor, Tensor, Tensor]:
        """What is left of a membrane after a step, what a current is multiplied by, what is left of a current."""
        zero = torch.zeros((), dtype=torch.float64)
        framework, r = self._settings.framework, _numbers(name, node, "r", infinite=True)
        if node["type"] == "IF":
            by_r = r if framework in ("norse", "sinabs") else r * self._step(name, node)
            # a framework's "1-leak" is meant for its neurons that leak
            own = None if said == "1-leak" and framework != "none" else said
            return torch.ones_like(r), _given(own, zero, by_r), zero
        dt = self._step(name, node)
        tau = _numbers(name, node, "tau_mem" if node["type"] == "CubaLIF" else "tau", infinite=True)
        leak = self._kept(dt, tau)
        endless = torch.isinf(tau)
        # beta = 1 is written as tau and r without end: currents enter as they are
        if said is None and framework == "sinabs":
            raise UsageError(_unsaid(name, node, "input_weight", framework))
        usual = torch.where(endless, torch.ones_like(tau), r * self._let_in(dt, tau))
        weight = _given(said, leak, usual)
        synapse = zero
        if node["type"] == "CubaLIF":
            slow = _numbers(name, node, "tau_syn", infinite=True)
            synapse = self._kept(dt, slow)
            w_in = _numbers(name, node, "w_in", infinite=True)
            if said is None:
                weight = weight * torch.where(torch.isinf(slow), torch.ones_like(slow), w_in * self._let_in(dt, slow))
        for constant in (leak, synapse):
            if bool((constant < 0).any()):
                hint = '; Norse 1.1 writes tau times dt: "framework": "norse"' if framework != "norse" else ""
                raise UsageError(
                    f"{_named(name, node)}: dt = {dt:g} is longer than its time constant: what is left of it after "
                    f"a step would be {float(constant.min()):.3g}{hint}"
                )
        return leak, weight, synapse

    def _kept(self, dt: float, tau: Tensor) -> Tensor:
        if self._settings.framework == "norse":
            tau = tau / dt
        return torch.exp(-dt / tau) if self._integration == "exponential" else 1 - dt / tau

    def _let_in(self, dt: float, tau: Tensor) -> Tensor:
        """1 less what is kept, without its rounding where that is a quotient."""
        return 1 - self._kept(dt, tau) if self._integration == "exponential" else dt / tau

    def _step(self, name: str, node: Tree) -> float:
        if self._dt is None or self._integration is None:
            field = "dt" if self._dt is None else "integration"
            raise UsageError(_unsaid(name, node, field, self._settings.framework))
        return self._dt

    # --- the output ------------------------------------------------------------------------------------------------

    def readout(self, name: str, node: Tree) -> Readout:
        """Of the last node."""
        said = self._settings.readout
        if node["type"] != "LI":
            return Readout(0.0, said.over, said.scale)
        leaks, weight, _ = self._leaky(name, node, settled(self._settings, name)["input_weight"])
        if bool((leaks != leaks.flatten()[0]).any()) or bool((weight != weight.flatten()[0]).any()):
            raise UsageError(f"{_named(name, node)}: a readout has one time constant for all classes")
        if "v_leak" in node and bool((_numbers(name, node, "v_leak") != 0).any()):
            raise UsageError(f"{_named(name, node)}: a readout's v_leak must be 0")
        return Readout(float(leaks.flatten()[0]), said.over, said.scale * float(weight.flatten()[0]))


# --- what is read of nodes -------------------------------------------------------------------------------------------


def _named(name: str, node: Tree | None = None) -> str:
    kind = f" ({printable(str(node['type']))[:40]})" if node is not None else ""
    return f"node {printable(name)[:60]!r}{kind}"


def _unsaid(name: str, node: Tree, field: str, framework: str) -> str:
    right = {
        "reset": '"neurons": {"reset": "subtract"} or "value"',
        "reset_delay": '"neurons": {"reset_delay": true}, which is snnTorch\'s default, or false',
        "fires": '"neurons": {"fires": "many"} (sinabs\' default), "at" or "above"',
        "floor": '"neurons": {"floor": -1.0} (sinabs\' from_model), another number or "none"',
        "input_weight": '"neurons": {"input_weight": "1-leak"} (sinabs\' norm_input=True) or 1',
        "dt": '"dt", seconds a step',
        "integration": '"integration": "euler" or "exponential"',
    }[field]
    by = "" if framework == "none" else f" of {framework}"
    return f"{_named(name, node)}: a file{by} does not say this: put {right} into the settings"


def _given(said: Any, leak: Tensor, usual: Tensor) -> Tensor:
    if said is None:
        return usual
    return 1 - leak if said == "1-leak" else torch.full_like(usual, float(said))


def _numbers(name: str, node: Tree, field: str, infinite: bool = False) -> Tensor:
    """float64, finite unless it may be ``infinite``."""
    value = node.get(field)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise UsageError(f"{_named(name, node)} has no numbers {field!r}")
    tensor = torch.from_numpy(np.array(value, dtype=np.float64))
    if bool(torch.isnan(tensor).any()) or (not infinite and bool(torch.isinf(tensor).any())):
        raise UsageError(f"{_named(name, node)}: its {field} holds NaN or infinity")
    if not tensor.numel():
        raise UsageError(f"{_named(name, node)}: its {field} is empty")
    return tensor


def _pair(name: str, node: Tree, field: str) -> Pair:
    """Two whole numbers; one is meant for both sides."""
    value = _numbers(name, node, field).flatten()
    if len(value) not in (1, 2) or bool((value != value.round()).any()) or bool((value.abs() > 1e5).any()):
        raise UsageError(f"{_named(name, node)}: its {field} is no pair of whole numbers")
    sides = [int(one) for one in value]
    return sides[0], sides[-1]


def _edges(said: Any, nodes: Mapping[str, Tree]) -> list[tuple[str, str]]:
    rows = said if isinstance(said, list) else None
    if rows is None or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise UsageError("its edges are no list of pairs of names")
    edges = [(str(one), str(other)) for one, other in cast(list[list[str]], rows)]
    for name in {one for edge in edges for one in edge}:
        if name not in nodes:
            raise UsageError(f"an edge is of a node that is not there: {printable(name)[:60]!r}")
    return list(dict.fromkeys(edges))


def _only(nodes: Mapping[str, Tree], kind: str) -> str:
    found = [name for name, node in nodes.items() if node["type"] == kind]
    if len(found) != 1:
        raise UsageError(f"it has {len(found)} nodes {kind}, not one")
    return found[0]


def _sorted(nodes: Iterable[str], edges: Sequence[tuple[str, str]]) -> list[str]:
    """In an order in which they can be computed. UsageError where a loop allows none."""
    names = list(nodes)
    waiting = dict.fromkeys(names, 0)
    for _, other in edges:
        waiting[other] += 1
    ready, order = deque(name for name in names if not waiting[name]), list[str]()
    while ready:
        name = ready.popleft()
        order.append(name)
        for one, other in edges:
            if one == name:
                waiting[other] -= 1
                if not waiting[other]:
                    ready.append(other)
    if len(order) < len(names):
        looped = next(name for name in names if waiting[name])
        raise UsageError(f"{_named(looped)} is on a loop or behind one: recurrent networks can't be simulated")
    return order


def _image_shape(node: Tree) -> tuple[int, int, int]:
    said = node.get("shape")
    numbers = said.flatten() if isinstance(said, np.ndarray) and said.dtype.kind in "iuf" else np.zeros(0)
    whole = np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()
    values = [int(one) for one in numbers] if whole else []
    if len(values) == 4 and values[0] == 1:  # with the batch, as Norse writes it
        values = values[1:]
    if len(values) != 3 or not all(1 <= one <= 1 << 16 for one in values):
        shown = values or ("none" if whole else "not of whole numbers")
        raise UsageError(f"its input must be images [C, H, W], and its shape is {shown}")
    return values[0], values[1], values[2]


def _classes(parts: Sequence[Part]) -> int:
    for part in reversed(parts):
        if part.node.op == "linear":
            return part.node.out
        if part.node.op == "conv":
            break
    raise UsageError("the classes are the outputs of its last Affine or Linear node, and it has none behind its maps")


def settings_beside(path: Path) -> Path:
    """Where the settings of a file lie when none are named: NET.json beside NET.nir."""
    return path.with_suffix(".json")
