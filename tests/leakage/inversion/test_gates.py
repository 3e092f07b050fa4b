"""Gates: each passes, fails and can't be told, and says why with its numbers."""

from __future__ import annotations

import pytest
from by_hand import CLASSES, NOWHERE, Scores, cell, place, seen

from leakbench.contracts import Access
from leakbench.leakage.inversion.class_evidence import FORCED
from leakbench.leakage.inversion.gates import (
    ALPHA,
    access_helps,
    draws_nothing_untrained,
    failed,
    more_is_not_worse,
    reached_target,
    sees_what_the_victim_sees,
    tells_classes,
    weak_models,
    works_unprotected,
)
from leakbench.leakage.seed_group import SeedGroup
from leakbench.metrics.estimate import proportion
from leakbench.records import CellRecord, Gate, Votes

HIGH = [0.6, 0.7, 0.8, 0.7, 0.6, 0.8, 0.7, 0.9, 0.7, 0.5]
"""shares by class, of mean .7; those below them by .4 are lower in every class"""
LOW = [round(share - 0.4, 1) for share in HIGH]
BELOW = [0.3, 0.2, 0.4, 0.2, 0.3, 0.4, 0.2, 0.4, 0.3, 0.3]
"""of mean .3 as well, and not by the same step"""


def told(gate: Gate) -> tuple[str, bool | None]:
    assert gate.reason and len(gate.reason.splitlines()) == 1
    return gate.name, gate.passed


# --- images are recognised ----------------------------------------------------------------------------------------


def hits(count: int, p: float, seed: int = 0) -> CellRecord:
    """An attack of whose 100 images the judges name so many right, with the interval that a run records."""
    (one,) = seen(count / 100, p, seed=seed).cells
    estimate = proportion(count, 100)
    ends = {"low": estimate.low, "high": estimate.high}
    return one.model_copy(
        update={"values": [v.model_copy(update=ends) if v.metric == FORCED else v for v in one.values]}
    )


@pytest.mark.parametrize(
    ("count", "p", "attacks", "tells"),
    [
        (70, 0.0099, 1, True),
        (70, 0.01, 1, False),
        (70, 0.0099, 2, False),
        (70, 0.0049, 2, True),
        (10, 0.0001, 1, False),  # chance itself
        # the share that a score test tells from .1 at 95 %: more than 10 + 1.96 * sqrt(100 * .1 * .9) = 15.88 of 100
        (15, 0.0001, 1, False),
        (16, 0.0001, 1, True),
    ],
)
def test_images_tell_their_classes_by_p_and_by_an_accuracy_above_chance(
    count: int, p: float, attacks: int, tells: bool
) -> None:
    assert tells_classes(place(hits(count, p)), attacks) is tells


@pytest.mark.parametrize(
    ("shares", "tells"),
    [(0.1, False), (0.11, True), ([0.08] * 10, False), ([0.08] * 20, True), ([0.5] * 2, False), ([0.6] * 2, True)],
)
def test_without_an_interval_the_value_itself_must_be_above_one_over_the_classes(shares: Scores, tells: bool) -> None:
    assert tells_classes(seen(shares)) is tells


def test_what_was_not_judged_tells_nothing() -> None:
    for nothing in (NOWHERE, seen(0.9, None), place(cell("mine", "x", overall={"p_value": 0.0001}))):
        assert not tells_classes(nothing)


def test_the_images_of_several_seeds_count_together() -> None:
    """15 of 100 are not enough, 30 of 200 are: p and the limit are both of these very networks."""
    two = place(*(hits(15, 0.001, seed) for seed in range(2)))
    assert proportion(30, 200).low > 0.1
    assert tells_classes(two)
    assert not tells_classes(place(*(hits(13, 0.001, seed) for seed in range(2))))


def test_a_gate_says_which_part_was_missing() -> None:
    chance = place(hits(10, 0.0023))
    missing = "p = 0.0023, but judge accuracy 0.10 on the {}, at least 0.055, is not above chance (0.1)"
    gate = works_unprotected(NOWHERE, chance, "han2020")
    assert told(gate) == ("G1", False)
    assert gate.reason == "not better than chance: " + missing.format("unprotected han2020")
    gate = draws_nothing_untrained(chance)
    assert told(gate) == ("G2", True)
    assert gate.reason == missing.format("untrained network")
    # nor does it rescue an attack that fails on the unprotected network
    assert told(works_unprotected(chance, seen(0.7, ALPHA), "han2020")) == ("G1", False)
    assert told(works_unprotected(place(hits(40, 0.0023)), chance, "han2020")) == ("G1", True)


def test_where_too_few_classes_are_why_no_test_is_passed_it_is_said() -> None:
    """Three classes have six orders: p is 1/6 at best, also of an attack that draws all of them."""
    one = seen([1.0] * 3, 0.169)
    gate = works_unprotected(one, one, "han2020")
    assert told(gate) == ("G1", False)
    assert gate.reason == "3 classes of one network can't give p < 0.01: it takes more classes or networks"
    nothing = place(*(cell for seed in range(3) for cell in seen([0.2] * 4, 0.5, seed=seed).cells))
    gate = works_unprotected(nothing, nothing, "han2020")
    assert told(gate) == ("G1", False) and gate.reason.startswith("not better than chance")


# --- G1: it works where nothing protects -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "control", "passed", "words"),
    [
        (0.5, 0.0001, True, ["works", "judge accuracy 0.70", "unprotected han2020", "p = 0.0001"]),
        (0.5, 0.0099, True, ["p = 0.0099"]),
        (0.5, 0.01, False, ["not better than chance", "judge accuracy 0.70", "unprotected han2020", "p = 0.0100"]),
        (0.0099, 0.5, True, ["works on this very network", "p = 0.0099", "unprotected han2020", "p = 0.5000"]),
        (None, 0.5, False, ["not better than chance", "p = 0.5000"]),
        (0.0001, None, None, ["no judged images from han2020"]),
    ],
    ids=["works", "just works", "just not", "rescued", "not judged", "control not judged"],
)
def test_an_attack_must_work_on_the_unprotected_network(
    own: float | None, control: float | None, passed: bool | None, words: list[str]
) -> None:
    gate = works_unprotected(seen(0.2, own), seen(0.7, control), "han2020")
    assert told(gate) == ("G1", passed)
    assert [word for word in words if word not in gate.reason] == []


def test_without_an_unprotected_network_nothing_can_be_told() -> None:
    gate = works_unprotected(seen(0.9), NOWHERE, "")
    assert told(gate) == ("G1", None)
    assert "no unprotected network" in gate.reason


# --- G2: it draws nothing out of an untrained network ------------------------------------------------------------


@pytest.mark.parametrize(
    ("place_", "passed", "words"),
    [
        (seen(0.1, 0.3), True, ["judge accuracy 0.10", "p = 0.3000"]),
        (seen(0.1, 0.01), True, ["p = 0.0100"]),
        (seen(0.4, 0.0099), False, ["better than chance", "judge accuracy 0.40", "p = 0.0099"]),
        (seen(0.4, None), None, ["no judged images from a network that knows nothing"]),
        (NOWHERE, None, ["no judged images from a network that knows nothing"]),
    ],
)
def test_nothing_may_come_from_an_untrained_network(place_: SeedGroup, passed: bool | None, words: list[str]) -> None:
    gate = draws_nothing_untrained(place_)
    assert told(gate) == ("G2", passed)
    assert [word for word in words if word not in gate.reason] == []


# --- G3: the victim sees its class -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confidences", "passed", "words"),
    [
        ([0.95], True, "0.95"),
        ([0.9], False, "0.90"),
        ([0.2], False, "0.20"),
        ([0.99, 0.7], False, "0.84"),  # the mean over seeds, .845
        ([0.99, 0.85], True, "0.92"),
        ([], None, "was not asked"),
    ],
)
def test_the_victim_itself_must_see_its_class(confidences: list[float], passed: bool | None, words: str) -> None:
    cells = [seen(0.1, 0.5, c, seed=s).cells[0] for s, c in enumerate(confidences)]
    gate = reached_target(place(*cells) if cells else seen(0.1, 0.5, None))
    assert told(gate) == ("G3", passed)
    assert words in gate.reason


# --- G4: more effort is not worse --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("full", "half", "passed"),
    [
        (HIGH, LOW, True),
        (HIGH, HIGH, True),
        (BELOW, HIGH, False),
        (LOW, HIGH, False),
        ([0.0] * CLASSES, [1.0] * CLASSES, False),
        (HIGH, [min(1.0, share + 0.3 * (-1) ** c) for c, share in enumerate(HIGH)], True),  # better here, worse there
    ],
    ids=["better", "the same", "worse", "by one step", "all to nothing", "neither"],
)
def test_more_effort_must_not_be_worse(full: list[float], half: list[float], passed: bool) -> None:
    gate = more_is_not_worse(seen(full), seen(half), "direct (iterations=10)")
    assert told(gate) == ("G4", passed)
    means = [f"judge accuracy {sum(shares) / CLASSES:.2f}" for shares in (half, full)]
    better = "not significantly" if passed else "significantly"
    half_and_all = f"{means[0]} with half the effort (direct (iterations=10)) against {means[1]}"
    assert gate.reason == f"{half_and_all}: {better} better"


def test_every_class_a_little_worse_on_every_seed_is_worse() -> None:
    full = place(*(seen(0.5, seed=seed).cells[0] for seed in range(3)))
    half = place(*(seen([0.55 + 0.01 * (c % 2) for c in range(10)], seed=seed).cells[0] for seed in range(3)))
    assert told(more_is_not_worse(full, half, "half")) == ("G4", False)
    assert told(more_is_not_worse(half, full, "half")) == ("G4", True)


@pytest.mark.parametrize(("classes", "passed"), [(7, True), (8, False)])
def test_the_same_step_in_every_class_tells_by_how_many_there_are(classes: int, passed: bool) -> None:
    """Two-sided, the same sign in n classes has p = 2^(1-n): 1/64 of seven, 1/128 of eight."""
    full, half = ([share] * classes for share in (0.5, 0.6))
    assert told(more_is_not_worse(seen(full), seen(half), "half")) == ("G4", passed)


@pytest.mark.parametrize(
    ("half", "words"),
    [
        (NOWHERE, "half the effort was not tried"),
        (place(cell("mine", "direct", overall={"seconds": 1.0})), "too few classes or seeds"),
        (seen(HIGH, seed=1), "too few classes or seeds"),  # of another network
    ],
)
def test_without_half_the_effort_nothing_can_be_told(half: SeedGroup, words: str) -> None:
    gate = more_is_not_worse(seen(LOW), half, "half")
    assert told(gate) == ("G4", None)
    assert words in gate.reason


# --- G5: more access is not worse --------------------------------------------------------------------------------


def test_weights_must_do_as_well_as_scores_and_these_as_labels() -> None:
    attacks = {
        "weights": (Access.WEIGHTS, seen(BELOW)),
        "scores": (Access.SCORES, seen(HIGH)),
        "labels": (Access.LABELS, seen(BELOW)),
    }
    gate = access_helps(Access.WEIGHTS, attacks)
    assert told(gate) == ("G5", False)
    assert gate.reason == (
        "scores needs less access and does better: judge accuracy 0.70 against weights with judge accuracy 0.30"
    )
    assert told(access_helps(Access.SCORES, attacks)) == ("G5", True)
    gate = access_helps(Access.LABELS, attacks)
    assert told(gate) == ("G5", None)
    assert "no attack with less access" in gate.reason


def test_the_best_of_those_with_more_access_counts() -> None:
    """One weak attack on the weights tells of no mask where another one is as good as the scores."""
    attacks = {
        "weak": (Access.WEIGHTS, seen(LOW)),
        "strong": (Access.WEIGHTS, seen(HIGH)),
        "scores": (Access.SCORES, seen(HIGH)),
    }
    assert told(access_helps(Access.WEIGHTS, attacks)) == ("G5", True)


def test_labels_may_beat_neither_scores_nor_weights() -> None:
    attacks = {
        "weights": (Access.WEIGHTS, seen(LOW)),
        "scores": (Access.SCORES, seen(LOW)),
        "labels": (Access.LABELS, seen(HIGH)),
    }
    assert told(access_helps(Access.WEIGHTS, attacks)) == ("G5", False)
    assert told(access_helps(Access.SCORES, attacks)) == ("G5", False)


def test_what_was_not_judged_accuses_nobody_and_is_not_accused() -> None:
    failed_cells, unjudged = NOWHERE, place(cell("mine", "x", overall={"seconds": 1.0}))
    for scores, passed in ((failed_cells, None), (unjudged, True)):
        attacks = {"weights": (Access.WEIGHTS, seen(LOW)), "scores": (Access.SCORES, scores)}
        assert told(access_helps(Access.WEIGHTS, attacks)) == ("G5", passed)
    attacks = {"weights": (Access.WEIGHTS, unjudged), "scores": (Access.SCORES, seen(HIGH))}
    assert told(access_helps(Access.WEIGHTS, attacks)) == ("G5", True)


# --- all of them -------------------------------------------------------------------------------------------------


def test_where_no_image_is_accepted_elsewhere_none_is_no_less() -> None:
    def rejected(forced: float, p: float) -> SeedGroup:
        shares = {"judge_accuracy": forced, "open_set_accuracy": 0.0}
        return place(cell("x", "inversion", shares, {"p_value": p, "victim_confidence": 0.99}))

    gate = sees_what_the_victim_sees(rejected(0.1, 0.5), rejected(0.6, 0.0001), "open_set_accuracy", "")
    assert gate.passed is None and "accept no image" in gate.reason


def test_what_can_t_be_told_has_not_failed() -> None:
    gates = [
        Gate(name="G1", passed=True, reason="a"),
        Gate(name="G2", passed=None, reason="b"),
        Gate(name="G3", passed=False, reason="c"),
        Gate(name="G4", passed=False, reason="d"),
    ]
    assert failed(gates, "G1", "G2") == []
    assert failed(gates, "G2", "G4", "G3") == gates[2:]
    assert failed([], "G1") == []


# --- the evaluation models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accuracy", "neighbour", "words"),
    [
        (0.9, 0.85, ""),
        (0.75, 0.6, ""),
        (0.7, 0.6, "below their floor of 0.73"),  # of ten classes: .1 + .7 * .9
        (0.1, 0.1, "below their floor"),
        (0.8, 0.99, "less than a nearest neighbour on raw pixels (0.99)"),
        (0.9, 0.93, ""),  # not significantly
    ],
)
def test_weak_evaluation_models_carry_no_verdict(accuracy: float, neighbour: float, words: str) -> None:
    def known(share: float) -> tuple[float, float, float]:
        estimate = proportion(round(100 * share), 100)
        return estimate.value, estimate.low, estimate.high

    of_real = {"judge_accuracy": known(accuracy), "pixel_neighbour_accuracy": known(neighbour)}
    real = place(cell("", "real", {"kes": 0.5}, of_real))
    # chance is known from the classes that were scored
    real.cells[0].classes[:] = [one.model_copy(update={"metric": FORCED}) for one in real.cells[0].classes]
    why = weak_models(real)
    assert words in why and bool(why) == bool(words)
    assert weak_models(NOWHERE)


def test_chance_is_among_all_classes_however_few_were_attacked() -> None:
    """15 of 100 images are many where one of 100 classes can be answered, and chance where one of ten can."""
    of_ten = hits(15, 0.0001)
    votes = Votes(classes=list(range(CLASSES)), among=100, accepted=[], forced=[])
    of_hundred = of_ten.model_copy(update={"votes": votes})
    assert not tells_classes(place(of_ten))
    assert tells_classes(place(of_hundred))
    real = {"judge_accuracy": (0.71, 0.6, 0.8)}
    measured = place(cell("", "real", {"judge_accuracy": 0.71}, real))
    assert "floor of 0.73" in weak_models(measured)
    assert weak_models(measured, 100) == ""
