"""Adaptive spiking neurons: against a plain loop with filters behind the synapses, closed forms, and autograd."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from plain_loop import stages
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.data import Dataset
from leakbench.errors import UsageError
from leakbench.models.storage import load_network, save_network
from leakbench.snn import RateNetwork, SpikingConfig, SpikingNetwork, Surrogate, agreements, analog_twin
from leakbench.snn.adaptive import AdaptiveNeuron, AdaptiveTransfer, _adapt
from leakbench.snn.neurons import Run

SHAPE = (2, 4, 4)
SCALES = [1.25, 0.8]
# decays a step of 1 ms, from the paper's time constants
D_PHI, D_GAMMA, D_ETA = np.exp(-1 / np.array([2.5, 15.0, 50.0]))


def toy_network(timesteps: int, neuron: AdaptiveNeuron | None = None, seed: int = 3) -> SpikingNetwork:
    """conv - pool - FC - FC with biases on 2x4x4 images in [-1, 1], in doubles: no spike depends on rounding."""
    body = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(),
        nn.Linear(5, 3),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    config = SpikingConfig(timesteps, "direct", neuron or AdaptiveNeuron())
    network = SpikingNetwork.from_ann(ImageClassifier(body, SHAPE, 3, (-1.0, 1.0)), config).double()
    for layer, scale in zip(network.neurons, SCALES, strict=True):
        layer.set_threshold(scale)
    return network.requires_grad_(False)


def images_of(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed)).double()


class PlainNeurons:
    """The neurons of one layer, one step at a time, spikes of 1; S in units of the layer's scale."""

    def __init__(self, m_f: float) -> None:
        self.m_f = m_f
        self.theta: Any = m_f
        self.theta_dyn: Any = 0.0
        self.s_hat: Any = 0.0

    def step(self, s: Tensor) -> Tensor:
        self.s_hat = self.s_hat * D_ETA
        spike = (s - self.s_hat > 0.5 * self.theta).to(s.dtype)
        self.s_hat = self.s_hat + self.theta * spike
        self.theta_dyn = (self.theta_dyn + self.m_f * self.theta * spike) * D_GAMMA
        self.theta = self.m_f + self.theta_dyn
        return spike


class PlainSynapses:
    """Weights times h, behind them the postsynaptic current and the membrane's filter, behind these the bias."""

    def __init__(self, stage: nn.Module, h: float, zero: Tensor) -> None:
        self.stage, self.h, self.bias = stage, h, stage(zero)
        self.current: Any = 0.0
        self.potential: Any = 0.0

    def step(self, spikes: Tensor) -> Tensor:
        self.current = D_ETA * self.current + self.h * (self.stage(spikes) - self.bias)
        self.potential = (1 - D_PHI) * self.current + D_PHI * self.potential
        return self.potential + self.bias


def plain_network(network: SpikingNetwork, images: Tensor, m_f: float, h: float) -> tuple[Tensor, list[int]]:
    """Logits and spikes of each layer, as in the paper: the image is an analog current of the first layer."""
    first, second, last = stages(network.reconvert().body)
    x = first(images * 2 - 1)
    zeros = torch.zeros_like(x[:1]), torch.zeros(1, 5).double()
    neurons = PlainNeurons(m_f), PlainNeurons(m_f)
    # weight scaling: what comes out of a layer is worth its scale
    synapses = PlainSynapses(second, h * SCALES[0], zeros[0]), PlainSynapses(last, h * SCALES[1], zeros[1])
    logits, spike_counts = torch.zeros(len(images), 3).double(), [0, 0]
    for _ in range(network.config.timesteps):
        spikes = neurons[0].step(x / SCALES[0])
        deeper = neurons[1].step(synapses[0].step(spikes) / SCALES[1])
        logits = logits + synapses[1].step(deeper)
        spike_counts = [spike_counts[0] + int(spikes.sum()), spike_counts[1] + int(deeper.sum())]
    return logits / network.config.timesteps, spike_counts


@pytest.mark.parametrize(("m_f", "h"), [(0.1, 0.1244270456925374), (0.3, None)])
def test_it_is_the_network_of_filters_behind_the_synapses(m_f: float, h: float | None) -> None:
    network = toy_network(60, AdaptiveNeuron(m_f=m_f))
    images = images_of(6)
    done = network.simulate(images, seed=0)
    logits, spike_counts = plain_network(network, images, m_f, h or AdaptiveNeuron(m_f=m_f).height)
    torch.testing.assert_close(done.logits, logits, rtol=1e-9, atol=1e-11)
    assert list(done.spikes.values())[1:] == spike_counts
    assert all(count > 20 for count in spike_counts)


def test_neither_chunks_nor_batches_nor_looking_on_change_anything() -> None:
    network, images = toy_network(30), images_of(5)
    whole = network.simulate(images)
    looked = network.observe(images, lambda *_: None)
    parts = torch.cat([network(images[:2]), network(images[2:])])
    stops = network.simulate_at(images, [7, 30])
    network.memory_budget = 1
    for again in (network(images), looked, parts, stops[30].logits):
        torch.testing.assert_close(again, whole.logits, rtol=1e-9, atol=1e-11)
    assert network.simulate(images).spikes == whole.spikes == stops[30].spikes
    short = network.configured(SpikingConfig(7, "direct", AdaptiveNeuron())).simulate(images)
    torch.testing.assert_close(stops[7].logits, short.logits, rtol=1e-9, atol=1e-11)


# --- the transfer function -------------------------------------------------------------------------------------------


def test_the_transfer_function_is_normalised() -> None:
    neuron = AdaptiveNeuron()
    assert round(neuron.height, 4) == 0.1244  # the group's own value
    f = neuron.transfer(torch.tensor([-3.0, 0.0, neuron.m_f / 2, 1.0]).double()).tolist()
    assert f == pytest.approx([0.0, 0.0, neuron.height / 2, 1.0])
    for m_f in (0.03, 0.3, 1.0):
        assert float(AdaptiveNeuron(m_f=m_f).transfer(torch.ones(()).double())) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("m_f", [0.05, 0.1, 0.2])
def test_the_transfer_function_is_the_mean_output_for_a_constant_input(m_f: float) -> None:
    """Of a neuron that had 500 ms to settle; what is left is the paper's continuous time against steps of 1 ms."""
    neurons, neuron = PlainNeurons(m_f), AdaptiveNeuron(m_f=m_f)
    s = torch.linspace(2 * m_f, 3, 40).double()
    current = heard = torch.zeros(40).double()
    for t in range(3000):
        current = D_ETA * current + neurons.step(s)  # the membrane's filter leaves means as they are
        heard = heard + neuron.height * current * (t >= 500)
    # a quarter of the threshold at rest, where f goes up to 2 and more
    assert float((heard / 2500 - neuron.transfer(s)).abs().max()) < m_f / 4


def test_its_derivative_is_autograds_of_the_formula_and_zero_below() -> None:
    s = torch.linspace(-1, 4, 41).double().requires_grad_()
    scale = torch.tensor(1.7).double()
    out = AdaptiveTransfer("layer", AdaptiveNeuron(), scale)(s)
    (slope,) = torch.autograd.grad(out.sum(), s)
    step = 1e-6
    with torch.no_grad():
        high, low = (AdaptiveTransfer("layer", AdaptiveNeuron(), scale)(s + sign * step) for sign in (1, -1))
    inner = (s.detach() - 0).abs() > 0.1
    torch.testing.assert_close(slope[inner], ((high - low) / (2 * step))[inner], rtol=1e-6, atol=1e-8)
    assert (slope[s < 0] == 0).all() and (slope[s > 0.1] > 0).all()


# --- gradients -------------------------------------------------------------------------------------------------------


class _Fire(torch.autograd.Function):
    """1[v > 1] forwards, slope(v) backwards."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(v)
        ctx.surrogate = surrogate
        return (v > 1).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return grad * ctx.surrogate(v[None])[0], None


def by_autograd(current: Tensor, scale: float, neuron: AdaptiveNeuron) -> Tensor:
    """Output of one layer for currents [T, ...], every operation under autograd."""
    s = current / scale
    s_hat = grown = heard = potential = torch.zeros_like(s[0])
    out = []
    for s_t in s:
        theta = neuron.m_f + grown
        s_hat = s_hat * D_ETA
        spike = _Fire.apply((s_t - s_hat) / theta + 0.5, neuron.surrogate)  # type: ignore[no-untyped-call]
        reset = spike.detach() if neuron.detach_reset else spike
        s_hat = s_hat + theta * reset
        grown = (grown + neuron.m_f * theta * reset) * D_GAMMA
        heard = heard * D_ETA + spike
        potential = D_PHI * potential + (1 - D_PHI) * heard
        out.append(scale * neuron.height * potential)
    return torch.stack(out)


@pytest.mark.parametrize(
    "neuron",
    [
        AdaptiveNeuron(),
        AdaptiveNeuron(m_f=0.4, surrogate=Surrogate("arctan", 0.5)),
        AdaptiveNeuron(detach_reset=True, surrogate=Surrogate("fast_sigmoid")),
    ],
    ids=["triangle", "arctan", "detached"],
)
def test_gradients_are_those_of_autograd_through_all_steps(neuron: AdaptiveNeuron) -> None:
    generator = torch.Generator().manual_seed(6)
    current = (torch.randn(12, 3, 7, generator=generator) + 0.7).double().requires_grad_()
    weights = torch.randn(12, 3, 7, generator=generator).double()
    layer = neuron.layer("layer").double()
    layer.set_threshold(1.3)
    run = Run(3, torch.empty(0))
    gradients = []
    for chunks in ([12], [5, 4, 3]):  # in one go, and with the state handed on
        state, outs = layer.start(current), []
        for part in current.split(chunks):
            out, state, _ = layer.fire(part, state, run)
            outs.append(out)
        outs_all = torch.cat(outs)
        torch.testing.assert_close(outs_all, by_autograd(current, 1.3, neuron))
        gradients += torch.autograd.grad((outs_all * weights).sum(), current)
    (wanted,) = torch.autograd.grad((by_autograd(current, 1.3, neuron) * weights).sum(), current)
    assert wanted.abs().sum() > 0
    for gradient in gradients:
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.slow
def test_gradients_point_where_the_transfer_functions_do(digits: Dataset, digits_ann: ImageClassifier) -> None:
    """Surrogate gradients through 64 steps are noisy, but no other direction than the twin's."""
    network = adapted(digits_ann, 64)
    images = digits.test.images[:30].float() / 255
    gradients = []
    for model in (network, analog_twin(network)):
        x = images.clone().requires_grad_()
        logits = model(x).gather(1, digits.test.labels[:30, None]).sum()
        gradients.append(torch.autograd.grad(logits, x)[0].flatten(1))
    cosine = torch.nn.functional.cosine_similarity(*gradients)
    assert torch.isfinite(gradients[0]).all()
    assert float(cosine.mean()) > 0.5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("steps", "batch"), [(7, 3), (40, 5)])
def test_without_a_gradient_the_kernel_gives_the_same(steps: int, batch: int, layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(steps * batch, 17, 9, 9, generator=generator).contiguous(memory_format=layout)
    changing, state = maps.unflatten(0, (steps, batch)), torch.rand(4, batch, 17, 9, 9, generator=generator)
    for s in (changing, changing[:1].expand_as(changing)):
        quick, plain = (_adapt(s, state.clone(), 0.1, keep)[:3] for keep in (False, True))
        for mine, theirs in zip(quick, plain, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
        assert int(plain[2]) > 0


# --- the network around it -------------------------------------------------------------------------------------------


def adapted(ann: ImageClassifier, timesteps: int) -> SpikingNetwork:
    """The digits network; highest activations on digits are 3 to 6."""
    network = SpikingNetwork.from_ann(ann, SpikingConfig(timesteps, "direct", AdaptiveNeuron()))
    for layer in network.neurons:
        layer.set_threshold(4.0)
    return network.requires_grad_(False)


@pytest.mark.slow
def test_it_answers_as_the_ann_does(digits: Dataset, digits_ann: ImageClassifier) -> None:
    images, labels = digits.test.images[:100].float() / 255, digits.test.labels[:100]
    theirs = digits_ann(images)
    mine = adapted(digits_ann, 100)(images)
    assert float((mine.argmax(1) == labels).float().mean()) > float((theirs.argmax(1) == labels).float().mean()) - 0.05
    # in the ANN's scale: f is above the diagonal below 1, and the first steps are below f
    assert 0.7 < float((mine * theirs).sum() / theirs.square().sum()) < 1.4


@pytest.mark.parametrize("steps", [8, 32, 200])
def test_the_twin_of_one_layer_is_the_mean_of_its_simulation(steps: int) -> None:
    """60 neurons side by side under constant currents of -1 to 3 scales, and f for comparison."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(60, 60, bias=False), nn.ReLU(), nn.Linear(60, 60, bias=False))
    for layer in (body[1], body[3]):
        nn.init.eye_(layer.weight)
    ann = ImageClassifier(body, (1, 1, 60), 60, (-2.0, 6.0))
    network = SpikingNetwork.from_ann(ann, SpikingConfig(steps, "direct", AdaptiveNeuron())).double()
    network.neurons[0].set_threshold(2.0)
    images = torch.linspace(0, 1, 60).double().view(1, 1, 1, 60).requires_grad_()
    twin = analog_twin(network)(images)
    simulated = network(images.detach())
    error = float((twin - simulated).detach().abs().mean())
    assert error < 0.01
    f = AdaptiveTransfer("f", AdaptiveNeuron(), torch.tensor(2.0).double())(images * 8 - 2).flatten(1)
    assert float((f - simulated).detach().abs().mean()) > 5 * error
    # the gradient rises as the outputs do, and is a tenth at least
    (gradient,) = torch.autograd.grad(twin.sum(), images, retain_graph=True)
    gradient, current = gradient.flatten() / 8, (images.detach() * 8 - 2).flatten()
    assert gradient[current < -0.5].tolist() == pytest.approx([0.1] * int((current < -0.5).sum()))
    risen, most = float(torch.trapezoid(gradient, current)), float(simulated.detach()[0, -1])
    assert 0.9 * most + 0.2 < risen < most + 0.8


@pytest.mark.slow
def test_the_twin_computes_what_it_does(digits: Dataset, digits_ann: ImageClassifier) -> None:
    network = adapted(digits_ann, 64)
    [agreement] = agreements(network, digits.test.images[:60].float() / 255, 0, analog_twin(network))
    assert agreement.correlation > 0.97
    assert agreement.same_class > 0.9
    assert set(agreement.rate_error) == set(network.topology.activations)
    assert all(error < 0.02 for error in agreement.rate_error.values())


@pytest.mark.parametrize("derivative", ["rga", "hart"])
def test_gradients_of_its_rates_exist(derivative: Any, digits: Dataset, digits_ann: ImageClassifier) -> None:
    network = adapted(digits_ann, 32)
    images = (digits.test.images[:4].float() / 255).requires_grad_()
    logits = RateNetwork(network, derivative)(images, seed=0)
    torch.testing.assert_close(logits, network(images, seed=0))
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), images)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_the_fast_path_steps_aside(digits: Dataset, digits_ann: ImageClassifier) -> None:
    network = adapted(digits_ann, 16)
    images = digits.test.images[:5].float() / 255
    mine = network(images)
    network.fast = False
    assert torch.equal(network(images), mine)


def test_it_is_stored_with_its_neurons(digits: Dataset, digits_ann: ImageClassifier) -> None:
    network = adapted(digits_ann, 16).configured(SpikingConfig(16, "direct", AdaptiveNeuron(m_f=0.2)))
    tensors, record = save_network(network)
    again = load_network(tensors, json.loads(json.dumps(record)), torch.device("cpu"))
    assert isinstance(again, SpikingNetwork)
    assert again.config == network.config
    images = digits.test.images[:5].float() / 255
    assert torch.equal(again(images), network(images))
    assert torch.equal(again.reconvert()(images), digits_ann(images))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"leak": 0.9}, "adaptive neurons have decays of their own"),
        ({"reset": "hard"}, "adaptive neurons have decays of their own"),
        ({"m_f": 0.0}, r"m_f must be in \(0, 1\], got 0.0"),
        ({"m_f": math.nan}, "m_f must be in"),
    ],
)
def test_neurons_of_another_kind_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AdaptiveNeuron(**given)


def test_only_a_constant_current_drives_it() -> None:
    with pytest.raises(UsageError, match="adaptive neurons take the encoder direct, not poisson"):
        SpikingConfig(8, "poisson", AdaptiveNeuron())
