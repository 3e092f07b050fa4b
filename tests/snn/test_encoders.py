"""Encoders: the Poisson code's mean, signs and straight-through gradient; constant current."""

from __future__ import annotations

import torch

from leakbench.snn.encoders import direct, poisson
from leakbench.snn.noise import image_keys


def keys(batch: int, seed: int = 0) -> torch.Tensor:
    return image_keys(seed, 0, batch, torch.device("cpu"))


def test_the_mean_of_the_poisson_code_is_the_image() -> None:
    x = torch.linspace(-1, 1, 201).view(3, 67)
    steps = 5000
    spikes = poisson(x, keys(3), 0, steps)
    assert spikes.shape == (steps, 3, 67)
    sigma = (x.abs() * (1 - x.abs()) / steps).sqrt()
    assert ((spikes.double().mean(0) - x).abs() <= 5 * sigma + 1e-6).all()
    # a Bernoulli variable's variance, and independent steps: the sum over 10 steps has 10 times that of one
    inner = x.abs() < 0.99
    tens = spikes.view(steps // 10, 10, 3, 67).sum(1)
    ratio = tens.var(0)[inner].mean() / (10 * (x.abs() * (1 - x.abs()))[inner].mean())
    assert abs(ratio.item() - 1) < 0.05  # 199 * 500 draws of a variance: 5 sigma = .02


def test_spikes_have_the_sign_of_the_pixel() -> None:
    x = torch.tensor([[-1.0, -0.3, 0.0, 0.3, 1.0]])
    spikes = poisson(x, keys(1), 0, 200)[:, 0]
    assert [sorted(set(column.tolist())) for column in spikes.T] == [[-1], [-1, 0], [0], [0, 1], [1]]


def test_the_gradient_passes_straight_through(generator: torch.Generator) -> None:
    x = (torch.rand(2, 7, generator=generator) * 2 - 1).requires_grad_()
    weights = torch.randn(9, 2, 7, generator=generator)
    (gradient,) = torch.autograd.grad((poisson(x, keys(2), 0, 9) * weights).sum(), x)
    # s(t) counts as x + noise at every step
    torch.testing.assert_close(gradient, weights.sum(0))


def test_the_code_of_a_chunk_is_a_part_of_the_whole(generator: torch.Generator) -> None:
    x = torch.rand(2, 3, 4, 4, generator=generator)
    for encode in (poisson, direct):
        whole = encode(x, keys(2), 0, 8)
        assert torch.equal(torch.cat([encode(x, keys(2), 0, 5), encode(x, keys(2), 5, 8)]), whole)


def test_constant_current_is_the_image_at_every_step(generator: torch.Generator) -> None:
    x = torch.randn(2, 3, generator=generator).requires_grad_()
    current = direct(x, keys(2), 4, 10)
    assert torch.equal(current, torch.stack([x] * 6))
    (gradient,) = torch.autograd.grad(current.sum(), x)
    assert gradient.tolist() == torch.full((2, 3), 6.0).tolist()
