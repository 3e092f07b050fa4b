"""How much a defence leaks: what nobody may gain a rank by that hides the rest, and what no further attack may hide."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from by_hand import voted
from grids_by_hand import (
    AUTO,
    BASE,
    FAILS,
    OTHERS,
    QUOTED,
    STUDENT,
    WORKS,
    agreement_of,
    anchors,
    attacked,
    concluded,
    controls,
    resisting,
    row,
    row_of,
    study,
    told,
)

from leakbench.leakage.inversion.class_evidence import FORCED, OPEN_SET
from leakbench.records import CellRecord, ClassScore, Value, Votes

TWO = [0.9, 0.9] + [0.0] * 8
"""two of ten classes are drawn"""
HALF = [1.0] * 5 + [0.0] * 5


def drawn(shares: Any, confidence: float, agreement: float = 0.5, stopped: Collection[str] = ()) -> list[CellRecord]:
    """A grid on four networks of which every recommended attack draws so much, but for those that were stopped."""
    mine = [
        attacked("mine", name, 0.0, FAILS, 0.3)
        if name in stopped
        else attacked("mine", name, shares, WORKS, confidence, agreement=agreement if name == STUDENT else None)
        for name in QUOTED
    ]
    return study(*BASE, *(one for name in QUOTED for one in controls(name)), *mine)


def ended(cells: list[CellRecord], status: str, **where: Any) -> list[CellRecord]:
    """The same cells, but for those of "mine" with these fields, which ended so and left nothing to judge."""
    nothing = {"status": status, "votes": None, "values": [], "classes": []}
    places = {"defense": "mine", **where}.items()
    return [
        one.model_copy(update=nothing) if all(getattr(one, name) == value for name, value in places) else one
        for one in cells
    ]


@pytest.mark.parametrize(
    ("shares", "confidence", "agreement", "compared"),
    [
        (TWO, 0.99, 0.5, False),  # decoys are suspected
        (TWO, 0.11, 0.5, False),  # the same network, its logits times a hundredth
        (TWO, 0.11, 0.97, True),  # no student learnt more, who learns no decoys
        (HALF, 0.11, 0.5, True),  # more than half of what an unprotected network shows
    ],
)
def test_a_small_leak_is_compared_where_it_is_known_to_be_all(
    shares: Any, confidence: float, agreement: float, compared: bool
) -> None:
    verdict = told(*drawn(shares, confidence, agreement))
    assert (verdict.outcome, verdict.comparable) == ("leaks", compared)
    assert ("how much is open, as" in verdict.reason) == (not compared)
    if confidence < 0.9 and not compared:
        shows = f"{verdict.attack} shows 0.08, {AUTO} 0.70 on the unprotected network, above chance"
        assert f"no student excludes decoys: {shows}" in verdict.reason
        (gate,) = [one for one in row_of(concluded(drawn(shares, confidence)), "mine", AUTO).gates if one.name == "G7"]
        assert gate.passed is None


def test_a_leak_that_one_attack_shows_is_not_compared_where_others_were_stopped() -> None:
    """One class given away for certain would buy a rank, else."""
    assert told(*drawn(TWO, 0.99, agreement=0.97)).comparable
    verdict = told(*drawn(TWO, 0.99, agreement=0.97, stopped=set(QUOTED) - {STUDENT}))
    assert (verdict.outcome, verdict.attack, verdict.comparable) == ("leaks", STUDENT, False)
    assert f"{AUTO}: optimisation failure" in verdict.reason


def test_less_than_chance_is_not_clearly_less_than_nothing() -> None:
    """One class of ten is drawn, in fewer images than by chance; one of the attacks draws nothing from any network."""
    useless = next(name for name in QUOTED if name not in (AUTO, STUDENT))
    nothing = [attacked(label, useless, 0.1, FAILS) for label in ("mine", "han2020", "ann")]
    cells = [one for one in drawn([0.9] + [0.0] * 9, 0.99, agreement=0.97) if one.attack != useless]
    nulls = [
        attacked(f"random {number}", name, 0.0, control=True, of=name, votes=voted(0.0))
        for name in QUOTED
        for number in range(20)
    ]
    verdict = told(*cells, *study(*nothing), *nulls)
    assert (verdict.outcome, verdict.named, verdict.comparable) == ("leaks", [0], True)


@pytest.mark.parametrize(("shares", "compared"), [([0.6] * 10, False), ([0.75] * 10, True)])
def test_the_weakest_attack_is_compared_where_it_shows_nearly_all_that_others_show_elsewhere(
    shares: Any, compared: bool
) -> None:
    """Else a network that stops the others, by gradients that lead nowhere, is ranked by what the weakest draws."""
    verdict = told(*drawn(shares, 0.99, agreement=0.97, stopped=set(QUOTED) - {STUDENT}))
    assert (verdict.outcome, verdict.attack, verdict.comparable) == ("leaks", STUDENT, compared)


def test_a_small_leak_is_not_compared_where_its_attack_is_never_certain_itself() -> None:
    """Of what it draws from the unprotected network, too, the victim is not certain; others are."""
    cells = [
        one.model_copy(
            update={
                "values": [
                    value.model_copy(update={"value": 0.85}) if value.metric == "victim_confidence" else value
                    for value in one.values
                ]
            }
        )
        if one.attack == STUDENT
        else one
        for one in drawn(TWO, 0.99, stopped=set(QUOTED) - {STUDENT})
    ]
    verdict = told(*cells)
    assert (verdict.outcome, verdict.attack, verdict.comparable) == ("leaks", STUDENT, False)
    assert "no student excludes decoys" in verdict.reason


@pytest.mark.parametrize("status", ["failed", "not-applicable"])
def test_the_weakest_attack_is_not_compared_where_others_gave_nothing_to_judge(status: str) -> None:
    cells = ended(drawn([0.6] * 10, 0.99, agreement=0.97), status, attack=AUTO)
    verdict = told(*cells)
    assert (verdict.outcome, verdict.comparable) == ("leaks", False)
    assert f"{AUTO}: nothing to judge" in verdict.reason


def test_a_leak_is_not_compared_where_a_stronger_attack_was_judged_on_some_networks_alone() -> None:
    cells = drawn([0.6] * 10, 0.99, agreement=0.97)
    for seed in (1, 2, 3):
        cells = ended(cells, "not-applicable", attack=AUTO, seed=seed)
    verdict = told(*cells)
    assert (verdict.outcome, verdict.comparable) == ("leaks", False)
    assert f"{AUTO}: judged on 1 of 4 networks" in verdict.reason


def test_a_leak_is_compared_where_a_network_could_not_be_built() -> None:
    cells = ended(drawn([0.6] * 10, 0.99, agreement=0.97), "failed", seed=3)
    verdict = told(*cells)
    assert (verdict.outcome, verdict.networks, verdict.comparable) == ("leaks", 3, True)


@pytest.mark.parametrize(("share", "compared"), [(0.4, True), (0.58, False)])
def test_a_leak_is_not_compared_where_most_is_shown_by_an_attack_that_is_not_valid(
    share: float, compared: bool
) -> None:
    """It shows a bit of every class, of none enough for a vote, and the network is not certain of it."""
    beside = [*controls("own"), attacked("mine", "own", share, FAILS, 0.5, votes=voted(0.0))]
    verdict = told(*drawn([1.0] * 4 + [0.1] * 6, 0.99, agreement=0.97), *study(*beside))
    assert (verdict.outcome, verdict.comparable) == ("leaks", compared)
    assert ("own, which shows most: optimisation failure" in verdict.reason) == (not compared)


@pytest.mark.parametrize(("shares", "compared"), [(TWO, False), ([0.6] * 10, True)])
def test_without_controls_a_small_leak_is_not_compared(shares: Any, compared: bool) -> None:
    """Of real images all are recognised."""
    mine = [attacked("mine", name, shares, WORKS) for name in QUOTED]
    assert told(*study(*anchors(), row("mine"), *mine)).comparable is compared


@pytest.mark.parametrize("shares", [TWO, HALF])
def test_a_leak_beside_an_attack_without_a_signal_is_not_compared(shares: Any) -> None:
    cells = ended(drawn(shares, 0.99, agreement=0.97), "no-signal", attack="pruned", seed=3)
    verdict = told(*cells)
    assert (verdict.outcome, verdict.comparable) == ("leaks", False)
    assert "pruned found no signal" in verdict.reason


@pytest.mark.slow
def test_an_attack_that_draws_nothing_anywhere_does_not_make_nonsense_rare() -> None:
    often = Votes(classes=list(range(10)), accepted=[(0, 1), (5, 2)], forced=[(0, 1), (5, 2)])

    def nulls(attack: str, count: int, votes: Votes) -> list[CellRecord]:
        return [
            attacked(f"random {number}", attack, 0.0, control=True, of=attack, votes=votes) for number in range(count)
        ]

    asked = [one for name in QUOTED for one in nulls(name, 6, often)]
    for more in ([], nulls("black", 20, voted(0.0))):
        cells = study(*resisting(*(["black"] if more else [])))
        verdict = told(*cells, *asked, *more)
        assert verdict.outcome == "inconclusive"
        assert "--seeds 6" in verdict.settle


def test_more_attacks_do_not_hide_what_one_to_quote_found() -> None:
    """p = .002 of four attacks, beside any number of others."""
    slight = attacked("mine", AUTO, [0.4] + [0.2] * 9, 0.002, votes=voted(0.0))
    told_alone = "images are recognised more often than by chance"
    for count in (0, 20):
        others = [f"other{number}" for number in range(count)]
        cells = [one for one in resisting(*others) if (one.defense, one.attack) != ("mine", AUTO)]
        verdict = told(*cells, slight)
        assert f"{AUTO}: {told_alone}" in verdict.reason


def test_copies_of_one_network_are_one_in_rows_and_in_the_index_too() -> None:
    """Two classes are a leak of four networks, and of one they may be chance."""
    own = [attacked("mine", name, TWO, FAILS) for name in QUOTED]
    cells = study(*BASE, *(one for name in QUOTED for one in controls(name)), *own)
    copied = [one.model_copy(update={"weights": "a"}) if one.defense == "mine" else one for one in cells]
    several, one = (row_of(concluded(each), "mine", AUTO) for each in (cells, copied))
    assert (several.leaks, one.leaks) == (True, False)
    alone = row_of(concluded([each for each in copied if each.seed == 0]), "mine", AUTO)
    assert one.p == alone.p


@pytest.mark.parametrize(("accuracy", "outcome"), [(0.1, "inconclusive"), (0.8, "leaks")])
def test_an_untrained_control_that_knows_the_classes_voids_no_leak(accuracy: float, outcome: str) -> None:
    """Of a network that was handed in, what is not shuffled may hold all that it learnt: it is its own control then."""
    among, given = voted(0.8).model_copy(update={"among": 10}), {"sha256": "of the network"}
    recognised = [
        one.model_copy(update={"votes": among, "control": True})
        for name in QUOTED
        for one in controls(name, random=(0.8, WORKS))
    ]
    base = [
        *anchors(),
        row("ann", None),
        row("han2020"),
        row("random", accuracy=accuracy, defense_params=given),
        row("mine"),
    ]
    mine = [attacked("mine", name, 0.8, WORKS, votes=among) for name in QUOTED]
    cells = study(*base, *recognised, *mine)
    assert told(*cells).outcome == outcome
    (gate,) = [one for one in row_of(concluded(cells), "mine", AUTO).gates if one.name == "G2"]
    assert gate.passed is (None if accuracy > 0.5 else False)


@pytest.mark.parametrize("status", ["failed", "no-signal"])
def test_a_network_whose_untrained_control_gave_nothing_counts_all_the_same(status: str) -> None:
    """It is measured from noise images there: left out, a leak of it would be as well."""
    shares = {0: 0.9, 1: 0.2}
    cells = [
        one.model_copy(update={"seed": seed})
        for seed, share in shares.items()
        for one in [*BASE, *controls(AUTO, random=(0.2, FAILS)), attacked("mine", AUTO, share, WORKS)]
    ]
    lost = {"status": status, "reason": "nothing", "values": [], "classes": [], "votes": None}
    silent = [
        one.model_copy(update=lost) if (one.defense, one.attack, one.seed) == ("random", AUTO, 0) else one
        for one in cells
    ]
    whole, rest = (told(*each) for each in (cells, silent))
    assert whole.index and whole.index.value == pytest.approx((0.55 - 0.2) / (1 - 0.2))
    assert rest.index and rest.index.value == pytest.approx((0.55 - 0.15) / (1 - 0.15))  # noise images have .1
    assert rest.index.n == whole.index.n == 20
    (threat,) = [one for one in rest.threats if one.access == "WEIGHTS"]
    assert threat.index and threat.index.value == pytest.approx(rest.index.value)


@pytest.mark.parametrize(
    ("accepted", "outcome", "comparable"),
    [(0.0, "inconclusive", False), ([1.0, 1.0] + [0.0] * 8, "leaks", False), (0.7, "leaks", True)],
    ids=["none", "of two classes", "most"],
)
def test_images_that_are_recognised_but_rejected_say_nothing_of_how_much_leaks(
    accepted: Any, outcome: str, comparable: bool
) -> None:
    """Whoever changes the style of what attacks draw would rank first."""

    def opened(one: CellRecord) -> CellRecord:
        forced = {score.target: score.value for score in one.classes if score.metric == FORCED}
        share = accepted if one.defense == "mine" and one.attack else None
        shares = share if isinstance(share, list) else [share] * 10
        seen = {target: value if share is None else shares[target] for target, value in forced.items()}
        scores = [ClassScore(metric=OPEN_SET, target=target, value=value, n=10) for target, value in seen.items()]
        mean = Value(metric=OPEN_SET, value=sum(seen.values()) / len(seen), n=100) if seen else None
        votes = one.votes and one.votes.model_copy(
            update={"accepted": voted(share).accepted if share is not None else one.votes.forced}
        )
        more = {"classes": [*one.classes, *scores], "values": [*one.values, *([mean] if mean else [])], "votes": votes}
        return one.model_copy(update=more)

    mine = [attacked("mine", name, 1.0, WORKS, agreement=agreement_of(name)) for name in QUOTED]
    cells = study(*BASE, *(one for name in QUOTED for one in controls(name)), *mine, seeds=6)
    verdict = told(*map(opened, cells))
    assert (verdict.outcome, verdict.comparable) == (outcome, comparable)
    assert ('rejected where "none of these" may be' in verdict.reason) is not comparable


def test_a_leak_without_an_untrained_network_says_that_nothing_was_compared_with_one() -> None:
    """What an attack brings along itself may be all that it shows."""
    same = [one for name in QUOTED for one in controls(name, random=(0.8, WORKS))]
    mine = [attacked("mine", name, 0.8, WORKS) for name in QUOTED]
    void = told(*study(*BASE, *same, *mine))
    assert void.outcome == "inconclusive"
    assert void.reason == "every attack on it draws classes from an untrained network as well: invalid"
    untold = "whether they show the same of an untrained network is not known"
    bare = told(*study(*(one for one in BASE if not one.control or not one.defense), *mine))
    assert bare.outcome == "leaks" and untold in bare.reason
    known = told(*study(*BASE, *(one for name in QUOTED for one in controls(name)), *mine))
    assert known.outcome == "leaks" and untold not in known.reason


def of_one_ann(shows: dict[int, Any], random: float = 0.1) -> list[CellRecord]:
    """The networks of all seeds are made of one ANN (``--ann``); what attacks draw of each."""
    cells = []
    for seed, share in shows.items():
        mine = [attacked("mine", name, share, WORKS, agreement=agreement_of(name)) for name in QUOTED]
        for one in [*BASE, *(one for name in QUOTED for one in controls(name, random=(random, FAILS))), *mine]:
            made = {"artifacts": {"ann": "given"}} if one.defense == "mine" and not one.attack else {}
            cells.append(one.model_copy(update={"seed": seed, **made}))
    return cells


def test_a_network_of_the_same_ann_that_leaks_is_not_passed_over() -> None:
    """One of them counts, as they are no evidence about others; which one, only the order of seeds says."""
    nothing = told(*of_one_ann({0: 0.1, 1: 0.1}))
    hidden = told(*of_one_ann({0: 0.1, 1: 0.9, 2: 0.1}))
    reason = "its networks of other seeds and the same ANN leak by themselves: seed 1"
    assert (nothing.outcome, nothing.comparable, nothing.missing.count(reason)) == ("inconclusive", True, 0)
    assert (hidden.outcome, hidden.comparable, hidden.missing.count(reason)) == ("inconclusive", False, 1)
    elsewhere = of_one_ann({0: [0.9] * 4 + [0.0] * 6, 1: [0.9] * 4 + [0.0] * 6})
    other = attacked("mine", OTHERS[0], 0.9, WORKS, agreement=agreement_of(OTHERS[0]), seed=1)
    elsewhere = [other if (one.defense, one.attack, one.seed) == ("mine", OTHERS[0], 1) else one for one in elsewhere]
    assert f"{OTHERS[0]} shows 0.80 of the network of seed 1, of the same ANN" in told(*elsewhere).reason
    lost = {"status": "no-signal", "reason": "nothing", "values": [], "classes": [], "votes": None}
    alone = [  # nor where its untrained control gave nothing
        one.model_copy(update=lost) if (one.defense, one.seed) == ("random", 1) and one.attack else one
        for one in of_one_ann({0: 0.1, 1: 0.9, 2: 0.1}, random=0.2)
    ]
    assert told(*alone).missing.count(reason) == 1
    first, less = told(*of_one_ann({0: 0.9, 1: 0.1})), told(*of_one_ann({0: [0.9] * 4 + [0.0] * 6, 1: 0.9}))
    assert (first.outcome, first.comparable, first.networks) == ("leaks", True, 1)
    assert (less.outcome, less.comparable) == ("leaks", False)
    assert "shows 0.80 of the network of seed 1, of the same ANN" in less.reason


def test_noise_stands_in_for_no_network_that_the_attack_itself_did_not_reach() -> None:
    """Of a distance between sets the null is over its own networks: as many as the attack's."""

    def distant(one: CellRecord) -> CellRecord:
        far = {"noise": 100.0, "real": 10.0}.get(one.attack, 40.0)
        known = [*one.values, Value(metric="fd_bnconv", value=far, low=far - 1, high=far + 1, n=100)]
        return one.model_copy(update={"values": known if one.attack else one.values})

    lost = {"status": "failed", "reason": "nothing", "values": [], "classes": [], "votes": None}
    cells = [
        one.model_copy(update=lost) if one.attack == AUTO and one.defense in ("mine", "random") and one.seed else one
        for one in map(distant, study(*BASE, *controls(AUTO), attacked("mine", AUTO, 0.9, WORKS)))
    ]
    (found,) = [one for one in row_of(concluded(cells), "mine", AUTO).indices if one.metric == "fd_bnconv"]
    assert (found.value, found.null) == (pytest.approx(0, abs=1e-9), "random")
