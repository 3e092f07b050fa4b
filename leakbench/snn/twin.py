"""The analog twin: an ANN whose activations are the transfer functions of a spiking network's neurons.

Putting ReLUs back (Algorithm 1's first step) forgets what thresholds, leaks and resets do: a neuron fires at most once
a step, and a leaky one hardly below (1 - leak) theta. The twin keeps them: it computes what the deployed network does,
up to the noise of its spikes (docs/method.md, Attacks).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.snn.calibration import Progress, quiet
from leakbench.snn.folding import replace
from leakbench.snn.network import SpikingNetwork
from leakbench.snn.neurons import LIF, TimeFixedDropout
from leakbench.snn.transfer import Transfer, transfers


def analog_twin(network: SpikingNetwork, progress: Progress = quiet) -> ImageClassifier:
    """An ANN with a copy of the network's weights whose activations are its neurons' transfer functions."""
    body, found = copy.deepcopy(network.body), transfers(network, progress)
    for name, module in list(body.named_modules()):
        if isinstance(module, LIF):
            replace(body, name, found[module.layer])
        elif isinstance(module, TimeFixedDropout):
            replace(body, name, module.plain())
    return ImageClassifier(
        body, network.image_shape, network.classes, network.input_range, network.arch, network.config.precision
    ).eval()


@dataclass(frozen=True)
class Agreement:
    """How well an ANN predicts what a spiking network does."""

    correlation: float
    """Pearson's r of the logits over images and classes"""
    same_class: float
    """share of images to which both give the same class"""
    rate_error: dict[str, float]
    """layer -> mean absolute error of the rates, spikes a step"""


@torch.no_grad()
def agreements(network: SpikingNetwork, images: Tensor, seed: int, *anns: ImageClassifier) -> list[Agreement]:
    """Compares each ANN with one simulation of ``images`` [B, C, H, W] in [0, 1].

    Rates are compared where an ANN has transfer functions.
    """
    rates: dict[str, Tensor] = {}
    steps = network.passes

    def watch(layer: str, _current: Tensor, _v: Tensor, out: Tensor) -> None:
        rates[layer] = rates.get(layer, torch.zeros(())) + out.sum(0, dtype=torch.float64) / steps

    logits = network.observe(images, watch, seed)
    return [_agreement(ann, images, logits, rates) for ann in anns]


def _agreement(ann: ImageClassifier, images: Tensor, logits: Tensor, rates: dict[str, Tensor]) -> Agreement:
    errors: dict[str, float] = {}

    def compare(module: nn.Module, _args: Any, out: Tensor) -> None:
        assert isinstance(module, Transfer)
        # in doubles: thresholds of a network whose layers were scaled against each other may be as large as floats are
        error = (out.double() - rates[module.layer]) / module.unit.double()
        errors[module.layer] = float(error.abs().mean())

    parts = [module for module in ann.modules() if isinstance(module, Transfer)]
    handles = [module.register_forward_hook(compare) for module in parts]
    try:
        predicted = ann(images)
    finally:
        for handle in handles:
            handle.remove()
    pair = torch.stack([predicted.flatten(), logits.flatten()]).double()
    constant = bool((pair.std(1) == 0).any())
    return Agreement(
        0.0 if constant else float(torch.corrcoef(pair)[0, 1]),
        float((predicted.argmax(1) == logits.argmax(1)).double().mean()),
        errors,
    )
