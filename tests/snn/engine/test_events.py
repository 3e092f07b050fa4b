"""The fast path against the plain one: the same spikes, the same gradients (:mod:`exact_networks`)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from exact_networks import BODIES, CONFIGS, assert_alike, both, chain, gradients, images, network_of
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import UsageError
from leakbench.models.storage import build_ann
from leakbench.snn import LIF, Neuron, SpikingConfig, SpikingNetwork, Surrogate, balance_thresholds
from leakbench.snn.engine.event_network import Walks, event_network
from leakbench.snn.engine.events import Layer
from leakbench.snn.engine.spikes import Spikes
from leakbench.snn.folding import replace
from leakbench.snn.surrogates import Shape


def test_spikes_behind_a_pooling_of_constant_input_are_those_of_all_steps() -> None:
    body = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    network = SpikingNetwork.from_ann(ImageClassifier(body, (1, 4, 4), 5), SpikingConfig(16, "direct"))
    network.neurons[0].set_threshold(0.3)
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(1)) + 0.1
    plain, fast = both(network, lambda n: n.simulate(x, seed=3))
    network.memory_budget = 8000
    assert plain.spikes == fast.spikes == network.simulate(x, seed=3).spikes
    assert plain.spikes["0"] == 16 * 4 * 4


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("config", CONFIGS)
def test_spikes_are_equal_and_gradients_alike(body: str, config: str) -> None:
    network = network_of(body, CONFIGS[config])
    x = (images() * 16).round() / 16  # constant currents are exact as well
    plain, fast = both(network, lambda n: n.simulate(x, seed=3))
    assert plain.spikes == fast.spikes
    assert all(count > 0 for count in plain.spikes.values()), "a silent layer proves nothing"
    torch.testing.assert_close(plain.logits, fast.logits, rtol=0, atol=1e-5)
    assert_alike(*both(network.requires_grad_(True), lambda n: gradients(n, x)))


@pytest.mark.parametrize("shape", ["triangle", "rectangle", "fast_sigmoid", "arctan", "fired", "potential"])
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_every_surrogate(shape: Shape, reset: Any) -> None:
    neuron = Neuron(leak=0.5, reset=reset, surrogate=Surrogate(shape, 1.5, 0.3))
    network = network_of("vgg", SpikingConfig(6, neuron=neuron)).requires_grad_(True)
    assert_alike(*both(network, lambda n: gradients(n, images())))


@pytest.mark.parametrize("body", ["vgg", "linear alone", "strides", "residual"])
def test_thresholds_by_channel(body: str) -> None:
    network = network_of(body, SpikingConfig(6), by_channel=body != "residual")
    plain, fast = both(network, lambda n: n.simulate(images(), seed=3).spikes)
    assert plain == fast
    assert_alike(*both(network.requires_grad_(True), lambda n: gradients(n, images())))


def test_thresholds_by_neuron_take_the_plain_neurons() -> None:
    network = network_of("one convolution", SpikingConfig(6))
    network.neurons[0].set_threshold(2.0 ** torch.randint(-1, 2, (16, 8, 8)))
    plain, fast = both(network, lambda n: n.simulate(images(), seed=3).spikes)
    assert plain == fast


def test_initial_membranes_by_neuron() -> None:
    network = network_of("one convolution", SpikingConfig(6))
    network.neurons[0].initial = torch.randint(-4, 5, (16, 8, 8)) / 8
    plain, fast = both(network, lambda n: n.simulate(images(), seed=3).spikes)
    assert plain == fast


@pytest.mark.parametrize("body", ["vgg", "dropout between layers"])
def test_masks_of_dropout_are_the_same(body: str) -> None:
    network = network_of(body, SpikingConfig(6)).train().requires_grad_(True)
    plain, fast = both(network, lambda n: n.simulate(images(), seed=3).spikes)
    assert plain == fast
    assert_alike(*both(network, lambda n: gradients(n, images())))


@pytest.mark.slow
@pytest.mark.parametrize("config", ["if", "hard", "direct"])
def test_chunks_of_time_change_nothing(config: str) -> None:
    network = network_of("vgg", CONFIGS[config]).requires_grad_(True)
    whole = network.simulate(images(), seed=3)
    expected = gradients(network, images())
    network.memory_budget = 1
    assert network.chunk_steps(5) == 1
    chunked = network.simulate(images(), seed=3)
    assert whole.spikes == chunked.spikes
    torch.testing.assert_close(whole.logits, chunked.logits, rtol=1e-5, atol=1e-6)
    assert_alike(expected, gradients(network, images()))


@pytest.mark.parametrize("arch", ["vgg5bn", "vgg5max", "resnet8"])
def test_kernels_take_what_folding_leaves(arch: str, generator: torch.Generator) -> None:
    ann = build_ann(arch, (1, 28, 28), 10, InputRange(-1, 1), generator)
    network = event_network(SpikingNetwork.from_ann(ann, SpikingConfig(4)).body)
    assert network is not None
    by_themselves = [layer.lif.layer for layer in network.layers.values() if layer.source is None]
    assert by_themselves == ([name for name in by_themselves if name.endswith("relu2")] if arch == "resnet8" else [])


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["vgg5", "vgg5bn", "vgg5max", "resnet8"])
def test_chunks_are_planned_for_what_is_kept_for_the_backward_pass(arch: str, generator: torch.Generator) -> None:
    steps, batch = 8, 4
    ann = build_ann(arch, (1, 28, 28), 10, InputRange(0, 1), generator)
    network = SpikingNetwork.from_ann(ann, SpikingConfig(steps)).requires_grad_(True)
    x = torch.rand(batch, 1, 28, 28, generator=generator)
    balance_thresholds(network, x, seed=1, scale=0.2)
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(x, seed=3)
    planned = network._bytes_a_step(True) * steps * batch
    assert logits.requires_grad
    assert planned / 4 < sum(kept.values()) < planned


@pytest.mark.slow
def test_threads_share_a_batch() -> None:
    network = network_of("vgg", SpikingConfig(6)).requires_grad_(True)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        spikes, expected = network.simulate(images(7), seed=3).spikes, gradients(network, images(7))
        torch.set_num_threads(3)
        assert network.simulate(images(7), seed=3).spikes == spikes
        assert_alike(expected, gradients(network, images(7)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("room", [0, 400, 21_000, 1 << 30])
@pytest.mark.parametrize("config", ["if", "hard", "direct"])
@pytest.mark.parametrize("body", BODIES)
@torch.no_grad()
def test_walks_that_go_on_where_they_stopped_find_the_same_currents(body: str, config: str, room: int) -> None:
    """Whether all, a part or none of what the walks hold has room; the last chunk of time is the shortest."""
    network = network_of(body, CONFIGS[config])
    network.memory_budget = 3 * len(images()) * network._bytes_a_step(gradient=False)
    assert network.chunk_steps(len(images())) == 3
    walks = Walks(len(images()) * network.config.timesteps, room * len(images()))
    for layer in network.neurons:
        layer.set_threshold(layer.threshold / 2)  # as those that are found come one by one
        expected = list(network.currents(layer, images(), 3))
        found = list(network.currents(layer, images(), 3, walks=walks))
        assert len(found) == len(expected) == -(-network.config.timesteps // 3)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_search_of_thresholds_fires_each_layer_once(generator: torch.Generator, monkeypatch: Any) -> None:
    fired: list[str] = []
    from_spikes = Layer.from_spikes

    def counted(layer: Layer, *args: Any) -> Any:
        fired.append(layer.lif.layer)
        return from_spikes(layer, *args)

    monkeypatch.setattr(Layer, "from_spikes", counted)
    ann = build_ann("vgg5", (1, 28, 28), 10, InputRange(-1, 1), generator)
    network = SpikingNetwork.from_ann(ann, SpikingConfig(24))
    balance_thresholds(network, torch.rand(6, 1, 28, 28, generator=generator), seed=1, batch_size=3)
    layers = [layer.layer for layer in network.neurons]
    assert sorted(fired) == sorted(2 * layers[:-1])  # of each of two batches; what the last one fires nobody asks


@pytest.mark.parametrize("encoder", ["poisson", "direct"])
@pytest.mark.parametrize("body", BODIES)
def test_currents_of_every_layer(body: str, encoder: Any) -> None:
    network = network_of(body, SpikingConfig(4, encoder=encoder))
    for layer in network.neurons:

        def currents(network: SpikingNetwork, layer: LIF = layer) -> Tensor:
            return torch.cat([current.flatten() for current in network.currents(layer, images(), 3)])

        plain, fast = both(network, currents)
        # the fast path hands over currents that are the same at each step once
        repeats = len(plain) // len(fast)
        torch.testing.assert_close(plain.sort().values, fast.repeat(repeats).sort().values, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_few_spikes_differ_where_weights_are_not_on_a_grid() -> None:
    generator = torch.Generator().manual_seed(5)
    body = chain(nn.Conv2d(2, 64, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4096, 4, bias=False))
    for parameter in body.parameters():
        nn.init.normal_(parameter, generator=generator)
    network = SpikingNetwork.from_ann(
        ImageClassifier(body, (2, 8, 8), 4, InputRange(-1, 1)), SpikingConfig(16, neuron=Neuron(leak=0.9))
    )
    network.neurons[0].set_threshold(0.7)
    seen: list[Tensor] = []
    network.observe(images(100), lambda name, _current, _v, out: seen.append(out) if name != "input" else None, 3)
    outputs: list[Spikes] = []
    original = Layer.from_spikes

    def spy(self: Layer, *args: Any) -> Any:
        out = original(self, *args)
        outputs.append(out[0])
        return out

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(Layer, "from_spikes", spy)
        network(images(100), seed=3)
    expected = seen[0].permute(0, 1, 3, 4, 2) > 0
    differing = int((expected != (outputs[0].maps > 0)).sum())
    assert differing <= 1e-5 * expected.numel()


def test_weights_that_change_are_packed_again() -> None:
    network = network_of("vgg", SpikingConfig(6)).requires_grad_(False)
    first = network.simulate(images(), seed=3).spikes
    with torch.no_grad():
        network.weights()["2"].mul_(-1)
    changed = both(network, lambda n: n.simulate(images(), seed=3).spikes)
    assert changed[0] == changed[1] != first
    network.neurons[0].set_threshold(0.25)
    again = both(network, lambda n: n.simulate(images(), seed=3).spikes)
    assert again[0] == again[1] != changed[0]


@torch.no_grad()
@pytest.mark.parametrize(
    "way", ["data in place", "new data", "a new parameter beside the old one", "the same parameter"]
)
def test_weights_are_read_however_they_were_written(way: str) -> None:
    network = network_of("vgg", SpikingConfig(6)).requires_grad_(False)
    first = network.simulate(images(), seed=3).spikes
    layer = network.body.get_submodule("2")
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    if way == "data in place":
        weight.data.mul_(-1)
    elif way == "new data":
        weight.data = -weight.data
    elif way == "the same parameter":
        weight.copy_(-weight)
    else:
        layer.weight = nn.Parameter(-weight, requires_grad=False)
    plain, fast = both(network, lambda n: n.simulate(images(), seed=3).spikes)
    assert plain == fast != first


@pytest.mark.parametrize("fast", [True, False])
def test_no_image_is_refused(fast: bool) -> None:
    network = network_of("vgg", SpikingConfig(6))
    network.fast = fast
    with pytest.raises(UsageError, match="no image to simulate"):
        network(images(4)[:0], seed=3)


def test_hooks_are_called() -> None:
    network = network_of("vgg", SpikingConfig(6)).requires_grad_(False)
    first = network.simulate(images(), seed=3).spikes
    seen: list[Tensor] = []
    handle = network.body.get_submodule("2").register_forward_hook(lambda _module, _args, out: seen.append(out))
    assert network.simulate(images(), seed=3).spikes.keys() == first.keys()
    assert seen
    handle.remove()
    seen.clear()
    assert network.simulate(images(), seed=3).spikes == first and not seen


def test_a_copy_and_another_configuration_go_their_own_ways() -> None:
    network = network_of("vgg", SpikingConfig(6))
    network(images(), seed=3)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.weights()["2"].mul_(-1)
    plain, fast = both(other, lambda n: n.simulate(images(), seed=3).spikes)
    assert plain == fast
    leaky = network.configured(SpikingConfig(6, neuron=Neuron(leak=0.5)))
    plain, fast = both(leaky, lambda n: n.simulate(images(), seed=3).spikes)
    assert plain == fast
    # a layer that was exchanged after the first simulation is the one that runs
    replace(network.body, "2", copy.deepcopy(other.body.get_submodule("2")))
    plain, fast = both(network, lambda n: n.simulate(images(), seed=3).spikes)
    assert plain == fast
