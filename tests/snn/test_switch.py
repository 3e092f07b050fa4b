"""Temporal switch coding: one pass on values against a simulation of single events, written in numpy."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leakbench.bench.stages.utility import operations
from leakbench.contracts import ImageClassifier
from leakbench.data import Dataset
from leakbench.errors import UsageError
from leakbench.metrics.energy import INT32, snn_energy_pj
from leakbench.models.storage import load_network, save_network
from leakbench.snn import INPUT, Neuron, RateNetwork, SpikingConfig, SpikingNetwork, Surrogate, agreements, analog_twin
from leakbench.snn.encoders import switch
from leakbench.snn.neurons import Run
from leakbench.snn.switch import SwitchNeuron

Array = np.ndarray[Any, np.dtype[Any]]
SHAPE = (2, 4, 4)
THETAS = [0.75, 0.5]


def toy_network(pool: nn.Module, timesteps: int, thetas: list[float] = THETAS, seed: int = 3) -> SpikingNetwork:
    """conv - pool - FC - FC with biases on 2x4x4 images in [-1, 1], in doubles: no interval depends on rounding."""
    body = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    config = SpikingConfig(timesteps, "switch", SwitchNeuron())
    network = SpikingNetwork.from_ann(ImageClassifier(body, SHAPE, 3, (-1.0, 1.0)), config).double()
    for layer, theta in zip(network.neurons, thetas, strict=True):
        layer.set_threshold(theta)
    return network.requires_grad_(False)


# --- event by event --------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Neurons:
    """What one layer does in its window: how long each neuron is on, and what a step of it is worth."""

    on: Array
    worth: Array


def affine(stage: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Matrix and offset of layers that are linear together, read off unit inputs."""
    size = math.prod(shape)
    offset = stage(torch.zeros(1, *shape).double()).flatten()
    matrix = stage(torch.eye(size).double().view(size, *shape)).flatten(1) - offset
    return matrix.T.numpy(), offset.numpy()


def window(matrix: Array, offset: Array, before: Neurons, steps: int) -> Array:
    """Potentials after a window in which ``before`` send on- and off-spikes; at most two additions a synapse."""
    on_spikes = [(0, j, +1) for j in range(len(before.on)) if before.on[j] > 0]
    off_spikes = [(before.on[j], j, -1) for j in range(len(before.on)) if before.on[j] > 0]
    current, potential = offset.copy(), np.zeros(len(offset))
    for t in range(steps):
        for when, j, sign in on_spikes + off_spikes:
            if when == t:
                current += sign * matrix[:, j] * before.worth[j]
        potential += current
    return potential


def intervals(potential: Array, theta: float, steps: int) -> Array:
    """Steps that neurons are on: as often as theta can be taken off the potential, T times at most."""
    on = np.zeros(len(potential), dtype=int)
    for _ in range(steps):
        on += potential >= theta
        potential = potential - theta
    return on


def event_simulation(network: SpikingNetwork, image: Tensor, max_pooling: bool) -> tuple[list[int], Array]:
    """Spikes of the input and of each layer, and the logits, for one image [C, H, W] in [0, 1]."""
    steps, body = network.config.timesteps, list(network.body.children())
    x = (image * 2 - 1).flatten().numpy()
    pixels = Neurons(np.rint(np.abs(x) * steps).astype(int), np.sign(x))
    matrix, offset = affine(body[0], SHAPE)
    first = intervals(window(matrix, offset, pixels, steps), THETAS[0], steps)
    if max_pooling:
        # of each 2x2 square, the neuron that is on for longest passes
        squares = first.reshape(3, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(12, 4)
        passed, linear, shape = squares.max(1), nn.Sequential(*body[3:5]), (3, 2, 2)
    else:
        passed, linear, shape = first, nn.Sequential(*body[2:5]), (3, 4, 4)
    matrix, offset = affine(linear, shape)
    second = intervals(
        window(matrix, offset, Neurons(passed, np.full(len(passed), THETAS[0])), steps), THETAS[1], steps
    )
    matrix, offset = affine(body[6], (5,))
    out = window(matrix, offset, Neurons(second, np.full(5, THETAS[1])), steps) / steps
    return [2 * int(np.count_nonzero(on)) for on in (pixels.on, first, second)], out


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.MaxPool2d(2)], ids=["average", "max"])
@pytest.mark.parametrize("steps", [1, 7, 32])
def test_one_pass_on_values_is_the_simulation_of_every_event(steps: int, pool: nn.Module) -> None:
    network = toy_network(pool, steps)
    images = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1)).double()
    done = network.simulate(images, seed=0)
    by_event = [event_simulation(network, image, isinstance(pool, nn.MaxPool2d)) for image in images]
    np.testing.assert_allclose(done.logits.numpy(), [logits for _, logits in by_event], rtol=1e-9, atol=1e-11)
    assert list(done.spikes.values()) == np.sum([spikes for spikes, _ in by_event], axis=0).tolist()
    if steps > 1:
        # the thresholds leave some neurons silent and some at work
        assert all(0 < done.spikes[name] < 2 * 6 * count for name, count in network.topology.neurons.items())


def test_an_interval_is_the_number_of_thresholds_in_the_potential() -> None:
    """theta = 1/2, T = 4: V = 4 I makes floor(8 I) steps, 4 at most, of theta / 4 each. All exact in binary."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 8, bias=False))
    with torch.no_grad():
        for layer in (body[1], body[3]):
            layer.weight.copy_(torch.eye(8))
    ann = ImageClassifier(body, (1, 1, 8), 8, (-2.0, 2.0))
    network = SpikingNetwork.from_ann(ann, SpikingConfig(4, "direct", SwitchNeuron()))
    network.neurons[0].set_threshold(0.5)
    currents = torch.tensor([-1.0, 0.0, 0.09375, 0.125, 0.1875, 0.375, 0.5, 1.5])
    images = (currents + 2).div(4).view(1, 1, 1, 8)
    assert network(images)[0].tolist() == [0, 0, 0, 0.125, 0.125, 0.375, 0.5, 0.5]
    network.neurons[0].initial = torch.tensor(0.25)
    # V starts at half a threshold
    assert network(images)[0].tolist() == [0, 0, 0.125, 0.125, 0.25, 0.375, 0.5, 0.5]


def test_pixels_are_rounded_to_whole_steps_and_keep_their_sign() -> None:
    x = torch.tensor([[-1.0, -0.3, -0.1, 0.0, 0.1, 0.2, 0.9, 1.0]])
    coded = switch(x, torch.empty(0), 0, 4)
    assert coded.tolist() == [[[-1.0, -0.25, 0.0, 0.0, 0.0, 0.25, 1.0, 1.0]]]


def test_gradients_are_those_of_the_clipped_relu_straight_through_floor_and_round() -> None:
    network = toy_network(nn.AvgPool2d(2), 8)
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    thetas = iter(THETAS)
    weights = torch.tensor([1.0, -2.0, 0.5]).double()
    (gradient,) = torch.autograd.grad((network(images, seed=0) * weights).sum(), images)
    # by hand: the mean currents that each layer saw, and autograd through clips at the same places
    seen: dict[str, Tensor] = {}
    network.observe(images.detach(), lambda layer, current, _v, _out: seen.update({layer: current[0]}), 0)
    inside = [((c > 0) & (c < theta)).double() for c, theta in zip((seen["1"], seen["5"]), thetas, strict=True)]
    body = list(network.body.children())
    x = body[0](images * 2 - 1) * inside[0]
    x = body[4](body[3](body[2](x))) * inside[1]
    (wanted,) = torch.autograd.grad((body[6](x) * weights).sum(), images)
    torch.testing.assert_close(gradient, wanted)
    assert all(0 < float(mask.mean()) < 1 for mask in inside)


def test_a_neuron_at_rest_or_always_on_passes_no_gradient() -> None:
    layer = SwitchNeuron().layer("layer")
    layer.set_threshold(1.0)
    layer.run = Run(1, torch.empty(0), 0, 4)
    x = torch.tensor([[-1.0, 0.0, 0.3, 1.0, 2.0]], requires_grad=True)
    out = layer(x)
    assert out.tolist() == [[0, 0, 0.25, 1, 1]]
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.tolist() == [[0, 0, 1, 0, 0]]


# --- the network around it -------------------------------------------------------------------------------------------


def test_several_lengths_at_once_are_simulations_of_their_own() -> None:
    network = toy_network(nn.MaxPool2d(2), 12)
    images = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(4)).double()
    simulations = network.simulate_at(images, [12, 3, 5], seed=1)
    assert list(simulations) == [3, 5, 12]
    for steps, simulation in simulations.items():
        alone = network.configured(SpikingConfig(steps, "switch", SwitchNeuron())).simulate(images, seed=1)
        assert torch.equal(simulation.logits, alone.logits)
        assert simulation.spikes == alone.spikes
    assert not torch.equal(simulations[3].logits, simulations[12].logits)


def test_memory_does_not_bound_a_window() -> None:
    network = toy_network(nn.AvgPool2d(2), 50)
    images = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(4)).double()
    wanted = network(images)
    network.memory_budget = 1
    assert torch.equal(network(images), wanted)
    batches = torch.cat([network(images[:2]), network(images[2:])])
    torch.testing.assert_close(batches, wanted, rtol=1e-9, atol=1e-11)


def test_currents_are_one_window_of_means() -> None:
    network = toy_network(nn.AvgPool2d(2), 9)
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(4)).double()
    seen: dict[str, Tensor] = {}
    network.observe(images, lambda layer, current, _v, _out: seen.update({layer: current}), 0)
    for layer in network.neurons:
        (current,) = network.currents(layer, images, seed=0)
        assert torch.equal(current, seen[layer.layer][0])
    (longer,) = network.currents(network.neurons[0], images, seed=0, steps=20)
    assert not torch.equal(longer, seen["1"][0])  # pixels in steps of 1/20


def test_it_stays_near_the_ann_as_windows_grow(digits: Dataset, digits_ann: ImageClassifier) -> None:
    """Rounding loses a step at most a neuron: at T = 1024, next to nothing where no activation is above a threshold."""
    network = switched(digits_ann, 1024)
    images = digits.test.images[:50].float() / 255
    mine, theirs = network(images), digits_ann(images)
    assert float((mine - theirs).abs().max()) < 0.05 * float(theirs.abs().max())
    few = network.configured(SpikingConfig(16, "switch", SwitchNeuron()))(images)
    assert float((few - theirs).abs().mean()) > 10 * float((mine - theirs).abs().mean())


def switched(ann: ImageClassifier, timesteps: int) -> SpikingNetwork:
    """The digits network with a threshold of 6 everywhere, above all its activations on digits."""
    network = SpikingNetwork.from_ann(ann, SpikingConfig(timesteps, "switch", SwitchNeuron()))
    for layer in network.neurons:
        layer.set_threshold(6.0)
    return network.requires_grad_(False)


def test_the_fast_path_steps_aside(digits: Dataset, digits_ann: ImageClassifier) -> None:
    network = switched(digits_ann, 16)
    images = digits.test.images[:5].float() / 255
    mine = network(images)
    network.fast = False
    assert torch.equal(network(images), mine)


def test_it_is_stored_with_its_neurons(digits: Dataset, digits_ann: ImageClassifier) -> None:
    network = switched(digits_ann, 16)
    tensors, record = save_network(network)
    again = load_network(tensors, json.loads(json.dumps(record)), torch.device("cpu"))
    assert isinstance(again, SpikingNetwork)
    assert again.config == network.config
    images = digits.test.images[:5].float() / 255
    assert torch.equal(again(images), network(images))
    bare = network.reconvert()
    assert torch.equal(bare(images), digits_ann(images))


def test_records_from_before_there_were_other_neurons_are_lif() -> None:
    config = SpikingConfig(8, "direct", Neuron(0.9, "hard", surrogate=Surrogate("arctan")))
    record = config.to_json()
    assert record["neuron"].pop("model") == "lif"
    assert SpikingConfig.from_json(record) == config
    with pytest.raises(UsageError, match="unknown neuron model 'izhikevich': one of lif, switch, adaptive"):
        SpikingConfig.from_json({**record, "neuron": {**record["neuron"], "model": "izhikevich"}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpikingConfig(8, "poisson", SwitchNeuron()), "switch neurons take the encoder switch or direct"),
        (lambda: SpikingConfig(8, "switch"), "lif neurons take the encoder poisson or direct, not switch"),
        (lambda: SwitchNeuron(leak=0.9), "switch neurons keep what they integrate"),
        (lambda: SwitchNeuron(reset="hard"), "switch neurons keep what they integrate"),
        (
            lambda: toy_network(nn.AvgPool2d(2), 4).configured(SpikingConfig(4, "direct")),
            "a network of switch neurons can't be one of lif",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


# --- what attacks and metrics take of it -----------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [32, 200])
def test_the_twin_computes_what_it_does(steps: int, digits: Dataset, digits_ann: ImageClassifier) -> None:
    network = switched(digits_ann, steps)
    images = digits.test.images[:60].float() / 255
    [agreement] = agreements(network, images, 0, analog_twin(network))
    assert agreement.correlation > 0.9
    assert agreement.same_class > 0.8
    # half a step of rounding in the mean, more where layers before are off as well
    assert all(error < 1 / steps for error in agreement.rate_error.values())


@pytest.mark.parametrize("derivative", ["rga", "hart"])
def test_gradients_of_its_rates_are_taken_at_the_mean_currents(derivative: Any) -> None:
    """At r = I / theta: RGA's is 1/2 for 0 <= r <= 2 without a leak, HART's the triangle max(0, 1 - |r - 1|)."""
    network = toy_network(nn.AvgPool2d(2), 16)
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    logits = RateNetwork(network, derivative)(images, seed=0)
    torch.testing.assert_close(logits, network(images, seed=0))
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), images)
    seen: dict[str, Tensor] = {}
    network.observe(images.detach(), lambda layer, current, _v, _out: seen.update({layer: current[0]}), 0)
    slopes = []
    for name, theta in zip(("1", "5"), THETAS, strict=True):
        r = seen[name] / theta
        slopes.append(((r >= 0) & (r <= 2)) / 2 if derivative == "rga" else (1 - (r - 1).abs()).clamp(min=0))
    body = list(network.body.children())
    x = body[4](body[3](body[2](body[0](images * 2 - 1) * slopes[0]))) * slopes[1]
    (wanted,) = torch.autograd.grad(body[6](x)[:, 1].sum(), images)
    torch.testing.assert_close(gradient, wanted)


def test_energy_is_two_additions_a_synapse_at_most(digits: Dataset, digits_ann: ImageClassifier) -> None:
    images = digits.test.images[:20].float() / 255
    spent = []
    for steps in (100, 400):
        network = switched(digits_ann, steps)
        spikes = {name: count / 20 for name, count in network.simulate(images, seed=0).spikes.items()}
        assert all(0 < spikes[name] <= 2 * size for name, size in {INPUT: 64, **network.topology.neurons}.items())
        spent.append(snn_energy_pj(operations(network, spikes), INT32))
    # a longer window lets small values in; rates would take 4 times as much
    assert spent[0] <= spent[1] < 1.5 * spent[0]
