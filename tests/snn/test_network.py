"""The spiking network against the slow loop, its ANN, and itself under other chunks and batches."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from plain_loop import straight_through_network, unit_spikes
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.errors import NotApplicable, UsageError
from leakbench.snn import INPUT, LIF, Neuron, SpikingConfig, SpikingNetwork, Surrogate, relu_network
from leakbench.snn.folding import with_biases

SHAPE = (2, 6, 6)


# Doubles: only the order of summation differs, by some 1e-15 relative an operation.
def assert_same(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


THETAS = [1.3, 0.9, 0.6]


def toy_ann(dropout: float = 0.0, seed: int = 5) -> ImageClassifier:
    """conv - pool - conv - FC - FC on 2x6x6 images in [-1, 1]."""
    body = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(45, 8, bias=False), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3, bias=False),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for parameter in body.parameters():
        nn.init.kaiming_normal_(parameter, generator=generator)
    return ImageClassifier(body, SHAPE, 3, (-1.0, 1.0))


def toy_snn(config: SpikingConfig, thetas: list[Any] = THETAS, dropout: float = 0.0) -> SpikingNetwork:
    """In doubles, so that no spike hangs on rounding."""
    network = SpikingNetwork.from_ann(toy_ann(dropout), config).double()
    for layer, theta in zip(network.neurons, thetas, strict=True):
        layer.set_threshold(theta)
    return network


def toy_images(batch: int = 4) -> Tensor:
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


class Recorder:
    """What goes into the body and what its neurons put out, [T, B, ...], over all chunks of a simulation."""

    def __init__(self, network: SpikingNetwork) -> None:
        self._inputs: list[Tensor] = []
        self._spikes: list[list[Tensor]] = [[] for _ in network.neurons]
        network.body.register_forward_pre_hook(lambda _, args: self._inputs.append(args[0].detach()))
        for kept, layer in zip(self._spikes, network.neurons, strict=True):
            layer.register_forward_hook(lambda _, _args, out, kept=kept: kept.append(out.detach()))

    def encoded(self, steps: int) -> Tensor:
        joined = torch.cat(self._inputs)
        return joined.view(steps, -1, *joined.shape[1:])

    def spikes(self, steps: int) -> list[Tensor]:
        return [torch.cat(kept).unflatten(0, (steps, -1)) for kept in self._spikes]

    @property
    def chunks(self) -> int:
        return len(self._inputs)


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


# --- what must not change the result ---------------------------------------------------------------------------------


def run(network: SpikingNetwork, training: bool) -> tuple[Tensor, dict[str, int], list[Tensor]]:
    network.train(training)
    images = toy_images().requires_grad_()
    simulation = network.simulate(images, seed=4)
    gradients = torch.autograd.grad(simulation.logits.square().sum(), [images, *network.parameters()])
    return simulation.logits.detach(), simulation.spikes, list(gradients)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "dropout"])
@pytest.mark.parametrize("neuron", [Neuron(), Neuron(0.9), Neuron(0.95, "hard"), Neuron(detach_reset=True)])
@pytest.mark.parametrize("chunk", [1, 3])
def test_time_chunks_change_nothing(neuron: Neuron, chunk: int, training: bool) -> None:
    steps = 11
    config = SpikingConfig(steps, "poisson", neuron)
    whole, parts = toy_snn(config, dropout=0.4), toy_snn(config, dropout=0.4)
    parts.memory_budget = chunk * parts.topology.elements * 4 * 4 * 2
    seen = Recorder(parts)
    assert (whole.chunk_steps(4), parts.chunk_steps(4)) == (steps, chunk)
    logits, spikes, gradients = run(whole, training)
    other_logits, other_spikes, other_gradients = run(parts, training)
    assert seen.chunks == 2 * -(-steps // chunk)  # each chunk once forwards and once more in the backward pass
    assert_same(other_logits, logits)
    assert other_spikes == spikes
    for mine, theirs in zip(other_gradients, gradients, strict=True):
        assert theirs.abs().max() > 0
        assert_same(mine, theirs)


@pytest.mark.parametrize("encoder", ["poisson", "direct"])
@pytest.mark.parametrize("chunk", [2, 100])
def test_one_simulation_gives_every_shorter_one(encoder: Any, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = toy_snn(SpikingConfig(9, encoder, Neuron(0.9)))
    monkeypatch.setattr(SpikingNetwork, "chunk_steps", lambda _self, _batch: chunk)
    found = network.simulate_at(toy_images(), [9, 3, 4], seed=1, first_index=5)
    assert sorted(found) == [3, 4, 9]
    for steps, simulation in found.items():
        alone = toy_snn(SpikingConfig(steps, encoder, Neuron(0.9))).simulate(toy_images(), seed=1, first_index=5)
        assert_same(simulation.logits, alone.logits)
        assert simulation.spikes == alone.spikes
    for wrong in ([], [0, 3], [10]):
        with pytest.raises(UsageError, match=r"steps to look at must be in 1\.\.9"):
            network.simulate_at(toy_images(), wrong)


def test_a_current_is_added_to_what_enters_a_layer_at_each_step() -> None:
    ann = with_biases(toy_ann())
    network = SpikingNetwork.from_ann(ann, SpikingConfig(4, "direct")).double()
    for layer in network.neurons:
        layer.set_threshold(1.0)
    second = network.neurons[1]
    (before,) = network.currents(second, toy_images(), seed=0)
    network.add_current(second, torch.arange(5.0))
    (after,) = network.currents(second, toy_images(), seed=0)
    channels = before.shape.index(5)
    assert_same(
        (after - before).movedim(channels, -1),
        torch.arange(5.0).double().expand(*[4 * 4, 3, 3], 5).reshape((after - before).movedim(channels, -1).shape),
    )
    bare = toy_snn(SpikingConfig(4))
    with pytest.raises(NotApplicable, match="has no bias"):
        bare.add_current(bare.neurons[1], 0.1)


def test_a_surrogate_that_looks_back_is_never_cut_into_chunks() -> None:
    steps, config = 11, SpikingConfig(11, "poisson", Neuron(surrogate=Surrogate("potential")))
    whole, parts = toy_snn(config), toy_snn(config)
    parts.memory_budget = 1
    assert parts.chunk_steps(4) == steps
    with torch.no_grad():
        assert parts.chunk_steps(4) == 1
    _, _, gradients = run(whole, training=False)
    _, _, others = run(parts, training=False)
    for mine, theirs in zip(others, gradients, strict=True):
        assert theirs.abs().max() > 0
        assert_same(mine, theirs)


def test_splitting_a_set_into_batches_changes_nothing() -> None:
    network = toy_snn(SpikingConfig(15))
    images = toy_images(7)
    with torch.no_grad():
        whole = network.simulate(images, seed=6)
        parts = [network.simulate(images[a:b], seed=6, first_index=a) for a, b in ((0, 1), (1, 5), (5, 7))]
        elsewhere = network(images, seed=6, first_index=1)
    assert_same(torch.cat([part.logits for part in parts]), whole.logits)
    for name, count in whole.spikes.items():
        assert sum(part.spikes[name] for part in parts) == count
    assert not torch.allclose(elsewhere, whole.logits)


def test_each_call_without_a_seed_draws_fresh_noise_and_reseed_starts_it_anew() -> None:
    network, images = toy_snn(SpikingConfig(8)), toy_images()
    network.reseed(5)
    first, second = network(images), network(images)
    assert not torch.allclose(first, second)
    network.reseed(5)
    assert torch.equal(network(images), first)
    # a seed leaves the stream of calls without one alone
    network.reseed(5)
    network(images, seed=1)
    assert torch.equal(network(images), first)


def test_no_call_draws_from_the_global_generator() -> None:
    network, before = toy_snn(SpikingConfig(3), dropout=0.5).train(), torch.get_rng_state()
    network(toy_images())
    assert torch.equal(torch.get_rng_state(), before)


def test_chunks_stay_within_the_memory_budget() -> None:
    steps, network = 64, toy_snn(SpikingConfig(64))
    # what the modules put out, at the 4 bytes a float that the budget is planned for
    taken: list[int] = []
    for module in network.body.modules():
        if not any(module.children()):
            module.register_forward_hook(lambda _m, _a, out: taken.append(out.numel() * 4))
    seen = Recorder(network)
    for budget, batch in ((25_000, 1), (100_000, 1), (100_000, 5), (500_000, 5)):
        network.memory_budget = budget
        taken.clear()
        before = seen.chunks
        with torch.no_grad():
            chunk = network.chunk_steps(batch)
            network(toy_images(batch))
        assert 1 < chunk < steps
        assert seen.chunks - before == -(-steps // chunk)
        a_step = sum(taken) / steps
        assert chunk * a_step <= budget < (chunk + 1) * a_step
        assert network.chunk_steps(batch) == budget // (2 * a_step)  # with gradients: as much again
    network.memory_budget = 1
    assert network.chunk_steps(100) == 1
    network.memory_budget = 1 << 40
    assert network.chunk_steps(100) == steps


# --- the ANN behind it -----------------------------------------------------------------------------------------------


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
    joined = {layer: [torch.cat(parts) for parts in zip(*own, strict=True)] for layer, own in seen.items()}
    for layer, (_, _, out) in joined.items():
        assert int(torch.count_nonzero(out)) == simulation.spikes[layer]
    assert all(torch.equal(part, encoded) for part in joined[INPUT])
    stages_seen = [joined[layer.layer] for layer in network.neurons]
    before, theta = encoded, [layer.threshold for layer in network.neurons]
    assert isinstance(network.body, nn.Sequential)
    parts = [network.body[:1], network.body[2:4], network.body[5:7]]
    for (current, v, out), own, linear, threshold in zip(stages_seen, spikes, parts, theta, strict=True):
        assert torch.equal(out, own)
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
    found = []
    for way in ways:
        mine, theirs = network.configured(way).simulate(images, seed=2), toy_snn(way).simulate(images, seed=2)
        assert mine.spikes == theirs.spikes
        assert torch.equal(mine.logits, theirs.logits)
        gradients = [torch.autograd.grad(one.logits.square().sum(), images)[0] for one in (mine, theirs)]
        assert torch.equal(*gradients)
        found.append((mine.spikes, gradients[0]))
    # a surrogate changes gradients alone, anything else the spikes too
    assert [spikes == found[0][0] for spikes, _ in found] == [True, False, False, False, True]
    assert [torch.equal(gradient, found[0][1]) for _, gradient in found] == [True, *[False] * 4]


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
