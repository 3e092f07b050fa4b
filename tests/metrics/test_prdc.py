"""Precision, recall, density and coverage against loops over the definitions, and where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import mean, proportion
from leakbench.metrics.prdc import prdc


def sample(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64) + shift


def by_loops(x: Tensor, y: Tensor, k: int) -> tuple[int, int, list[float], int]:
    """Images in a real ball, real images in a made ball, real balls per image over k, real balls that hold one."""
    made, real = x.double().numpy(), y.double().numpy()

    def radius(points: np.ndarray, i: int) -> float:
        others = np.delete(points, i, axis=0)
        return float(sorted(np.sqrt(((others - points[i]) ** 2).sum(1)))[k - 1])

    def inside(point: np.ndarray, centre: np.ndarray, size: float) -> bool:
        return bool(np.sqrt(((point - centre) ** 2).sum()) <= size)

    real_balls = [(centre, radius(real, i)) for i, centre in enumerate(real)]
    made_balls = [(centre, radius(made, i)) for i, centre in enumerate(made)]
    return (
        sum(any(inside(point, *ball) for ball in real_balls) for point in made),
        sum(any(inside(point, *ball) for ball in made_balls) for point in real),
        [sum(inside(point, *ball) for ball in real_balls) / k for point in made],
        sum(any(inside(point, *ball) for point in made) for ball in real_balls),
    )


def check(x: Tensor, y: Tensor, k: int) -> None:
    found = prdc(x, y, k)
    precise, recalled, densities, covered = by_loops(x, y, k)
    assert found.precision == proportion(precise, len(x))
    assert found.recall == proportion(recalled, len(y))
    assert found.coverage == proportion(covered, len(y))
    expected = mean(densities)
    assert (found.density.value, found.density.high, found.density.n) == pytest.approx(
        (expected.value, expected.high, expected.n), nan_ok=True
    )
    low = expected.low if math.isnan(expected.low) else max(0, expected.low)
    assert found.density.low == pytest.approx(low, nan_ok=True)


@pytest.mark.parametrize(("n", "m", "d", "k"), [(30, 40, 3, 5), (40, 12, 8, 1), (12, 20, 60, 3), (25, 25, 1, 24)])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_against_loops(n: int, m: int, d: int, k: int, shift: float) -> None:
    check(sample(n, d, 1, shift), sample(m, d, 2), k)


@pytest.mark.slow
@given(st.integers(3, 14), st.integers(3, 14), st.sampled_from([1, 2, 20]), st.integers(1, 2), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_against_loops_with_duplicates_and_ties(n: int, m: int, d: int, k: int, seed: int) -> None:
    # small integers: many points are equal and many lie exactly on an edge, where distances are exact
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randint(3, (size, d), generator=g).double() for size in (n, m))
    x[: n // 2] = y[: m // 3] = y[0].clone()
    check(x, y, k)


@pytest.mark.parametrize("d", [3, 500])
def test_copies_are_found_in_balls_of_radius_zero(d: int) -> None:
    # at these coordinates |x|^2 - 2 x.y + |y|^2 is not exactly zero for a copy
    real = sample(8, d, 3, shift=1.0)
    y = real.repeat_interleave(4, 0)
    copies = prdc(real[[0, 0, 1, 1]], y, k=3)
    assert (copies.precision.value, copies.coverage.value) == (1, 8 / 32)
    # an image lies in the balls of its 4 copies, and its own ball reaches to the other image at most
    assert copies.density.value == 4 / 3
    assert math.isnan(copies.density.low) and math.isnan(copies.density.high)
    close = prdc(real[[0, 0, 1, 1]] + 1e-9, y, k=3)
    assert close.precision.value == close.density.value == close.coverage.value == 0


@pytest.mark.parametrize("d", [2, 300])
@pytest.mark.parametrize("k", [1, 5])
def test_a_set_against_itself(d: int, k: int) -> None:
    x = sample(50, d, 4)
    same = prdc(x, x, k)
    assert same.precision.value == same.recall.value == same.coverage.value == 1
    # each ball holds its centre and k neighbours, the last one on its edge
    assert same.density.value == pytest.approx((k + 1) / k, rel=1e-12)


def test_sets_far_apart_have_nothing_in_common() -> None:
    x, y = sample(20, 4, 5, shift=1e3), sample(30, 4, 6)
    apart = prdc(x, y)
    assert apart.precision == proportion(0, 20)
    assert apart.recall == apart.coverage == proportion(0, 30)
    assert apart.density.value == 0 and math.isnan(apart.density.low)


def test_a_collapse_is_precise_and_recalls_nothing() -> None:
    y = sample(40, 3, 7)
    collapsed = prdc(y.mean(0).expand(20, 3), y)
    assert collapsed.precision.value == 1
    assert collapsed.recall.value == 0


@pytest.mark.parametrize(("scale", "offset"), [(3.0, 0.0), (1.0, 1e6)])
def test_neither_order_nor_scale_nor_offset_matters(scale: float, offset: float) -> None:
    x, y = sample(30, 25, 8, shift=0.3), sample(35, 25, 9)
    expected, found = prdc(x, y), prdc(scale * x.flip(0) + offset, scale * y.roll(7, 0) + offset)
    assert (found.precision, found.recall, found.coverage) == (
        expected.precision,
        expected.recall,
        expected.coverage,
    )
    assert found.density.value == pytest.approx(expected.density.value, rel=1e-12)


def test_density_is_not_below_zero_in_its_interval() -> None:
    y = sample(30, 2, 10)
    x = torch.cat([y[:1], sample(29, 2, 11, shift=100.0)])
    density = prdc(x, y).density
    assert density.low == 0 < density.value < density.high


def test_what_can_not_be_compared_is_refused() -> None:
    x = sample(9, 4, 12)
    for a, b, k in ((x, x[:5], 5), (x[:5], x, 5), (x, x, 0), (x[:1], x, 1)):
        with pytest.raises(UsageError, match=r"k must be at least 1 and below the \d images"):
            prdc(a, b, k)
    with pytest.raises(UsageError, match="4 dimensions, the reference 3"):
        prdc(x, x[:, :3])
    for bad in (torch.zeros(9), torch.zeros(9, 4).long(), torch.zeros(0, 4)):
        with pytest.raises(UsageError):
            prdc(bad, x)
        with pytest.raises(UsageError, match="reference"):
            prdc(x, bad)
    for number in (math.nan, math.inf, 1e25):
        with pytest.raises(NumericalError):
            prdc(torch.full((9, 4), number, dtype=torch.float64), x)
        with pytest.raises(NumericalError, match="reference"):
            prdc(x, torch.full((9, 4), number, dtype=torch.float64))
