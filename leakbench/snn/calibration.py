"""Thresholds of a converted network: from what its layers are sent, or from what its ANN's activations are."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier, Loop, arithmetic
from leakbench.errors import NumericalError
from leakbench.snn.network import SpikingNetwork
from leakbench.snn.neurons import LIF

Progress = Callable[[str, int, int], None]

_BATCH = 64
_WATCHED = 1 << 24
"""bytes of one chunk of time: each is looked at once, and twice as fast while it stays in a cache"""


def quiet(_what: str, _done: int, _total: int) -> None:
    """Tells no progress."""


@torch.no_grad()
def balance_thresholds(
    network: SpikingNetwork,
    images: Tensor,
    seed: int,
    scale: float = 1.0,
    steps: int | None = None,
    batch_size: int = 64,
    progress: Progress = quiet,
    loop: Loop | None = None,
) -> None:
    """Set theta_l = scale * max over images and steps of the one-step weighted input W_l o_(l-1)(t), in order.

    Each layer is measured under the thresholds already found (Sengupta 2019, Spike-Norm; Han 2020, RMP, with soft
    reset and scale beta). ``images`` [N, C, H, W] in [0, 1]; ``steps`` are the network's T where none are given. In a
    ``loop``, layers that an interrupted run measured are not measured again.
    Raises NumericalError where a layer gets no positive input or NaN.
    """
    layers = network.neurons
    walks = network.walks(len(images) * (steps or network.config.timesteps))
    for done in (loop or Loop()).steps(len(layers), network=network):
        layer = layers[done]
        progress("balancing thresholds", done, len(layers))
        highest = -math.inf
        for first in range(0, len(images), batch_size):
            for current in network.currents(layer, images[first : first + batch_size], seed, first, steps, walks):
                value = float(current.max())
                if math.isnan(value):
                    raise NumericalError(f"NaN in the input of layer {layer.layer!r} while thresholds were balanced")
                highest = max(highest, value)
        if not 0 < highest < math.inf:
            raise NumericalError(
                f"layer {layer.layer!r} never gets a positive finite input (highest {highest:g}): no threshold for it"
            )
        layer.set_threshold(scale * highest)
    progress("balancing thresholds", len(layers), len(layers))


@torch.no_grad()
def watch_activations(
    ann: ImageClassifier, images: Tensor, watch: Callable[[str, Tensor], None], progress: Progress = quiet
) -> None:
    """Shows ``watch`` the name and the outputs [B, ...] of each nn.ReLU on ``images`` [N, C, H, W] in [0, 1].

    One pass in batches, activations in the order of execution, so that nothing larger than a batch need be kept.
    """

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _args, out: watch(name, out)

    relus = [(name, module) for name, module in ann.body.named_modules() if isinstance(module, nn.ReLU)]
    handles = [module.register_forward_hook(hook(name)) for name, module in relus]
    try:
        for first in range(0, len(images), _BATCH):
            progress("recording activations", first, len(images))
            with arithmetic("float32", images.device):  # thresholds are exact, whatever the network computes in
                ann.body(ann.input_range(images[first : first + _BATCH]))
    finally:
        for handle in handles:
            handle.remove()
    progress("recording activations", len(images), len(images))


def highest_activations(ann: ImageClassifier, images: Tensor, progress: Progress = quiet) -> dict[str, float]:
    """nn.ReLU -> its largest output over neurons and ``images`` [N, C, H, W] in [0, 1]; NaN where there is one."""
    highest: dict[str, Tensor] = {}

    def watch(name: str, out: Tensor) -> None:
        highest[name] = torch.maximum(highest[name], out.max()) if name in highest else out.max()

    watch_activations(ann, images, watch, progress)
    return {name: float(value) for name, value in highest.items()}


def mean_activations(ann: ImageClassifier, images: Tensor, progress: Progress = quiet) -> dict[str, Tensor]:
    """nn.ReLU -> mean output of each neuron, [C, H, W] or [features], over ``images`` [N, C, H, W] in [0, 1]."""
    total: dict[str, Tensor] = {}

    def watch(name: str, out: Tensor) -> None:
        total[name] = total.get(name, torch.zeros_like(out[0])) + out.sum(0)

    watch_activations(ann, images, watch, progress)
    return {name: value / len(images) for name, value in total.items()}


def percentile_activations(
    ann: ImageClassifier, images: Tensor, percentile: float, progress: Progress = quiet
) -> dict[str, float]:
    """nn.ReLU -> percentile of its outputs that are not 0, over neurons and ``images`` [N, C, H, W] in [0, 1].

    Interpolated between ranks as NumPy does; 0 where an activation is 0 for every image. Only as many of the largest
    outputs as the percentile may need are kept: for 99.9, a thousandth.
    """
    above = 1 - percentile / 100
    largest: dict[str, Tensor] = {}
    active: dict[str, int] = {}

    def watch(name: str, out: Tensor) -> None:
        values = out[out != 0]
        active[name] = active.get(name, 0) + len(values)
        kept = torch.cat([largest.get(name, values[:0]), values])
        needed = math.floor((out[0].numel() * len(images) - 1) * above) + 2
        largest[name] = kept.topk(min(needed, len(kept))).values

    def interpolated(name: str) -> float:
        if not active[name]:
            return 0.0
        rank = (active[name] - 1) * above
        high, low = largest[name][math.floor(rank)], largest[name][math.ceil(rank)]
        return float(high + (low - high) * (rank - math.floor(rank)))

    watch_activations(ann, images, watch, progress)
    return {name: interpolated(name) for name in largest}


def set_thresholds(network: SpikingNetwork, thresholds: Mapping[str, float]) -> None:
    """Sets each layer's threshold. Raises NumericalError where there is none to set: a layer that is never active."""
    for layer in network.neurons:
        threshold = thresholds[layer.layer]
        if not 0 < threshold < math.inf:
            raise NumericalError(
                f"layer {layer.layer!r} has no positive finite activation (found {threshold:g}): no threshold for it"
            )
        layer.set_threshold(threshold)


def mean_outputs(network: SpikingNetwork, layer: LIF, images: Tensor, seed: int) -> Tensor:
    """Mean output of each neuron of ``layer``, [C, H, W] or [features], over ``images`` [N, C, H, W] and T steps.

    In the ANN's units, to be compared with :func:`mean_activations`.
    """
    total: Tensor | float = 0.0

    def watch(name: str, _currents: Tensor, _membranes: Tensor, out: Tensor) -> None:
        nonlocal total
        if name == layer.layer:
            total = total + out.sum((0, 1))

    whole = network.configured(network.config)  # the same tensors
    whole.memory_budget = _WATCHED
    observed = _up_to(whole, layer)
    for first in range(0, len(images), _BATCH):
        observed.observe(images[first : first + _BATCH], watch, seed + first)  # noise of its own for each batch
    assert isinstance(total, Tensor), "no images"
    return total / (len(images) * network.config.timesteps)


def _up_to(network: SpikingNetwork, layer: LIF) -> SpikingNetwork:
    """The same tensors, without what lies behind ``layer`` where the body is a sequence: nothing there is wanted."""
    body = network.body
    if type(body) is not nn.Sequential:
        return network
    names = [name for name, _ in body.named_modules(remove_duplicate=False) if name and "." not in name]
    names = names[: names.index(layer.layer.partition(".")[0]) + 1]
    kept = nn.Sequential(OrderedDict((name, body.get_submodule(name)) for name in names))
    left = dict(kept.named_modules())
    activations = tuple(name for name in network.topology.activations if name in left)
    topology = replace(network.topology, activations=activations)
    cut = SpikingNetwork(kept.append(nn.Flatten()), network, topology, network.config)
    cut.chunk_steps = network.chunk_steps  # type: ignore[method-assign]  # sums are of the same chunks of time
    return cut
