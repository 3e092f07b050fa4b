"""DAA against loops over the contact sheets, and at the edges: ties, unequal classes, chance."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.daa import daa_hits


def by_loops(probabilities: Tensor, targets: Tensor) -> list[bool]:
    images: dict[int, list[int]] = {}
    for i, c in enumerate(targets.tolist()):
        images.setdefault(c, []).append(i)
    hits = [False] * len(targets)
    for c, own in images.items():
        for j, i in enumerate(own):
            rivals = [others[j % len(others)] for other, others in images.items() if other != c]
            hits[i] = all(bool(probabilities[i, c] > probabilities[rival, c]) for rival in rivals)
    return hits


@pytest.mark.slow
@given(st.integers(2, 30), st.integers(2, 6), st.integers(0, 10**6))
def test_against_loops(n: int, classes: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    # rounded, so that ties occur; not every class needs be present
    p = (3 * torch.randn(n, classes, generator=g)).softmax(1, dtype=torch.float64).mul(8).round().add(1)
    p = p / p.sum(1, keepdim=True)
    targets = torch.cat([torch.tensor([0, 1]), torch.randint(classes, (n - 2,), generator=g)])
    assert daa_hits(p, targets).tolist() == by_loops(p, targets)


def test_one_image_a_class_is_brainleaks_fraction() -> None:
    # the judge names only class 0 right, yet rates two of three highest among the images
    p = torch.tensor([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.9, 0.05, 0.05]])
    hits = daa_hits(p[[2, 1, 0]], torch.tensor([0, 1, 2]))
    assert hits.dtype == torch.bool
    assert hits.tolist() == [True, True, False]


def test_images_compete_within_their_own_sheet() -> None:
    strong, weak = [0.9, 0.1], [0.6, 0.4]
    p = torch.tensor([strong, strong, weak, weak])
    # sheets (0: strong, 1: weak) and (0: strong, 1: weak); then (strong, strong) and (weak, weak), which tie
    assert daa_hits(p, torch.tensor([0, 0, 1, 1])).tolist() == [True] * 4
    assert daa_hits(p, torch.tensor([0, 1, 0, 1])).tolist() == [False] * 4


def test_a_class_with_fewer_images_repeats_them_as_rivals() -> None:
    p = torch.tensor([[0.5, 0.5], [0.3, 0.7], [0.8, 0.2], [0.4, 0.6], [0.1, 0.9]])
    # class 1's images meet 0 | 1 | 0 of class 0; class 0's are scored on the first two sheets alone
    assert daa_hits(p, torch.tensor([0, 0, 1, 1, 1])).tolist() == [False, False, False, False, True]


@pytest.mark.parametrize("classes", [2, 7])
def test_identical_images_score_nothing(classes: int) -> None:
    p = torch.rand(classes, generator=torch.Generator().manual_seed(0)).softmax(0)
    assert not daa_hits(p.expand(3 * classes, classes), torch.arange(3 * classes) % classes).any()


def test_images_that_know_nothing_of_their_target_score_at_chance() -> None:
    p = torch.randn(8000, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    # four standard deviations of a binomial(8000, 1/4), an upper bound of its spread here
    assert abs(float(daa_hits(p, torch.arange(8000) % 4).double().mean()) - 0.25) < 4 * math.sqrt(0.1875 / 8000)


def test_how_the_classes_are_interleaved_and_numbered_does_not_matter() -> None:
    g = torch.Generator().manual_seed(2)
    p, targets = torch.randn(40, 5, generator=g).softmax(1), torch.randint(5, (40,), generator=g)
    expected = daa_hits(p, targets)
    by_class = targets.argsort(stable=True)  # keeps the order within each class
    assert torch.equal(daa_hits(p[by_class], targets[by_class]), expected[by_class])
    renamed = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(daa_hits(p[:, renamed.argsort()], renamed[targets]), expected)


def test_what_can_not_be_scored_is_refused() -> None:
    p, targets = torch.full((4, 2), 0.5), torch.tensor([0, 1, 0, 1])
    with pytest.raises(UsageError, match="at least 2 classes, got 1"):
        daa_hits(p, torch.ones_like(targets))
    with pytest.raises(UsageError, match="at least 2 classes, got 0"):
        daa_hits(p[:0], targets[:0])
    with pytest.raises(UsageError, match="softmax"):
        daa_hits(2 * p, targets)
    with pytest.raises(UsageError, match=r"0\.\.1"):
        daa_hits(p, targets + 1)
    with pytest.raises(NumericalError):
        daa_hits(torch.full((4, 2), math.nan), targets)
