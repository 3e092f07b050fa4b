from __future__ import annotations

import math
from typing import get_args

import pytest
from by_hand import declared

from leakbench.metrics.energy import ENERGY_RATIOS, PAPER_RATIO, LayerOperations, energy_ratios
from leakbench.metrics.metric import Declaration
from leakbench.records import Index, Status, Value
from leakbench.reports.vocabulary import (
    STATUSES,
    Vocabulary,
    compares_sets,
    explained,
    in_full,
    index_text,
    interval,
    plain,
    value_of,
)

WORDS = Vocabulary(declared().values())


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (Declaration("m", "M", "Distance.", leaks="less"), "Distance. Lower means that more leaks."),
        (
            Declaration("m", "M", "Share. Higher means that more leaks.", leaks="more"),
            "Share. Higher means that more leaks.",
        ),
        (Declaration("m", "M", "A count."), "A count."),
        (
            Declaration("m", "M", "", leaks="more"),
            "Not described: a metric's docstring says what it means. Higher means that more leaks.",
        ),
    ],
)
def test_an_explanation_says_the_direction_once(metric: Declaration, text: str) -> None:
    assert explained(metric) == text


def written(metric: str, value: float, low: float | None = None, high: float | None = None, n: int = 1) -> str:
    return in_full(WORDS.unit(metric), Value(metric=metric, value=value, low=low, high=high, n=n))


@pytest.mark.parametrize(
    ("text", "given"),
    [
        (".71 [.61, .79] n=100", ("judge_accuracy", 0.71, 0.6146, 0.7899, 100)),
        (".00 [.00, .04] n=100", ("judge_accuracy", 0.0, 0.0, 0.0370, 100)),
        ("1.00 [.72, 1.00] n=10", ("judge_accuracy", 1.0, 0.7225, 1.0, 10)),
        (".892 [.886, .898] n=10,000", ("accuracy", 0.8921, 0.8858, 0.8980, 10_000)),
        (".9995", ("weight_cosine", 0.99950)),
        ("448 [431, 470] n=100", ("fid", 448.2, 431.1, 470.0, 100)),
        ("9.0 [8.1, 10.1] n=100", ("fd_bnconv", 9.0, 8.1, 10.08, 100)),
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
        ("-0.0012 [-0.0120, 0.0090] n=100", ("kd_bnconv", -0.0012, -0.012, 0.009, 100)),
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


@pytest.mark.parametrize("name", declared())
def test_a_metric_is_described_as_it_declares_itself(name: str) -> None:
    assert WORDS.describe(name) is declared()[name]


def test_an_index_is_a_share_named_after_its_metric() -> None:
    found = WORDS.describe("index_kes")
    assert (found.title, found.unit, found.leaks) == ("Leakage index, Knowledge extraction (KES)", "share", "more")
    assert found.meaning.startswith("0: ") and found.meaning.endswith(", by Knowledge extraction (KES).")
    assert WORDS.describe("index_of_theirs").title == "Leakage index, of theirs"
    assert WORDS.describe("index_" * 5000).unit == "share"


def test_what_nothing_declares_is_shown_as_it_is() -> None:
    assert WORDS.describe("kes_transfer") == Declaration("kes_transfer", "kes transfer", "")
    assert not any(part.leaks or part.needs_same_n for part in (WORDS.describe("fd_theirs"), WORDS.describe("fid2")))


def test_a_metric_of_others_is_described_by_what_it_says() -> None:
    theirs = Declaration("fd_theirs", "Theirs", "What it means.", unit="share", leaks="less", needs_same_n=True)
    assert Vocabulary([theirs]).describe("fd_theirs") is theirs
    assert Vocabulary([theirs]).describe("index_fd_theirs").title == "Leakage index, Theirs"


def test_distances_between_sets_are_told_by_unit_and_not_by_name() -> None:
    sets = {name for name, metric in declared().items() if compares_sets(metric)}
    assert sets == {"fid", "fd_bnconv", "fd_inception", "fd_squeezenet", "kid", "kd_bnconv", "kd_inception"}
    assert compares_sets(Declaration("theirs", "", "", unit="distance"))
    assert not compares_sets(Declaration("fid_like", "", "", unit="distance", per="class"))


def test_every_energy_ratio_of_a_run_is_explained_under_a_title_of_its_own() -> None:
    layer = LayerOperations("fc", 480, 48, 24.0, False, 10, 480, spikes_out=3.0, spiking_neurons=10)
    assert set(ENERGY_RATIOS) == set(energy_ratios([layer], 10).values)
    metrics = [WORDS.describe(name) for name in ENERGY_RATIOS]
    assert {metric.unit for metric in metrics} == {"ratio"} and all(metric.meaning for metric in metrics)
    assert len({metric.title for metric in metrics}) == len(metrics) == 5
    assert not any(metric.leaks for metric in metrics)
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


@pytest.mark.parametrize(
    ("p", "text"), [(0.0496, ".0496"), (0.04999, ".04999"), (0.0502, ".050"), (0.0097, ".0097"), (0.03, ".030")]
)
def test_a_p_below_a_level_is_not_rounded_up_to_it(p: float, text: str) -> None:
    assert plain("p", p) == text
