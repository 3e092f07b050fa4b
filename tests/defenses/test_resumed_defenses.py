"""Defences that are interrupted end with the network, and the ledger, of those that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from interruption import Checkpoints, Interrupted, goes_on
from torch import Tensor

from leakbench import registry
from leakbench.contracts import DefenseContext, ImageClassifier, Progress, TrainingData
from leakbench.data import Dataset
from leakbench.defenses import calibrated
from leakbench.models.storage import build_ann
from leakbench.runtime.checkpoints import CheckpointFolder
from leakbench.snn import SpikingNetwork
from leakbench.snn.neurons import LIF

_SET: dict[str, Any] = {"samples": 20, "synthesis_steps": 4}
_SHORT: dict[str, Any] = {"epochs": 2, "least_steps": 0, "batch_size": 20}
# name -> parameters that keep it fast
DEFENSES: dict[str, dict[str, Any]] = {
    "random": {},
    "shuffled": {"epochs": 2, "batch_size": 20},
    "overfitted": {"images": 50, "epochs": 2},
    "han2020": {"images": 10},
    "deng_gu2021": _SHORT,
    "bu2022": _SHORT,
    "zambrano2019": _SHORT | {"images": 20},
    "stbp": _SHORT | {"dropout": 0.2},
    "tdbn": _SHORT,
    "lee2020": _SHORT,
    "zskd": _SET | {"epochs": 3, "batch_size": 8},
    "knowledge_within": _SET | {"epochs": 3, "batch_size": 8, "synthesis_batch": 12},
    "dpsgd": _SET | {"images": 10, "noise_multiplier": 1.0, "epochs": 2, "batch_size": 20},
    "datafree": _SET | {"synthesis_range": "authors"},
    "privatesnn": _SET | {"epochs": 4, "batch_size": 8, "conv_dropout": 0.2, "dropout": 0.2, "augmented": True},
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("part", [0.4, 0.9])
@pytest.mark.parametrize("name", DEFENSES)
def test_an_interrupted_defence_ends_as_if_it_had_not_been(
    name: str, part: float, digits: Dataset, digits_ann: ImageClassifier, tmp_path: Path
) -> None:
    if name == "dpsgd":
        pytest.importorskip("opacus", reason="dpsgd not tested: no opacus")
    ann = digits_ann
    if name == "knowledge_within":
        ann = build_ann("vgg4bn", digits.image_shape, 10, digits.input_range, torch.Generator().manual_seed(1))
        ann(digits.train.images[:200].float() / 255)  # statistics

    def run(progress: Progress, checkpoints: Checkpoints | None) -> Any:
        torch.manual_seed(5)
        data = TrainingData(digits.train.images[:100], digits.train.labels[:100])
        generator = torch.Generator().manual_seed(3)
        context = DefenseContext(generator, progress=progress, checkpoints=checkpoints, flips=True, timesteps=4)
        network = registry.load("defense", name)(**DEFENSES[name])(ann, data, context)
        tensors = {key: tensor.tolist() for key, tensor in network.state_dict().items()}
        ledger = data.images_read, data.reads
        # the next draws are those of an uninterrupted run, too
        return tensors, ledger, context.seed(), torch.rand(1).item()

    goes_on(run, tmp_path, part)


@pytest.mark.slow
def test_layers_that_were_measured_are_not_measured_again(
    digits_ann: ImageClassifier, digits_data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    mean_outputs = calibrated.mean_outputs

    def counted(network: SpikingNetwork, layer: LIF, *args: Any) -> Tensor:
        measured.append(layer.layer)
        return mean_outputs(network, layer, *args)

    monkeypatch.setattr(calibrated, "mean_outputs", counted)

    def run(last: int | None, checkpoints: Checkpoints | None) -> dict[str, Any]:
        def progress(what: str, done: int, _total: int) -> None:
            if what == "calibrating layers" and done == last:
                raise Interrupted

        context = DefenseContext(
            torch.Generator().manual_seed(3), progress=progress, checkpoints=checkpoints, timesteps=4
        )
        network = calibrated.Li2021(images=10)(digits_ann, digits_data, context)
        return {key: tensor.tolist() for key, tensor in network.state_dict().items()}

    whole = run(None, None)
    layers, measured[:] = list(measured), []
    with pytest.raises(Interrupted):
        run(2, CheckpointFolder(tmp_path, {}, every=0).checkpoint)
    assert measured == layers[:2]
    assert run(None, CheckpointFolder(tmp_path, {}, every=0).checkpoint) == whole
    assert measured == layers
