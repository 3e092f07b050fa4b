"""Measured transfer functions: of any kind of neuron, and of some among others, within networks of any shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, agreements, analog_twin
from leakbench.snn.adaptive import AdaptiveNeuron
from leakbench.snn.general import FIRES, GeneralNeuron
from leakbench.snn.neurons import LIF
from leakbench.snn.switch import SwitchNeuron

CHANNELS, SIDE = 6, 8
LOW, HIGH = -1.0, 2.5
RESETS: dict[str, Any] = {"subtracts": 0, "rest": 0.0}


def set_constants(neurons: LIF, **constants: Any) -> None:
    if "fires" in constants:
        constants["fires"] = torch.tensor(FIRES.index(constants["fires"]))
    if "shift" in constants:
        neurons.set_shift(constants.pop("shift"))  # type: ignore[operator]
    for name, value in constants.items():
        setattr(neurons, name, torch.as_tensor(value, dtype=getattr(neurons, name).dtype))


def side_by_side(n: int, steps: int, neuron: Neuron | None = None, **constants: Any) -> SpikingNetwork:
    """n neurons whose mean outputs are the logits, in doubles; images in [0, 1] are currents of -1 to 2.5."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(n, n, bias=False), nn.ReLU(), nn.Linear(n, n, bias=False))
    with torch.no_grad():
        for part in (body[1], body[3]):
            part.weight.copy_(torch.eye(n))  # type: ignore[union-attr]
    ann = ImageClassifier(body, (1, 1, n), n, InputRange(LOW, HIGH))
    made = SpikingNetwork.from_ann(ann, SpikingConfig(steps, "direct", neuron or GeneralNeuron())).double()
    made.neurons[0].set_threshold(constants.pop("threshold", 1.0))
    set_constants(made.neurons[0], **constants)
    return made.requires_grad_(False)


def both(network: SpikingNetwork) -> tuple[Tensor, Tensor]:
    """What 141 neurons and their twin give for currents of -1 to 2.5."""
    images = torch.linspace(0, 1, 141, dtype=torch.float64).view(1, 1, 1, -1)
    return network(images)[0], analog_twin(network)(images)[0]


@pytest.mark.parametrize("steps", [4, 50])
@pytest.mark.parametrize(
    "constants",
    [
        {"leak": 0.8}, {"leak": 0.8, "weight": 0.5}, {"synapse": 0.5}, {"fires": "many"}, {"fires": "at", **RESETS},
        {"taken": 1.25, "leak": 0.8}, {"taken": 0.02, "leak": 0.5}, {"taken": 1e4, "floor": 0.0}, {"taken": 0.0},
        RESETS, {**RESETS, "rest": -0.5, "leak": 0.9}, {**RESETS, "rest": 0.99, "leak": 0.5},
        {"worth": 0.5, "threshold": 0.5, "taken": 0.5}, {"worth": -1.0}, {"weight": -1.0},
        {"threshold": 2.0, "taken": 2.0},
        {"synapse": 0.95}, {"synapse": 1.0}, {"initial": 0.5}, {"initial": -2.0}, {"shift": 3},
    ],
    ids=str,
)  # fmt: skip
def test_the_twin_gives_the_rates_of_imported_neurons(constants: dict[str, Any], steps: int) -> None:
    simulated, twin = both(side_by_side(141, steps, **constants))
    error = (twin - simulated).abs() / max(1.0, float(simulated.abs().max()))
    # few steps make high stairs, within whose segments (up to 1/20 of a threshold) the curve slopes
    assert float(error.mean()) < 0.01 and float(error.median()) < 0.006


def test_neurons_of_many_spikes_a_step_rise_on_beyond_what_is_measured() -> None:
    simulated, twin = both(side_by_side(141, 50, threshold=0.01, taken=0.01, worth=0.01, fires="many"))
    assert float(simulated.max()) > 2.4  # 250 spikes a step
    assert float((twin - simulated).abs().max()) < 0.001


@pytest.mark.parametrize("threshold", [1e-36, 1e-16, 1e-4, 1e30])
def test_thresholds_of_any_size_have_a_twin(threshold: float) -> None:
    network = side_by_side(141, 20, Neuron(0.9, "hard"), threshold=threshold).float()
    images = torch.linspace(0, 1, 141).view(1, 1, 1, -1)
    simulated, twin = (model(images)[0] / threshold for model in (network, analog_twin(network)))
    error = (simulated - twin).abs()[(images.flatten() * 3.5 - 1).abs() > 1e-3]
    assert float(error.max()) < 1e-3


def network_of(neuron: Neuron, steps: int, encoder: Any = "direct", channels: int = CHANNELS) -> SpikingNetwork:
    """A convolution, its neurons, and a linear layer, of random weights."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(channels * SIDE**2, 5)
    )
    ann = ImageClassifier(body, (2, SIDE, SIDE), 5, InputRange(-1.0, 1.0)).eval()
    network = SpikingNetwork.from_ann(ann, SpikingConfig(steps, encoder, neuron))
    network.neurons[0].set_threshold(0.5)
    return network.requires_grad_(False)


def correlation(network: SpikingNetwork) -> float:
    images = torch.rand(60, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return agreements(network, images, 0, analog_twin(network))[0].correlation


SHAPES = [
    (CHANNELS, 1, 1), (CHANNELS, SIDE, SIDE), (1, SIDE, SIDE), (SIDE, SIDE), (SIDE,), (1, CHANNELS, 1, 1), (1, 1, 1)
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("constant", ["leak", "threshold", "initial", "rest"])
def test_constants_of_any_shape_are_followed(constant: str, shape: tuple[int, ...]) -> None:
    network = network_of(GeneralNeuron(), 16)
    spread = torch.linspace(0.2, 0.9, int(torch.Size(shape).numel())).view(shape)
    set_constants(network.neurons[0], **{"taken": 0.5, "subtracts": int(constant != "rest"), constant: spread})
    assert correlation(network) > 0.985


@pytest.mark.parametrize("neuron", [Neuron(), Neuron(0.5, "hard"), SwitchNeuron(), AdaptiveNeuron()])
@pytest.mark.parametrize("steps", [2, 16])
def test_membranes_that_begin_unlike_each_other_are_followed(neuron: Neuron, steps: int) -> None:
    network = network_of(neuron, steps)
    network.neurons[0].initial = torch.randn(
        CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(3)
    ) * (steps / 8)  # fmt: skip
    assert correlation(network) > 0.97


def test_a_difference_that_changes_nothing_parts_no_curve() -> None:
    network = network_of(GeneralNeuron(), 16, "poisson")
    set_constants(network.neurons[0], leak=torch.full((CHANNELS, 1, 1), 0.5))
    one = correlation(network)
    network.neurons[0].leak[2] += 1e-6  # type: ignore[operator]
    assert correlation(network) == pytest.approx(one, abs=1e-3)


def test_neurons_that_nothing_reads_do_not_spoil_the_curve_of_others() -> None:
    """Their currents change by much more; none of it reaches an output."""
    plain = network_of(Neuron(0.5), 16, "poisson")
    spoiled = network_of(Neuron(0.5), 16, "poisson", CHANNELS + 50)
    into, out, wide_into, wide_out = *plain.weights().values(), *spoiled.weights().values()
    with torch.no_grad():
        wide_into.zero_()
        wide_into[:CHANNELS] = into
        wide_into[CHANNELS:, 0, 1, 1], wide_into[CHANNELS:, 1, 1, 1] = 40, -40
        wide_out.zero_()
        wide_out[:, : out.shape[1]] = out
        spoiled.body[0].bias.zero_()  # type: ignore[union-attr]
        spoiled.body[0].bias[:CHANNELS] = plain.body[0].bias  # type: ignore[index, union-attr]
        spoiled.body[3].bias.copy_(plain.body[3].bias)  # type: ignore[union-attr]
    assert correlation(spoiled) > correlation(plain) - 0.01


@pytest.mark.parametrize("weight", [1e30, 3e38, -3e38])
def test_currents_that_no_float_holds_leave_a_twin(weight: float) -> None:
    network = network_of(Neuron(), 16)
    with torch.no_grad():
        network.weights()["0"][2] = weight
        network.weights()["3"][:, 2 * SIDE**2 : 3 * SIDE**2] = 0
    assert correlation(network) > 0.98


def test_measuring_changes_no_network_and_is_the_same_each_time() -> None:
    network = network_of(Neuron(0.9), 8, "poisson")
    images = torch.rand(3, 2, SIDE, SIDE)
    network.reseed(4)
    fresh = network(images)
    network.reseed(4)
    one, other = analog_twin(network), analog_twin(network)
    assert torch.equal(network(images), fresh)
    x = images.clone().requires_grad_()
    out = one(x)
    assert torch.equal(out, other(images))
    grads = [torch.autograd.grad(out.sum(), x, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(*grads) and bool(grads[0].abs().sum() > 0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 40), (1, 5, 7)])
def test_images_of_any_shape_are_probed(shape: tuple[int, int, int]) -> None:
    count = int(torch.Size(shape).numel())
    body = nn.Sequential(nn.Flatten(), nn.Linear(count, 9), nn.ReLU(), nn.Linear(9, 3))
    ann = ImageClassifier(body, shape, 3, InputRange(0.0, 1.0)).eval()
    network = SpikingNetwork.from_ann(ann, SpikingConfig(8, "direct", Neuron()))
    network.neurons[0].set_threshold(0.3)
    assert analog_twin(network.requires_grad_(False))(torch.rand(2, *shape)).isfinite().all()
