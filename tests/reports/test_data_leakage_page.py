"""The page on data leakage: every method beside the ANN, sweeps, and what papers claim."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from member_samples import attacked, members, over_timesteps
from suite_samples import alone

from leakbench.metrics.intervals import paired_difference
from leakbench.records import CellRecord, RunRecord
from leakbench.reports.summary import members_of


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("data_leakage")


def method(name: str, *areas: float, **given: Any) -> list[CellRecord]:
    """Attacked once a seed."""
    ensemble = [attacked(name, area, "auto_mia-v2", seed=seed, **given) for seed, area in enumerate(areas)]
    return [*alone(name, 0.9, 16, seeds=len(areas), **given), *ensemble]


def several() -> list[CellRecord]:
    """The ANN, one method that leaks much less, one as the ANN."""
    ann = method("ann", 0.70, 0.72, 0.71, control=True)
    return [*ann, *method("stbp", 0.55, 0.58, 0.56), *method("han2020", 0.701, 0.719, 0.712)]


def paged(script: ModuleType, records: Sequence[RunRecord]) -> str:
    return "\n".join(script.page(records, lambda curve: f"![{curve.title}]"))


def test_each_method_is_compared_with_the_ann_over_seeds(script: ModuleType) -> None:
    (group,) = members_of(members(*several(), attacks=("auto_mia-v2",))).values()
    assert script.asked(group) == ["stbp", "han2020", "ann"]  # the controls are in no comparison
    found = script.against_ann(group, script.asked(group))
    ann, stbp = [[0.70], [0.72], [0.71]], [[0.55], [0.58], [0.56]]
    expected = paired_difference(stbp, ann)  # a conversion tells nothing of how much a network of its own varies
    assert found.keys() == {"stbp", "han2020"} and found["stbp"][0] == expected
    assert found["stbp"][1] == pytest.approx(2 * expected.p)  # Holm over two
    assert found["han2020"][1] > 0.05 > found["stbp"][1]


def test_the_page_has_every_method_the_controls_and_what_papers_say(script: ModuleType) -> None:
    text = paged(script, [members(*several(), attacks=("auto_mia-v2",))])
    line = next(line for line in text.splitlines() if line.startswith("| `stbp` "))
    assert ".56 [.53, .60]" in line and "| -0.147 [" in line
    assert "1 of 2 differ from the ANN (p below .05): `stbp`." in text
    assert line.endswith("| leaks: `auto_mia-v2` distinguishes members from non-members |")
    assert "trained with spikes |" not in text  # not all of these methods were run
    assert "| `overfitted` | .90" in text and "| `random` | .50" in text
    claim = next(line for line in text.splitlines() if "2411.06613" in line)
    assert "AUC less the ANN's: `stbp` -0.147" in claim
    assert "mean over 1 conversion: +0.001" in next(line for line in text.splitlines() if "2409.19413" in line)


def test_a_run_over_t_is_a_sweep_and_the_last_claim(script: ModuleType) -> None:
    cells = over_timesteps("d", 0.55, 0.6, 0.7, attack="auto_mia-v2")
    text = paged(script, [members(*cells, attacks=("auto_mia-v2",))])
    assert "## Membership AUC over T" in text and "| 32 | .70 \\[.67, .73\\] n=356 |" in text
    claim = next(line for line in text.splitlines() if "2502.13191" in line)
    assert "`d` .55 [.52, .58] at T = 8 (accuracy .90), .70 [.67, .73] at T = 32 (accuracy .90)" in claim
    assert "![Membership AUC over T]" in text and "## What changes it" not in text  # one network has no test
    assert "differ from the ANN" not in text


def test_what_changes_the_auc_is_tested_over_seeds(script: ModuleType) -> None:
    methods = [*several(), *method("datafree", 0.52, 0.53, 0.51), *method("privatesnn", 0.62, 0.64, 0.60)]
    varied = [
        one
        for steps, areas in ((4, (0.52, 0.53, 0.50)), (16, (0.57, 0.59, 0.54)))
        for one in method(f"bu2022[T={steps}]", *areas, timesteps=steps, defense_name="bu2022")
    ]
    runs = [members(*cells, attacks=("auto_mia-v2",)) for cells in (methods, varied)]
    (first,), (second,) = (script.changes_of(grid) for grid in script.grids_of(runs))
    assert (first.networks, first.what) == (
        3,
        "`privatesnn` instead of `datafree`: encryption training with distillation",
    )
    assert first.found.value == pytest.approx(0.1)
    assert (second.what, second.attack) == ("`bu2022`: T 16 instead of 4", "auto_mia-v2")
    assert second.found == paired_difference([[0.57], [0.59], [0.54]], [[0.52], [0.53], [0.50]])
    text = paged(script, runs)
    assert (
        "2 of 2 differ (p below .05)" in text and "| `bu2022`: T 16 instead of 4 | `auto_mia-v2` | 3 | +0.050 [" in text
    )


def test_lines_of_one_defence_are_compared_with_each_other(script: ModuleType) -> None:
    cells = [
        one
        for od, shift in ((True, 0.0), (False, 0.02))
        for epochs in (5, 20)
        for one in method(
            f"p[od={od},epochs={epochs}]",
            *(area + shift + epochs / 1000 for area in (0.5, 0.53, 0.51)),
            timesteps=16,
            defense_name="p",
            defense_params={"od": od, "epochs": epochs},
        )
    ]
    (grid,) = script.grids_of([members(*cells, attacks=("auto_mia-v2",))])
    found = {one.what: one.found.value for one in script.changes_of(grid)}
    assert found == pytest.approx(
        {
            "`p, od=True`: epochs 20 instead of 5": 0.015,
            "`p, od=False`: epochs 20 instead of 5": 0.015,
            "`p`: od=True instead of od=False": -0.02,
        }
    )


def test_what_is_on_no_line_stands_beside_the_sweep(script: ModuleType) -> None:
    cells = [*over_timesteps("d", 0.55, 0.6, attack="auto_mia-v2"), *method("datafree", 0.51)]
    text = paged(script, [members(*cells, attacks=("auto_mia-v2",))])
    assert "In the same run, membership AUC:" in text and "| `datafree` | .51 " in text


def test_without_an_ann_nothing_is_compared(script: ModuleType) -> None:
    text = paged(script, [members(*method("stbp", 0.6, 0.61), attacks=("auto_mia-v2",))])
    assert "No ANN was attacked" in text


def test_one_network_is_no_test_and_no_answer_to_a_paper(script: ModuleType) -> None:
    alone = [*method("ann", 0.52, control=True), *method("han2020", 0.50)]
    text = paged(script, [members(*each, attacks=("auto_mia-v2",)) for each in (several(), alone)])
    assert ", 1 network each, by `auto_mia-v2`" in text and ", 3 networks each, by `auto_mia-v2`" in text
    assert "No test against the ANN: it takes two networks or more." in text
    assert "mean over 1 conversion: +0.001" in text


def test_who_lost_much_accuracy_is_named(script: ModuleType) -> None:
    poor = [
        one.model_copy(update={"defense": "zskd", "defense_name": "zskd"}) for one in alone("zskd", 0.8, 16, seeds=3)
    ]
    attacks = [one for one in method("zskd", 0.5, 0.5, 0.5) if one.attack]
    text = paged(script, [members(*several(), *poor, *attacks, attacks=("auto_mia-v2",))])
    assert "Right at least 0.05 less often than the ANN, and less accuracy leaks less: `zskd`." in text


def test_a_method_without_scores_is_named_with_the_reason(script: ModuleType) -> None:
    cells = [
        cell.model_copy(update={"status": "no-signal", "reason": "constant network", "values": []})
        if cell.attack
        else cell
        for cell in method("diehl2015", 0.5, 0.5, 0.5)
    ]
    text = paged(script, [members(*several(), *cells, attacks=("auto_mia-v2",))])
    assert "`diehl2015` is not in the table: no signal (constant network) on 3 networks." in text
    assert "| `diehl2015` " not in text


def test_verdicts_are_by_today_s_rules(script: ModuleType) -> None:
    made = members(*several(), attacks=("auto_mia-v2",))
    old = [one.model_copy(update={"outcome": "inconclusive", "reason": "of before"}) for one in made.verdicts]
    again = script.concluded(made.model_copy(update={"verdicts": old, "rows": []}))
    assert (again.verdicts, again.rows) == (made.verdicts, made.rows)
    assert {one.outcome for one in again.verdicts} == {"leaks"}
