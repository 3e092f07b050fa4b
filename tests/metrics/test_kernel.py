"""The kernel distance against its definition in loops, torch-fidelity, closed forms and the jackknife's definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t
from torch import Tensor

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics import kernel
from leakbench.metrics.kernel import kernel_estimate, kernel_reference


def sample(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64) + shift


def by_loops(x: Tensor, y: Tensor) -> float:
    """Binkowski et al. 2018, eq. 4, pair by pair."""
    a, b = x.numpy(), y.numpy()

    def mean_kernel(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
        return math.fsum((float((u * v).sum()) / len(u) + 1) ** 3 for u, v in pairs) / len(pairs)

    within = sum(mean_kernel(list(itertools.permutations(z, 2))) for z in (a, b))
    return within - 2 * mean_kernel(list(itertools.product(a, b)))


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (7, 12, 3), (12, 7, 40), (300, 20, 5)])
def test_against_the_definition_in_loops(n: int, m: int, d: int) -> None:
    x, y = sample(n, d, 1, shift=0.5), sample(m, d, 2)
    estimate = kernel_estimate(x, kernel_reference(y))
    assert estimate.n == n
    # 1e-12: means of kernels of size one to ten
    assert estimate.value == pytest.approx(by_loops(x, y), abs=1e-12, rel=1e-12)


def test_is_the_mean_over_all_subsets() -> None:
    x, y = sample(5, 3, 3, shift=0.5), sample(6, 3, 4)
    subsets = [
        by_loops(x[list(a)], y[list(b)])
        for a in itertools.combinations(range(5), 3)
        for b in itertools.combinations(range(6), 3)
    ]
    assert kernel_estimate(x, kernel_reference(y)).value == pytest.approx(np.mean(subsets), rel=1e-12)


def test_against_torch_fidelity() -> None:
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = sample(60, 16, 5, shift=0.2), sample(60, 16, 6)
    # one subset of all images: no randomness is left but the order
    theirs = metric_kid.kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=60, verbose=False)
    (expected,) = (value for key, value in theirs.items() if key.endswith("mean"))
    assert kernel_estimate(x, kernel_reference(y)).value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "d"), [(3, 1), (4, 30), (25, 6)])
def test_interval_is_the_delete_one_jackknife(n: int, d: int) -> None:
    x, y = sample(n, d, 7, shift=0.3), sample(15, d, 8)
    estimate = kernel_estimate(x, kernel_reference(y))
    without = np.array([by_loops(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(n)])
    half = float(t.ppf(0.975, n - 1) * math.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    assert estimate.high - estimate.value == pytest.approx(half, rel=1e-9)
    assert estimate.value - estimate.low == pytest.approx(half, rel=1e-9)


@pytest.mark.long
@pytest.mark.slow
def test_is_unbiased_and_its_interval_covers_the_expectation() -> None:
    reference = kernel_reference(sample(3000, 4, 9))
    g = torch.Generator().manual_seed(10)
    estimates = [kernel_estimate(torch.randn(40, 4, generator=g), reference) for _ in range(300)]
    values = np.array([e.value for e in estimates])
    # same distribution: not clamped, so as many fall below the mean of about zero as above
    assert (values < 0).any()
    centre = kernel_estimate(sample(3000, 4, 11), reference).value
    assert abs(values.mean() - centre) < 4 * values.std() / math.sqrt(300)
    shifted = [kernel_estimate(sample(40, 4, 100 + i, shift=0.5), reference) for i in range(300)]
    centre = float(np.mean([e.value for e in shifted]))
    covered = np.mean([e.low <= centre <= e.high for e in shifted])
    # four standard deviations of a binomial(300, .95)
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 300)


@pytest.mark.slow
@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(2, 8), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_closed_form_for_two_points(a: float, b: float, n: int, d: int) -> None:
    x, y = torch.full((n, d), a, dtype=torch.float64), torch.full((n + 1, d), b, dtype=torch.float64)
    estimate = kernel_estimate(x, kernel_reference(y))
    expected = (a * a + 1) ** 3 + (b * b + 1) ** 3 - 2 * (a * b + 1) ** 3
    assert estimate.value == pytest.approx(expected, abs=1e-10)
    # identical images say nothing of how far others would lie
    assert math.isnan(estimate.low) and math.isnan(estimate.high)


def test_rotations_and_repeated_features_change_nothing() -> None:
    x, y = sample(20, 6, 12, shift=0.4), sample(30, 6, 13)
    rotation = torch.linalg.qr(sample(6, 6, 14))[0]
    estimate = kernel_estimate(x, kernel_reference(y))
    for a, b in ((x @ rotation, y @ rotation), (torch.cat([x, x], 1), torch.cat([y, y], 1))):
        other = kernel_estimate(a, kernel_reference(b))
        assert (other.value, other.low, other.high) == pytest.approx(
            (estimate.value, estimate.low, estimate.high), rel=1e-9
        )


def test_neither_order_nor_blocks_nor_precision_of_the_input_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sample(23, 6, 15, shift=0.4).float(), sample(31, 6, 16).float()
    estimate = kernel_estimate(x, kernel_reference(y))
    monkeypatch.setattr(kernel, "BLOCK", 7)
    for a, b in ((x, y), (x.flip(0), y.flip(0)), (x.double(), y.double())):
        other = kernel_estimate(a, kernel_reference(b))
        assert (other.value, other.low, other.high) == pytest.approx(
            (estimate.value, estimate.low, estimate.high), rel=1e-10
        )


def test_two_images_have_a_value_and_no_interval() -> None:
    estimate = kernel_estimate(sample(2, 4, 17), kernel_reference(sample(9, 4, 18)))
    assert math.isfinite(estimate.value)
    assert math.isnan(estimate.low) and math.isnan(estimate.high)


def test_what_has_no_distance_is_refused() -> None:
    reference = kernel_reference(sample(9, 4, 19))
    for function in (kernel_reference, lambda x: kernel_estimate(x, reference)):
        with pytest.raises(UsageError, match="at least 2 images"):
            function(sample(1, 4, 20))
        for shapeless in (torch.zeros(9), torch.zeros(9, 2, 2), torch.zeros(9, 0), torch.zeros(9, 4).long()):
            with pytest.raises(UsageError, match=r"floats \[N, d\]"):
                function(shapeless)
        for bad in (math.nan, math.inf, -1e25):
            with pytest.raises(NumericalError):
                function(torch.full((9, 4), bad, dtype=torch.float64))
    with pytest.raises(UsageError, match="5 dimensions, the reference 4"):
        kernel_estimate(sample(9, 5, 21), reference)


def test_the_largest_features_do_not_overflow() -> None:
    x = torch.tensor([[1e24], [-1e24], [1e24]], dtype=torch.float64)
    estimate = kernel_estimate(x, kernel_reference(x))
    assert all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))
