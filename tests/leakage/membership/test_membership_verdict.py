"""Rows and verdicts on membership, from cells written by hand."""

from __future__ import annotations

import pytest
from by_hand import cell, declared

from leakbench.leakage.membership.kind import Membership
from leakbench.leakage.membership.verdict import conclude
from leakbench.records import AttackRow, CellRecord, Verdict

ATTACK = "loss_threshold"


def scored(defense: str, area: float, p: float, control: bool = False, seed: int = 0, of: str = "") -> CellRecord:
    """An attack's cell with an AUC and its p."""
    overall = {"membership_auc": (area, max(0.0, area - 0.03), min(1.0, area + 0.03)), "membership_p": p}
    return cell(
        defense, ATTACK, overall=overall, leakage="membership", defense_name=defense, control=control, seed=seed, of=of
    )


OVERFITTED = scored("overfitted", 0.8, 1e-6, control=True)
UNTRAINED = scored("random", 0.51, 0.4, control=True)


def concluded(*cells: CellRecord) -> tuple[dict[str, AttackRow], dict[str, Verdict]]:
    evidence = conclude(cells, declared())
    assert {one.leakage for one in (*evidence.rows, *evidence.verdicts)} <= {"membership"}
    return {row.defense: row for row in evidence.rows}, {one.defense: one for one in evidence.verdicts}


def test_members_that_are_told_from_others_are_a_leak() -> None:
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, scored("mine", 0.7, 1e-5))
    assert rows["mine"].leaks
    assert rows["mine"].validity == "valid"
    assert [(gate.name, gate.passed) for gate in rows["mine"].gates] == [("M1", True), ("M2", True)]
    assert [gate.name for gate in rows["mine"].gates] == [gate.name for gate in Membership.gates]
    assert list(verdicts) == ["mine"]  # of controls there is no verdict
    assert (verdicts["mine"].outcome, verdicts["mine"].attack) == ("leaks", ATTACK)
    index = verdicts["mine"].index
    assert index is not None
    assert (index.value, index.low, index.high) == pytest.approx((0.4, 0.34, 0.46))
    assert "AUC 0.700" in verdicts["mine"].reason


@pytest.mark.parametrize(("area", "p"), [(0.55, 0.02), (0.5, 0.5), (0.4, 1.0), (0.7, 0.01)])
def test_what_is_not_significant_is_inconclusive_and_never_resists(area: float, p: float) -> None:
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, scored("mine", area, p))
    assert not rows["mine"].leaks
    assert verdicts["mine"].outcome == "inconclusive"
    assert "no evidence of privacy" in verdicts["mine"].reason


def test_an_attack_that_finds_nothing_where_all_is_known_by_heart_is_invalid() -> None:
    rows, verdicts = concluded(scored("overfitted", 0.52, 0.2, control=True), UNTRAINED, scored("mine", 0.7, 1e-5))
    assert (rows["mine"].validity, rows["mine"].leaks) == ("invalid", False)
    assert rows["mine"].reason.startswith("M1: AUC 0.520, p = 0.2000")
    assert verdicts["mine"].outcome == "inconclusive"
    assert "no valid attack" in verdicts["mine"].reason


def test_an_attack_that_finds_members_of_an_untrained_network_is_invalid() -> None:
    rows, _ = concluded(OVERFITTED, scored("random", 0.7, 1e-5, control=True), scored("mine", 0.7, 1e-5))
    assert (rows["mine"].validity, rows["mine"].leaks) == ("invalid", False)
    assert "M2" in rows["mine"].reason


def test_without_controls_the_gates_are_open() -> None:
    rows, verdicts = concluded(scored("mine", 0.7, 1e-5))
    assert [gate.passed for gate in rows["mine"].gates] == [None, None]
    assert verdicts["mine"].outcome == "leaks"


def test_seeds_count_together_and_checks_do_not() -> None:
    """Two seeds of p = .05 each are p = .017 by Fisher's method, three are .006."""
    seeds = [scored("mine", 0.6, 0.05, seed=seed) for seed in range(3)]
    check = scored("mine", 0.9, 1e-9, of=ATTACK)
    rows, _ = concluded(OVERFITTED, UNTRAINED, *seeds[:2], check)
    assert not rows["mine"].leaks
    rows, _ = concluded(OVERFITTED, UNTRAINED, *seeds, check)
    assert rows["mine"].leaks
    assert rows["mine"].p == pytest.approx(0.00634, abs=1e-4)
    assert rows["mine"].indices[0].value == pytest.approx(0.2)


def test_a_cell_that_failed_is_no_row() -> None:
    broken = cell("mine", ATTACK, leakage="membership", defense_name="mine", status="failed")
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, broken)
    assert "mine" not in rows
    assert (verdicts["mine"].outcome, verdicts["mine"].reason) == ("inconclusive", "no attack on it gave scores")
