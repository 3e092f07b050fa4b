"""The floor under a simulation: dense convolutions against listed spikes, layer by layer and density by density.

    python benchmarks/kernels.py                  one thread; processor time, the fastest of several runs
    python benchmarks/kernels.py --rounds 10 --densities .05,.1,.2,.4

A layer of 128 maps or more, as many multiply-accumulates as the layers of VGG16 and VGG5 have. Dense: oneDNN's
convolution through PyTorch, in float32 and bfloat16, forwards, to the input and to the weights. Tiles: Winograd's,
which gradients take. Listed: the kernels of leakbench.snn, with listing, neurons and pooling in the time, which the
others are without. G/s are billions of multiply-accumulates a second (dense) or of additions (listed). Where the listed
time is above the dense one, spikes are too many.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional

from leakbench.runtime.process import tune_process
from leakbench.snn import LIF, Neuron
from leakbench.snn.engine import winograd
from leakbench.snn.engine.events import Layer
from leakbench.snn.engine.spikes import Spikes
from leakbench.snn.engine.vectors import LANES, OUTPUT


@dataclass(frozen=True)
class Shape:
    """A 3x3 convolution of maps of side x side."""

    channels_in: int
    channels: int
    side: int
    maps: int

    @property
    def macs(self) -> int:
        return self.channels_in * self.channels * 9 * self.side**2 * self.maps


SHAPES = (
    Shape(64, 64, 32, 128),
    Shape(256, 256, 8, 128),
    Shape(512, 512, 4, 128),
    Shape(512, 512, 2, 128),
    Shape(1, 32, 28, 1024),
    Shape(32, 64, 14, 1024),
    Shape(64, 128, 7, 1024),
)


def fastest(rounds: int, call: Callable[[], object]) -> float:
    """Processor milliseconds of the fastest of several calls, after one to warm up."""
    call()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def dense(shape: Shape, rounds: int, dtype: torch.dtype) -> list[float]:
    """Forwards, to the input, to the weights; milliseconds."""
    layout = torch.channels_last
    x = torch.rand(shape.maps, shape.channels_in, shape.side, shape.side).to(dtype).contiguous(memory_format=layout)
    weight = torch.randn(shape.channels, shape.channels_in, 3, 3).to(dtype).contiguous(memory_format=layout)
    turned = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=layout)
    out = functional.conv2d(x, weight, padding=1)
    sides = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)

    def to_weights() -> object:
        return torch.ops.aten.convolution_backward(out, x, weight, None, *sides, [False, True, False])

    calls = (lambda: functional.conv2d(x, weight, padding=1), lambda: functional.conv2d(out, turned, padding=1))
    return [fastest(rounds, call) for call in (*calls, to_weights)]


def tiles(shape: Shape, rounds: int) -> list[float]:
    """To the input, to the weights; milliseconds."""
    grad = torch.randn(shape.maps, shape.side, shape.side, shape.channels)
    maps = (torch.rand(shape.maps, shape.side, shape.side, shape.channels_in) < 0.2).to(torch.int8)
    weight = torch.randn(shape.channels, shape.channels_in, 3, 3)
    to_input = fastest(rounds, lambda: winograd.input_gradient(grad, weight, 1, shape.side, shape.side))
    return [to_input, fastest(rounds, lambda: winograd.weights_gradient(maps, grad, 1))]


def listed(shape: Shape, density: float, pooled: bool, rounds: int) -> list[float]:
    """Forwards and to the weights; milliseconds."""
    generator = torch.Generator().manual_seed(0)
    convolution = nn.Conv2d(shape.channels_in, shape.channels, 3, padding=1, bias=False)
    lif = LIF("", Neuron())
    lif.set_threshold(1.0)
    layer = Layer(lif, convolution, pool=2)
    batch = 8
    size = (shape.maps // batch, batch, shape.side, shape.side, shape.channels_in)
    maps = (torch.rand(size, generator=generator) < density).to(torch.int8)
    if pooled:  # several spikes of four neurons
        maps *= torch.randint(1, 4, size, generator=generator).to(torch.int8)
    spikes = Spikes(torch.empty(1).expand(size), maps, maps.bool().sum((2, 3, 4)), torch.ones(size[4]), not pooled)

    def forward() -> tuple[Spikes, Tensor]:
        with torch.no_grad():
            return layer.from_spikes(replace(spikes), None, keep=False)  # a copy: lists anew

    convolution.requires_grad_(False)
    forwards = fastest(rounds, forward)
    convolution.requires_grad_(True)
    times = []
    for _ in range(rounds + 1):
        out, _ = layer.from_spikes(spikes, None, keep=True)
        start = time.process_time()
        out.mean().sum().backward()
        times.append(time.process_time() - start)
    return [forwards, 1e3 * min(times)]


def main(
    rounds: int = 5, densities: str = "0.02,0.05,0.1,0.2,0.34", threads: Annotated[int, typer.Option(min=1)] = 1
) -> None:
    tune_process()
    torch.set_num_threads(threads)
    print("| layer | kind | forwards ms (G/s) | to input ms | to weights ms |")
    print("|---|---|---|---|---|")
    for shape in SHAPES:
        name = f"{shape.channels_in}-{shape.channels}, {shape.side}x{shape.side}, {shape.maps} maps"
        for dtype in (torch.float32, torch.bfloat16):
            forwards, to_input, to_weights = dense(shape, rounds, dtype)
            rate = shape.macs / forwards / 1e6
            kind = str(dtype).removeprefix("torch.")
            print(
                f"| {name} | dense {kind} | {forwards:.1f} ({rate:.0f}) | {to_input:.1f} | {to_weights:.1f} |",
                flush=True,
            )
            name = ""
        if shape.channels_in % LANES == 0 and shape.side >= OUTPUT:
            to_input, to_weights = tiles(shape, rounds)
            print(f"| | tiles float32 | | {to_input:.1f} | {to_weights:.1f} |", flush=True)
        for density in map(float, densities.split(",")):
            forwards, to_weights = listed(shape, density, density > 0.2, rounds)
            rate = density * shape.macs / forwards / 1e6
            print(f"| | listed, {density:.0%} | {forwards:.1f} ({rate:.0f}) | | {to_weights:.1f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
