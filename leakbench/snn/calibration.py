"""Thresholds of a converted network, layer by layer from images (Spike-Norm and its successors)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from leakbench.errors import NumericalError
from leakbench.snn.network import SpikingNetwork


@torch.no_grad()
def balance_thresholds(
    network: SpikingNetwork,
    images: Tensor,
    seed: int,
    scale: float = 1.0,
    batch_size: int = 64,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
) -> None:
    """Set theta_l = scale * max over images and steps of the one-step weighted input W_l o_(l-1)(t), in order.

    Each layer is measured under the thresholds already found (Sengupta 2019, Spike-Norm; Han 2020, RMP, with soft
    reset and scale beta). ``images`` [N, C, H, W] in [0, 1]. Raises NumericalError where a layer gets no positive
    input or NaN.
    """
    layers = network.neurons
    for done, layer in enumerate(layers):
        progress("balancing thresholds", done, len(layers))
        highest = -math.inf
        for first in range(0, len(images), batch_size):
            for current in network.currents(layer, images[first : first + batch_size], seed, first):
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
