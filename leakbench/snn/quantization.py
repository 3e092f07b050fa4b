"""Weights of eight bits: symmetric, with one scale for each output channel, as integer hardware keeps them.

    w[o] becomes s[o] q[o]     q[o] = round(w[o] / s[o]) in -127..127     s[o] = max |w[o]| / 127

The scale is rounded to 17 significant bits: each product s q is a float32 then, without rounding, so that the network
of these products is the integer network, and whoever has it finds s and q again (:func:`integers_of`).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.errors import NotApplicable
from leakbench.snn.network import SpikingNetwork

LARGEST = 127
"""of the whole numbers that weights become; -128 is left out, as it has no opposite"""
_SCALE_BITS = 17
"""24 bits of a float32, less the 7 of a whole number"""
_ULPS = 2
"""a scale that is found again by dividing a rounded product is off by no more"""


@torch.no_grad()
def quantized(network: SpikingNetwork | ImageClassifier) -> SpikingNetwork | ImageClassifier:
    """A copy whose convolutions and linear layers have int8 weights, as the numbers that these stand for.

    Biases, thresholds and the constants of normalisation stay as they are: hardware has them in its accumulators'
    resolution, and where branches are added or maps averaged there is no unit that they were whole numbers of.
    NotApplicable where the network has no such layers, or one whose weight is computed of others.
    """
    made = copy.deepcopy(network)
    layers = weight_layers(made)
    if not layers:
        raise NotApplicable("it has no convolution and no linear layer (Conv2d, Linear) whose weights could be int8")
    for name, layer in layers.items():
        if "weight" not in layer._parameters:
            raise NotApplicable(f"the weight of {name!r} is computed of other tensors: int8 has to be a parameter's")
        numbers, scale = _rounded(layer.weight)
        layer.weight.copy_(product(numbers, scale))
    return made


def weight_layers(network: SpikingNetwork | ImageClassifier) -> dict[str, nn.Conv2d | nn.Linear]:
    """Name in the body -> layer, each once."""
    return {name: module for name, module in network.body.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def product(numbers: Tensor, scale: Tensor) -> Tensor:
    """Whole ``numbers`` [OUT, ...] times a ``scale`` [] or [OUT], rounded once, to float32."""
    each = scale.double().reshape(-1, *[1] * (numbers.dim() - 1)) if scale.dim() else scale.double()
    return (numbers.double() * each).float()


def integers_of(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """int8 numbers [OUT, ...] and scales [OUT] whose :func:`product` is ``weight``, every bit of it.

    None where there are none: where a channel holds anything but whole numbers in -128..127 times one float32. Whole
    numbers have the scale 1.
    """
    rows = weight.detach().cpu().flatten(1)
    if weight.dtype != torch.float32 or not rows.numel():
        return None
    scales = torch.ones(len(rows))
    for channel, row in enumerate(rows):
        scale = _scale_of(row.unique())
        if scale is None:
            return None
        scales[channel] = scale
    return (rows / scales[:, None]).round().to(torch.int8).view(weight.shape), scales


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest int8 numbers and their scales [OUT]."""
    most = weight.flatten(1).abs().amax(1)
    mantissa, exponent = torch.frexp(most / LARGEST)
    scale = torch.ldexp((mantissa * 2**_SCALE_BITS).round() / 2**_SCALE_BITS, exponent)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # of channels of zeros
    each = scale.view(-1, *[1] * (weight.dim() - 1))
    return (weight / each).round().clamp(-LARGEST, LARGEST).to(torch.int8), scale


def _scale_of(values: Tensor) -> Tensor | None:
    """The scale of a channel that holds these different values."""
    most = values.abs().max()
    if not most > 0:
        return torch.tensor(1.0)
    if len(values) > 2 * LARGEST + 2:
        return None
    likely = torch.stack([torch.ones(()), most / LARGEST])  # whole numbers, and what quantized makes
    fitting = _fitting(values, likely)
    if not len(fitting):
        near = [most / torch.arange(LARGEST + 1, 0, -1)]
        for towards in (0.0, torch.inf):
            step = near[0]
            for _ in range(_ULPS):
                step = torch.nextafter(step, torch.full_like(step, towards))
                near.append(step)
        fitting = _fitting(values, torch.cat(near))
    return fitting[0] if len(fitting) else None


def _fitting(values: Tensor, scales: Tensor) -> Tensor:
    """Those of the scales that all values are int8 multiples of."""
    scales = scales[(scales > 0) & torch.isfinite(scales)]
    numbers = (values / scales[:, None]).round()
    fits = (numbers * scales[:, None] == values) & (numbers >= -LARGEST - 1) & (numbers <= LARGEST)
    return scales[fits.all(1)]
