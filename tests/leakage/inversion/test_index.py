"""The leakage index against closed forms on cells written by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from by_hand import CLASSES, IMAGES, NOWHERE, Scores, cell, declared, place
from scipy.stats import t

from leakbench.leakage.inversion.class_evidence import FORCED
from leakbench.leakage.inversion.index import has_index, index_of, indices, paired
from leakbench.leakage.seed_group import SeedGroup
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.intervals import ratio_of_estimates
from leakbench.records import Index

# metric -> what noise and real images have of it
MEANS = {
    "judge_accuracy": (0.1, 0.9),
    "judge_top5": (0.2, 1.0),
    "kes": (0.1, 0.8),
    "daa": (0.1, 0.7),
    "knn_distance": (80.0, 20.0),
}
WHOLES = {
    "fd_bnconv": (90.0, 10.0),
    "fid": (300.0, 150.0),
    "kd_bnconv": (1.5, -0.01),
    "kid": (0.3, 0.0),
    "precision": (0.1, 0.9),
    "recall": (0.2, 0.6),
    "density": (0.05, 1.1),
    "coverage": (0.0, 0.8),
}
LESS = ("knn_distance", "fd_bnconv", "fid", "kd_bnconv", "kid")
"""those of which less means that more leaks"""
every = pytest.mark.parametrize("metric", [*MEANS, *WHOLES])


def at(metric: str, value: Scores, **fields: Any) -> SeedGroup:
    """One cell that has such a value of the metric, in every class where it is a mean over classes."""
    if metric in MEANS:
        return place(cell("mine", "inversion", {metric: value}, **fields))
    assert isinstance(value, int | float)
    return place(cell("mine", "inversion", overall={metric: (value, value - 0.02, value + 0.02)}, **fields))


def ends(metric: str) -> tuple[SeedGroup, SeedGroup]:
    low, high = (MEANS | WHOLES)[metric]
    return at(metric, low), at(metric, high)


def between(metric: str, share: float) -> float:
    """The value that lies so far on the way from noise to real images."""
    low, high = (MEANS | WHOLES)[metric]
    return low + share * (high - low)


# --- closed forms ------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_index_is_how_far_on_the_way_from_noise_to_real_images(metric: str, share: float) -> None:
    found = index_of(metric, at(metric, between(metric, share)), *ends(metric), NOWHERE)
    assert found.value == pytest.approx(share, abs=1e-12)
    assert (found.metric, found.null, found.reason) == (metric, "noise", "")
    assert found.n == (CLASSES if metric in MEANS else CLASSES * IMAGES)
    assert (found.low is None) == (found.high is None)
    if found.low is not None and found.high is not None:
        assert 0 <= found.low <= share + 1e-12 and share - 1e-12 <= found.high <= 1


@every
@pytest.mark.parametrize(("share", "wanted"), [(-0.4, 0.0), (1.6, 1.0)])
def test_worse_than_nothing_is_0_and_better_than_real_is_1(metric: str, share: float, wanted: float) -> None:
    value = between(metric, share)
    if metric in ("precision", "recall", "coverage", "judge_accuracy", "judge_top5", "daa", "kes"):
        value = min(1.0, max(0.0, value))  # as far as a share goes
    found = index_of(metric, at(metric, value), *ends(metric), NOWHERE)
    assert found.value == pytest.approx(wanted, abs=1e-12)
    for one in found.classes:
        assert one.value == pytest.approx(wanted, abs=1e-12)


@every
def test_an_index_has_the_interval_of_what_it_is_made_of(metric: str) -> None:
    """Half of the classes (or one end of the value's interval) a little off, and more images tell more."""
    if metric in MEANS:
        scores = [between(metric, 0.4 if c % 2 else 0.6) for c in range(CLASSES)]
        found = index_of(metric, at(metric, scores), *ends(metric), NOWHERE)
        # Student's t on ten classes at .4 and .6: the ends are the same for each, so that their scale is exact
        half = t.ppf(0.975, 9) * np.std([0.4, 0.6] * 5, ddof=1) / math.sqrt(10)
        if metric != "knn_distance":
            assert found.low is not None and found.high is not None
            assert found.low < 0.5 - half and found.high > 0.5 + half  # the images' own share comes on top
        else:
            assert (found.low, found.high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))
    else:
        found = index_of(metric, at(metric, between(metric, 0.5)), *ends(metric), NOWHERE)
        assert found.low is not None and found.high is not None
        assert found.low < 0.5 < found.high
    assert found.value == pytest.approx(0.5)


@pytest.mark.parametrize("metric", ["judge_accuracy", "daa"])
def test_more_images_make_a_share_s_interval_narrower(metric: str) -> None:
    few, many = (
        index_of(metric, at(metric, between(metric, 0.5), images=images), *ends(metric), NOWHERE) for images in (4, 400)
    )
    for found in (few, many):
        assert found.low is not None and found.high is not None
        assert found.low < 0.5 < found.high
    assert _width(many) < 0.2 * _width(few)


def _width(index: Index) -> float:
    assert index.low is not None and index.high is not None
    return index.high - index.low


# --- the null ----------------------------------------------------------------------------------------------------


@every
def test_the_null_is_the_better_scoring_of_noise_and_the_untrained_network(metric: str) -> None:
    attack = at(metric, between(metric, 0.6))
    above, below = at(metric, between(metric, 0.2)), at(metric, between(metric, -0.05))
    found = index_of(metric, attack, *ends(metric), above)
    assert found.null == "random"
    assert found.value == pytest.approx((0.6 - 0.2) / (1 - 0.2))
    for one in found.classes:
        assert one.value == pytest.approx((0.6 - 0.2) / (1 - 0.2))
    found = index_of(metric, attack, *ends(metric), below)
    assert (found.null, found.value) == ("noise", pytest.approx(0.6))


@every
def test_the_same_as_from_an_untrained_network_is_0(metric: str) -> None:
    attack = at(metric, between(metric, 0.6))
    found = index_of(metric, attack, *ends(metric), attack)
    assert (found.null, found.value) == ("random", pytest.approx(0, abs=1e-12))


# --- no scale ----------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("share", [0.0, -0.1])
def test_no_scale_is_no_value_and_a_reason(metric: str, share: float) -> None:
    """Real images that score no better than noise: there is nothing between them to measure on."""
    noise, _ = ends(metric)
    real = at(metric, max(0.0, between(metric, share)) if metric in ("coverage", "density") else between(metric, share))
    found = index_of(metric, at(metric, between(metric, 0.5)), noise, real, NOWHERE)
    assert (found.value, found.low, found.high, found.classes) == (None, None, None, [])
    assert "no scale" in found.reason
    assert len(found.reason.splitlines()) == 1


@every
@pytest.mark.parametrize("missing", ["attack", "noise", "real"])
def test_a_metric_that_an_end_lacks_is_no_value_and_a_reason(metric: str, missing: str) -> None:
    noise, real = ends(metric)
    places = {"attack": at(metric, between(metric, 0.5)), "noise": noise, "real": real}
    for instead in (NOWHERE, place(cell("mine", "inversion", overall={"seconds": 3.0}))):
        given = places | {missing: instead}
        found = index_of(metric, given["attack"], given["noise"], given["real"], NOWHERE)
        assert found.value is None
        assert "no value" in found.reason


@pytest.mark.parametrize("metric", WHOLES)
def test_values_of_another_number_of_images_have_no_index_where_they_do_not_compare(metric: str) -> None:
    noise, real = ends(metric)
    (only,) = real.cells
    fewer = [value.model_copy(update={"n": 2}) for value in only.values]
    made = index_of(
        metric, at(metric, between(metric, 0.5)), noise, place(only.model_copy(update={"values": fewer})), NOWHERE
    )
    compares = not declared()[metric].needs_same_n
    assert math.isfinite(made.value or math.nan) == compares
    assert made.reason.startswith("no scale: the values are of 2, ") != compares


def test_a_class_without_a_scale_has_none_and_the_others_have_theirs() -> None:
    noise = [0.1, 0.1, 0.9, 0.1, *[0.1] * 6]
    real = [0.9, 0.1, 0.7, None, *[0.9] * 6]
    attack = [0.5, 0.5, 0.5, 0.5, *[0.9] * 6]
    found = index_of(FORCED, at(FORCED, attack), at(FORCED, noise), at(FORCED, real), NOWHERE)
    assert [one.target for one in found.classes] == list(range(10))
    values = [one.value for one in found.classes]
    assert values[0] == pytest.approx(0.5)
    assert values[1:4] == [None] * 3  # noise as good as real images, better, and no real images at all
    assert values[4:] == [pytest.approx(1)] * 6
    assert all((one.low, one.high) == (None, None) for one in found.classes[1:4])
    # over all classes that have both ends: means .189, .756 and .767 of nine
    kept = [c for c in range(10) if c != 3]
    low, high, own = (np.mean([float(s[c] or 0) for c in kept]) for s in (noise, real, attack))
    assert found.value == pytest.approx(min(1, (own - low) / (high - low)))
    assert found.n == 9


@pytest.mark.parametrize("metric", ["judge_accuracy", "knn_distance"])
def test_a_class_s_interval_is_its_images_own_on_the_scale(metric: str) -> None:
    attack = at(metric, between(metric, 0.5))
    found = index_of(metric, attack, *ends(metric), NOWHERE)
    (noise, real), scores = MEANS[metric], attack.cells[0].classes
    for one, score in zip(found.classes, scores, strict=True):
        limits = sorted((end - noise) / (real - noise) for end in (score.low, score.high) if end is not None)
        assert (one.low, one.high) == (pytest.approx(limits[0]), pytest.approx(limits[1]))
        assert 0 < limits[0] < 0.5 < limits[1] < 1


# --- seeds -------------------------------------------------------------------------------------------------------


def seeds(metric: str, *values: Scores) -> SeedGroup:
    return place(*(at(metric, value, seed=seed).cells[0] for seed, value in enumerate(values)))


@pytest.mark.parametrize("metric", list(MEANS))
def test_seeds_are_averaged(metric: str) -> None:
    attack = seeds(metric, *(between(metric, share) for share in (0.4, 0.5, 0.9)))
    noise = seeds(metric, *(between(metric, share) for share in (0.0, 0.1, 0.2)))
    real = seeds(metric, *(between(metric, share) for share in (0.8, 1.0, 0.9)))
    found = index_of(metric, attack, noise, real, NOWHERE)
    assert found.value == pytest.approx((0.6 - 0.1) / (0.9 - 0.1))
    assert found.n == 3 * CLASSES
    for one in found.classes:
        assert one.value == pytest.approx((0.6 - 0.1) / (0.9 - 0.1))


@pytest.mark.parametrize("metric", list(WHOLES))
def test_seeds_of_a_metric_of_sets_are_averaged_with_their_t_interval(metric: str) -> None:
    given = [between(metric, share) for share in (0.3, 0.5, 0.7)]
    low, high = WHOLES[metric]
    found = index_of(metric, seeds(metric, *given), seeds(metric, *[low] * 3), seeds(metric, *[high] * 3), NOWHERE)
    assert found.value == pytest.approx(0.5)
    # Student's t of three values, read at the normal quantile; ends that are the same on all seeds have that of one
    half = t.ppf(0.975, 2) * np.std(given, ddof=1) / math.sqrt(3)
    attack = Estimate(float(np.mean(given)), np.mean(given) - half, np.mean(given) + half, 3)
    expected = ratio_of_estimates(attack, *(Estimate(end, end - 0.02, end + 0.02) for end in (low, high)))
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


@pytest.mark.parametrize("metric", list(MEANS))
def test_seeds_that_differ_widen_the_interval(metric: str) -> None:
    noise, real = (seeds(metric, *[MEANS[metric][end]] * 3) for end in (0, 1))
    steady = seeds(metric, *[[between(metric, share) for share in [0.4, 0.6] * 5]] * 3)
    varied = seeds(
        metric, *([between(metric, share + off) for share in [0.4, 0.6] * 5] for off in (-0.2, 0.0, 0.2))
    )  # fmt: skip
    narrow, wide = (index_of(metric, attack, noise, real, NOWHERE) for attack in (steady, varied))
    assert narrow.value == pytest.approx(0.5) and wide.value == pytest.approx(0.5)
    assert _width(wide) > 1.5 * _width(narrow)


@pytest.mark.parametrize("metric", list(MEANS))
def test_a_seed_that_an_end_lacks_leaves_no_scale(metric: str) -> None:
    """The index of the other networks would be taken for that of all."""
    attack = seeds(metric, between(metric, 0.4), between(metric, 0.8))
    found = index_of(metric, attack, *ends(metric), NOWHERE)  # of seed 0
    assert (found.value, found.reason) == (None, "no scale at seed 1: no null or no real images there")


@pytest.mark.parametrize("metric", list(MEANS))
def test_a_class_that_is_missing_everywhere_is_left_out_and_one_that_a_seed_lacks_is_a_reason(metric: str) -> None:
    half: list[float | None] = [between(metric, 0.5)] * CLASSES
    without = [*half[:-1], None]
    found = index_of(metric, at(metric, without), *ends(metric), NOWHERE)
    assert (found.value, found.n) == (pytest.approx(0.5), CLASSES - 1)
    assert [one.target for one in found.classes] == list(range(CLASSES - 1))
    noise, real = (seeds(metric, *[MEANS[metric][end]] * 2) for end in (0, 1))
    found = index_of(metric, seeds(metric, half, without), noise, real, NOWHERE)
    assert found.value is None
    assert "lacks a class" in found.reason


def test_no_order_of_cells_or_classes_matters() -> None:
    def turned(one: SeedGroup) -> SeedGroup:
        return place(*(c.model_copy(update={"classes": c.classes[::-1]}) for c in reversed(one.cells)))

    attack, noise, real = (seeds(FORCED, *v) for v in ((0.5, 0.6, 0.8), (0.1, 0.2, 0.1), (0.9, 1.0, 0.8)))
    found = index_of(FORCED, attack, noise, real, NOWHERE)
    assert index_of(FORCED, turned(attack), turned(noise), turned(real), NOWHERE) == found


# --- fooling -----------------------------------------------------------------------------------------------------


def fooling(own: float, signs: float | None, real: float | None, noise: float | None = None) -> SeedGroup:
    ends = {"random": signs, "noise": noise, "real": real}
    values = {"uap_fooling": own, **{f"uap_fooling_{end}": value for end, value in ends.items()}}
    return place(
        cell("mine", "inversion", overall={k: (v, v - 0.02, v + 0.02) for k, v in values.items() if v is not None})
    )


@pytest.mark.parametrize(("own", "wanted"), [(0.1, 0.0), (0.3, 0.5), (0.5, 1.0), (0.05, 0.0), (0.9, 1.0)])
def test_fooling_stands_between_its_own_brackets(own: float, wanted: float) -> None:
    found = index_of("uap_fooling", fooling(own, 0.1, 0.5), NOWHERE, NOWHERE, NOWHERE)
    assert found.value == pytest.approx(wanted)
    assert (found.null, found.classes, found.n) == ("random signs", [], CLASSES * IMAGES)
    assert found.low is not None and found.high is not None
    assert found.low <= wanted + 1e-12 and wanted - 1e-12 <= found.high


def test_fooling_beyond_what_noise_images_do_counts() -> None:
    found = index_of("uap_fooling", fooling(0.4, 0.1, 0.5, noise=0.3), NOWHERE, NOWHERE, NOWHERE)
    assert (found.value, found.null) == (pytest.approx(0.5), "noise")
    assert index_of("uap_fooling", fooling(0.4, 0.1, 0.5, noise=0.6), NOWHERE, NOWHERE, NOWHERE).value is None


@pytest.mark.parametrize(("signs", "real"), [(0.5, 0.5), (0.5, 0.3), (None, 0.5), (0.1, None), (0.4, 0.41)])
def test_fooling_without_brackets_has_no_value(signs: float | None, real: float | None) -> None:
    found = index_of("uap_fooling", fooling(0.3, signs, real), NOWHERE, NOWHERE, NOWHERE)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.reason and len(found.reason.splitlines()) == 1


# --- all of them -------------------------------------------------------------------------------------------------


def test_the_headline_comes_first_then_kes_and_what_has_no_scale_not_at_all() -> None:
    names = {"daa": 0.5, "kes": 0.5, "judge_accuracy": 0.5}
    both = {"fd_bnconv": 3.0, "p_value": 0.2, "victim_confidence": 0.9, "seconds": 2.0, "uap_fooling_random": 0.1}
    attack = place(cell("mine", "inversion", names, both))
    noise = place(cell("", "noise", {"daa": 0.1, "kes": 0.1, "judge_accuracy": 0.1}, {"fd_bnconv": 9.0}))
    real = place(cell("", "real", {"daa": 1.0, "kes": 1.0, "judge_accuracy": 1.0}, {"fd_bnconv": 1.0}))
    found = indices(attack, noise, real, NOWHERE, "judge_accuracy")
    assert [index.metric for index in found] == ["judge_accuracy", "kes", "daa", "fd_bnconv"]
    assert found == [index_of(index.metric, attack, noise, real, NOWHERE) for index in found]
    assert indices(NOWHERE, noise, real, NOWHERE, "judge_accuracy") == []
    daa, *others = indices(attack, noise, real, NOWHERE, "daa")
    assert (daa.metric, [index.metric for index in others]) == ("daa", ["kes", "judge_accuracy", "fd_bnconv"])


@pytest.mark.parametrize(
    ("metric", "leaks"),
    [
        *((name, "less" if name in LESS else "more") for name in (*MEANS, *WHOLES)),
        ("fd_inception", "less"),
        ("fd_squeezenet", "less"),
        ("uap_fooling", "more"),
    ],
)
def test_which_metrics_have_an_index_and_which_way_they_leak(metric: str, leaks: str) -> None:
    assert has_index(declared(), metric)
    assert declared()[metric].leaks == leaks


@pytest.mark.parametrize(
    "metric", ["p_value", "accuracy", "victim_confidence", "uap_fooling_real", "queries", "nobody's"]
)
def test_what_has_no_scale_has_no_index(metric: str) -> None:
    assert not has_index(declared(), metric)


# --- pairs -------------------------------------------------------------------------------------------------------


def test_a_paired_difference_is_of_the_classes_and_seeds_that_both_have() -> None:
    first = [0.5, 0.7, 0.6, 0.8, *[0.6] * 6]
    second = [0.4, 0.5, 0.5, 0.8, *[0.3] * 6]
    found = paired(at(FORCED, first), at(FORCED, second))
    assert found is not None
    differences = np.subtract(first, second)
    error = differences.std(ddof=1) / math.sqrt(10)
    assert found.value == pytest.approx(differences.mean())
    assert found.p == pytest.approx(2 * t.sf(differences.mean() / error, 9))
    # without class 9, and seed 1 that only one of them has
    cut = paired(seeds(FORCED, first, first), at(FORCED, [*second[:-1], None]))
    assert cut is not None
    assert (cut.value, cut.n) == (pytest.approx(differences[:-1].mean()), 9)
    assert paired(at(FORCED, 0.5), NOWHERE) is None
    assert paired(at(FORCED, 0.5), at("kes", 0.5)) is None
    assert paired(at(FORCED, 0.5), at(FORCED, 0.5, seed=1)) is None
