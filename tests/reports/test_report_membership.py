"""The section on members: verdicts, every attacked network with its AUC, and what other sections leave to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from by_hand import cell, declared
from report_samples import record

from leakbench.leakage.membership.verdict import conclude
from leakbench.records import CellRecord, RunRecord
from leakbench.reports.html import render

ATTACK = "loss_threshold"


def scored(defense: str, area: float, p: float, **given: object) -> CellRecord:
    overall = {"membership_auc": (area, area - 0.03, area + 0.03), "membership_p": p, "queries": 400.0}
    fields = {"leakage": "membership", "defense_name": defense, "control": defense in ("overfitted", "random")}
    return cell(defense, ATTACK, overall=overall, **(fields | given))


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
    assert "M1: AUC 0.800, p &lt; 0.0001 on an overfitted network" in page


def test_sections_on_classes_are_left_out_where_nothing_was_after_them(page: str) -> None:
    for id in ("verdicts", "wall", "grid", "classes"):
        assert f'<section id="{id}"' not in page
    assert '<section id="membership"' in page
    assert "Leakage report: mine on digits" in page


def test_a_run_without_the_attack_has_no_such_section(tmp_path: Path) -> None:
    page = render(record([cell("mine", overall={"accuracy": (0.9, 0.88, 0.92)}, defense_name="mine")]), tmp_path)
    assert "Membership inference" not in page


def test_names_and_reasons_of_others_are_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    broken = cell(hostile, ATTACK, leakage="membership", defense_name="x", status="failed", reason=hostile)
    page = render(run(scored("overfitted", 0.8, 1e-6), scored(hostile, 0.7, 1e-5, seed=1), broken), tmp_path)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert hostile not in page
