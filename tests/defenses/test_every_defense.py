"""What holds for every built-in defence, one row each; a new defence is one row more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakbench import registry
from leakbench.contracts import Defense, DefenseContext, ImageClassifier, TrainingData
from leakbench.data import Dataset
from leakbench.errors import UsageError
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.snn import SpikingNetwork

SMALL_SET = {"samples": 20, "synthesis_steps": 3}
SHORT = {"epochs": 1, "least_steps": 0}
NORMED = ("knowledge_within",)
"""those that need batch norm"""
# name -> parameters that keep it fast, private training images that it reads
DEFENSES: dict[str, tuple[dict[str, Any], int]] = {
    "ann": ({}, 0),
    "random": ({}, 0),
    "shuffled": ({"epochs": 1}, 200),
    "overfitted": ({"images": 30, "epochs": 2}, 30),
    "unseen": ({"images": 30}, 30),
    "diehl2015": ({"images": 30}, 30),
    "rueckauer2017": ({"images": 30}, 30),
    "sengupta2019": ({"images": 30}, 30),
    "han2020": ({"images": 30}, 30),
    "han_roy2020": ({"images": 30}, 30),
    "zambrano2019": (SHORT | {"images": 30}, 200),
    "deng_gu2021": (SHORT, 200),
    "li2021": ({"images": 30}, 30),
    "bu2022": (SHORT, 200),
    "stbp": ({"epochs": 1, "least_steps": 40, "timesteps": None}, 200),
    "tdbn": ({"epochs": 1, "least_steps": 40, "timesteps": None}, 200),
    "lee2020": (SHORT | {"timesteps": None}, 200),
    "zskd": (SMALL_SET | {"epochs": 1}, 0),
    "knowledge_within": (SMALL_SET | {"epochs": 1}, 0),
    "dpsgd": (SMALL_SET | {"epochs": 1, "noise_multiplier": 1.0}, 200),
    "datafree": (SMALL_SET, 0),
    "privatesnn": ({**SMALL_SET, "epochs": 1}, 0),
}
every = pytest.mark.parametrize("name", list(DEFENSES))
OPTIONAL = {"dpsgd": "opacus"}
"""those that need another package to protect anything"""


def build(name: str) -> Defense[Any]:
    plugin: Defense[Any] = registry.load("defense", name)(**DEFENSES[name][0])
    return plugin


def protect(name: str, ann: ImageClassifier, data: TrainingData, seed: int = 0) -> SpikingNetwork | ImageClassifier:
    return build(name)(ann, data, DefenseContext(torch.Generator().manual_seed(seed), timesteps=16))


def network_for(name: str, digits: Dataset, digits_ann: ImageClassifier) -> ImageClassifier:
    """A network that the defence takes."""
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name], reason=f"{name} not tested: no {OPTIONAL[name]}")
    if name not in NORMED:
        return digits_ann
    normed = build_ann("vgg4bn", digits.image_shape, 10, digits.input_range, torch.Generator().manual_seed(1))
    normed(digits.train.images[:200].float() / 255)  # statistics
    return normed.eval().requires_grad_(False)


@pytest.fixture
def ann(name: str, digits: Dataset, digits_ann: ImageClassifier) -> ImageClassifier:
    return network_for(name, digits, digits_ann)


def few_images(digits: Dataset) -> TrainingData:
    """A fresh handle on few of the training digits: what is asked here needs no good network."""
    return TrainingData(digits.train.images[:200], digits.train.labels[:200])


@pytest.fixture
def digits_data(digits: Dataset) -> TrainingData:
    return few_images(digits)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


@dataclass(frozen=True)
class Protected:
    """A defence's network of seed 0, and what is to be seen of how it was built."""

    network: SpikingNetwork | ImageClassifier
    state: dict[str, Tensor]
    """the network's, as it was returned"""
    images_read: int
    ann: ImageClassifier
    ann_before: dict[str, Tensor]
    ann_after: dict[str, Tensor]
    modules_before: list[type[nn.Module]]


@pytest.fixture(scope="module")
def protected(digits: Dataset, digits_ann: ImageClassifier) -> Callable[[str], Protected]:
    """Built once for all tests that only look at it."""

    @cache
    def built(name: str) -> Protected:
        ann, data = network_for(name, digits, digits_ann), few_images(digits)
        before, modules = state_of(ann), [type(module) for module in ann.modules()]
        network = protect(name, ann, data)
        return Protected(network, state_of(network), data.images_read, ann, before, state_of(ann), modules)

    return built


def test_the_table_is_complete() -> None:
    assert [entry.name for entry in registry.entries("defense").values() if entry.origin == "built-in"] == list(
        DEFENSES
    )


@pytest.mark.slow
@every
def test_it_reads_as_many_private_images_as_it_says(name: str, protected: Callable[[str], Protected]) -> None:
    assert protected(name).images_read == DEFENSES[name][1]


@pytest.mark.slow
@every
def test_the_ann_is_left_as_it_was(name: str, protected: Callable[[str], Protected]) -> None:
    built = protected(name)
    assert built.ann_before.keys() == built.ann_after.keys()
    assert all(torch.equal(value, built.ann_after[key]) for key, value in built.ann_before.items())
    assert [type(module) for module in built.ann.modules()] == built.modules_before
    assert all(p.grad is None for p in built.ann.parameters())


@pytest.mark.slow
@every
def test_it_gives_a_frozen_network_for_the_same_images_and_classes(
    name: str, protected: Callable[[str], Protected], digits: Dataset
) -> None:
    network, ann = protected(name).network, protected(name).ann
    assert (network.image_shape, network.classes) == ((1, 8, 8), 10)
    assert network.arch.partition("+")[0] == ann.arch  # what it was rewritten to stands behind it
    assert isinstance(network, SpikingNetwork) == build(name).spiking
    if isinstance(network, SpikingNetwork):
        assert network.config.timesteps == 16
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    logits = network(digits.test.images[:3].float() / 255)
    assert logits.shape == (3, 10)
    assert logits.abs().sum() > 0


@pytest.mark.slow
@every
def test_the_same_seed_gives_the_same_network_and_leaves_the_global_generator_alone(
    name: str, protected: Callable[[str], Protected], ann: ImageClassifier, digits_data: TrainingData
) -> None:
    first, state = protected(name).state, torch.get_rng_state()
    again, other = (protect(name, ann, digits_data, seed).state_dict() for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    if name != "ann":
        assert not all(torch.equal(value, other[key]) for key, value in first.items())


@pytest.mark.slow
@every
def test_its_network_survives_the_store(
    name: str, protected: Callable[[str], Protected], generator: torch.Generator
) -> None:
    network, x = protected(name).network, torch.rand(3, 1, 8, 8, generator=generator)
    again = load_network(*save_network(network), torch.device("cpu"))
    before, after = (
        one(x, seed=0) if isinstance(one, SpikingNetwork) else one(x) for one in (network, again)
    )  # fmt: skip
    assert torch.equal(before, after)


ANYTIME = {
    "diehl2015": {}, "rueckauer2017": {}, "zambrano2019": {}, "bu2022": {}, "deng_gu2021": {"shift_steps": 8},
    "sengupta2019": {"calibration_steps": 6}, "han2020": {"calibration_steps": 6},
    "datafree": {"calibration_steps": 6}, "han_roy2020": {"calibration_steps": 6},
}  # fmt: skip


@pytest.mark.slow
@every
def test_it_says_whether_one_network_serves_every_t(name: str, ann: ImageClassifier, digits_data: TrainingData) -> None:
    assert build(name).anytime == (name in ANYTIME and ANYTIME[name] == {})
    if name in ANYTIME:
        plugin: Defense[Any] = registry.load("defense", name)(**DEFENSES[name][0], **ANYTIME[name])
        assert plugin.anytime
        short, long = (
            plugin(ann, digits_data, DefenseContext(torch.Generator().manual_seed(0), timesteps=steps)).state_dict()
            for steps in (4, 16)
        )
        assert all(torch.equal(value, long[key]) for key, value in short.items())


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
