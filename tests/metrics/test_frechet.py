"""The Fréchet distance against SciPy's matrix square root, closed forms and the jackknife's definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import t
from torch import Tensor, nn

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.frechet import FeatureStatistics, frechet_distance, frechet_estimate, statistics


def sample(n: int, d: int, seed: int, spread: float = 1.0, shift: float = 0.0) -> Tensor:
    """Correlated features with a falling spectrum, in float64."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64) / math.sqrt(d)
    scale = torch.arange(1, d + 1, dtype=torch.float64) ** -0.5
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    return spread * (x * scale) @ mix + shift


def by_sqrtm(x: Tensor, y: Tensor) -> float:
    a, b = x.numpy(), y.numpy()
    s1, s2 = (np.atleast_2d(np.cov(z, rowvar=False)) for z in (a, b))
    root = sqrtm(s1 @ s2)
    offset = a.mean(0) - b.mean(0)
    return float(offset @ offset + np.trace(s1) + np.trace(s2) - 2 * np.trace(root).real)


def with_moments(n: int, means: Tensor, deviations: Tensor) -> Tensor:
    """n points whose sample mean and (diagonal) covariance are exactly these."""
    d = len(means)
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    x = x - x.mean(0)
    whitened = torch.linalg.qr(x)[0] * math.sqrt(n - 1)
    points: Tensor = whitened * deviations + means
    return points


@pytest.mark.parametrize(("n", "m", "d"), [(50, 80, 6), (200, 100, 20), (9, 40, 1)])
def test_against_scipys_matrix_square_root(n: int, m: int, d: int) -> None:
    x, y = sample(n, d, 1, spread=1.5, shift=0.3), sample(m, d, 2)
    # 1e-8: sqrtm of a product of two well-conditioned 20 x 20 matrices
    assert frechet_distance(x, statistics(y)) == pytest.approx(by_sqrtm(x, y), rel=1e-8)


@pytest.mark.parametrize(("n", "m", "d"), [(5, 7, 30), (5, 100, 30), (100, 7, 30)])
def test_rank_deficient_sets_against_the_nuclear_norm_of_both_samples(n: int, m: int, d: int) -> None:
    # sqrtm is unreliable on singular matrices; tr sqrt(S1 S2) = ||A B^T||_* needs no root at all
    x, y = sample(n, d, 1, spread=1.5, shift=0.3), sample(m, d, 2)
    a, b = (x - x.mean(0)) / math.sqrt(n - 1), (y - y.mean(0)) / math.sqrt(m - 1)
    expected = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum()
    expected -= 2 * torch.linalg.matrix_norm(a @ b.T, "nuc")
    # 1e-7: the reference's square root of small eigenvalues halves their digits
    assert frechet_distance(x, statistics(y)) == pytest.approx(float(expected), rel=1e-7)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_closed_form_for_diagonal_gaussians(data: st.DataObject) -> None:
    d = data.draw(st.integers(1, 6))

    def vector(low: float, high: float) -> Tensor:
        return torch.tensor(data.draw(st.lists(st.floats(low, high), min_size=d, max_size=d)), dtype=torch.float64)

    m1, m2, s1, s2 = vector(-5, 5), vector(-5, 5), vector(0.1, 4), vector(0.1, 4)
    x, y = with_moments(20, m1, s1), with_moments(33, m2, s2)
    expected = float((m1 - m2).square().sum() + (s1 - s2).square().sum())
    # 1e-9 on numbers up to 600: rounding of the traces that cancel
    assert frechet_distance(x, statistics(y)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.slow
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 12), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_is_a_distance(n: int, m: int, d: int, seed: int) -> None:
    x, y = sample(n, d, seed), sample(m, d, seed + 1, spread=2, shift=1)
    there = frechet_distance(x, statistics(y))
    assert there > 0
    assert frechet_distance(y, statistics(x)) == pytest.approx(there, rel=1e-6)
    # 1e-7: square roots of eigenvalues that are zero but for rounding (1e-16)
    assert frechet_distance(x, statistics(x)) == pytest.approx(0, abs=1e-7)
    shifted = frechet_distance(x + 100, statistics(y + 100))
    assert shifted == pytest.approx(there, rel=1e-6)
    rotation = torch.linalg.qr(sample(d, d, seed + 2))[0]
    assert frechet_distance(x @ rotation, statistics(y @ rotation)) == pytest.approx(there, rel=1e-6)


def test_reference_statistics() -> None:
    y = sample(40, 8, 3)
    reference = statistics(y.float())
    covariance = np.cov(y.float().double().numpy(), rowvar=False)
    assert reference.n == 40
    assert reference.sqrt_cov.dtype == reference.mean.dtype == torch.float64
    np.testing.assert_allclose((reference.sqrt_cov @ reference.sqrt_cov).numpy(), covariance, atol=1e-13)
    assert reference.trace == pytest.approx(np.trace(covariance), rel=1e-12)


def test_neither_order_nor_batches_nor_precision_of_the_input_matter() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()).double().eval()
    g = torch.Generator().manual_seed(1)
    images, real = (
        torch.rand(50, 1, 8, 8, generator=g).double(),
        torch.rand(70, 1, 8, 8, generator=g).double(),
    )

    def features(images: Tensor, batch: int) -> Tensor:
        with torch.no_grad():
            return torch.cat([network(images[i : i + batch]) for i in range(0, len(images), batch)])

    reference = statistics(features(real, 70))
    expected = frechet_estimate(features(images, 50), reference)
    shuffled = images[torch.randperm(50, generator=g)]
    for other in (features(images, 1), features(images, 7), features(shuffled, 50)):
        estimate = frechet_estimate(other, reference)
        # 1e-9: sums of 50 float64 numbers in another order
        assert estimate.value == pytest.approx(expected.value, rel=1e-9)
        assert estimate.low == pytest.approx(expected.low, rel=1e-9)
        assert estimate.high == pytest.approx(expected.high, rel=1e-9)


def jackknife_half_width(x: Tensor, reference: FeatureStatistics) -> float:
    """Delete one, compute anew, Tukey's standard error: by its definition."""
    n = len(x)
    without = np.array([frechet_distance(torch.cat([x[:i], x[i + 1 :]]), reference) for i in range(n)])
    return float(t.ppf(0.975, n - 1) * math.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))


@pytest.mark.parametrize(("n", "d"), [(3, 5), (4, 1), (10, 4), (12, 40), (30, 30), (30, 29)])
@pytest.mark.parametrize("rank_deficient", [False, True])
def test_interval_is_the_delete_one_jackknife(n: int, d: int, rank_deficient: bool) -> None:
    x = sample(n, d, 4, spread=1.5, shift=2.0)
    if rank_deficient:
        x[1] = x[0]
    reference = statistics(sample(200, d, 5))
    estimate = frechet_estimate(x, reference)
    half = jackknife_half_width(x, reference)
    assert estimate.n == n
    assert estimate.value == pytest.approx(frechet_distance(x, reference), rel=1e-12)
    # 1e-6: the root of a singular value that is zero but for rounding, over the spread of the n values
    assert estimate.high - estimate.value == pytest.approx(half, rel=1e-6)
    assert estimate.low == pytest.approx(max(0, estimate.value - half), rel=1e-6, abs=1e-9)


def test_interval_holds_with_a_singular_reference() -> None:
    x, reference = sample(15, 20, 6, shift=3.0), statistics(sample(5, 20, 7))
    estimate = frechet_estimate(x, reference)
    assert estimate.high - estimate.value == pytest.approx(jackknife_half_width(x, reference), rel=1e-6)


@pytest.mark.slow
def test_interval_covers_another_samples_expected_distance() -> None:
    reference = statistics(sample(5000, 8, 8))
    estimates = [frechet_estimate(sample(60, 8, 100 + i, spread=1.3, shift=0.3), reference) for i in range(300)]
    centre = float(np.mean([e.value for e in estimates]))
    covered = np.mean([e.low <= centre <= e.high for e in estimates])
    # four standard deviations of a binomial(300, .95)
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 300)


def test_a_bootstrap_would_be_biased_where_the_jackknife_is_not() -> None:
    # the reason for the jackknife: resampled images repeat, and all replicates lie above the interval
    x, reference = sample(40, 60, 9), statistics(sample(2000, 60, 10))
    value = frechet_estimate(x, reference)
    g = torch.Generator().manual_seed(0)
    replicates = [frechet_distance(x[torch.randint(40, (40,), generator=g)], reference) for _ in range(50)]
    assert min(replicates) > value.high


def test_identical_images_are_a_point() -> None:
    y = sample(50, 6, 11)
    point = torch.full((6,), 2.0, dtype=torch.float64)
    estimate = frechet_estimate(point.expand(9, 6), statistics(y))
    expected = float((point - y.mean(0)).square().sum() + y.var(0).sum())
    assert estimate.value == pytest.approx(expected, rel=1e-12)
    assert estimate.n == 9
    assert math.isnan(estimate.low) and math.isnan(estimate.high)
    # a point as the reference leaves the features' own spread
    flat = statistics(point.expand(9, 6))
    far = frechet_estimate(y, flat)
    assert far.value == pytest.approx(expected, rel=1e-12)
    assert far.high - far.value == pytest.approx(jackknife_half_width(y, flat), rel=1e-6)


def test_two_images_have_a_value_and_no_interval() -> None:
    estimate = frechet_estimate(sample(2, 4, 12), statistics(sample(30, 4, 13)))
    assert estimate.value > 0
    assert math.isnan(estimate.low) and math.isnan(estimate.high)


def test_what_has_no_distance_is_refused() -> None:
    reference = statistics(sample(10, 4, 14))
    for function in (lambda x: frechet_distance(x, reference), lambda x: frechet_estimate(x, reference)):
        with pytest.raises(UsageError, match="at least 2 images"):
            function(sample(1, 4, 15))
        with pytest.raises(UsageError, match="5 dimensions, the reference 4"):
            function(sample(9, 5, 15))
        with pytest.raises(UsageError):
            function(torch.zeros(9, 2, 2))
        with pytest.raises(UsageError):
            function(torch.zeros(9, 4, dtype=torch.long))
        with pytest.raises(NumericalError):
            function(torch.full((9, 4), math.nan))
    with pytest.raises(UsageError, match="at least 2 images"):
        statistics(torch.zeros(1, 4))
