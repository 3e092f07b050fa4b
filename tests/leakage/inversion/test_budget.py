"""The leak over the attacker's cost: curves, costs to half and areas that were worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from by_hand import CLASSES, IMAGES, declared
from grids_by_hand import FAILS, WORKS, anchors, attacked, controls, rows, told
from scipy.stats import t

from leakbench.errors import UsageError
from leakbench.leakage.inversion.budget import AreaScores
from leakbench.leakage.inversion.verdict import conclude
from leakbench.records import BudgetPoint, CellRecord, ThreatModel

# nulls score 0 and real images 1: an index is the share of images itself
BASE = [*anchors(noise=0.0), *rows("mine")]


def nulls(attack: str, **where: Any) -> list[CellRecord]:
    return controls(attack, random=(0.0, FAILS), **where)


def course(*points: tuple[float, float | Sequence[float]], **where: Any) -> dict[str, Any]:
    """(cost, share of images or one for each class) ..., the last that of the outcome: fields of a cell."""
    budget = []
    for cost, given in points:
        each = [given] * CLASSES if isinstance(given, int | float) else given
        hits = [round(share * IMAGES) for share in each]
        budget.append(BudgetPoint(cost=cost, images=IMAGES, accepted=[0] * CLASSES, forced=hits))
    return {"share": points[-1][1], "p": WORKS, "budget": budget, **where}


def threats(*cells: CellRecord) -> dict[str, ThreatModel]:
    return {threat.access: threat for threat in told(*BASE, *cells).threats}


def heights(threat: ThreatModel) -> dict[float, float]:
    return {point.cost: round(point.value, 9) for point in threat.points}


def over_decades(*steps: tuple[float, float]) -> float:
    """The area under (cost, index) steps, each up to the next one's cost, the last up to 10,000."""
    ends = [math.log10(cost) for cost, _ in steps] + [4.0]
    return sum((ends[at + 1] - ends[at]) * index for at, (_, index) in enumerate(steps)) / 4


def test_a_curve_its_cost_to_half_and_its_area() -> None:
    path = (1, 0.0), (10, 0.3), (100, 0.6), (310, 0.8)
    weights = threats(*nulls("inversion"), attacked("mine", "inversion", **course(*path)))["WEIGHTS"]
    assert weights.attack == "inversion" and weights.index and weights.index.value == pytest.approx(0.8)
    assert heights(weights) == {1: 0.0, 10: 0.3, 100: 0.6, 310: 0.8}
    assert weights.cost_to_half and weights.cost_to_half.value == 100
    assert weights.area and weights.area.value == pytest.approx(over_decades(*path))
    # all classes alike tell nothing of others: Wilson's interval of the images
    assert weights.area.low is not None and 0 < weights.area.low < weights.area.value < (weights.area.high or 0) < 1


def test_the_interval_of_an_area_is_over_classes() -> None:
    ten, hundred = [0.1 * c for c in range(10)], [0.9] * 5 + [0.4] * 5
    weights = threats(*nulls("inversion"), attacked("mine", "inversion", **course((10, ten), (100, hundred))))[
        "WEIGHTS"
    ]
    areas = (np.array(ten) + 2 * np.array(hundred)) / 4
    half = t.ppf(0.975, 9) * areas.std(ddof=1) / math.sqrt(10)
    assert weights.area
    assert (weights.area.value, weights.area.low, weights.area.high) == pytest.approx(
        (areas.mean(), areas.mean() - half, areas.mean() + half)
    )


def test_scores_of_classes_in_any_order_are_of_the_same_classes() -> None:
    """As those of more than ten, which the store sorts as text."""
    ten, hundred = [0.1 * c for c in range(10)], [0.9] * 5 + [0.4] * 5
    cell = attacked("mine", "inversion", **course((10, ten), (100, hundred)))
    turned = cell.model_copy(update={"classes": cell.classes[::-1]})
    untrained = controls("inversion", random=([0.5] + [0.0] * 9, FAILS))
    for access, threat in threats(*untrained, cell).items():
        assert threat == threats(*untrained, turned)[access]


def test_more_access_takes_in_what_less_gets() -> None:
    found = threats(
        *(cell for attack in ("guess", "search", "inversion") for cell in nulls(attack)),
        attacked("mine", "guess", **course((5, 0.2))),
        attacked("mine", "search", **course((20, 0.1), (40, 0.5))),
        attacked("mine", "inversion", **course((3, 0.1), (400, 0.8))),
    )
    assert heights(found["LABELS"]) == {5: 0.2}
    assert heights(found["SCORES"]) == {5: 0.2, 20: 0.2, 40: 0.5}
    assert heights(found["WEIGHTS"]) == {3: 0.1, 5: 0.2, 20: 0.2, 40: 0.5, 400: 0.8}
    assert [found[access].attack for access in ("LABELS", "SCORES", "WEIGHTS")] == ["guess", "search", "inversion"]
    assert [point.attack for point in found["WEIGHTS"].points] == ["inversion", "guess", "guess", "search", "inversion"]
    halves = [one.cost_to_half and one.cost_to_half.value for one in found.values()]
    assert halves == [None, 40, 40]


def test_nothing_is_said_of_access_that_no_attack_made_do_with() -> None:
    found = threats(*nulls("inversion"), attacked("mine", "inversion", **course((3, 0.1))))
    for access in ("LABELS", "SCORES"):
        assert found[access] == ThreatModel(access=access)  # type: ignore[arg-type]


def test_an_attack_of_which_no_more_was_kept_is_one_point() -> None:
    # 1500 gradient steps, and 40 queries for 100 images
    weights = threats(*nulls("inversion"), attacked("mine", "inversion", 0.7, WORKS))["WEIGHTS"]
    assert heights(weights) == {1500.4: 0.7}
    assert weights.area and weights.area.value == pytest.approx(over_decades((1500.4, 0.7)))


def test_the_curve_keeps_the_best_and_the_index_is_of_the_outcome() -> None:
    weights = threats(*nulls("inversion"), attacked("mine", "inversion", **course((10, 0.8), (90, 0.6))))["WEIGHTS"]
    assert heights(weights) == {10: 0.8, 90: 0.8}
    assert weights.index and weights.index.value == pytest.approx(0.6)


def test_the_outcomes_worst_case_is_that_of_the_verdict() -> None:
    cells = [*BASE, *nulls("inversion"), *nulls("direct")]
    cells += [attacked("mine", "inversion", **course((9, 0.1), (90, [c / 10 for c in range(10)])))]
    cells += [attacked("mine", "direct", **course((9, 0.3), (30, [0.3] * 9 + [0.0])))]
    verdict = told(*cells)
    (weights,) = [threat for threat in verdict.threats if threat.access == "WEIGHTS"]
    assert verdict.index and weights.index and weights.attack == verdict.attack
    assert (weights.index.value, weights.index.low, weights.index.high) == (
        verdict.index.value, verdict.index.low, verdict.index.high,
    )  # fmt: skip


def test_an_attack_that_works_nowhere_is_no_worst_case_of_anybody() -> None:
    """As in the verdict, of whose intervals it would widen the threat model's alone."""
    spread = [c / 10 for c in range(10)]
    works = [*nulls("inversion"), attacked("mine", "inversion", **course((90, spread)))]
    broken = [attacked("han2020", "direct", 0.1, FAILS), attacked("random", "direct", 0.0, FAILS)]
    verdict = told(*BASE, *works, *broken, attacked("mine", "direct", 0.2, FAILS))
    weights = next(threat for threat in verdict.threats if threat.access == "WEIGHTS")
    assert weights == threats(*works)["WEIGHTS"]
    assert verdict.index and weights.index and verdict.index.low == weights.index.low


def test_seeds_count_with_what_each_had_and_begin_when_all_have_something() -> None:
    cells = [*nulls("direct", seed=0), *nulls("direct", seed=1), *anchors(noise=0.0, seed=1), *rows("mine", seed=1)]
    found = threats(
        *cells,
        attacked("mine", "direct", **course((1, 0.2), (10, 0.4), (50, 0.6)), seed=0),
        attacked("mine", "direct", **course((10, 0.2), (30, 0.8)), seed=1),
    )
    assert heights(found["WEIGHTS"]) == {10: 0.3, 30: 0.6, 50: 0.7}
    assert found["WEIGHTS"].area and found["WEIGHTS"].area.n == 2 * CLASSES


def test_a_cost_to_half_lies_between_those_of_its_limits() -> None:
    wide = [1.0] * 4 + [0.2] * 6  # .52, its interval from below .3 to above .7
    points = (3, [0.9] * 3 + [0.2] * 7), (30, wide), (300, 0.9)
    weights = threats(*nulls("inversion"), attacked("mine", "inversion", **course(*points)))["WEIGHTS"]
    half = weights.cost_to_half
    by_cost = {point.cost: point for point in weights.points}
    assert half and half.value == 30 and half.high == 300
    assert (by_cost[3].high or 0) >= 0.5 and half.low == 3
    assert (by_cost[30].low or 1) < 0.5 <= (by_cost[300].low or 0)


def test_what_beats_the_controls_alone_counts() -> None:
    """An attack that draws as much from untrained networks is none of a defence's leak (gate G2)."""
    found = threats(
        *nulls("inversion"),
        *controls("direct", random=(0.9, WORKS)),
        attacked("mine", "inversion", **course((9, 0.3))),
        attacked("mine", "direct", **course((2, 0.9))),
    )
    assert heights(found["WEIGHTS"]) == {9: 0.3}


def test_costs_beyond_the_ladder_add_no_area() -> None:
    weights = threats(*nulls("inversion"), attacked("mine", "inversion", **course((100, 0.4), (50_000, 1.0))))[
        "WEIGHTS"
    ]
    assert heights(weights) == {100: 0.4, 50_000: 1.0}
    assert weights.area and weights.area.value == pytest.approx(0.2)


def test_where_nothing_leaks_the_area_is_zero_with_an_upper_limit() -> None:
    weights = threats(*nulls("inversion"), attacked("mine", "inversion", **course((10, 0.0), (300, 0.0))))["WEIGHTS"]
    assert weights.cost_to_half is None and weights.area and weights.area.value == 0
    assert weights.area.low == 0 and 0 < (weights.area.high or 0) < 0.1


def test_without_anchors_there_is_no_scale_and_no_curve() -> None:
    cells = [*rows("mine"), *nulls("inversion"), attacked("mine", "inversion", **course((3, 0.4)))]
    (verdict,) = conclude(cells, {"inversion": "WEIGHTS"}, declared()).verdicts
    assert [threat.points for threat in verdict.threats] == [[], [], []]


def test_without_a_scale_on_what_the_attacks_share_there_is_no_area() -> None:
    class Scores:
        seeds, classes = (0,), (0, 1)

        def at(self, *_: object) -> np.ndarray:
            raise UsageError("no scale: real images score no better than the null")

    reading: Any = SimpleNamespace(scores=Scores(), index=0.5)
    assert AreaScores((1.0,), (reading,)).value is None


def test_more_than_real_images_show_counts_as_all() -> None:
    """Evaluation models accept fewer real images than of the attack's: the curve is cut at 1, and so is its area."""
    ten, hundred = [0.6] * 5 + [0.8] * 5, [1.0] * CLASSES
    cells = [*anchors(noise=0.0, real=0.8), *rows("mine"), *controls("inversion", random=(0.0, FAILS))]
    (weights,) = (
        threat
        for threat in told(*cells, attacked("mine", "inversion", **course((10, ten), (100, hundred)))).threats
        if threat.access == "WEIGHTS"
    )
    assert [point.value for point in weights.points] == pytest.approx([0.7 / 0.8, 1])
    assert weights.area and weights.area.value == pytest.approx(over_decades((10, 0.7 / 0.8), (100, 1)))
    half = t.ppf(0.975, 9) * np.std([0.6 / 0.8 / 4] * 5 + [0.8 / 0.8 / 4] * 5, ddof=1) / math.sqrt(10)
    assert (weights.area.high or 0) - weights.area.value == pytest.approx(half)


def test_less_than_the_null_is_nothing_and_no_debt() -> None:
    cells = [*anchors(noise=0.1), *rows("mine"), *controls("inversion")]
    (weights,) = (
        threat
        for threat in told(*cells, attacked("mine", "inversion", **course((1, 0.0), (10, 0.5), (100, 0.7)))).threats
        if threat.access == "WEIGHTS"
    )
    fifty, seventy = (0.5 - 0.1) / 0.9, (0.7 - 0.1) / 0.9
    assert [point.value for point in weights.points] == pytest.approx([0, fifty, seventy])
    assert weights.area and weights.area.value == pytest.approx(over_decades((10, fifty), (100, seventy)))
