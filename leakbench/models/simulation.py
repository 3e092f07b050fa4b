"""Answers of a spiking network to many images, in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from leakbench.models.training import Progress
from leakbench.snn import SpikingNetwork


@torch.no_grad()
def simulated(
    network: SpikingNetwork,
    images: Tensor,
    seed: int,
    stops: Sequence[int],
    device: torch.device,
    progress: Progress,
    batch_size: int = 100,  # twice the images take twice the time each: tensors of a GiB miss every cache
) -> dict[int, tuple[Tensor, dict[str, int]]]:
    """Steps -> (logits [N, classes], spikes by layer) after so many, from one simulation of images [N, C, H, W]."""
    logits: dict[int, list[Tensor]] = {steps: [] for steps in stops}
    spikes: dict[int, Counter[str]] = {steps: Counter() for steps in stops}
    for first in range(0, len(images), batch_size):
        progress("asking the protected network", first, len(images))
        x = images[first : first + batch_size].to(device)
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        for steps, simulation in network.simulate_at(x, stops, seed, first).items():
            logits[steps].append(simulation.logits.cpu())
            spikes[steps].update(simulation.spikes)
    return {steps: (torch.cat(logits[steps]), dict(spikes[steps])) for steps in stops}
