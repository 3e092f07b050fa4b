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
from leakbench.snn.twin import LEAKY

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


@pytest.mark.parametrize("initial", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("steps", [16, 150])
def test_without_a_leak_the_twin_is_within_half_a_spike(steps: int, initial: float) -> None:
    r = [k / 64 for k in range(-64, 97)]
    simulated, twin = rates(r, Neuron(), steps, initial)
    # a spike for every theta that u_0 + T I is above; strictly, so that the last one is missing where it divides
    counts = [min(steps, max(0, math.ceil(initial + steps * one) - 1)) if one > 0 else 0 for one in r]
    assert (simulated * steps).round().tolist() == counts
    assert float((twin - simulated).abs().max()) <= 0.5 / steps + 1e-12
    wanted = [min(1, max(0, one + (initial - 0.5) / steps)) if one > 0 else 0 for one in r]
    assert twin.tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_silence_and_saturation_are_exact(reset: Any) -> None:
    # at and below (1 - leak) theta a leaky membrane never gets above theta
    r = [-4.0, -1.0, 0.0, 0.125, 0.25]
    for values in rates(r, Neuron(0.75, reset), 150):
        assert values.tolist() == [0.0] * 5
    simulated, twin = rates([2.5, 4.0], Neuron(0.75, reset), 150)
    assert simulated.tolist() == twin.tolist() == [1.0, 1.0]
    assert rates([0.3125], Neuron(0.75), 150)[0].item() > 0


@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_with_a_leak_the_twin_is_within_a_hundredth_and_half_a_spike(initial: float) -> None:
    r = [k / 64 for k in range(-64, 52)]  # up to .8
    simulated, twin = rates(r, Neuron(0.95), 150, initial)
    error = (twin - simulated).abs()
    assert float(error.max()) < 0.01 + 0.5 / 150
    assert float(error.mean()) < 0.003
    # what a ReLU says is off by the leak's offset
    relu = torch.tensor(r).double().clamp(min=0)
    assert float((relu - simulated).abs().max()) > 0.025


@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_a_hard_resets_period_is_within_half_a_step(initial: float) -> None:
    steps = 1500
    r = [k / 64 for k in range(3, 65)]
    simulated, twin = rates(r, Neuron(reset="hard"), steps, initial)
    # n steps to get above theta from nothing: n - 1 <= 1 / r < n
    periods = [math.floor(1 / one) + 1 for one in r]
    shortfall = [math.floor((1 - initial) / one) + 1 for one in r]
    counts = [1 + (steps - first) // n for first, n in zip(shortfall, periods, strict=True)]
    assert (simulated * steps).round().tolist() == counts
    # what is there at the start and left at the end is spread over all steps
    spread = (initial - 0.5) / steps
    for one, rate, n in zip(r, twin.tolist(), periods, strict=True):
        assert abs(1 / rate - n) <= 0.5 + abs(1 / (one + spread) - 1 / one) + 1e-9


def test_a_hard_reset_with_a_leak_is_within_its_own_steps() -> None:
    r = [k / 64 for k in range(4, 33)]
    simulated, twin = rates(r, Neuron(0.95, "hard"), 3000)
    # u(n) = theta r (1 - leak^n) / (1 - leak) from nothing
    periods = [next(n for n in range(1, 999) if one * (1 - 0.95**n) / 0.05 > 1) for one in r]
    torch.testing.assert_close(simulated, 1 / torch.tensor(periods).double(), rtol=0, atol=1 / 3000)
    # rates 1/n and 1/(n + 1) are a step apart: no smooth function is nearer than half of it
    apart = torch.tensor([1 / n - 1 / (n + 1) for n in periods])
    error = (twin - simulated).abs()
    assert bool((error <= 0.01 + apart).all())
    assert float(error.mean()) < 0.015


# --- gradients -------------------------------------------------------------------------------------------------------


def gradient(r: list[float], neuron: Neuron) -> list[float]:
    """d(mean output)/d(current) of neurons at the currents r theta; u_0 = theta / 2, as much as is left at the end."""
    images = images_of([r]).requires_grad_()
    logits = analog_twin(row(len(r), neuron, 150, initial=0.5))(images)
    (grad,) = torch.autograd.grad(logits.sum(), images)
    return (grad.flatten() / (HIGH - LOW) / THETA).tolist()


def test_the_gradient_is_1_inside_and_leaky_outside() -> None:
    assert LEAKY == 0.1
    assert gradient([-3.0, -0.5, 0.0, 0.5, 0.9375, 1.0625, 3.0], Neuron()) == pytest.approx(
        [0.1] * 3 + [1, 1, 0.1, 0.1]
    )
    # leak .75: silent up to .25, saturated from 1.125
    assert gradient([0.125, 0.25, 0.375, 1.0625, 1.25], Neuron(0.75)) == pytest.approx([0.1, 0.1, 1, 1, 0.1])


def test_a_hard_resets_gradient_is_its_curves_and_stays_finite_below() -> None:
    # r / (1 + r / 2) has the slope 1 / (1 + r / 2)^2, and a pole at -2 that no current may meet
    assert gradient([-4.0, -2.0, -1.9990234375, 0.0], Neuron(reset="hard")) == pytest.approx([0.1] * 4)
    assert gradient([0.5, 1.0, 1.5, 2.5], Neuron(reset="hard")) == pytest.approx([0.64, 4 / 9, 1 / 1.75**2, 0.1])
    for neuron in (Neuron(reset="hard"), Neuron(0.75, "hard")):
        step = 2.0**-10
        r = [0.5, 0.75, 1.5]
        above, below = (rates([one + side for one in r], neuron, 150, 0.5)[1] for side in (step, -step))
        assert gradient(r, neuron) == pytest.approx(((above - below) / (2 * step)).tolist(), rel=1e-5)


# --- a network -------------------------------------------------------------------------------------------------------


def test_a_twin_is_a_copy_with_the_networks_weights_and_each_channels_threshold() -> None:
    theta = torch.tensor([0.25, 0.5, 2.0]).double()
    network = row(3, Neuron(), 64, initial=0.75, theta=theta)
    twin = analog_twin(network)
    assert not twin.training
    assert [module.p for module in twin.modules() if isinstance(module, nn.Dropout)] == [0.3]
    images = images_of([[0.5, 3.0, -1.0]])
    assert twin(images)[0].tolist() == pytest.approx([0.25 * (0.5 + 0.25 / 64), 0.5, 0])
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
    # r = .5: u = .5, 1, 1.5 (spike), 1: one in four; r = .25: .25, .5, .75, 1: none; 1.5: each step. The twin: r - 1/8
    spiking, twin = [0.25, 0, 1, 0, 0, 0, 0, 0], [0.375, 0.125, 1, 0, 0, 0, 0, 0.125]
    assert agreement.rate_error == {"2": pytest.approx(3 * 0.125 / 8)}
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
