"""Temporal switch coding on the digits: RMP's tensors, another code; and what attacks make of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from on_digits import protect

from leakbench.bench.stages.utility import operations
from leakbench.contracts import ImageClassifier, TrainingData
from leakbench.data import Dataset
from leakbench.defenses.conversion import Han2020
from leakbench.defenses.switch import HanRoy2020
from leakbench.metrics.energy import INT32, energy_ratio
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.switch import Switch, SwitchNeuron


@pytest.mark.slow
@pytest.mark.parametrize("params", [{}, {"beta": 0.7, "calibration_steps": 5}])
def test_weights_and_thresholds_are_those_of_rmp(
    params: dict[str, Any], digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    mine = protect(HanRoy2020(images=50, **params), digits_ann, digits_data, 32)
    assert digits_data.images_read == 50
    theirs = protect(Han2020(images=50, **params), digits_ann, digits_data, 32)
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in mine.state_dict().items())
    assert mine.config == SpikingConfig(32, "switch", SwitchNeuron())
    assert all(isinstance(layer, Switch) for layer in mine.neurons)


def test_one_network_serves_every_t_where_thresholds_have_steps_of_their_own(
    digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    assert not HanRoy2020().anytime
    plugin = HanRoy2020(images=30, calibration_steps=20)
    assert plugin.anytime
    short, long = (protect(plugin, digits_ann, digits_data, timesteps).state_dict() for timesteps in (8, 64))
    assert all(torch.equal(value, long[key]) for key, value in short.items())


@pytest.mark.slow
def test_accuracy_comes_to_the_anns_at_a_fraction_of_the_energy_of_rates(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    images, labels = digits.test.images[:200].float() / 255, digits.test.labels[:200]
    ratios, right = [], []
    for plugin in (HanRoy2020(images=100), Han2020(images=100)):
        network = protect(plugin, digits_ann, digits_data, 128)
        done = network.simulate(images, seed=0)
        right.append(float((done.logits.argmax(1) == labels).double().mean()))
        layers = operations(network, {name: count / 200 for name, count in done.spikes.items()})
        ratios.append(energy_ratio(layers, INT32))
    ann = float((digits_ann(images).argmax(1) == labels).double().mean())
    assert right[0] > ann - 0.03
    # two spikes a value, where a rate takes T of them
    assert ratios[0] > 5 * ratios[1]


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["vgg4bn", "vgg5max", "resnet8"])
def test_other_architectures_are_converted_and_stored(arch: str, digits: Dataset, digits_data: TrainingData) -> None:
    """An untrained one of each: folded batch norms, pooled intervals and sums of branches add up as in its ANN."""
    ann = build_ann(arch, (1, 8, 8), 10, digits.input_range, torch.Generator().manual_seed(2)).eval()
    network = protect(HanRoy2020(images=40, calibration_steps=30), ann, digits_data, 1000)
    tensors, record = save_network(network)
    again = load_network(tensors, record, torch.device("cpu"))
    images = digits.test.images[:30].float() / 255
    mine, theirs = network(images, seed=0), ann(images)
    assert isinstance(again, SpikingNetwork)
    assert torch.equal(again(images, seed=0), mine)
    assert float((mine - theirs).abs().max()) < 0.1 * float(theirs.abs().max())
