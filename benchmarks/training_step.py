"""One encryption-training step of a network at 32x32, batch 8, T = 150: seconds, peak memory, and chunks against none.

    python benchmarks/training_step.py                          the paper's VGG16, in chunks of time
    python benchmarks/training_step.py --arch resnet20 --budget 1024
    python benchmarks/training_step.py --compare --timesteps 20  chunked against unchunked in float64: loss, gradients

float64, because in float32 a convolution over another number of images rounds differently, which now and then moves a
membrane over its threshold: that is no property of the chunks.
"""

from __future__ import annotations

import resource
import time
from typing import Annotated

import torch
import typer

from leakbench.contracts import InputRange
from leakbench.models.storage import build_ann
from leakbench.runtime.process import tune_process
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds


def step(network: SpikingNetwork, images: torch.Tensor) -> float:
    network.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(images, seed=1), torch.arange(len(images)))
    loss.backward()
    return loss.item()


def main(
    budget: Annotated[int, typer.Option(help="MiB of activations a chunk may take")] = 2048,
    arch: Annotated[str, typer.Option(help="a network of the family")] = "vgg16",
    timesteps: int = 150,
    compare: bool = False,
) -> None:
    tune_process()
    ann = build_ann(arch, (3, 32, 32), 10, InputRange(-1, 1), torch.Generator().manual_seed(0))
    network = SpikingNetwork.from_ann(ann, SpikingConfig(timesteps))
    # a fifth of the maximum: low enough that spikes reach the last layer within a few steps
    first = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    balance_thresholds(network, first, seed=1, scale=0.2)
    network.train().requires_grad_(True)
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network.memory_budget = budget * 2**20
    if compare:
        network.double()
        chunk = network.chunk_steps(8)
        loss = step(network, images.double())
        gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        network.memory_budget = 2**50
        whole = step(network, images.double())
        apart = max(
            float((a - p.grad).abs().max() / p.grad.abs().max())
            for a, p in zip(gradients, network.parameters(), strict=True)
            if p.grad is not None
        )
        print(
            f"{arch}, T {timesteps}, chunks of {chunk}: loss {loss:.12f}, whole {whole:.12f}, "
            f"gradients apart {apart:.1e}"
        )
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    start = time.perf_counter()
    step(network, images)
    optimizer.step()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{arch}, T {timesteps}, batch 8, budget {budget} MiB: chunks of {network.chunk_steps(8)} steps, "
        f"{seconds:.1f} s, peak {peak:.2f} GiB ({before:.2f} GiB before the step)"
    )


if __name__ == "__main__":
    typer.run(main)
