from __future__ import annotations

import math

import pytest

from leakbench.bench.records import Value
from leakbench.reports.vocabulary import describe, in_full, interval, is_distance


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
    ],
)
def test_a_value_is_written_with_its_interval_and_n(
    text: str, given: tuple[str, float, float | None, float | None, int]
) -> None:
    assert written(*given) == text


def test_an_interval_with_an_open_end_is_none() -> None:
    assert interval(Value(metric="x", value=1, low=0.5)) is None
    assert interval(Value(metric="x", value=1, low=0.5, high=math.inf)) is None
    assert interval(Value(metric="x", value=1, low=0.5, high=2)) == (0.5, 2)


def test_distances_are_known_by_name_whatever_their_network() -> None:
    assert is_distance("fid") and is_distance("fd_cnn-a")
    assert not is_distance("judge_accuracy") and not is_distance("fda_score")
    assert describe("fd_cnn-a").title == "Fréchet distance (cnn-a)"
    assert describe("kes_transfer").title == "kes transfer"
