"""What several seeds of one cell say together: estimates, intervals and p-values, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from by_hand import NOWHERE, cell, place
from scipy.stats import chi2, t


def test_a_seed_group_is_the_cells_that_worked_by_seed() -> None:
    cells = [cell("a", "b", overall={"x": float(seed), "y": 1.0}, seed=seed) for seed in (2, 0, 1)]
    cells[1] = cells[1].model_copy(update={"status": "failed", "reason": "mine"})
    cells[2] = cells[2].model_copy(update={"values": cells[2].values[:1]})
    found = place(*cells)
    assert [one.seed for one in found.cells] == [1, 2]
    assert found.metrics == ["x"]  # y is not measured on every seed
    assert found.mean("x") == 1.5
    assert found.mean("y") == 1.0
    assert found.mean("z") is None and found.estimate("z") is None and found.p is None
    assert not NOWHERE and found
    assert NOWHERE.metrics == []


def test_an_estimate_is_the_seed_s_own_or_the_mean_of_seeds() -> None:
    alone = place(cell("a", "b", overall={"x": (0.5, 0.3, 0.8)})).estimate("x")
    assert alone is not None
    assert (alone.value, alone.low, alone.high, alone.n) == (0.5, 0.3, 0.8, 100)
    several = place(*(cell("a", "b", overall={"x": (v, 0.0, 1.0)}, seed=s) for s, v in enumerate((0.2, 0.4, 0.9))))
    found = several.estimate("x")
    assert found is not None
    half = t.ppf(0.975, 2) * np.std([0.2, 0.4, 0.9], ddof=1) / math.sqrt(3)
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high, found.n) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half), 3)


def test_seeds_that_agree_have_the_interval_of_one() -> None:
    alike = place(*(cell("a", "b", overall={"x": (0.5, 0.3 + s / 10, 0.8)}, seed=s) for s in range(3))).estimate("x")
    assert alike is not None
    assert (alike.value, alike.low, alike.high, alike.n) == (0.5, pytest.approx(0.4), pytest.approx(0.8), 3)
    bare = place(*(cell("a", "b", overall={"x": 0.5}, seed=s) for s in range(3))).estimate("x")
    assert bare is not None and math.isnan(bare.low) and math.isnan(bare.high)  # none of them has one


def test_shares_of_images_over_seeds_have_an_interval_over_classes_and_seeds() -> None:
    """Three networks that agree still say little of others, and no limit leaves [0, 1]."""
    alike = place(*(cell("a", "b", {"judge_accuracy": 0.9}, seed=s) for s in range(3))).estimate("judge_accuracy")
    assert alike is not None and alike.value == pytest.approx(0.9)
    assert 0.8 < alike.low < 0.9 < alike.high < 1
    sure = place(*(cell("a", "b", {"judge_accuracy": 1.0}, seed=s) for s in range(3))).estimate("judge_accuracy")
    assert sure is not None and sure.low < sure.value == pytest.approx(sure.high) == 1


def test_the_seeds_p_values_are_combined_by_fisher_s_method() -> None:
    def p(*values: float) -> float | None:
        return place(*(cell("a", "b", overall={"p_value": v}, seed=s) for s, v in enumerate(values))).p

    assert p(0.03) == 0.03
    for values in ((0.03, 0.2), (0.5, 0.5, 0.5), (0.0001, 1.0)):
        assert p(*values) == pytest.approx(chi2.sf(-2 * sum(map(math.log, values)), 2 * len(values)))
