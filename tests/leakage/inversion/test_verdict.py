"""Verdicts: when a defence leaks, when it resists, and every way in which nothing can be said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from by_hand import cell, voted
from grids_by_hand import (
    AUTO,
    BASE,
    FAILS,
    HIGH,
    OTHERS,
    QUOTED,
    STUDENT,
    WORKS,
    anchors,
    attacked,
    concluded,
    controls,
    resisting,
    row,
    row_of,
    rows,
    study,
    told,
)

from leakbench.leakage.inversion.gates import AGREEMENT
from leakbench.leakage.inversion.resistance import nothing_known
from leakbench.leakage.inversion.verdict_text import headline
from leakbench.records import CellRecord, Verdict, Votes

HALF = [0.7] * 5 + [0.0] * 5
"""five of ten classes are drawn"""
NOTHING = voted(0.0)


def nulls(*attacks: str, count: int = 6, votes: Votes = NOTHING) -> list[CellRecord]:
    """The attacks on networks that know nothing."""
    return [
        attacked(f"random {number}", attack, 0.0, control=True, of=attack, votes=votes)
        for attack in attacks
        for number in range(count)
    ]


# --- it leaks ----------------------------------------------------------------------------------------------------


def test_a_network_whose_classes_are_drawn_leaks() -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", 0.7, WORKS)]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack, verdict.networks) == ("leaks", "inversion", 1)
    assert verdict.index is not None
    assert verdict.index.value == pytest.approx((0.7 - 0.1) / (1.0 - 0.1))
    for word in ("some classes leak, and which is not known", "1 of 1 attacks show it alone", "inversion the most",
                 "index .67 at 1,500 gradient steps an image, 40 queries and 2.5 s"):  # fmt: skip
        assert word in verdict.reason
    # one network names no class
    assert (verdict.named, verdict.classes) == ([], list(range(10)))
    assert verdict.settle == "--seeds 3"
    found = row_of(concluded(cells), "mine")
    assert (found.leaks, found.validity, found.control) == (True, "valid", False)
    assert found.p is not None and found.p <= 0.01
    assert (found.gradient_steps, found.queries, found.seconds) == (1500, 40, 2.5)


def test_three_of_ten_classes_on_one_network_are_a_leak_and_two_are_not() -> None:
    for drawn, outcome in ((3, "leaks"), (2, "inconclusive")):
        share = [0.9] * drawn + [0.0] * (10 - drawn)
        assert told(*BASE, *controls(), attacked("mine", "inversion", share, WORKS)).outcome == outcome


def test_two_classes_drawn_from_four_networks_are_named() -> None:
    cells = study(*BASE, *controls(), attacked("mine", "inversion", [0.0] * 7 + [0.9, 0.0, 0.8], FAILS))
    verdict = told(*cells, *nulls("inversion"))
    assert (verdict.outcome, verdict.named, verdict.networks) == ("leaks", [7, 9], 4)
    assert verdict.undecided == [7, 9]
    assert "2 of 10 classes leak significantly" in verdict.reason
    assert verdict.settle == ""
    # without networks that know nothing, that some class leaks is all that can be said
    verdict = told(*cells)
    assert (verdict.outcome, verdict.named, verdict.settle) == ("leaks", [], "--null-networks 6")
    assert any("null networks" in note for note in verdict.notes)


def test_a_named_class_that_networks_that_know_nothing_show_as_well_gets_a_note() -> None:
    shares = [0.9, *[0.0] * 8, 0.9]
    cells = study(*BASE, *controls(), attacked("mine", "inversion", shares, FAILS))
    for votes, noted in ((NOTHING, False), (voted([*shares[:9], 0.0]), True)):
        verdict = told(*cells, *nulls("inversion", count=20, votes=votes))
        assert verdict.named == [0, 9]
        assert verdict.doubtful == ([0] if noted else [])


def test_networks_that_know_less_than_a_class_leak_none() -> None:
    """One of the classes may be like what is drawn of other data, the same in all networks: a coincidence."""
    drawn = [*controls(random=(0.0, FAILS)), attacked("mine", "inversion", [0.0, 0.9] + [0.0] * 8, FAILS)]

    def verdict(**known: float) -> Verdict:
        mine = cell("mine", "", overall={"ann_accuracy": 0.98, **known}, defense_name="mine", timesteps=8)
        return told(*study(*anchors(noise=0.0), *rows(), mine, *drawn), *nulls("inversion"))

    ignorant = verdict(accuracy=0.15, reconverted_accuracy=0.16)
    assert (ignorant.outcome, ignorant.named) == ("inconclusive", [])
    assert "its networks know no class (accuracy 0.16, one known class would make 0.20)" in ignorant.reason
    assert not any(threat.named for threat in ignorant.threats)
    assert verdict(accuracy=0.21).outcome == "leaks"
    # too few steps to answer anything, and everything in the weights
    assert verdict(accuracy=0.1, reconverted_accuracy=0.95).named == [1]
    assert verdict().outcome == "leaks"  # not measured: nothing is known


def test_evaluation_models_below_their_floor_name_no_class() -> None:
    drawn = [*controls(random=(0.0, FAILS)), attacked("mine", "inversion", [0.0, 0.9] + [0.0] * 8, FAILS)]

    def verdict(real: float) -> Verdict:
        return told(*study(*anchors(noise=0.0, real=real), *rows(), *drawn), *nulls("inversion"))

    weak, able = verdict(0.6), verdict(0.9)
    assert "below their floor of 0.73" in weak.reason
    for found, outcome, named in ((weak, "inconclusive", []), (able, "leaks", [1])):
        assert (found.outcome, found.named) == (outcome, named)
        assert [threat.named for threat in found.threats if threat.index] == [named]
    weak_row = row_of(
        concluded([*anchors(real=0.6), *rows(), *controls(), attacked("mine", "inversion", HIGH)]), "mine"
    )
    assert not weak_row.leaks and "below their floor of 0.73" in weak_row.reason


def test_where_few_of_many_classes_were_attacked_one_known_class_makes_little_accuracy() -> None:
    mine = cell("mine", "", overall={"ann_accuracy": 0.6, "accuracy": 0.08}, defense_name="mine", timesteps=8)
    drawn = [*controls(random=(0.0, FAILS)), attacked("mine", "inversion", [0.0, 0.9] + [0.0] * 8, FAILS)]
    cells = study(*anchors(noise=0.0), *rows(), mine, *drawn)
    of_100 = [
        one.model_copy(update={"votes": one.votes.model_copy(update={"among": 100})}) if one.votes else one
        for one in cells
    ]
    found = told(*of_100, *nulls("inversion"))
    assert (found.outcome, found.named, found.among) == ("leaks", [1], 100)
    assert "1 of 10 attacked classes (of 100) leaks significantly" in found.reason


def test_one_network_leaks_some_of_the_attacked_classes() -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", 0.7, WORKS)]
    found = told(
        *(
            one.model_copy(update={"votes": one.votes.model_copy(update={"among": 10, "known": 100})})
            if one.votes
            else one
            for one in cells
        )
    )
    assert (found.outcome, found.networks, found.among) == ("leaks", 1, 100)
    assert "some of 10 attacked classes (of 100) leak, and which is not known" in found.reason


@pytest.mark.parametrize(
    ("classes", "accuracy", "known"), [(2, 0.7, False), (2, 0.8, True), (10, 0.19, False), (100, 0.019, False)]
)
def test_what_one_known_class_makes_of_an_accuracy(classes: int, accuracy: float, known: bool) -> None:
    own = [cell("mine", "", overall={"accuracy": accuracy, "ann_accuracy": 0.98})]
    assert (nothing_known(own, classes) is None) == known


@pytest.mark.slow
def test_more_attacks_do_not_hide_what_one_of_them_shows() -> None:
    others = ("direct", "search", "guess", *(f"another {number}" for number in range(8)))
    cells = [*BASE, *controls(), attacked("mine", "inversion", HALF, WORKS)]
    for name in others:
        cells += [*controls(name), attacked("mine", name, 0.0)]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack) == ("leaks", "inversion")
    assert "1 of 12 attacks show it alone" in verdict.reason


def test_attacks_that_show_different_classes_count_together() -> None:
    """Two classes by one attack and two by another: neither is enough on one network, both are."""
    first, second = [0.9, 0.9] + [0.0] * 8, [0.0] * 8 + [0.9, 0.9]
    one = [*BASE, *controls(), attacked("mine", "inversion", first)]
    both = study(*one, *controls("direct"), attacked("mine", "direct", second), seeds=2)
    assert told(*one).outcome == "inconclusive"
    assert told(*both).outcome == "leaks"


def test_an_attack_that_works_on_this_very_network_needs_no_other_to_prove_itself() -> None:
    """G1 asks whether an attack works at all: it does, here."""
    verdict = told(*BASE, *controls(han=(0.1, FAILS)), attacked("mine", "inversion", 0.7, WORKS))
    assert (verdict.outcome, verdict.attack) == ("leaks", "inversion")


@pytest.mark.slow
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
    assert gate in [one.name for one in found.gates if one.passed is False]
    assert (found.leaks, found.validity) == (True, "valid")
    assert told(*cells).outcome == "leaks"


def test_the_worst_case_is_the_highest_index_with_an_interval_for_having_been_picked() -> None:
    cells = [*BASE]
    for attack, share in (("inversion", 0.5), ("direct", 0.8), ("search", 0.6), ("guess", 0.1)):
        cells += [*controls(attack), attacked("mine", attack, share, WORKS if share > 0.1 else FAILS)]
    verdict = told(*cells)
    own = headline(row_of(concluded(cells), "mine", "direct"))
    assert (verdict.outcome, verdict.attack) == ("leaks", "direct")
    assert "3 of 4 attacks show it alone" in verdict.reason
    assert verdict.index is not None and own.low is not None and verdict.index.low is not None
    assert (verdict.index.value, verdict.index.high) == (own.value, own.high)
    assert verdict.index.low < own.low


def test_votes_are_no_leak_where_nothing_is_above_the_null() -> None:
    """Recognised, and no better than what the same attack draws out of an untrained network."""
    cells = [*BASE, *controls(random=(0.6, FAILS)), attacked("mine", "inversion", 0.6, WORKS)]
    found = row_of(concluded(cells), "mine")
    assert (headline(found).value, headline(found).low, headline(found).null) == (pytest.approx(0), 0, "random")
    assert not found.leaks
    assert told(*cells).outcome != "leaks"


def test_a_named_class_leaks_though_the_mean_over_all_is_no_higher_than_the_null() -> None:
    """The null is one class in ten on each class, the network's one class of ten on all of its images."""
    shares = [1.0] + [0.0] * 9
    cells = study(*BASE, *controls(random=(0.1, FAILS)), attacked("mine", "inversion", shares, FAILS))
    named = told(*cells, *nulls("inversion", count=20))
    assert (named.outcome, named.named) == ("leaks", [0])
    assert named.index is not None and named.index.value == pytest.approx(0)
    # networks that know nothing show that class as often: it may be no one's
    for count in (6, 20):
        shown = told(*cells, *nulls("inversion", count=count, votes=voted(shares)))
        assert shown.outcome == "inconclusive" and "no better than an untrained network's" in shown.reason
        assert shown.named == [] and not any(threat.named for threat in shown.threats)
    # of six that show nothing it is known as well
    assert told(*cells, *nulls("inversion")).named == [0]


@pytest.mark.parametrize("count", [6, 20])
@pytest.mark.parametrize("last", [0.1, 0.2])
def test_an_attack_that_shows_a_class_of_whatever_network_makes_no_leak_of_what_resists(
    count: int, last: float
) -> None:
    """It hands over one stored picture, and for the other classes what is recognised by chance, here a little more."""
    stored = [1.0] + [0.1] * 9
    everywhere = [attacked(who, "stamp", stored, FAILS) for who in ("ann", "han2020", "random")]
    cells = study(*resisting(), *everywhere, attacked("mine", "stamp", [*stored[:9], last], FAILS))
    shown = nulls("stamp", count=count, votes=voted(stored)) + nulls(*QUOTED)
    assert told(*study(*resisting()), *nulls(*QUOTED)).outcome == "resists"
    verdict = told(*cells, *shown)
    assert (verdict.outcome, verdict.named) == ("inconclusive", [])
    assert not row_of(concluded([*cells, *shown]), "mine", "stamp").leaks


@pytest.mark.parametrize("more", [0.1, 0.11])
def test_no_attack_that_shows_a_class_of_whatever_network_hides_a_leak(more: float) -> None:
    """Classes are drawn that differ from network to network, so that none is named."""
    everywhere = nulls("stamp", votes=voted([0.0] * 9 + [1.0]))
    cells = study(*BASE, *controls("stamp", random=([0.1] * 9 + [1.0], FAILS)),
                  attacked("mine", "stamp", [more] * 9 + [1.0], FAILS))  # fmt: skip
    for seed in range(4):
        shares = [0.9 if k in (2 * seed, 2 * seed + 1) else 0.1 for k in range(10)]
        each = [one for name in QUOTED for one in (*controls(name), attacked("mine", name, shares, WORKS))]
        cells += [one.model_copy(update={"seed": seed}) for one in each]
    verdict = told(*cells, *everywhere, *nulls(*QUOTED))
    assert (verdict.outcome, verdict.named) == ("leaks", [])
    assert "some classes leak, and which is not known" in verdict.reason


@pytest.mark.parametrize("half", [6, 20])
def test_a_class_that_half_of_the_null_networks_show_is_no_leak(half: int) -> None:
    stored = [1.0] + [0.1] * 9
    everywhere = [attacked(who, "stamp", stored, FAILS) for who in ("ann", "han2020", "random", "mine")]
    shown = nulls("stamp", count=half, votes=voted(stored))
    shown = [one.model_copy(update={"votes": NOTHING}) if at % 2 else one for at, one in enumerate(shown)]
    verdict = told(*study(*resisting(), *everywhere), *shown, *nulls(*QUOTED))
    assert (verdict.outcome, verdict.named) == ("inconclusive", [])


def test_a_class_that_an_attack_shows_of_whatever_network_is_doubtful_beside_others() -> None:
    stored, drawn = [*[0.0] * 9, 1.0], [0.0, 1.0, 1.0, *[0.0] * 7]
    cells = [*BASE, *controls(), *controls("stamp"), attacked("mine", "stamp", stored, FAILS)]
    of_both = study(*cells, attacked("mine", "inversion", drawn, WORKS))
    for count in (6, 20):
        verdict = told(*of_both, *nulls("inversion"), *nulls("stamp", count=count, votes=voted(stored)))
        assert (verdict.outcome, verdict.named, verdict.doubtful) == ("leaks", [1, 2, 9], [9])


def test_three_networks_of_which_a_class_is_shown_and_six_of_which_none_is_leak() -> None:
    cells = study(
        *BASE, *controls(random=(0.1, FAILS)), attacked("mine", "inversion", [1.0] + [0.0] * 9, FAILS), seeds=3
    )
    verdict = told(*cells, *nulls("inversion"))
    assert (verdict.outcome, verdict.named, verdict.doubtful) == ("leaks", [0], [])
    assert row_of(concluded([*cells, *nulls("inversion")]), "mine").leaks


def test_without_a_scale_nothing_is_better_than_a_null() -> None:
    without = [one for one in BASE if one.attack != "noise"]
    verdict = told(*without, attacked("mine", "inversion", 0.7, WORKS))
    assert verdict.outcome == "inconclusive"
    assert "whether better than an untrained network's is not known: no value of this metric" in verdict.reason


def test_another_attack_that_shows_hardly_more_than_its_null_makes_no_leak() -> None:
    same = [1.0] * 3 + [0.05] * 7
    of_random = [*controls(random=(0.0, FAILS))[:2], attacked("random", "inversion", same, FAILS)]
    cells = [*BASE, *of_random, attacked("mine", "inversion", same, WORKS)]
    assert told(*cells).outcome == "inconclusive"
    hardly = [*controls("direct"), attacked("mine", "direct", [0.2] + [0.1] * 9, FAILS)]
    verdict = told(*cells, *hardly)
    assert verdict.index is not None and verdict.index.value and verdict.attack == "direct"
    assert (verdict.outcome, verdict.p is not None and verdict.p <= 0.01) == ("inconclusive", True)


def test_what_an_attack_draws_out_of_untrained_networks_too_is_no_leak() -> None:
    cells = [*BASE, *controls(random=(0.5, WORKS)), attacked("mine", "inversion", 0.9, WORKS)]
    found = row_of(concluded(cells), "mine")
    assert (found.leaks, found.validity) == (False, "invalid")
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack) == ("inconclusive", "")
    # another attack, which does not, is evidence all the same
    both = [*cells, *controls("direct"), attacked("mine", "direct", 0.7, WORKS)]
    assert (told(*both).outcome, told(*both).attack) == ("leaks", "direct")


# --- what evaluation models accept -------------------------------------------------------------------------------


def seen(open_set: float, **where: Any) -> dict[str, Any]:
    """Fields of a cell of whose images such a share is accepted and right, and .8 right."""
    values = attacked("mine", "inversion", 0.8).values
    opened = values[0].model_copy(update={"metric": "open_set_accuracy", "value": open_set})
    return {"values": [*values, opened], "votes": Votes(classes=list(range(10)), accepted=[], forced=ALL), **where}


ALL = [(c, c) for c in range(10)]


@pytest.mark.parametrize(("accepted", "outcome"), [(0.7, "inconclusive"), (0.6, "leaks")])
def test_rejected_images_do_not_count_where_images_of_unprotected_networks_are_accepted(
    accepted: float, outcome: str
) -> None:
    """.64 is 80 % of the .8 that are right: of fewer, the evaluation models reject the style of attacks."""
    cells = [*BASE, *(one.model_copy(update=seen(accepted)) for one in controls()[:2]), controls()[2]]
    cells.append(attacked("mine", "inversion", 0.8, WORKS).model_copy(update=seen(0.0)))
    assert told(*cells).outcome == outcome


# --- it resists --------------------------------------------------------------------------------------------------


def networks(*attacks: str, seeds: int = 4) -> list[CellRecord]:
    """What resists: so many networks, and six that know nothing."""
    return [*study(*resisting(*attacks), seeds=seeds), *nulls(*QUOTED)]


def test_four_networks_from_which_the_ensemble_and_others_draw_nothing_resist() -> None:
    verdict = told(*networks("inversion"))
    assert (verdict.outcome, verdict.missing, verdict.undecided, verdict.named) == ("resists", [], [], [])
    assert verdict.detectable == 1
    assert "no class is drawn from 80% of networks like these 4" in verdict.reason
    assert "Others may do better" in verdict.reason
    assert verdict.reason.count("at 1,500 gradient steps an image, 40 queries and 2.5 s") == len(QUOTED) + 1
    assert verdict.index is not None and verdict.index.high is not None and verdict.index.high > 0


def without_students(cells: list[CellRecord]) -> list[CellRecord]:
    return [one.model_copy(update={"values": [v for v in one.values if v.metric != AGREEMENT]}) for one in cells]


def ending(cells: list[CellRecord], status: str, reason: str) -> list[CellRecord]:
    """One attack on one network has another ending."""
    *_, last = (at for at, cell in enumerate(cells) if cell.defense == "mine" and cell.attack)
    other = cells[last].model_copy(update={"status": status, "reason": reason, "votes": None})
    return [*cells[:last], other, *cells[last + 1 :]]


def one_failed(cells: list[CellRecord]) -> list[CellRecord]:
    return ending(cells, "failed", "out of memory")


def one_silent(cells: list[CellRecord]) -> list[CellRecord]:
    return ending(cells, "no-signal", "zero gradients")


def all_silent_once(cells: list[CellRecord]) -> list[CellRecord]:
    """Each on one network: the others tested something."""
    return [*(one for one in cells if one.seed), *all_silent([one for one in cells if not one.seed])]


def all_silent(cells: list[CellRecord]) -> list[CellRecord]:
    other = {"status": "no-signal", "reason": "zero gradients", "votes": None}
    return [one.model_copy(update=other) if one.defense == "mine" and one.attack else one for one in cells]


def not_accurate(cells: list[CellRecord]) -> list[CellRecord]:
    return [
        row("mine", accuracy=0.87, seed=one.seed) if one.defense == "mine" and not one.attack else one for one in cells
    ]


def one_does_not_work(cells: list[CellRecord]) -> list[CellRecord]:
    """On average they are as right as their ANNs."""

    def accuracies(seed: int) -> dict[str, float]:
        return {"accuracy": 0.8 if seed else 0.35, "ann_accuracy": 0.7}

    return [
        cell("mine", "", overall=accuracies(one.seed), defense_name="mine", timesteps=8, seed=one.seed)
        if one.defense == "mine" and not one.attack
        else one
        for one in cells
    ]


def without_the_ensemble(cells: list[CellRecord]) -> list[CellRecord]:
    return [one for one in cells if one.attack not in QUOTED]


def without_one_of_the_ensemble(cells: list[CellRecord]) -> list[CellRecord]:
    return [one for one in cells if one.attack != OTHERS[0]]


def ensemble_fails_elsewhere(cells: list[CellRecord]) -> list[CellRecord]:
    bad = {"ann": 0.1, "han2020": 0.1}
    return [
        attacked(one.defense, AUTO, bad[one.defense], seed=one.seed)
        if one.attack == AUTO and one.defense in bad
        else one
        for one in cells
    ]


def one_class_drawn_twice(cells: list[CellRecord]) -> list[CellRecord]:
    """Two of four votes: too few for a leak and too many to be excluded."""
    votes = voted([0.9] + [0.0] * 9)
    return [
        one.model_copy(update={"votes": votes})
        if (one.defense, one.attack) == ("mine", AUTO) and one.seed in (1, 2)
        else one
        for one in cells
    ]


def without_anchors(cells: list[CellRecord]) -> list[CellRecord]:
    return [one for one in cells if one.defense]


def three(cells: list[CellRecord]) -> list[CellRecord]:
    return [one for one in cells if one.seed < 3]


def one(cells: list[CellRecord]) -> list[CellRecord]:
    return [one for one in cells if one.seed < 1]


def without_controls(cells: list[CellRecord]) -> list[CellRecord]:
    return [one for one in cells if not one.control or not one.defense]


def without_nulls(cells: list[CellRecord]) -> list[CellRecord]:
    return [one for one in cells if not one.of or not one.control or not one.defense]


def half_its_effort_draws_a_class(cells: list[CellRecord]) -> list[CellRecord]:
    drawn = [0.9] + [0.0] * 9
    return [*cells, *study(attacked("mine", "inversion (iterations=75)", drawn, of="inversion"))]


def half_its_effort_draws_a_class_of_one_of_three(cells: list[CellRecord]) -> list[CellRecord]:
    """One attack's check failed on a network: its others are held to what three can exclude, and not four."""
    nothing = [0.0] * 10

    def half(attack: str, drawn: list[float], seed: int) -> CellRecord:
        return attacked("mine", f"{attack} (iterations=75)", drawn, of=attack, seed=seed)

    drawn = [half("inversion", nothing if seed else [0.9, *nothing[1:]], seed) for seed in range(3)]
    return [*cells, *drawn, *(half(AUTO, nothing, seed) for seed in range(4))]


def few_images_of_every_class(cells: list[CellRecord]) -> list[CellRecord]:
    """Below half of the images of a class, none has a vote."""
    here = ("mine", "inversion")
    few = {seed: attacked(*here, 0.4, WORKS, seed=seed) for seed in range(4)}
    return [few[one.seed] if (one.defense, one.attack) == here else one for one in cells]


def ensemble_does_not_apply(cells: list[CellRecord]) -> list[CellRecord]:
    nothing = {"status": "not-applicable", "reason": "no gradients", "votes": None, "values": [], "classes": []}
    return [
        one.model_copy(update=nothing) if (one.defense, one.attack, one.seed) == ("mine", AUTO, 2) else one
        for one in cells
    ]


def accuracy_of_one_network(cells: list[CellRecord]) -> list[CellRecord]:
    return [one for one in cells if one.defense != "mine" or one.attack or not one.seed]


def of_one_ann(cells: list[CellRecord]) -> list[CellRecord]:
    """As --ann gives every seed."""
    return [
        one.model_copy(update={"artifacts": {"ann": "given"}}) if one.defense == "mine" and not one.attack else one
        for one in cells
    ]


def copies(cells: list[CellRecord]) -> list[CellRecord]:
    """As a defence that deploys the same stored weights whatever ANN it is given."""
    return [
        one.model_copy(update={"weights": "the same"}) if one.defense == "mine" and not one.attack else one
        for one in cells
    ]


def one_class_is_drawn_nowhere(cells: list[CellRecord]) -> list[CellRecord]:
    """Of faces most are recognised by no evaluation model, whatever network the recommended attacks draw them from."""

    def without(votes: Votes) -> Votes:
        return votes.model_copy(update={key: [pair for pair in getattr(votes, key) if pair != (3, 3)]
                                        for key in ("accepted", "forced")})  # fmt: skip

    return [
        one.model_copy(update={"votes": without(one.votes)})
        if one.votes and one.defense != "mine" and one.attack_name in QUOTED  # `inversion` draws it: no help
        else one
        for one in cells
    ]


def half_of_the_classes(cells: list[CellRecord]) -> list[CellRecord]:
    return [
        one.model_copy(update={"votes": one.votes.model_copy(update={"among": 20})}) if one.votes else one
        for one in cells
    ]


LACKING: dict[Callable[[list[CellRecord]], list[CellRecord]], tuple[str, str]] = {
    without_students: ("decoys suspected", ""),
    half_of_the_classes: ("10 of 20 classes were not attacked", "--classes 20"),
    one_failed: ("failed: out of memory", ""),
    one_silent: ("found no signal: zero gradients", ""),
    all_silent_once: (f"{AUTO}, {OTHERS[0]}", ""),
    all_silent: ("every attack found no signal: zero gradients", ""),
    not_accurate: ("accuracy is 0.03 below", ""),
    one_does_not_work: ("its network of seed 0 does not work: right on 0.35 of test images, its ANN on 0.70", ""),
    without_the_ensemble: (f"{', '.join(QUOTED)} were not run on it", "--attack auto"),
    without_one_of_the_ensemble: (f"{OTHERS[0]} was not run on it", "--attack auto"),
    ensemble_fails_elsewhere: (f"{AUTO}: invalid (G1: not better than chance", ""),
    one_class_is_drawn_nowhere: ("1 of 10 classes are not drawn from unprotected networks either", ""),
    one_class_drawn_twice: ("1 of 10 classes are not excluded", "--seeds 8"),
    without_anchors: ("no real images", ""),
    three: ("3 networks", "--seeds 4"),
    one: ("one network: no class can be named, nothing can resist", "--seeds 4"),
    without_controls: (f"{AUTO}, G1: no unprotected network was attacked", ""),
    without_nulls: ("4 networks: 6 are needed where no network that knows nothing was attacked", "--null-networks 6"),
    half_its_effort_draws_a_class_of_one_of_three: ("1 of 10 classes are not excluded", "--seeds 8"),
    half_its_effort_draws_a_class: ("1 of 10 classes are not excluded", "--seeds 8"),
    few_images_of_every_class: ("inversion: images are recognised more often than by chance", ""),
    ensemble_does_not_apply: (f"{AUTO} did not work on every network", ""),
    accuracy_of_one_network: ("accuracy was not measured on every network", ""),
    of_one_ann: ("one network", "--seeds 4"),
    copies: ("one network", "--seeds 4"),
}


@pytest.mark.slow
@pytest.mark.parametrize("lacking", LACKING, ids=lambda lacking: lacking.__name__)
def test_nothing_resists_that_lacks_a_condition(lacking: Callable[[list[CellRecord]], list[CellRecord]]) -> None:
    verdict = told(*lacking(networks("inversion")))
    words, settle = LACKING[lacking]
    assert verdict.outcome == "inconclusive"
    assert words in " ".join(verdict.missing)
    assert words in verdict.reason
    assert settle in verdict.settle


@pytest.mark.slow
def test_six_networks_are_needed_where_nonsense_is_accepted_often() -> None:
    often = Votes(classes=list(range(10)), accepted=[(0, 1), (5, 2)], forced=[(0, 1), (5, 2)])
    for seeds, outcome in ((4, "inconclusive"), (6, "resists")):
        verdict = told(*study(*resisting(), seeds=seeds), *nulls(*QUOTED, votes=often))
        assert verdict.outcome == outcome
        assert ("--seeds 6" in verdict.settle) == (outcome == "inconclusive")


@pytest.mark.slow
def test_two_classes_take_seven_networks() -> None:
    def cut(one: CellRecord) -> CellRecord:
        votes = one.votes.model_copy(update={"classes": [0, 1]}) if one.votes else None
        return one.model_copy(update={"votes": votes})

    verdict = told(*(cut(one) for one in networks()))
    assert (verdict.outcome, verdict.detectable) == ("inconclusive", None)
    assert "--seeds 7" in verdict.settle
    assert told(*(cut(one) for one in networks(seeds=7))).outcome == "resists"


# --- honeypots ---------------------------------------------------------------------------------------------------


def test_a_victim_that_is_certain_of_what_nobody_recognises_is_suspected_of_decoys() -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", 0.1)]
    found = row_of(concluded(cells), "mine")
    assert found.validity == "decoys suspected"
    assert found.reason.startswith("G7: the victim's mean confidence is 0.99")
    assert "decoys suspected" in told(*cells).reason
    # not where it is unsure of them, nor where the attack satisfies evaluation models nowhere
    unsure = [*BASE, *controls(), attacked("mine", "inversion", 0.1, confidence=0.8)]
    assert row_of(concluded(unsure), "mine").validity == "optimisation failure"
    nowhere = [*BASE, *controls(han=(0.1, FAILS)), attacked("mine", "inversion", 0.1)]
    assert row_of(concluded(nowhere), "mine").validity == "invalid"


@pytest.mark.parametrize(("shown", "validity"), [(0.22, "decoys suspected"), (0.28, "valid")])
def test_what_is_seen_by_chance_is_no_half_of_what_is_seen_elsewhere(shown: float, validity: str) -> None:
    """Of ten classes .1 is chance, so that of .4 on the unprotected network .25 is half."""
    cells = [*BASE, *controls(han=(0.4, WORKS)), attacked("mine", "inversion", shown)]
    assert row_of(concluded(cells), "mine").validity == validity


def test_a_leak_beside_suspected_decoys_may_be_larger_and_is_not_compared() -> None:
    cells = [*BASE, *controls(), *controls("direct"), attacked("mine", "inversion", 0.1)]
    verdict = told(*cells, attacked("mine", "direct", HALF, WORKS))
    assert (verdict.outcome, verdict.comparable) == ("leaks", False)
    assert "how much is open, as decoys are suspected by inversion" in verdict.reason
    assert told(*BASE, *controls(), attacked("mine", "inversion", HIGH, WORKS)).comparable


@pytest.mark.parametrize(
    ("student", "agreement", "cleared"), [(STUDENT, 0.95, True), (STUDENT, 0.94, False), ("x", 1.0, False)]
)
def test_the_suspicion_is_cleared_by_a_student_that_agrees(student: str, agreement: float, cleared: bool) -> None:
    """One of the recommended attacks: what another attack hands over clears nothing."""
    drawn = [attacked("mine", "inversion", 0.1), attacked("mine", student, 0.1, agreement=agreement)]
    works = row_of(concluded([*BASE, *controls(), *controls(student), *drawn]), "mine")
    assert works.validity == ("valid" if cleared else "decoys suspected")
    # and not where it draws nothing from what protects nothing
    elsewhere = concluded([*BASE, *controls(), *controls(student, han=(0.1, FAILS)), *drawn])
    assert row_of(elsewhere, "mine").validity == "decoys suspected"


# --- nothing can be said -----------------------------------------------------------------------------------------


def test_no_attack_that_works_anywhere_is_inconclusive_and_not_robust() -> None:
    cells = study(*BASE, *controls(AUTO, han=(0.1, FAILS)), attacked("mine", AUTO, 0.1))
    verdict = told(*[one for one in cells if one.defense != "ann"])
    assert verdict.outcome == "inconclusive"
    assert "invalid (G1: not better than chance (p must be below 0.01): " in verdict.reason


def test_an_optimiser_that_failed_shows_no_protection() -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", 0.1, FAILS, 0.4)]
    assert row_of(concluded(cells), "mine").validity == "optimisation failure"
    verdict = told(*cells)
    assert verdict.outcome == "inconclusive"
    assert "inversion: optimisation failure (G3: " in verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["G4", "G5"])
def test_masked_gradients_are_no_protection(gate: str) -> None:
    """Less effort, or less access, does better: what stops the attack is not what the network lost."""
    weak = [round(max(0.0, share - 0.5), 1) for share in HIGH]
    cells = [*resisting(), *controls(), attacked("mine", "inversion", weak)]
    if gate == "G4":
        cells.append(attacked("mine", "inversion (iterations=75)", HIGH, of="inversion"))
    else:
        cells += [*controls("search"), attacked("mine", "search", HIGH, 0.02, votes=NOTHING)]
    found = row_of(concluded(cells), "mine")
    assert (found.validity, found.leaks) == ("gradient masking suspected", False)
    assert found.reason.startswith(f"{gate}: ")
    verdict = told(*study(*cells))
    assert verdict.outcome == "inconclusive"
    assert "gradient masking" in verdict.reason


def test_a_defence_that_nothing_attacked_has_no_verdict() -> None:
    assert concluded([*BASE, *controls()]).verdicts == []


@pytest.mark.parametrize("status", ["failed", "not-applicable"])
def test_where_nothing_was_judged_nothing_can_be_said(status: Any) -> None:
    cells = [*BASE, *controls(), attacked("mine", "inversion", status=status, reason="mine", votes=None)]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack, verdict.index) == ("inconclusive", "", None)
    assert "no attack on it gave images that could be judged" in verdict.reason


def test_where_nothing_could_be_built_the_reason_is_the_defence_s() -> None:
    why: dict[str, Any] = {"status": "not-applicable", "reason": "it has no norms"}
    cells = [*BASE, *controls(), row("mine", **why), attacked("mine", "inversion", votes=None, **why)]
    assert "there was nothing to attack: not applicable: it has no norms" in told(*cells).reason


def test_what_leaks_leaks_whatever_gives_no_signal() -> None:
    silent = attacked("mine", "direct", status="no-signal", reason="zero gradients", votes=None)
    cells = [*BASE, *controls(), attacked("mine", "inversion", 0.7, WORKS), silent]
    assert (told(*cells).outcome, told(*cells).attack) == ("leaks", "inversion")


def test_a_check_or_another_network_without_a_signal_is_nothing_against_a_defence() -> None:
    silent = {"status": "no-signal", "reason": "zero gradients", "votes": None}
    cells = [*resisting(), attacked("random", "inversion", **silent), row("other"), attacked("other", AUTO, **silent)]
    cells.append(attacked("mine", f"{AUTO} (iterations=75)", of=AUTO, **silent))
    assert told(*study(*cells), *nulls(*QUOTED)).outcome == "resists"
    assert told(*study(*cells), *nulls(*QUOTED), of="other").outcome == "inconclusive"


def test_without_anchors_nothing_is_known_of_the_evaluation_models() -> None:
    """An interrupted run, or anchors that failed."""
    verdict = told(*rows("mine"), *controls(), attacked("mine", "inversion", 0.7, WORKS))
    assert verdict.outcome == "inconclusive"
    assert verdict.index is not None and verdict.index.value is None
    assert "no real images were measured" in verdict.reason


def test_a_grid_without_controls_can_show_a_leak() -> None:
    alone = [*anchors(), row("mine"), attacked("mine", "inversion", 0.7, WORKS)]
    assert told(*alone).outcome == "leaks"
    assert [gate.passed for gate in row_of(concluded(alone), "mine").gates] == [None, None, True, None, None, None]
