"""Undoing weight scaling: from a published network of unit thresholds back to one that an attack can work on.

Weight scaling, W_l lam_(l-1) / lam_l and b_l / lam_l with all thresholds 1, and threshold scaling are the same network
(method, section 3). It hides nothing, but it shrinks logits, on which plain gradient ascent hangs.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.snn.network import SpikingNetwork, relu_network

_GRID = [2.0**k for k in range(-4, 5)]
_SWEEPS = 2


@torch.no_grad()
def reconverted(network: SpikingNetwork | ImageClassifier, probes: Tensor, seed: int) -> ImageClassifier:
    """The ReLU network that an attacker reads out of a deployed one, weight scaling undone.

    Where all thresholds are 1, each layer gets the norm back that its initialisation gave it; in a chain of positively
    homogeneous layers this multiplies all logits by one factor and changes nothing else. Where there are biases, one
    factor a layer is searched for on agreement with the network's own logits on ``probes`` [B, C, H, W] in [0, 1],
    since a bias may count differently for spikes (leaks, resets, other units). Any other network comes as it is.
    """
    ann = relu_network(network)
    if not isinstance(network, SpikingNetwork) or any(bool((n.threshold != 1).any()) for n in network.neurons):
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
            own, chosen = bias.clone(), 1.0
            for factor in _GRID:
                bias.copy_(own * factor)
                reached = agreement()
                if reached > best + 1e-6:
                    best, chosen = reached, factor
            bias.copy_(own * chosen)
