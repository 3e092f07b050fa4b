"""Rows and verdicts on membership, from cells written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from by_hand import cell, declared
from scipy.stats import combine_pvalues, mannwhitneyu, norm, sem, t

from leakbench import registry
from leakbench.leakage.membership.kind import Membership
from leakbench.leakage.membership.verdict import conclude, recommended_of
from leakbench.metrics.membership import auc
from leakbench.records import AttackRow, CellRecord, Value, Verdict, fields

ATTACK = "loss_threshold"


def scored(
    defense: str,
    area: float,
    p: float,
    control: bool = False,
    seed: int = 0,
    of: str = "",
    tail: tuple[float, float] | None = None,
    halves: float | None = None,
    attack: str = ATTACK,
) -> CellRecord:
    """An attack's cell with an AUC and its p; maybe with the members found at 1 % FPR and the p of that, and with the
    AUC of members against members."""
    overall: dict[str, float | tuple[float, float, float]] = {
        "membership_auc": (area, max(0.0, area - 0.03), min(1.0, area + 0.03)),
        "membership_p": p,
    }
    if tail is not None:
        overall |= {"membership_tpr_at_1pct_fpr": (tail[0], tail[0], tail[0]), "membership_tail_p": tail[1]}
    if halves is not None:
        overall["members_against_members_auc"] = (halves, halves - 0.04, halves + 0.04)
    return cell(
        defense, attack, overall=overall, leakage="membership", defense_name=defense, control=control, seed=seed, of=of
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
    gates = [("M1", True), ("M2", True), ("M3", None), ("M5", None)]
    assert [(gate.name, gate.passed) for gate in rows["mine"].gates] == gates
    assert [name for name, _ in gates] == [gate.name for gate in Membership.gates if gate.name != "M4"]
    assert list(verdicts) == ["mine"]  # of controls there is no verdict
    assert (verdicts["mine"].outcome, verdicts["mine"].attack) == ("leaks", ATTACK)
    index = verdicts["mine"].index
    assert index is not None
    assert (index.value, index.low, index.high) == pytest.approx((0.4, 0.34, 0.46))
    assert "AUC 0.700" in verdicts["mine"].reason


def test_the_interval_of_the_worst_case_allows_for_its_choice() -> None:
    controls = [scored(name, area, p, control=True, attack=a) for a in "ab" for name, area, p in (
        ("overfitted", 0.8, 1e-6), ("random", 0.51, 0.4))]  # fmt: skip
    _, verdicts = concluded(*controls, scored("mine", 0.7, 1e-5, attack="a"), scored("mine", 0.69, 1e-5, attack="b"))
    index = verdicts["mine"].index
    assert verdicts["mine"].attack == "a" and index is not None
    wider = norm.isf(0.025 / 2) / norm.isf(0.025)
    assert (index.value, index.low, index.high) == pytest.approx((0.4, 0.4 - 0.06 * wider, 0.46))
    assert "index .40 [.33, .46]; 2 of 2 attacks find members" in verdicts["mine"].reason
    # over seeds by Student's distribution
    areas = {"a": (0.68, 0.7, 0.72), "b": (0.66, 0.69, 0.7)}
    cells = [scored("mine", x, 1e-5, seed=i, attack=a) for a, each in areas.items() for i, x in enumerate(each)]
    _, verdicts = concluded(*controls, *cells)
    index = verdicts["mine"].index
    assert index is not None and index.n == 3
    low = max(2 * (np.mean(x) - t.isf(0.0125, 2) * sem(x)) - 1 for x in areas.values())
    high = max(2 * (np.mean(x) + t.isf(0.025, 2) * sem(x)) - 1 for x in areas.values())
    assert (index.value, index.low, index.high) == pytest.approx((0.4, low, high))
    # an attack with the same number on every network, as one that can't tell images apart, doesn't take it away
    same = [scored("mine", 0.5, 1.0, seed=i, attack="b") for i in range(3)]
    _, verdicts = concluded(*controls, *(cell for cell in cells if cell.attack == "a"), *same)
    with_b = verdicts["mine"].index
    assert with_b is not None and (with_b.low, with_b.high) == pytest.approx((low, high))
    # and where it is the worst its interval is that of one network, as wide as the choice among two makes it
    same = [scored("mine", 0.75, 1e-5, seed=i, attack="a") for i in range(3)]
    _, verdicts = concluded(*controls, *(cell for cell in cells if cell.attack == "b"), *same)
    index = verdicts["mine"].index
    assert verdicts["mine"].attack == "a" and index is not None
    assert (index.value, index.low, index.high) == pytest.approx((0.5, 0.5 - 0.06 * wider, 0.56))


def test_the_worst_case_lies_within_its_interval_where_another_attack_is_higher_and_finds_nothing() -> None:
    controls = [scored(name, area, p, control=True, attack=a) for a in "ab" for name, area, p in (
        ("overfitted", 0.8, 1e-6), ("random", 0.51, 0.4))]  # fmt: skip
    _, verdicts = concluded(*controls, scored("mine", 0.6, 1e-5, attack="a"), scored("mine", 0.8, 0.02, attack="b"))
    index = verdicts["mine"].index
    assert verdicts["mine"].attack == "a" and index is not None
    assert (index.value, index.low, index.high) == pytest.approx((0.2, 0.2, 0.66))


def with_controls(*attacks: str) -> list[CellRecord]:
    known = (("overfitted", 0.8, 1e-6), ("random", 0.51, 0.4))
    return [scored(name, area, p, control=True, attack=attack) for attack in attacks for name, area, p in known]


def test_other_attacks_can_t_hide_what_the_recommended_one_finds() -> None:
    """Half of the level is its own: one more costs as much as fifty."""
    for others, outcome in ((0, "leaks"), (1, "leaks"), (50, "leaks")):
        attacks = ["auto_mia-v2", *(f"other{i}" for i in range(others))]
        cells = [scored("mine", 0.6, 0.0016 if attack == "auto_mia-v2" else 0.5, attack=attack) for attack in attacks]
        _, verdicts = concluded(*with_controls(*attacks), *cells)
        assert verdicts["mine"].outcome == outcome, others
    # of .01 one half, for the three tests of each of two
    attacks = ["auto_mia-v2", "other0", "other1"]
    for p, outcome in ((0.0008, "leaks"), (0.0009, "inconclusive")):
        cells = [scored("mine", 0.6, p if attack == "other1" else 0.5, attack=attack) for attack in attacks]
        assert concluded(*with_controls(*attacks), *cells)[1]["mine"].outcome == outcome


def test_the_recommended_attack_is_the_newest_version_of_those_that_were_tried() -> None:
    assert recommended_of(["lira", "auto_mia-v2", "auto_mia-v1"]) == "auto_mia-v2"  # as in a record of before v3
    assert recommended_of(["auto_mia-v3", "auto_mia-v2"]) == "auto_mia-v3"
    assert recommended_of(["lira", "auto_mia-v99", "auto-v2"]) == ""
    assert registry.newest("attack", "auto_mia") == recommended_of([*registry.entries("attack")])


def test_a_network_that_was_trained_on_a_part_of_the_images_has_no_verdict_without_a_leak() -> None:
    """Most of the images that count as its members it has never seen."""
    alone = cell("mine", defense_name="mine").model_copy(update={"trained_on_part": True})
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, alone, scored("mine", 0.52, 0.3))
    assert rows["mine"].validity == "invalid" and "M4" in [gate.name for gate in rows["mine"].gates]
    assert verdicts["mine"].outcome == "inconclusive" and verdicts["mine"].index is None
    assert "M4: it read a part of the training images alone" in verdicts["mine"].reason
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, alone, scored("mine", 0.7, 1e-6))
    assert (rows["mine"].validity, verdicts["mine"].outcome) == ("valid", "leaks")
    # what it read is known to an attack that asks about it
    attack = "threshold_membership"
    cells = [alone, *with_controls(attack), scored("mine", 0.52, 0.3, attack=attack)]
    assert concluded(*cells)[0]["mine"].validity == "valid"
    # the control is asked about what it read
    control = cell("overfitted", defense_name="overfitted", control=True)
    control = control.model_copy(update={"trained_on_part": True})
    rows, _ = concluded(control, OVERFITTED, UNTRAINED, scored("mine", 0.52, 0.3))
    assert rows["mine"].validity == rows["overfitted"].validity == "valid"


def test_what_would_be_a_leak_alone_is_told() -> None:
    attacks = ["a", "b"]
    cells = [scored("mine", 0.6, p, attack=attack) for attack, p in (("a", 0.003), ("b", 0.5))]
    _, verdicts = concluded(*with_controls(*attacks), *cells)
    assert verdicts["mine"].outcome == "inconclusive"
    assert "Alone a would have found some (p = 0.0030)" in verdicts["mine"].reason
    _, verdicts = concluded(*with_controls("a"), scored("mine", 0.55, 0.004, attack="a"))
    assert "Alone" not in verdicts["mine"].reason
    # alone it would have been invalid by M2
    controls = [one.model_copy(update={"values": [*one.values[:1], Value(metric="membership_p", value=0.002)]})
                if one.defense == "random" else one for one in with_controls(*attacks)]  # fmt: skip
    _, verdicts = concluded(*controls, *cells)
    assert verdicts["mine"].outcome == "inconclusive" and "Alone" not in verdicts["mine"].reason


def test_the_upper_limit_of_the_index_is_that_of_either_sign() -> None:
    """Whoever turns the scores of members that are below chance, if not significantly, has an AUC of .57 [.54, .60]."""
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, scored("mine", 0.43, 0.99))
    index = verdicts["mine"].index
    assert index is not None and verdicts["mine"].outcome == "inconclusive"
    assert (index.value, index.low, index.high) == pytest.approx((0, 0, 0.2))
    assert rows["mine"].indices[0].high == pytest.approx(0.2)


@pytest.mark.parametrize("same", [{"artifacts": {"ann": "given"}}, {"weights": "the same"}])
def test_copies_of_one_network_are_one(same: dict[str, object]) -> None:
    """As --ann gives every seed the same; of controls that take nothing but its shape each is another."""
    areas = (0.69, 0.7, 0.71)
    deployed = [
        cell(name, seed=seed, defense_name=name, **same) for name in ("mine", "overfitted") for seed in range(3)
    ]
    attacks = [scored("mine", area, 1e-5, seed=seed) for seed, area in enumerate(areas)]
    controls = [scored("overfitted", area, 0.02, control=True, seed=seed) for seed, area in enumerate(areas)]
    rows, verdicts = concluded(*deployed, *attacks, *controls, UNTRAINED)
    alone, _ = concluded(OVERFITTED, UNTRAINED, attacks[0])
    assert rows["mine"].indices == alone["mine"].indices and rows["mine"].p == alone["mine"].p
    index = verdicts["mine"].index
    assert index is not None and (index.value, index.low, index.high) == pytest.approx((0.38, 0.32, 0.44))
    assert rows["overfitted"].indices[0].n == (3 if "artifacts" in same else alone["mine"].indices[0].n)


def test_of_copies_the_one_counts_on_which_attacks_worked() -> None:
    """Whatever became of the first seed's cell."""
    deployed = [cell("mine", seed=seed, defense_name="mine", artifacts={"ann": "given"}) for seed in range(3)]
    killed = scored("mine", 0.5, 0.5).model_copy(update={"values": [], "status": "failed", "reason": "killed"})
    found = [scored("mine", 0.7, 1e-5, seed=seed) for seed in (1, 2)]
    rows, verdicts = concluded(*deployed, killed, *found, OVERFITTED, UNTRAINED)
    assert (verdicts["mine"].outcome, rows["mine"].indices[0].n) == ("leaks", found[0].values[0].n)
    # what is trained anew from the shape of one ANN is another network each time
    anew = [one.model_copy(update={"defense_name": "stbp"}) for one in deployed]
    rows, _ = concluded(*anew, *found, OVERFITTED, UNTRAINED)
    assert rows["mine"].indices[0].n == 2


@pytest.mark.parametrize(("area", "p"), [(0.55, 0.02), (0.5, 0.5), (0.4, 0.99), (0.7, 0.01)])
def test_what_is_not_significant_is_inconclusive_and_never_resists(area: float, p: float) -> None:
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, scored("mine", area, p))
    assert not rows["mine"].leaks
    assert verdicts["mine"].outcome == "inconclusive"
    assert "no evidence of privacy" in verdicts["mine"].reason


def test_an_attack_that_finds_nothing_where_all_is_known_by_heart_is_invalid() -> None:
    blind = scored("overfitted", 0.52, 0.2, control=True)
    rows, verdicts = concluded(blind, UNTRAINED, scored("mine", 0.55, 0.02))
    assert (rows["mine"].validity, rows["mine"].leaks) == ("invalid", False)
    assert rows["mine"].reason.startswith("M1: AUC 0.520, p = 0.2000")
    assert verdicts["mine"].outcome == "inconclusive"
    assert "no valid attack" in verdicts["mine"].reason
    # what it does find, it finds: the gate is about what its silence means
    rows, verdicts = concluded(blind, UNTRAINED, scored("mine", 0.7, 1e-5))
    assert (rows["mine"].validity, rows["mine"].leaks, rows["mine"].gates[0].passed) == ("valid", True, False)
    assert verdicts["mine"].outcome == "leaks"


def test_members_that_score_lower_than_others_are_a_leak() -> None:
    """A network that was trained to be less sure of them: whoever knows it turns the sign."""
    seeds = [scored("mine", 0.2, 1 - 1e-6, seed=seed) for seed in range(3)]
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, *seeds)
    assert rows["mine"].reason == "distinguishes members from non-members by lower scores"
    assert rows["mine"].lower_scores and "1 % FPR" not in verdicts["mine"].reason
    assert rows["mine"].p == pytest.approx(3e-6)
    assert verdicts["mine"].outcome == "leaks"
    rows, _ = concluded(OVERFITTED, UNTRAINED, seeds[0])
    index = rows["mine"].indices[0]
    assert (index.value, index.low, index.high) == pytest.approx((0.6, 0.54, 0.66))
    rows, _ = concluded(OVERFITTED, scored("random", 0.2, 1 - 1e-6, control=True), scored("mine", 0.7, 1e-5))
    assert rows["mine"].validity == "invalid" and "M2" in rows["mine"].reason


def test_few_that_score_lower_than_few_others_are_no_leak() -> None:
    """3 below 3: as likely as one in twenty, though 1 less the p of scoring higher is nothing."""
    few = scored("mine", 0.0, 1.0)
    few.values.append(Value(metric="membership_lower_p", value=0.05))
    rows, _ = concluded(OVERFITTED, UNTRAINED, few)
    assert not rows["mine"].leaks


def test_scores_that_are_all_equal_are_no_lower_scores() -> None:
    """Of such a network p is exactly 1, and what is left of 1 nothing."""
    seeds = [(0.5, 1.0), (0.517, 0.08), (0.48, 0.8)]
    silent = [scored("random", area, p, control=True, seed=seed) for seed, (area, p) in enumerate(seeds)]
    rows, _ = concluded(OVERFITTED, *silent, scored("mine", 0.7, 1e-5))
    assert rows["mine"].leaks and not rows["random"].leaks


def test_one_network_that_scores_lower_is_found_among_others() -> None:
    seeds = [scored("mine", area, p, seed=seed) for seed, (area, p) in enumerate([(0.2, 1 - 1e-8), (0.7, 0.01)])]
    rows, _ = concluded(OVERFITTED, UNTRAINED, *seeds)
    assert rows["mine"].reason == "distinguishes members from non-members by lower scores on 1 of 2 networks (seed 0)"


def test_a_control_that_was_made_in_another_way_is_named() -> None:
    other = OVERFITTED.model_copy(update={"defense": "overfitted[epochs=1]"})
    rows, _ = concluded(other, UNTRAINED, scored("mine", 0.7, 1e-5))
    assert rows["mine"].gates[0].reason.endswith("on an overfitted network (overfitted[epochs=1])")
    weaker = scored("unseen", 0.5, 0.5, control=True).model_copy(update={"defense": "unseen[images=1]"})
    rows, _ = concluded(OVERFITTED, UNTRAINED, weaker, scored("mine", 0.7, 1e-5))
    assert rows["mine"].gates[-1].reason.endswith("on a network trained on other images (unseen[images=1])")


def test_the_controls_of_a_row_are_those_of_its_own_t() -> None:
    def at(steps: int, cell: CellRecord) -> CellRecord:
        return cell.model_copy(update={"timesteps": steps, "defense": f"{cell.defense} T={steps}"})

    blind = scored("overfitted", 0.52, 0.2, control=True)
    rows, _ = concluded(
        at(4, blind), at(8, OVERFITTED), at(4, scored("mine", 0.7, 1e-5)), at(8, scored("mine", 0.7, 1e-5))
    )
    assert [rows[f"mine T={steps}"].gates[0].passed for steps in (4, 8)] == [False, True]
    rows, _ = concluded(at(4, blind), at(8, OVERFITTED), scored("no T", 0.7, 1e-5))
    assert rows["no T"].gates[0].passed  # the longest


def test_a_row_without_a_control_at_its_t_takes_the_next_longer_one() -> None:
    def at(steps: int, cell: CellRecord) -> CellRecord:
        return cell.model_copy(update={"timesteps": steps, "defense": f"{cell.defense} T={steps}"})

    blind = scored("overfitted", 0.52, 0.2, control=True)
    mine = [at(steps, scored("mine", 0.7, 1e-5)) for steps in (4, 16, 32, 64)]
    rows, _ = concluded(at(32, blind), at(16, OVERFITTED), *mine)
    gates = [rows[f"mine T={steps}"].gates[0] for steps in (4, 16, 32, 64)]
    assert [gate.passed for gate in gates] == [True, True, False, False]
    assert [" at T = " in gate.reason for gate in gates] == [True, False, False, True]
    assert gates[0].reason.endswith("on an overfitted network at T = 16 (overfitted T=16)")


def test_an_attack_that_finds_members_of_an_untrained_network_is_invalid() -> None:
    rows, _ = concluded(OVERFITTED, scored("random", 0.7, 1e-5, control=True), scored("mine", 0.7, 1e-5))
    assert (rows["mine"].validity, rows["mine"].leaks) == ("invalid", False)
    assert "M2" in rows["mine"].reason


@pytest.mark.parametrize(("area", "p"), [(0.7, 1e-5), (0.3, 1 - 1e-6)])
def test_what_is_found_of_a_network_trained_on_other_images_is_no_membership(area: float, p: float) -> None:
    """Test images of another kind than the training images: the attack finds these everywhere."""
    differs = scored("unseen", area, p, control=True)
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, differs, scored("mine", 0.7, 1e-5))
    assert (rows["mine"].validity, rows["mine"].leaks) == ("invalid", False)
    assert rows["mine"].reason.startswith(f"M5: AUC {area:.3f}")
    assert rows["mine"].reason.endswith("on a network trained on other images")
    assert verdicts["mine"].outcome == "inconclusive"
    alike = scored("unseen", 0.52, 0.3, control=True)
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, alike, scored("mine", 0.7, 1e-5))
    assert rows["mine"].gates[-1].passed and verdicts["mine"].outcome == "leaks"


def test_a_network_trained_on_other_images_that_does_not_work_shows_nothing() -> None:
    def right(defense: str, network: float, ann: float) -> CellRecord:
        overall = {"accuracy": (network, network - 0.03, network + 0.03), "ann_accuracy": (ann, ann - 0.03, ann + 0.03)}
        return cell(defense, overall=overall, defense_name=defense, control=defense == "unseen")

    silent, mine = scored("unseen", 0.5, 0.5, control=True), scored("mine", 0.7, 1e-5)
    for network, ann, passed in ((0.9, 0.95, True), (0.4, 0.95, None), (0.1, 0.1, None)):
        cells = [right("unseen", network, ann), right("mine", 0.9, 0.95)]
        gate = concluded(*cells, OVERFITTED, UNTRAINED, silent, mine)[0]["mine"].gates[-1]
        assert (gate.name, gate.passed) == ("M5", passed)
    assert gate.reason == (
        "the network trained on other images learnt too little: its ANN is right on 0.10 of test images, others on 0.95"
    )
    # what is found on it is found all the same
    differs = scored("unseen", 0.7, 1e-6, control=True)
    assert concluded(*cells, OVERFITTED, UNTRAINED, differs, mine)[0]["mine"].validity == "invalid"


def test_an_attack_on_the_conversion_is_not_asked_about_the_training() -> None:
    same = {"attack": "threshold_membership"}
    known = [
        scored(name, area, p, control=True, **same)
        for name, area, p in [("overfitted", 0.8, 1e-6), ("random", 0.5, 0.5)]
    ]
    rows, verdicts = concluded(*known, scored("mine", 0.7, 1e-5, **same))
    assert [gate.name for gate in rows["mine"].gates] == ["M1", "M2", "M3"]
    assert verdicts["mine"].outcome == "leaks"


def test_without_controls_the_gates_are_open() -> None:
    rows, verdicts = concluded(scored("mine", 0.7, 1e-5))
    assert [gate.passed for gate in rows["mine"].gates] == [None, None, None, None]
    assert verdicts["mine"].outcome == "leaks"


def test_single_images_are_a_leak_where_the_average_is_chance() -> None:
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, scored("mine", 0.5, 0.5, tail=(0.06, 1e-5)))
    assert rows["mine"].leaks
    assert verdicts["mine"].outcome == "leaks"
    assert "finds single members: AUC 0.500" in verdicts["mine"].reason
    assert "6.0 % of members at 1 % FPR" in verdicts["mine"].reason
    assert [index.metric for index in rows["mine"].indices] == ["membership_auc", "membership_tpr_at_1pct_fpr"]
    assert rows["mine"].indices[1].value == pytest.approx(0.05 / 0.99)
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, scored("mine", 0.5, 0.5, tail=(0.03, 0.02)))
    assert not rows["mine"].leaks
    assert verdicts["mine"].outcome == "inconclusive"


def test_what_finds_single_images_of_an_untrained_network_is_invalid_and_of_an_overfitted_one_works() -> None:
    rows, _ = concluded(
        OVERFITTED,
        scored("random", 0.5, 0.5, control=True, tail=(0.2, 1e-6)),
        scored("mine", 0.5, 0.5, tail=(0.2, 1e-6)),
    )
    assert rows["mine"].validity == "invalid" and "M2" in rows["mine"].reason
    rows, _ = concluded(
        scored("overfitted", 0.5, 0.4, control=True, tail=(0.3, 1e-9)), UNTRAINED, scored("mine", 0.5, 0.5)
    )
    assert rows["mine"].gates[0].passed


def test_scores_that_distinguish_members_from_members_are_invalid() -> None:
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, scored("mine", 0.7, 1e-6, halves=0.7))
    assert rows["mine"].validity == "invalid" and "M3: AUC 0.700 of members" in rows["mine"].reason
    assert verdicts["mine"].outcome == "inconclusive"
    rows, _ = concluded(OVERFITTED, UNTRAINED, scored("mine", 0.7, 1e-6, halves=0.65))
    assert rows["mine"].gates[2].passed and rows["mine"].leaks
    # two networks of .65: half the variance
    seeds = [scored("mine", 0.7, 1e-6, halves=0.65, seed=seed) for seed in range(2)]
    rows, _ = concluded(OVERFITTED, UNTRAINED, *seeds)
    assert rows["mine"].gates[2].passed is False


@pytest.mark.parametrize("members", [4, 6, 16])
def test_halves_of_few_members_differ_by_chance_no_more_often_than_is_allowed(members: int) -> None:
    """At a level of .01 in a grid of one row, and Newcombe's interval at the area found is left by .35 to .05."""
    draw, failed = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        found = auc(torch.rand(members, generator=draw, dtype=torch.float64), torch.arange(members) < members // 2)
        halves = Value(metric="members_against_members_auc", **fields(found))
        mine = scored("mine", 0.5, 0.5)
        (row,) = concluded(mine.model_copy(update={"values": [*mine.values, halves]}))[0].values()
        failed += row.gates[2].passed is False
    assert failed <= 12  # binomial: more in one of a thousand such tests


def test_every_test_of_every_attack_counts() -> None:
    """Three tests of one attack: p = .003 is below .01 / 3, and .004 is not."""
    for p, leaks in ((0.003, True), (0.004, False)):
        rows, _ = concluded(OVERFITTED, UNTRAINED, scored("mine", 0.6, p))
        assert rows["mine"].leaks == leaks


def test_every_network_counts_and_checks_do_not() -> None:
    """The smallest p of three networks times three: .001 is below .01 / 3 then, .0012 is not."""
    check = scored("mine", 0.9, 1e-9, of=ATTACK)
    for p, leaks in ((0.001, True), (0.0012, False)):
        seeds = [scored("mine", 0.6, each, seed=seed) for seed, each in enumerate((0.5, p, 0.03))]
        rows, _ = concluded(OVERFITTED, UNTRAINED, *seeds, check)
        assert rows["mine"].leaks == leaks
        assert rows["mine"].p == pytest.approx(3 * p)
        assert rows["mine"].indices[0].value == pytest.approx(0.2)


@pytest.mark.slow
@pytest.mark.long
def test_networks_that_share_images_give_no_false_alarms() -> None:
    """Three networks, the same others, scores that are a matter of the image alone: members are found in 1 %.

    Fisher's method, which takes the networks as independent, finds them in 3.4 %.
    """
    draw = np.random.default_rng(0)
    found, by_fisher = 0, 0
    for _ in range(1000):
        others = draw.normal(size=60)
        p_values = [mannwhitneyu(draw.normal(size=60), others, alternative="greater").pvalue for _ in range(3)]
        seeds = [scored("mine", 0.6, float(p), seed=seed) for seed, p in enumerate(p_values)]
        found += (concluded(OVERFITTED, UNTRAINED, *seeds)[0]["mine"].p or 0) < 0.01
        by_fisher += combine_pvalues(p_values, method="fisher").pvalue < 0.01
    assert found <= 20  # binomial: more in one of a thousand such tests at a level of 1 %
    assert by_fisher > 20


def test_of_many_rows_some_halves_differ_by_chance() -> None:
    """Halves of .7 are 3.4 standard errors from .5: too many in a grid of three rows, and not of two hundred."""
    mine = scored("mine", 0.7, 1e-6, halves=0.7)
    others = [scored(f"other{number}", 0.5, 0.5) for number in range(200)]
    assert concluded(OVERFITTED, UNTRAINED, mine)[0]["mine"].validity == "invalid"
    assert concluded(OVERFITTED, UNTRAINED, mine, *others)[0]["mine"].validity == "valid"


def test_of_many_attacks_on_the_untrained_network_some_find_members_by_chance() -> None:
    other = [scored("random", 0.5, 0.5, control=True, attack=f"a{number}") for number in range(9)]
    silent = scored("random", 0.6, 0.003, control=True)
    mine = scored("mine", 0.7, 1e-6)
    assert concluded(OVERFITTED, silent, mine)[0]["mine"].validity == "invalid"
    many = [scored("mine", 0.5, 0.5, attack=f"a{number}") for number in range(9)]
    (row,) = (one for one in conclude([OVERFITTED, silent, *other, mine, *many], declared()).rows if one.leaks)
    assert (row.defense, row.validity) == ("mine", "valid")


def test_what_is_a_finding_on_a_defence_is_none_of_its_controls() -> None:
    """However many tests of the control there were beside."""
    other = [scored("random", 0.5, 0.5, control=True, attack=f"a{number}") for number in range(9)]
    silent = scored("random", 0.6, 0.002, control=True)
    mine = scored("mine", 0.6, 0.002)
    assert concluded(OVERFITTED, silent, *other, mine)[0]["mine"].validity == "invalid"


def test_of_several_settings_of_a_control_none_is_passed_over() -> None:
    """In whatever order they come: one on which members are found where there are none voids an attack."""

    def other_setting(one: CellRecord) -> CellRecord:
        return one.model_copy(update={"defense": f"{one.defense_name}[encoder=direct]"})

    mine = scored("mine", 0.7, 1e-6)
    flawed = other_setting(scored("random", 0.7, 1e-6, control=True))
    weak = other_setting(scored("overfitted", 0.5, 0.5, control=True))
    for cells in ((UNTRAINED, flawed), (flawed, UNTRAINED)):
        row = concluded(OVERFITTED, *cells, mine)[0]["mine"]
        assert (row.validity, "(random[encoder=direct])" in row.reason) == ("invalid", True)
    for cells in ((OVERFITTED, weak), (weak, OVERFITTED)):
        assert concluded(*cells, UNTRAINED, mine)[0]["mine"].gates[0].passed


def test_a_cell_that_failed_is_no_row() -> None:
    broken = cell("mine", ATTACK, leakage="membership", defense_name="mine", status="failed", reason="no memory")
    silent = [
        cell(
            "mine", "rmia", leakage="membership", defense_name="mine", status="no-signal", reason="constant", seed=seed
        )
        for seed in range(3)
    ]
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, broken, *silent)
    assert "mine" not in rows
    assert verdicts["mine"].outcome == "inconclusive"
    assert verdicts["mine"].reason == "no attack on it gave scores: failed (no memory); no signal (constant)"
    _, verdicts = concluded(OVERFITTED, UNTRAINED, broken, *silent, scored("mine", 0.5, 0.5, seed=1))
    assert "Without scores: loss_threshold (failed, 1), rmia (no signal, 3)." in verdicts["mine"].reason
    declined = [
        one.model_copy(update={"attack": ATTACK, "attack_name": ATTACK, "status": "not-applicable"})
        for one in silent[:2]
    ]
    _, verdicts = concluded(OVERFITTED, UNTRAINED, *declined, scored("mine", 0.5, 0.5, seed=2))
    assert "Without scores: loss_threshold (not applicable, 2)." in verdicts["mine"].reason


def test_what_one_network_of_several_gives_away_is_said_to_be_of_one() -> None:
    """And so is its AUC: that of all of them may be at chance."""
    given = [(0.5, 0.5), (0.47, 0.9), (0.6, 1e-4)]
    seeds = [scored("mine", area, p, seed=seed) for seed, (area, p) in enumerate(given)]
    reason = concluded(OVERFITTED, UNTRAINED, *seeds)[1]["mine"].reason
    assert "distinguishes members from non-members on 1 of 3 networks (seed 2): AUC 0.600 (" in reason
    assert "0.523 on average over all 3" in reason
    many = [scored("mine", 0.7, 1e-9 if seed < 6 else 0.5, seed=seed) for seed in range(8)]
    assert "on 6 of 8 networks: AUC" in concluded(OVERFITTED, UNTRAINED, *many)[1]["mine"].reason
    every = [scored("mine", 0.7, 1e-6, seed=seed) for seed in range(3)]
    assert " networks" not in concluded(OVERFITTED, UNTRAINED, *every)[1]["mine"].reason


def test_of_many_attacks_that_found_nothing_the_number_is_said() -> None:
    names = [f"attack{number}" for number in range(5)]
    controls = [
        scored(of.defense, value, p, control=True, attack=name)
        for name in names
        for of, value, p in ((OVERFITTED, 0.8, 1e-6), (UNTRAINED, 0.51, 0.4))
    ]
    for few, said in ((3, "attack0, attack1, attack2: no membership"), (5, "all 5 attacks: no membership")):
        nothing = [scored("mine", 0.5, 0.5, attack=name) for name in names[:few]]
        _, verdicts = concluded(*controls, *nothing)
        assert verdicts["mine"].reason.startswith(said)


def test_the_interval_over_networks_is_no_narrower_than_that_of_one() -> None:
    """They are asked about the same images in part."""
    rows, _ = concluded(OVERFITTED, UNTRAINED, *(scored("mine", x, 0.5, seed=i) for i, x in enumerate((0.5, 0.501))))
    index = rows["mine"].indices[0]
    assert (index.low, index.high) == pytest.approx((0.0, 2 * 0.5305 - 1))


def test_networks_that_give_members_away_by_higher_and_by_lower_scores_do_not_cancel() -> None:
    """Whoever knows the sign turns it, of each network."""
    mixed = [scored("mine", 0.65 if seed % 2 else 0.35, 1e-9 if seed % 2 else 1.0, seed=seed) for seed in range(4)]
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, *mixed)
    index = verdicts["mine"].index
    assert index is not None and (index.value, index.low) == pytest.approx((0.3, 0.24), abs=0.02)
    assert rows["mine"].indices[0].value == pytest.approx(0.3)
    assert rows["mine"].p is not None and rows["mine"].p < 1e-8
    assert "AUC 0.650 (0.5 is chance, the sign turned where members score lower)" in verdicts["mine"].reason
    # also of one that few others outweigh, and where p is 0
    few = [scored("mine", 0.2, 1.0), *(scored("mine", 0.62, 0.02, seed=seed) for seed in range(1, 5))]
    rows, _ = concluded(OVERFITTED, UNTRAINED, *few)
    assert rows["mine"].indices[0].value == pytest.approx(2 * (0.8 + 4 * 0.62) / 5 - 1) and rows["mine"].p == 0


def test_a_second_network_that_agrees_makes_a_leak_of_many_attacks_no_less_certain() -> None:
    """An interval of one network's images is widened for the choice of the worst case as if its ends were normal."""
    names = [f"a{number}" for number in range(8)]
    controls = [scored(name, area, p, control=True, attack=a) for a in names for name, area, p in (
        ("overfitted", 0.8, 1e-6), ("random", 0.51, 0.4))]  # fmt: skip
    mine = [scored("mine", area, 1e-9, attack=a, seed=seed) for a in names for seed, area in enumerate((0.7, 0.701))]
    index = concluded(*controls, *mine)[1]["mine"].index
    over_networks = 0.401 - 2 * t.isf(0.025 / 8, 1) * sem([0.7, 0.701])
    assert index is not None and index.low == pytest.approx(over_networks) and over_networks > 0.29


def test_how_many_single_members_are_found_is_unknown_among_few_others() -> None:
    few = scored("mine", 0.53, 0.1)
    few = few.model_copy(update={"values": [*few.values, Value(metric="membership_tail_p", value=1e-9, n=80)]})
    rows, verdicts = concluded(OVERFITTED, UNTRAINED, few)
    assert verdicts["mine"].outcome == "leaks"
    assert [(one.metric, one.value) for one in rows["mine"].indices[1:]] == [("membership_tpr_at_1pct_fpr", None)]


def test_an_invalid_attack_beside_a_valid_one_is_named() -> None:
    strong = scored("mine", 0.9, 1e-30, halves=0.75, attack="rmia")
    _, verdicts = concluded(OVERFITTED, UNTRAINED, scored("mine", 0.51, 0.4), strong)
    assert verdicts["mine"].outcome == "inconclusive"
    assert ". Invalid: rmia (M3: AUC 0.750 of members against members)" in verdicts["mine"].reason


def test_gates_without_a_control_are_named() -> None:
    for p, outcome in ((0.4, "inconclusive"), (1e-6, "leaks")):
        verdict = concluded(scored("mine", 0.6, p, halves=0.5))[1]["mine"]
        assert verdict.outcome == outcome
        assert verdict.reason.endswith(". Not checked: M1, M2, M5")
    unseen = scored("unseen", 0.5, 0.5, control=True)
    found = concluded(OVERFITTED, UNTRAINED, unseen, scored("mine", 0.6, 0.4, halves=0.5))[1]["mine"]
    assert "Not checked" not in found.reason


def test_an_attack_that_finds_more_single_members_is_named_beside_the_worst_on_average() -> None:
    controls = [scored(name, area, p, control=True, attack=a) for a in "ab" for name, area, p in (
        ("overfitted", 0.8, 1e-6), ("random", 0.51, 0.4))]  # fmt: skip
    average = scored("mine", 0.6, 1e-9, tail=(0.02, 0.4), attack="a")
    single = scored("mine", 0.55, 1e-9, tail=(0.4, 1e-30), attack="b")
    _, verdicts = concluded(*controls, average, single)
    assert verdicts["mine"].attack == "a"
    assert "2 of 2 attacks find members, b 40.0 % of them at 1 % FPR." in verdicts["mine"].reason


def test_an_attack_on_a_conversion_that_compares_with_test_images_must_find_nothing_on_the_unseen_network() -> None:
    """The record says which it was; of an older one the attack's name does."""
    name = "threshold_membership"
    controls = [scored(one, *given, control=True, attack=name) for one, given in (
        ("overfitted", (0.8, 1e-6)), ("random", (0.5, 0.4)), ("unseen", (0.7, 1e-9)))]  # fmt: skip
    mine = scored("mine", 0.7, 1e-6, attack=name)
    for question, validity in (("training", "invalid"), ("conversion", "valid"), ("", "valid")):
        row = concluded(*controls, mine.model_copy(update={"question": question}))[0]["mine"]
        assert row.validity == validity
    third = scored("mine", 0.5, 0.5, attack="theirs").model_copy(update={"question": "conversion"})
    part = cell("mine", defense_name="mine", trained_on_part=True)
    of_theirs = [one.model_copy(update={"attack": "theirs", "attack_name": "theirs"}) for one in controls[:2]]
    assert concluded(*of_theirs, part, third)[0]["mine"].validity == "valid"
    asked = third.model_copy(update={"question": "training"})
    assert concluded(*of_theirs, part, asked)[0]["mine"].validity == "invalid"


def of_one_ann(*by_seed: CellRecord) -> list[CellRecord]:
    """Attacks on networks of several seeds that are made of one ANN (``--ann``), and these networks."""
    seeds = dict.fromkeys((one.defense, one.seed) for one in by_seed)
    alone = [cell(name, defense_name=name, seed=seed, artifacts={"ann": "given"}) for name, seed in seeds]
    return [*alone, *by_seed]


def test_a_network_of_the_same_ann_whose_members_are_found_is_not_passed_over() -> None:
    """One of them counts, as they are no evidence about others; which one, only the order of seeds says."""
    hidden = of_one_ann(scored("mine", 0.5, 0.5), scored("mine", 0.9, 1e-6, seed=1), scored("mine", 0.5, 0.5, seed=2))
    _, verdicts = concluded(OVERFITTED, UNTRAINED, *hidden)
    told = "Networks of other seeds, with the same ANN or weights, leak by themselves: seed 1 (loss_threshold "
    told += "distinguishes members from non-members, AUC 0.900)"
    assert (verdicts["mine"].outcome, verdicts["mine"].comparable) == ("inconclusive", False)
    assert verdicts["mine"].reason.endswith(f". {told}")
    least = of_one_ann(scored("mine", 0.5, 0.5), scored("mine", 0.9, 0.002, seed=1), scored("mine", 0.5, 0.5, seed=2))
    _, verdicts = concluded(OVERFITTED, UNTRAINED, *least)  # three tests of each of two networks at .01
    assert (verdicts["mine"].comparable, told[:20] in verdicts["mine"].reason) == (True, False)
    other = of_one_ann(scored("mine", 0.5, 0.5), scored("mine", 0.9, 1e-6, seed=1, attack="rmia"))
    assert "seed 1 (rmia distinguishes" in concluded(OVERFITTED, UNTRAINED, *other)[1]["mine"].reason
    finds_all = scored("random", 0.9, 1e-9, control=True, attack="rmia")
    assert concluded(OVERFITTED, UNTRAINED, finds_all, *other)[1]["mine"].comparable
    same = of_one_ann(*(scored("mine", 0.7, 1e-9, seed=seed) for seed in range(2)))
    assert concluded(OVERFITTED, UNTRAINED, *same)[1]["mine"].comparable  # no more than what is shown
    first = of_one_ann(scored("mine", 0.6, 1e-6), scored("mine", 0.9, 1e-6, seed=1))
    _, verdicts = concluded(OVERFITTED, UNTRAINED, *first)
    assert verdicts["mine"].outcome == "leaks" and told in verdicts["mine"].reason
    flawed = scored("random", 0.7, 1e-6, control=True)
    _, verdicts = concluded(OVERFITTED, flawed, *hidden)
    assert (verdicts["mine"].comparable, told in verdicts["mine"].reason) == (True, False)
