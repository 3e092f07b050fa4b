"""Networks that are modules of SpikingJelly, snnTorch, Norse or sinabs: read layer by layer, and compared with them.

The module's own graph is walked (nn.Sequential, or torch.fx where forward is one step). What comes out is compared
with the module, run by its own framework, before anybody uses it.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, fx, nn

from leakbench.errors import UsageError, printable
from leakbench.foreign.assemble import IMAGE, SAME, Part, assembled, shifted
from leakbench.foreign.layers import CHAINS, layer_of, name_of
from leakbench.foreign.neurons import framework_of, integrator, keeps_states, neurons_of, read_neurons
from leakbench.foreign.settings import NetworkSettings, NeuronSettings, settled
from leakbench.models.graph import Node
from leakbench.snn import SpikingNetwork
from leakbench.snn.readout import Readout

TOLERANCE = 1e-4
"""of logits, in float64: measured 0 for all layers that are known"""
PROBES = 100
"""images with which a network is compared"""


def network_of_module(
    module: nn.Module, image_shape: tuple[int, int, int], classes: int, settings: NetworkSettings
) -> SpikingNetwork:
    """The network that a module of another framework is, one step of it at a time.

    ``module`` takes input [B, C, H, W] of one step. UsageError, one line, names the layer that can't be taken, or says
    by how much the network differs from the module. A leak_shift of the settings is applied after the comparison: the
    module leaks by the factor that it rounds.
    """
    said = [settings.neurons, *settings.layers.values()]
    if settings.dt is not None or settings.integration is not None:
        raise UsageError("how time is cut is read from the module: leave dt and integration out of the settings")
    if any(one.model_copy(update={"leak_shift": None}) != NeuronSettings() for one in said):
        raise UsageError(
            "what neurons do is read from the module: leave neurons and layers out of the settings, but for leak_shift"
        )
    module = copy.deepcopy(module).to("cpu", torch.float64).eval().requires_grad_(False)
    steps = Walk(module)
    own = {owner for place in steps.places if (owner := framework_of(place.module)) is not None}
    if settings.framework != "none" and own - {settings.framework}:
        raise UsageError(
            f"the settings say framework {settings.framework}, and its neurons are {'+'.join(sorted(own))}'s"
        )
    parts = [steps.part(place) for place in steps.places]
    readout = steps.readout(settings)
    network = assembled(parts, image_shape, classes, settings.timesteps, settings.input, readout)
    _compare(steps, network, settings)
    if not any(one.leak_shift is not None for one in said):
        return network
    return assembled(_shifting(parts, settings), image_shape, classes, settings.timesteps, settings.input, readout)


def _shifting(parts: Sequence[Part], settings: NetworkSettings) -> list[Part]:
    """The parts with the neurons that the settings say leak by a shift."""
    spiking = {part.name for part in parts if part.neurons is not None}
    for name in settings.layers:
        if name not in spiking:
            raise UsageError(f"the settings are of neurons that are not there: {printable(name)!r}")
    shifts = {name: shift for name in spiking if (shift := settled(settings, name)["leak_shift"]) is not None}
    return [
        replace(part, neurons=shifted(part.neurons, shifts[part.name], part.name))
        if part.neurons is not None and part.name in shifts
        else part
        for part in parts
    ]


# --- the module's own graph ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A layer or function in the module's graph."""

    name: str
    module: nn.Module | None
    function: str
    """add, cat or flatten; empty for a layer"""
    inputs: tuple[str, ...]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return neurons_of(m) is not None or super().is_leaf_module(m, module_qualified_name) or not list(m.children())


class Walk:
    """The layers of a module in the order of execution, with what feeds them."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.places: list[Place] = []
        self._seen: set[int] = set()
        self._names: set[str] = set()
        self.last = self._through(module, "", IMAGE)

    def _through(self, module: nn.Module, name: str, before: str) -> str:
        """Adds what a module does; the name of what comes out."""
        if name_of(module) in CHAINS:
            for own, child in module._modules.items():  # named_children leaves out what comes again
                if child is None:
                    continue
                before = self._through(child, f"{name}.{own}" if name else own, before)
            return before
        if not list(module.children()) or neurons_of(module) is not None:
            return self._add(name or "0", module, "", (before,))
        return self._traced(module, name, before)

    def _add(self, name: str, module: nn.Module | None, function: str, inputs: tuple[str, ...]) -> str:
        if module is not None and neurons_of(module) is not None:
            if id(module) in self._seen:
                raise UsageError(
                    f"the neurons {printable(name)!r} are used twice: forward must be one step, without a loop over T"
                )
            self._seen.add(id(module))
        if name in self._names:  # what remembers nothing may be used again
            name = next(again for n in count(2) if (again := f"{name} ({n})") not in self._names)
        self._names.add(name)
        self.places.append(Place(name, module, function, inputs))
        return name

    def _traced(self, module: nn.Module, name: str, before: str) -> str:
        try:
            graph = _Tracer().trace(module)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"the graph of {type(module).__name__} can't be read ({type(error).__name__}: {str(error)[:200]}): "
                "make it an nn.Sequential, or export NIR"
            ) from None
        values: dict[fx.Node, str] = {}
        out = ""
        for node in graph.nodes:
            where = f"{name}.{node.name}" if name else node.name
            if node.op == "placeholder":
                values[node] = before
            elif node.op == "call_module":
                child = module.get_submodule(str(node.target))
                entered = node.all_input_nodes
                if len(entered) != 1:
                    raise UsageError(
                        f"the layer {printable(where)!r} takes {len(entered)} inputs: states are LeakBench's"
                    )
                path = f"{name}.{node.target}" if name else str(node.target)
                values[node] = self._through(child, path, values[entered[0]])
            elif node.op in ("call_function", "call_method"):
                values[node] = self._called(node, where, values)
            elif node.op == "output":
                (result,) = node.args
                if not isinstance(result, fx.Node):
                    raise UsageError("forward must return one tensor, the output of one step")
                out = values[result]
            else:
                raise UsageError(
                    f"{printable(str(node.target))!r} is used outside of a layer: forward must be one step, whose "
                    "layers keep their states themselves (snnTorch: init_hidden=True)"
                )
        return out

    def _called(self, node: fx.Node, where: str, values: Mapping[fx.Node, str]) -> str:
        def said(place: int, name: str, usual: Any) -> Any:
            return node.args[place] if len(node.args) > place else node.kwargs.get(name, usual)

        def come(given: Any) -> tuple[str, ...]:
            return tuple(values[one] for one in given if isinstance(one, fx.Node))

        if node.target in (operator.add, operator.iadd, torch.add, "add", "add_"):
            inputs = come(node.args)
            if len(inputs) == 2 and not node.kwargs:
                return self._add(where, None, "add", inputs)
        if node.target in (torch.cat, torch.concat) and said(1, "dim", 0) == 1:
            return self._add(where, None, "cat", come(said(0, "tensors", ())))
        if node.target in (torch.flatten, "flatten") and (said(1, "start_dim", 0), said(2, "end_dim", -1)) == (1, -1):
            return self._add(where, None, "flatten", come([said(0, "input", None)]))
        if node.target is operator.getitem and node.args[1] == 0:  # spikes, of what neurons return with their states
            (source,) = come(node.args[:1])
            owners = {place.name: framework_of(place.module) for place in self.places}
            if owners.get(source) in ("snntorch", "norse"):  # the others' return a tensor, whose [0] is an image
                return source
        called = getattr(node.target, "__name__", str(node.target))
        raise UsageError(
            f"{printable(str(called))!r} is no layer: sums, torch.cat(..., 1) and flatten(1) may stand between layers"
        )

    # --- what LeakBench makes of it ----------------------------------------------------------------------------------

    def part(self, place: Place) -> Part:
        """One place as a part of a network."""
        if place.module is None:
            return Part(place.name, Node(place.function, ()), place.inputs)
        kind = neurons_of(place.module)
        if place is self.places[-1] and integrator(place.module) is not None:
            return Part(place.name, Node(SAME, ()), place.inputs)  # the readout does it
        if kind is not None:
            return Part(
                place.name, Node("relu", ()), place.inputs, neurons=read_neurons(kind, place.module, place.name)
            )
        node, tensors = layer_of(place.module, place.name)
        return Part(place.name, node, place.inputs, tensors)

    def readout(self, settings: NetworkSettings) -> Readout:
        """Of the last layer."""
        said, last = settings.readout, self.places[-1]
        if self.last != last.name:
            raise UsageError(f"what comes after {printable(self.last)!r} is not used")
        leak = integrator(last.module) if last.module is not None else None
        if leak is None:
            return Readout(0.0, said.over, said.scale)
        weight, kept = leak
        return Readout(kept, said.over, said.scale * weight)

    # --- as its framework computes it --------------------------------------------------------------------------------

    def run(self, encoded: Tensor) -> list[Tensor]:
        """What the last layer puts out at each step of input [T, B, C, H, W], by the framework's own neurons.

        Of the module itself, where all its neurons keep their states; else layer by layer, in the order that was read.
        """
        memory: dict[str, dict[str, Any]] = {place.name: {} for place in self.places}
        for layer in self.module.modules():
            if hasattr(layer, "step_mode"):  # SpikingJelly's layers, too, take one step or all
                setattr(layer, "step_mode", "s")  # noqa: B010
            if (kind := neurons_of(layer)) is not None:
                kind.reset(layer)
        last = self.places[-1].module
        neurons = [one for place in self.places if (one := place.module) is not None and neurons_of(one)]
        if all(keeps_states(one, one is last) for one in neurons):
            for one in neurons:
                one.register_forward_hook(_in_double)
            outs = []
            for x in encoded.unbind(0):
                out = self.module(x)
                if last is not None and integrator(last) is not None:
                    out = last.mem
                elif isinstance(out, tuple):  # spikes, and the states
                    out = out[0]
                outs.append(out.to(x.dtype))
            return outs
        outs = []
        for x in encoded.unbind(0):
            values = {IMAGE: x}
            for place in self.places:
                given = [values[one] for one in place.inputs]
                values[place.name] = _computed(place, given, memory[place.name])
            outs.append(values[self.last])
        return outs


def _in_double(_module: nn.Module, _given: Any, out: Any) -> Any:
    """snnTorch's spikes are float32, whatever its membranes are."""
    return (out[0].double(), *out[1:]) if isinstance(out, tuple) else out.double()


def _computed(place: Place, given: Sequence[Tensor], memory: dict[str, Any]) -> Tensor:
    if place.module is None:
        if place.function == "cat":
            return torch.cat(list(given), 1)
        return given[0].flatten(1) if place.function == "flatten" else given[0] + given[1]
    kind = neurons_of(place.module)
    out = kind.step(place.module, given[0], memory) if kind is not None else place.module(given[0])
    if integrator(place.module) is not None:
        out = memory["states"][-1] if "states" in memory else place.module.mem
    return out.to(given[0].dtype)


@torch.no_grad()
def _compare(steps: Walk, network: SpikingNetwork, settings: NetworkSettings) -> None:
    """UsageError where the network's logits are not the module's, on the same input."""
    generator = torch.Generator().manual_seed(0)
    shape = settings.timesteps, PROBES, *network.image_shape
    images = torch.rand(shape[1:], generator=generator, dtype=torch.float64)
    x = network.input_range(images)
    if settings.input.encoder == "poisson":
        encoded = (torch.rand(shape, generator=generator, dtype=torch.float64) < x.abs()).double() * x.sign()
    else:
        encoded = x.expand(shape)
    twin = copy.deepcopy(network).double()
    try:
        outs = torch.stack(steps.run(_entering(encoded, settings))).flatten(2)
    except Exception as raised:  # whatever its framework raises
        raise UsageError(
            f"the module can't be run one step at a time ({type(raised).__name__}: {printable(str(raised))[:200]}): "
            'with "forward" in the settings it is asked as it is'
        ) from None
    over, scale = settings.readout.over, settings.readout.scale
    theirs = scale * (outs[-1] if over == "last" else outs.sum(0) if over == "sum" else outs.mean(0))
    ours = twin.respond(encoded).logits
    error = (ours - theirs).abs()
    if not float(error.max()) <= TOLERANCE * max(1.0, float(theirs.abs().max())):
        off = int((error.amax(1) > TOLERANCE).sum())
        raise UsageError(
            f"read layer by layer, its logits differ from its own by {float(error.max()):.2g} on {off} of {PROBES} "
            "images: a layer does something that LeakBench does not know of"
        )


def _entering(encoded: Tensor, settings: NetworkSettings) -> Tensor:
    """What the module's first layer gets: normalised, where the settings say so."""
    mean, std = settings.input.mean, settings.input.std
    if mean is not None:
        encoded = encoded - torch.tensor(mean, dtype=encoded.dtype).view(-1, 1, 1)
    return encoded if std is None else encoded / torch.tensor(std, dtype=encoded.dtype).view(-1, 1, 1)
