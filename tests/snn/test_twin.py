"""The analog twin against simulated neurons, their closed forms, and the trained digits network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.data import Dataset
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, agreements, analog_twin
from leakbench.snn.transfer import LEAKY, Transfer

THETA = 0.5
LOW, HIGH = -4.0, 4.0


def row(n: int, neuron: Neuron, steps: int, initial: float = 0.0, theta: float | Tensor = THETA) -> SpikingNetwork:
    """n neurons side by side whose mean outputs are the logits, in doubles; see :func:`images_of`."""
    into, out = nn.Linear(n, n, bias=False), nn.Linear(n, n, bias=False)
    with torch.no_grad():
        into.weight.copy_(torch.eye(n) * theta)
        out.weight.copy_(torch.eye(n))
    body = nn.Sequential(nn.Flatten(), into, nn.ReLU(), nn.Dropout(0.3), out)
    ann = ImageClassifier(body, (1, 1, n), n, (LOW, HIGH)).eval()
    network = SpikingNetwork.from_ann(ann, SpikingConfig(steps, "direct", neuron)).double()
    network.neurons[0].set_threshold(theta)
    network.neurons[0].initial = torch.as_tensor(initial * theta).double()
    return network.requires_grad_(False)


def images_of(r: list[list[float]]) -> Tensor:
    """Images [B, 1, 1, n] that give neurons the constant currents r theta, -4 <= r <= 4. Exact for binary fractions."""
    return ((torch.tensor(r).double() - LOW) / (HIGH - LOW))[:, None, None]


def rates(r: list[float], neuron: Neuron, steps: int, initial: float = 0.0) -> tuple[Tensor, Tensor]:
    """Simulated rates and the twin's, spikes a step, [n] each."""
    network = row(len(r), neuron, steps, initial)
    images = images_of([r])
    return network(images)[0] / THETA, analog_twin(network)(images)[0] / THETA


# --- one neuron ------------------------------------------------------------------------------------------------------

NEURONS = [
    Neuron(), Neuron(0.95), Neuron(0.75), Neuron(0.25), Neuron(reset="hard"), Neuron(0.95, "hard"), Neuron(0.2, "hard"),
]  # fmt: skip


@pytest.mark.parametrize("initial", [0.0, 0.5])
@pytest.mark.parametrize("steps", [4, 16, 150])
@pytest.mark.parametrize("neuron", NEURONS)
def test_the_twin_gives_the_rates_of_its_neurons(neuron: Neuron, steps: int, initial: float) -> None:
    r = [k / 64 for k in range(-64, 129)]
    simulated, twin = rates(r, neuron, steps, initial)
    error = (twin - simulated).abs()
    assert float(error.mean()) < 0.006
    # a segment of the curve is up to 3/64 long here: within a spike of what is as near as that
    near = torch.stack([(simulated - simulated.roll(shift)).abs() for shift in range(-3, 4)]).amax(0)
    assert bool((error <= near + 1 / steps)[3:-3].all())


@pytest.mark.parametrize("initial", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("steps", [16, 150])
def test_without_a_leak_the_twin_is_within_a_spike_of_the_closed_form(steps: int, initial: float) -> None:
    r = [k / 64 for k in range(-64, 97)]
    simulated, twin = rates(r, Neuron(), steps, initial)
    # a spike for every theta that u_0 + T I is above; strictly, so that the last one is missing where it divides
    counts = [min(steps, max(0, math.ceil(initial + steps * one) - 1)) if one > 0 else 0 for one in r]
    assert (simulated * steps).round().tolist() == counts
    assert float((twin - simulated).abs().max()) <= 1 / steps + 0.002


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_silence_and_saturation_are_exact(reset: Any) -> None:
    # at and below (1 - leak) theta a leaky membrane never gets above theta
    r = [-4.0, -1.0, 0.0, 0.125, 0.234375]
    for values in rates(r, Neuron(0.75, reset), 150):
        assert values.tolist() == [0.0] * 5
    simulated, twin = rates([2.5, 4.0], Neuron(0.75, reset), 150)
    assert simulated.tolist() == twin.tolist() == [1.0, 1.0]


def test_currents_that_no_probe_gives_are_known_by_constant_ones() -> None:
    """The row's images reach -4 to 4 theta; the curve is known beyond, and ends in a line."""
    (transfer,) = (
        module for module in analog_twin(row(8, Neuron(0.75), 150)).modules() if isinstance(module, Transfer)
    )
    assert transfer(torch.tensor([-100.0, -8.0, 6.0, 15.0, 100.0]).double() * THETA).tolist() == [0, 0, *[THETA] * 3]
    silent = row(8, Neuron(), 150)
    with torch.no_grad():
        silent.body[1].weight.zero_()  # type: ignore[union-attr]
    (transfer,) = (module for module in analog_twin(silent).modules() if isinstance(module, Transfer))
    r = torch.linspace(0, 1, 50).double()
    assert float((transfer(r * THETA) / THETA - r).abs().max()) <= 0.5 / 150 + 0.01  # the corner at 1 is blunt


# --- gradients -------------------------------------------------------------------------------------------------------


def gradient(r: list[float], neuron: Neuron, steps: int = 150) -> list[float]:
    """d(mean output)/d(current) of neurons at the currents r theta."""
    images = images_of([r]).requires_grad_()
    (grad,) = torch.autograd.grad(analog_twin(row(len(r), neuron, steps))(images).sum(), images)
    return (grad.flatten() / (HIGH - LOW) / THETA).tolist()


def test_the_gradient_is_the_curves_inside_and_leaky_outside() -> None:
    assert LEAKY == 0.1
    assert gradient([-3.0, -0.5, 1.5, 3.0], Neuron()) == pytest.approx([0.1] * 4)
    assert gradient([0.25, 0.5, 0.7], Neuron()) == pytest.approx([1] * 3, abs=0.05)
    # leak .75: silent up to .25, saturated from 1
    assert gradient([0.125, 1.5], Neuron(0.75)) == pytest.approx([0.1] * 2)
    assert all(0.5 < slope < 2 for slope in gradient([0.5, 0.75], Neuron(0.75)))


@pytest.mark.parametrize("neuron", NEURONS)
def test_few_steps_are_no_stairs_to_the_gradient(neuron: Neuron) -> None:
    """Between 0 and 1 spike a step it rises as the rate does, though with four steps most of the curve is flat."""
    r = torch.linspace(0, 1.5, 241)
    slopes = torch.tensor(gradient(r.tolist(), neuron, 4))
    assert float(slopes.min()) >= 0.1
    (low, high), _ = rates([0.0, 1.5], neuron, 4)
    risen = float(torch.trapezoid(slopes, r))
    assert float(high - low) - 0.05 < risen < float(high - low) + 0.1 * 1.5 + 0.05


# --- a network -------------------------------------------------------------------------------------------------------


def test_a_twin_is_a_copy_with_the_networks_weights_and_each_channels_threshold() -> None:
    theta = torch.tensor([0.25, 0.5, 2.0]).double()
    network = row(3, Neuron(), 64, initial=0.75, theta=theta)
    twin = analog_twin(network)
    assert not twin.training
    assert [module.p for module in twin.modules() if isinstance(module, nn.Dropout)] == [0.3]
    images = images_of([[0.5, 3.0, -1.0]])
    assert twin(images)[0].tolist() == pytest.approx([0.25 * (0.5 + 0.25 / 64), 0.5, 0], abs=0.25 / 64)
    before = network(images)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(network(images), before)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "bound"), [("direct", 0.01), ("poisson", 0.05)])
@pytest.mark.parametrize("neuron", [Neuron(), Neuron(0.95), Neuron(reset="hard"), Neuron(0.95, "hard")])
def test_rates_of_a_trained_network_are_within_the_methods_bounds(
    digits: Dataset, digits_snn: SpikingNetwork, encoder: Any, bound: float, neuron: Neuron
) -> None:
    network = digits_snn.configured(SpikingConfig(150, encoder, neuron))
    images = digits.test.images[:40].float() / 255
    [agreement] = agreements(network, images, 0, analog_twin(network))
    spikes = network.simulate(images, seed=0).spikes
    assert list(agreement.rate_error) == list(network.topology.activations)
    for layer, error in agreement.rate_error.items():
        mean = spikes[layer] / (150 * 40 * network.topology.neurons[layer])
        assert error < bound
        assert error < mean / 3  # rates are small: silence must not pass for agreement
    assert agreement.correlation > 0.98
    assert agreement.same_class > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["direct", "poisson"])
def test_with_a_leak_the_twin_says_more_than_the_relu_network(
    digits: Dataset, digits_snn: SpikingNetwork, encoder: Any
) -> None:
    network = digits_snn.configured(SpikingConfig(150, encoder, Neuron(0.95)))
    images = digits.test.images[:40].float() / 255
    twin, bare = agreements(network, images, 0, analog_twin(network), network.reconvert())
    assert twin.correlation > 0.998 > 0.995 > bare.correlation
    assert bare.rate_error == {}


def test_agreement_by_hand() -> None:
    network = row(4, Neuron(), 4)
    images = images_of([[0.5, 0.25, 1.5, -1.0], [-1.0, -1.0, -1.0, 0.25]])
    [agreement] = agreements(network, images, 0, analog_twin(network))
    # r = .5: u = .5, 1, 1.5 (spike), 1: one in four; r = .25: .25, .5, .75, 1: none; 1.5: each step
    spiking, twin = [0.25, 0, 1, 0, 0, 0, 0, 0], (analog_twin(network)(images) / THETA).flatten().tolist()
    assert agreement.rate_error == {"2": pytest.approx(float(np.abs(np.subtract(spiking, twin)).mean()))}
    assert agreement.correlation == pytest.approx(float(np.corrcoef(spiking, twin)[0, 1]))
    # the second image: all zero, so class 0, against class 3
    assert agreement.same_class == 0.5


def test_thresholds_near_the_largest_float_leave_the_error_a_number() -> None:
    """Layers scaled against each other answer as before, and 16 spikes of 2^125 are more than a float holds."""
    network = row(2, Neuron(), 16, theta=2.0**125).float()
    (agreement,) = agreements(network, images_of([[0.5, 1.0]]).float(), 0, analog_twin(network))
    assert agreement.rate_error == {"2": pytest.approx(1 / 32, abs=1 / 32)}


def test_what_never_answers_agrees_with_nothing() -> None:
    network = row(2, Neuron(), 4)
    [agreement] = agreements(network, images_of([[-1.0, -1.0]]), 0, analog_twin(network))
    assert (agreement.correlation, agreement.same_class, agreement.rate_error) == (0.0, 1.0, {"2": 0.0})
