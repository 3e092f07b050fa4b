"""The section on members: verdicts, every attacked network with its AUC, and what other sections leave to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from by_hand import cell, declared
from compared_runs import scored
from report_samples import record

from leakbench.leakage.inversion.kind import Inversion
from leakbench.leakage.membership.kind import Membership
from leakbench.leakage.membership.verdict import conclude
from leakbench.metrics.metric import Declaration
from leakbench.records import CellRecord, RocPoint, RunRecord, Value
from leakbench.reports.html import render
from leakbench.reports.member_rows import membership_view
from leakbench.reports.roc import at_rate
from leakbench.reports.tables import latex_text, markdown_text

ATTACK = "loss_threshold"


def run(*cells: CellRecord) -> RunRecord:
    own = [
        cell(one.defense, overall={"accuracy": (0.9, 0.88, 0.92)}, defense_name=one.defense, control=one.control)
        for one in {one.defense: one for one in cells}.values()
    ]
    evidence = conclude(cells, declared())
    return record([*own, *cells], rows=evidence.rows, verdicts=evidence.verdicts)


@pytest.fixture
def page(tmp_path: Path) -> str:
    cells = [scored("overfitted", 0.8, 1e-6), scored("random", 0.5, 0.5), scored("mine", 0.7, 1e-5)]
    return render(run(*cells), tmp_path)


def test_the_verdict_and_every_network_are_there(page: str) -> None:
    assert "Membership inference" in page
    assert "distinguishes members from non-members: AUC 0.700" in page
    for text in (".70 [.67, .73]", ".80 [.77, .83]", ".50 [.47, .53]", "overfitted network", "untrained network"):
        assert text in page
    assert "M1 passes: AUC 0.800, p &lt; 0.0001 on an overfitted network" in page
    assert "M3 passes: AUC 0.500 of members against members" in page
    assert "On average members are found where p is below .0033 (loss_threshold);" in page


def test_the_outcome_comes_first(page: str) -> None:
    assert "<h1>mine leaks members of digits</h1>" in page
    assert page.index('id="membership"') < page.index('id="defences"')


def test_of_what_the_same_is_said_there_is_one_card_and_leaks_come_first(tmp_path: Path) -> None:
    controls = [scored("overfitted", 0.8, 1e-6), scored("random", 0.5, 0.5)]
    found = [scored("a", 0.5, 0.5), scored("b", 0.7, 1e-5), scored("c", 0.51, 0.4), scored("d", 0.3, 1 - 1e-5)]
    page = render(run(*controls, *found), tmp_path)
    assert re.findall(r'<h3 class="card-title">(.*?) <span', page) == ["b", "d", "a, c"]
    assert ".30 [.27, .33] n=10, lower scores" in page or ".30 [.27, .33], lower scores" in page


def members(**given: object) -> RunRecord:
    cells = [scored("overfitted", 0.8, 1e-6), scored("random", 0.5, 0.5), scored("mine", 0.7, 1e-5, **given)]
    return run(*cells)


def test_the_gates_are_explained_as_the_kind_has_them(page: str) -> None:
    for gate in Membership.gates:
        assert f"<dt>{gate.name}</dt><dd>{gate.text}</dd>" in page


def test_the_tables_have_the_verdict_and_every_network() -> None:
    broken = scored("other", 0.5, 0.5, status="failed", reason="it broke").model_copy(update={"values": []})
    made = run(*(cell for cell in members().cells if cell.attack), broken)
    text = markdown_text(made)
    assert "| mine | leaks | .40 \\[.34, .46\\] | loss\\_threshold | loss\\_threshold " in text
    line = next(line for line in text.splitlines() if line.startswith("| mine | loss"))
    assert ".70 \\[.67, .73\\] | .40 \\[.34, .46\\] | .000010 | yes | valid | M1 passes: AUC 0.800" in line
    assert "| overfitted | loss" in text and "| random | loss" in text
    assert "it broke" in next(line for line in text.splitlines() if line.startswith("| other | loss"))


def test_the_table_for_a_paper_has_the_controls_below_the_rule() -> None:
    text = latex_text(members())
    assert "Membership inference, digits $\\cdot$ vgg4" in text
    above, below = text[text.index("Membership inference") :].split(r"\midrule")[1:]
    assert "mine" in above and ".40 [.34," in above and "random" not in above
    assert "random" in below and "overfitted" in below


def test_a_run_without_the_attack_has_no_such_table() -> None:
    made = record([cell("mine", overall={"accuracy": (0.9, 0.88, 0.92)}, defense_name="mine")])
    assert "embers" not in markdown_text(made) + latex_text(made)


def test_other_metrics_of_the_scores_have_a_column(tmp_path: Path) -> None:
    top = Declaration("top_half", "Members in the top half", "", "share", "more", leakage="membership")
    made = members()
    cells = [
        c.model_copy(update={"values": [*c.values, Value(metric="top_half", value=0.613, n=40)]}) if c.attack else c
        for c in made.cells
    ]
    made = made.model_copy(update={"cells": cells, "metrics": [*made.metrics, top]})
    for text in (render(made, tmp_path), markdown_text(made)):
        assert "Members in the top half" in text and text.count(".61") >= 3


def test_p_values_have_no_column_of_their_means() -> None:
    made = members()
    more = [Value(metric="membership_lower_p", value=0.004), Value(metric="audited_epsilon", value=0.2)]
    cells = [c.model_copy(update={"values": [*c.values, *more]}) if c.attack else c for c in made.cells]
    view = membership_view(made.model_copy(update={"cells": cells}), cells[0].dataset, cells[0].model)
    assert view is not None and [metric.name for metric in view.metrics] == ["audited_epsilon"]


def test_curves_are_of_the_networks_that_the_table_is_of() -> None:
    """Of copies of one network, as with --ann, one counts."""
    own = [cell("mine", seed=seed, artifacts={"ann": "one"}) for seed in range(3)]
    attacks = [scored("mine", 0.7, 1e-5, seed=seed) for seed in range(3)]
    evidence = conclude(attacks, declared())
    made = record([*own, *attacks], rows=evidence.rows, verdicts=evidence.verdicts)
    view = membership_view(made, attacks[0].dataset, attacks[0].model)
    assert view is not None
    assert [c.seed for c in view.cells if c.defense == "mine"] == [0]


def test_rows_can_be_sorted_by_every_number(tmp_path: Path) -> None:
    page = render(members(), tmp_path)
    table = re.search(r'<table class="sortable">.*?AUC.*?</table>', page, re.DOTALL)
    assert table
    rows = re.findall(r"<tr><th scope=\"row\".*?</tr>", table[0], re.DOTALL)
    sorted_by = [re.findall(r'<td[^>]*data-sort="([^"]*)"', row) for row in rows]
    assert len(rows) == 3 and all(len(values) == row.count("<td") for values, row in zip(sorted_by, rows, strict=True))
    assert [values[1] for values in sorted_by] == ["0.7", "0.8", "0.5"]


def test_what_gave_no_scores_is_told_once_with_its_seeds(tmp_path: Path) -> None:
    failed = [
        cell("mine", ATTACK, seed=seed, status="failed", reason="no memory", leakage="membership") for seed in (0, 2)
    ]
    made = run(scored("mine", 0.7, 1e-5, seed=1), *failed)
    for text in (render(made, tmp_path), markdown_text(made)):
        assert text.count("failed: no memory (seeds 0, 2)") == 1


def test_flags_of_a_run_on_members_alone_are_about_members(tmp_path: Path) -> None:
    page = render(run(scored("mine", 0.7, 1e-5)), tmp_path)
    assert "No overfitted control for members" in page
    assert "every control and anchor is there" not in page


def test_sections_on_classes_are_left_out_where_nothing_was_after_them(page: str) -> None:
    for id in Inversion.sections:
        assert f'<section id="{id}"' not in page
    assert '<section id="membership"' in page
    assert "mine leaks members of digits" in page


def test_a_run_without_the_attack_has_no_such_section(tmp_path: Path) -> None:
    page = render(record([cell("mine", overall={"accuracy": (0.9, 0.88, 0.92)}, defense_name="mine")]), tmp_path)
    assert "Membership inference" not in page


def test_roc_curves_of_the_defence_in_question_are_drawn_and_told(tmp_path: Path) -> None:
    points = [(0.0, 0.02), (0.01, 0.1), (0.1, 0.4), (1.0, 1.0)]
    roc = [RocPoint(fpr=fpr, tpr=tpr) for fpr, tpr in points]
    flat = [RocPoint(fpr=fpr, tpr=fpr) for fpr, _ in points]
    made = members()
    cells = [c.model_copy(update={"roc": roc if c.defense == "mine" else flat}) if c.attack else c for c in made.cells]
    cells.append(cells[-1].model_copy(update={"seed": 1, "roc": flat}))
    page = render(made.model_copy(update={"cells": cells}), tmp_path)
    # the mean of both seeds, and nothing where so few false positives can't be told
    assert "loss_threshold: 5.5 % at 1 %, 25.0 % at 10 %." in page
    assert page.count("members found over false positives, mean over seeds") == 1
    assert at_rate(points, 0.001) is None


def test_names_and_reasons_of_others_are_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    broken = cell(hostile, ATTACK, leakage="membership", defense_name="x", status="failed", reason=hostile)
    page = render(run(scored("overfitted", 0.8, 1e-6), scored(hostile, 0.7, 1e-5, seed=1), broken), tmp_path)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert hostile not in page
