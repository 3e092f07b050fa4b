"""Answers of a spiking network to many images, in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from leakbench.contracts import Loop, Part, Rows, State
from leakbench.models.training import Progress
from leakbench.snn import SpikingNetwork


class _Spikes(Counter[str]):
    """Spikes by layer."""

    def state(self) -> State:
        return {layer: torch.tensor(count) for layer, count in self.items()}

    def restore(self, state: State) -> None:
        self.clear()
        self.update({layer: int(count) for layer, count in state.items()})


@torch.no_grad()
def simulated(
    network: SpikingNetwork,
    images: Tensor,
    seed: int,
    stops: Sequence[int],
    device: torch.device,
    progress: Progress,
    loop: Loop | None = None,
    batch_size: int = 100,  # twice the images take twice the time each: tensors of a GiB miss every cache
) -> dict[int, tuple[Tensor, dict[str, int]]]:
    """Steps -> (logits [N, classes], spikes by layer) after so many, from one simulation of images [N, C, H, W].

    With a ``loop`` it goes on where an interrupted run stopped.
    """
    logits = {steps: Rows() for steps in stops}
    spikes = {steps: _Spikes() for steps in stops}
    parts: dict[str, Part] = {f"logits {steps}": rows for steps, rows in logits.items()}
    parts |= {f"spikes {steps}": counts for steps, counts in spikes.items()}
    for batch in (loop or Loop()).steps(-(-len(images) // batch_size), **parts):
        first = batch * batch_size
        progress("asking the protected network", first, len(images))
        x = images[first : first + batch_size].to(device)
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        for steps, simulation in network.simulate_at(x, stops, seed, first).items():
            logits[steps].add(simulation.logits)
            spikes[steps].update(simulation.spikes)
    return {steps: (logits[steps].tensor, dict(spikes[steps])) for steps in stops}
