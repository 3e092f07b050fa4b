from __future__ import annotations

import math
from typing import get_args

import pytest

from leakbench.metrics.energy import LayerOperations, energy_ratios
from leakbench.records import Index, Status, Value
from leakbench.reports.vocabulary import (
    ENERGY_RATIOS,
    PAPER_RATIO,
    STATUSES,
    depends_on_n,
    describe,
    in_full,
    index_text,
    interval,
    is_distance,
    value_of,
)

LEAKAGE = ("judge_accuracy", "judge_top5", "kes", "daa", "knn_distance", "fid", "fd_x", "kid", "kd_x", "precision")
LEAKAGE += ("density", "coverage", "recall", "uap_fooling", "index_kes")
OTHER = (
    "uap_fooling_real",
    "uap_fooling_noise",
    "uap_fooling_random",
    "p_value",
    "victim_accuracy",
    "victim_confidence",
    "seconds",
)
OTHER += ("queries", "gradient_steps")


def written(metric: str, value: float, low: float | None = None, high: float | None = None, n: int = 1) -> str:
    return in_full(describe(metric), Value(metric=metric, value=value, low=low, high=high, n=n))


@pytest.mark.parametrize(
    ("text", "given"),
    [
        (".71 [.61, .79] n=100", ("judge_accuracy", 0.71, 0.6146, 0.7899, 100)),
        (".00 [.00, .04] n=100", ("judge_accuracy", 0.0, 0.0, 0.0370, 100)),
        ("1.00 [.72, 1.00] n=10", ("judge_accuracy", 1.0, 0.7225, 1.0, 10)),
        (".892 [.886, .898] n=10,000", ("accuracy", 0.8921, 0.8858, 0.8980, 10_000)),
        (".9995", ("weight_cosine", 0.99950)),
        ("448 [431, 470] n=100", ("fid", 448.2, 431.1, 470.0, 100)),
        ("9.0 [8.1, 10.1] n=100", ("fd_cnn", 9.0, 8.1, 10.08, 100)),
        ("55.8×", ("energy_ratio_int32", 55.8)),
        ("1,437", ("training_images_read", 1437.0)),
        ("0", ("queries", 0.0)),
        ("41.2", ("seconds", 41.23)),
        ("0.00", ("seconds", 0.000499)),
        ("1,234", ("seconds", 1234.4)),
        ("0.01235", ("something_new", 0.0123456)),
        ("1.235e-06", ("something_new", 1.23456e-6)),
        ("nan n=7", ("judge_accuracy", math.nan, None, None, 7)),
        ("inf×", ("energy_ratio_fp32", math.inf)),
        (".50 n=40", ("judge_accuracy", 0.5, math.nan, math.nan, 40)),
        ("nan", ("queries", math.nan)),
        (".58 [.53, .63] n=360", ("kes", 0.58, 0.531, 0.629, 360)),
        ("-0.0012 [-0.0120, 0.0090] n=100", ("kd_cnn", -0.0012, -0.012, 0.009, 100)),
        (".70 [.60, .80] n=10", ("index_kes", 0.7, 0.6, 0.8, 10)),
        (".034", ("p_value", 0.0337)),
        ("<.001", ("p_value", 0.00099)),
        ("nan", ("p_value", math.nan)),
    ],
)
def test_a_value_is_written_with_its_interval_and_n(
    text: str, given: tuple[str, float, float | None, float | None, int]
) -> None:
    assert written(*given) == text


def test_every_status_has_words_of_its_own() -> None:
    assert set(STATUSES) == set(get_args(Status))
    assert len(set(STATUSES.values())) == len(STATUSES)


def test_an_interval_with_an_open_end_is_none() -> None:
    assert interval(Value(metric="x", value=1, low=0.5)) is None
    assert interval(Value(metric="x", value=1, low=0.5, high=math.inf)) is None
    assert interval(Value(metric="x", value=1, low=0.5, high=2)) == (0.5, 2)


def test_distances_are_known_by_name_whatever_their_network() -> None:
    assert all(is_distance(name) for name in ("fid", "fd_cnn-a", "kid", "kd_cnn-a", "knn_distance"))
    assert not any(is_distance(name) for name in ("judge_accuracy", "fda_score", "kes", "p_value"))
    assert describe("fd_cnn-a").title == "Fréchet distance (cnn-a)"
    assert describe("kd_cnn-a").title == "Kernel distance (cnn-a)"
    assert describe("kes_transfer").title == "kes transfer"
    # the kernel distance is unbiased: it may be read at any n
    assert [name for name in ("fid", "fd_x", "kid", "kd_x", "judge_accuracy") if depends_on_n(name)] == ["fid", "fd_x"]


@pytest.mark.parametrize(
    "name",
    [
        "judge_accuracy",
        "judge_top5",
        "kes",
        "daa",
        "knn_distance",
        "fid",
        "fd_x",
        "kid",
        "kd_x",
        "precision",
        "density",
        "coverage",
        "recall",
        "uap_fooling",
        "uap_fooling_real",
        "uap_fooling_noise",
        "uap_fooling_random",
        "p_value",
        "victim_accuracy",
        "victim_confidence",
        "seconds",
        "queries",
        "gradient_steps",
        "index_kes",
    ],
)
def test_every_metric_of_an_attack_is_explained(name: str) -> None:
    metric = describe(name)
    assert metric.name == name and metric.meaning
    assert bool(metric.leak) is (name in LEAKAGE)


def test_every_energy_ratio_of_a_run_is_explained_under_a_title_of_its_own() -> None:
    layer = LayerOperations("fc", 480, 48, 24.0, False, 10, 480, spikes_out=3.0, spiking_neurons=10)
    assert set(ENERGY_RATIOS) == set(energy_ratios([layer], 10).values)
    metrics = [describe(name) for name in ENERGY_RATIOS]
    assert {metric.kind for metric in metrics} == {"ratio"} and all(metric.meaning for metric in metrics)
    assert len({metric.title for metric in metrics}) == len(metrics) == 5
    assert not any(metric.leak for metric in metrics)
    assert written(PAPER_RATIO, 55.8) == "55.8×" and written("energy_ratio_memory", 0.4) == "0.400×"


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (Index(metric="kes", value=0.834, low=0.711, high=0.93, n=10), ".83 [.71, .93]"),
        (Index(metric="kes", value=1.0), "1.00"),
        (Index(metric="kes", value=None, reason="no scale"), "–"),
        (Index(metric="kes", value=math.nan), "–"),
        (None, "–"),
    ],
)
def test_an_index_is_written_as_a_share_or_a_dash(index: Index | None, text: str) -> None:
    assert index_text(index) == text
    assert (value_of(index) is None) is (text == "–")
