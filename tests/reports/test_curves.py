from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from by_hand import declared
from report_page import HOSTILE, page
from report_samples import cell, index, judged, record, row, share, verdict
from suite_samples import alone, paper_suite

from leakbench.leakage.seed_group import seed_group
from leakbench.records import CellRecord, RunRecord, Value
from leakbench.reports.curves import Curve, curves
from leakbench.reports.drawing import LINES
from leakbench.reports.flags import flags
from leakbench.reports.grid import defense_table, index_table
from leakbench.reports.summary import groups
from leakbench.reports.sweeps import sweep
from leakbench.reports.tables import latex_text, markdown_text
from leakbench.reports.verdict import cards


def drawn(cells: list[CellRecord], **given: Any) -> list[Curve]:
    (group,) = groups(record(cells, **given))
    return curves(group)


def over(name: str, *steps: int, accuracy: float = 0.5, **given: Any) -> list[CellRecord]:
    """The defence at several T, its accuracy a little higher each time, labelled as a grid labels it."""
    return [
        made
        for number, t in enumerate(steps)
        for made in alone(f"{name}[T={t}]", accuracy + number / 10, t, **({"defense_name": name} | given))
    ]


def lines(curve: Curve) -> dict[str, list[float]]:
    return {series.label: [point.x for point in series.points] for series in curve.series}


def svg(made: RunRecord, number: int = 0) -> ET.Element:
    (group,) = groups(made)
    return ET.fromstring(sweep(group, curves(group)[number]))


# --- over T


def test_a_defence_at_several_t_is_a_line_from_left_to_right() -> None:
    (curve,) = drawn([*over("datafree", 64, 8, 16), *over("han2020", 8, 16, control=True)])
    assert (curve.title, curve.across, curve.log) == ("Accuracy over T", "T", True)
    assert lines(curve) == {"datafree": [8, 16, 64], "han2020": [8, 16]}
    assert [point.value.value for point in curve.series[0].points] == pytest.approx([0.6, 0.7, 0.5])
    assert all(point.value.low < point.value.value < point.value.high for point in curve.series[0].points)  # type: ignore[operator]


def test_one_t_is_no_curve() -> None:
    assert drawn([*over("datafree", 8), *over("han2020", 16), *alone("ann", 0.9)]) == []


def test_what_differs_in_more_than_t_is_another_line() -> None:
    cells = [*over("p", 8, 16, params={"od": True, "lr": 1}), *over("p", 8, 16, params={"od": False, "lr": 1})]
    relabelled = [c.model_copy(update={"defense": f"{c.defense}{c.defense_params['od']}"}) for c in cells]
    (curve,) = drawn([*relabelled, *over("q", 8, 16, params={"od": True})])
    # as few parameters as tell them apart, and none where one line has the name to itself
    assert set(lines(curve)) == {"p[od=True]", "p[od=False]", "q"}


def test_a_t_of_its_own_is_no_other_parameter() -> None:
    cells = [made for t in (8, 16) for made in alone(f"p[timesteps={t}]", 0.5, t, {"timesteps": t})]
    (curve,) = drawn(cells)
    assert lines(curve) == {"p": [8, 16]}


def test_labels_are_not_read() -> None:
    cells = [made for label, t in (("here", 4), ("there", 9)) for made in alone(label, 0.5, t, defense_name="p")]
    (curve,) = drawn(cells)
    assert lines(curve) == {"p": [4, 9]}


@pytest.mark.parametrize(
    "second",
    [
        {"status": "failed", "reason": "x"},
        {"values": [Value(metric="accuracy", value=float("nan"))]},
        {"values": [share("ann_accuracy", 9)]},
        {"of": "check"},
        {"attack": "a"},
    ],
    ids=["failed", "nan", "no accuracy", "a check", "under attack"],
)
def test_two_points_need_two_accuracies(second: dict[str, Any]) -> None:
    attack = second.pop("attack", "")
    cells = [*over("d", 8), cell("d[T=16]", attack, timesteps=16, **({"values": [share("accuracy", 90)]} | second))]
    assert drawn(cells) == []


def test_an_untrained_network_is_no_line() -> None:
    assert drawn(over("random", 8, 16, control=True)) == []


def test_of_two_that_are_made_alike_the_attacked_one_is_drawn() -> None:
    cells = [*over("d", 8, 16), *alone("again", 0.9, 8, defense_name="d"), cell("again", "a", values=judged(9, 60.0))]
    (curve,) = drawn(cells)
    assert curve.series[0].points[0].value.value == pytest.approx(0.9)


def test_several_seeds_are_one_point_with_the_interval_over_them() -> None:
    cells = over("d", 8, 16, seeds=3)
    (curve,) = drawn(cells)
    found = curve.series[0].points[0].value
    expected = seed_group(cells[:3], declared()).estimate("accuracy")
    assert expected is not None
    assert (found.value, found.low, found.high, found.n) == (expected.value, expected.low, expected.high, 3)
    assert curve.table.rows[0].cells[0].text == ".51 [.49, .52] n=3 seeds"
    assert curve.table.rows[0].cells[0].full.startswith("seed 0: .50 [.45, .55] n=360; seed 1: ")


def test_an_interval_over_seeds_stays_a_share() -> None:
    cells = over("d", 8, 16, accuracy=0.89, seeds=2)
    wide = [c.model_copy(update={"values": [share("accuracy", 60 + 40 * c.seed)]}) for c in cells]
    (curve,) = drawn(wide)
    value = curve.series[0].points[0].value
    assert (value.value, value.low, value.high) == (0.8, 0.0, 1.0)


def test_the_anns_accuracy_lies_level() -> None:
    cells = over("d", 8, 16)
    (curve,) = drawn([*cells, *alone("ann", 0.9, control=True)])
    assert [(level.label, level.value.value) for level in curve.levels] == [("ANN", 0.9)]
    # without its own row, what a defence says of it
    (curve,) = drawn(cells)
    assert [(level.label, level.value.value) for level in curve.levels] == [("ANN", pytest.approx(350 / 360))]
    bare = [c.model_copy(update={"values": c.values[:1]}) for c in cells]
    assert drawn(bare)[0].levels == ()


def test_the_table_has_the_same_numbers() -> None:
    (curve,) = drawn([*over("a", 8, 16), *over("b", 16, 64), *alone("ann", 0.9, control=True)])
    assert (curve.table.corner, curve.table.columns) == ("T", ("a", "b"))
    assert [(row.label, [c.text for c in row.cells]) for row in curve.table.rows] == [
        ("8", [".50 [.45, .55] n=360", "–"]),
        ("16", [".60 [.55, .65] n=360", ".50 [.45, .55] n=360"]),
        ("64", ["–", ".60 [.55, .65] n=360"]),
    ]
    assert [(row.label, row.cells[0].text) for row in curve.table.anchors] == [("ANN", ".90 [.86, .93] n=360")]


# --- over a parameter


def trained(**sweeps: Any) -> list[CellRecord]:
    """privatesnn at T = 32 with every combination of the parameters' values."""
    cells = []
    for number, values in enumerate(itertools.product(*sweeps.values())):
        params = dict(zip(sweeps, values, strict=True))
        cells += alone(f"privatesnn[{number}]", 0.5 + number / 100, 32, params, defense_name="privatesnn")
    return cells


def test_a_number_lies_across_and_the_others_tell_the_lines_apart() -> None:
    (curve,) = drawn(trained(od=[True, False], samples=[5000, 100, 500], lr=[0.1, 0.2]))
    assert (curve.title, curve.across) == ("Accuracy of privatesnn over samples, T = 32", "samples")
    assert lines(curve) == {
        f"od={od},lr={lr}": [100, 500, 5000] for od, lr in itertools.product([True, False], [0.1, 0.2])
    }


def test_the_axis_is_logarithmic_where_values_lie_far_apart() -> None:
    assert not drawn(trained(samples=[100, 500, 2000]))[0].log
    assert drawn(trained(samples=[100, 500, 2001]))[0].log
    assert not drawn(trained(leak=[0.0, 1.0, 100.0]))[0].log  # no logarithm of 0


@pytest.mark.parametrize("values", [[True, False], ["sound", "authors"], [None, 0.3], [float("inf"), 1.0]])
def test_what_is_no_number_twice_is_no_axis(values: list[Any]) -> None:
    assert drawn(trained(x=values)) == []


def test_another_t_is_another_figure() -> None:
    cells = trained(samples=[100, 500])
    later = [c.model_copy(update={"timesteps": 64, "defense": f"{c.defense}[T=64]"}) for c in cells]
    titles = [curve.title for curve in drawn([*cells, *later])]
    assert titles == [
        "Accuracy over T",
        "Accuracy of privatesnn over samples, T = 32",
        "Accuracy of privatesnn over samples, T = 64",
    ]


def test_two_sweeps_from_one_middle_are_two_figures() -> None:
    settings = [(100, 0.9), (500, 0.9), (2000, 0.9), (500, 0.5), (500, 1.0)]
    cells = [
        made
        for samples, leak in settings
        for made in alone(f"p{samples}{leak}", 0.5, 32, {"samples": samples, "leak": leak}, defense_name="p")
    ]
    first, second = drawn(cells)
    assert (first.across, lines(first)) == ("samples", {"p": [100, 500, 2000]})
    assert (second.across, lines(second)) == ("leak", {"p": [0.5, 0.9, 1.0]})


def test_the_network_before_its_training_lies_level_at_the_same_t() -> None:
    cells = [*alone("datafree", 0.4, 32), *alone("datafree[T=8]", 0.3, 8, defense_name="datafree")]
    found = [curve for curve in drawn([*trained(samples=[1, 2]), *cells]) if curve.across == "samples"]
    assert [(level.label, level.value.value) for level in found[0].levels][1:] == [("datafree", 0.4)]


# --- leakage


def leaking(*values: float | None) -> list[Any]:
    return [verdict(f"d[T={2**n}]", attack="a", index=index(value)) for n, value in enumerate(values)]


def test_leakage_is_drawn_where_two_have_a_worst_case() -> None:
    cells = over("d", 1, 2, 4)
    assert [curve.title for curve in drawn(cells, verdicts=leaking(0.5))] == ["Accuracy over T"]
    _, curve = drawn(cells, verdicts=leaking(0.5, None, 0.7))
    assert (curve.title, curve.levels) == ("Worst-case leakage over T", ())
    assert lines(curve) == {"d": [1, 4]}
    assert [row.cells[0].text for row in curve.table.rows] == [
        ".50 [.40, .60] n=10",
        "no scale",
        ".70 [.60, .80] n=10",
    ]


def test_a_controls_worst_case_is_its_highest_valid_attack() -> None:
    cells = over("han2020", 1, 2, control=True)
    rows = [row(f"han2020[T={t}]", a, index(v), control=True) for t in (1, 2) for a, v in (("a", 0.3), ("b", 0.6))]
    _, curve = drawn(cells, rows=rows)
    assert [point.value.value for point in curve.series[0].points] == [0.6, 0.6]


# --- the figure


def test_the_figure_says_everything_in_words_and_names_every_line() -> None:
    made = record([*over("d", 8, 16), *over("e", 8, 16), *alone("ann", 0.9, control=True)])
    found = svg(made)
    words = {element.text for element in found.iter("text")}
    assert {"d", "e", "ANN", "T", "8", "16", "accuracy on test images"} <= words
    assert found.findtext("title") == "Accuracy over T"
    spoken = found.findtext("desc") or ""
    assert "d: 0.500 at 8, 0.600 at 16" in spoken and "ANN, the same everywhere: 0.900" in spoken


def test_lines_differ_in_more_than_colour() -> None:
    made = record([c for number in range(9) for c in over(f"d{number}", 8, 16)])
    found = svg(made)
    colours = {element.get("stroke", "") for element in found.iter()} | {e.get("fill", "") for e in found.iter()}
    assert {f"var(--fig-line-{number})" for number in range(1, len(LINES) + 1)} <= colours
    assert not colours & set(LINES)
    # of a line that has a colour for the second time the strokes are broken
    assert [e for e in found.iter("path") if e.get("stroke") == "var(--fig-line-1)" and e.get("stroke-dasharray")]


@pytest.mark.slow
def test_two_figures_of_a_page_share_no_id(tmp_path: Path) -> None:
    found = page(paper_suite(), tmp_path)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids)) and {"sweeps", "curve-1-1", "curve-1-2"} <= set(ids)
    assert ("a", {"href": "#sweeps"}) in found.tags


@pytest.mark.parametrize("values", [(1, 2, 3, 5, 8, 13, 21), (0.001, 0.01), (-5, 5), (3, 10**12)])
def test_odd_values_are_drawn(values: tuple[float, ...]) -> None:
    (curve,) = drawn(trained(x=list(values)))
    assert [point.x for point in curve.series[0].points] == list(values)
    assert svg(record(trained(x=list(values)))).tag == "svg"


@pytest.mark.slow
def test_hostile_names_become_no_markup(tmp_path: Path) -> None:
    cells = [
        made
        for number in (1, 2)
        for made in alone(f"{HOSTILE}{number}", 0.5, 8 * number, {HOSTILE: number, "x": "y"}, defense_name=HOSTILE)
    ]
    again = [c.model_copy(update={"timesteps": 8, "defense": f"{c.defense}b"}) for c in cells]
    made = record([*cells, *again])
    found = page(made, tmp_path)
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert "over <script>" in found.text and "7*7" in found.text
    assert "<script>" not in markdown_text(made)
    body = [line for line in latex_text(made).splitlines() if not line.startswith("%")]
    assert not [line for line in body if "$x_$" in line]


def test_the_numbers_are_on_the_page_and_in_the_tables(tmp_path: Path) -> None:
    made = record([*over("d", 8, 16), *alone("ann", 0.9, control=True)])
    text = page(made, tmp_path).text
    assert "Accuracy over T" in text and ".60 [.55, .65] n=360" in text
    assert "### Accuracy over T" in markdown_text(made)
    assert "| ANN (any T) | .90 \\[.86, .93\\] n=360 |" in markdown_text(made)


# --- defences that were not attacked


def test_what_was_not_attacked_stands_among_the_defences_alone() -> None:
    made = paper_suite()
    (group,) = groups(made)
    assert [card.defense for card in cards(group, made)] == [found.defense for found in made.verdicts]
    assert "datafree[T=8]" in group.evaluated and "datafree[T=8]" not in group.attacked
    indices, alone_table = index_table(group, "judge_accuracy"), defense_table(group)
    assert indices is not None and alone_table is not None
    assert not any("[T=" in found.label for found in indices.rows)
    assert "datafree[T=8]" in [found.label for found in alone_table.rows]
    assert not any("[T=" in item.where for flag in flags(made, [group], []) for item in flag.items)


@pytest.mark.slow
def test_how_many_were_not_attacked_is_said(tmp_path: Path) -> None:
    assert "19 more were not attacked" in page(paper_suite(), tmp_path).text


def test_a_run_without_attacks_says_so_in_a_sentence(tmp_path: Path) -> None:
    made = record([*over("d", 8, 16), *alone("ann", 0.9, control=True)])
    found = page(made, tmp_path)
    assert "Nothing was attacked: this run measured accuracy and cost alone and says nothing of leakage." in found.text
    assert not [a for tag, a in found.tags if tag == "article"]
    assert "Accuracy report: d[T=8], d[T=16] on digits" in found.text
    assert "None: every cell ran." in found.text and "more were not attacked" not in found.text
    assert "### Verdicts" not in markdown_text(made) and "### Defences" in markdown_text(made)


def test_a_run_of_attacked_controls_alone_says_that(tmp_path: Path) -> None:
    made = record([cell("ann", "a", values=judged(70, 60.0), control=True), *over("d", 8)])
    assert "No defence other than controls was attacked." in page(made, tmp_path).text
