"""A network's body on the fast path: a walk over its graph, each layer by the kernel that fits its spikes.

Where a convolution or linear layer feeds neurons alone, one kernel does both, and an average pooling that these neurons
feed alone as well; what comes after the last neurons is linear and runs once, on the mean over steps. Whatever there is
no kernel for runs as it is, on the same spikes as a dense tensor. The plain path (the body itself) is the reference:
spikes are the same but for float ties, as sums are taken in another order.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from leakbench.snn.blocks import Affine, SpikeMax
from leakbench.snn.encoders import Encoding
from leakbench.snn.engine.events import Layer
from leakbench.snn.engine.spikes import Constant, Spikes, encode
from leakbench.snn.engine.vectors import LANES
from leakbench.snn.neurons import LIF, GatedMaxPool, Run, TimeFixedDropout

log = logging.getLogger("leakbench")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = LIF | GatedMaxPool | TimeFixedDropout | Affine | SpikeMax
        return isinstance(m, ours) or super().is_leaf_module(m, module_qualified_name)


class _Pending:
    """A convolution or linear layer whose neurons are yet to come, and what enters it."""

    def __init__(self, spikes: Spikes) -> None:
        self.spikes = spikes


class _Reached(Exception):
    """The currents that were asked for."""

    def __init__(self, currents: Tensor) -> None:
        self.currents = currents


@dataclass
class Walk:
    """A walk over the graph: the values that are still to be read, and the node that comes next."""

    values: dict[fx.Node, Any]
    position: int = 0

    @property
    def bytes(self) -> int:
        """Of the values."""
        tensors = [tensor for value in self.values.values() for tensor in _tensors(value)]
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


class Walks:
    """Where the walks of a search layer by layer stopped: the next layer's go on from there.

    Of ``samples`` images times steps each batch has one in each chunk of time. What they hold takes about
    ``most_bytes`` at most: a layer at which it would take more is not stopped at, and walked to again.
    """

    def __init__(self, samples: int, most_bytes: int) -> None:
        self._samples, self._most_bytes = samples, most_bytes
        self._stopped: dict[tuple[int, int], Walk] = {}
        self._room: dict[int, bool] = {}

    def stopped(self, batch: int, start: int) -> Walk | None:
        """A copy of the walk of this batch and chunk, if there is one; a method may change tensors in place."""
        walk = self._stopped.get((batch, start))
        return walk and Walk({node: _copied(value) for node, value in walk.values.items()}, walk.position)

    def stop(self, batch: int, start: int, walk: Walk, samples: int) -> None:
        """Keep a walk of so many images times steps, if those of all have room. A batch's chunks come in order, and
        stop where its first one does: neurons behind that go on from one chunk to the next."""
        if start == 0:
            self._room[batch] = walk.bytes * self._samples <= self._most_bytes * samples
        if self._room[batch]:
            for value in walk.values.values():
                if isinstance(spikes := _spikes(value), Spikes):
                    spikes.__dict__.pop("lists", None)  # several times as large as maps; made again where they are read
            self._stopped[batch, start] = walk


def event_network(body: nn.Module) -> EventNetwork | None:
    """``body`` on the fast path; None where it has no graph that can be traced, and the plain path runs."""
    try:
        graph = _Tracer().trace(body)
    except Exception as error:  # whatever a network's code does when it is handed symbols
        log.debug("no fast path: %s", error)
        return None
    parts = dict(body.named_modules())
    for node in list(graph.nodes):
        if isinstance(parts.get(str(node.target)), nn.Identity):  # what folding leaves of a batch norm
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)
    nodes = list(graph.nodes)
    module = {node: parts[str(node.target)] for node in nodes if node.op == "call_module"}
    neurons = [node for node in nodes if isinstance(module.get(node), LIF)]
    if any(type(module[node]) is not LIF for node in neurons):
        log.debug("no fast path: the kernels know LIF neurons alone")
        return None
    before = set(neurons)
    for node in reversed(nodes):
        if any(user in before for user in node.users):
            before.add(node)
    tail = [node for node in nodes if node not in before and node.op not in ("placeholder", "output")]
    # behind the last neurons, what is not linear has to run at each step
    bent = any(
        "max" in str(node.target) or node.target in _MAXIMA or isinstance(module.get(node), _NOT_LINEAR)
        for node in tail
    )
    if bent or not neurons or any(node.op == "get_attr" for node in nodes):
        log.debug("no fast path: the graph has parameters of its own, or ends in something that is not linear")
        return None
    layers = {}
    for node in neurons:
        fed, lif = node.all_input_nodes[0], module[node]
        source = module.get(fed)
        alone = isinstance(source, nn.Conv2d | nn.Linear) and len(fed.users) == 1
        pool = module.get(next(iter(node.users))) if len(node.users) == 1 else None
        assert isinstance(lif, LIF)
        layers[node] = Layer(lif, source if alone else None, _pooled(pool))
    return EventNetwork(parts, nodes, set(tail), layers)


_NOT_LINEAR = (nn.modules.batchnorm._BatchNorm, nn.MaxPool2d, nn.AdaptiveMaxPool2d, SpikeMax)
_MAXIMA = (functional.max_pool2d, functional.adaptive_max_pool2d)
"""functions whose names do not say it"""


def _pooled(module: nn.Module | None) -> int:
    """Side of an average pooling without overlap; 1 for anything else."""
    if not isinstance(module, nn.AvgPool2d) or module.ceil_mode or module.divisor_override is not None:
        return 1
    sides = {
        *_pair(module.kernel_size), *_pair(module.kernel_size if module.stride is None else module.stride)
    }  # fmt: skip
    return sides.pop() if len(sides) == 1 and {*_pair(module.padding)} == {0} and max(sides | {0}) <= 11 else 1


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


class EventNetwork:
    """The body of a spiking network as a list of layers; see :func:`event_network`."""

    def __init__(
        self, parts: dict[str, nn.Module], nodes: list[fx.Node], tail: set[fx.Node], layers: dict[fx.Node, Layer]
    ) -> None:
        self._parts = parts
        self._nodes = nodes
        self._pooling = {user for node, layer in layers.items() if layer.pool > 1 for user in node.users}
        self._tail = tail - self._pooling
        self.layers = layers
        self._fused = {node.all_input_nodes[0] for node, layer in layers.items() if layer.source is not None}

    def bytes_a_step(self, neurons: Mapping[str, int], gradient: bool) -> int:
        """What one step of one image takes in memory, from the number of neurons of each layer in order."""
        if not gradient:
            # spikes and their lists, and a layer's dense values on both sides
            return 2 * sum(neurons.values()) + 12 * max(neurons.values())
        kept = most = 0
        for node, layer in self.layers.items():
            here = neurons[layer.lif.layer]
            kept += 7 * here  # membranes for the backward pass as well
            if layer.source is None:
                kept += 8 * here  # dense currents
            if any(isinstance(self._parts.get(str(user.target)), GatedMaxPool) for user in node.users):
                kept += 16 * here  # dense spikes, and what gates them
            # a layer's dense gradients on both sides: those behind it are gone by then
            most = max(most, kept + 12 * here)
        return most

    def run(self, x: Tensor, encoder: Encoding, run: Run) -> tuple[Tensor, Tensor]:
        """Sum of the logits over the run's steps [B, classes], and the number of spikes that the encoder made.

        ``x`` [B, C, H, W] in the network's input range. Membranes and counts are kept in ``run``.
        """
        walk, entered = self._begin(x, encoder, run)
        steps = run.stop - run.start
        spike_count = entered.counts.sum() if isinstance(entered, Spikes) else torch.count_nonzero(x.detach()) * steps
        return self._walk(walk, run, None) * steps, spike_count

    def currents(
        self, layer: LIF, x: Tensor, encoder: Encoding, run: Run, walks: Walks | None = None, batch: int = 0
    ) -> Tensor:
        """What enters ``layer`` at each of the run's steps: [t, B, H, W, C] or [t, B, C], and [B, C, H, W] or [B, C] of
        what is the same at all of them.

        With ``walks`` the walk goes on where that of the ``batch`` stopped, at this layer or one before it, and stops
        here.
        """
        walk = (walks and walks.stopped(batch, run.start)) or self._begin(x, encoder, run)[0]
        try:
            self._walk(walk, run, layer)
        except _Reached as reached:
            if walks is not None:
                walks.stop(batch, run.start, walk, len(x) * (run.stop - run.start))
            return reached.currents
        raise AssertionError(f"the network has no layer {layer.layer!r}")

    def _begin(self, x: Tensor, encoder: Encoding, run: Run) -> tuple[Walk, Spikes | Constant]:
        """A walk of what enters the network, and that."""
        entered = _enter(x, encoder, run)
        (placeholder,) = [node for node in self._nodes if node.op == "placeholder"]
        return Walk({placeholder: entered}), entered

    def _walk(self, walk: Walk, run: Run, wanted: LIF | None) -> Tensor:
        values, first = walk.values, walk.position
        left = Counter(used for node in self._nodes[first:] for used in node.all_input_nodes)
        for walk.position in range(first, len(self._nodes)):
            node = self._nodes[walk.position]
            if node.op == "placeholder":
                continue
            if node.op == "output":
                (last,) = node.all_input_nodes
                logits: Tensor = values[last] if last in self._tail else _mean(values[last], run)
                return logits.float()
            if node in self.layers:
                values[node] = self._fire(self.layers[node], values[node.all_input_nodes[0]], run, wanted)
            elif node in self._pooling:
                values[node] = values[node.all_input_nodes[0]]
            elif node in self._fused and isinstance(values[node.all_input_nodes[0]], Spikes):
                values[node] = _Pending(values[node.all_input_nodes[0]])
            else:
                values[node] = self._other(node, values, run)
            for used in node.all_input_nodes:
                left[used] -= 1
                if not left[used]:
                    del values[used]  # nobody reads it again: its memory goes
        raise AssertionError("a graph ends in its output")

    def _fire(self, layer: Layer, value: Any, run: Run, wanted: LIF | None) -> Spikes | Tensor:
        steps, lif = run.stop - run.start, layer.lif
        membrane = run.membranes.get(lif.layer)
        keep = torch.is_grad_enabled()
        if isinstance(value, _Pending) and layer.ready and layer.takes(value.spikes):
            if lif is wanted:
                raise _Reached(layer.currents(value.spikes))
            spikes, membrane = layer.from_spikes(value.spikes, membrane, keep)
        else:
            if isinstance(value, _Pending):
                assert layer.source is not None
                value = layer.source(value.spikes.dense())
            elif isinstance(value, Spikes):  # neurons right behind a pooling
                value = value.dense()
            constant = isinstance(value, Constant)
            currents = (value.value if constant else value.unflatten(0, (steps, run.batch))).float()
            if lif is wanted:
                raise _Reached(currents.movedim(2, -1) if currents.dim() == 5 else currents)  # as of listed spikes
            if not layer.ready or currents.shape[1 if constant else 2] % LANES:
                return _plain(layer, _dense(value, run), run)
            spikes, membrane = layer.from_currents(currents, constant, steps, membrane, keep)
        run.membranes[lif.layer] = membrane
        fired = spikes.counts.sum()
        run.counts[lif.layer] = run.counts[lif.layer] + fired if lif.layer in run.counts else fired
        return spikes

    def _other(self, node: fx.Node, values: dict[fx.Node, Any], run: Run) -> Any:
        """Any other layer: on means behind the last neurons; before them, once if all that enters it is constant."""
        used = node.all_input_nodes
        given = [values[one] for one in used]
        module = self._parts[str(node.target)] if node.op == "call_module" else None
        if node in self._tail:
            means = [value if one in self._tail else _mean(value, run) for one, value in zip(used, given, strict=True)]
            with torch.autocast("cpu", enabled=False):  # once, on means: nothing to gain by rounding
                return self._apply(node, module, means, run)
        if isinstance(given[0], Spikes):
            if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
                return given[0].flattened()
            if isinstance(module, TimeFixedDropout) and not module.acts:
                return given[0]
        if all(isinstance(value, Constant) for value in given):
            return Constant(self._apply(node, module, [value.value for value in given], run, run.stop - run.start))
        return self._apply(node, module, [_dense(value, run) for value in given], run)

    def _apply(self, node: fx.Node, module: nn.Module | None, given: list[Any], run: Run, each: int = 1) -> Any:
        """``each``: the steps that a map stands for."""
        values = dict(zip(node.all_input_nodes, given, strict=True))
        args = fx.node.map_arg(node.args, values.__getitem__)
        kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            # maps lie with their channels innermost: what is a view elsewhere may need a copy here
            method = "reshape" if node.target == "view" else str(node.target)
            return getattr(args[0], method)(*args[1:], **kwargs)
        assert module is not None
        if isinstance(module, TimeFixedDropout):
            return module.dropped(given[0], run)
        if isinstance(module, GatedMaxPool):
            return module.gated(given[0], run, each)
        return module(*args, **kwargs)


def _enter(x: Tensor, encoder: Encoding, run: Run) -> Spikes | Constant:
    return encode(x, run.keys, run.start, run.stop) if encoder == "poisson" else Constant(x)


def _copied(value: Any) -> Any:
    """Of spikes every reader makes dense values of its own."""
    if isinstance(value, Constant):
        return Constant(value.value.clone())
    return value.clone() if isinstance(value, Tensor) else value


def _spikes(value: Any) -> Any:
    return value.spikes if isinstance(value, _Pending) else value


def _tensors(value: Any) -> list[Tensor]:
    """What a value holds in memory, but for lists of its spikes."""
    value = _spikes(value)
    return [value.maps, value.counts] if isinstance(value, Spikes) else [getattr(value, "value", value)]


def _plain(layer: Layer, currents: Tensor, run: Run) -> Tensor:
    """The neurons by themselves where no kernel knows them."""
    layer.lif.run = run
    try:
        out: Tensor = layer.lif(currents)
    finally:
        layer.lif.run = None
    return functional.avg_pool2d(out, layer.pool) if layer.pool > 1 else out


def _dense(value: Any, run: Run) -> Any:
    """A value at all steps, [T * B, ...]."""
    if isinstance(value, Spikes):
        return value.dense()
    if isinstance(value, Constant):
        return value.value.expand(run.stop - run.start, *value.value.shape).flatten(0, 1)
    return value


def _mean(value: Any, run: Run) -> Any:
    """The mean of a value over steps, [B, ...]."""
    if isinstance(value, Spikes):
        return value.mean()
    if isinstance(value, Constant):
        return value.value
    return value.unflatten(0, (run.stop - run.start, run.batch)).mean(0) if isinstance(value, Tensor) else value
