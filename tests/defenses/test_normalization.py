"""Diehl 2015 and Rueckauer 2017: their layers' scales in NumPy, what is published, and what is refused."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from on_digits import protect, sampled
from torch import Tensor, nn

from leakbench.contracts import DefenseContext, ImageClassifier, InputRange, TrainingData
from leakbench.data import Dataset
from leakbench.defenses.normalization import Diehl2015, Rueckauer2017, highest_inputs
from leakbench.errors import NotApplicable
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, highest_activations, reconverted
from leakbench.snn.blocks import Affine
from leakbench.snn.folding import with_spiking_pools

WEIGHTS = ["0", "3", "7", "10"]
"""weight layers of vgg4; its activations are 1, 4 and 8, its pools 2 and 5"""


def activations_by_hand(ann: ImageClassifier, x: Tensor) -> list[np.ndarray[Any, Any]]:
    found = []
    for module in ann.body:  # type: ignore[union-attr]
        x = module(x)
        if isinstance(module, nn.ReLU):
            found.append(x.numpy())
    return found


def assert_scaled(network: SpikingNetwork, ann: ImageClassifier, lambdas: list[float]) -> None:
    """W_l lam_(l-1) / lam_l under thresholds of 1, with 1 for input and logits."""
    with_weights = [layer for layer in network.neurons if network.topology.feeders[layer.layer]]
    assert all(torch.equal(layer.threshold, torch.tensor(1.0)) for layer in with_weights)
    scaled = network.weights()
    for name, before, own in zip(WEIGHTS, [1.0, *lambdas], [*lambdas, 1.0], strict=True):
        wanted = ann.body.get_parameter(f"{name}.weight") * (before / own)
        torch.testing.assert_close(scaled[name], wanted, rtol=1e-5, atol=0)


def test_diehl_scales_by_the_higher_of_weight_and_activation(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = protect(Diehl2015(images=70), digits_ann, digits_data)
    lambdas = [
        max(float(a.max()), float(digits_ann.body.get_parameter(f"{name}.weight").max()))
        for a, name in zip(activations_by_hand(digits_ann, sampled(digits, 70)), WEIGHTS, strict=False)
    ]
    assert_scaled(network, digits_ann, lambdas)
    assert (digits_data.images_read, digits_data.reads) == (70, 70)
    # with the previous layer's lam and not its factor, every layer uses the whole range
    scaled = highest_activations(network.reconvert(), sampled(digits, 70))
    assert [scaled[name] for name in ("1", "4", "8")] == pytest.approx([1, 1, 1], rel=1e-5)


def test_a_weight_above_all_activations_is_the_scale(digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    """An input of a single spike may then fire a neuron, but not twice."""
    dim = ImageClassifier(digits_ann.body, (1, 8, 8), 10, (0.0, 0.01)).eval()
    network = protect(Diehl2015(images=70, scaling="thresholds"), dim, digits_data)
    assert float(network.neurons[0].threshold) == float(digits_ann.body.get_parameter("0.weight").max())


def test_rueckauer_scales_by_a_percentile_of_what_is_not_zero(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    activations = activations_by_hand(digits_ann, sampled(digits, 70))
    for percentile in (99.9, 90.0, 100.0):
        network = protect(Rueckauer2017(images=70, percentile=percentile), digits_ann, digits_data)
        assert_scaled(network, digits_ann, [float(np.percentile(a[a != 0], percentile)) for a in activations])
    assert digits_data.images_read == 70


def test_what_spikes_and_how(digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    diehl = protect(Diehl2015(images=20), digits_ann, digits_data)
    assert (diehl.config.encoder, diehl.config.neuron) == ("poisson", Neuron(reset="hard"))
    # pooling layers too
    assert [layer.layer for layer in diehl.neurons] == ["1", "2.1", "4", "5.1", "8"]
    assert diehl.arch == "vgg4+pools"
    rueckauer = protect(Rueckauer2017(images=20), digits_ann, digits_data)
    assert (rueckauer.config.encoder, rueckauer.config.neuron) == ("direct", Neuron(reset="soft"))
    assert [layer.layer for layer in rueckauer.neurons] == ["1", "4", "8"]
    assert rueckauer.arch == "vgg4"
    assert protect(Rueckauer2017(images=20, encoder="poisson"), digits_ann, digits_data).config.encoder == "poisson"


@pytest.mark.slow
@pytest.mark.parametrize("defense", [Diehl2015, Rueckauer2017])
def test_both_scalings_are_one_network_of_spikes(
    defense: Any, digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    weights = protect(defense(images=50), digits_ann, digits_data, 20)
    thresholds = protect(defense(images=50, scaling="thresholds"), digits_ann, digits_data, 20)
    for name, weight in thresholds.weights().items():
        assert torch.equal(weight, digits_ann.body.get_parameter(f"{name}.weight"))
    assert all(float(layer.threshold) != 1 for layer in thresholds.neurons)
    x = digits.test.images[:50].float() / 255
    # on the plain path, whose sums are taken in one order
    weights.fast = thresholds.fast = False
    mine, theirs = weights.simulate(x, seed=2), thresholds.simulate(x, seed=2)
    assert theirs.spikes.keys() == mine.spikes.keys()
    for name, count in theirs.spikes.items():
        # weights were rounded once more: a membrane at its threshold to seven digits may decide otherwise
        assert mine.spikes[name] == pytest.approx(count, rel=1e-3)
    torch.testing.assert_close(mine.logits, theirs.logits, rtol=0, atol=0.02 * float(theirs.logits.std()))


@pytest.mark.parametrize("scaling", ["weights", "thresholds"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("side", [2, 3, 7])
def test_pools_whose_inputs_all_fire_fire_at_each_step(side: int, precision: Any, scaling: Any) -> None:
    """Two pools in a row behind neurons that a bright image fires at each step."""
    body = nn.Sequential(
        nn.Conv2d(1, 3, 1, bias=False), nn.ReLU(), nn.AvgPool2d(side), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(3 * (14 // side // 2) ** 2, 10, bias=False),
    )  # fmt: skip
    nn.init.constant_(body[0].weight, 0.7)
    nn.init.constant_(body[5].weight, 0.1)
    ann = ImageClassifier(body, (1, 14, 14), 10, (0.0, 1.0)).eval().requires_grad_(False)
    white = TrainingData(torch.full((4, 1, 14, 14), 255, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))
    context = DefenseContext(torch.Generator().manual_seed(4), timesteps=10, precision=precision)
    network = Diehl2015(images=4, scaling=scaling, encoder="direct")(ann, white, context)
    assert isinstance(network, SpikingNetwork)
    # what is above the brightest image that was seen is above the threshold of the first layer
    spikes = network.simulate(torch.full((1, 1, 14, 14), 1.02), seed=0).spikes
    sides = {"1": 14, "2.1": 14 // side, "3.1": 14 // side // 2}
    assert {layer: spikes[layer] for layer in sides} == {layer: 10 * 3 * size**2 for layer, size in sides.items()}
    dark = network.simulate(torch.full((1, 1, 14, 14), 0.48), seed=0).spikes
    assert dark["1"] == dark["2.1"] * 14**2 / sides["2.1"] ** 2 > 0


@pytest.mark.parametrize("norm", ["data", "model"])
def test_attacks_undo_the_scaling_of_networks_whose_pools_fire_at_their_thresholds(
    norm: Any, digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = protect(Diehl2015(norm=norm, images=20), digits_ann, digits_data)
    read = reconverted(network, digits.test.images[:8].float() / 255, 0)
    for name in WEIGHTS:
        weight = read.body.get_parameter(f"{name}.weight")
        assert float(weight.norm()) == pytest.approx(math.sqrt(2 * len(weight)), rel=1e-4)


# --- the model-based norm --------------------------------------------------------------------------------------------


def small(bias: bool, low: float) -> ImageClassifier:
    body = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=bias), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(2, 3, bias=bias), nn.ReLU(),
        nn.Linear(3, 2, bias=bias),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(8)
    for parameter in body.parameters():
        nn.init.normal_(parameter, generator=generator)
    return ImageClassifier(body, (1, 4, 4), 2, (low, 1.0)).eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("bias", [False, True])
def test_no_image_drives_a_neuron_above_the_model_based_norm(low: float, bias: bool) -> None:
    ann = small(bias, low)
    network = SpikingNetwork.from_ann(with_spiking_pools(ann), SpikingConfig(4))
    lambdas = highest_inputs(network)
    # by hand, from the statement of the paper
    before, found = 1.0, {}
    for name, layer, pool in (("1", "0", "2.1"), ("5", "4", None)):
        weight = ann.body.get_parameter(f"{layer}.weight").flatten(1).tolist()
        offset = ann.body.get_parameter(f"{layer}.bias").tolist() if bias else [0.0] * len(weight)
        signed = name == "1" and low < 0
        sums = [sum(abs(w) if signed else max(0.0, w) for w in row) for row in weight]
        before = max(total * before + b for total, b in zip(sums, offset, strict=True))
        found[name] = before
        if pool:
            found[pool] = before  # averages of unit spikes
    assert lambdas == pytest.approx(found, rel=1e-6)
    # all images of black and white: one of them is the worst case of the first layer
    bits = torch.arange(2**16)[:, None] >> torch.arange(16) & 1
    reached = highest_activations(ann, bits.view(-1, 1, 4, 4).float())
    assert reached["1"] == pytest.approx(lambdas["1"], rel=1e-5)
    assert reached["5"] <= lambdas["5"] * (1 + 1e-6)


def test_the_model_based_norm_reads_no_image_and_divides_each_layer_by_its_own_sum(
    digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = protect(Diehl2015(norm="model"), digits_ann, digits_data)
    assert digits_data.reads == 0
    scaled = network.weights()
    for name in WEIGHTS[:-1]:
        weight = digits_ann.body.get_parameter(f"{name}.weight")
        largest = weight.clamp(min=0).flatten(1).sum(1).max()
        torch.testing.assert_close(scaled[name], weight / largest, rtol=1e-5, atol=0)


# --- other networks --------------------------------------------------------------------------------------------------


def untrained(name: str) -> ImageClassifier:
    ann = build_ann(name, (1, 8, 8), 10, InputRange(0.0, 1.0), torch.Generator().manual_seed(1))
    return ann.eval().requires_grad_(False)


@pytest.mark.parametrize("defense", [Diehl2015(), Diehl2015(norm="model"), Rueckauer2017()])
def test_branches_take_thresholds(defense: Any, digits_data: TrainingData) -> None:
    with pytest.raises(NotApplicable, match="this network has branches: take scaling=thresholds") as error:
        protect(defense, untrained("resnet8"), digits_data)
    assert "\n" not in str(error.value)
    assert digits_data.reads == 0


def test_the_model_based_norm_is_for_chains(digits_data: TrainingData) -> None:
    with pytest.raises(NotApplicable, match="take norm=data") as error:
        protect(Diehl2015(norm="model", scaling="thresholds"), untrained("resnet8"), digits_data)
    assert "\n" not in str(error.value)


def test_the_model_based_norm_takes_no_mean_and_std(digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    ann = deepcopy(digits_ann)
    ann.body = nn.Sequential(Affine((1, 8, 8)), *ann.body.children())
    with pytest.raises(NotApplicable, match="with --mean or --std is not known: take norm=data"):
        protect(Diehl2015(norm="model"), ann, digits_data)
    assert protect(Diehl2015(norm="data", images=20), ann, digits_data)


def test_diehls_pools_take_no_maximum(digits_data: TrainingData) -> None:
    with pytest.raises(NotApplicable, match="no neuron takes the maximum"):
        protect(Diehl2015(), untrained("vgg5max"), digits_data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "defense", "arch"),
    [
        ("vgg4bn", Diehl2015(images=40), "vgg4bn+pools+bias"),
        ("vgg4bn", Diehl2015(norm="model"), "vgg4bn+pools+bias"),
        ("resnet8", Diehl2015(images=40, scaling="thresholds"), "resnet8+pools+bias"),
        ("vgg4bn", Rueckauer2017(images=40), "vgg4bn+bias"),
        ("vgg5max", Rueckauer2017(images=40), "vgg5max"),
        ("resnet8", Rueckauer2017(images=40, scaling="thresholds"), "resnet8+bias"),
    ],
)
def test_other_networks_convert_and_come_back_from_the_store(
    name: str, defense: Any, arch: str, digits: Dataset, digits_data: TrainingData
) -> None:
    ann = untrained(name)
    network = protect(defense, ann, digits_data, 30)
    assert network.arch == arch
    x = digits.test.images[:20].float() / 255
    # the ANN behind it is the ANN: batch norms are folded, scales cancel
    torch.testing.assert_close(network.reconvert()(x), ann(x), rtol=1e-3, atol=1e-3)
    tensors, record = save_network(network)
    back = load_network(tensors, record, torch.device("cpu"))
    assert torch.equal(back(x, seed=1), network(x, seed=1))  # type: ignore[call-arg]


# --- what comes of it ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("defense", "steps", "loss"), [(Rueckauer2017, 64, 0.02), (Diehl2015, 128, 0.05)])
def test_accuracy_comes_close_to_the_anns(
    defense: Any, steps: int, loss: float, digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = protect(defense(images=200), digits_ann, digits_data, steps)
    x, labels = digits.test.images.float() / 255, digits.test.labels
    with torch.no_grad():
        mine, theirs = ((one.argmax(1) == labels).double().mean() for one in (network(x, seed=0), digits_ann(x)))
    assert mine > theirs - loss


@pytest.mark.parametrize("defense", [Diehl2015(images=20), Diehl2015(norm="model"), Rueckauer2017(images=20)])
def test_the_network_is_the_same_whatever_t_is(
    defense: Any, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    assert defense.anytime
    short, long = (protect(defense, digits_ann, digits_data, steps).state_dict() for steps in (4, 40))
    assert short.keys() == long.keys()
    assert all(torch.equal(value, long[key]) for key, value in short.items())
