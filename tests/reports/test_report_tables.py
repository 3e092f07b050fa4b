from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import anchor, cell, realistic, record, share, small

from leakbench.bench.records import Value
from leakbench.reports import write_tables
from leakbench.reports.tables import COLUMNS, csv_text, latex_text, markdown_text, safe_text


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_one_row_a_value_in_the_order_of_the_record() -> None:
    made = small()
    found = rows(csv_text(made))
    values = [(c, v) for c in made.cells for v in c.values]
    assert len(found) == len(values)
    for row, (c, v) in zip(found, values, strict=True):
        assert (row["defense"], row["attack"], row["seed"]) == (c.defense, c.attack, str(c.seed))
        assert (row["metric"], float(row["value"]), row["n"]) == (v.metric, v.value, str(v.n))
    assert csv_text(made).splitlines()[0] == "dataset,model,defense,attack,seed,status,metric,value,low,high,n"
    assert [row["attack"] for row in found if not row["defense"]] == ["noise", "noise", "real", "real"]


def test_a_cell_without_values_has_one_row() -> None:
    made = record([cell("a", "b", status="failed", reason="x"), cell("a", "c", status="not-applicable")])
    found = rows(csv_text(made))
    assert [(row["attack"], row["status"]) for row in found] == [("b", "failed"), ("c", "not-applicable")]
    assert all(row[key] == "" for row in found for key in ("metric", "value", "low", "high", "n"))


@given(
    value=st.floats(allow_nan=False),
    low=st.none() | st.floats(allow_nan=False),
    high=st.none() | st.floats(allow_nan=False),
)
def test_floats_come_back_as_they_were(value: float, low: float | None, high: float | None) -> None:
    text = csv_text(record([cell("a", values=[Value(metric="m", value=value, low=low, high=high)])]))
    (row,) = rows(text)
    assert float(row["value"]).hex() == value.hex()
    for end, given_end in ((row["low"], low), (row["high"], high)):
        assert (end == "") if given_end is None else float(end).hex() == given_end.hex()


def test_pandas_reads_the_same_floats() -> None:
    awkward = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0]
    text = csv_text(record([cell("a", values=[Value(metric="m", value=x) for x in awkward])]))
    frame = pd.read_csv(io.StringIO(text), converters={"value": float})
    assert list(frame.columns) == list(COLUMNS)
    assert [x.hex() for x in frame["value"]] == [x.hex() for x in awkward]


def test_nan_is_a_value_and_not_a_gap() -> None:
    (row,) = rows(csv_text(record([cell("a", values=[Value(metric="m", value=math.nan)])])))
    assert math.isnan(float(row["value"])) and row["low"] == ""


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "'x", "''x"])
def test_no_text_starts_like_a_formula_and_the_original_can_be_had_back(name: str) -> None:
    made = record([cell(name, name, dataset=name, model=name, values=[Value(metric=name, value=-1.5)])])
    (row,) = rows(csv_text(made))
    for column in ("dataset", "model", "defense", "attack", "metric"):
        assert row[column][0] == "'" and row[column][1:] == name
    assert row["value"] == "-1.5"


@pytest.mark.parametrize("name", ["privatesnn[lam=-0.5]", "folder:/data/@x", "a=b", "vgg-small", "", "Größe"])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert safe_text(name) == name


def test_hostile_names_stay_in_their_cell() -> None:
    name = 'a,"b"\nc'
    (row,) = rows(csv_text(record([cell(name, values=[share("accuracy", 1)])])))
    assert row["defense"] == name


def test_markdown_rows_have_the_columns_of_their_heading() -> None:
    made = record(
        [
            cell("a|b\n<i>", "x|y", values=[share("judge_accuracy", 5)]),
            anchor("noise", values=[share("judge_accuracy", 1)]),
        ]
    )
    lines = [line for line in markdown_text(made).splitlines() if line.startswith("|")]
    counts = {line.replace("\\|", "").count("|") for line in lines}
    assert counts == {3}
    assert "<i>" not in markdown_text(made)


def test_latex_escapes_what_would_be_a_command() -> None:
    made = record([cell("a_b%$#{}~^\\input{x}&", "[x]", values=[share("judge_accuracy", 5)])])
    text = latex_text(made)
    assert r"a\_b\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}input\{x\}\&" in text
    assert "{[}x]" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in body} == {1}
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_the_three_files_are_written_whole_and_leave_nothing_behind(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    write_tables(made, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "results.csv",
        "results.md",
        "results.tex",
    ]
    assert (tmp_path / "results.csv").read_bytes().decode() == csv_text(made)
    assert ".71 \\[.61, .79\\] n=100" in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_no_cells_give_headings_only() -> None:
    assert csv_text(record([])) == ",".join(COLUMNS) + "\n"
    assert markdown_text(record([])).startswith("# LeakBench")
    assert "tabular" not in latex_text(record([]))
