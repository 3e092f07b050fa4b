from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from compared_samples import HITS, NAMES, NOISE, REAL, renamed, run
from latex_log import HOSTILE
from report_samples import cell, index, plain, record, row, scores, share, verdict
from scipy.stats import ttest_rel

from leakbench.bench.comparison import compare
from leakbench.errors import UsageError
from leakbench.records import DatasetInfo, Finding, PluginInfo, RunRecord, Value
from leakbench.reports.comparison_tables import csv_text as pairs_csv
from leakbench.reports.frames import LONG, as_csv, defenses_frame, long_csv, long_frame, pairs_frame, wide_frame
from leakbench.reports.vocabulary import value_of

FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


# --- a run, long


def test_the_long_frame_has_a_type_for_each_column_and_a_row_for_each_value() -> None:
    made = run()
    frame = long_frame(made)
    assert list(frame.columns) == list(LONG) and list(frame.columns)[21:] == [
        "dataset_source",
        "model_source",
        "metric_params",
        "metric_source",
        "check",
        "access",
        "cost",
        "protocol",
    ]
    numbers = {name for name in frame if pd.api.types.is_numeric_dtype(frame[name].dtype)}
    integers = {"seed", "n", "timesteps", "defense_version", "attack_version"}
    assert numbers == {"value", "low", "high", "cost", *integers}
    assert all(pd.api.types.is_integer_dtype(frame[name].dtype) for name in integers)
    counted = sum(len(c.values) + len(c.classes) for c in made.cells) + sum(
        2 + (r.p is not None) + len(r.indices) for r in made.rows
    )
    counted += sum((v.outcome != "inconclusive") + bool(value_of(v.index)) for v in made.verdicts)
    counted += sum((v.p is not None) + bool(v.classes) + len(v.classes) for v in made.verdicts)
    threats = [threat for found in made.verdicts for threat in found.threats]
    counted += sum(len(one.points) + (one.cost_to_half is not None) + (one.area is not None) for one in threats)
    assert len(frame) == counted
    assert not any(frame[name].isna().any() for name in frame if name not in numbers)


def test_values_by_class_have_a_metric_of_their_own_and_the_class_by_name() -> None:
    frame = long_frame(run())
    by_class = frame[(frame["metric"] == "class: judge_accuracy") & (frame["defense"] == "weak")]
    assert by_class["class"].tolist() == list(NAMES) * 2
    assert by_class["value"].tolist() == [
        hit / 10 for attack in ("guess", "invert") for hit in HITS["weak"][attack] or ()
    ]
    whole = frame[frame["metric"] == "judge_accuracy"]
    assert len(whole) == 2 * len(HITS) + 2 and set(whole["class"]) == {""}


def test_a_class_that_the_data_set_does_not_name_has_its_index() -> None:
    frame = long_frame(record([cell("d", "a", classes=scores(3, 4))]))
    assert frame["class"].tolist() == ["0", "1"]


def test_rows_name_the_sources_of_data_model_and_metric_that_are_of_others() -> None:
    plugins = [
        PluginInfo(kind="metric", name="mine", version=1, summary="", source="aa", params={"size": 5}),
        PluginInfo(kind="model", name="m.py:build", summary="", source="bb"),
        PluginInfo(kind="dataset", name="d.py:draw", summary="", source="cc"),
    ]
    values = [Value(metric="mine", value=1.0), Value(metric="seconds", value=2.0)]
    where = {"dataset": "d.py:draw:half", "model": "m.py:build"}
    cells = [cell("d", "a", values=values, **where), cell("d", "a", dataset="digits", model="vgg4", values=values)]
    rows = [row("d", "a", index(0.5, metric="mine"), **where)]
    made = record(cells, rows=rows, plugins=plugins)
    frame = long_frame(made).set_index(["dataset", "metric"])[list(LONG)[21:25]]
    assert [frame.loc[("d.py:draw:half", name)].tolist() for name in ("mine", "index_mine", "seconds")] == [
        ["cc", "bb", '{"size":5}', "aa"],
        ["cc", "bb", '{"size":5}', "aa"],
        ["cc", "bb", "", ""],
    ]
    assert frame.loc[("digits", "seconds")].tolist() == ["", "", "", ""]
    assert set(wide_frame(made)["model_source"]) == {"bb", ""}


def test_a_gap_is_no_measured_nan() -> None:
    made = record([cell("d", values=[Value(metric="m", value=math.nan)]), cell("e", status="failed")])
    assert [line["value"] for line in read(long_csv(long_frame(made)))] == ["nan", ""]
    few = {"classes": [0], "named": [], "notes": ["no class is named with fewer than 3 networks, got 1"]}
    made = made.model_copy(update={"verdicts": [verdict("d", "leaks").model_copy(update=few)]})
    lines = {line["metric"]: line["value"] for line in read(long_csv(long_frame(made)))}
    assert (lines["m"], lines["class: verdict: leaks"]) == ("nan", "")


def test_a_number_that_no_table_holds_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="more than 64 bits"):
        long_frame(record([cell("d", timesteps=10**30)]))


def test_a_verdict_has_its_p_and_its_classes_below_the_attacks() -> None:
    info = DatasetInfo(
        name="digits", classes=["zero", "one", "two"], train_images=9, test_images=9, channels=1, height=8, width=8,
        source="", fingerprint="",
    )  # fmt: skip
    found = verdict("d", p=0.002, networks=4, classes=[0, 2], named=[2])
    made = record([cell("d"), cell("d", "a")], verdicts=[found, verdict("e")], datasets=[info])
    frame = long_frame(made)
    rows = frame[frame["metric"].str.contains("verdict: ")]
    assert rows[["defense", "attack", "metric", "value", "class"]].values.tolist() == [
        ["d", "", "verdict: leaks", 1.0, ""],
        ["d", "", "verdict: index", 0.7, ""],
        ["d", "", "verdict: p", 0.002, ""],
        ["d", "", "verdict: networks", 4.0, ""],
        ["d", "", "class: verdict: leaks", 0.0, "zero"],
        ["d", "", "class: verdict: leaks", 1.0, "two"],
        ["e", "", "verdict: leaks", 1.0, ""],
        ["e", "", "verdict: index", 0.7, ""],
    ]
    assert rows["seed"].isna().all() and len(frame) == 2 + 8


# --- a run, wide


@pytest.mark.slow
def test_the_wide_frame_has_the_same_numbers_a_cell_a_row() -> None:
    made = run(seeds=2)
    long, wide = long_frame(made), wide_frame(made)
    assert len(wide) == len(made.cells) + len(made.rows) + sum(bool(v.classes) for v in made.verdicts)
    for one in wide.to_dict("records"):
        same = (long["defense"] == one["defense"]) & (long["attack"] == one["attack"])
        same &= long["seed"].isna() if pd.isna(one["seed"]) else long["seed"].eq(one["seed"]).fillna(False)
        for metric in ("accuracy", "judge_accuracy", "index_judge_accuracy", "valid"):
            found = long[same & (long["metric"] == metric)]["value"].tolist()
            assert found == ([] if math.isnan(one[metric]) else [one[metric]])
    assert "valid low" not in wide and "accuracy high" in wide and not any("class: " in name for name in wide)


def test_a_metric_named_like_a_column_takes_no_columns_place() -> None:
    values = [plain("timesteps", 32), plain("model", 2), share("m", 5), plain("m low", 9), plain("metric: model", 3)]
    made = record([cell("d", values=values, findings=[Finding(name="m", value=4)], timesteps=8)])
    (one,) = wide_frame(made).to_dict("records")
    assert (one["model"], one["timesteps"]) == ("vgg-small", 8)
    assert (one["metric: timesteps"], one["metric: model"], one["metric: metric: model"]) == (32, 2, 3)
    assert (one["m"], one["metric: m low"], one["finding: m"]) == (0.05, 9, 4) and one["m low"] < 0.05


# --- a comparison


def test_a_pair_has_a_row_and_a_defence_has_a_row() -> None:
    comparison = compare({"a": run()})
    pairs, defenses = pairs_frame(comparison), defenses_frame(comparison)
    for line, pair in zip(pairs.to_dict("records"), comparison.pairs, strict=True):
        assert (line["first"], line["second"], line["attack"]) == (pair.first, pair.second, pair.attack)
        for name, number in (("difference", pair.value), ("p", pair.p), ("adjusted_p", pair.adjusted)):
            assert math.isnan(line[name]) if number is None else line[name] == number
    assert defenses["label"].tolist() == ["strong", "weak", "weaker"]
    assert defenses[["rank_first", "rank_last"]].values.tolist() == [[1, 1], [2, 3], [2, 3]]
    assert defenses["index"].tolist() == defenses["index: invert"].tolist()
    assert defenses["accuracy"].tolist() == [0.95, 0.93, 0.91]
    for frame in (pairs, defenses):
        again = pd.read_csv(io.StringIO(as_csv(frame)), keep_default_na=False, na_values={}, dtype=str)
        assert len(again) == len(frame) and list(again.columns) == list(frame.columns)


# --- names of others


def hostile(name: str) -> RunRecord:
    made = renamed(run(), {"strong": name, "invert": f"{name}!"}, dataset=name, model=name)
    first, *others = made.cells
    values = [*first.values, plain(name, -1.5)]
    changed = {"defense_params": {name: name}, "public": name, "values": values}
    return made.model_copy(update={"cells": [first.model_copy(update=changed), *others]})


def original(text: str) -> str:
    return text.removeprefix("'")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", [*HOSTILE, *(f"{sign}1+1" for sign in FORMULA), "'x"])
def test_csv_runs_no_formula_and_gives_every_text_back(name: str) -> None:
    made = hostile(name)
    comparison = compare({name: made})
    for frame, text in (
        (long_frame(made), long_csv(long_frame(made))),
        (wide_frame(made), as_csv(wide_frame(made))),
        (pairs_frame(comparison), pairs_csv(comparison)),
        (defenses_frame(comparison), as_csv(defenses_frame(comparison))),
    ):
        texts = [column for column, kind in frame.dtypes.items() if pd.api.types.is_string_dtype(kind)]
        heading, *lines = csv.reader(io.StringIO(text, newline=""))
        parsed = pd.read_csv(io.StringIO(text, newline=""), dtype=str, keep_default_na=False)
        for found in (pd.DataFrame(lines, columns=heading), parsed):
            assert [original(one) for one in found.columns] == list(frame.columns)
            for column in texts:
                cells = found.iloc[:, frame.columns.get_loc(column)].tolist()
                assert not any(one.startswith(FORMULA) for one in cells)
                assert [original(one) for one in cells] == frame[column].tolist()
        assert not any(one.startswith(FORMULA) for one in heading)


@pytest.mark.parametrize("name", HOSTILE)
def test_parquet_holds_texts_as_they_are(name: str) -> None:
    pytest.importorskip("pyarrow")
    frame = long_frame(hostile(name))
    stored = io.BytesIO()
    frame.to_parquet(stored, engine="pyarrow", index=False)
    again = pd.read_parquet(io.BytesIO(stored.getvalue()))
    assert again["defense"].tolist() == frame["defense"].tolist() and name in set(again["defense"])
    assert again["value"].equals(frame["value"]) and str(again["seed"].dtype) == "Int64"


# --- what a reader of results.csv alone computes


@pytest.mark.parametrize("noise", [NOISE, (3,) * 10], ids=["untrained is the null", "noise is the null"])
@pytest.mark.parametrize("attack", ["guess", "invert"])
def test_a_paired_difference_can_be_had_from_the_csv_alone(attack: str, noise: tuple[int, ...]) -> None:
    made = run(noise=noise)
    lines = read(long_csv(long_frame(made)))

    def by_class(defense: str, attack: str) -> np.ndarray:
        named = [
            (line["class"], float(line["value"]))
            for line in lines
            if (line["defense"], line["attack"], line["metric"]) == (defense, attack, "class: judge_accuracy")
        ]
        assert [name for name, _ in named] == list(NAMES)
        return np.array([value for _, value in named])

    nulls = [by_class("", "noise"), by_class("random", attack)]
    assert (max(nulls, key=np.mean) is nulls[0]) == (sum(noise) == 30)
    scale = by_class("", "real").mean() - max(one.mean() for one in nulls)
    assert scale < np.mean(REAL) / 10
    pairs = {
        (pair.first, pair.second): pair
        for pair in compare({"run": made}).pairs
        if pair.quantity == "leakage" and pair.attack == attack
    }
    assert len(pairs) == 3
    tests = {}
    for (first, second), pair in pairs.items():
        a, b = (by_class(name, attack) / scale for name in (first, second))
        test = tests[first, second] = ttest_rel(a, b)
        ends = test.confidence_interval(0.95)
        assert (pair.value, pair.low, pair.high, pair.p) == pytest.approx(
            ((a - b).mean(), ends.low, ends.high, test.pvalue), rel=1e-9
        )
        assert pair.paired
    # Holm by hand: the smallest p times 3, the next times 2, never below the one before
    floor = 0.0
    for rank, key in enumerate(sorted(tests, key=lambda key: tests[key].pvalue)):
        floor = max(floor, min(1.0, tests[key].pvalue * (3 - rank)))
        assert pairs[key].adjusted == pytest.approx(floor, rel=1e-9)


def test_parameters_are_canonical() -> None:
    frame = long_frame(record([cell("d", defense_params={"b": [1, {"ü": None}], "a": 0.1})]))
    assert frame["defense_params"].tolist() == ['{"a":0.1,"b":[1,{"ü":null}]}']
    assert json.loads(frame["defense_params"][0]) == {"a": 0.1, "b": [1, {"ü": None}]}
