"""Sweeps as attacks on members see them: AUC, members found at 1 % FPR, the audited epsilon beside the claimed one."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest
from by_hand import declared
from member_samples import attacked, members, over_timesteps
from report_page import page
from report_samples import record
from suite_samples import alone

from leakbench.leakage.membership.verdict import conclude
from leakbench.records import CellRecord, Finding, RunRecord, Value
from leakbench.reports.curves import Curve, curves
from leakbench.reports.member_rows import membership_view
from leakbench.reports.summary import groups, members_of
from leakbench.reports.sweeps import sweep
from leakbench.reports.tables import markdown_text


def drawn(made: RunRecord) -> dict[str, Curve]:
    (group,) = groups(made)
    return {curve.title: curve for curve in curves(group, members_of(made).get((group.dataset, group.model)))}


def heights(curve: Curve) -> dict[str, list[float]]:
    return {series.label: [round(point.value.value, 3) for point in series.points] for series in curve.series}


def test_each_defence_is_a_line_over_t_beside_chance_and_the_ann() -> None:
    ann = [*alone("ann", 0.95, control=True), attacked("ann", 0.58, control=True)]
    made = drawn(members(*over_timesteps("d", 0.55, 0.6, 0.7), *over_timesteps("e", 0.6, 0.55), *ann))
    area = made["Membership AUC over T"]
    assert heights(area) == {"d": [0.55, 0.6, 0.7], "e": [0.6, 0.55]}
    assert [(level.label, level.value.value) for level in area.levels] == [("chance", 0.5), ("ANN", 0.58)]
    assert (area.log, area.index, area.up) == (True, False, "Membership AUC")
    assert area.table.rows[0].cells[0].text == ".55 [.52, .58] n=356"
    assert [row.cells[0].text for row in area.table.anchors] == [".50", ".58 [.55, .61] n=356"]
    found = made["Members found at 1 % FPR over T"]
    assert heights(found) == {"d": [0.15, 0.3, 0.6], "e": [0.3, 0.15]}
    assert found.levels[0].value.value == pytest.approx(2 / 179)  # of 178 others one may be above


def test_of_one_defence_each_attack_is_a_line() -> None:
    cells = [*over_timesteps("d", 0.55, 0.6), *over_timesteps("d", 0.7, 0.5, attack="b")]
    made = drawn(members(*cells, attacks=("a", "b")))
    assert heights(made["Membership AUC over T"]) == {"a": [0.55, 0.6], "b": [0.7, 0.5]}
    assert [level.label for level in made["Membership AUC over T"].levels] == ["chance"]


def test_of_several_the_worst_case_of_each_is_drawn() -> None:
    cells = [
        *over_timesteps("d", 0.55, 0.6),
        *over_timesteps("d", 0.7, 0.5, attack="b"),
        *over_timesteps("e", 0.6, 0.6),
    ]
    made = drawn(members(*cells, attacks=("a", "b")))
    assert heights(made["Membership AUC, worst attack over T"]) == {"d": [0.7, 0.6], "e": [0.6, 0.6]}


def test_intervals_of_worst_attacks_are_said_to_leave_out_the_choice(tmp_path: Path) -> None:
    two = [*over_timesteps("d", 0.55, 0.6), *over_timesteps("e", 0.6, 0.6)]
    chosen = members(*two, *over_timesteps("d", 0.7, 0.5, attack="b"), attacks=("a", "b"))
    alone = members(*two)
    said = "does not allow for that choice"
    assert [title for title, curve in drawn(chosen).items() if curve.worst] == [
        "Membership AUC, worst attack over T",
        "Members found at 1 % FPR, worst attack over T",
    ]
    assert said in page(chosen, tmp_path).text and said not in page(alone, tmp_path).text


def test_an_invalid_attack_is_no_point() -> None:
    cells = over_timesteps("d", 0.55, 0.6, 0.7)
    found = [one.model_copy(update={"values": [*one.values[:1], Value(metric="membership_p", value=1e-9)]}) for one in
             members(*cells).cells if one.defense == "random"]  # fmt: skip
    every = [*cells, *(one.model_copy(update={"values": [Value(metric="membership_auc", value=0.6, low=0.57, high=0.63),
                                                         *one.values[1:]]}) for one in found)]  # fmt: skip
    evidence = conclude([one for one in every if one.attack], declared())
    assert [row.validity for row in evidence.rows if not row.control] == ["invalid"] * 3
    assert list(drawn(record(every, rows=evidence.rows, verdicts=evidence.verdicts))) == ["Accuracy over T"]


def test_a_run_on_classes_alone_draws_nothing_of_members(tmp_path: Path) -> None:
    made = record([one for one in over_timesteps("d", 0.6, 0.7) if not one.attack])
    assert members_of(made) == {} and list(drawn(made)) == ["Accuracy over T"]
    assert "no claim" not in page(made, tmp_path).text


# --- epsilon


def private(*areas: float, claim: float = 1.0, delta: float = 1e-5, more: Sequence[float] = ()) -> RunRecord:
    """dpsgd at epsilon 1, 2, ..., of which it claims so many times as much; ``more`` are AUCs of a second seed."""
    cells: list[CellRecord] = []
    for number, area in enumerate(areas):
        epsilon = 2.0**number
        label, params = f"dpsgd[epsilon={epsilon:g}]", {"epsilon": epsilon}
        said = [Finding(name="epsilon, claimed", value=claim * epsilon), Finding(name="delta", value=delta)]
        of_defence = alone(label, 0.6 + number / 10, 16, params, defense_name="dpsgd")
        cells += [cell.model_copy(update={"findings": said}) for cell in of_defence]
        cells.append(attacked(label, area, timesteps=16, defense_params=params))
        cells += [
            attacked(label, one, timesteps=16, defense_params=params, seed=1) for one in more[number : number + 1]
        ]
    return members(*cells)


def test_over_epsilon_the_audited_bound_stands_below_the_claim() -> None:
    made = drawn(private(0.5, 0.55, 0.65))
    assert [title.removesuffix(" of dpsgd over epsilon, T = 16") for title in made] == [
        "Accuracy", "Membership AUC", "Members found at 1 % FPR", "Audited epsilon",
    ]  # fmt: skip
    audited = made["Audited epsilon of dpsgd over epsilon, T = 16"]
    assert heights(audited) == {"dpsgd": [0.0, 0.1, 0.3]} and audited.claimed and audited.levels == ()
    assert all(curve.log for curve in made.values())  # of epsilon always
    assert [title for title, curve in made.items() if curve.claimed] == [audited.title]


def test_of_several_networks_bounds_the_highest_is_drawn_down_to_the_lowest(tmp_path: Path) -> None:
    made = private(0.55, 0.6, more=(0.5, 0.65))
    audited = drawn(made)["Audited epsilon of dpsgd over epsilon, T = 16"]
    assert heights(audited) == {"dpsgd": [0.1, 0.3]}
    assert [point.value.low for point in audited.series[0].points] == pytest.approx([0.0, 0.2])
    assert [row.cells[0].text for row in audited.table.rows] == ["0 to 0.1000 n=2 seeds", "0.2000 to 0.3000 n=2 seeds"]
    (group,) = groups(made)
    view = membership_view(made, group.dataset, group.model)
    assert view is not None and [row.others[-1] for row in view.rows if not row.control] == [
        "0 to 0.1000",
        "0.2000 to 0.3000",
    ]
    assert "the bar reaches to the lowest" in " ".join(page(made, tmp_path).text.split())


def test_a_parameter_that_is_no_claim_is_not_drawn_as_one() -> None:
    for made in (private(0.5, 0.55, 0.65, claim=0.5), private(0.5, 0.55, 0.65, delta=1e-4)):
        assert not [title for title in drawn(made) if title.startswith("Audited")]


def test_the_claim_is_a_line_beside_it() -> None:
    made = private(0.5, 0.55, 0.65)
    (group,) = groups(made)
    audited = drawn(made)["Audited epsilon of dpsgd over epsilon, T = 16"]
    found = ET.fromstring(sweep(group, audited))
    words = {element.text for element in found.iter("text")}
    assert {"epsilon", "Audited epsilon", "dpsgd", "claimed"} <= words
    assert "the dashed line is the claim" in (found.findtext("desc") or "")


def test_page_and_tables_have_them(tmp_path: Path) -> None:
    made = private(0.5, 0.55, 0.65)
    found = page(made, tmp_path)
    assert "Members found at 1 % FPR of dpsgd over epsilon, T = 16" in found.text
    assert "below the claimed one it contradicts no claim" in found.text
    text = markdown_text(made)
    assert "### Membership AUC of dpsgd over epsilon, T = 16" in text and "| chance (any epsilon) | .50 |" in text
