"""One encryption-training step of a network at 32x32, T = 150: seconds, peak memory, and that parts change nothing.

    python benchmarks/training_step.py                            the paper's VGG16, one step in parts of the batch
    python benchmarks/training_step.py --arch resnet20 --budget 512
    python benchmarks/training_step.py --whole                    the batch at once, in chunks of time
    python benchmarks/training_step.py --ratio                    both in turn: which is faster
    python benchmarks/training_step.py --compare --timesteps 20   chunks of time against none, float64: loss, gradients

In parts, as many images are simulated at once as fit the budget with all their steps, and nothing is computed twice; in
chunks of time, steps are computed again in the backward pass.

float64, because in float32 a convolution over another number of images rounds differently, which now and then moves a
membrane over its threshold: that is no property of the chunks.
"""

from __future__ import annotations

import resource
import time
from statistics import median
from typing import Annotated

import torch
import typer
from torch import Tensor

from leakbench.contracts import InputRange
from leakbench.models.storage import build_ann
from leakbench.runtime.process import tune_process
from leakbench.snn import SpikingConfig, SpikingNetwork, add_gradients, balance_thresholds


def loss_of(logits: Tensor, part: slice, batch: int) -> Tensor:
    wanted = torch.arange(batch)[part] % logits.shape[1]
    return torch.nn.functional.cross_entropy(logits, wanted, reduction="sum") / batch


def step(network: SpikingNetwork, images: Tensor, whole: bool) -> float:
    """Gradients of one step, and the loss."""
    network.zero_grad()
    if not whole:
        return add_gradients(network, images, 1, lambda logits, part: loss_of(logits, part, len(images)))
    loss = loss_of(network(images, seed=1), slice(None), len(images))
    loss.backward()
    return loss.item()


def seconds(network: SpikingNetwork, images: Tensor, whole: bool) -> float:
    start = time.perf_counter()
    step(network, images, whole)
    return time.perf_counter() - start


def compared(network: SpikingNetwork, images: Tensor) -> str:
    network.double()
    chunk = network.chunk_steps(len(images))
    loss = step(network, images.double(), True)
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.memory_budget = 2**50
    unchunked = step(network, images.double(), True)
    apart = max(
        float((a - p.grad).abs().max() / p.grad.abs().max())
        for a, p in zip(gradients, network.parameters(), strict=True)
        if p.grad is not None
    )
    return f"chunks of {chunk}: loss {loss:.12f}, whole {unchunked:.12f}, gradients apart {apart:.1e}"


def main(
    budget: Annotated[int, typer.Option(help="MiB of activations that may be kept at once")] = 1024,
    arch: Annotated[str, typer.Option(help="a network of the family")] = "vgg16",
    timesteps: int = 150,
    batch: int = 8,
    whole: Annotated[bool, typer.Option("--whole", help="the batch at once, in chunks of time")] = False,
    ratio: Annotated[bool, typer.Option("--ratio", help="both, three times in turn")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="chunks of time against none, in float64")] = False,
) -> None:
    tune_process()
    ann = build_ann(arch, (3, 32, 32), 10, InputRange(-1, 1), torch.Generator().manual_seed(0))
    network = SpikingNetwork.from_ann(ann, SpikingConfig(timesteps))
    # a fifth of the maximum: low enough that spikes reach the last layer within a few steps
    first = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    balance_thresholds(network, first, seed=1, scale=0.2)
    network.train().requires_grad_(True)
    images = torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network.memory_budget = budget * 2**20
    what = f"{arch}, T {timesteps}, batch {batch}, budget {budget} MiB"
    if compare:
        print(f"{what}: {compared(network, images)}")
        return
    ways = f"parts of {network.batch_in_memory()} images", f"chunks of {network.chunk_steps(batch)} steps"
    if ratio:
        taken = [(seconds(network, images, False), seconds(network, images, True)) for _ in range(3)]
        parts, chunks = (median(row) for row in zip(*taken, strict=True))
        print(f"{what}: {ways[0]} {parts:.1f} s, {ways[1]} {chunks:.1f} s: {chunks / parts:.2f} times as long")
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    taken_once = seconds(network, images, whole)
    optimizer.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {ways[whole]}, {taken_once:.1f} s, peak {peak:.2f} GiB ({before:.2f} GiB before the step)")


if __name__ == "__main__":
    typer.run(main)
