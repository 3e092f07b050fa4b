"""The conversion to adaptive spiking neurons on the digits, and what attacks make of it."""

from __future__ import annotations

import math

import pytest
import torch
from on_digits import protect
from torch import nn
from torch.nn import functional

from leakbench.bench.stages.utility import operations
from leakbench.contracts import ImageClassifier, TrainingData
from leakbench.data import Dataset
from leakbench.defenses.adaptive import Zambrano2019
from leakbench.errors import NumericalError
from leakbench.metrics.energy import INT32, energy_ratio
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.snn import SpikingConfig, SpikingNetwork, analog_twin
from leakbench.snn.adaptive import Adaptive, AdaptiveNeuron, AdaptiveTransfer
from leakbench.snn.folding import replace


def test_scales_are_the_highest_activations_on_the_sampled_images(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = protect(Zambrano2019(images=130, finetune=False), digits_ann, digits_data, 32)
    chosen = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(4))[:130]
    x = digits.train.images[chosen].float() / 255
    weights = [digits_ann.state_dict()[f"body.{name}.weight"] for name in ("0", "3", "7")]
    for layer, weight in zip(network.neurons, weights, strict=True):
        if weight.dim() == 4:
            x = functional.conv2d(x, weight, padding=1).relu()
            highest = x.max()
            x = functional.avg_pool2d(x, 2)
        else:
            x = functional.linear(x.flatten(1), weight).relu()
            highest = x.max()
        # float32 convolutions, perhaps summed in another order
        torch.testing.assert_close(layer.threshold, highest, rtol=1e-5, atol=0)
    assert digits_data.images_read == digits_data.reads == 130


def test_without_fine_tuning_weights_are_the_anns(digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    network = protect(Zambrano2019(images=30, finetune=False, m_f=0.2), digits_ann, digits_data, 32)
    for name, weight in network.weights().items():
        assert torch.equal(weight, digits_ann.state_dict()[f"body.{name}.weight"])
    assert network.config == SpikingConfig(32, "direct", AdaptiveNeuron(m_f=0.2))
    assert all(isinstance(layer, Adaptive) for layer in network.neurons)


def in_the_long_run(network: SpikingNetwork) -> ImageClassifier:
    """The ANN of a network's weights and its neurons' f."""
    ann = network.reconvert()
    for layer in network.neurons:
        assert isinstance(layer.neuron, AdaptiveNeuron)
        replace(ann.body, layer.layer, AdaptiveTransfer(layer.layer, layer.neuron, layer.threshold))
    return ann


@pytest.mark.slow
def test_fine_tuning_teaches_the_transfer_functions_and_reads_all_private_images(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    """With thresholds so high that f bends, the untouched weights lose what fine-tuning brings back."""
    losses = []
    for finetune in (False, True):
        network = protect(
            Zambrano2019(images=100, m_f=1.0, least_steps=100, finetune=finetune), digits_ann, digits_data, 32
        )
        images, labels = digits.train.images.float() / 255, digits.train.labels
        losses.append(float(functional.cross_entropy(in_the_long_run(network)(images), labels)))
    assert losses[1] < 0.7 * losses[0]
    # the sample of one run, and everything once for the other
    assert digits_data.reads == 100 + len(digits.train)
    assert digits_data.images_read == len(digits.train)


@pytest.mark.slow
def test_one_network_serves_every_t(digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    plugin = Zambrano2019(images=50, epochs=1, least_steps=0)
    assert plugin.anytime
    short, long = (protect(plugin, digits_ann, digits_data, timesteps).state_dict() for timesteps in (8, 64))
    assert all(torch.equal(value, long[key]) for key, value in short.items())


@pytest.mark.long
@pytest.mark.slow
def test_accuracy_comes_to_the_anns_with_few_spikes(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = protect(Zambrano2019(images=200), digits_ann, digits_data, 64)
    images, labels = digits.test.images[:200].float() / 255, digits.test.labels[:200]
    done = network.simulate(images, seed=0)
    ann = (digits_ann(images).argmax(1) == labels).double().mean()
    assert (done.logits.argmax(1) == labels).double().mean() > ann - 0.03
    layers = operations(network, {name: count / 200 for name, count in done.spikes.items()})
    assert [layer.constant_current for layer in layers] == [True, False, False, False]
    neurons = network.topology.neurons
    rates = {name: done.spikes[name] / 200 / size / 64 for name, size in neurons.items()}
    assert all(0 < rate < 0.05 for rate in rates.values())
    assert math.isfinite(energy_ratio(layers, INT32))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["vgg4bn", "vgg5max", "resnet8"])
def test_other_architectures_are_converted_and_stored(arch: str, digits: Dataset, digits_data: TrainingData) -> None:
    """An untrained one of each, whose answers are those of its transfer functions."""
    ann = build_ann(arch, (1, 8, 8), 10, digits.input_range, torch.Generator().manual_seed(2)).eval()
    network = protect(Zambrano2019(images=40, epochs=1, least_steps=0, lr=1e-4), ann, digits_data, 300)
    tensors, record = save_network(network)
    again = load_network(tensors, record, torch.device("cpu"))
    images = digits.test.images[:30].float() / 255
    mine, twin = network(images), analog_twin(network)(images)
    assert isinstance(again, SpikingNetwork)
    assert torch.equal(again(images), mine)
    pair = torch.stack([mine.flatten(), twin.flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.9


def test_dead_activations_are_named(digits_data: TrainingData) -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 10))
    nn.init.constant_(body[1].weight, -1.0)
    nn.init.constant_(body[1].bias, -1.0)
    ann = ImageClassifier(body, (1, 8, 8), 10)
    with pytest.raises(NumericalError, match="layer '2' has no positive finite activation"):
        protect(Zambrano2019(images=20), ann, digits_data)
