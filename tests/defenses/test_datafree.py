"""Data-free conversion: which synthetic images set the thresholds, and that PrivateSNN builds on the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from leakbench.contracts import DefenseContext, ImageClassifier, SharedBuild, TrainingData
from leakbench.defenses import datafree
from leakbench.defenses.datafree import DataFree, DataFreeParams, convert_datafree
from leakbench.defenses.privatesnn import PrivateSNN
from leakbench.defenses.synthesis import SynthesisParams
from leakbench.snn import SpikingNetwork

SMALL: dict[str, Any] = {"samples": 20, "synthesis_steps": 3}


class Shelf:
    """A store for shared artifacts: each is built once, under a seed of its own."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Tensor]] = {}

    def __call__(self, name: str, version: int, params: Mapping[str, Any], build: SharedBuild) -> dict[str, Tensor]:
        key = f"{name} {version} {sorted(params.items())}"
        if key not in self.kept:
            self.kept[key] = build(DefenseContext(torch.Generator().manual_seed(77)))
        return self.kept[key]


def protect(defense: Any, ann: ImageClassifier, data: TrainingData, shelf: Shelf) -> SpikingNetwork:
    context = DefenseContext(torch.Generator().manual_seed(5), timesteps=8, shared_store=shelf)
    network = defense(ann, data, context)
    assert isinstance(network, SpikingNetwork)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["sound", "authors"])
def test_both_defences_share_one_set_and_without_cet_they_are_one_network(
    setting: str, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    shelf, given = Shelf(), SMALL | {"setting": setting}
    plain = protect(DataFree(**given), digits_ann, digits_data, shelf)
    # other parameters of the training are none of the set's
    protect(PrivateSNN(**given, epochs=1, m=0.5, timesteps=8), digits_ann, digits_data, shelf)
    without = protect(PrivateSNN(**given, cet=False), digits_ann, digits_data, shelf)
    assert len(shelf.kept) == 1
    assert without.config == plain.config
    assert plain.state_dict().keys() == without.state_dict().keys()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, without.state_dict()[key]), key
    for name, weight in plain.weights().items():
        assert torch.equal(weight, digits_ann.state_dict()[f"body.{name}.weight"])


@pytest.mark.parametrize("preset", ["quick", "standard", "paper"])
def test_both_defences_share_one_set_in_every_preset(preset: str) -> None:
    """DC is PrivateSNN's first step: in one grid both stand on the same synthetic images."""
    first = DataFree(**DataFree.presets.get(preset, {})).params
    second = PrivateSNN(**PrivateSNN.presets.get(preset, {})).params
    for field in SynthesisParams.model_fields:
        assert getattr(first, field) == getattr(second, field), field


@pytest.mark.parametrize(("samples", "wanted"), [(2000, 512), (500, 512), (5000, 512), (1000, 30), (100, 99)])
def test_thresholds_are_found_on_images_of_every_class(
    samples: int, wanted: int, digits_ann: ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set is ordered by class: each class must be picked about equally often, and ``images`` of them in all."""
    intended = torch.arange(10).repeat_interleave(samples // 10)
    coded = intended.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)  # the class is the pixels' value
    seen: list[Tensor] = []
    monkeypatch.setattr(datafree, "synthetic_set", lambda *_: {"images": coded})
    monkeypatch.setattr(datafree, "balance_thresholds", lambda _network, images, *_, **__: seen.append(images))
    params = DataFreeParams(samples=samples, images=wanted)
    convert_datafree(digits_ann, params, DefenseContext(torch.Generator(), timesteps=4))
    classes = (seen[0][:, 0, 0, 0] * 255).round().long().bincount(minlength=10)
    assert classes.sum() == min(samples, wanted)
    assert classes.max() - classes.min() <= 1


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_the_first_threshold_is_the_highest_input_over_the_set(
    scale: float, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    shelf = Shelf()
    network = protect(DataFree(**SMALL, scale=scale, encoder="direct"), digits_ann, digits_data, shelf)
    (made,) = shelf.kept.values()
    weight = digits_ann.state_dict()["body.0.weight"]
    highest = functional.conv2d(made["images"].float() / 255, weight, padding=1).max().item()
    assert float(network.neurons[0].threshold) == pytest.approx(scale * highest, rel=1e-5)


def test_its_neurons_are_soft_reset_with_the_leak_asked_for(
    digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = protect(DataFree(**SMALL, leak=0.95), digits_ann, digits_data, Shelf())
    assert (network.config.neuron.reset, network.config.neuron.leak, network.config.encoder) == (
        "soft",
        0.95,
        "poisson",
    )
