"""What a grid of cells is concluded to: rows and scales, and which controls count where there are several grids."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from by_hand import cell, voted
from grids_by_hand import BASE, FAILS, HIGH, WORKS, anchors, attacked, concluded, controls, row, row_of, rows, told

from leakbench.leakage.inversion.verdict_text import headline
from leakbench.leakage.kind import Evidence

# --- rows --------------------------------------------------------------------------------------------------------


def test_controls_have_rows_and_no_verdict() -> None:
    cells = [*anchors(), *rows("mine", "shuffled"), *controls()]
    cells += [attacked("mine", "inversion", 0.7, WORKS), attacked("shuffled", "inversion", 0.1)]
    evidence = concluded(cells)
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
    evidence = concluded(cells)
    assert row_of(evidence, "mine").validity == "decoys suspected"
    assert row_of(evidence, "mine", "direct").validity == "invalid"


def test_the_ann_takes_the_place_of_a_conversion_that_is_not_there() -> None:
    cells = [*anchors(), row("ann", None), row("random"), row("mine")]
    cells += [attacked("ann", "inversion", 0.8, WORKS), attacked("random", "inversion"), attacked("mine", "inversion")]
    evidence = concluded(cells)
    assert "unprotected ann" in row_of(evidence, "mine").gates[0].reason
    assert row_of(evidence, "mine").gates[0].passed


def test_checks_at_half_the_effort_are_no_rows() -> None:
    check = attacked("mine", "inversion (iterations=75)", 0.6, WORKS, of="inversion")
    evidence = concluded([*BASE, *controls(), attacked("mine", "inversion", 0.7, WORKS), check])
    assert [one.attack for one in evidence.rows] == ["inversion"] * 4
    assert row_of(evidence, "mine").gates[3].passed is True
    assert "(inversion (iterations=75))" in row_of(evidence, "mine").gates[3].reason
    assert row_of(evidence, "ann").gates[3].passed is None


@pytest.mark.slow
def test_seeds_count_together() -> None:
    """Three networks, none of which is enough alone; a cell that failed is left out."""
    cells = [cell for seed in range(3) for cell in (*anchors(seed=seed), *rows("mine", seed=seed))]
    for seed in range(3):
        two = voted([0.9, 0.9] + [0.0] * 8)
        cells += [*controls(seed=seed), attacked("mine", "inversion", HIGH, votes=two, seed=seed)]
    assert told(*cells).outcome == "leaks"
    found = row_of(concluded(cells), "mine")
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
    assert headline(row_of(concluded(broken), "mine")).n == 20


def test_an_attack_whose_access_is_not_known_is_taken_to_hold_the_weights() -> None:
    weak = [round(share - 0.5, 1) for share in HIGH]
    cells = [*BASE, *controls("search"), *controls("strange"), attacked("mine", "search", HIGH, 0.02)]
    cells.append(attacked("mine", "strange", weak))
    assert row_of(concluded(cells), "mine", "strange").validity == "gradient masking suspected"


# --- grids of several things -------------------------------------------------------------------------------------


@pytest.mark.slow
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
    evidence = concluded(cells)
    assert {(v.dataset, v.model): v.outcome for v in evidence.verdicts} == {
        ("digits", "vgg4"): "leaks",
        ("digits", "vgg5"): "inconclusive",
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
    evidence = concluded(cells)
    for steps, passed in ((4, False), (8, True)):
        gate = row_of(evidence, f"mine[T={steps}]").gates[0]
        assert gate.passed is passed
        assert f"unprotected han2020[T={steps}]" in gate.reason
    assert row_of(evidence, "mine[T=4]").validity == "invalid"
    assert row_of(evidence, "mine[T=8]").validity == "decoys suspected"
    # the ANN has no time steps: any conversion will do
    assert "han2020[T=" in row_of(evidence, "ann").gates[0].reason


def test_the_untrained_network_is_the_one_at_the_row_s_own_time_steps() -> None:
    cells = [*anchors(), row("ann", None), attacked("ann", "inversion", 0.8, WORKS)]
    for steps, random in ((4, (0.6, WORKS)), (8, (0.1, FAILS))):
        cells += [row(f"{name}[T={steps}]", steps) for name in ("han2020", "random", "mine")]
        cells += [attacked(f"{name}[T={steps}]", "inversion", 0.8, WORKS) for name in ("han2020", "mine")]
        cells.append(attacked(f"random[T={steps}]", "inversion", *random))
    evidence = concluded(cells)
    assert {v.defense: v.outcome for v in evidence.verdicts} == {"mine[T=4]": "inconclusive", "mine[T=8]": "leaks"}
    assert headline(row_of(evidence, "mine[T=4]")).value == pytest.approx((0.8 - 0.6) / (1 - 0.6))
    assert headline(row_of(evidence, "mine[T=8]")).value == pytest.approx((0.8 - 0.1) / (1 - 0.1))


# --- scales ------------------------------------------------------------------------------------------------------


def test_a_scale_has_its_ends_and_the_fresh_draws_on_it() -> None:
    cells = anchors(0.1, 0.9)
    cells[1] = cell("", "noise (fresh draw)", {"judge_accuracy": 0.14, "kes": 0.1}, control=True, of="noise")
    evidence = concluded(cells)
    assert [scale.metric for scale in evidence.scales] == ["judge_accuracy", "kes"]
    scale = evidence.scales[0]
    assert (scale.noise.value, scale.real.value) == (pytest.approx(0.1), pytest.approx(0.9))
    assert scale.fresh_noise.value == pytest.approx(0.04 / 0.8)
    assert scale.fresh_real.value == pytest.approx(1)
    assert (scale.fresh_noise.null, scale.fresh_real.null) == ("noise", "noise")
    assert evidence.rows == evidence.verdicts == []


@pytest.mark.slow
def test_a_scale_over_seeds_is_their_mean() -> None:
    cells = [one for seed, real in enumerate((0.8, 0.9, 1.0)) for one in anchors(0.1, real, seed=seed)]
    scale = concluded(cells).scales[0]
    assert (scale.real.value, scale.real.n) == (pytest.approx(0.9), 30)
    assert scale.real.low is not None and scale.real.high is not None
    assert scale.real.low < 0.9 < scale.real.high
    assert scale.noise.low is not None and scale.noise.high is not None
    assert 0 < scale.noise.low < 0.1 < scale.noise.high  # three times the same, of ten images a class


@pytest.mark.parametrize("missing", ["noise", "real"])
def test_half_a_scale_is_none(missing: str) -> None:
    assert concluded([one for one in anchors() if one.attack != missing]).scales == []


def test_nothing_gives_nothing() -> None:
    assert concluded([]) == Evidence([], [], [])
