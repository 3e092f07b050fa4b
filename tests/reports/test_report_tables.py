from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from realistic_samples import realistic
from report_samples import anchor, cell, environment, index, record, row, share, small, verdict

from leakbench.records import RunRecord, Value
from leakbench.reports import write_tables
from leakbench.reports.frames import LONG, safe_text
from leakbench.reports.tables import csv_text, latex_text, markdown_text

COLUMNS = tuple(LONG)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_one_row_a_value_in_the_order_of_the_record_then_one_an_index() -> None:
    made = small()
    found = rows(csv_text(made))
    values = [(c, v) for c in made.cells for v in c.values]
    assert (
        len(found) == len(values) + 4 * len(made.rows) + 2
    )  # valid, leaks, one index, p; the verdict's index and outcome
    for line, (c, v) in zip(found, values, strict=False):
        assert (line["defense"], line["attack"], line["seed"]) == (c.defense, c.attack, str(c.seed))
        assert (line["metric"], float(line["value"]), line["n"]) == (v.metric, v.value, str(v.n))
    header = "dataset,model,defense,attack,seed,status,metric,value,low,high,n"
    columns = csv_text(made).splitlines()[0]
    assert columns.startswith(f"{header},preset,timesteps,")  # whoever reads by position finds what was there
    assert [line["attack"] for line in found if not line["defense"]] == ["noise", "noise", "real", "real"]


def test_an_index_is_over_all_seeds_and_one_without_a_value_has_no_row() -> None:
    low = 0.1 + 0.2
    many = [index(2 / 3, low=low), index(None, metric="recall"), index(0.25, metric="kes", low=None, high=None)]
    found = rows(csv_text(record([cell("d", "a", seed=3)], rows=[row("d", "a", *many)])))[3:]
    assert [(line["metric"], line["seed"], line["status"], line["n"]) for line in found] == [
        ("index_judge_accuracy", "", "ok", "10"),
        ("index_kes", "", "ok", "10"),
        ("p", "", "ok", "1"),
    ]
    assert (float(found[0]["value"]), float(found[0]["low"])) == (2 / 3, low)
    assert (found[1]["low"], found[1]["high"]) == ("", "")


def test_what_the_gates_say_stands_with_the_indices() -> None:
    said = [
        row("d", "a", index(0.5), validity="gradient masking suspected", leaks=False),
        row("d", "b", index(None), validity="valid", leaks=True),
    ]
    found = [
        (line["attack"], line["metric"], line["value"], line["low"])
        for line in rows(csv_text(record([cell("d", values=[share("accuracy", 9)])], rows=said)))
        if line["metric"] in ("valid", "leaks")
    ]
    assert found == [
        ("a", "valid", "0.0", ""),
        ("a", "leaks", "0.0", ""),
        ("b", "valid", "1.0", ""),
        ("b", "leaks", "1.0", ""),
    ]


SOURCE = "0123456789abcdef" * 4


def made_with(sigma: float) -> RunRecord:
    """A plugin of a file, attacked, with a check, over an anchor."""
    given: dict[str, Any] = {
        "preset": "quick", "timesteps": 32, "defense_version": 7, "defense_source": SOURCE,
        "defense_params": {"sigma": sigma, "images": 512},
    }  # fmt: skip
    label, values = f"noisy[sigma={sigma}]", [share("judge_accuracy", 9)]
    attack: dict[str, Any] = {"attack_version": 2, "attack_params": {"steps": 3}, "public": "=photos", "values": values}
    half = {**attack, "attack_params": {"steps": 1}}
    return record(
        [
            cell(label, values=[share("accuracy", 9)], **given),
            cell(label, "prior", **given, **attack),
            cell(label, "prior (steps=1)", of="prior", **given, **half),
            cell(label, "other", status="failed", **given, attack_version=5),
            anchor("noise", values=values, preset="quick"),
        ],
        rows=[row(label, "prior", index(0.5))],
    )


def test_every_row_says_with_what_it_was_made() -> None:
    columns = COLUMNS[COLUMNS.index("preset") : COLUMNS.index("public") + 1]
    found = {
        (line["attack"], line["metric"]): tuple(line[column] for column in columns)
        for line in rows(csv_text(made_with(0.05)))
    }
    params = '{"images":512,"sigma":0.05}'
    attacked = ("quick", "32", params, '{"steps":3}', "7", "2", SOURCE, "", "'=photos")
    assert found == {
        ("", "accuracy"): ("quick", "32", params, "", "7", "", SOURCE, "", ""),
        ("prior", "judge_accuracy"): attacked,
        ("prior (steps=1)", "judge_accuracy"): (*attacked[:3], '{"steps":1}', *attacked[4:]),
        ("other", ""): ("quick", "32", params, "{}", "7", "5", SOURCE, "", ""),
        ("noise", "judge_accuracy"): ("quick", *[""] * 8),
        **{("prior", name): attacked for name in ("valid", "leaks", "index_judge_accuracy", "p")},
    }


def test_a_row_that_no_cell_stands_behind_has_no_settings() -> None:
    (line, *_) = rows(csv_text(record([], rows=[row("d", "a", index(0.5))])))
    assert {line[column] for column in COLUMNS[COLUMNS.index("preset") :]} == {""}


def test_the_tables_for_people_have_a_legend_of_the_labels() -> None:
    text = markdown_text(made_with(0.05))
    assert text.index("## Settings, seed 0") > text.index("### Judge accuracy")
    assert "| noisy\\[sigma=0.05\\] | defence | 32 | quick | 7 | 0123456789ab | sigma = 0.05; images = 512 |" in text
    assert "| prior | attack | – | quick | 2 | – | steps = 3; public images = =photos |" in text
    assert "steps=1" not in text  # a check is no row


def test_markdown_lists_the_environments() -> None:
    made = record([cell("d")], environments=[environment(processor="one|two"), environment(threads="4", artifacts=3)])
    text = markdown_text(made)
    assert "| 3.11.7 | 0.1.0 | 2.4.1 | 2.1.0 | 0.61.0 | one\\|two | cpu | 2 | 12 |" in text
    assert "| 4 | 3 |" in text
    assert "Environments" not in markdown_text(record([cell("d")]))


def test_verdicts_and_indices_lead_the_tables_for_people() -> None:
    made = small()
    text = markdown_text(made)
    titles = [line for line in text.splitlines() if line.startswith("### ")]
    assert titles[:4] == ["### Verdicts", "### Leakage index", "### Defences", "### Judge accuracy"]
    said = "inversion draws it."
    assert f"| privatesnn | leaks | {said} | .70 \\[.60, .80\\] | inversion | – | – | {said} | – |" in text
    assert "| privatesnn | .70 \\[.60, .80\\] n=10 |" in text


def test_a_verdict_without_a_number_has_dashes() -> None:
    found = verdict("d", "inconclusive", attack="", index=None, reason="a|b\n<c> & 5 %")
    text = markdown_text(record([cell("d")], verdicts=[found]))
    assert "| d | inconclusive | {said} | – | – | – | – | {said} | – |".format(said="a\\|b \\<c\\> \\& 5 %") in text


def test_a_cell_without_values_has_one_row() -> None:
    states = ("failed", "not-applicable", "no-signal")
    made = record([cell("a", f"b{number}", status=status, reason="x") for number, status in enumerate(states)])
    found = rows(csv_text(made))
    assert [(row["attack"], row["status"]) for row in found] == list(zip(("b0", "b1", "b2"), states, strict=True))
    assert all(row[key] == "" for row in found for key in ("metric", "value", "low", "high", "n"))


@pytest.mark.slow
@given(
    value=st.floats(allow_nan=False),
    low=st.none() | st.floats(allow_nan=False),
    high=st.none() | st.floats(allow_nan=False),
)
def test_floats_come_back_as_they_were(value: float, low: float | None, high: float | None) -> None:
    text = csv_text(record([cell("a", values=[Value(metric="m", value=value, low=low, high=high)])]))
    (line,) = rows(text)
    assert float(line["value"]).hex() == value.hex()
    for end, given_end in ((line["low"], low), (line["high"], high)):
        assert (end == "") if given_end is None else float(end).hex() == given_end.hex()


def test_pandas_reads_the_same_floats() -> None:
    awkward = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0]
    text = csv_text(record([cell("a", values=[Value(metric="m", value=x) for x in awkward])]))
    frame = pd.read_csv(io.StringIO(text), converters={"value": float})
    assert list(frame.columns) == list(COLUMNS)
    assert [x.hex() for x in frame["value"]] == [x.hex() for x in awkward]


def test_nan_is_a_value_and_not_a_gap() -> None:
    (line,) = rows(csv_text(record([cell("a", values=[Value(metric="m", value=math.nan)])])))
    assert math.isnan(float(line["value"])) and line["low"] == ""


@pytest.mark.parametrize(
    "name", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "\nx", "'x", "''x", "＝1+1", "＋x", "－x", "＠x"]
)
def test_no_text_starts_like_a_formula_and_the_original_can_be_had_back(name: str) -> None:
    here = {"dataset": name, "model": name}
    made = record(
        [cell(name, name, values=[Value(metric=name, value=-1.5)], **here)],
        rows=[row(name, name, index(0.5, metric=name), **here)],
    )
    measured, _, _, indexed, _ = rows(csv_text(made))
    for line in (measured, indexed):
        for column in ("dataset", "model", "defense", "attack"):
            assert line[column][0] == "'" and line[column][1:] == name
    assert measured["metric"] == f"'{name}" and measured["value"] == "-1.5"
    assert indexed["metric"] == f"index_{name}"


@pytest.mark.parametrize("name", ["privatesnn[lam=-0.5]", "folder:/data/@x", "a=b", "vgg-small", "", "Größe"])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert safe_text(name) == name


def test_hostile_names_stay_in_their_cell() -> None:
    name = 'a,"b"\nc'
    made = record([cell(name, "a", values=[share("accuracy", 1)])], rows=[row(name, "a", index(0.5))])
    assert [line["defense"] for line in rows(csv_text(made))] == [name] * 5


def test_markdown_rows_have_the_columns_of_their_heading() -> None:
    made = record(
        [
            cell("a|b\n<i>", "x|y", values=[share("judge_accuracy", 5)]),
            anchor("noise", values=[share("judge_accuracy", 1)]),
        ],
        rows=[row("a|b\n<i>", "x|y", index(0.5))],
        verdicts=[verdict("a|b\n<i>", attack="x|y", reason="a|b\n<i>")],
    )
    lines = [line for line in markdown_text(made).splitlines() if line.startswith("|")]
    counts = [line.replace("\\|", "").count("|") for line in lines]
    # verdicts: heading, rule, one defence; then two tables of one attack; then heading, rule and two rows of settings
    assert counts[:3] == [10] * 3 and set(counts[3:-4]) == {3} and counts[-4:] == [8] * 4
    assert "<i>" not in markdown_text(made)


@pytest.mark.slow
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
