"""Threshold balancing against an independent search: one layer, one image, one step at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from plain_loop import stages
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.errors import NumericalError
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, balance_thresholds
from leakbench.snn.encoders import ENCODERS
from leakbench.snn.noise import image_keys

SHAPE = (1, 6, 6)


def toy(seed: int = 1) -> ImageClassifier:
    body = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(27, 6, bias=False), nn.ReLU(), nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for parameter in body.parameters():
        nn.init.kaiming_normal_(parameter, generator=generator)
    return ImageClassifier(body, SHAPE, 2)


def converted(ann: ImageClassifier, config: SpikingConfig) -> SpikingNetwork:
    """In doubles: a neuron that only just reaches its threshold must not hang on the order of a sum."""
    return SpikingNetwork.from_ann(ann, config).double()


def slow_search(body: Any, encoded: Tensor, leak: float, reset: str, scale: float) -> list[float]:
    """Spike-Norm as it is told: theta_l is the highest weighted input of layer l over all images and steps, with
    the layers before it spiking under the thresholds found so far."""
    *hidden, _ = stages(body)
    thetas: list[float] = []
    for depth in range(len(hidden)):
        highest = -math.inf
        for image in range(encoded.shape[1]):
            membranes: list[Tensor | float] = [0.0] * depth
            for t in range(encoded.shape[0]):
                x = encoded[t, image : image + 1]
                for i in range(depth):
                    u = leak * membranes[i] + hidden[i](x)
                    fired = (u > thetas[i]).double()
                    membranes[i] = u - thetas[i] * fired if reset == "soft" else u * (1 - fired)
                    x = thetas[i] * fired
                highest = max(highest, float(hidden[depth](x).max()))
        thetas.append(scale * highest)
    return thetas


@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize(
    ("encoder", "leak", "scale"), [("poisson", 1.0, 1.0), ("poisson", 0.95, 0.7), ("direct", 1.0, 0.8)]
)
def test_thresholds_are_those_of_a_slow_search(
    reset: Any, encoder: Any, leak: float, scale: float, generator: torch.Generator
) -> None:
    steps = 14
    ann = toy()
    images = torch.rand(7, *SHAPE, generator=generator, dtype=torch.float64)
    network = converted(ann, SpikingConfig(steps, encoder, Neuron(leak, reset)))
    balance_thresholds(network, images, seed=8, scale=scale, batch_size=3)
    encoded = ENCODERS[encoder](images, image_keys(8, 0, 7, torch.device("cpu")), 0, steps)
    with torch.no_grad():
        expected = slow_search(ann.double().body, encoded, leak, reset, scale)
    assert [float(layer.threshold) for layer in network.neurons] == pytest.approx(expected, rel=1e-9)


def test_neither_batches_nor_chunks_of_time_matter(generator: torch.Generator) -> None:
    images = torch.rand(6, *SHAPE, generator=generator, dtype=torch.float64)
    found = []
    for batch_size, budget in ((64, 1 << 31), (1, 1 << 31), (4, 1)):
        network = converted(toy(), SpikingConfig(9))
        network.memory_budget = budget
        balance_thresholds(network, images, seed=2, batch_size=batch_size)
        found.append([float(layer.threshold) for layer in network.neurons])
    assert found[1] == pytest.approx(found[0], rel=1e-9)
    assert found[2] == pytest.approx(found[0], rel=1e-9)


def test_progress_runs_over_the_layers(generator: torch.Generator) -> None:
    seen: list[tuple[int, int]] = []
    network = converted(toy(), SpikingConfig(9))
    images = torch.rand(2, *SHAPE, generator=generator, dtype=torch.float64)
    balance_thresholds(network, images, 0, progress=lambda _what, done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("layer", [0, 4, 6])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_raise(layer: int, bad: float, generator: torch.Generator) -> None:
    ann = toy()
    ann.body[layer].weight.data.view(-1)[0] = bad  # type: ignore[index]
    network = converted(ann, SpikingConfig(8))
    with pytest.raises(NumericalError, match=f"layer '{layer + 1}'") as error:
        balance_thresholds(network, torch.rand(3, *SHAPE, generator=generator, dtype=torch.float64), seed=0)
    assert "\n" not in str(error.value)


def test_a_layer_that_gets_no_positive_input_raises(generator: torch.Generator) -> None:
    ann = toy()
    ann.body[4].weight.data.abs_().neg_()  # type: ignore[index]
    network = converted(ann, SpikingConfig(8))
    with pytest.raises(NumericalError, match="layer '5' never gets a positive"):
        balance_thresholds(network, torch.rand(3, *SHAPE, generator=generator, dtype=torch.float64), seed=0)
