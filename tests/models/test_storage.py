"""Networks to tensors and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import UsageError
from leakbench.models.storage import build_ann, load_ann, load_network, save_network
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, Surrogate

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)


def ann(seed: int = 0, classes: int = 10, shape: tuple[int, int, int] = SHAPE) -> ImageClassifier:
    return build_ann("vgg4", shape, classes, InputRange(-1.0, 1.0), torch.Generator().manual_seed(seed)).eval()


def through_files(network: ImageClassifier | SpikingNetwork, folder: Path) -> ImageClassifier | SpikingNetwork:
    """Save and load as the store does: tensors as safetensors, the record as JSON."""
    tensors, record = save_network(network)
    save_file(tensors, folder / "tensors.safetensors")
    return load_network(load_file(folder / "tensors.safetensors"), json.loads(json.dumps(record)), CPU)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(3, *SHAPE, generator=generator)


def test_an_ann_comes_back_as_it_was(images: Tensor, tmp_path: Path) -> None:
    network = ann()
    back = through_files(network, tmp_path)
    assert isinstance(back, ImageClassifier)
    assert torch.equal(back(images), network(images))
    assert (back.image_shape, back.classes, back.input_range, back.arch) == (SHAPE, 10, (-1.0, 1.0), "vgg4")
    assert not back.training
    assert not any(p.requires_grad for p in back.parameters())
    tensors, record = save_network(network)
    assert torch.equal(load_ann(tensors, record, CPU)(images), network(images))


def test_a_spiking_network_comes_back_with_thresholds_per_channel_and_initial_membranes(
    images: Tensor, tmp_path: Path, generator: torch.Generator
) -> None:
    neuron = Neuron(0.97, "hard", detach_reset=True, surrogate=Surrogate("arctan", 0.7, 0.3))
    network = SpikingNetwork.from_ann(ann(), SpikingConfig(9, "poisson", neuron))
    first, second, third = network.neurons
    first.set_threshold(0.5 + torch.rand(32, 1, 1, generator=generator))
    second.set_threshold(1.25)
    third.set_threshold(0.5 + torch.rand(128, generator=generator))
    first.initial = torch.tensor(0.3)
    third.initial = torch.rand(128, generator=generator)
    back = through_files(network, tmp_path)
    assert isinstance(back, SpikingNetwork)
    assert back.config == network.config
    for mine, theirs in zip(back.neurons, network.neurons, strict=True):
        assert torch.equal(mine.threshold, theirs.threshold)
        assert torch.equal(mine.initial, theirs.initial)
    first_run, second_run = network.simulate(images, seed=5), back.simulate(images, seed=5)
    assert first_run.logits.abs().max() > 0
    assert torch.equal(second_run.logits, first_run.logits)
    assert second_run.spikes == first_run.spikes
    assert not any(p.requires_grad for p in back.parameters())


def test_saved_tensors_are_no_views_of_the_network() -> None:
    """The store writes them later: a network that is trained on must not change what was saved."""
    network = ann()
    tensors, _ = save_network(network)
    kept = {key: value.clone() for key, value in tensors.items()}
    loaded = load_ann(tensors, save_network(network)[1], CPU)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    assert all(torch.equal(tensors[key], kept[key]) for key in kept)


def test_a_network_without_a_name_can_not_be_kept() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(UsageError, match=r"architecture '' can't be kept.*build_ann"):
        save_network(ImageClassifier(body, SHAPE, 10))
