"""Winograd's convolution against PyTorch's in float64."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from leakbench.snn.engine import kernels, vectors, winograd

ROUNDING = 5e-6
"""largest error relative to the largest value: float32 rounds by 6e-8, of sums larger than what comes out"""


def case(size: tuple[int, int, int, int], channels: int, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs int8 [N, H, W, C], weights [K, C, 3, 3] and gradients of the outputs [N, H', W', K]."""
    generator = torch.Generator().manual_seed(7)
    count, height, width, channels_in = size
    maps = torch.randint(-1, 5, size, generator=generator).to(torch.int8)
    weight = torch.randn(channels, channels_in, 3, 3, generator=generator)
    out = count, height + 2 * padding - 2, width + 2 * padding - 2, channels
    return maps, weight, torch.randn(out, generator=generator)


def exact(maps: Tensor, weight: Tensor, grad: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Gradients of inputs [N, H, W, C] and of weights [3, 3, C, K], by PyTorch in float64."""
    x, w = maps.double().permute(0, 3, 1, 2).requires_grad_(), weight.double().requires_grad_()
    functional.conv2d(x, w, padding=padding).backward(grad.double().permute(0, 3, 1, 2))
    assert x.grad is not None and w.grad is not None
    return x.grad.permute(0, 2, 3, 1), w.grad.permute(2, 3, 1, 0)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= ROUNDING * expected.abs().max()


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(3, 8, 8, 32), (2, 7, 9, 16), (1, 5, 4, 48), (40, 4, 6, 16)])
def test_gradients_are_those_of_the_convolution(size: tuple[int, int, int, int], padding: int) -> None:
    maps, weight, grad = case(size, 32, padding)
    to_input, to_weight = exact(maps, weight, grad, padding)
    assert_close(winograd.input_gradient(grad, weight, padding, *size[1:3]), to_input)
    assert_close(winograd.weights_gradient(maps, grad, padding), to_weight)


def test_parts_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, weight, grad = case((50, 9, 9, 16), 16, 1)
    to_input, to_weight = exact(maps, weight, grad, 1)
    monkeypatch.setattr(winograd, "_BYTES", 1)
    monkeypatch.setattr(winograd, "_FEWEST", 7)  # of 450 tiles
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert_close(winograd.input_gradient(grad, weight, 1, 9, 9), to_input)
        assert_close(winograd.weights_gradient(maps, grad, 1), to_weight)
    finally:
        torch.set_num_threads(before)


def test_kernels_on_disk_are_of_these_vectors() -> None:
    """Numba looks at the kernels' own file alone to tell whether what it keeps on disk is old."""
    digest = hashlib.sha256(Path(vectors.__file__).read_bytes()).hexdigest()[:16]
    assert digest == kernels.VECTORS, f'vectors.py has changed: write VECTORS = "{digest}" in kernels.py'
