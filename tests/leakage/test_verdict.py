"""Verdicts: what a grid of cells written by hand says of a defence, and every way in which it says nothing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from by_hand import cell

from leakbench.leakage.inversion.verdict import Evidence, conclude, headline, shown
from leakbench.records import AttackRow, CellRecord, Index, Status, Verdict

NEEDS = {"inversion": "WEIGHTS", "direct": "WEIGHTS", "search": "SCORES", "guess": "LABELS"}
CONTROLS = {"ann": None, "han2020": 8, "random": 8}
WORKS, FAILS = 0.0001, 0.5
"""p-values on either side of every level"""
HIGH = [0.6, 0.7, 0.8, 0.7, 0.6, 0.8, 0.7, 0.9, 0.7, 0.5]


def anchors(noise: float = 0.1, real: float = 1.0, **where: Any) -> list[CellRecord]:
    """Noise and real images, and a fresh draw of each."""
    return [
        cell("", name, {"judge_accuracy": share, "kes": share}, control=True, of=of, **where)
        for anchor, share in (("noise", noise), ("real", real))
        for name, of in ((anchor, ""), (f"{anchor} (fresh draw)", anchor))
    ]


def row(label: str, timesteps: int | None = 8, **where: Any) -> CellRecord:
    """A defence's own cell."""
    name = label.partition("[")[0]
    fixed: dict[str, Any] = {"defense_name": name, "control": name in CONTROLS, "timesteps": timesteps}
    return cell(label, "", overall={"accuracy": 0.9}, **(fixed | where))


def attacked(
    label: str, attack: str, share: Any = 0.1, p: float | None = FAILS, confidence: float = 0.99, **where: Any
) -> CellRecord:
    """An attack on it, of whose images the judges name such a share right."""
    name = label.partition("[")[0]
    overall = {"p_value": p, "victim_confidence": confidence, "gradient_steps": 1500.0, "queries": 40.0, "seconds": 2.5}
    known = {metric: value for metric, value in overall.items() if value is not None}
    fixed: dict[str, Any] = {"defense_name": name, "control": name in CONTROLS}
    return cell(label, attack, {"judge_accuracy": share}, known, **(fixed | where))


def controls(
    attack: str = "inversion", han: Any = (0.8, WORKS), random: Any = (0.1, FAILS), **where: Any
) -> list[CellRecord]:
    """An attack on the controls: it works on what protects nothing, and draws nothing out of what knows nothing."""
    return [
        attacked("ann", attack, 0.8, WORKS, **where),
        attacked("han2020", attack, *han, **where),
        attacked("random", attack, *random, **where),
    ]


def rows(*labels: str, **where: Any) -> list[CellRecord]:
    return [
        *(row(name, steps, **where) for name, steps in CONTROLS.items()),
        *(row(label, **where) for label in labels),
    ]


BASE = [*anchors(), *rows("mine")]


def told(*cells: CellRecord, of: str = "mine") -> Verdict:
    (verdict,) = [verdict for verdict in conclude(cells, NEEDS).verdicts if verdict.defense == of]
    assert verdict.reason and len(verdict.reason.splitlines()) == 1
    return verdict


def row_of(evidence: Evidence, defense: str, attack: str = "inversion") -> AttackRow:
    (found,) = [one for one in evidence.rows if (one.defense, one.attack) == (defense, attack)]
    return found


# --- it leaks ----------------------------------------------------------------------------------------------------


def test_what_is_recognised_above_its_null_leaks() -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", 0.7, WORKS)]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack) == ("leaks", "inversion")
    assert verdict.index is not None
    assert verdict.index.value == pytest.approx((0.7 - 0.1) / (1.0 - 0.1))
    for word in (f"inversion draws pictures of its classes out of it: index {shown(verdict.index)}", "p = 0.0001",
                 "1 of 1 attacks do", "1,500 gradient steps, 40 queries and 2.5 s", "Another attack may"):  # fmt: skip
        assert word in verdict.reason
    found = row_of(conclude(cells, NEEDS), "mine")
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
    evidence = conclude(cells, NEEDS)
    found = row_of(evidence, "mine")
    assert [one.name for one in found.gates if one.passed is False] == [gate]
    assert (found.leaks, found.validity) == (True, "valid")
    assert told(*cells).outcome == "leaks"


def test_the_worst_case_is_the_highest_index() -> None:
    cells = [*BASE]
    for attack, share in (("inversion", 0.5), ("direct", 0.8), ("search", 0.6), ("guess", 0.1)):
        cells += [*controls(attack), attacked("mine", attack, share, WORKS if share > 0.1 else FAILS)]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack) == ("leaks", "direct")
    assert "3 of 4 attacks do" in verdict.reason
    assert verdict.index == headline(row_of(conclude(cells, NEEDS), "mine", "direct"))


def test_significance_alone_is_no_leak_where_nothing_is_above_the_null() -> None:
    """Recognised, and no better than what the same attack draws out of an untrained network."""
    cells = [*BASE, *controls(random=(0.6, FAILS)), attacked("mine", "inversion", 0.6, WORKS)]
    found = row_of(conclude(cells, NEEDS), "mine")
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
    found = row_of(conclude(cells, NEEDS), "mine")
    assert (headline(found).value, found.p) == (pytest.approx(0.08 / 0.98), WORKS)
    assert not found.leaks
    cells[-1] = attacked("mine", "inversion", 0.11, WORKS)
    assert row_of(conclude(cells, NEEDS), "mine").leaks


def test_an_attack_at_chance_neither_works_nor_draws_from_nothing_whatever_its_p() -> None:
    """G1 does not pass by p alone, and G2 does not fail by it."""
    weak = [*BASE, *controls(han=(0.1, 0.002), random=(0.1, 0.0006))]
    cells = [*weak, attacked("mine", "inversion", 0.1)]
    assert row_of(conclude(cells, NEEDS), "mine").validity == "invalid"
    assert "G1: not better than chance: p = 0.0020, but judge accuracy 0.10" in told(*cells).reason
    assert told(*weak, attacked("mine", "inversion", 0.7, WORKS)).outcome == "leaks"


@pytest.mark.parametrize(("attacks", "outcome"), [(1, "leaks"), (2, "leaks"), (3, "inconclusive"), (4, "inconclusive")])
def test_the_more_attacks_are_tried_the_surer_one_must_be(attacks: int, outcome: str) -> None:
    """.004 is below .01 / 2 and not below .01 / 3."""
    names = list(NEEDS)[:attacks]
    cells = [*BASE, *itertools.chain(*(controls(name) for name in names)), attacked("mine", names[0], 0.7, 0.004)]
    cells += [attacked("mine", name) for name in names[1:]]
    assert told(*cells).outcome == outcome


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
    found = row_of(conclude(cells, NEEDS), "mine")
    assert (found.leaks, found.validity) == (False, "invalid")
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack) == ("inconclusive", "")
    assert "G2: better than chance: judge accuracy 0.50 on the untrained network, p = 0.0001" in verdict.reason


def test_an_optimiser_that_failed_shows_no_protection() -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", 0.1, FAILS, 0.4)]
    assert row_of(conclude(cells, NEEDS), "mine").validity == "optimisation failure"
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
    found = row_of(conclude(cells, NEEDS), "mine")
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
    assert f"inversion {shown(verdict.index)}" in verdict.reason


@pytest.mark.parametrize(("share", "p"), [(0.5, 0.02), (0.3, 0.011)])
def test_less_than_without_protection_and_still_above_the_null_does_not_resist(share: float, p: float) -> None:
    """Too unsure for a leak is not sure enough for the opposite."""
    cells = [*BASE, *controls(), attacked("mine", "inversion", share, p)]
    own, other = (headline(row_of(conclude(cells, NEEDS), name)) for name in ("mine", "han2020"))
    assert own.low is not None and own.high is not None and other.low is not None
    assert own.low > 0 and own.high < other.low
    assert told(*cells).outcome == "inconclusive"


def test_a_defence_that_nothing_attacked_has_no_verdict() -> None:
    assert conclude([*BASE, *controls()], NEEDS).verdicts == []


@pytest.mark.parametrize("status", ["failed", "not-applicable"])
def test_where_nothing_was_judged_nothing_can_be_said(status: Status) -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", status=status, reason="mine")]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack, verdict.index) == ("inconclusive", "", None)
    assert verdict.reason == "no attack on it gave images that could be judged"


CONSTANT, ZERO = "constant network: it gives every image the same answer", "zero gradients: of all 40 images"


def silent(label: str, attack: str, reason: str = ZERO, **where: Any) -> CellRecord:
    """An attack that the network gave nothing to go by."""
    return attacked(label, attack, status="no-signal", reason=reason, **where)


def test_a_defence_that_leaves_an_attack_without_a_signal_never_resists() -> None:
    cells = [*BASE, *controls(), *controls("direct"), attacked("mine", "inversion", 0.1)]
    assert told(*cells).outcome == "resists"
    verdict = told(*cells, silent("mine", "direct"))
    assert (verdict.outcome, verdict.attack) == ("inconclusive", "inversion")  # the worst of those that are valid
    assert verdict.reason == f"gives direct nothing to go by: {ZERO}"
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
    assert verdict.reason == (
        f"gives direct nothing to go by: {ZERO}; gives inversion, search nothing to go by: {CONSTANT}"
    )


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
    assert [gate.passed for gate in row_of(conclude([*alone, attacked("mine", "inversion")], NEEDS), "mine").gates] == [
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


# --- rows --------------------------------------------------------------------------------------------------------


def test_controls_have_rows_and_no_verdict() -> None:
    cells = [*anchors(), *rows("mine", "shuffled"), *controls()]
    cells += [attacked("mine", "inversion", 0.7, WORKS), attacked("shuffled", "inversion", 0.1)]
    evidence = conclude(cells, NEEDS)
    assert [(one.defense, one.control) for one in evidence.rows] == [
        ("ann", True),
        ("han2020", True),
        ("random", True),
        ("mine", False),
        ("shuffled", False),
    ]
    assert [verdict.defense for verdict in evidence.verdicts] == ["mine", "shuffled"]
    assert [one.leaks for one in evidence.rows] == [True, True, False, True, False]
    assert headline(row_of(evidence, "random")).null == "noise"  # it is not its own null


def test_a_row_is_judged_against_its_own_attack_on_the_controls() -> None:
    """One attack may work elsewhere and another not."""
    cells = [*BASE, *controls(), *controls("direct", han=(0.1, FAILS), random=(0.6, WORKS))]
    cells += [attacked("mine", "inversion", 0.1), attacked("mine", "direct", 0.1)]
    evidence = conclude(cells, NEEDS)
    assert row_of(evidence, "mine").validity == "valid"
    assert row_of(evidence, "mine", "direct").validity == "invalid"
    assert told(*cells).outcome == "resists"  # by the one that is valid


def test_the_ann_takes_the_place_of_a_conversion_that_is_not_there() -> None:
    cells = [*anchors(), row("ann", None), row("random"), row("mine")]
    cells += [attacked("ann", "inversion", 0.8, WORKS), attacked("random", "inversion"), attacked("mine", "inversion")]
    evidence = conclude(cells, NEEDS)
    assert "unprotected ann" in row_of(evidence, "mine").gates[0].reason
    assert evidence.verdicts[0].outcome == "resists"


def test_checks_at_half_the_effort_are_no_rows() -> None:
    check = attacked("mine", "inversion (iterations=75)", 0.6, WORKS, of="inversion")
    evidence = conclude([*BASE, *controls(), attacked("mine", "inversion", 0.7, WORKS), check], NEEDS)
    assert [one.attack for one in evidence.rows] == ["inversion"] * 4
    assert row_of(evidence, "mine").gates[3].passed is True
    assert "(inversion (iterations=75))" in row_of(evidence, "mine").gates[3].reason
    assert row_of(evidence, "ann").gates[3].passed is None


def test_seeds_count_together() -> None:
    """Three networks, none of which is sure alone; a cell that failed is left out."""
    cells = [cell for seed in range(3) for cell in (*anchors(seed=seed), *rows("mine", seed=seed))]
    for seed in range(3):
        cells += [*controls(seed=seed), attacked("mine", "inversion", HIGH, 0.02, seed=seed)]
    assert told(*cells).outcome == "leaks"
    found = row_of(conclude(cells, NEEDS), "mine")
    assert found.p is not None and found.p < 0.001
    assert headline(found).n == 30
    alone = [cell for cell in cells if cell.seed == 0]
    assert told(*alone).outcome == "inconclusive"
    broken = [
        cell.model_copy(update={"status": "failed"})
        if (cell.defense, cell.attack, cell.seed) == ("mine", "inversion", 1)
        else cell
        for cell in cells
    ]
    assert headline(row_of(conclude(broken, NEEDS), "mine")).n == 20


def test_an_attack_whose_access_is_not_known_is_taken_to_hold_the_weights() -> None:
    weak = [round(share - 0.5, 1) for share in HIGH]
    cells = [*BASE, *controls("search"), *controls("strange"), attacked("mine", "search", HIGH, 0.02)]
    cells.append(attacked("mine", "strange", weak))
    assert row_of(conclude(cells, NEEDS), "mine", "strange").validity == "gradient masking suspected"


# --- grids of several things -------------------------------------------------------------------------------------


def test_data_sets_and_models_are_apart() -> None:
    """The same names everywhere, another outcome at each place."""
    places = list(itertools.product(("digits", "mnist"), ("vgg4", "vgg5")))
    shares = dict(zip(places, ((0.7, WORKS), (0.1, FAILS), (0.1, FAILS), (0.6, WORKS)), strict=True))
    cells = []
    for dataset, model in places:
        where: dict[str, Any] = {"dataset": dataset, "model": model}
        works = (dataset, model) != ("mnist", "vgg4")
        cells += [*anchors(**where), *rows("mine", **where)]
        cells += controls(han=(0.8, WORKS) if works else (0.1, FAILS), **where)
        cells.append(attacked("mine", "inversion", *shares[dataset, model], **where))
    cells = cells[::2] + cells[1::2]  # in no order
    evidence = conclude(cells, NEEDS)
    assert {(v.dataset, v.model): v.outcome for v in evidence.verdicts} == {
        ("digits", "vgg4"): "leaks",
        ("digits", "vgg5"): "resists",
        ("mnist", "vgg4"): "inconclusive",
        ("mnist", "vgg5"): "leaks",
    }
    assert len(evidence.verdicts) == 4
    assert len(evidence.rows) == 16
    assert {(scale.dataset, scale.model) for scale in evidence.scales} == set(places)


def test_the_control_is_the_one_at_the_row_s_own_time_steps() -> None:
    """At four steps the attack works nowhere, at eight it does: the same result is nothing there, and evidence here."""
    cells = [*anchors(), row("ann", None)]
    for steps, han in ((4, (0.1, FAILS)), (8, (0.8, WORKS))):
        cells += [row(f"{name}[T={steps}]", steps) for name in ("han2020", "random", "mine")]
        cells += [attacked(f"{name}[T={steps}]", "inversion") for name in ("random", "mine")]
        cells.append(attacked(f"han2020[T={steps}]", "inversion", *han))
    cells.append(attacked("ann", "inversion", 0.8, WORKS))
    evidence = conclude(cells, NEEDS)
    for steps, passed in ((4, False), (8, True)):
        gate = row_of(evidence, f"mine[T={steps}]").gates[0]
        assert gate.passed is passed
        assert f"unprotected han2020[T={steps}]" in gate.reason
    assert {v.defense: v.outcome for v in evidence.verdicts} == {"mine[T=4]": "inconclusive", "mine[T=8]": "resists"}
    # the ANN has no time steps: any conversion will do
    assert "han2020[T=" in row_of(evidence, "ann").gates[0].reason


def test_the_untrained_network_is_the_one_at_the_row_s_own_time_steps() -> None:
    cells = [*anchors(), row("ann", None), attacked("ann", "inversion", 0.8, WORKS)]
    for steps, random in ((4, (0.6, WORKS)), (8, (0.1, FAILS))):
        cells += [row(f"{name}[T={steps}]", steps) for name in ("han2020", "random", "mine")]
        cells += [attacked(f"{name}[T={steps}]", "inversion", 0.8, WORKS) for name in ("han2020", "mine")]
        cells.append(attacked(f"random[T={steps}]", "inversion", *random))
    evidence = conclude(cells, NEEDS)
    assert {v.defense: v.outcome for v in evidence.verdicts} == {"mine[T=4]": "inconclusive", "mine[T=8]": "leaks"}
    assert headline(row_of(evidence, "mine[T=4]")).value == pytest.approx((0.8 - 0.6) / (1 - 0.6))
    assert headline(row_of(evidence, "mine[T=8]")).value == pytest.approx((0.8 - 0.1) / (1 - 0.1))


# --- scales ------------------------------------------------------------------------------------------------------


def test_a_scale_has_its_ends_and_the_fresh_draws_on_it() -> None:
    cells = anchors(0.1, 0.9)
    cells[1] = cell("", "noise (fresh draw)", {"judge_accuracy": 0.14, "kes": 0.1}, control=True, of="noise")
    evidence = conclude(cells, NEEDS)
    assert [scale.metric for scale in evidence.scales] == ["judge_accuracy", "kes"]
    scale = evidence.scales[0]
    assert (scale.noise.value, scale.real.value) == (pytest.approx(0.1), pytest.approx(0.9))
    assert scale.fresh_noise.value == pytest.approx(0.04 / 0.8)
    assert scale.fresh_real.value == pytest.approx(1)
    assert (scale.fresh_noise.null, scale.fresh_real.null) == ("noise", "noise")
    assert evidence.rows == evidence.verdicts == []


def test_a_scale_over_seeds_is_their_mean() -> None:
    cells = [one for seed, real in enumerate((0.8, 0.9, 1.0)) for one in anchors(0.1, real, seed=seed)]
    scale = conclude(cells, NEEDS).scales[0]
    assert (scale.real.value, scale.real.n) == (pytest.approx(0.9), 30)
    assert scale.real.low is not None and scale.real.high is not None
    assert scale.real.low < 0.9 < scale.real.high
    assert scale.noise.low is not None and scale.noise.high is not None
    assert 0 < scale.noise.low < 0.1 < scale.noise.high  # three times the same, of ten images a class


@pytest.mark.parametrize("missing", ["noise", "real"])
def test_half_a_scale_is_none(missing: str) -> None:
    assert conclude([one for one in anchors() if one.attack != missing], NEEDS).scales == []


def test_nothing_gives_nothing() -> None:
    assert conclude([], NEEDS) == Evidence([], [], [])


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.71, 0.61, 0.79, ".71 [.61, .79]"),
        (0.0, 0.0, 0.052, ".00 [.00, .05]"),
        (1.0, 0.994, 1.0, "1.00 [.99, 1.00]"),
        (0.996, 0.0, 1.0, "1.00 [.00, 1.00]"),
        (0.5, None, None, ".50"),
        (None, None, None, "without a scale"),
    ],
)
def test_an_index_is_shown_in_few_letters(
    value: float | None, low: float | None, high: float | None, text: str
) -> None:
    assert shown(Index(metric="judge_accuracy", value=value, low=low, high=high)) == text
