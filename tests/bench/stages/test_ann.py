"""The ANN of a cell: a user's own weights, or trained ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import (
    DEFENSES,
    Warm,
    cell_of,
    held_out,
    run_here,
    value_of,
)
from torch.nn.functional import avg_pool2d, conv2d, linear, relu

from leakbench.runtime.store import Store


def test_the_ann_s_accuracy_is_the_checkpoint_s_own(warm: Warm) -> None:
    """Against a forward pass written out from the weights file and the test images."""
    weights = load_file(warm.tiny.checkpoint)
    images, labels = held_out(warm.tiny)
    x = avg_pool2d(relu(conv2d(images.float() / 255, weights["0.weight"], padding=1)), 2)
    x = avg_pool2d(relu(conv2d(x, weights["3.weight"], padding=1)), 2)
    logits = linear(relu(linear(x.flatten(1), weights["7.weight"])), weights["10.weight"])
    share = float((logits.argmax(1) == labels).double().mean())
    assert share > 0.6  # trained: else the other tests would look at a network without anything to find
    for defense in DEFENSES:
        assert value_of(cell_of(warm.record, defense), "ann_accuracy") == pytest.approx(share, abs=1e-12)
    (accuracy,) = [v for v in cell_of(warm.record, "ann").values if v.metric == "accuracy"]
    assert (accuracy.value, accuracy.n) == (pytest.approx(share, abs=1e-12), len(labels))


@pytest.mark.long
@pytest.mark.slow
def test_a_model_is_trained_where_no_weights_are_given(warm: Warm, tmp_path: Path) -> None:
    options = warm.tiny.options(ann=None, defense=["ann"], seeds=2, attack=["none"], controls=False, set=None)
    record = run_here(options, warm.grown, tmp_path / "run")
    assert {cell.status for cell in record.cells} == {"ok"}
    keys = [cell_of(record, "ann", seed=seed).artifacts["ann"] for seed in (0, 1)]
    assert keys[0] != keys[1] != cell_of(warm.record, "ann").artifacts["ann"]
    store = Store(warm.grown)
    first, second = (store.read(key) for key in keys)
    assert first is not None and second is not None
    assert not torch.equal(first.tensors["body.0.weight"], second.tensors["body.0.weight"])
    # three easy classes, chance is 1/3: 20 epochs of two steps reach more
    assert value_of(cell_of(record, "ann"), "accuracy") > 0.5
