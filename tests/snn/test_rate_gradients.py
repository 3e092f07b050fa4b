"""Gradients of rates: one pass over time averages against a loop over all steps, as the authors write it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from plain_loop import stages
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.errors import UsageError
from leakbench.snn import Neuron, RateNetwork, SpikingConfig, SpikingNetwork, Surrogate
from leakbench.snn.encoders import ENCODERS
from leakbench.snn.noise import image_keys
from leakbench.snn.readout import Readout

SHAPE, STEPS, SEED = (2, 6, 6), 12, 3
# the first layer has a threshold for each channel
THETAS: list[Any] = [torch.tensor([0.7, 0.9, 1.1, 1.3]).double()[:, None, None], 0.5, 0.4]


# Doubles: what is compared differs in the order of summation, by some 1e-15 relative an operation.
def assert_same(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def toy_body() -> nn.Sequential:
    """conv - pool - conv - FC - FC on 2x6x6 images, with biases, in doubles."""
    body = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(45, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.05 if parameter.dim() == 1 else 0.3, generator=generator)
    return body.double().eval()


def toy_snn(encoder: Any = "poisson", neuron: Neuron | None = None) -> SpikingNetwork:
    config = SpikingConfig(STEPS, encoder, neuron or Neuron())
    network = SpikingNetwork.from_ann(ImageClassifier(toy_body(), SHAPE, 3, (-1.0, 1.0)), config)
    for layer, theta in zip(network.neurons, THETAS, strict=True):
        layer.set_threshold(theta)
    return network.double()


def toy_images() -> Tensor:
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


# --- the authors' way: all steps, a gradient for each ----------------------------------------------------------------


def spike_train(currents: Tensor, theta: Tensor, leak: float, reset: str) -> tuple[Tensor, Tensor]:
    """Spikes of theta and membranes before the reset of one layer, [T, B, ...] each."""
    u, spikes, membranes = torch.zeros_like(currents[0]), [], []
    for current in currents:
        u = leak * u + current
        membranes.append(u)
        fired = (u > theta).to(u.dtype)
        spikes.append(theta * fired)
        u = u - theta * fired if reset == "soft" else u * (1 - fired)
    return torch.stack(spikes), torch.stack(membranes)


class RgaLayer(torch.autograd.Function):
    """RateBp: grad_out times a function of the mean current, passed on unchanged at each step."""

    @staticmethod
    def forward(ctx: Any, currents: Tensor, theta: Tensor, leak: float, reset: str) -> Tensor:
        ctx.save_for_backward(currents / theta)
        ctx.leak = leak
        return spike_train(currents, theta, leak, reset)[0]

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        x, tau, gamma = x.mean(0, keepdim=True), ctx.leak, 0.2
        flat = (x >= 0) & (x < 1 - tau)
        rising = (x >= 1 - tau) & (x >= 0) & (x <= 2)
        g = flat.double() * gamma + rising.double() * (1 - gamma + gamma * tau) / (tau + 1)
        return grad_out * g, None, None, None


class GradAvg(torch.autograd.Function):
    """Nothing forwards; backwards the mean over steps."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        return grad.mean(0, keepdim=True).expand_as(grad)


def hart_layer(currents: Tensor, theta: Tensor, leak: float, reset: str, slope: Surrogate) -> Tensor:
    averaged = GradAvg.apply(currents)  # type: ignore[no-untyped-call]
    spikes, membranes = spike_train(currents.detach(), theta, leak, reset)
    # u(t) = leak * u(t - 1).detach() + x(t): each spike depends on its own step's current alone
    straight = averaged - averaged.detach()
    return torch.stack([s + slope(u / theta) * x for s, u, x in zip(spikes, membranes, straight, strict=True)])


def all_steps(
    images: Tensor, network: SpikingNetwork, body: nn.Sequential, derivative: str, slope: Surrogate
) -> Tensor:
    """Logits [B, classes] of the chain, differentiable through every step's own graph."""
    x = images * 2 - 1
    keys = image_keys(SEED, 0, len(x), x.device)
    encoded = ENCODERS[network.config.encoder](x.detach(), keys, 0, STEPS)
    train = x + (encoded - x).detach()
    *hidden, last = stages(body)
    neuron = network.config.neuron
    for layer, theta in zip(hidden, [n.threshold for n in network.neurons], strict=True):
        currents = torch.stack([layer(step) for step in train])
        if derivative == "rga":
            train = RgaLayer.apply(currents, theta, neuron.leak, neuron.reset)  # type: ignore[no-untyped-call]
        else:
            train = hart_layer(currents, theta, neuron.leak, neuron.reset, slope)
    return torch.stack([last(step) for step in train]).mean(0)


# --- the same gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["poisson", "direct"])
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize(
    ("derivative", "slope"), [("rga", Surrogate()), ("hart", Surrogate(width=1.5)), ("hart", Surrogate("arctan", 0.5))]
)
def test_one_pass_gives_the_gradient_of_the_authors_loop(
    derivative: Any, slope: Surrogate, leak: float, reset: Any, encoder: Any
) -> None:
    network, body = toy_snn(encoder, Neuron(leak, reset)), toy_body()
    images, again = toy_images().requires_grad_(), toy_images().requires_grad_()
    probe = torch.tensor([1.0, -2.0, 0.5]).double()
    logits = RateNetwork(network, derivative, slope)(images, seed=SEED)
    mine = torch.autograd.grad((logits * probe).sum(), [images, *network.parameters()])
    wanted = all_steps(again, network, body, derivative, slope)
    theirs = torch.autograd.grad((wanted * probe).sum(), [again, *body.parameters()])
    assert_same(logits, wanted)
    for mine_one, theirs_one in zip(mine, theirs, strict=True):
        assert theirs_one.abs().max() > 1e-3
        assert_same(mine_one, theirs_one)


@pytest.mark.parametrize("derivative", ["rga", "hart"])
def test_logits_are_the_spiking_networks(derivative: Any) -> None:
    network, images = toy_snn(), toy_images()
    rates = RateNetwork(network, derivative)
    with torch.no_grad():
        assert torch.equal(rates(images, seed=7), network(images, seed=7))
        assert not torch.equal(rates(images, seed=8), network(images, seed=7))
        network.reseed(1)
        fresh = network(images)
        network.reseed(1)
        assert torch.equal(rates(images), fresh)


def test_logits_are_the_spiking_networks_behind_a_max_pooling_too() -> None:
    # the maximum of spikes at each step is no function of rates
    body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)).double()
    network = SpikingNetwork.from_ann(ImageClassifier(body, SHAPE, 3), SpikingConfig(STEPS)).double()
    network.neurons[0].set_threshold(0.5)
    images = toy_images().requires_grad_()
    logits = RateNetwork(network, "rga")(images, seed=7)
    assert torch.equal(logits.detach(), network(images, seed=7).detach())
    assert torch.autograd.grad(logits.sum(), images)[0].abs().max() > 0


@pytest.mark.parametrize("derivative", ["rga", "hart"])
@pytest.mark.parametrize(
    ("readout", "factor"),
    [(Readout(0.0, "sum"), STEPS), (Readout(1.0, "last", 0.5), STEPS / 2), (Readout(scale=5.0), 5)],
)
def test_gradients_are_in_the_unit_of_the_logits(derivative: Any, readout: Readout, factor: float) -> None:
    images, usual = toy_images().requires_grad_(), toy_snn()
    other = usual.configured(replace(usual.config, readout=readout))
    mean, read = (RateNetwork(network, derivative)(images, seed=SEED) for network in (usual, other))
    assert_same(read.detach(), factor * mean.detach())
    assert_same(*(torch.autograd.grad(out.sum(), images)[0] for out in (read, factor * mean)))


@pytest.mark.parametrize("derivative", ["rga", "hart"])
def test_time_chunks_change_nothing(derivative: Any) -> None:
    def gradient(network: SpikingNetwork) -> tuple[Tensor, Tensor]:
        images = toy_images().requires_grad_()
        logits = RateNetwork(network, derivative)(images, seed=SEED)
        return logits.detach(), torch.autograd.grad(logits.square().sum(), images)[0]

    whole, parts = toy_snn(neuron=Neuron(0.9)), toy_snn(neuron=Neuron(0.9))
    parts.memory_budget = 5 * parts.topology.elements * 4 * 4
    with torch.no_grad():
        assert (whole.chunk_steps(4), parts.chunk_steps(4)) == (STEPS, 5)  # 5, 5 and 2
    for mine, theirs in zip(gradient(parts), gradient(whole), strict=True):
        assert theirs.abs().max() > 0
        assert_same(mine, theirs)


# --- by hand ---------------------------------------------------------------------------------------------------------


def slopes(currents: list[float], neuron: Neuron, steps: int, derivative: Any) -> list[float]:
    """Slope of each of a row of neurons of threshold 2 whose constant current is 2 r, for each r in [-1, 3]."""
    n = len(currents)
    into, out = nn.Linear(n, n, bias=False), nn.Linear(n, n, bias=False)
    with torch.no_grad():
        into.weight.copy_(2 * torch.eye(n))
        out.weight.copy_(torch.eye(n))
    body = nn.Sequential(nn.Flatten(), into, nn.ReLU(), out).double()
    config = SpikingConfig(steps, "direct", neuron)
    network = SpikingNetwork.from_ann(ImageClassifier(body, (1, 1, n), n, (-1.0, 3.0)), config).double()
    network.neurons[0].set_threshold(2.0)
    images = ((torch.tensor(currents).double() + 1) / 4).view(1, 1, 1, n).requires_grad_()
    logits = RateNetwork(network, derivative)(images)
    # a pixel spans 4 units of r, of which each is worth 2 in currents
    return (torch.autograd.grad(logits.sum(), images)[0].flatten() / 8).tolist()


def test_rgas_constants_by_hand() -> None:
    r = [-0.5, -0.125, 0.125, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0, 2.125]
    # below the leak's .5 the slope is .2; from there to 2 it is (1 - .2 + .2 * .5) / (.5 + 1) = .6; else 0
    assert slopes(r, Neuron(0.5), 4, "rga") == pytest.approx([0, 0, 0.2, 0.2, 0.6, 0.6, 0.6, 0.6, 0.6, 0])
    # without a leak nothing is below it, and (1 - .2 + .2) / 2 = .5
    assert slopes([0.0, *r], Neuron(), 4, "rga") == pytest.approx([0.5, 0, 0, *[0.5] * 7, 0])


def test_harts_slope_by_hand() -> None:
    # r = .75: u = .75, 1.5 (spike), 1.25 (spike): triangle .75, .5, .75; r = -1: u = -1, -2, -3: none;
    # r = .25: u = .25, .5, .75
    assert slopes([0.75, -1, 0.25], Neuron(), 3, "hart") == pytest.approx([2 / 3, 0, 0.5])
    # hard: u = .75, 1.5 (spike), .75
    assert slopes([0.75], Neuron(reset="hard"), 3, "hart") == pytest.approx([2 / 3])
    # leak .5: u = .75, 1.125 (spike), .0625 + .75 = .8125
    assert slopes([0.75], Neuron(0.5), 3, "hart") == pytest.approx([(0.75 + 0.875 + 0.8125) / 3])


# --- what is shared and what is refused ------------------------------------------------------------------------------


def test_the_networks_own_tensors_are_used_and_its_layers_left_in_place() -> None:
    network = toy_snn()
    before = {name: type(module) for name, module in network.named_modules()}
    rates = RateNetwork(network, "rga")
    assert {name: type(module) for name, module in network.named_modules()} == before
    assert {id(p) for p in rates.parameters()} == {id(p) for p in network.parameters()}


def test_a_surrogate_that_looks_back_is_refused() -> None:
    with pytest.raises(UsageError, match="one step alone"):
        RateNetwork(toy_snn(), "hart", Surrogate("potential"))
