"""The page of the paper's Table 1 with both leaks measured."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from report_samples import index, verdict
from suite_samples import paper_suite


def test_table_1_stands_on_the_page_with_both_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    whole = paper_suite()
    found = verdict("sengupta2019", "leaks", "auto_mia-v2", index=index(0.2)).model_copy(
        update={"leakage": "membership"}
    )
    made = whole.model_copy(update={"grid": {"suite": "privacy"}, "verdicts": [*whole.verdicts, found]})
    title, networks, table = importlib.import_module("privacy_table").page([made])
    assert title.endswith("Table 1: data and class leakage") and networks.startswith("Of ")
    heading, _, *lines = table.splitlines()
    assert "Worst-case class leakage" in heading and "Worst-case member leakage" in heading
    line = next(line for line in lines if "sengupta2019" in line)
    assert ".20" in line and "by auto\\_mia-v2" in line and ".69" in line
