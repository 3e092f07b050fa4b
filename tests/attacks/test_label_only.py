"""The walk away from the boundary: labels alone, on a flat boundary whose direction is known, and on the digits."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.attacks.label_only import LabelOnly, _starts
from leakbench.attacks.prior import GeneratorPrior
from leakbench.contracts import Access, AttackContext, ImageClassifier, PublicImages, Reconstruction, Victim
from leakbench.data import Dataset


def attacked(network: ImageClassifier, targets: Tensor, digits: Dataset, **params: Any) -> Reconstruction:
    # upside-down digits: of the private ones' kind, and most of them none
    public = PublicImages(digits.train.images.flip(2), "the tests'")
    attack = LabelOnly(**{"gan_steps": 150, "pool": 300, **params})
    return attack(
        Victim(network, Access.LABELS), targets, AttackContext(torch.Generator().manual_seed(0), public=public)
    )


class Flat(GeneratorPrior):
    """A generator that draws its codes themselves, as images of one row."""

    def __init__(self) -> None:
        """Nothing to train."""

    def __call__(self, z: Tensor) -> Tensor:
        return z.view(len(z), 1, 1, -1)

    def truncated(self, z: Tensor) -> Tensor:
        return z


def half_space(normal: Tensor) -> ImageClassifier:
    """Class 1 where ``normal`` . x > 0, else class 0."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(len(normal), 2, bias=False))
    with torch.no_grad():
        cast(nn.Linear, body[1]).weight.copy_(torch.stack([-normal, normal]))
    return ImageClassifier(body, (1, 1, len(normal)), 2).eval()


def walk(start: Tensor, inside: bool, targets: Tensor, normal: Tensor, **params: Any) -> tuple[Tensor, Tensor]:
    count = len(targets)
    return LabelOnly(**params)._repelled(
        Victim(half_space(normal), Access.LABELS),
        Flat(),
        start.expand(count, -1),
        torch.full((count,), inside),
        targets,
        AttackContext(torch.Generator().manual_seed(0)),
    )


def test_the_centre_moves_straight_away_from_a_flat_boundary_until_its_spheres_fit() -> None:
    normal = torch.zeros(8)
    normal[2] = 1.0
    start = 0.05 * normal
    codes, radius = walk(start, True, torch.ones(20, dtype=torch.long), normal, iterations=40, points=32)
    moved = codes - start
    assert (moved @ normal / moved.norm(dim=1) > 0.7).all()
    assert (radius > 2).all()
    # its spheres lie in the class for the most part: seven eighths of 32 points, give or take two deviations
    directions = functional.normalize(torch.randn(4000, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    shares = ((codes @ normal)[:, None] + radius[:, None] * (directions @ normal) > 0).double().mean(1)
    assert (shares > 0.875 - 2 * (0.875 * 0.125 / 32) ** 0.5).all()


class Scripted(Victim):
    """Takes the first ``count`` of each sphere's points for class 1, and every centre."""

    def __init__(self, points: int, count: int) -> None:
        super().__init__(half_space(torch.ones(2)), Access.LABELS)
        self.sphere = (torch.arange(points) < count).long()

    def labels(self, images: Tensor) -> Tensor:
        spheres, rest = divmod(len(images), len(self.sphere))
        return self.sphere.repeat(spheres) if not rest else torch.ones(len(images), dtype=torch.long)


@pytest.mark.parametrize(
    ("points", "count", "filled"),
    [(16, 12, False), (16, 13, False), (16, 14, False), (16, 15, True), (32, 28, False), (32, 29, True)],
)
def test_a_sphere_is_filled_as_in_the_released_code(points: int, count: int, filled: bool) -> None:
    """There, +1 for a point in the class and -1 for one outside sum to more than .75 of the points."""
    assert filled == (count - (points - count) > 0.75 * points)
    start, targets = torch.zeros(3, 2), torch.ones(3, dtype=torch.long)
    context = AttackContext(torch.Generator().manual_seed(0))
    attack = LabelOnly(points=points, iterations=1)
    _, radius = attack._repelled(Scripted(points, count), Flat(), start, targets.bool(), targets, context)
    assert radius.tolist() == [2.0 if filled else 0.0] * 3


def test_a_centre_on_the_wrong_side_finds_the_other() -> None:
    normal = torch.tensor([0.6, 0.8, 0.0, 0.0])
    codes, radius = walk(-1.0 * normal, False, torch.ones(10, dtype=torch.long), normal, iterations=30, points=32)
    assert (codes @ normal > 0).all()
    assert (radius > 0).all()


@pytest.mark.long
@pytest.mark.slow
def test_images_keep_their_label_and_spheres_grow_with_steps(digits_ann: ImageClassifier, digits: Dataset) -> None:
    targets = torch.arange(10).repeat_interleave(2)
    short, long = (attacked(digits_ann, targets, digits, iterations=steps) for steps in (3, 15))
    assert short.findings["targets without a start"] == 0
    for made in (short, long):
        assert (digits_ann(made.images).argmax(1) == targets).all()
    name = "mean radius of the largest filled spheres"
    assert long.findings[name] > 1.3 * short.findings[name]
    before, after = (digits_ann(made.images).softmax(1).gather(1, targets[:, None]).mean() for made in (short, long))
    assert after > before


@pytest.mark.parametrize("iterations", [2, 4])
def test_the_pool_is_asked_once_and_every_step_its_points_and_the_centre(
    iterations: int, digits_ann: ImageClassifier, digits: Dataset
) -> None:
    made = attacked(digits_ann, torch.arange(10), digits, gan_steps=1, pool=150, iterations=iterations, points=7)
    assert made.cost.queries == 150 + 10 * iterations * (7 + 1)
    assert made.cost.gradient_steps == iterations


@pytest.mark.slow
def test_a_class_that_the_pool_lacks_is_searched_all_the_same(digits_ann: ImageClassifier, digits: Dataset) -> None:
    body = nn.Sequential(digits_ann.body, Never())
    network = ImageClassifier(body, digits_ann.image_shape, 11, digits_ann.input_range).eval()
    made = attacked(network, torch.tensor([3, 10, 10]), digits, iterations=3)
    assert made.findings["targets without a start"] == 2
    assert made.findings["targets whose class filled no sphere"] >= 2
    assert made.findings["pool images of the rarest target class"] == 0
    assert not torch.equal(made.images[1], made.images[2])


def test_starts_have_their_label_and_lie_far_out() -> None:
    pool = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 0.0], [-4.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([1, 1, 1, 0, 0])
    index, started = _starts(pool, labels, torch.tensor([1, 2, 1, 0, 1, 1]))
    # class 1: 3, 2, 1 and again 3; class 2: none, so any
    assert index.tolist() == [1, 0, 2, 3, 0, 1]
    assert started.tolist() == [True, False, True, True, True, True]


class Never(nn.Module):
    """One class more, which nothing is taken for."""

    def forward(self, logits: Tensor) -> Tensor:
        return torch.cat([logits, logits.amin(1, keepdim=True) - 1], 1)
