from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from realistic_samples import realistic
from report_page import page
from report_samples import anchor, calibration, cell, gates, index, judged, record, row, scale, verdict

from leakbench.leakage.inversion.gates import GATES
from leakbench.records import AttackRow, Votes
from leakbench.reports.controls import control_table, gate_rows, null_networks_text, scale_rows
from leakbench.reports.frames import long_frame, wide_frame
from leakbench.reports.summary import Group, groups


def group(rows: list[AttackRow], **given: Any) -> Group:
    cells = [cell(found.defense, found.attack, values=judged(5, 9.0), control=found.control) for found in rows]
    (only,) = groups(record([*cells, *calibration()], rows=rows, **given))
    return only


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ((True, True), ("passed", "passes")),
        ((False, False), ("failed", "fails")),
        ((None, None), ("open", "unknown")),
        ((True, False), ("failed", "fails on d1")),
        ((None, False), ("failed", "fails on d1")),
        ((True, None), ("open", "passes; unknown on d1")),
        ((False, False, True), ("failed", "fails on d0, d1")),
        ((False, False, False, True), ("failed", "fails on 3 defences")),
    ],
)
def test_a_gate_is_told_over_all_defences(outcomes: tuple[bool | None, ...], expected: tuple[str, str]) -> None:
    rows = [row(f"d{number}", "a", gates=gates(G3=outcome), leaks=False) for number, outcome in enumerate(outcomes)]
    # a control's gates say nothing about a defence
    rows.append(row("random", "a", gates=gates(G1=False, G3=False)))
    (made,) = gate_rows(group(rows))
    assert astuple(made.cells[2]) == expected
    assert [found.text for found in made.cells[:2]] == ["passes", "passes"]


@pytest.mark.parametrize("name", ["G1", "G3", "G4", "G5"])
def test_no_gate_but_g2_is_needed_where_it_leaks(name: str) -> None:
    at = ["G1", "G2", "G3", "G4", "G5"].index(name)
    leaking, silent = (
        row(label, "a", gates=gates(**{name: False}), leaks=label == "leaking") for label in ("leaking", "silent")
    )
    passing = row("passing", "a")

    def told(*rows: AttackRow) -> tuple[str, str]:
        (made,) = gate_rows(group(list(rows)))
        return made.cells[at].outcome, made.cells[at].text

    assert told(leaking) == ("spared", "not needed: it leaks")
    assert told(leaking, passing) == ("spared", "not needed: it leaks on leaking")
    assert told(leaking, silent) == ("failed", "fails on silent")
    assert told(silent) == ("failed", "fails")
    (made,) = gate_rows(group([leaking, silent]))
    assert [astuple(reason)[1:] for reason in made.reasons if reason.gate == name] == [
        ("not needed: it leaks", "leaking", f"why {name}"),
        ("fails", "silent", f"why {name}"),
    ]


def test_g2_takes_a_leak_away() -> None:
    (made,) = gate_rows(group([row("d", "a", gates=gates(G2=False))]))
    assert astuple(made.cells[1]) == ("failed", "fails")


def test_no_cross_stands_beside_valid(tmp_path: Path) -> None:
    valid = row("d", "a", index(0.5), gates=gates(G1=False, G3=False, G4=False, G5=False))
    made = record(
        [cell("d", "a", values=judged(50, 9.0)), *calibration()], rows=[valid], verdicts=[verdict("d", attack="a")]
    )
    text = page(made, tmp_path).text
    assert "✗" not in text and text.count("– not needed: it leaks") == 4


def test_a_gate_without_a_record_is_open() -> None:
    (made,) = gate_rows(group([row("d", "a", gates=[])]))
    assert [found.outcome for found in made.cells] == ["open"] * 6 and made.reasons == ()


def test_every_reason_is_kept_and_the_same_is_said_once() -> None:
    rows = [row("d", "a"), row("e", "a", gates=gates(G2=None)), row("d", "b")]
    first, second = gate_rows(group(rows))
    assert (first.attack, second.attack) == ("a", "b")
    assert [astuple(reason) for reason in first.reasons] == [
        ("G1", "passes", "d, e", "why G1"),
        ("G2", "passes", "d", "why G2"),
        ("G2", "unknown", "e", "why G2"),
        ("G3", "passes", "d, e", "why G3"),
        ("G4", "passes", "d, e", "why G4"),
        ("G5", "passes", "d, e", "why G5"),
    ]


def test_controls_alone_are_gated_too() -> None:
    (made,) = gate_rows(group([row("ann", "a", gates=gates(G1=False), leaks=False)]))
    assert made.cells[0].text == "fails"


def test_the_index_of_the_controls_has_a_row_an_attack() -> None:
    rows = [
        row("d", "a", index(0.5)),
        row("ann", "a", index(0.8)),
        row("han2020", "a", index(0.7)),
        row("random", "a", index(0.0), validity="optimisation failure"),
        row("ann", "b", index(None, reason="no anchor")),
    ]
    table = control_table(group(rows))
    assert table is not None and table.corner == "Attack"
    assert table.columns == ("unprotected ANN", "unprotected conversion", "untrained network")
    assert [(found.label, [c.text for c in found.cells]) for found in table.rows] == [
        ("a", [".80 [.70, .90] n=10", ".70 [.60, .80] n=10", ".00 [.00, .10] n=10 (not optimised)"]),
        ("b", ["no scale", "–", "–"]),
    ]


def test_without_controls_there_is_no_table() -> None:
    assert control_table(group([row("d", "a", index(0.5))])) is None


def test_the_scale_has_both_ends_and_the_fresh_draws() -> None:
    made = scale_rows(group([], scales=[scale(), scale("kes", dataset="another")]))
    assert [astuple(found) for found in made] == [
        ("Judge accuracy", "judge_accuracy", ".10 n=400", ".97 n=400", ".02 [.00, .07]", ".99 [.94, 1.00]")
    ]


@pytest.mark.slow
def test_reasons_are_text_on_the_page(tmp_path: Path) -> None:
    found = page(realistic(tmp_path), tmp_path)
    for gate in GATES:
        assert f"{gate.name} {gate.text}" in found.text
    for part in (
        "91 of 100 images",
        "no attack with less access in this run",
        "on han2020, the unprotected conversion, its images are no better than noise (p = .21)",
        "✗ fails",
        "? unknown",
    ):
        assert part in found.text, part


def test_checks_are_no_cells_of_the_grid(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    checks = [found for found in made.cells if found.of]
    assert len(checks) == 3
    (only,) = groups(made)
    assert not {found.attack for found in checks} & {*only.attacks, *only.anchors}
    without = made.model_copy(update={"cells": [found for found in made.cells if not found.of]})
    (same,) = groups(without)
    assert same == only
    text = page(made, tmp_path).text
    assert "(half the steps)" not in text and "(fresh draw)" not in text
    assert "Checks 3 ok" in text
    assert [found.anchors for found in groups(record([anchor("noise"), anchor("x", of="noise")]))] == [("noise",)]


def test_networks_that_know_nothing_are_a_sentence_and_no_rows(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    votes = Votes(classes=[0, 1], accepted=[(0, 3)], forced=[(0, 3), (1, 1)])
    null = {"of": "inversion", "control": True, "values": judged(3, 90.0), "votes": votes}
    ran = [cell(f"random {n}", "inversion", **null) for n in range(6)]
    ran += [cell(f"random {n}", "direct", **null | {"of": "direct"}) for n in range(4)]
    with_nulls = made.model_copy(update={"cells": [*made.cells, *ran]})
    (only,), (same,) = groups(made), groups(with_nulls)
    assert same == only
    assert null_networks_text(made, only) == ""
    said = null_networks_text(with_nulls, only)
    assert "on 4 to 6 networks that know nothing" in said and "In 50.0 % of 20 cases" in said
    text = page(with_nulls, tmp_path).text
    assert said in text and "random 0" not in text
    assert "Checks 3 ok" in text and "know nothing 10 ok" in text
    for frame in (long_frame(with_nulls), wide_frame(with_nulls)):
        kinds = frame.set_index("defense")["check"]
        assert set(kinds["random 3"]) == {"null network"} and "null network" not in set(kinds["random"])
        assert set(frame["check"]) == {"", "half effort", "fresh draw", "null network"}


def test_controls_of_one_kind_are_told_apart() -> None:
    rows = [row(label, "a", index(0.5), control=True) for label in ("han2020[T=8]", "han2020[T=16]", "shuffled")]
    table = control_table(group(rows))
    assert table is not None
    assert table.columns == ("unprotected conversion[T=8]", "unprotected conversion[T=16]", "shuffled")
