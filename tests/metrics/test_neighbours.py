"""The class kNN distance against torch.cdist on all pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.neighbours import class_knn_distance


def sample(n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features around a far origin and labels that cover the classes 0..4."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64) + 3, torch.randperm(n, generator=g) % 5


@pytest.mark.parametrize("d", [1, 4, 300])
@pytest.mark.parametrize("k", [1, 3])
def test_against_all_pairs(d: int, k: int) -> None:
    (x, targets), (y, labels) = sample(40, d, 1), sample(60, d, 2)
    pairs = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    pairs[targets[:, None] != labels] = math.inf
    found = class_knn_distance(x, targets, y, labels, k)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, pairs.kthvalue(k, dim=1).values, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("offset", "outlier"), [(0.0, 0.0), (1e7, 0.0), (0.0, 1e10)])
def test_only_the_own_class_counts_and_a_copy_is_at_zero(offset: float, outlier: float) -> None:
    y, labels = sample(50, 200, 3)
    y += offset
    y[0] += outlier
    other = class_knn_distance(y, (labels + 1) % 5, y, labels)
    assert (class_knn_distance(y, labels, y, labels) == 0).all() and (other > 1).all()
    # a copy aside: as far as its nearest sibling, also far from the origin and beside an outlier
    pairs = torch.cdist(y, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    pairs[labels[:, None] != labels] = math.inf
    expected = pairs.kthvalue(2, dim=1).values
    torch.testing.assert_close(class_knn_distance(y, labels, y, labels, k=2), expected, rtol=1e-12, atol=0)


def test_by_hand() -> None:
    y, labels = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]), torch.tensor([7, 7, 2])
    x, targets = torch.tensor([[0.0, 0.0], [3.0, 3.0], [0.0, 0.0]]), torch.tensor([7, 7, 2])
    assert class_knn_distance(x, targets, y, labels).tolist() == [0, 1, 1]
    assert class_knn_distance(x[:2], targets[:2], y, labels, k=2).tolist() == [25, 18]


def test_order_batches_and_shifts_change_nothing_and_scale_counts_squared() -> None:
    (x, targets), (y, labels) = sample(40, 30, 4), sample(60, 30, 5)
    expected = class_knn_distance(x, targets, y, labels)
    mixed, turned = torch.randperm(40, generator=torch.Generator().manual_seed(6)), labels.argsort()
    torch.testing.assert_close(
        class_knn_distance(x[mixed], targets[mixed], y[turned], labels[turned]), expected[mixed], rtol=0, atol=0
    )
    parts = [class_knn_distance(a, b, y, labels) for a, b in zip(x.split(7), targets.split(7), strict=True)]
    torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=0)
    torch.testing.assert_close(class_knn_distance(3 * x + 2, targets, 3 * y + 2, labels), 9 * expected)


def test_what_has_no_distance_is_refused() -> None:
    x, targets = sample(10, 4, 7)
    with pytest.raises(UsageError, match="class 9 needs at least k = 1 real images in the reference, got 0"):
        class_knn_distance(x, torch.full((10,), 9), x, targets)
    with pytest.raises(UsageError, match="at least k = 3 real images in the reference, got 2"):
        class_knn_distance(x, targets, x, targets, k=3)
    with pytest.raises(UsageError, match="k must be at least 1"):
        class_knn_distance(x, targets, x, targets, k=0)
    with pytest.raises(UsageError, match="4 dimensions, the reference 3"):
        class_knn_distance(x, targets, x[:, :3], targets)
    for labels in (targets[:9], targets.double(), targets[:, None]):
        with pytest.raises(UsageError, match="targets must be 10 integers"):
            class_knn_distance(x, labels, x, targets)
        with pytest.raises(UsageError, match="reference labels must be 10 integers"):
            class_knn_distance(x, targets, x, labels)
    for bad in (torch.zeros(10), torch.zeros(10, 4).long(), torch.zeros(0, 4)):
        with pytest.raises(UsageError):
            class_knn_distance(bad, targets, x, targets)
    for number in (math.nan, math.inf, 1e25):
        broken = torch.full((10, 4), number, dtype=torch.float64)
        for a, b in ((broken, x), (x, broken)):
            with pytest.raises(NumericalError):
                class_knn_distance(a, targets, b, targets)
