"""What holds for every built-in defence, one row each; a new defence is one row more."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from leakbench import registry
from leakbench.contracts import Context, Defense, ImageClassifier, TrainingData
from leakbench.errors import UsageError
from leakbench.snn import SpikingNetwork

SMALL_SET = {"samples": 20, "synthesis_steps": 3}
# name -> parameters that keep it fast, private training images that it reads
DEFENSES: dict[str, tuple[dict[str, Any], int]] = {
    "ann": ({}, 0),
    "random": ({}, 0),
    "shuffled": ({"epochs": 1}, 1437),
    "sengupta2019": ({"images": 30}, 30),
    "han2020": ({"images": 30}, 30),
    "datafree": (SMALL_SET, 0),
    "privatesnn": ({**SMALL_SET, "epochs": 1}, 0),
}
every = pytest.mark.parametrize("name", list(DEFENSES))


def build(name: str) -> Defense[Any]:
    plugin: Defense[Any] = registry.load("defense", name)(**DEFENSES[name][0])
    return plugin


def protect(name: str, ann: ImageClassifier, data: TrainingData, seed: int = 0) -> SpikingNetwork | ImageClassifier:
    return build(name)(ann, data, Context(torch.Generator().manual_seed(seed), timesteps=8))


def test_the_table_is_complete() -> None:
    assert [entry.name for entry in registry.entries("defense").values() if entry.origin == "built-in"] == list(
        DEFENSES
    )


@every
def test_it_reads_as_many_private_images_as_it_says(
    name: str, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    protect(name, digits_ann, digits_data)
    assert (digits_data.images_read, digits_data.reads) == (DEFENSES[name][1],) * 2


@every
def test_the_ann_is_left_as_it_was(name: str, digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    before = {key: value.clone() for key, value in digits_ann.state_dict().items()}
    kinds = [type(module) for module in digits_ann.modules()]
    protect(name, digits_ann, digits_data)
    after = digits_ann.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert [type(module) for module in digits_ann.modules()] == kinds
    assert all(p.grad is None for p in digits_ann.parameters())


@every
def test_it_gives_a_frozen_network_for_the_same_images_and_classes(
    name: str, digits_ann: ImageClassifier, digits_data: TrainingData, generator: torch.Generator
) -> None:
    network = protect(name, digits_ann, digits_data)
    assert (network.image_shape, network.classes, network.arch) == ((1, 8, 8), 10, "vgg4")
    assert isinstance(network, SpikingNetwork) == build(name).spiking
    if isinstance(network, SpikingNetwork):
        assert network.config.timesteps == 8
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    logits = network(torch.rand(3, 1, 8, 8, generator=generator))
    assert logits.shape == (3, 10)
    assert logits.abs().sum() > 0


@every
def test_the_same_seed_gives_the_same_network_and_leaves_the_global_generator_alone(
    name: str, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    state = torch.get_rng_state()
    first, again, other = (protect(name, digits_ann, digits_data, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    if name != "ann":
        assert not all(torch.equal(value, other[key]) for key, value in first.items())


@every
def test_unknown_parameters_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError) as error:
        registry.load("defense", name)(nonsense=1)
    message = str(error.value)
    assert message.startswith(f"unknown parameter {name}.nonsense: ")
    assert "\n" not in message
    assert all(field in message for field in build(name).Params.model_fields)


@every
def test_every_parameter_is_described_and_bounded(name: str) -> None:
    for field, info in build(name).Params.model_fields.items():
        assert info.description, field
        if info.annotation in (int, float):
            assert info.metadata, f"{field} has no bounds"


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("privatesnn", {"epoch": 3}, "unknown parameter privatesnn.epoch: did you mean 'epochs'?"),
        ("datafree", {"sample": 3}, "unknown parameter datafree.sample: did you mean 'samples'?"),
        ("shuffled", {"epoch": 3}, "unknown parameter shuffled.epoch: did you mean 'epochs'?"),
        ("shuffled", {"epochs": 0}, "shuffled.epochs: input should be greater than or equal to 1 (got 0)"),
        ("han2020", {"leek": 1}, "unknown parameter han2020.leek: did you mean 'leak'?"),
        ("privatesnn", {"epochs": 0}, "privatesnn.epochs: input should be greater than or equal to 1 (got 0)"),
        ("privatesnn", {"m": 1.5}, "privatesnn.m: input should be less than or equal to 1 (got 1.5)"),
        ("privatesnn", {"epochs": "many"}, "privatesnn.epochs: input should be a valid integer"),
        (
            "privatesnn",
            {"setting": "author"},
            "privatesnn.setting: input should be 'sound' or 'authors' (got 'author')",
        ),
        ("privatesnn", {"lr": float("nan")}, "privatesnn.lr: input should be a finite number (got nan)"),
        ("han2020", {"leak": 0}, "han2020.leak: input should be greater than 0 (got 0)"),
        ("han2020", {"beta": 1.1}, "han2020.beta: input should be less than or equal to 1 (got 1.1)"),
        ("sengupta2019", {"beta": 0.9}, "unknown parameter sengupta2019.beta: "),
        ("sengupta2019", {"encoder": "rate"}, "sengupta2019.encoder: input should be 'poisson' or 'direct'"),
        ("datafree", {"beta": 0}, "datafree.beta: input should be greater than 0 (got 0)"),
    ],
)
def test_wrong_parameters(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        registry.load("defense", name)(**params)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@every
def test_its_presets_are_parameters_that_it_takes(name: str) -> None:
    plugin = registry.load("defense", name)
    for given in plugin.presets.values():
        plugin(**given)
