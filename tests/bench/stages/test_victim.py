"""The deployed network of a cell: what its defence read and changed, at which T and precision."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import (
    DEFENSES,
    OURS,
    Warm,
    cell_of,
    copied,
    run_here,
    value_of,
)


def test_a_defence_s_reads_steps_and_weight_motion(warm: Warm) -> None:
    ann, han, random, ours = rows = [cell_of(warm.record, name) for name in DEFENSES]
    # images = 16 of 48 and han2020's 512, i.e. all, no image twice; the other controls read none
    assert [value_of(cell, "training_images_read") for cell in rows] == [0, 48, 0, 16]
    assert [value_of(cell, "timesteps") for cell in rows] == [1, 4, 4, 4]
    assert [cell.timesteps for cell in rows] == [None, 4, 4, 4]
    # a conversion by thresholds leaves the weights; float64 sums round at 1e-12
    for cell in (ann, han, ours):
        assert value_of(cell, "weight_cosine") == pytest.approx(1, abs=1e-9)
    assert abs(value_of(random, "weight_cosine")) < 0.1  # 50 000 random weights: standard deviation 1/sqrt(50000)
    assert {motion.relative_norm for motion in (*han.motion, *ours.motion)} == {0.0}
    assert all(motion.relative_norm > 0.5 for motion in random.motion)
    assert len(ann.weights) == 64
    assert ann.weights == han.weights == ours.weights != random.weights
    spike_norm = {"encoder": "poisson", "leak": 1.0, "calibration_steps": None}
    assert han.defense_params == {"images": 512, "beta": 1.0, **spike_norm}
    assert ours.defense_params == {"images": 16, **spike_norm}


@pytest.mark.slow
def test_a_precision_makes_networks_of_its_own_and_is_recorded(warm: Warm, tmp_path: Path) -> None:
    cache = copied(warm.cache, tmp_path / "cache")
    alone = {"defense": ["ann", OURS], "attack": ["none"], "controls": False, "set": {f"{OURS}.images": ["16"]}}
    record = run_here(warm.tiny.options(precision="bfloat16", **alone), cache, tmp_path / "run")
    assert (warm.record.environment["precision"], record.environment["precision"]) == ("float32", "bfloat16")
    assert {cell.status for cell in record.cells} == {"ok"} and len(record.cells) == 2
    for after in record.cells:
        assert after.artifacts["victim"] != cell_of(warm.record, after.defense).artifacts["victim"]
