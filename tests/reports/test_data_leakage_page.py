"""The page on data leakage: every method beside the ANN, sweeps, and what papers claim."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from member_samples import attacked, members, over_timesteps
from suite_samples import alone

from leakbench.metrics.intervals import paired_difference
from leakbench.records import CellRecord, Finding, RunRecord, Value
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
    assert "1 of 2 were seen to differ from the ANN (p below .05): `stbp`." in text
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
    assert "seen to differ" not in text


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
        "2 of 2 were seen to differ (p below .05)" in text
        and "| `bu2022`: T 16 instead of 4 | `auto_mia-v2` | 3 | +0.050 [" in text
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
    assert "Accuracy at least 0.05 below the ANN's, which may by itself lower what can be found: `zskd`." in text


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
    made = made.model_copy(update={"created": script.result_page.TAIL_WIDENED})
    again = script.result_page.of_today(made.model_copy(update={"verdicts": old, "rows": []}))
    assert (again.verdicts, again.rows) == (made.verdicts, made.rows)
    assert {one.outcome for one in again.verdicts} == {"leaks"}


def test_leaks_on_conversions_of_one_ann_are_said_to_be_one_finding(script: ModuleType) -> None:
    def on_one(name: str) -> list[CellRecord]:
        return [
            one.model_copy(update={"values": [v if v.metric != "membership_p" or one.seed == 2 else given(v)
                                              for v in one.values]})
            for one in method(name, 0.5, 0.51, 0.7)
        ]  # fmt: skip

    def given(value: Value) -> Value:
        return value.model_copy(update={"value": 0.4})

    ann = method("ann", 0.70, 0.72, 0.71, control=True)
    text = paged(
        script, [members(*ann, *on_one("han2020"), *on_one("bu2022"), *on_one("stbp"), attacks=("auto_mia-v2",))]
    )
    assert "members from non-members on 1 of 3 networks (seed 2) |" in text
    assert (
        "`han2020`, `bu2022` start from the same ANN and leak by the same attack on the same seeds: one finding, not 2."
        in text
    )
    text = paged(script, [members(*ann, *on_one("han2020"), *on_one("stbp"), attacks=("auto_mia-v2",))])
    assert "one finding" not in text  # trained on its own


def test_single_attacks_are_compared_over_seeds_and_not_over_networks(script: ModuleType) -> None:
    """Networks of a seed are no further evidence: their mean is one number."""
    shifts = {"han2020": (0.01, 0.02, 0.06), "bu2022": (0.03, 0.02, 0.02)}
    cells = [
        one
        for name, each in shifts.items()
        for one in (
            *method(name, 0.6, 0.6, 0.6),
            *(attacked(name, 0.6 + shift, "rmia", seed=seed) for seed, shift in enumerate(each)),
        )
    ]
    (group,) = members_of(members(*cells, attacks=("auto_mia-v2", "rmia"))).values()
    (found,) = script.beside_ensemble(group, script.asked(group))
    by_seed = [0.02, 0.02, 0.04]
    assert (found.attack, found.seeds, found.networks) == ("rmia", 3, 6)
    assert (found.value, found.error) == pytest.approx((np.mean(by_seed), np.std(by_seed, ddof=1) / 3**0.5))
    text = paged(script, [members(*cells, attacks=("auto_mia-v2", "rmia"))])
    assert "standard error over seeds" in text and "`rmia` +0.027 (0.007; 3 seeds, 6 networks)" in text


def test_bounds_are_shown_from_the_lowest_to_the_highest_beside_the_claim(script: ModuleType) -> None:
    # a claim at a larger delta than the audit's is another one
    for delta, claimed in ((1e-5, " (claimed: 8.00)"), (1e-4, "")):
        claim = [Finding(name="epsilon, claimed", value=8.0), Finding(name="delta", value=delta)]
        private = [
            one if one.attack else one.model_copy(update={"findings": claim})
            for one in method("dpsgd", 0.5, 0.52, 0.56)
        ]
        text = paged(script, [members(*several(), *private, attacks=("auto_mia-v2",))])
        row = next(line for line in text.splitlines() if line.startswith("| `dpsgd` "))
        assert f"| 0.00 to 0.12{claimed} |" in row
    assert "| 0.10 to 0.16 |" in next(line for line in text.splitlines() if line.startswith("| `stbp` "))


def test_negative_controls_are_counted_once_each(script: ModuleType) -> None:
    def halves(low: float, high: float, **given: Any) -> CellRecord:
        """An attack's cell with the interval of members against members."""
        value = Value(metric="members_against_members_auc", value=(low + high) / 2, low=low, high=high, n=178)
        one = attacked("han2020", 0.6, **({"attack": "auto_mia-v2"} | given))
        return one.model_copy(update={"values": [*one.values, value]})

    cells = [halves(0.45, 0.55), halves(0.51, 0.6, seed=1), halves(0.4, 0.5, seed=2)]
    cheaper = halves(0.9, 0.95, seed=3, of="auto_mia-v2")  # a check of an attack's cost, and no network of its own
    alone_too = alone("han2020", 0.9, 16, seeds=3)
    made = members(*alone_too, *cells, cheaper, attacks=("auto_mia-v2",))
    found = script.negative_controls([made, made])
    assert [str(one) for by_attack in found.values() for one in by_attack.values()] == ["2 of 3", "1 of 1"]
    text = paged(script, [made])
    assert (
        "of members against members 2 of 3; of untrained networks 1 of 1. An attack passes with 35 of 40 or more"
        in text
    )
    assert "| `auto_mia-v2` | 2 of 3 | 1 of 1 |" in text
    other = halves(0.51, 0.6, attack="rmia")
    text = paged(script, [members(*alone_too, *cells, other, attacks=("auto_mia-v2",))])
    assert "of members against members 2 of 4, the smallest share by `rmia` (0 of 1)" in text


def test_guessing_is_said_by_the_number_of_images(script: ModuleType) -> None:
    made = members(*several(), attacks=("auto_mia-v2",))
    assert script.by_chance([made]) == (
        "Guessing gives an AUC of .5, and finds slightly more than .01 of the members at 1 % FPR: .011 with 178 "
        "non-members."
    )


def test_a_sweep_of_worst_attacks_says_so(script: ModuleType) -> None:
    cells = [
        *over_timesteps("d", 0.55, 0.6),
        *over_timesteps("d", 0.7, 0.5, attack="auto_mia-v2"),
        *over_timesteps("e", 0.6, 0.6, attack="auto_mia-v2"),
    ]
    assert "its interval does not allow for that choice" in paged(
        script, [members(*cells, attacks=("a", "auto_mia-v2"))]
    )
