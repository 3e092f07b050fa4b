"""What teaches students: the loss and the marks by hand, the images asked about, and that a student learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from leakbench.attacks.distillation import (
    centred,
    contrasted,
    correlation,
    distance,
    distil,
    mixtures,
    smoothed_noise,
    spread,
)
from leakbench.attacks.search import total_variation
from leakbench.contracts import AttackContext
from leakbench.errors import NumericalError


def test_the_loss_by_hand() -> None:
    given, wanted, tau = [0.0, 2.0], [1.0, -1.0], 2.0
    p = [math.exp(x / tau) / sum(math.exp(y / tau) for y in wanted) for x in wanted]
    q = [math.exp(x / tau) / sum(math.exp(y / tau) for y in given) for x in given]
    divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    expected = tau**2 * divergence + ((0 - 1) ** 2 + (2 + 1) ** 2) / 2
    one = distance(torch.tensor([given]), torch.tensor([wanted]), tau)
    assert float(one) == pytest.approx(expected, rel=1e-5)
    # a mean over images, one of which is right
    both = distance(torch.tensor([given, wanted]), torch.tensor([wanted, wanted]), tau)
    assert float(both) == pytest.approx(expected / 2, rel=1e-5)


def test_logits_are_measured_without_what_softmax_does_not_see() -> None:
    logits = torch.tensor([[1.0, 3.0], [14.0, 10.0]])
    assert centred(logits).tolist() == [[-1, 1], [2, -2]]
    assert spread(logits) == pytest.approx(math.sqrt((1 + 1 + 4 + 4) / 3))
    assert spread(torch.full((3, 2), 5.0)) > 0  # a unit, even where nothing is spread


def test_correlation_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0, 5.0], [2.0, -1.0, 5.0]])
    offsets = torch.tensor([[7.0], [-90.0]])
    assert correlation(logits, 3 * logits + offsets) == pytest.approx(1)
    assert correlation(logits, offsets - logits) == pytest.approx(-1)
    assert correlation(torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[1.0, 1.0, -2.0]])) == pytest.approx(0)
    assert correlation(logits, torch.ones(2, 3)) == 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12), (1, 28, 28), (3, 3, 3)])
def test_images_to_ask_about_are_images(shape: tuple[int, int, int], generator: torch.Generator) -> None:
    noise = smoothed_noise(250, shape, generator)
    mixed = mixtures(noise[:20], 123, generator)
    assert noise.shape == (250, *shape) and mixed.shape == (123, *shape)
    for images in (noise, mixed):
        assert images.min() >= 0 and images.max() <= 1
        # no image twice, and light and dark ones
        assert len(images.flatten(1).unique(dim=0)) == len(images)
        assert images.min() < 0.1 and images.max() > 0.9


def test_smoothed_noise_is_smoother_than_noise(generator: torch.Generator) -> None:
    shape = (1, 16, 16)
    white = contrasted(torch.rand(400, *shape, generator=generator), generator)
    made = smoothed_noise(400, shape, generator)
    assert total_variation(made).mean() < 0.7 * total_variation(white).mean()


def test_a_mixture_is_a_neighbour_of_one_of_the_images(generator: torch.Generator) -> None:
    # left and right halves lit: shifts by an eighth of a side, weights and contrasts leave the lit half the lighter
    left, right = torch.zeros(2, 1, 1, 8, 8)
    left[..., :4], right[..., 4:] = 1, 1
    images = torch.cat([left, right])
    made = mixtures(images, 400, generator)
    lean = (made[..., :4] - made[..., 4:]).mean((1, 2, 3))
    # a weight of one half leans nowhere
    assert (lean.abs() > 0.1).double().mean() > 0.75
    assert 0.4 < (lean > 0).double().mean() < 0.6


@pytest.mark.slow
def test_a_student_learns_what_it_can_say(generator: torch.Generator) -> None:
    images = torch.rand(300, 1, 4, 4, generator=generator)
    teacher = torch.randn(16, 3, generator=generator)
    wanted = centred(images.flatten(1) @ teacher)
    linear = nn.Linear(16, 3)
    nn.init.zeros_(linear.weight)
    student = nn.Sequential(nn.Flatten(), linear)
    context = AttackContext(torch.Generator().manual_seed(0))
    distil(student, images, wanted, torch.optim.Adam(student.parameters(), lr=0.1), 300, 1.0, context, "teaching")
    with torch.no_grad():
        assert correlation(student(images), wanted) > 0.99
        assert float((centred(student(images)) - wanted).square().mean()) < 0.05 * float(wanted.square().mean())
    assert context.cost.gradient_steps == 300


def test_a_loss_that_is_no_number_is_an_error(generator: torch.Generator) -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images, wanted = torch.rand(100, 1, 4, 4, generator=generator), torch.zeros(100, 3)
    wanted[7, 1] = torch.nan
    optimizer = torch.optim.Adam(student.parameters())
    with pytest.raises(NumericalError, match="teaching: the student's loss is nan"):
        distil(student, images, wanted, optimizer, 5, 1.0, AttackContext(generator), "teaching")
