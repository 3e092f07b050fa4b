"""The spiking network against the slow loop, under observation, and in other configurations."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from plain_loop import straight_through_network, unit_spikes
from torch import Tensor, nn
from toy_networks import SHAPE, THETAS, Recorder, assert_same, toy_ann, toy_images, toy_snn

from leakbench.contracts import ImageClassifier
from leakbench.errors import NotApplicable, UsageError
from leakbench.snn import INPUT, Neuron, SpikingConfig, SpikingNetwork, Surrogate

# --- the same network as the method's --------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["poisson", "direct"])
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("leak", [1.0, 0.99, 0.95])
def test_spikes_and_logits_are_those_of_the_plain_unit_spike_loop(encoder: Any, reset: Any, leak: float) -> None:
    steps = 20
    network = toy_snn(SpikingConfig(steps, encoder, Neuron(leak, reset)))
    recorder = Recorder(network)
    with torch.no_grad():
        simulation = network.simulate(toy_images(), seed=1)
        spikes, logits = unit_spikes(toy_ann().double().body, recorder.encoded(steps), THETAS, leak, reset)  # type: ignore[arg-type]
    for mine, theirs in zip(recorder.spikes(steps), spikes, strict=True):
        assert 0.05 < theirs.mean() < 0.7  # neither silent nor saturated
        # no tie is met with these weights and doubles: not one spike may differ
        assert torch.equal(mine > 0, theirs > 0)
    assert_same(simulation.logits, logits)
    counted = [int(layer.sum()) for layer in spikes]
    assert simulation.spikes == {
        INPUT: int(torch.count_nonzero(recorder.encoded(steps))),
        **dict(zip(("1", "4", "7"), counted, strict=True)),
    }


def test_the_code_enters_in_the_networks_input_range() -> None:
    network = toy_snn(SpikingConfig(30, "direct"))
    recorder = Recorder(network)
    images = toy_images()
    network(images)
    assert torch.equal(recorder.encoded(30), (images * 2 - 1).expand(30, *images.shape))
    network = toy_snn(SpikingConfig(400, "poisson"))
    recorder = Recorder(network)
    with torch.no_grad():
        network(images, seed=0)
    encoded = recorder.encoded(400)
    assert set(encoded.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (encoded.mean(0) - (images * 2 - 1)).abs().max() < 5 * 0.5 / 20  # 5 sigma of the mean of 400 draws


def test_gradients_are_autograds_through_the_plain_loop() -> None:
    """Weights and images, thresholds per channel, initial membranes, leak, straight through the Poisson code."""
    surrogate = Surrogate("triangle", width=1.5)
    thetas = [torch.tensor([0.8, 1.0, 1.2, 1.5]).double()[:, None, None], torch.tensor(0.9).double(), torch.tensor(0.6)]
    initials = [
        torch.tensor(0.2).double(),
        torch.linspace(0, 0.4, 5).double()[:, None, None],
        torch.tensor(0.1).double(),
    ]
    steps = 12
    network = toy_snn(SpikingConfig(steps, "poisson", Neuron(0.95, surrogate=surrogate)), thetas)
    for layer, initial in zip(network.neurons, initials, strict=True):
        layer.initial = initial
    recorder = Recorder(network)
    images = toy_images().requires_grad_()
    weights = list(network.weights().values())
    logits = network(images, seed=3)
    probe = torch.tensor([1.0, -2.0, 0.5]).double()
    mine = torch.autograd.grad((logits * probe).sum(), [images, *weights])

    body, again = toy_ann().double().body, toy_images().requires_grad_()
    x = again * 2 - 1
    encoded = x + (recorder.encoded(steps) - x).detach()
    thetas = [layer.threshold for layer in network.neurons]
    wanted = straight_through_network(body, encoded, thetas, initials, 0.95, surrogate)  # type: ignore[arg-type]
    theirs = torch.autograd.grad((wanted * probe).sum(), [again, *body.parameters()])

    assert_same(logits, wanted)
    for mine_one, theirs_one in zip(mine, theirs, strict=True):
        assert theirs_one.abs().max() > 0
        assert_same(mine_one, theirs_one)


# --- onlookers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["poisson", "direct"])
@pytest.mark.parametrize("neuron", [Neuron(), Neuron(0.9), Neuron(0.95, "hard")])
@pytest.mark.parametrize("chunk", [11, 4])
def test_an_onlooker_sees_what_is_counted(chunk: int, neuron: Neuron, encoder: Any) -> None:
    steps = 11
    thetas = [torch.tensor([0.8, 1.0, 1.2, 1.5]).double()[:, None, None], 0.9, 0.6]
    network = toy_snn(SpikingConfig(steps, encoder, neuron), thetas)
    network.memory_budget = chunk * network.topology.elements * 4 * 4
    recorder = Recorder(network)
    images = toy_images().requires_grad_()
    seen: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}

    def watch(layer: str, current: Tensor, v: Tensor, out: Tensor) -> None:
        seen.setdefault(layer, []).append((current.clone(), v.clone(), out.clone()))

    logits = network.observe(images, watch, seed=6)
    encoded, spikes = recorder.encoded(steps), recorder.spikes(steps)
    with torch.no_grad():
        simulation = network.simulate(images, seed=6)
    assert not logits.requires_grad
    assert torch.equal(logits, simulation.logits)
    assert list(seen) == list(simulation.spikes)
    assert {len(parts) for parts in seen.values()} == {-(-steps // chunk)}
    joined = {layer: [torch.cat(parts) for parts in zip(*chunks, strict=True)] for layer, chunks in seen.items()}
    for layer, (_, _, out) in joined.items():
        assert int(torch.count_nonzero(out)) == simulation.spikes[layer]
    assert all(torch.equal(part, encoded) for part in joined[INPUT])
    stages_seen = [joined[layer.layer] for layer in network.neurons]
    before, theta = encoded, [layer.threshold for layer in network.neurons]
    assert isinstance(network.body, nn.Sequential)
    parts = [network.body[:1], network.body[2:4], network.body[5:7]]
    for (current, v, out), emitted, linear, threshold in zip(stages_seen, spikes, parts, theta, strict=True):
        assert torch.equal(out, emitted)
        # what the layer is fed is the linear part of what the one before put out
        assert_same(current, torch.stack([linear(step) for step in before]).detach())
        u = torch.zeros_like(current[0])
        for i, seen_v, seen_out in zip(current, v, out, strict=True):
            u = neuron.leak * u + i
            assert_same(seen_v, u / threshold)
            assert torch.equal(seen_out > 0, u > threshold)
            u = u - seen_out if neuron.reset == "soft" else u * (seen_out == 0)
        before = out


def test_an_onlooker_leaves_the_stream_of_fresh_noise_as_any_call_does() -> None:
    network, images = toy_snn(SpikingConfig(8)), toy_images()
    network.reseed(5)
    first, second = network(images), network(images)
    network.reseed(5)
    assert torch.equal(network.observe(images, lambda *_: None), first)
    assert torch.equal(network(images), second)


# --- configurations --------------------------------------------------------------------------------------------------


def test_a_network_simulated_in_another_way_has_the_same_tensors() -> None:
    network = toy_snn(SpikingConfig(9), dropout=0.5)
    network.neurons[1].initial = torch.tensor(0.2).double()
    config = SpikingConfig(13, "direct", Neuron(0.9, "hard", surrogate=Surrogate("arctan")))
    other = network.configured(config)
    mine, theirs = (dict([*one.named_parameters(), *one.named_buffers()]) for one in (other, network))
    assert mine.keys() == theirs.keys()
    assert all(mine[name] is theirs[name] for name in theirs)
    assert (other.config, network.config) == (config, SpikingConfig(9))
    assert {layer.neuron for layer in other.neurons} == {config.neuron}
    assert {layer.neuron for layer in network.neurons} == {Neuron()}
    assert not other.training
    assert (other.image_shape, other.classes, other.input_range) == (SHAPE, 3, (-1.0, 1.0))


def test_a_network_simulated_in_another_way_is_what_that_way_makes_of_the_ann() -> None:
    images = toy_images().requires_grad_()
    ways = [
        SpikingConfig(9),
        SpikingConfig(14),
        SpikingConfig(9, "direct"),
        SpikingConfig(9, "poisson", Neuron(0.9)),
        SpikingConfig(9, "poisson", Neuron(surrogate=Surrogate("arctan"))),
    ]
    network = toy_snn(ways[0])
    outcomes = []
    for way in ways:
        mine, theirs = network.configured(way).simulate(images, seed=2), toy_snn(way).simulate(images, seed=2)
        assert mine.spikes == theirs.spikes
        assert torch.equal(mine.logits, theirs.logits)
        gradients = [torch.autograd.grad(one.logits.square().sum(), images)[0] for one in (mine, theirs)]
        assert torch.equal(*gradients)
        outcomes.append((mine.spikes, gradients[0]))
    # a surrogate changes gradients alone, anything else the spikes too
    assert [spikes == outcomes[0][0] for spikes, _ in outcomes] == [True, False, False, False, True]
    assert [torch.equal(gradient, outcomes[0][1]) for _, gradient in outcomes] == [True, *[False] * 4]


def test_a_configuration_survives_json() -> None:
    config = SpikingConfig(7, "direct", Neuron(0.9, "hard", True, Surrogate("arctan", 2.0, 0.3)))
    assert SpikingConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_what_can_not_run_is_refused() -> None:
    with pytest.raises(UsageError, match="timesteps must be at least 1, got 0"):
        SpikingConfig(0)
    with pytest.raises(UsageError, match="unknown encoder 'rate': one of poisson, direct"):
        SpikingConfig(4, "rate")  # type: ignore[arg-type]
    gelu = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)), (1, 2, 2), 2)
    with pytest.raises(NotApplicable, match="GELU"):
        SpikingNetwork.from_ann(gelu, SpikingConfig(4))


def test_a_conversion_without_thresholds_says_so_or_stays_silent() -> None:
    """Thresholds are infinite until they are set: no spike is made then, and no NaN comes out."""
    network = SpikingNetwork.from_ann(toy_ann(), SpikingConfig(4)).double()
    try:
        simulation = network.simulate(toy_images(), seed=0)
    except UsageError as error:
        assert "threshold" in str(error)
    else:
        assert simulation.logits.tolist() == torch.zeros(4, 3).tolist()
        assert [simulation.spikes[name] for name in network.topology.activations] == [0, 0, 0]
