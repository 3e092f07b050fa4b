"""What the framework promises defences, and what it refuses from them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_plugins import one_line, tiny, training_data
from torch import nn

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.errors import NumericalError, PluginError
from leakbench.snn import SpikingConfig, SpikingNetwork


def context() -> DefenseContext:
    return DefenseContext(torch.Generator().manual_seed(0))


def defense(protect: Callable[[ImageClassifier], Any]) -> Defense[Any]:
    class Made(Defense[Params]):
        name = "made"

        def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> Any:  # noqa: ARG002
            return protect(ann)

    return Made()


def converted(ann: ImageClassifier, theta: float | None = 1.0) -> SpikingNetwork:
    network = SpikingNetwork.from_ann(ann, SpikingConfig(2))
    if theta is not None:
        network.neurons[0].set_threshold(theta)
    return network


def test_a_defence_gets_a_frozen_ann_and_returns_a_frozen_network() -> None:
    seen: list[bool] = []

    def protect(ann: ImageClassifier) -> SpikingNetwork:
        seen.extend([ann.training, any(p.requires_grad for p in ann.parameters())])
        return converted(ann).train().requires_grad_(True)

    network = defense(protect)(tiny().train(), training_data(), context())
    assert seen == [False, False]
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_only_float32_is_measured(dtype: torch.dtype) -> None:
    with pytest.raises(PluginError, match=rf"made: the protected network must be float32, and its 'body.* is {dtype}"):
        defense(lambda ann: copy.deepcopy(ann).to(dtype))(tiny(), training_data(), context())


@pytest.mark.parametrize("result", [None, 3, nn.Linear(2, 2)], ids=str)
def test_what_is_no_network_is_refused(result: Any) -> None:
    with pytest.raises(PluginError) as error:
        defense(lambda _: result)(tiny(), training_data(), context())
    assert one_line(error).startswith("made.protect must return a SpikingNetwork or an ImageClassifier")


def test_a_network_for_other_images_or_classes_is_refused() -> None:
    for other in (tiny(classes=4), tiny(shape=(1, 2, 3))):
        with pytest.raises(PluginError, match="other images or classes than the ANN's"):
            defense(lambda _, other=other: other)(tiny(), training_data(), context())  # type: ignore[misc]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_network_that_holds_no_numbers_is_refused(bad: float) -> None:
    def protect(ann: ImageClassifier) -> ImageClassifier:
        broken = copy.deepcopy(ann)
        with torch.no_grad():
            broken.body[3].weight[0, 0] = bad  # type: ignore[index]
        return broken

    with pytest.raises(NumericalError, match=r"made: the protected network holds NaN or infinity in 'body\.3\.weight'"):
        defense(protect)(tiny(), training_data(), context())


def test_a_network_whose_thresholds_were_forgotten_is_refused() -> None:
    with pytest.raises(PluginError, match=r"the neurons 'body\.\d' have no threshold yet: set it"):
        defense(lambda ann: converted(ann, theta=None))(tiny(), training_data(), context())


def write_in_place(ann: ImageClassifier) -> None:
    with torch.no_grad():
        ann.body[1].weight.mul_(2)  # type: ignore[index]


def write_to_data(ann: ImageClassifier) -> None:
    ann.body[1].weight.data.mul_(2)  # type: ignore[index]


def put_another_weight(ann: ImageClassifier) -> None:
    ann.body[1].weight = nn.Parameter(torch.zeros(4, 4))  # type: ignore[index]


def put_another_layer(ann: ImageClassifier) -> None:
    ann.body[1] = nn.Linear(4, 4, bias=False)  # type: ignore[operator]


@pytest.mark.parametrize("damage", [write_in_place, write_to_data, put_another_weight, put_another_layer])
def test_a_defence_that_writes_to_the_ann_is_refused(damage: Callable[[ImageClassifier], None]) -> None:
    def protect(ann: ImageClassifier) -> SpikingNetwork:
        network = converted(ann)
        damage(ann)
        return network

    with pytest.raises(PluginError, match=r"made\.protect changed the ANN.*copy"):
        defense(protect)(tiny(), training_data(), context())


def test_a_copy_may_be_changed_at_will() -> None:
    def protect(ann: ImageClassifier) -> ImageClassifier:
        mine = copy.deepcopy(ann)
        for damage in (write_in_place, write_to_data, put_another_weight, put_another_layer):
            damage(mine)
        return mine

    defense(protect)(tiny(), training_data(), context())


def test_what_a_defence_raises_comes_through() -> None:
    def protect(ann: ImageClassifier) -> None:
        write_in_place(ann)
        raise ZeroDivisionError("in the defence")

    with pytest.raises(ZeroDivisionError):
        defense(protect)(tiny(), training_data(), context())
