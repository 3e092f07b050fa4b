"""The analog twin: an ANN whose activations are the transfer functions of a spiking network's neurons.

Putting ReLUs back (Algorithm 1's first step) forgets what thresholds and leaks do: a neuron fires at most once a step,
and a leaky one not at all below (1 - leak) theta. The twin keeps both, so that it computes what the deployed network
computes, up to the noise of its spikes (docs/method.md, Attacks: transfer functions).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from leakbench.contracts import ImageClassifier
from leakbench.snn.adaptive import Adaptive, AdaptiveMean
from leakbench.snn.folding import replace
from leakbench.snn.general import FIRES, General
from leakbench.snn.network import SpikingNetwork
from leakbench.snn.neurons import LIF, TimeFixedDropout

LEAKY = 0.1
"""slope of the gradient where a neuron is silent or saturated, so that it can be brought back"""


class _Clipped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, current: Tensor, threshold: Tensor, offset: Tensor, least: float | Tensor, hard: bool, most: float
    ) -> Tensor:
        rate = current / threshold
        silent = rate <= least
        rate.add_(offset)
        # 1 + half a current in the mean: what a spike takes away, over theta
        taken = 1 + rate.clamp(min=0) / 2 if hard else None
        if taken is not None:
            rate.div_(taken)
        rate.clamp_(0, most).masked_fill_(silent, 0)
        inside = (rate > 0) & (rate < most)
        ctx.save_for_backward(inside, taken)
        return rate.mul_(threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        inside, taken = ctx.saved_tensors
        slope = torch.where(inside, grad if taken is None else grad / taken**2, grad * LEAKY)
        return slope, None, None, None, None, None


class TransferFunction(nn.Module):
    """Mean output of a LIF or switch neuron over T steps against its mean current I, in the ANN's units.

    Soft reset: theta * clip(r, 0, 1) with r = I / theta - (1 - leak) / 2 + (u_0 / theta - 1/2) / T, 0 where
    I <= (1 - leak) theta: what enters, less what leaks from half a threshold and the half that is left at the end. Hard
    reset loses what is above theta at each spike, half of r in the mean: r becomes r / (1 + r / 2).
    """

    threshold: Tensor
    offset: Tensor

    def __init__(self, layer: LIF, timesteps: int) -> None:
        super().__init__()
        self.layer = layer.layer
        leak = layer.neuron.leak
        self.least = 1 - leak
        self.hard = layer.neuron.reset == "hard"
        self.register_buffer("threshold", layer.threshold.clone())
        self.register_buffer("offset", (layer.initial / layer.threshold - 0.5) / timesteps - (1 - leak) / 2)

    def forward(self, current: Tensor) -> Tensor:
        args = (current, self.threshold, self.offset, self.least, self.hard, 1.0)
        return cast(Tensor, _Clipped.apply(*args))  # type: ignore[no-untyped-call]

    @property
    def unit(self) -> Tensor:
        """What one spike a step is worth."""
        return self.threshold


class GeneralTransfer(nn.Module):
    """The same for neurons whose spikes take away, or lead away from the threshold, another amount than theta.

    With D for that amount, the membrane is theta - D / 2 in the mean; currents count weight / (1 - synapse) times.
    """

    unit: Tensor
    span: Tensor
    offset: Tensor
    least: Tensor

    def __init__(self, layer: General, timesteps: int) -> None:
        super().__init__()
        self.layer = layer.layer
        self.hard = not bool(layer.subtracts.bool().all())
        self.most = torch.inf if FIRES[int(layer.fires)] == "many" else 1.0
        middle = layer.threshold - layer.span / 2
        leaking = 1 - layer.leak
        left = (layer.initial - middle) / timesteps
        self.register_buffer("unit", layer.worth.clone())
        self.register_buffer("span", layer.span * (1 - layer.synapse) / layer.weight)
        self.register_buffer("offset", (left - leaking * middle) / layer.span)
        self.register_buffer("least", leaking * layer.threshold / layer.span)

    def forward(self, current: Tensor) -> Tensor:
        args = (current, self.span, self.offset, self.least, self.hard, self.most)
        return cast(Tensor, _Clipped.apply(*args)) * (self.unit / self.span)  # type: ignore[no-untyped-call]


Transfer = TransferFunction | GeneralTransfer | AdaptiveMean


def _transfer(layer: LIF, timesteps: int) -> Transfer:
    if isinstance(layer, Adaptive):
        return AdaptiveMean(layer, timesteps, LEAKY)
    if isinstance(layer, General):
        return GeneralTransfer(layer, timesteps)
    return TransferFunction(layer, timesteps)


def analog_twin(network: SpikingNetwork) -> ImageClassifier:
    """An ANN with a copy of the network's weights whose activations are its neurons' transfer functions."""
    body = copy.deepcopy(network.body)
    for name, module in list(body.named_modules()):
        if isinstance(module, LIF):
            replace(body, name, _transfer(module, network.config.timesteps))
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
