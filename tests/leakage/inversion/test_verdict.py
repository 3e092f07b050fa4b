"""Verdicts: when a defence leaks, when it resists, and every way in which nothing can be said."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from grids_by_hand import (
    BASE,
    FAILS,
    HIGH,
    NEEDS,
    WORKS,
    anchors,
    attacked,
    concluded,
    controls,
    row,
    row_of,
    rows,
    told,
)

from leakbench.leakage.inversion.verdict import headline
from leakbench.leakage.kind import index_line
from leakbench.records import CellRecord, Status

# --- it leaks ----------------------------------------------------------------------------------------------------


def test_what_is_recognised_above_its_null_leaks() -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", 0.7, WORKS)]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack) == ("leaks", "inversion")
    assert verdict.index is not None
    assert verdict.index.value == pytest.approx((0.7 - 0.1) / (1.0 - 0.1))
    for word in (f"inversion reconstructs its classes: index {index_line(verdict.index)}", "p = 0.0001",
                 "1 of 1 attacks do", "1,500 gradient steps, 40 queries and 2.5 s", "Another attack may"):  # fmt: skip
        assert word in verdict.reason
    found = row_of(concluded(cells), "mine")
    assert (found.leaks, found.validity, found.p, found.control) == (True, "valid", WORKS, False)
    assert (found.gradient_steps, found.queries, found.seconds) == (1500, 40, 2.5)


def test_an_attack_that_works_on_this_very_network_needs_no_other_to_prove_itself() -> None:
    """G1 asks whether an attack works at all: it does, here."""
    verdict = told(*BASE, *controls(han=(0.1, FAILS)), attacked("mine", "inversion", 0.7, WORKS))
    assert (verdict.outcome, verdict.attack) == ("leaks", "inversion")


@pytest.mark.parametrize("gate", ["G3", "G4", "G5"])
def test_a_leak_is_evidence_whatever_the_optimiser_thinks_of_itself(gate: str) -> None:
    cells = [
        *BASE,
        *controls(),
        attacked("mine", "inversion", [s - 0.3 for s in HIGH], WORKS, 0.2 if gate == "G3" else 0.99),
    ]
    if gate == "G4":
        cells.append(attacked("mine", "inversion (iterations=75)", HIGH, WORKS, of="inversion"))
    elif gate == "G5":
        cells += [*controls("search"), attacked("mine", "search", HIGH, WORKS)]
    evidence = concluded(cells)
    found = row_of(evidence, "mine")
    assert [one.name for one in found.gates if one.passed is False] == [gate]
    assert (found.leaks, found.validity) == (True, "valid")
    assert told(*cells).outcome == "leaks"


@pytest.mark.slow
def test_the_worst_case_is_the_highest_index() -> None:
    cells = [*BASE]
    for attack, share in (("inversion", 0.5), ("direct", 0.8), ("search", 0.6), ("guess", 0.1)):
        cells += [*controls(attack), attacked("mine", attack, share, WORKS if share > 0.1 else FAILS)]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack) == ("leaks", "direct")
    assert "3 of 4 attacks do" in verdict.reason
    assert verdict.index == headline(row_of(concluded(cells), "mine", "direct"))


def test_significance_alone_is_no_leak_where_nothing_is_above_the_null() -> None:
    """Recognised, and no better than what the same attack draws out of an untrained network."""
    cells = [*BASE, *controls(random=(0.6, FAILS)), attacked("mine", "inversion", 0.6, WORKS)]
    found = row_of(concluded(cells), "mine")
    assert (headline(found).value, headline(found).low, headline(found).null) == (pytest.approx(0), 0, "random")
    assert not found.leaks
    assert told(*cells).outcome != "leaks"


def test_significance_alone_is_no_leak_at_an_accuracy_of_chance() -> None:
    """Noise may score below chance: an index above 0 is then no recognition either."""
    cells = [
        *anchors(noise=0.02),
        *rows("mine"),
        *controls(random=(0.02, FAILS)),
        attacked("mine", "inversion", 0.1, WORKS),
    ]
    found = row_of(concluded(cells), "mine")
    assert (headline(found).value, found.p) == (pytest.approx(0.08 / 0.98), WORKS)
    assert not found.leaks
    cells[-1] = attacked("mine", "inversion", 0.11, WORKS)
    assert row_of(concluded(cells), "mine").leaks


def test_an_attack_at_chance_neither_works_nor_draws_from_nothing_whatever_its_p() -> None:
    """G1 does not pass by p alone, and G2 does not fail by it."""
    weak = [*BASE, *controls(han=(0.1, 0.002), random=(0.1, 0.0006))]
    cells = [*weak, attacked("mine", "inversion", 0.1)]
    assert row_of(concluded(cells), "mine").validity == "invalid"
    assert "G1: not better than chance: p = 0.0020, but judge accuracy 0.10" in told(*cells).reason
    assert told(*weak, attacked("mine", "inversion", 0.7, WORKS)).outcome == "leaks"


@pytest.mark.parametrize(("attacks", "outcome"), [(1, "leaks"), (2, "leaks"), (3, "inconclusive"), (4, "inconclusive")])
def test_the_more_attacks_are_tried_the_surer_one_must_be(attacks: int, outcome: str) -> None:
    """.004 is below .01 / 2 and not below .01 / 3."""
    names = list(NEEDS)[:attacks]
    cells = [*BASE, *itertools.chain(*(controls(name) for name in names)), attacked("mine", names[0], 0.7, 0.004)]
    cells += [attacked("mine", name) for name in names[1:]]
    assert told(*cells).outcome == outcome


@pytest.mark.slow
def test_attacks_that_were_not_judged_are_not_counted() -> None:
    names = list(NEEDS)
    cells = [*BASE, *itertools.chain(*(controls(name) for name in names)), attacked("mine", names[0], 0.7, 0.004)]
    cells.append(attacked("mine", names[1], status="failed", reason="out of memory"))
    cells.append(attacked("mine", names[2], p=None))
    cells.append(attacked("mine", f"{names[0]} (iterations=75)", 0.7, of=names[0]))  # a check is no further attempt
    assert told(*cells).outcome == "leaks"


# --- it resists --------------------------------------------------------------------------------------------------


def test_clearly_less_than_without_protection_and_nothing_above_the_null_resists_these_attacks() -> None:
    cells = [*BASE, *controls(), *controls("direct")]
    cells += [attacked("mine", "inversion", 0.1), attacked("mine", "direct", 0.12)]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack) == ("resists", "direct")  # the worst case, too
    assert verdict.index is not None
    assert verdict.index.value == pytest.approx(0.02 / 0.9)
    for attack in ("inversion .00 [", "direct .02 ["):
        assert attack in verdict.reason
    assert verdict.reason.count("at 1,500 gradient steps, 40 queries and 2.5 s") == 2
    assert "Others may do better" in verdict.reason


def test_one_attack_that_was_never_tried_elsewhere_proves_nothing_and_one_that_was_does() -> None:
    """Of two valid attacks both must say so: what can't be compared is not clear."""
    clear = [*BASE, *controls(), attacked("mine", "inversion", 0.1)]
    assert told(*clear).outcome == "resists"
    assert told(*clear, attacked("mine", "direct", 0.1)).outcome == "inconclusive"


# --- nothing can be said -----------------------------------------------------------------------------------------


def test_no_attack_that_works_anywhere_is_inconclusive_and_not_robust() -> None:
    verdict = told(*BASE, *controls(han=(0.1, FAILS)), attacked("mine", "inversion", 0.1))
    assert (verdict.outcome, verdict.attack, verdict.index) == ("inconclusive", "", None)
    assert verdict.reason.startswith("no valid attack: inversion: invalid (G1: not better than chance: ")
    assert "unprotected han2020, p = 0.5000" in verdict.reason


def test_pictures_of_an_untrained_network_make_an_attack_invalid_even_where_it_succeeds() -> None:
    cells = [*BASE, *controls(random=(0.5, WORKS)), attacked("mine", "inversion", 0.9, WORKS)]
    found = row_of(concluded(cells), "mine")
    assert (found.leaks, found.validity) == (False, "invalid")
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack) == ("inconclusive", "")
    assert "G2: better than chance: judge accuracy 0.50 on the untrained network, p = 0.0001" in verdict.reason


def test_an_optimiser_that_failed_shows_no_protection() -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", 0.1, FAILS, 0.4)]
    assert row_of(concluded(cells), "mine").validity == "optimisation failure"
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack) == ("inconclusive", "")
    assert "inversion: optimisation failure (G3: " in verdict.reason
    assert "0.40" in verdict.reason
    # another attack that did reach its target and found nothing does
    assert told(*cells, *controls("direct"), attacked("mine", "direct", 0.1)).outcome == "resists"


@pytest.mark.parametrize("gate", ["G4", "G5"])
def test_masked_gradients_are_no_protection(gate: str) -> None:
    """Less effort, or less access, does better: what stops the attack is not what the network lost."""
    weak = [round(share - 0.5, 1) for share in HIGH]
    cells = [*BASE, *controls(), attacked("mine", "inversion", weak)]
    if gate == "G4":
        cells.append(attacked("mine", "inversion (iterations=75)", HIGH, of="inversion"))
    else:
        cells += [*controls("search"), attacked("mine", "search", HIGH, 0.02)]
    found = row_of(concluded(cells), "mine")
    assert (found.validity, found.leaks) == ("gradient masking suspected", False)
    assert found.reason.startswith(f"{gate}: ")
    assert "judge accuracy 0.70" in found.reason and "judge accuracy 0.20" in found.reason
    verdict = told(*cells)
    assert verdict.outcome == "inconclusive"
    if gate == "G4":
        assert "no valid attack: inversion: gradient masking suspected (G4: " in verdict.reason
    # nor where another attack finds nothing
    verdict = told(*cells, *controls("direct"), attacked("mine", "direct", [s + 0.01 for s in weak]))
    assert verdict.outcome == "inconclusive"
    assert "gradient masking" in verdict.reason


def test_neither_above_the_null_nor_clearly_below_the_unprotected_network_is_inconclusive() -> None:
    """Few images: the interval of the protected network reaches that of the unprotected one."""
    few = {"images": 1, "p": 0.02}
    cells = [*BASE, *controls(), attacked("mine", "inversion", [1.0, 1.0, 1.0, 1.0, *[0.0] * 6], **few)]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack) == ("inconclusive", "inversion")
    assert verdict.reason.startswith("neither above the null nor clearly below the unprotected network")
    assert verdict.index is not None
    assert f"inversion {index_line(verdict.index)}" in verdict.reason


@pytest.mark.parametrize(("share", "p"), [(0.5, 0.02), (0.3, 0.011)])
def test_less_than_without_protection_and_still_above_the_null_does_not_resist(share: float, p: float) -> None:
    """Too unsure for a leak is not sure enough for the opposite."""
    cells = [*BASE, *controls(), attacked("mine", "inversion", share, p)]
    own, other = (headline(row_of(concluded(cells), name)) for name in ("mine", "han2020"))
    assert own.low is not None and own.high is not None and other.low is not None
    assert own.low > 0 and own.high < other.low
    assert told(*cells).outcome == "inconclusive"


def test_a_defence_that_nothing_attacked_has_no_verdict() -> None:
    assert concluded([*BASE, *controls()]).verdicts == []


@pytest.mark.parametrize("status", ["failed", "not-applicable"])
def test_where_nothing_was_judged_nothing_can_be_said(status: Status) -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", status=status, reason="mine")]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack, verdict.index) == ("inconclusive", "", None)
    assert verdict.reason == "no attack on it gave images that could be judged"


CONSTANT, ZERO = "constant network: it gives every image the same answer", "zero gradients: of all 40 images"


def silent(label: str, attack: str, reason: str = ZERO, **where: Any) -> CellRecord:
    """An attack that the network gave no signal."""
    return attacked(label, attack, status="no-signal", reason=reason, **where)


@pytest.mark.slow
def test_a_defence_that_leaves_an_attack_without_a_signal_never_resists() -> None:
    cells = [*BASE, *controls(), *controls("direct"), attacked("mine", "inversion", 0.1)]
    assert told(*cells).outcome == "resists"
    verdict = told(*cells, silent("mine", "direct"))
    assert (verdict.outcome, verdict.attack) == ("inconclusive", "inversion")  # the worst of those that are valid
    assert verdict.reason == f"gives direct no signal: {ZERO}"
    # neither does one network of three
    seeds = [cell.model_copy(update={"seed": seed}) for cell in cells for seed in range(3)]
    assert told(*seeds).outcome == "resists"
    assert told(*seeds[:-1], silent("mine", "inversion", seed=2)).outcome == "inconclusive"


def test_what_leaks_leaks_whatever_gives_no_signal() -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", 0.7, WORKS), silent("mine", "direct")]
    assert (told(*cells).outcome, told(*cells).attack) == ("leaks", "inversion")


def test_every_attack_without_a_signal_is_named_with_its_reason() -> None:
    cells = [silent("mine", "direct"), silent("mine", "inversion", CONSTANT), silent("mine", "search", CONSTANT)]
    cells += [silent("mine", "direct", seed=1)]
    verdict = told(*BASE, *cells)
    assert (verdict.outcome, verdict.attack, verdict.index) == ("inconclusive", "", None)
    assert verdict.reason == (f"gives direct no signal: {ZERO}; gives inversion, search no signal: {CONSTANT}")


def test_a_check_or_another_network_without_a_signal_is_nothing_against_a_defence() -> None:
    cells = [*BASE, *controls()[:2], attacked("mine", "inversion", 0.1)]
    cells += [silent("random", "inversion", CONSTANT), row("other"), silent("other", "inversion")]
    cells += [silent("mine", "inversion (iterations=75)", of="inversion")]
    assert told(*cells).outcome == "resists"
    assert told(*cells, of="other").outcome == "inconclusive"


def test_a_grid_without_controls_never_says_that_anything_resists() -> None:
    alone = [*anchors(), row("mine")]
    verdict = told(*alone, attacked("mine", "inversion", 0.1))
    assert verdict.outcome == "inconclusive"
    assert [gate.passed for gate in row_of(concluded([*alone, attacked("mine", "inversion")]), "mine").gates] == [
        *(None, None, True, None, None)
    ]
    assert told(*alone, attacked("mine", "inversion", 0.7, WORKS)).outcome == "leaks"


def test_without_anchors_there_is_no_index_and_nothing_resists() -> None:
    """An interrupted run, or anchors that failed: that images tell their classes is known all the same."""
    cells = [*rows("mine"), *controls()]
    verdict = told(*cells, attacked("mine", "inversion", 0.1))
    assert verdict.outcome == "inconclusive"
    assert verdict.index is not None and verdict.index.value is None
    assert "without a scale" in verdict.reason
    assert told(*cells, attacked("mine", "inversion", 0.7, WORKS)).outcome == "leaks"
