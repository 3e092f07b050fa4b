"""Gradients of a loss over a batch, a part of the batch at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from leakbench.snn.network import SpikingNetwork

Share = Callable[[Tensor, slice], Tensor]
"""(logits [b, classes], which images of the batch they are of) -> what these images add to the loss of the batch"""


def add_gradients(network: SpikingNetwork, images: Tensor, seed: int, share: Share) -> float:
    """Adds the gradients of a loss over ``images`` [B, C, H, W] to those of the parameters; returns the loss.

    The loss has to be a sum over images. As many of them are simulated at once as fit the network's memory budget with
    all their steps, since steps that don't fit are computed again in the backward pass. Noise goes by an image's index:
    parts change sums by rounding, and nothing else. A network that normalises over the batch is to fit as a whole.
    """
    parts = math.ceil(len(images) / network.batch_in_memory())
    size = math.ceil(len(images) / parts)  # alike, so that no part is small
    total = 0.0
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        loss = share(network(images[part], seed=seed, first_index=start), part)
        loss.backward()
        total += loss.item()
    return total
