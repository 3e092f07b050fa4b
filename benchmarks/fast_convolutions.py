"""What convolutions with fewer multiplications gain in a training step and in one of synthesis.

    python benchmarks/fast_convolutions.py

Writes docs/results/fast-convolutions.md. On one thread, with oneDNN's convolutions and with ours in turn; gradients of
both beside those in float64, at smooth images of random noise.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from statistics import median

import result_page
import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import InputRange
from leakbench.models.fast_convolutions import fast_convolutions
from leakbench.models.judges import JUDGES
from leakbench.models.storage import build_ann
from leakbench.runtime.process import tune_process

IMAGES, ROUNDS = 128, 7
FEW, DRAWS = 48, 7
SHAPE = (3, 32, 32)
MODELS = ("vgg5", "vgg9", "vgg16", "resnet18")
PICTURES = ("bnconv", "residual")


def main() -> None:
    tune_process()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    rows = [row for name, network in _networks(generator) for row in _rows(name, network, generator)]
    heading = ["network", "gradients of", "oneDNN's, ms", "ours, ms", "ratio", "oneDNN's error", "ours"]
    result_page.write(
        "fast-convolutions.md",
        "Convolutions with fewer multiplications",
        f"Gradients of the loss of {IMAGES} images of 32x32 pixels: of the weights, as a training takes them, and of "
        f"the images, as synthesis does; medians of {ROUNDS} turns on one thread. Errors are distances from "
        f"the gradients in float64, relative to their length: medians of {DRAWS} draws of {FEW} images. Large ones are "
        "of ReLUs and of maxima in a pooling that rounding moves.",
        result_page.of_now("python benchmarks/fast_convolutions.py"),
        result_page.table(heading, rows),
    )


def _networks(generator: torch.Generator) -> list[tuple[str, nn.Module]]:
    judges = [(kind.name, kind(SHAPE, 10)) for kind in JUDGES if kind.name in PICTURES]
    return [*((name, build_ann(name, SHAPE, 10, InputRange(-1, 1), generator)) for name in MODELS), *judges]


def _rows(name: str, network: nn.Module, generator: torch.Generator) -> Iterator[list[str]]:
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the same network at every call
    ways: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "plain": nullcontext, "fast": lambda: fast_convolutions(network)
    }  # fmt: skip
    for work in ("weights", "images") if name in MODELS else ("weights",):
        network.requires_grad_(work == "weights")
        took: dict[str, list[float]] = {way: [] for way in ways}
        images = _images(IMAGES, generator)
        for _ in range(ROUNDS + 1):
            for way, within in ways.items():
                start = time.process_time()
                with within():
                    _gradients(network, images)
                took[way].append(time.process_time() - start)
        errors: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(DRAWS):
            images = _images(FEW, generator)
            exact = _gradients(copy.deepcopy(network).double(), images.double())
            for way, within in ways.items():
                with within():
                    errors[way].append(float((_gradients(network, images) - exact).norm() / exact.norm()))
        plain, fast = (1000 * median(seconds[1:]) for seconds in took.values())  # the first turn allocates
        rounding = (f"{median(errors[way]):.1e}" for way in ways)
        yield [f"`{name}`", work, f"{plain:.0f}", f"{fast:.0f}", f"{plain / fast:.2f}", *rounding]


def _images(count: int, generator: torch.Generator) -> Tensor:
    return functional.avg_pool2d(torch.rand(count, *SHAPE, generator=generator), 5, 1, padding=2)


def _gradients(network: nn.Module, images: Tensor) -> Tensor:
    """Of the weights or, where these take none, of the images."""
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    x = images.clone().requires_grad_(not weights)
    loss = functional.cross_entropy(network(x), torch.arange(len(images)) % 10)
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, weights or [x])])


if __name__ == "__main__":
    main()
