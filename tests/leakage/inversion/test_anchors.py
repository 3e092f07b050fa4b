"""Anchors: noise and real images at the two ends of the scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_runs import (
    OURS,
    Warm,
    cell_of,
    run_here,
    value_of,
)
from torch import Tensor

from leakbench.contracts import Context, LabeledImages
from leakbench.leakage.inversion import anchors
from leakbench.leakage.inversion.targets import attacked_classes
from leakbench.metrics.reconstructions import some_of_each
from leakbench.runtime.store import Content

MEASURED_ON_ITS_IMAGES = {"judge_accuracy", "daa", "fd_bnconv", "kd_bnconv", "precision", "density"}


def test_anchors_calibrate(warm: Warm) -> None:
    noise, real = cell_of(warm.record, "", "noise"), cell_of(warm.record, "", "real")
    assert value_of(real, "judge_accuracy") == 1  # the judges were trained on these three easy classes
    for metric in ("fd_bnconv", "kd_bnconv", "knn_distance"):
        assert value_of(real, metric) < value_of(noise, metric)
    assert value_of(real, "kes") > value_of(noise, "kes") + 0.3  # of chance 1/3
    # three draws of two images of each class are counted together; a distance stays one at six images
    for cell, draws in ((noise, 3), (cell_of(warm.record, "", "noise (fresh draw)"), 1)):
        n = {v.metric: v.n for v in cell.values}
        assert (n["judge_accuracy"], n["fd_bnconv"]) == (draws * 6, 6)
        assert {score.n for score in cell.classes if score.metric == "judge_accuracy"} == {draws * 2}


def test_a_fresh_draw_is_another_one(warm: Warm) -> None:
    for anchor in ("noise", "real"):
        drawn, fresh = cell_of(warm.record, "", anchor), cell_of(warm.record, "", f"{anchor} (fresh draw)")
        assert drawn.artifacts["images"] != fresh.artifacts["images"]
        assert drawn.pictures and not fresh.pictures


@pytest.mark.parametrize(("count", "draws", "shared"), [(4, 3, 0), (8, 2, 6), (10, 1, 2), (18, 1, 18)])
def test_draws_share_no_image_and_the_fresh_one_as_few_as_there_can_be(
    monkeypatch: pytest.MonkeyPatch, count: int, draws: int, shared: int
) -> None:
    """Of 18 images a class, with so many to a draw; ``shared``: of each class with the other draws."""
    labels = torch.arange(54) % 3
    data = SimpleNamespace(
        fingerprint="", classes=["a", "b", "c"], test=LabeledImages(torch.arange(54).reshape(-1, 1, 1, 1), labels)
    )
    everything = SimpleNamespace(
        some_anchors=lambda labels, _, *how: some_of_each(labels, *how), classes=torch.arange(3)
    )
    monkeypatch.setattr(anchors, "evaluation_of", lambda *_: everything)

    def make(_stage: object, seed: int, _inputs: object, build: Callable[[Context], Content]) -> Tensor:
        content, _ = build(Context(torch.Generator().manual_seed(seed), torch.device("cpu")))
        assert content["targets"].bincount().tolist() == [count] * 3
        return content["images"].flatten()

    workspace: Any = SimpleNamespace(dataset=lambda _: data, make=make)
    where = {"dataset": "digits", "model": "vgg4", "seed": 0, "preset": "quick", "leakage": "inversion"}
    cell: Any = SimpleNamespace(**where, anchor="real", classes=None, images_per_class=count)
    drawn: list[Any] = [anchors._draw(workspace, cell, number) for number in (*range(draws), anchors.FRESH)]
    usual, fresh = {int(one) for draw in drawn[:-1] for one in draw}, {int(one) for one in drawn[-1]}
    assert len(usual) == 3 * draws * count and len(fresh) == 3 * count
    assert len(usual & fresh) == 3 * shared


def test_images_that_are_all_drawn_at_once_are_one_draw(warm: Warm) -> None:
    """Two images of a class are drawn, and there are two."""
    n = {v.metric: v.n for v in cell_of(warm.record, "", "real").values}
    assert (n["judge_accuracy"], n["fd_bnconv"]) == (6, 6)


@pytest.mark.long
@pytest.mark.slow
def test_the_real_anchor_may_take_all_test_images(warm: Warm, tmp_path: Path) -> None:
    """A small data set of one's own, of which anchors draw from one half: LeakBench's control must not fail the run."""
    options = warm.tiny.options(attack=["direct"], images_per_class=4, controls=False)  # 4 test images a class
    record = run_here(options, warm.grown, tmp_path / "run")
    assert {v.n for v in cell_of(record, OURS, "direct").values if v.metric in MEASURED_ON_ITS_IMAGES} == {12}
    real = cell_of(record, "", "real")
    assert real.status != "failed", real.reason
    assert value_of(real, "judge_accuracy") == 1
    assert [picture.target for picture in real.pictures] == [0, 0, 1, 1, 2, 2]  # no image twice
    fresh = cell_of(record, "", "real (fresh draw)")
    assert (fresh.status, "a fresh draw is the same one" in fresh.reason) == ("not-applicable", True)
    (scale,) = [one for one in record.scales if one.metric == "judge_accuracy"]
    assert scale.fresh_real.value is None and scale.fresh_noise.value is not None


@pytest.mark.long
@pytest.mark.slow
def test_two_of_three_classes_are_attacked_and_compared(warm: Warm, tmp_path: Path) -> None:
    record = run_here(warm.tiny.options(attack=["direct"], classes=2), warm.grown, tmp_path / "run")
    attacked = attacked_classes(3, 2).tolist()
    for cell in (cell_of(record, OURS, "direct"), cell_of(record, "", "noise"), cell_of(record, "", "real")):
        assert cell.status != "failed", cell.reason
        assert {score.target for score in cell.classes} == set(attacked)
    assert value_of(cell_of(record, "", "real"), "kes") > value_of(cell_of(record, "", "noise"), "kes") + 0.2
    (verdict,) = [one for one in record.verdicts if one.defense == cell_of(record, OURS, "direct").defense]
    assert (verdict.classes, verdict.among) == (attacked, 3)
    assert "1 of 3 classes were not attacked" in verdict.missing
    # the ones that all classes were attacked of are others, in the same store
    whole = run_here(warm.tiny.options(attack=["direct"]), warm.grown, tmp_path / "whole")
    assert [one.among for one in whole.verdicts] == [None] * len(whole.verdicts)
    keys = [cell_of(one, OURS, "direct").artifacts["images"] for one in (record, whole)]
    assert keys[0] != keys[1]
