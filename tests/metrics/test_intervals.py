"""Clustered intervals: against Welch's, Student's, Wilson's and Fieller's by their definitions."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import t as student
from scipy.stats import ttest_1samp, ttest_ind, ttest_rel

from leakbench.errors import LeakBenchError, NumericalError, UsageError
from leakbench.metrics.estimate import Estimate, exact, mean, proportion
from leakbench.metrics.intervals import (
    clustered_mean,
    holm,
    leakage_index,
    newcombe,
    paired_difference,
    ratio_of_estimates,
    unpaired_difference,
)

Array = NDArray[np.float64]
Z = float(ndtri(0.975))


def shares(seeds: int, classes: int, seed: int, centre: float = 0.5) -> Array:
    """Shares of ten images each, with effects of class and seed."""
    rng = np.random.default_rng(seed)
    rates = centre + 0.1 * rng.normal(size=classes) + 0.05 * rng.normal(size=(seeds, 1))
    return rng.binomial(10, np.clip(rates, 0, 1), (seeds, classes)) / 10


@pytest.mark.parametrize(("seeds", "classes"), [(2, 2), (3, 10), (10, 3), (5, 100)])
def test_mean_is_welchs_interval_of_class_means_and_seed_means(seeds: int, classes: int) -> None:
    # Welch's statistic of two samples has exactly this variance and these degrees of freedom
    x = np.random.default_rng(0).normal(size=(seeds, classes))
    low, high = ttest_ind(x.mean(0), -x.mean(1), equal_var=False).confidence_interval(0.95)
    estimate = clustered_mean(x)
    assert estimate.value == pytest.approx(x.mean())
    assert estimate.n == x.size
    assert estimate.high - estimate.value == pytest.approx((high - low) / 2, rel=1e-9)
    assert estimate.value - estimate.low == pytest.approx((high - low) / 2, rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 7), (7, 1)])
def test_one_seed_or_one_class_leaves_students_interval(shape: tuple[int, int]) -> None:
    values = [0.1, 0.5, 0.2, 0.9, 0.4, 0.4, 0.7]
    estimate, expected = clustered_mean(np.reshape(values, shape)), mean(values)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


@pytest.mark.parametrize("x", [np.full((1, 1), 0.3), np.full((3, 4), 0.1), np.array([[0.0, 1.0], [1.0, 0.0]])])
def test_no_interval_where_neither_classes_nor_seeds_differ(x: Array) -> None:
    estimate = clustered_mean(x)
    assert estimate.value == pytest.approx(x.mean())
    assert math.isnan(estimate.low) and math.isnan(estimate.high)
    # known to be shares of images, they have one
    assert clustered_mean(x, images=10).low < x.mean() < clustered_mean(x, images=10).high


@pytest.mark.slow
@given(st.integers(0, 200), st.integers(1, 4), st.integers(1, 10))
def test_equal_shares_have_wilsons_interval(hits: int, seeds: int, classes: int) -> None:
    x = np.full((seeds, classes), hits / 200)
    estimate, wilson = clustered_mean(x, images=200), proportion(hits * x.size, 200 * x.size)
    assert (estimate.low, estimate.high) == pytest.approx((wilson.low, wilson.high), abs=1e-12)


@pytest.mark.slow
@given(st.integers(1, 5), st.integers(1, 12), st.integers(1, 20), st.data())
def test_shares_have_an_interval_within_the_unit_no_narrower_than_wilsons(
    seeds: int, classes: int, images: int, data: st.DataObject
) -> None:
    counts = st.lists(st.integers(0, images), min_size=seeds * classes, max_size=seeds * classes)
    hits = np.reshape(data.draw(counts), (seeds, classes))
    estimate = clustered_mean(hits / images, images=images)
    wilson = proportion(int(hits.sum()), images * hits.size)
    # 1e-12: rounding of numbers of size one
    assert 0 <= estimate.low <= wilson.low + 1e-12
    assert wilson.high - 1e-12 <= estimate.high <= 1
    assert estimate.low < estimate.high


def test_many_shares_in_the_middle_have_students_interval() -> None:
    # far from 0 and 1 a score interval is the normal one, up to terms of 1 / effective number
    x = shares(5, 2000, 1)
    with_images, without = clustered_mean(x, images=10), clustered_mean(x)
    assert with_images.high - with_images.low == pytest.approx(without.high - without.low, rel=0.02)


@pytest.mark.slow
@given(st.integers(2, 5), st.integers(2, 12), st.integers(0, 10**6))
def test_no_order_of_seeds_or_classes_matters(seeds: int, classes: int, seed: int) -> None:
    x, y = shares(seeds, classes, seed), shares(seeds, classes, seed + 1, 0.9)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(seeds), rng.permutation(classes)
    null = np.full((1, classes), 0.1)
    shuffled_x, shuffled_y = x[rows][:, columns], y[rows][:, columns]
    for one, other in (
        (clustered_mean(x), clustered_mean(shuffled_x)),
        (clustered_mean(x, 10), clustered_mean(shuffled_x, 10)),
        (leakage_index(x, null, y), leakage_index(shuffled_x, null, shuffled_y)),
    ):
        # 1e-6: a variance that is zero but for rounding has a root of 1e-8
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), 1e-6, 1e-6, True)


def test_index_on_a_known_scale_is_the_clustered_mean() -> None:
    x = shares(3, 10, 2)
    index = leakage_index(x, np.zeros((1, 10)), np.full((3, 10), 2.0))
    expected = clustered_mean(x)
    assert index.n == 30
    assert (index.value, index.low, index.high) == pytest.approx(
        (expected.value / 2, expected.low / 2, expected.high / 2)
    )
    widened, wilson = leakage_index(x, np.zeros((1, 10)), np.ones((1, 10)), images=10), clustered_mean(x, 10)
    assert widened.low == pytest.approx(min(wilson.low, expected.low))
    assert widened.high == pytest.approx(max(wilson.high, expected.high))


def test_limits_of_the_index_are_where_the_difference_is_just_told_from_zero() -> None:
    # Fieller's definition, by the interval of a mean; with one seed its degrees of freedom are the same for all L
    attack, null, real = shares(1, 40, 3, 0.4), shares(1, 40, 4, 0.2), shares(1, 40, 5, 0.8)
    index = leakage_index(attack, null, real)
    assert 0 < index.low < index.value < index.high < 1
    assert index.value == pytest.approx((attack.mean() - null.mean()) / (real.mean() - null.mean()))
    for limit, end in ((index.low, "low"), (index.high, "high")):
        estimate = clustered_mean(attack - null - limit * (real - null))
        assert getattr(estimate, end) == pytest.approx(0, abs=1e-12)


def test_one_seed_of_null_and_real_serves_all() -> None:
    attack, null, real = shares(4, 10, 6, 0.4), shares(1, 10, 7, 0.1), shares(1, 10, 8, 0.9)
    repeated = leakage_index(attack, np.repeat(null, 4, axis=0), np.repeat(real, 4, axis=0))
    assert leakage_index(attack, null, real) == repeated


def test_distances_have_the_index_of_their_negatives() -> None:
    attack, null, real = shares(3, 10, 9, 0.4), shares(3, 10, 10, 0.1), shares(3, 10, 11, 0.9)
    index = leakage_index(attack, null, real)
    distance = leakage_index(5 - attack, 5 - null, 5 - real, higher_leaks=False)
    assert (index.value, index.low, index.high) == pytest.approx((distance.value, distance.low, distance.high))


@pytest.mark.parametrize(("centre", "bound"), [(0.0, 0), (1.0, 1)])
def test_index_is_cut_to_the_unit(centre: float, bound: int) -> None:
    attack = shares(3, 10, 12, centre)
    index = leakage_index(attack, np.full((1, 10), 0.3), np.full((1, 10), 0.7), images=10)
    assert (index.value, index.low, index.high) == (bound, bound, bound)
    near = leakage_index(attack, np.full((1, 10), 0.0), np.full((1, 10), 1.0), images=10)
    assert 0 <= near.low < near.high <= 1


@pytest.mark.parametrize("hits", [0.0, 1.0])
def test_index_of_none_and_all_has_a_width(hits: float) -> None:
    known = np.zeros((1, 5)), np.ones((1, 5))
    without = leakage_index(np.full((2, 5), hits), *known)
    assert without.value == hits
    assert math.isnan(without.low) and math.isnan(without.high)
    # two seeds' five classes, each counted once: nothing tells how alike the ten images of one are
    index, wilson = leakage_index(np.full((2, 5), hits), *known, images=10), proportion(int(hits * 10), 10)
    assert (index.low, index.high) == pytest.approx((wilson.low, wilson.high), abs=1e-12)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_index_that_is_the_same_in_every_class_and_seed_has_no_interval(share: float) -> None:
    null, real = shares(3, 10, 18, 0.2), shares(3, 10, 19, 0.8)
    index = leakage_index(null + share * (real - null), null, real)
    assert index.value == pytest.approx(share)
    assert math.isnan(index.low) and math.isnan(index.high)


def test_a_scale_that_may_be_zero_leaves_every_index_possible() -> None:
    rng = np.random.default_rng(13)
    null = rng.normal(size=(1, 10))
    real = null + rng.normal(size=(1, 10))
    real += 0.01 - (real - null).mean()
    index = leakage_index(rng.normal(size=(3, 10)), null, real)
    assert (index.low, index.high) == (0, 1)


@pytest.mark.parametrize("scale", [1.0, -400.0])
def test_ratio_on_an_exact_scale_is_the_estimate_itself(scale: float) -> None:
    null, real = exact(7.0), exact(7.0 + scale)
    low, high = sorted((7 + 0.1 * scale, 7 + 0.5 * scale))
    ratio = ratio_of_estimates(Estimate(7 + 0.3 * scale, low, high, 20), null, real)
    assert ratio.n == 20
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.3, 0.1, 0.5))
    none = ratio_of_estimates(exact(7 + 0.3 * scale), null, real)
    assert none.value == pytest.approx(0.3)
    assert math.isnan(none.low) and math.isnan(none.high)


def test_limits_of_the_ratio_solve_fiellers_equation() -> None:
    errors = {"attack": 0.3, "null": 0.2, "real": 0.4}
    values = {"attack": 5.0, "null": 8.0, "real": 2.0}
    given = {k: Estimate(v, v - Z * errors[k], v + Z * errors[k]) for k, v in values.items()}
    ratio = ratio_of_estimates(**given)
    assert ratio.value == pytest.approx(0.5)
    assert ratio.low < 0.5 < ratio.high
    for limit in (ratio.low, ratio.high):
        # attack - L real - (1 - L) null, three independent normals
        distance = values["attack"] - limit * values["real"] - (1 - limit) * values["null"]
        error = math.hypot(errors["attack"], limit * errors["real"], (1 - limit) * errors["null"])
        assert abs(distance) == pytest.approx(Z * error)


def test_a_limit_that_was_cut_at_zero_does_not_shrink_the_error() -> None:
    whole, cut = Estimate(1.0, -3.0, 5.0), Estimate(1.0, 0.0, 5.0)
    null, real = Estimate(20.0, 19.0, 21.0), exact(0.0)
    assert ratio_of_estimates(cut, null, real) == ratio_of_estimates(whole, null, real)


def test_ratio_needs_a_scale() -> None:
    attack = exact(1.0)
    with pytest.raises(UsageError, match="no scale"):
        ratio_of_estimates(attack, exact(2.0), exact(2.0))
    # 1 / hypot(.6, .6) / 1.96: the difference is 2.3 standard errors, then 1.6
    assert ratio_of_estimates(attack, Estimate(2, 1.4, 2.6), Estimate(3, 2.4, 3.6)).value == 0
    with pytest.raises(UsageError, match="no scale"):
        ratio_of_estimates(attack, Estimate(2, 1.2, 2.8), Estimate(3, 2.1, 3.9))
    with pytest.raises(NumericalError):
        ratio_of_estimates(Estimate(math.nan), exact(1.0), exact(2.0))


def test_defences_that_are_the_same_do_not_differ() -> None:
    x = shares(3, 10, 14)
    difference = paired_difference(x, x)
    assert (difference.value, difference.p, difference.n) == (0, 1, 30)
    assert math.isnan(difference.low) and math.isnan(difference.high)


def test_a_shift_without_any_spread_has_no_p() -> None:
    difference = paired_difference(np.full((2, 3), 0.7), np.full((2, 3), 0.3))
    assert difference.value == pytest.approx(0.4)
    assert math.isnan(difference.low) and math.isnan(difference.p)


def test_difference_of_one_seed_is_students_paired_test() -> None:
    a, b = shares(1, 20, 15, 0.6), shares(1, 20, 16, 0.5)
    expected = ttest_1samp((a - b)[0], 0.0)
    difference = paired_difference(a, b)
    assert difference.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (difference.low, difference.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)


def test_pairing_finds_a_shift_that_classes_would_hide() -> None:
    rng = np.random.default_rng(17)
    classes = rng.normal(scale=5.0, size=(1, 20))
    a, b = (classes + shift + 0.1 * rng.normal(size=(3, 20)) for shift in (0.2, 0.0))
    difference = paired_difference(a, b)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.value == pytest.approx(0.2, abs=0.1)
    assert difference.p < 0.01


@pytest.mark.slow
@given(st.integers(1, 5), st.integers(2, 12), st.floats(-0.3, 0.3), st.integers(0, 10**6))
def test_p_goes_with_the_interval_and_the_sign_with_the_order(
    seeds: int, classes: int, shift: float, seed: int
) -> None:
    a, b = shares(seeds, classes, seed) + shift, shares(seeds, classes, seed + 1)
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low), nan_ok=True)
    assert there.p == pytest.approx(back.p, nan_ok=True)
    assert (there.p < 0.05) == (there.low > 0 or there.high < 0)


def test_peers_that_scatter_widen_the_interval_of_few_seeds() -> None:
    rng = np.random.default_rng(18)
    a, b = shares(2, 10, 19), shares(2, 10, 20)
    b += (a - b).mean(1, keepdims=True)  # both seeds agree on the difference
    peers = [shares(2, 10, 21) + rng.normal(scale=0.5, size=(2, 1)) for _ in range(4)]
    alone, among = paired_difference(a, b), paired_difference(a, b, peers)
    assert among.value == alone.value
    assert among.high - among.low > 2 * (alone.high - alone.low)


def test_variance_over_seeds_of_peers_is_the_interaction_of_seed_and_defence() -> None:
    # no class differs: what is left is the analysis of variance of seed x defence, by hand
    means = np.array([[0.1, 0.4], [0.2, 0.3], [0.35, 0.6], [0.5, 0.5]])
    a, b, *peers = (np.repeat(row[:, None], 3, axis=1) for row in means)
    residual = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
    square = (residual**2).sum() / 3
    own = np.var(means[0] - means[1], ddof=1) / 2
    assert 2 * square / 2 < own  # so that the pair's own counts, with its one degree of freedom
    assert paired_difference(a, b, peers).p == pytest.approx(ttest_rel(means[0], means[1]).pvalue)
    flat = np.array([[0.1, 0.2], [0.3, 0.4], [0.35, 0.6], [0.5, 0.9]])
    a, b, *peers = (np.repeat(row[:, None], 3, axis=1) for row in flat)
    residual = flat - flat.mean(0) - flat.mean(1, keepdims=True) + flat.mean()
    error = math.sqrt(2 * (residual**2).sum() / 3 / 2)
    assert paired_difference(a, b, peers).p == pytest.approx(2 * student.sf(0.2 / error, 3))


def test_where_all_vary_alike_the_peers_tell_less_the_more_a_pair_varies() -> None:
    peers = [np.array([[0.3], [0.5], [0.4]]), *(np.array([[0.6], [0.6], [x]]) for x in (0.5, 0.6, 0.7, 0.55))]
    freedoms = []
    for far in (0.06, 0.12, 5.0):
        a, b = np.array([[1.0 - far], [1.0], [1.0 + far]]), np.zeros((3, 1))
        means = np.hstack([a, b, *peers]).T
        residual = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
        pooled, own = 2 * (residual**2).sum() / 12 / 3, far**2 / 3
        freedom = 12 if own <= pooled else max(2, 12 * (pooled / own) ** 2)
        error = math.sqrt(max(own, pooled))
        assert paired_difference(a, b, peers, alike=True).p == pytest.approx(2 * student.sf(1 / error, freedom))
        cliff = 12 if own <= pooled else 2
        assert paired_difference(a, b, peers).p == pytest.approx(2 * student.sf(1 / error, cliff))
        freedoms.append(freedom)
    assert freedoms == [12, pytest.approx(4.84, abs=0.01), 2]


def test_peers_do_not_part_what_is_the_same() -> None:
    a, peers = shares(2, 10, 22), [shares(2, 10, seed) for seed in (23, 24)]
    assert paired_difference(a, a, peers).p == 1


def test_unpaired_difference_of_single_seeds_is_welchs() -> None:
    a, b = shares(1, 20, 25, 0.6), shares(1, 10, 26, 0.4)
    expected = ttest_ind(a[0], b[0], equal_var=False)
    difference = unpaired_difference(a, b)
    assert difference.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (difference.low, difference.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)


def test_unpaired_difference_does_not_gain_from_classes_in_common() -> None:
    classes = np.random.default_rng(27).normal(scale=5.0, size=(1, 20))
    a, b = classes + shares(3, 20, 28) + 0.5, classes + shares(3, 20, 29)
    assert paired_difference(a, b).p < 0.01 < 0.5 < unpaired_difference(a, b).p


@pytest.mark.slow
@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_difference_of_proportions_is_newcombes(m: int, n: int, data: st.DataObject) -> None:
    a, b = proportion(data.draw(st.integers(0, m)), m), proportion(data.draw(st.integers(0, n)), n)
    there, back = newcombe(a, b), newcombe(b, a)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert (there.p < 0.05) == (there.low > 0 or there.high < 0)


def test_newcombes_own_example() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 873-890, table II (a), method 10: 56/70 - 48/80
    difference = newcombe(proportion(56, 70), proportion(48, 80))
    assert (difference.low, difference.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_p_values_are_adjusted_by_holm() -> None:
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


ONES = np.ones((2, 3))


@pytest.mark.parametrize(
    ("error", "function", "arguments", "message"),
    [
        (UsageError, clustered_mean, (np.zeros(3),), "shape"),
        (UsageError, clustered_mean, (np.zeros((0, 3)),), "at least one score"),
        (UsageError, clustered_mean, (ONES * 1.1, 10), "proportions"),
        (UsageError, clustered_mean, (ONES, 0), "at least 1 image"),
        (NumericalError, clustered_mean, (ONES * math.nan,), "NaN"),
        (NumericalError, clustered_mean, (ONES * math.inf, 10), "NaN"),
        (UsageError, leakage_index, (ONES, ONES, ONES), "no scale"),
        (UsageError, leakage_index, (ONES, ONES, ONES * 0), "not above"),
        (UsageError, leakage_index, (ONES, ONES * 0, ONES, False), "not below"),
        (UsageError, leakage_index, (ONES, ONES[:, :2], ONES), "null needs"),
        (UsageError, leakage_index, (ONES[:1], ONES[:1], ONES), "real needs"),
        (NumericalError, leakage_index, (ONES, ONES * math.nan, ONES), "null: the scores hold NaN"),
        (UsageError, paired_difference, (ONES, ONES[:1]), "same seeds and classes"),
        (NumericalError, paired_difference, (ONES, ONES * math.inf), "b: the scores hold NaN"),
    ],
)
def test_what_has_no_answer_is_refused(
    error: type[LeakBenchError], function: Any, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(error, match=message):
        function(*arguments)


@pytest.mark.parametrize("images", [None, 10])
def test_a_higher_confidence_gives_a_wider_interval_about_the_same_value(images: int | None) -> None:
    scores = shares(3, 10, 1)
    ends = np.zeros((1, 10)), np.ones((1, 10))
    for at in (partial(clustered_mean, scores, images), partial(leakage_index, scores, *ends, images=images)):
        usual, wider = at(), at(confidence=0.99)
        assert usual == at(confidence=0.95)
        assert wider.value == usual.value
        assert wider.low < usual.low and wider.high > usual.high


def test_a_confidence_is_between_0_and_1() -> None:
    for confidence in (0.0, 1.0, 95.0):
        with pytest.raises(UsageError, match="confidence"):
            clustered_mean(np.full((1, 4), 0.5), 10, confidence)
