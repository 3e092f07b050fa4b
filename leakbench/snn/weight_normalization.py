"""Weight scaling, and undoing it: to a network of unit thresholds, and back to one that an attack can work on.

Weight scaling, W_l lam_(l-1) / lam_l and b_l / lam_l with all thresholds 1, and threshold scaling are the same network
(docs/method.md, Attacks). It hides nothing, but it may shrink logits, which plain gradient ascent depends on.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, fx, nn

from leakbench.contracts import ImageClassifier, ModuleNetwork
from leakbench.errors import NotApplicable, UsageError
from leakbench.snn.blocks import Affine
from leakbench.snn.network import SpikingNetwork, relu_network

_GRID = [2.0**k for k in range(-4, 5)]
_SWEEPS = 2


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Affine) or super().is_leaf_module(m, module_qualified_name)


def is_chain(body: nn.Module) -> bool:
    """Whether each layer of a network hands its output to one other alone: no branches, no skips, no sums, no weights
    that are used twice; and nothing is shifted but what enters, where units are those of images."""
    try:
        nodes = _Tracer().trace(body).nodes
    except Exception:  # whatever a network's code does when it is handed symbols
        return False
    parts = dict(body.named_modules())
    shifts = [n for n in nodes if n.op == "call_module" and isinstance(parts[str(n.target)], Affine)]
    if any(node.all_input_nodes[0].op != "placeholder" for node in shifts):
        return False
    called = [parts[str(node.target)] for node in nodes if node.op == "call_module"]
    weighted = [id(part) for part in called if [*part.parameters()]]
    if len(weighted) > len(set(weighted)):  # the factors of each use would be multiplied in one after the other
        return False
    return all(len(node.all_input_nodes) <= 1 and len(node.users) == (node.op != "output") for node in nodes)


@torch.no_grad()
def scale_weights(network: SpikingNetwork) -> None:
    """Weight scaling in place: W_l theta_(l-1) / theta_l, b_l / theta_l, and thresholds of 1 (Rueckauer 2017).

    Input and logits keep their units: the last layer is multiplied by the threshold before it, and its bias stays. A
    pooling layer that spikes has no weights: its threshold has to be that of the layer before it (UsageError). Raises
    NotApplicable for networks with branches.
    """
    if not is_chain(network.reconvert().body):
        raise NotApplicable(
            "weights are scaled along a chain of layers, and this network has branches: scaling=thresholds is the "
            "same network of spikes"
        )
    worth: dict[str, float] = {}
    before = 1.0
    for layer in network.neurons:
        if layer.threshold.numel() != 1:
            raise UsageError(f"one factor a layer scales weights, {layer.layer!r} has thresholds of its own a neuron")
        worth[layer.layer] = theta = float(layer.threshold)
        if network.topology.feeders[layer.layer]:
            feeder = network.feeder(layer)
            feeder.weight.div_(theta)
            if feeder.bias is not None:
                feeder.bias.div_(theta)
        elif theta != before:
            raise UsageError(
                f"{layer.layer!r} has no weights to scale: its threshold must be {before:g}, got {theta:g}"
            )
        layer.initial = layer.initial / theta
        layer.set_threshold(1.0)
        before = theta
    parts = dict(network.body.named_modules())
    for entered in network.topology.weights:
        # once an activation: of several weight layers in a row, its spikes enter the first
        weight = parts[entered.name].weight
        assert isinstance(weight, Tensor)
        weight.mul_(worth.pop(entered.producers[0], 1.0))


@torch.no_grad()
def reconverted(network: SpikingNetwork | ImageClassifier, probes: Tensor, seed: int) -> ImageClassifier:
    """The ReLU network that an attacker reads out of a deployed one, weight scaling undone.

    Where all thresholds are 1, each layer gets the norm back that its initialisation gave it; in a chain of positively
    homogeneous layers this multiplies all logits by one factor and changes nothing else. Where there are biases, one
    factor a layer is searched for on agreement with the network's own logits on ``probes`` [B, C, H, W] in [0, 1],
    since a bias may count differently for spikes (leaks, resets, other units). Any other network comes as it is.
    """
    ann = relu_network(network)
    if not isinstance(network, SpikingNetwork) or not all(_is_one(layer.threshold) for layer in network.neurons):
        return ann
    rescaled = copy.deepcopy(ann)
    layers = [rescaled.body.get_submodule(layer.name) for layer in network.topology.weights]
    factor = _give_back_norms(layers)
    # beside a skip or a batch norm, layers do not take factors alike
    wanted = factor * ann(probes)
    if not float((rescaled(probes) - wanted).abs().max()) <= 1e-3 * float(wanted.abs().max()):
        return ann
    biases = [layer.bias for layer in layers if isinstance(layer.bias, Tensor)]
    if biases:
        _match_biases(rescaled, biases, network(probes, seed=seed), probes)
    return rescaled


def _is_one(threshold: Tensor) -> bool:
    """A pool that fires at its threshold of 1 has one a little below it."""
    return bool(((threshold - 1).abs() <= 1e-4).all())


def searched(network: SpikingNetwork | ImageClassifier, probes: Tensor, seed: int) -> ImageClassifier:
    """What an attacker with the weights follows the gradients of: the ReLU network, or a module's own.

    Parameters as of :func:`reconverted`.
    """
    return network if isinstance(network, ModuleNetwork) else reconverted(network, probes, seed)


def _give_back_norms(layers: list[nn.Module]) -> float:
    """Scales weights, in the order of execution, and biases with all weights before them; the factor of the logits."""
    so_far = 1.0
    for layer in layers:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        norm = float(weight.norm())
        if norm > 0:
            factor = math.sqrt(2 / weight[0].numel() * weight.numel()) / norm
            so_far *= factor
            weight.mul_(factor)
        if isinstance(layer.bias, Tensor):
            layer.bias.mul_(so_far)
    return so_far


def _match_biases(ann: ImageClassifier, biases: list[Tensor], wanted: Tensor, probes: Tensor) -> None:
    """Coordinate search over a factor on each layer's bias for the best correlation with the logits ``wanted``."""

    def agreement() -> float:
        pair = torch.stack([ann(probes).flatten(), wanted.flatten()]).double()
        return float(torch.corrcoef(pair)[0, 1].nan_to_num())

    best = agreement()
    for _ in range(_SWEEPS):
        for bias in biases:
            original, chosen = bias.clone(), 1.0
            for factor in _GRID:
                bias.copy_(original * factor)
                reached = agreement()
                if reached > best + 1e-6:
                    best, chosen = reached, factor
            bias.copy_(original * chosen)
