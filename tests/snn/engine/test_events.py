"""The fast path against the plain one: the same spikes, the same gradients.

Weights, biases and thresholds are small multiples of a power of two, so that sums are exact in every order: spikes have
to be equal to the last one, and only gradients (whose surrogates divide) may differ by rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import UsageError
from leakbench.models.storage import build_ann
from leakbench.snn import LIF, Neuron, SpikingConfig, SpikingNetwork, Surrogate, balance_thresholds
from leakbench.snn.engine import events, winograd
from leakbench.snn.engine.event_network import event_network
from leakbench.snn.engine.events import Layer, Spikes
from leakbench.snn.folding import replace
from leakbench.snn.surrogates import Shape

GRADIENT = 2e-5
"""largest difference of gradients, relative to the largest gradient: sums of some thousand terms in another order"""


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu1 = nn.Conv2d(2, 16, 3, padding=1), nn.ReLU()
        self.left, self.relu2 = nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU()
        self.right, self.relu3 = nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
        self.skip = nn.Conv2d(16, 32, 1, stride=2)
        self.pool, self.out = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.stem(x))
        x = self.relu3(self.right(self.relu2(self.left(x))) + self.skip(x))
        logits: Tensor = self.out(self.pool(x).flatten(1))
        return logits


class Functional(nn.Module):
    """Pools and flattens by functions and not by modules, and reads the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu1 = nn.Conv2d(2, 16, 3, padding=1), nn.ReLU()
        self.hidden, self.relu2, self.out = nn.Linear(16 * 16, 32), nn.ReLU(), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.avg_pool2d(self.relu1(self.conv(x)), 2)
        logits: Tensor = self.out(self.relu2(self.hidden(x.view(x.size(0), -1))))
        return logits


class Twisted(nn.Module):
    """Its way depends on its input: there is no graph to be had."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.out = nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Linear(16 * 36, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if x.sum() > -1e9:
            x = self.relu(x)
        logits: Tensor = self.out(x.flatten(1))
        return logits


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


BODIES: dict[str, Callable[[], nn.Module]] = {
    "one convolution": lambda: chain(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 4)),
    "vgg": lambda: chain(
        nn.Conv2d(2, 32, 3, padding=1, bias=False), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(64, 48, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(48 * 4, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 4),
    ),
    "pooling that leaves out a rim": lambda: chain(
        nn.Conv2d(2, 32, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 4),
    ),
    "kernels of all sizes": lambda: chain(
        nn.Conv2d(2, 16, (1, 3)), nn.ReLU(), nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 16, (5, 2), padding=1),
        nn.ReLU(), nn.Conv2d(16, 16, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 3 * 4, 4),
    ),
    "strides": lambda: chain(
        nn.Conv2d(2, 16, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 9, 4),
    ),
    "no kernel for these": lambda: chain(
        nn.Conv2d(2, 16, 3, padding="same"), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=2, dilation=2), nn.ReLU(),
        nn.Conv2d(32, 32, 3, groups=2, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 10, 1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Conv2d(10, 16, 1, stride=(1, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4),
    ),
    "dropout between layers": lambda: chain(
        nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Dropout(0.25), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Identity(), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 4),
    ),
    "overlapping pooling": lambda: chain(
        nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, stride=2, padding=1),
        nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4),
    ),
    "linear alone": lambda: chain(nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(),
                                  nn.Linear(16, 4)),
    "ends in neurons": lambda: chain(nn.Conv2d(2, 16, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(144, 16),
                                     nn.ReLU()),
    "residual": Residual,
    "functions": Functional,
    "no graph": Twisted,
}  # fmt: skip
CLASSES = {"ends in neurons": 16}


def network_of(body: str, config: SpikingConfig, seed: int = 0, by_channel: bool = False) -> SpikingNetwork:
    generator = torch.Generator().manual_seed(seed)
    made = BODIES[body]()
    for parameter in made.parameters():
        parameter.data = torch.randint(-8, 9, parameter.shape, generator=generator) / 32
    classes = CLASSES.get(body, 4)
    ann = ImageClassifier(made, (2, 8, 8), classes, InputRange(-1, 1)).eval()
    network = SpikingNetwork.from_ann(ann, config)
    sources = [m for m in network.body.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer, source in zip(network.neurons, sources, strict=False):
        theta = torch.tensor(0.5)
        if by_channel:
            channels = source.weight.shape[0]
            theta = 2.0 ** torch.randint(-2, 1, (channels,), generator=generator)
            theta = theta[:, None, None] if isinstance(source, nn.Conv2d) else theta
        layer.set_threshold(theta)
        layer.initial = torch.tensor(0.25)
    return network


def images(count: int = 5, seed: int = 1) -> Tensor:
    return torch.rand(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def both(network: SpikingNetwork, call: Callable[[SpikingNetwork], Any]) -> tuple[Any, Any]:
    """What the plain and the fast path give."""
    outcomes = []
    for fast in (False, True):
        network.fast = fast
        outcomes.append(call(network))
    return outcomes[0], outcomes[1]


def gradients(network: SpikingNetwork, x: Tensor) -> dict[str, Tensor]:
    """Of the images and of all parameters that want one, of a loss that weighs all logits differently."""
    network.zero_grad()
    x = x.clone().requires_grad_()
    logits = network(x, seed=3)
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    (logits * weights).sum().backward()
    assert x.grad is not None
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return {"images": x.grad, **found}


def assert_alike(plain: dict[str, Tensor], fast: dict[str, Tensor]) -> None:
    assert plain.keys() == fast.keys()
    for name, expected in plain.items():
        assert expected.abs().max() > 0, f"{name}: no gradient to compare"
        difference = (expected - fast[name]).abs().max() / expected.abs().max()
        assert difference <= GRADIENT, f"{name}: {difference:.1e}"


CONFIGS = {
    "if": SpikingConfig(9),
    "leaky": SpikingConfig(7, neuron=Neuron(leak=0.5)),
    "hard": SpikingConfig(7, neuron=Neuron(leak=0.5, reset="hard")),
    "detached": SpikingConfig(8, neuron=Neuron(detach_reset=True)),
    "hard detached": SpikingConfig(8, neuron=Neuron(reset="hard", detach_reset=True)),
    "direct": SpikingConfig(8, encoder="direct"),
    "one step": SpikingConfig(1),
}


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


@pytest.mark.parametrize("arch", ["vgg5", "vgg5bn", "vgg5max", "resnet8"])
def test_chunks_are_planned_for_what_is_kept_for_the_backward_pass(arch: str, generator: torch.Generator) -> None:
    steps, batch = 8, 4
    ann = build_ann(arch, (1, 28, 28), 10, InputRange(0, 1), generator)
    network = SpikingNetwork.from_ann(ann, SpikingConfig(steps)).requires_grad_(True)
    x = torch.rand(batch, 1, 28, 28, generator=generator)
    balance_thresholds(network, x, seed=1, scale=0.2)
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(x, seed=3)
    planned = network._bytes_a_step(True) * steps * batch
    assert logits.requires_grad
    assert planned / 4 < sum(kept.values()) < planned


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


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_dense_and_listed_spikes_are_the_same(density: float, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("vgg", SpikingConfig(6)).requires_grad_(True)
    network.fast = False
    spikes, expected = network.simulate(images(), seed=3).spikes, gradients(network, images())
    monkeypatch.setattr("leakbench.snn.engine.events.DENSEST", density)
    monkeypatch.setattr("leakbench.snn.engine.events._FEW", 0)
    network.fast = True
    assert network.simulate(images(), seed=3).spikes == spikes
    assert_alike(expected, gradients(network, images()))


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_weights_gradients_of_dense_and_listed_spikes_are_the_same(
    density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of("vgg", SpikingConfig(6)).requires_grad_(True)
    network.fast = False
    expected = gradients(network, images())
    calls: list[int] = []

    def counted(*arguments: Any, of: Any = winograd.weights_gradient) -> Tensor:
        calls.append(1)
        found: Tensor = of(*arguments)
        return found

    monkeypatch.setattr("leakbench.snn.engine.events._LISTED", density)
    monkeypatch.setattr(winograd, "weights_gradient", counted)
    network.fast = True
    assert_alike(expected, gradients(network, images()))
    assert bool(calls) == (density == 0)


def test_weights_gradients_of_few_inputs_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("vgg", SpikingConfig(6)).requires_grad_(True)
    whole = gradients(network, images())
    calls: list[int] = []

    def counted(*arguments: Any, of: Any = events._few_weights_gradient) -> Tensor:
        calls.append(1)
        found: Tensor = of(*arguments)
        return found

    monkeypatch.setattr(events, "_few_weights_gradient", counted)
    monkeypatch.setattr(events, "_IN_TURN", 1)
    assert_alike(whole, gradients(network, images()))
    assert calls == [1]


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
    made: list[Spikes] = []
    original = Layer.from_spikes

    def spy(self: Layer, *args: Any) -> Any:
        out = original(self, *args)
        made.append(out[0])
        return out

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(Layer, "from_spikes", spy)
        network(images(100), seed=3)
    expected = seen[0].permute(0, 1, 3, 4, 2) > 0
    differing = int((expected != (made[0].made > 0)).sum())
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


def test_only_wanted_gradients_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("vgg", SpikingConfig(4)).requires_grad_(False)
    called: list[str] = []
    monkeypatch.setattr("leakbench.snn.engine.events.DENSEST", 10.0)
    for name in ("_weights_gradient", "_input_gradient"):
        original = getattr(__import__("leakbench.snn.engine.events", fromlist=[name]), name)

        def spy(*args: Any, _name: str = name, _original: Any = original) -> Any:
            called.append(_name)
            return _original(*args)

        monkeypatch.setattr(f"leakbench.snn.engine.events.{name}", spy)
    gradients(network, images())
    assert set(called) == {"_input_gradient"}
    called.clear()
    network.requires_grad_(True)
    network(images(), seed=3).sum().backward()
    # three convolutions and a linear layer feed neurons; the first has nothing below it
    assert called.count("_weights_gradient") == 4
    assert called.count("_input_gradient") == 3
    called.clear()
    with torch.no_grad():
        network(images(), seed=3)
    assert not called


def test_a_graph_is_walked_back_once() -> None:
    """Its memory is where the gradients go; a second walk says so and does not return something else."""
    network = network_of("vgg", SpikingConfig(4)).requires_grad_(True)
    loss = network(images(), seed=3).square().sum()
    loss.backward(retain_graph=True)
    with pytest.raises(UsageError, match="simulate again"):
        loss.backward()
