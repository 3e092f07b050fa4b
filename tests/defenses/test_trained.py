"""Training with spikes: the papers' equations written out with unit spikes, and what is deployed in the end."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, InputRange, TrainingData
from leakbench.defenses import trained
from leakbench.defenses.trained import (
    Lee2020,
    Stbp,
    TdBn,
    _groups,
    folded,
    rectangle,
    set_thresholds,
    with_threshold_norms,
)
from leakbench.errors import NotApplicable, NumericalError, UsageError
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, Surrogate
from leakbench.snn.encoders import poisson
from leakbench.snn.noise import image_keys

METHODS: dict[str, type[Defense[Any]]] = {"stbp": Stbp, "tdbn": TdBn, "lee2020": Lee2020}
every = pytest.mark.parametrize("name", list(METHODS))


def model(arch: str) -> ImageClassifier:
    return build_ann(arch, (1, 8, 8), 10, InputRange(0, 1), torch.Generator().manual_seed(4))


def few(digits_data: TrainingData, count: int = 24) -> TrainingData:
    images, labels = digits_data.sample(count, torch.Generator().manual_seed(5))
    return TrainingData((images * 255).round().to(torch.uint8), labels)


def protect(name: str, ann: ImageClassifier, data: TrainingData, **params: Any) -> SpikingNetwork:
    """By one pass over the data, unless ``params`` say otherwise."""
    method = METHODS[name](**{"epochs": 1, "least_steps": 0, **params})
    network = method(ann, data, DefenseContext(torch.Generator().manual_seed(0), timesteps=3))
    assert isinstance(network, SpikingNetwork)
    return network


# --- what holds for all of them --------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
@every
def test_it_learns_the_digits(name: str, digits_ann: ImageClassifier, digits_data: TrainingData, digits: Any) -> None:
    network = protect(name, digits_ann, digits_data, epochs=4, batch_size=32, timesteps=8)
    with torch.no_grad():
        answers = network(digits.test.images.float() / 255, seed=1).argmax(1)
    # after 180 steps; 0.1 is chance. After half as many, some processors' rounding leaves stbp below 0.3
    assert (answers == digits.test.labels).float().mean() > 0.5
    assert (digits_data.images_read, digits_data.reads) == (1437, 4 * 1437)


@pytest.mark.slow
@every
@pytest.mark.parametrize("arch", ["vgg4", "vgg4bn", "resnet8", "vgg5max"])
def test_what_is_deployed_is_built_again_by_its_name(name: str, arch: str, digits_data: TrainingData) -> None:
    ann = model(arch)
    if (name, arch) == ("lee2020", "vgg5max"):
        with pytest.raises(NotApplicable, match="lee2020 pools by averages: take a model without max pooling"):
            protect(name, ann, digits_data)
        return
    network = protect(name, ann, few(digits_data), timesteps=2)
    normed = arch in ("vgg4bn", "resnet8")
    assert network.arch == (arch + "+bias" if normed or name == "tdbn" else arch)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    again = load_network(*save_network(network), torch.device("cpu"))
    assert isinstance(again, SpikingNetwork)
    assert again.config == network.config
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(6))
    assert torch.equal(again(x, seed=1), network(x, seed=1))


@pytest.mark.slow
@every
def test_the_neurons_are_the_papers(name: str, digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    data = few(digits_data)
    network = protect(name, digits_ann, data, timesteps=5)
    leak, theta, encoder = {
        "stbp": (0.2, 0.5, "poisson"),
        "tdbn": (0.25, 0.5, "direct"),
        "lee2020": (0.99, 1.0, "poisson"),
    }[name]
    assert (network.config.timesteps, network.config.encoder) == (5, encoder)
    for layer in network.neurons:
        assert (layer.neuron.leak, layer.neuron.reset, float(layer.threshold)) == (leak, "hard", theta)
        assert float(layer.initial) == 0
    assert not METHODS[name]().anytime


@every
def test_the_grids_steps_are_taken_where_none_are_given(
    name: str, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    assert protect(name, digits_ann, few(digits_data), timesteps=None).config.timesteps == 3
    own = METHODS[name]().params.timesteps
    assert protect(name, digits_ann, few(digits_data)).config.timesteps == own != 3


@every
def test_nothing_of_the_anns_weights_is_left(name: str, digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    other, data = copy.deepcopy(digits_ann), few(digits_data)
    for weight in other.parameters():
        weight.data.normal_()
    mine, theirs = (protect(name, ann, data, timesteps=2).state_dict() for ann in (digits_ann, other))
    assert all(torch.equal(value, theirs[key]) for key, value in mine.items())


@every
def test_every_preset_is_allowed_and_the_papers_is_the_longest(name: str) -> None:
    method = METHODS[name]
    length = {
        preset: method(**method.presets.get(preset, {})).params.epochs for preset in ("quick", "standard", "paper")
    }
    assert length["quick"] < length["standard"] < length["paper"]
    wanted = {"stbp": (100, 20, 100), "tdbn": (100, 6, 64), "lee2020": (150, 100, 16)}[name]
    paper = method(**method.presets["paper"]).params
    assert (paper.epochs, paper.timesteps, paper.batch_size) == wanted


class Spy:
    """An optimiser that tells the learning rates and gradients of each of its steps."""

    rates: list[list[float]]
    grads: list[list[Tensor]]


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    seen = Spy()
    seen.rates, seen.grads = [], []
    for kind in (torch.optim.Adam, torch.optim.SGD):

        def step(self: Any, closure: None = None, take: Callable[..., Any] = kind.step) -> None:
            seen.rates.append([group["lr"] for group in self.param_groups])
            seen.grads.append([p.grad.clone() for group in self.param_groups for p in group["params"]])
            take(self, closure)

        monkeypatch.setattr(kind, "step", step)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rates"),
    [
        # ten passes of three steps, as the last batch is smaller
        ("stbp", [1e-3] * 12 + [1e-4] * 12 + [1e-5] * 6),
        ("tdbn", [0.1] * 15 + [0.01] * 8 + [0.001] * 7),
        ("lee2020", [1e-3] * 14 + [1e-3 / 5] * 6 + [1e-3 / 25] * 5 + [1e-3 / 125] * 5),
    ],
)
def test_the_learning_rate_is_lowered_where_the_papers_lower_it(
    name: str, rates: list[float], digits_ann: ImageClassifier, digits_data: TrainingData, spy: Spy
) -> None:
    shown: list[tuple[str, int, int]] = []
    method = METHODS[name](epochs=2, least_steps=28, batch_size=10, timesteps=2)
    context = DefenseContext(torch.Generator(), progress=lambda *args: shown.append(args))
    method(digits_ann, few(digits_data), context)
    assert [first for first, *_ in spy.rates] == pytest.approx(rates, rel=1e-6)
    assert shown == [("training with spikes", step, 30) for step in range(1, 31)]


@every
def test_training_that_breaks_down_says_so(name: str, digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    # where no neuron fires any more the loss is a number, and the framework sees the weights
    message = rf"{name}: (the loss is (nan|inf) at step \d+: lower {name}.lr|the protected network holds NaN)"
    with pytest.raises(NumericalError, match=message):
        protect(name, digits_ann, few(digits_data), epochs=3, batch_size=8, lr=1e37)


# --- the gradients of STBP and of Lee 2020, in unit spikes -----------------------------------------------------------


class Fires(torch.autograd.Function):
    """1[u > theta] forwards, ``derivative(u)`` backwards."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, theta: float, derivative: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(derivative(u))
        return (u > theta).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return grad * ctx.saved_tensors[0], None, None


class Exercise(NamedTuple):
    """One step that a method is about to take."""

    method: Defense[Any]
    data: TrainingData
    weights: list[Tensor]
    encoded: Tensor
    """[T, B, 1, 8, 8]"""
    one_hot: Tensor

    def gradients(self, spy: Spy, ann: ImageClassifier) -> list[Tensor]:
        """What the method makes of it."""
        self.method(ann, self.data, DefenseContext(torch.Generator().manual_seed(9)))
        return spy.grads[0]


def exercise(
    name: str, ann: ImageClassifier, digits_data: TrainingData, monkeypatch: pytest.MonkeyPatch, steps: int
) -> Exercise:
    """Starts from twice the trained weights and not from untrained ones, so that all layers spike from the start."""
    start = copy.deepcopy(ann)
    for weight in start.parameters():
        weight.data *= 2
    monkeypatch.setattr(trained, "untrained", lambda _ann, _context: copy.deepcopy(start))
    method = METHODS[name](epochs=1, least_steps=0, batch_size=100, timesteps=steps, dropout=0.0)
    data, generator = few(digits_data), torch.Generator().manual_seed(9)
    ((images, labels),) = data.batches(100, generator)
    seed = DefenseContext(generator).seed()
    encoded = poisson(images, image_keys(seed, 0, len(images), images.device), 0, steps).double()
    weights = [p.detach().double().requires_grad_() for p in start.parameters()]
    return Exercise(method, data, weights, encoded, torch.eye(10, dtype=torch.float64)[labels])


def unit_spikes_answer(
    weights: list[Tensor], encoded: Tensor, neuron: Callable[[Tensor | float, Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    """vgg4 step by step: two convolutions with average pooling, a hidden layer, an output that accumulates; over T."""
    membranes: list[Tensor | float] = [0.0, 0.0, 0.0]
    total: Tensor | float = 0.0
    for x in encoded:
        for i, weight in enumerate(weights[:2]):
            membranes[i], x = neuron(membranes[i], nn.functional.conv2d(x, weight, padding=1))
            x = nn.functional.avg_pool2d(x, 2)
        membranes[2], x = neuron(membranes[2], x.flatten(1) @ weights[2].T)
        total = total + x @ weights[3].T
    assert isinstance(total, Tensor)
    return total / len(encoded)


def assert_same_gradients(found: list[Tensor], wanted: tuple[Tensor, ...]) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("at_once", [100, 3])
def test_stbp_follows_the_gradient_of_wu_2018(
    at_once: int, digits_ann: ImageClassifier, digits_data: TrainingData, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpikingNetwork, "batch_in_memory", lambda _self: at_once)
    theta, tau = 0.5, 0.2
    task = exercise("stbp", digits_ann, digits_data, monkeypatch, steps=6)

    def window(u: Tensor) -> Tensor:
        return ((u - theta).abs() < 0.5).to(u.dtype)

    def neuron(kept: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        # u(t) = tau u(t-1) (1 - o(t-1)) + I(t)
        u = tau * kept + current
        spikes = Fires.apply(u, theta, window)  # type: ignore[no-untyped-call]
        return u * (1 - spikes), spikes

    # spikes of 1: what stands behind neurons has theta times the engine's weights
    unit = [task.weights[0], *(theta * w for w in task.weights[1:])]
    loss = ((unit_spikes_answer(unit, task.encoded, neuron) - task.one_hot) ** 2).mean()
    assert_same_gradients(task.gradients(spy, digits_ann), torch.autograd.grad(loss, task.weights))


@pytest.mark.parametrize("at_once", [100, 3])
def test_lee2020_follows_its_gradient_with_the_leak_of_the_membrane(
    at_once: int, digits_ann: ImageClassifier, digits_data: TrainingData, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpikingNetwork, "batch_in_memory", lambda _self: at_once)
    theta, leak = 1.0, 0.99
    task = exercise("lee2020", digits_ann, digits_data, monkeypatch, steps=10)

    def fired(u: Tensor) -> Tensor:
        return (u > theta).to(u.dtype) / theta

    def neuron(kept: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        u = leak * kept + current
        # what fired starts from 0, a number without history
        return torch.where(u > theta, 0.0, u), Fires.apply(u, theta, fired)  # type: ignore[no-untyped-call]

    answers = unit_spikes_answer(task.weights, task.encoded, neuron) / theta
    loss = ((answers - task.one_hot) ** 2).sum()
    # the optimiser adds the decay of weights after it was handed the gradient
    assert_same_gradients(task.gradients(spy, digits_ann), torch.autograd.grad(loss, task.weights))


@pytest.mark.parametrize("theta", [0.25, 0.5, 1.0])
def test_the_rectangle_is_one_within_half_of_theta(theta: float) -> None:
    u = torch.tensor([-0.3, theta - 0.51, theta - 0.49, theta, theta + 0.49, theta + 0.51])
    # the engine's derivative is that of theta o
    slopes = rectangle(theta)(u / theta) / theta
    torch.testing.assert_close(slopes, ((u - theta).abs() < 0.5).float())


def test_lee2020_with_pooling_neurons(digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    network = protect("lee2020", digits_ann, few(digits_data), timesteps=2, spiking_pools=True, threshold=2.0)
    assert network.arch == "vgg4+pools"
    # convolution, pool, convolution, pool, hidden layer
    assert [float(layer.threshold) for layer in network.neurons] == [2, 1.5, 2, 1.5, 2]
    again = load_network(*save_network(network), torch.device("cpu"))
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(6))
    assert torch.equal(again(x, seed=1), network(x, seed=1))


def test_lee2020_leaves_the_engines_own_derivative_behind(
    digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = protect("lee2020", digits_ann, few(digits_data), timesteps=2)
    assert network.config.neuron == Neuron(0.99, "hard", surrogate=Surrogate())
    assert all(layer.neuron == network.config.neuron for layer in network.neurons)


# --- tdBN ------------------------------------------------------------------------------------------------------------


def learning(arch: str, theta: float = 0.5, steps: int = 4) -> SpikingNetwork:
    config = SpikingConfig(steps, "direct", Neuron(0.25, "hard", surrogate=rectangle(theta)))
    network = SpikingNetwork.from_ann(with_threshold_norms(model(arch), theta), config, fold=False)
    set_thresholds(network, theta)
    return network


def norms(network: SpikingNetwork) -> dict[str, nn.BatchNorm2d]:
    return {name: m for name, m in network.body.named_modules() if isinstance(m, nn.BatchNorm2d)}


@pytest.mark.slow
def test_a_norm_behind_each_convolution_starts_at_alpha_times_the_threshold() -> None:
    for arch in ("vgg4", "vgg4bn", "vgg5max"):
        found = norms(learning(arch, theta=0.3))
        assert len(found) == sum(isinstance(m, nn.Conv2d) for m in model(arch).modules())
        assert all(torch.equal(norm.weight, torch.full_like(norm.weight, 0.3)) for norm in found.values())
    # the second of a residual block and its shortcut are summed
    summed = {name for name in norms(learning("resnet8")) if name.endswith(("bn2", "shortcut.1"))}
    assert len(summed) == 3 + 2
    for name, norm in norms(learning("resnet8", theta=0.3)).items():
        wanted = 0.3 / math.sqrt(2) if name in summed else 0.3
        torch.testing.assert_close(norm.weight.detach(), torch.full_like(norm.weight, wanted))


@pytest.mark.parametrize("fast", [True, False])
def test_currents_are_normalised_over_images_places_and_steps(fast: bool) -> None:
    network = learning("vgg4", theta=0.5, steps=5).train()
    network.fast = fast
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    network(x)
    # by hand: an image enters as it is at each step; all sums in doubles
    first, second = (w.detach().double() for w in list(network.weights().values())[:2])
    currents = nn.functional.conv2d(x.double(), first, padding=1).numpy()

    def normed(z: Any) -> Any:
        """V_th (z - mu) / sqrt(var + eps) for z [T, N, C, H, W]."""
        mean, variance = z.mean((0, 1, 3, 4), keepdims=True), z.var((0, 1, 3, 4), keepdims=True)
        return 0.5 * (z - mean) / np.sqrt(variance + 1e-5)

    u, behind = np.zeros(currents.shape), []
    for current in normed(np.stack([currents] * 5)):
        u = 0.25 * u + current
        spikes = u > 0.5
        u = np.where(spikes, 0, u)
        pooled = nn.functional.avg_pool2d(torch.from_numpy(0.5 * spikes), 2)
        behind.append(nn.functional.conv2d(pooled, second, padding=1).numpy())
    over_time = np.stack(behind)
    assert np.ptp(over_time.mean((1, 3, 4)), axis=0).max() > 1e-3, "steps that are alike prove nothing"
    one, two = norms(network).values()
    # a tenth of the way from 0 and 1 to the first batch's mean and variance
    for norm, z in ((one, np.stack([currents] * 5)), (two, over_time)):
        mean, variance = (torch.from_numpy(f(z, axis=(0, 1, 3, 4))).float() for f in (np.mean, np.var))
        torch.testing.assert_close(norm.running_mean, 0.1 * mean, rtol=1e-4, atol=1e-6)
        # PyTorch keeps n / (n - 1) times the variance; n is at least 6 * 4 * 4
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variance, rtol=2e-3, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["vgg4", "vgg4bn", "resnet8", "vgg5max"])
def test_folding_changes_neither_answers_nor_spikes(arch: str) -> None:
    network, generator = learning(arch, steps=6), torch.Generator().manual_seed(3)
    x = torch.rand(8, 1, 8, 8, generator=generator)
    network.train()
    for _ in range(20):  # statistics that belong to the network
        network(torch.rand(8, 1, 8, 8, generator=generator))
    for norm in norms(network).values():
        norm.weight.data *= 0.8 + torch.rand(norm.weight.shape, generator=generator)
        norm.bias.data += 0.1 * torch.randn(norm.bias.shape, generator=generator)
    for name, weight in network.weights().items():
        if weight.dim() == 2:
            network.body.get_parameter(f"{name}.weight").data *= 3  # hidden layers that spike
    network.eval()
    one, other = network.simulate(x), folded(network).simulate(x)
    assert all(count > 0 for count in one.spikes.values()), "a silent layer proves nothing"
    assert one.spikes == other.spikes
    torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-5)


def test_a_step_on_the_weight_of_a_norm_is_one_on_lambda() -> None:
    network, lr = learning("resnet8", theta=0.3).train().requires_grad_(True), 0.7
    x, y = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(8)
    optimizer = torch.optim.SGD(_groups(network, lr), lr=lr)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    nn.functional.cross_entropy(network(x), y).backward()
    scales = {name: float(norm.weight.detach()[0]) for name, norm in norms(network).items()}
    assert len(set(scales.values())) == 2
    # lambda = 1 before; w = s lambda: dL/dlambda = s dL/dw
    wanted = {
        name: scales[name] * (1 - lr * scales[name] * norm.weight.grad)  # type: ignore[operator]
        for name, norm in norms(network).items()
    }
    optimizer.step()
    for name, norm in norms(network).items():
        torch.testing.assert_close(norm.weight.detach(), wanted[name])


def test_tdbn_takes_as_many_images_a_step_as_fit_in_memory(
    digits_ann: ImageClassifier, digits_data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpikingNetwork, "memory_budget", 1 << 20)
    context = DefenseContext(torch.Generator().manual_seed(0))
    made = TdBn(epochs=1, least_steps=0)(digits_ann, few(digits_data), context)
    assert context.findings == {"images a step, as fit in memory": 4}
    asked = protect("tdbn", digits_ann, few(digits_data), batch_size=4)
    assert all(torch.equal(*pair) for pair in zip(made.parameters(), asked.parameters(), strict=True))


def test_tdbn_refuses_batches_whose_steps_do_not_fit_in_memory_together(
    digits_ann: ImageClassifier, digits_data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpikingNetwork, "memory_budget", 1 << 18)
    with pytest.raises(UsageError, match=r"tdbn normalises over images and all 4 steps.*set tdbn.timesteps to fewer"):
        protect("tdbn", digits_ann, digits_data, timesteps=4)


def test_tdbn_takes_no_network_whose_norms_cannot_be_folded(digits_data: TrainingData) -> None:
    body = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    with pytest.raises(NotApplicable, match="can't be folded"):
        protect("tdbn", ImageClassifier(body, (1, 8, 8), 10), digits_data)
