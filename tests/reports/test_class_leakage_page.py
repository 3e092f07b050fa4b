"""The page of few defences' class leakage."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from report_samples import DATASET, share
from suite_samples import paper_suite

from leakbench.records import JudgeInfo


def test_each_defense_has_its_accuracy_its_verdict_and_the_index_of_every_attack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    seen = {"accuracy": share("accuracy", 291, 300), "corrupted": share("corrupted", 120, 200)}
    judge = JudgeInfo(name="bnconv", dataset=DATASET, summary="convolutions", **seen)
    made = paper_suite(seeds=2).model_copy(update={"judges": [judge]})
    made = made.model_copy(update={"grid": {"preset": "quick", "precision": None}})
    title, defenses, *rest = importlib.import_module("class_leakage").page({"runs/mine": made}, "mine")
    assert title.endswith("2 networks each, preset quick, precision float32")
    line = next(line for line in defenses.splitlines() if line.startswith("| `sengupta2019` |"))
    # 346 and 348 of 360, the ANN 350 and 351: Student's t of one degree of freedom is 12.706
    assert [part.strip() for part in line.split("|")[3:6]] == ["0.964 [0.929, 0.999]", "0.974 [0.956, 0.991]", "leaks"]
    assert ".69" in line and "`inversion`" in line
    indices = next(part for part in rest if part.startswith("|  | `reconversion`"))
    assert "| `tdbn` |" in indices and "| `random` |" not in indices  # no index of it here
    assert "| `bnconv` | .97 [.94, .98] | .60 [.53, .67] | – |" in rest[-1]
