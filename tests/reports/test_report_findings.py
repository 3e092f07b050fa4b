from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from realistic_samples import realistic
from report_page import HOSTILE, page
from report_samples import calibration, cell, judged, record
from test_report_tables import rows as csv_rows

from leakbench.records import CellRecord, Finding, RunRecord
from leakbench.reports.findings import FindingsTable, findings_tables
from leakbench.reports.summary import groups
from leakbench.reports.tables import csv_text, markdown_text


def found(defense: str, attack: str = "a", *findings: tuple[str, float], **given: Any) -> CellRecord:
    named = [Finding(name=name, value=value) for name, value in findings]
    return cell(defense, attack, values=judged(50, 60.0), findings=named, **given)


def tables(*cells: CellRecord) -> list[FindingsTable]:
    (group,) = groups(record(list(cells)))
    return findings_tables(group)


def shape(made: FindingsTable) -> list[tuple[str, list[str]]]:
    return [(row.label, [c.text for c in row.cells]) for row in made.table.rows]


def test_a_table_an_attack_with_a_row_a_finding_and_a_column_a_defence() -> None:
    first, second = tables(
        found("ann", "a", ("won by rga", 12), ("twin", 1.0), control=True),
        found("d", "a", ("won by rga", 34), ("rate error, layer 2", 0.0312)),
        found("d", "b", ("steps", 1500.0)),
        found("d", "silent"),
    )
    assert (first.attack, second.attack) == ("a", "b")
    assert (first.table.corner, first.table.columns) == ("Finding", ("d", "ann"))
    assert shape(first) == [
        ("won by rga", ["34", "12"]),
        ("rate error, layer 2", ["0.0312", "–"]),
        ("twin", ["–", "1"]),
    ]
    assert [c.sort for row in first.table.rows for c in row.cells] == ["34.0", "12.0", "0.0312", "", "", "1.0"]
    assert (second.table.columns, shape(second)) == (("d",), [("steps", ["1,500"])])


def test_what_defences_measured_has_a_table_of_its_own() -> None:
    alone = cell("d", findings=[Finding(name="epsilon, claimed", value=8.0)])
    first, second = tables(alone, cell("plain"), found("d", "a", ("steps", 3.0)))
    assert (first.attack, first.table.columns, shape(first)) == ("defences", ("d",), [("epsilon, claimed", ["8"])])
    assert second.attack == "a"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (34.0, "34"),
        (-2.0, "-2"),
        (1_234_567.0, "1,234,567"),
        (0.9751, "0.975"),
        (0.03124, "0.0312"),
        (12.34, "12.3"),
        (12_345.6, "12,346"),
        (-0.5, "-0.500"),
        (1.234e-7, "1.23e-07"),
    ],
)
def test_whole_numbers_stand_as_such_and_others_with_three_digits(value: float, text: str) -> None:
    (made,) = tables(found("d", "a", ("x", value)))
    assert shape(made) == [("x", [text])]


def test_several_seeds_are_their_mean_and_each_of_them_in_full() -> None:
    (made,) = tables(*(found("d", "a", ("won", value), seed=seed) for seed, value in enumerate((34, 35, 36.5))))
    (only,) = made.table.rows[0].cells
    assert only.text == "35.2"
    assert float(only.sort) == pytest.approx(105.5 / 3)
    assert only.full == "seed 0: 34; seed 1: 35; seed 2: 36.5"
    # what one seed alone has needs no more words
    (made,) = tables(found("d", "a", ("won", 34), seed=0), found("d", "a", seed=1))
    assert [(c.text, c.full) for c in made.table.rows[0].cells] == [("34", "")]


def test_where_there_is_none_the_cell_says_why() -> None:
    reason = "zero gradients: of all 40 images"
    (made,) = tables(
        found("d", "a", ("won", 1)),
        cell("e", "a", status="no-signal", reason=reason),
        cell("f", "a", status="failed", reason="boom"),
        cell("g", "a", status="not-applicable", reason="no batch norm"),
        found("h", "a", ("won", 2), seed=0),
        cell("h", "a", seed=1, status="no-signal", reason=reason),
    )
    assert [(c.text, c.full) for c in made.table.rows[0].cells] == [
        ("1", ""),
        ("no signal", reason),
        ("failed", "boom"),
        ("n/a", "no batch norm"),
        ("2", f"seed 1, no signal: {reason}"),
    ]


def test_checks_have_no_part_in_it() -> None:
    assert tables(found("d", "a"), found("d", "a (half)", ("won", 1), of="a")) == []


def test_a_value_that_is_no_number_is_shown_and_sorts_last() -> None:
    (made,) = tables(found("d", "a", ("x", math.nan)))
    assert [(c.text, c.sort) for c in made.table.rows[0].cells] == [("nan", "")]


# --- on the page


@pytest.mark.slow
def test_the_page_has_the_section_only_where_something_was_found(tmp_path: Path) -> None:
    full = page(realistic(tmp_path), tmp_path)
    assert [a for tag, a in full.tags if tag == "section" and a["id"] == "findings"]
    assert [a for tag, a in full.tags if tag == "a" and a.get("href") == "#findings"]
    start = full.text.index("Attack diagnostics", full.text.index("By class"))
    part = full.text[start : full.text.index("Defences", start)]
    assert "images won by the second restart 70 70 71 14" in part
    assert "twin: correlation of logits 0.975 0.975 0.975 0.700" in part
    without = page(record([found("d"), *calibration()]), tmp_path)
    assert "findings" not in {a.get("id") for _, a in without.tags} | {a.get("href", "")[1:] for _, a in without.tags}


@pytest.mark.slow
def test_its_tables_are_sorted_like_the_others(tmp_path: Path) -> None:
    attributes = [a for tag, a in page(realistic(tmp_path), tmp_path).tags if tag in ("table", "div")]
    (at,) = [i for i, a in enumerate(attributes) if a.get("aria-label", "").startswith("Findings of inversion")]
    assert attributes[at]["tabindex"] == "0" and attributes[at + 1]["class"] == "sortable grid"


def test_several_data_sets_have_a_heading_each(tmp_path: Path) -> None:
    cells = [found("d", "a", ("won", 1), dataset=name) for name in ("x", "y")]
    ids = {a.get("id") for _, a in page(record(cells), tmp_path).tags}
    assert {"findings", "findings-1", "findings-2"} <= ids


def hostile() -> RunRecord:
    return record([found(HOSTILE, HOSTILE, (HOSTILE, 0.5)), cell("e", HOSTILE, status="no-signal", reason=HOSTILE)])


def test_a_hostile_name_stays_text(tmp_path: Path) -> None:
    made = page(hostile(), tmp_path)
    tags = [tag for tag, _ in made.tags]
    assert tags.count("script") == 2 and "img" not in tags
    (start,) = [i for i, (_, a) in enumerate(made.tags) if a.get("aria-label", "").startswith("Findings of ")]
    heads = [a for tag, a in made.tags[start:] if tag == "th" and a.get("data-sort")]
    assert "<script>alert" in heads[0]["data-sort"]
    assert any("{{ 7*7 }}" in a.get("title", "") for tag, a in made.tags[start:] if tag == "td")


# --- in the tables beside it


def test_findings_have_rows_in_the_csv_below_the_values_of_their_cell() -> None:
    made = record([found("d", "a", ("won by rga", 34), ("twin", 0.1 + 0.2), seed=3), found("d", "b")])
    rows = csv_rows(csv_text(made))
    assert [row["metric"] for row in rows] == [
        *("judge_accuracy", "fd_bnconv", "finding: won by rga", "finding: twin", "judge_accuracy", "fd_bnconv")
    ]
    assert [(row["attack"], row["seed"], row["low"], row["high"], row["n"]) for row in rows[2:4]] == [
        ("a", "3", "", "", "1")
    ] * 2
    assert [float(row["value"]) for row in rows[2:4]] == [34.0, 0.1 + 0.2]


def test_findings_have_tables_for_people() -> None:
    made = record([found("d", "a|b", ("x_1", 34))])
    text = markdown_text(made)
    assert "### Findings of a\\|b\n\n| Finding | d |\n| --- | --- |\n| x\\_1 | 34 |" in text
