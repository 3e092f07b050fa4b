"""Networks that are modules of SpikingJelly, snnTorch, Norse or sinabs: read layer by layer, and compared with them.

No framework is imported here: a module brings its own along. What a layer is, its exact class says, as subclasses may
be other neurons. Equations are those of the releases named beside them.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from leakbench.errors import UsageError, printable
from leakbench.foreign.assemble import IMAGE, Neurons, Part, assembled
from leakbench.foreign.settings import NetworkSettings, NeuronSettings
from leakbench.models.graph import Node
from leakbench.snn import SpikingNetwork
from leakbench.snn.blocks import Pair
from leakbench.snn.readout import Readout

TOLERANCE = 1e-4
"""of logits, in float64: measured 0 for all layers that are known"""
PROBES = 100
"""images with which a network is compared"""

Step = Callable[[Tensor, dict[str, Any]], Tensor]
"""one step of a layer as its framework computes it: input and what it remembers -> output"""


@dataclass(frozen=True)
class _Kind:
    """How a framework's neurons are read, and how they are run."""

    read: Callable[[nn.Module], Neurons]
    step: Callable[[nn.Module, Tensor, dict[str, Any]], Tensor]
    reset: Callable[[nn.Module], None]


def network_of_module(
    module: nn.Module, image_shape: tuple[int, int, int], classes: int, settings: NetworkSettings
) -> SpikingNetwork:
    """The network that a module of another framework is, one step of it at a time.

    ``module`` takes input [B, C, H, W] of one step. UsageError, one line, names the layer that can't be taken, or says
    by how much the network differs from the module.
    """
    if settings.neurons != NeuronSettings() or settings.layers:
        raise UsageError("what neurons do is read from the module: leave neurons and layers out of the settings")
    module = copy.deepcopy(module).to("cpu", torch.float64).eval().requires_grad_(False)
    steps = _Walk(module)
    parts = [steps.part(place) for place in steps.places]
    readout = steps.readout(settings, parts)
    network = assembled(parts, image_shape, classes, settings.timesteps, settings.input, readout)
    _compare(steps, network, settings)
    return network


# --- the module's own graph ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A layer or function in the module's graph."""

    name: str
    module: nn.Module | None
    function: str
    """add, cat or flatten; empty for a layer"""
    inputs: tuple[str, ...]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _neurons(m) is not None or super().is_leaf_module(m, module_qualified_name) or not list(m.children())


class _Walk:
    """The layers of a module in the order of execution, with what feeds them."""

    def __init__(self, module: nn.Module) -> None:
        self.places: list[_Place] = []
        self._seen: set[int] = set()
        self.last = self._through(module, "", IMAGE)

    def _through(self, module: nn.Module, name: str, before: str) -> str:
        """Adds what a module does; the name of what comes out."""
        if _name_of(module) in _CHAINS:
            for own, child in module.named_children():
                before = self._through(child, f"{name}.{own}" if name else own, before)
            return before
        if not list(module.children()) or _neurons(module) is not None:
            return self._add(name or "0", module, "", (before,))
        return self._traced(module, name, before)

    def _add(self, name: str, module: nn.Module | None, function: str, inputs: tuple[str, ...]) -> str:
        if module is not None and _neurons(module) is not None:
            if id(module) in self._seen:
                raise UsageError(
                    f"the neurons {printable(name)!r} are used twice: forward must be one step, without a loop over T"
                )
            self._seen.add(id(module))
        self.places.append(_Place(name, module, function, inputs))
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
                    raise UsageError(f"the layer {printable(where)!r} takes {len(entered)} inputs: states are LeakBench's")
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
                raise UsageError(f"{printable(str(node.target))!r} is used outside of a layer")
        return out

    def _called(self, node: fx.Node, where: str, values: Mapping[fx.Node, str]) -> str:
        inputs = tuple(values[one] for one in node.all_input_nodes)
        if node.target in (operator.add, operator.iadd, torch.add, "add", "add_") and len(node.all_input_nodes) == 2:
            return self._add(where, None, "add", inputs)
        if node.target in (torch.cat, torch.concat):
            axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
            if axis == 1:
                return self._add(where, None, "cat", inputs)
        start = node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)
        if node.target in (torch.flatten, "flatten") and start == 1:
            return self._add(where, None, "flatten", inputs)
        if node.target is operator.getitem and node.args[1] == 0:  # spikes, of what a layer returns with its states
            return inputs[0]
        called = getattr(node.target, "__name__", str(node.target))
        raise UsageError(
            f"{printable(str(called))!r} is no layer: sums, torch.cat(..., 1) and flatten(1) may stand between layers"
        )

    # --- what LeakBench makes of it ----------------------------------------------------------------------------------

    def part(self, place: _Place) -> Part:
        """One place as a part of a network."""
        if place.module is None:
            return Part(place.name, Node(place.function, ()), place.inputs)
        kind = _neurons(place.module)
        if kind is not None:
            return Part(place.name, Node("relu", ()), place.inputs, neurons=_read(kind, place))
        return _layer(place)

    def readout(self, settings: NetworkSettings, parts: list[Part]) -> Readout:
        """Of the last layer; takes a leaky integrator off the parts, as the readout is it."""
        said, last = settings.readout, self.places[-1]
        if self.last != last.name:
            raise UsageError(f"what comes after {printable(self.last)!r} is not used")
        leak = _integrator(last.module) if last.module is not None else None
        if leak is None:
            leaks = {"sum": 1.0, "mean": 0.0, "last": 0.0}
            return Readout(leaks[said.over], "mean" if said.over == "mean" else "last", said.scale)
        parts.pop()
        if len(last.inputs) > 1:
            parts.append(Part(last.name, Node("add", ()), last.inputs))
        weight, kept = leak
        scale = said.scale * weight * (settings.timesteps if said.over == "sum" else 1)
        return Readout(kept, "last" if said.over == "last" else "mean", scale)

    # --- as its framework computes it --------------------------------------------------------------------------------

    def run(self, encoded: Tensor) -> list[Tensor]:
        """What the last layer puts out at each step of input [T, B, C, H, W], by the framework's own neurons."""
        memory: dict[str, dict[str, Any]] = {place.name: {} for place in self.places}
        for place in self.places:
            if place.module is not None and (kind := _neurons(place.module)) is not None:
                kind.reset(place.module)
        outs = []
        for x in encoded.unbind(0):
            values = {IMAGE: x}
            for place in self.places:
                given = [values[one] for one in place.inputs]
                values[place.name] = _computed(place, given, memory[place.name])
            outs.append(values[self.last])
        return outs


def _computed(place: _Place, given: Sequence[Tensor], memory: dict[str, Any]) -> Tensor:
    if place.module is None:
        if place.function == "cat":
            return torch.cat(list(given), 1)
        return given[0].flatten(1) if place.function == "flatten" else given[0] + given[1]
    kind = _neurons(place.module)
    out = kind.step(place.module, given[0], memory) if kind is not None else place.module(given[0])
    return out.to(given[0].dtype)


@torch.no_grad()
def _compare(steps: _Walk, network: SpikingNetwork, settings: NetworkSettings) -> None:
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
    outs = torch.stack(steps.run(_entering(encoded, settings)))
    readout = network.config.readout
    theirs = readout.logits(readout.with_outputs(outs.flatten(2), ()), settings.timesteps)
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


# --- layers without a state ------------------------------------------------------------------------------------------

_CHAINS = ("torch.nn.modules.container.Sequential", "norse.torch.module.sequential.SequentialState")


def _name_of(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


_PLAIN = ("torch.nn.modules.", "spikingjelly.activation_based.layer", "sinabs.layers.pool2d.SumPool2d")


def _layer(place: _Place) -> Part:
    """A layer that remembers nothing. UsageError for one that is not known."""
    module, name = place.module, place.name
    assert module is not None
    full, title = _name_of(module), f"the layer {printable(name)!r} ({type(module).__name__})"
    if not full.startswith(_PLAIN):
        raise UsageError(f"{title} of {printable(type(module).__module__)} is not known")
    for known, make in _LAYERS.items():
        if isinstance(module, known):
            node, tensors = make(module, title)
            return Part(name, node, place.inputs, {key: value.detach().double() for key, value in tensors.items()})
    raise UsageError(f"{title} is not known")


def _conv(module: Any, title: str) -> tuple[Node, dict[str, Tensor]]:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        if module.padding != "valid" or module.padding_mode != "zeros":
            raise UsageError(f"{title}: its padding must be zeros, by a number")
        padding: Pair = (0, 0)
    else:
        padding = module.padding
    node = Node(
        "conv", (), module.out_channels, module.kernel_size, module.stride, padding, module.dilation, module.groups,
        module.bias is not None,
    )  # fmt: skip
    return node, _weights(module)


def _linear(module: Any, _title: str) -> tuple[Node, dict[str, Tensor]]:
    return Node("linear", (), module.out_features, bias=module.bias is not None), _weights(module)


def _weights(module: Any) -> dict[str, Tensor]:
    return {"weight": module.weight} | ({"bias": module.bias} if module.bias is not None else {})


def _norm(module: Any, title: str) -> tuple[Node, dict[str, Tensor]]:
    if module.running_var is None:
        raise UsageError(f"{title}: it normalises by each batch: track_running_stats must be on")
    scale = (module.running_var + module.eps).rsqrt()
    scale = scale if module.weight is None else scale * module.weight
    shift = -module.running_mean * scale
    return Node("affine", ()), {"scale": scale, "shift": shift if module.bias is None else shift + module.bias}


def _pool(op: str) -> Callable[[Any, str], tuple[Node, dict[str, Tensor]]]:
    def make(module: Any, title: str) -> tuple[Node, dict[str, Tensor]]:
        def pair(value: Any) -> Pair:
            return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))

        padding = pair(getattr(module, "padding", 0))
        plain = not module.ceil_mode and getattr(module, "dilation", 1) in (1, (1, 1))
        counted = getattr(module, "count_include_pad", True) or padding == (0, 0)
        if not (plain and counted and getattr(module, "divisor_override", None) is None):
            raise UsageError(f"{title}: pooling must be without ceil_mode, dilation and divisors of its own")
        kernel = pair(module.kernel_size)
        stride = kernel if module.stride is None else pair(module.stride)
        return Node(op, (), 0, kernel, stride, padding), {}

    return make


def _mean(module: Any, title: str) -> tuple[Node, dict[str, Tensor]]:
    if module.output_size not in (1, (1, 1)):
        raise UsageError(f"{title}: adaptive pooling must be to 1")
    return Node("mean", ()), {}


def _flatten(module: Any, title: str) -> tuple[Node, dict[str, Tensor]]:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise UsageError(f"{title}: it must flatten all but the first axis")
    return Node("flatten", ()), {}


def _nothing(_module: Any, _title: str) -> tuple[Node, dict[str, Tensor]]:
    return Node("same", ()), {}


_LAYERS: Mapping[type[nn.Module], Callable[[Any, str], tuple[Node, dict[str, Tensor]]]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm2d: _norm,
    nn.BatchNorm1d: _norm,
    nn.LPPool2d: _pool("sumpool"),  # sinabs' SumPool2d, of norm 1
    nn.AvgPool2d: _pool("avgpool"),
    nn.MaxPool2d: _pool("spikemax"),
    nn.AdaptiveAvgPool2d: _mean,
    nn.Flatten: _flatten,
    nn.Dropout: _nothing,
    nn.Dropout2d: _nothing,
    nn.Identity: _nothing,
}


# --- neurons ---------------------------------------------------------------------------------------------------------


def _neurons(module: nn.Module) -> _Kind | None:
    """How the module is read where it is a layer of known neurons."""
    return _KINDS.get(_name_of(module))


def _read(kind: _Kind, place: _Place) -> Neurons:
    assert place.module is not None
    try:
        return kind.read(place.module)
    except UsageError as error:
        raise UsageError(f"the neurons {printable(place.name)!r} ({type(place.module).__name__}): {error}") from None


def _number(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).detach().clone()


_ZERO, _ONE = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)


def _plain(**constants: Any) -> Neurons:
    """Neurons without leak and synapse, but for what is given."""
    usual = Neurons(_ONE, _ONE, _ONE, _ZERO, None, _ZERO, _ZERO, None, "above")
    return replace(usual, **constants)


def _spikingjelly(leaky: bool) -> Callable[[nn.Module], Neurons]:
    """SpikingJelly 2.0, activation_based/neuron: IFNode, LIFNode, ParametricLIFNode."""

    def read(module: Any) -> Neurons:
        rest = _ZERO if module.v_reset is None else _number(module.v_reset)
        theta = _number(module.v_threshold) - rest
        given = {"threshold": theta, "taken": theta if module.v_reset is None else None, "fires": "at"}
        if not leaky:
            return _plain(**given)
        inverse = torch.sigmoid(_number(module.w)) if hasattr(module, "w") else 1 / _number(module.tau)
        return _plain(**given, leak=1 - inverse, weight=inverse if module.decay_input else _ONE)

    return read


def _snntorch(synaptic: bool) -> Callable[[nn.Module], Neurons]:
    """snnTorch 1.0, _neurons/leaky.py and synaptic.py."""

    def read(module: Any) -> Neurons:
        mechanism = module.reset_mechanism
        if module.inhibition or module.state_quant:
            raise UsageError("inhibition and state_quant are not known")
        if mechanism == "none":
            raise UsageError("neurons that are never reset can only be the last layer, whose membrane is read out")
        theta, leak = _number(module.threshold), _number(module.beta).clamp(0, 1)
        synapse = _number(module.alpha).clamp(0, 1) if synaptic else _ZERO
        given = {"threshold": theta, "leak": leak, "synapse": synapse, "fires": "above"}
        if float(_number(module.graded_spikes_factor)) != 1:
            raise UsageError("a graded_spikes_factor other than 1 is not known")
        if mechanism == "zero":
            if synaptic and module.reset_delay:
                raise UsageError("reset_delay with reset_mechanism='zero' loses the step after a spike: not known")
            return _plain(**given)
        if not module.reset_delay:
            raise UsageError("reset_mechanism='subtract' with reset_delay=False tests a membrane that was reduced: not known")
        if bool((leak == 0).any()):
            raise UsageError("beta = 0 with a delayed reset is not known")
        return _plain(**given, taken=theta / leak)  # subtracted a step later, when the membrane has leaked

    return read


def _norse(kind: str) -> Callable[[nn.Module], Neurons]:
    """Norse 1.1, functional/iaf.py, lif_box.py and lif.py, by forward Euler."""

    def read(module: Any) -> Neurons:
        p, dt = module.p, float(module.dt)
        if kind == "iaf":
            rest = _number(p.v_reset)
            return _plain(threshold=_number(p.v_th) - rest)
        rest = _number(p.v_leak)
        theta, share = _number(p.v_th) - rest, dt * _number(p.tau_mem_inv)
        given = {"threshold": theta, "leak": 1 - share, "weight": share, "rest": _number(p.v_reset) - rest}
        if kind == "lif":
            return _plain(**given, synapse=1 - dt * _number(p.tau_syn_inv))
        method = getattr(p.reset_method, "__name__", "")
        if method not in ("reset_value", "reset_subtract"):
            raise UsageError(f"the reset method {printable(method)!r} is not known")
        # Norse takes v_th away, and not what is above the resting value
        return _plain(**given, taken=_number(p.v_th) if method == "reset_subtract" else None)

    return read


def _sinabs(leaky: bool) -> Callable[[nn.Module], Neurons]:
    """sinabs 3.1, layers/functional/lif.py and activation/."""

    def read(module: Any) -> Neurons:
        fires = {"MultiSpike": "many", "SingleSpike": "at"}.get(getattr(module.spike_fn, "__name__", ""))
        if fires is None:
            raise UsageError(f"the spike function {printable(str(module.spike_fn))[:60]} is not known")
        theta = _number(module.spike_threshold)
        reset = type(module.reset_fn).__name__
        if reset == "MembraneSubtract":
            by = getattr(module.reset_fn, "subtract_value", None)
            taken: Tensor | None = theta if by is None else _number(by)
        elif reset == "MembraneReset" and float(getattr(module.reset_fn, "reset_value", 1)) == 0:
            taken = None
        else:
            raise UsageError(f"the reset {printable(reset)!r} is not known, or to a value other than 0")
        leak = _number(module.alpha_mem_calculated) if leaky else _ONE
        weight, synapse = 1 - leak if leaky and module.norm_input else _ONE, _ZERO
        if module.alpha_syn_calculated is not None:
            synapse = _number(module.alpha_syn_calculated)
            weight = weight * synapse
        floor = None if module.min_v_mem is None else float(module.min_v_mem)
        return _plain(
            threshold=theta, leak=leak, weight=weight, synapse=synapse, taken=taken, fires=fires, floor=floor
        )

    return read


def _step_called(module: Any, x: Tensor, _memory: dict[str, Any]) -> Tensor:
    """SpikingJelly's: the module remembers."""
    return module(x)  # type: ignore[no-any-return]


def _step_snntorch(module: Any, x: Tensor, memory: dict[str, Any]) -> Tensor:
    if module.init_hidden:
        out = module(x)
        return out[0] if isinstance(out, tuple) else out
    states = memory.get("states") or tuple(torch.zeros_like(x) for _ in range(1 + hasattr(module, "alpha")))
    out, *kept = module(x, *states)
    memory["states"] = tuple(kept)
    return out  # type: ignore[no-any-return]


def _step_norse(module: Any, x: Tensor, memory: dict[str, Any]) -> Tensor:
    out, memory["state"] = module(x, memory.get("state"))
    return out  # type: ignore[no-any-return]


def _step_sinabs(module: Any, x: Tensor, _memory: dict[str, Any]) -> Tensor:
    # of a squeezing layer the class that it squeezes for: [B, T, ...]
    kind = next(one for one in type(module).__mro__ if not one.__name__.endswith(("Squeeze", "Mixin")))
    return kind.forward(module, x.unsqueeze(1)).squeeze(1)  # type: ignore[attr-defined, no-any-return]


def _forget_spikingjelly(module: Any) -> None:
    module.step_mode = "s"
    module.reset()


def _forget_snntorch(module: Any) -> None:
    for state in ("mem", "syn"):
        if hasattr(module, state):
            setattr(module, state, torch.zeros(0, dtype=torch.float64))


def _forget_sinabs(module: Any) -> None:
    for state in ("v_mem", "i_syn"):
        if state in module._buffers:
            module._buffers[state] = torch.zeros((0), dtype=torch.float64)


def _nothing_to_forget(_module: Any) -> None:
    return None


_SJ, _ST, _NO, _SI = (
    "spikingjelly.activation_based.neuron", "snntorch._neurons", "norse.torch.module", "sinabs.layers",
)  # fmt: skip
_KINDS: Mapping[str, _Kind] = {
    **{
        name: _Kind(_spikingjelly(leaky), _step_called, _forget_spikingjelly)
        for name, leaky in (
            (f"{_SJ}.integrate_and_fire.IFNode", False), (f"{_SJ}.IFNode", False), (f"{_SJ}.lif.LIFNode", True),
            (f"{_SJ}.LIFNode", True), (f"{_SJ}.plif.ParametricLIFNode", True), (f"{_SJ}.ParametricLIFNode", True),
        )
    },
    f"{_ST}.leaky.Leaky": _Kind(_snntorch(False), _step_snntorch, _forget_snntorch),
    f"{_ST}.synaptic.Synaptic": _Kind(_snntorch(True), _step_snntorch, _forget_snntorch),
    f"{_NO}.iaf.IAFCell": _Kind(_norse("iaf"), _step_norse, _nothing_to_forget),
    f"{_NO}.lif_box.LIFBoxCell": _Kind(_norse("box"), _step_norse, _nothing_to_forget),
    f"{_NO}.lif.LIFCell": _Kind(_norse("lif"), _step_norse, _nothing_to_forget),
    **{
        f"{_SI}.{name}": _Kind(_sinabs(leaky), _step_sinabs, _forget_sinabs)
        for name, leaky in (("iaf.IAF", False), ("iaf.IAFSqueeze", False), ("lif.LIF", True), ("lif.LIFSqueeze", True))
    },
}  # fmt: skip


def _integrator(module: nn.Module) -> tuple[float, float] | None:
    """(weight of currents, leak) of a last layer that never spikes; None for any other."""
    if _name_of(module) == f"{_ST}.leaky.Leaky" and module.reset_mechanism == "none":
        return 1.0, float(_number(module.beta).clamp(0, 1))
    return None
