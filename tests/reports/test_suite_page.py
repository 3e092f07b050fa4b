"""The pages of the suites: Table 1 with both leaks measured, and all of the paper's tables."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report_samples import index, verdict
from suite_samples import paper_suite

from leakbench.records import Picture


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("suite_tables").page


def test_table_1_stands_on_the_page_with_both_leaks(page: Any) -> None:
    whole = paper_suite()
    found = verdict("sengupta2019", "leaks", "auto_mia-v2", index=index(0.2)).model_copy(
        update={"leakage": "membership"}
    )
    made = whole.model_copy(update={"grid": {"suite": "privacy"}, "verdicts": [*whole.verdicts, found]})
    title, networks, table, *_figures = page({"runs/mine": made}, "mine", str)
    assert title.endswith("Table 1: data and class leakage") and networks.startswith("Of ")
    heading, _, *lines = table.splitlines()
    assert "Worst-case class leakage" in heading and "Worst-case member leakage" in heading
    line = next(line for line in lines if "sengupta2019" in line)
    assert ".20" in line and "by auto\\_mia-v2" in line and ".69" in line


def test_all_tables_and_figures_of_the_paper_stand_on_the_page(page: Any) -> None:
    parts = list(page({"runs/mine": paper_suite()}, "mine", lambda curve: f"picture of {curve.title}"))
    titles = [part.partition(": ")[2] for part in parts if part.startswith("## ")]
    assert [title[:7] for title in titles[:5]] == [f"Table {number}" for number in range(1, 6)]
    assert titles[5:] == ["Figure 5a", "Figure 5b"]
    assert (
        sum(part.startswith("picture of ") for part in parts) == 2
    )  # and no run is here whose pictures Figure 6 shows


def test_figure_6_shows_what_both_attacks_draw_before_encryption_and_after(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, run = paper_suite(), tmp_path / "mine"
    (run / "images").mkdir(parents=True)
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (8, 8), "red").save(run / "images" / "one.png")
    shown = [Picture(path="images/one.png", target=target, named=1, accepted=target > 0) for target in range(3)]
    cells = [cell.model_copy(update={"pictures": shown}) if cell.attack else cell for cell in made.cells]
    monkeypatch.setattr(importlib.import_module("result_page"), "RESULTS", tmp_path)

    def parts() -> list[str]:
        return list(page({str(run): made.model_copy(update={"cells": cells})}, "mine", str))

    title, _, rows, picture = parts()[-4:]
    (sheet,) = (tmp_path / "figures").iterdir()
    assert title.endswith("Figure 6") and picture == f"![What the attacks draw](figures/{sheet.name})"
    assert [line.partition("`")[2] for line in rows.splitlines()] == [
        "datafree`, seed 0)", "privatesnn`, seed 0)", "datafree`, seed 0)", "privatesnn`, seed 0)",
    ]  # fmt: skip
    with Image.open(sheet) as drawn:
        assert (drawn.width, drawn.height) == (3 * 80, 4 * 85)
    (run / "images" / "one.png").unlink()
    assert parts()[-1] == picture  # drawn when the run was here
    others = [Picture(path="images/two.png", target=0)]
    cells = [cell.model_copy(update={"pictures": others}) if cell.attack else cell for cell in made.cells]
    assert not any("Figure 6" in part for part in parts())  # and not of another run
    cells = made.cells
    assert not any("Figure 6" in part for part in parts())
