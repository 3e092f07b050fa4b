"""Attacks of a run: what they took is counted."""

from __future__ import annotations

import pytest
from tiny_runs import (
    CLASSES,
    DEFENSES,
    OURS,
    Warm,
    cell_of,
    value_of,
)

MEASURED_ON_ITS_IMAGES = {"judge_accuracy", "daa", "fd_bnconv", "kd_bnconv", "precision", "density"}


def test_attacks_are_counted(warm: Warm) -> None:
    assert value_of(cell_of(warm.record, OURS, "direct (iterations=1)"), "gradient_steps") == 1
    for defense in DEFENSES:
        direct, gated = cell_of(warm.record, defense, "direct"), cell_of(warm.record, defense, "gated")
        assert value_of(direct, "gradient_steps") == 2  # direct.iterations
        assert value_of(gated, "gradient_steps") == 0
        assert value_of(gated, "queries") == 0
        for cell in (direct, gated):
            assert {v.n for v in cell.values if v.metric in MEASURED_ON_ITS_IMAGES} == {2 * len(CLASSES)}
            hits = value_of(cell, "judge_accuracy") * 6
            assert hits == pytest.approx(round(hits), abs=1e-9)
            assert 0 <= value_of(cell, "victim_confidence") <= 1
