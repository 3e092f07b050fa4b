"""The spiking network and the ANN that it was made from: conversion and reconversion."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from toy_networks import SHAPE, toy_ann

from leakbench.contracts import ImageClassifier
from leakbench.snn import LIF, SpikingConfig, SpikingNetwork, relu_network


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 12)])
def test_reconversion_gives_the_anns_logits_exactly(shape: tuple[int, int, int], generator: torch.Generator) -> None:
    side = shape[1] // 2
    body = nn.Sequential(
        nn.Conv2d(shape[0], 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(4 * side * side, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3),
    )  # fmt: skip
    ann = ImageClassifier(body, shape, 3, (-1.0, 1.0)).eval()
    network = SpikingNetwork.from_ann(ann, SpikingConfig(4))
    back = network.reconvert()
    images = torch.rand(5, *shape, generator=generator)
    expected = ann(images)
    assert torch.equal(back(images), expected)
    assert (back.image_shape, back.classes, back.input_range) == (shape, 3, (-1.0, 1.0))
    assert not any(isinstance(module, LIF) for module in back.modules())
    assert [module.p for module in back.modules() if isinstance(module, nn.Dropout)] == [0.5]
    # a copy: training it must not touch the network
    with torch.no_grad():
        next(back.parameters()).zero_()
    assert network.weights()["0"].abs().max() > 0
    assert relu_network(ann) is ann
    assert torch.equal(relu_network(network)(images), expected)


def test_a_conversion_is_a_copy() -> None:
    ann = toy_ann()
    before = copy.deepcopy(ann.state_dict())
    network = SpikingNetwork.from_ann(ann, SpikingConfig(4))
    assert {name: tuple(weight.shape) for name, weight in network.weights().items()} == {
        "0": (4, 2, 3, 3), "3": (5, 4, 3, 3), "6": (8, 45), "9": (3, 8),
    }  # fmt: skip
    with torch.no_grad():
        for name, weight in network.weights().items():
            assert torch.equal(weight, before[f"body.{name}.weight"])
            weight.zero_()
    assert all(torch.equal(value, before[key]) for key, value in ann.state_dict().items())


class Residual(nn.Module):
    """conv - relu - (conv + skip) - relu - pool - FC."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu1 = nn.Conv2d(2, 6, 3, padding=1), nn.ReLU()
        self.inner, self.relu2 = nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()
        self.pool, self.out = nn.AvgPool2d(2), nn.Linear(6 * 9, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.stem(x))
        h = self.relu2(self.inner(h) + h)
        logits: Tensor = self.out(self.pool(h).flatten(1))
        return logits


@pytest.mark.slow
def test_a_residual_network_with_biases_converts_and_comes_close_to_its_ann(generator: torch.Generator) -> None:
    body = Residual()
    for name, parameter in body.named_parameters():
        nn.init.normal_(parameter, std=0.1 if name.endswith("bias") else 0.3, generator=generator)
    ann = ImageClassifier(body, SHAPE, 4).eval()
    images = torch.rand(50, *SHAPE, generator=generator)
    with torch.no_grad():
        logits = ann(images)
        first = body.relu1(body.stem(images))
        peaks = {"relu1": float(first.max()), "relu2": float((body.inner(first) + first).max())}
    spread = logits.std().item()

    def error(steps: int) -> tuple[float, Tensor]:
        network = SpikingNetwork.from_ann(ann, SpikingConfig(steps, "direct"))
        for layer in network.neurons:
            layer.set_threshold(peaks[layer.layer])
        with torch.no_grad():
            found = network(images)
        return (found - logits).abs().max().item() / spread, found.argmax(1)

    coarse, _ = error(50)
    fine, predicted = error(500)
    # Rates are exact up to a spike or so a layer and T: the error falls as 1/T. Ten times the steps: at least fivefold.
    assert fine < 0.05
    assert fine < coarse / 5
    top = logits.topk(2).values
    sure = top[:, 0] - top[:, 1] > 2 * fine * spread
    assert sure.sum() >= 40
    assert torch.equal(predicted[sure], logits.argmax(1)[sure])
