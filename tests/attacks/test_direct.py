"""Algorithm 3 step by step on unit spikes, deconvolved by hand, beside the attack; and when its ascent ends."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.attacks.direct import Direct, _Ascent, _confidence_and_gradient, _detached
from leakbench.contracts import Access, AttackContext, ImageClassifier, Reconstruction, Victim
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, balance_thresholds
from leakbench.snn.adaptive import AdaptiveNeuron
from leakbench.snn.encoders import ENCODERS
from leakbench.snn.noise import image_keys
from leakbench.snn.readout import Readout
from leakbench.snn.switch import SwitchNeuron


def victim(low: float, encoder: str, neuron: Neuron) -> SpikingNetwork:
    """A small convolutional network on 3x6x6 images, input range [low, 1]."""
    body = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(45, 4, bias=False),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    for parameter in body.parameters():
        nn.init.kaiming_normal_(parameter, generator=generator)
    ann = ImageClassifier(body, (3, 6, 6), 4, (low, 1.0)).eval().requires_grad_(False)
    network = SpikingNetwork.from_ann(ann, SpikingConfig(12, encoder, neuron))  # type: ignore[arg-type]
    balance_thresholds(network, torch.rand(20, 3, 6, 6, generator=generator), seed=0, scale=0.7)
    return network


class Spike(torch.autograd.Function):
    """1 where u > theta; Eq. 5's derivative max(0, 1 - |u - theta| / theta) in units of theta."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, theta: Tensor) -> Tensor:
        ctx.save_for_backward(u, theta)
        return (u > theta).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        u, theta = ctx.saved_tensors
        return grad * (1 - (u - theta).abs() / theta).clamp(min=0) / theta, None


def unit_spikes(network: SpikingNetwork, x: Tensor, seed: int) -> tuple[Tensor, list[Tensor]]:
    """y = u_L(T) [B, classes] for x in the input range, step by step, and what enters u_1 at each step.

    Spikes are 1, thresholds theta_l / theta_(l-1), and the reset is out of the gradient, as in the authors' code.
    """
    convolution, first, pool, second, then, flat, last = network.body.children()
    config = network.config
    keys = image_keys(seed, 0, len(x), x.device)
    entering = ENCODERS[config.encoder](x, keys, 0, config.timesteps)
    thetas = [first.threshold, then.threshold / first.threshold]  # type: ignore[operator]
    currents: list[Tensor] = []

    def fire(u: Tensor | float, current: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        u = config.neuron.leak * u + current
        spikes = Spike.apply(u, theta)  # type: ignore[no-untyped-call]
        return u - theta * spikes.detach(), spikes

    u_1: Tensor | float = 0.0
    u_2: Tensor | float = 0.0
    y = torch.zeros(len(x), network.classes)
    for t in range(config.timesteps):
        current = convolution(entering[t]).detach().requires_grad_(True)
        currents.append(current)
        u_1, spikes = fire(u_1, current, thetas[0])
        u_2, spikes = fire(u_2, second(pool(spikes)), thetas[1])
        y = y + last(flat(spikes))
    return y, currents


def algorithm_3(
    network: SpikingNetwork, targets: Tensor, start: Tensor, seeds: list[int], zeta: float
) -> tuple[list[Tensor], list[float]]:
    """Images in [0, 1] and the mean confidence in them, before each step, after as many steps as there are ``seeds``.

    G is the mean over time of the gradient of y_c at the first convolution's output.
    """
    low, high = network.input_range
    convolution = network.body[0]  # type: ignore[index]
    x = start * (high - low) + low
    images, confidences = [start], []
    for seed in seeds:
        y, currents = unit_spikes(network, x, seed)
        own = y.gather(1, targets[:, None])
        g = torch.stack(torch.autograd.grad(own.sum(), currents)).sum(0) / network.config.timesteps
        x = torch.clamp(x + zeta * functional.conv_transpose2d(g, convolution.weight, padding=1), low, high)
        images.append((x - low) / (high - low))
        # what the victim answers is in the ANN's scale
        probabilities = (y.detach() * network.neurons[-1].threshold / network.config.timesteps).softmax(1)
        confidences.append(float(probabilities.gather(1, targets[:, None]).mean()))
    return images, confidences


FOUR = torch.tensor([0, 1, 2, 3])


@pytest.mark.slow
@pytest.mark.parametrize("low", [0.0, -1.0], ids=["grey range", "colour range"])
@pytest.mark.parametrize(("encoder", "leak"), [("poisson", 1.0), ("poisson", 0.95), ("direct", 1.0)])
@pytest.mark.parametrize("zeta", [0.01, 0.2])
@pytest.mark.parametrize("attached", [True, False], ids=["reset in the victim's gradient", "reset detached"])
def test_the_images_are_those_of_algorithm_3(
    low: float, encoder: str, leak: float, zeta: float, attached: bool
) -> None:
    network = victim(low, encoder, Neuron(leak, detach_reset=not attached)).requires_grad_(False)
    context = AttackContext(torch.Generator().manual_seed(5))
    made = Direct(iterations=4, zeta=zeta)(Victim(network, Access.WEIGHTS), FOUR, context)

    generator = torch.Generator().manual_seed(5)
    start = torch.rand(4, 3, 6, 6, generator=generator)
    seeds = [int(torch.randint(2**31 - 1, (1,), generator=generator)) for _ in range(5)]
    images, confidences = algorithm_3(network, FOUR, start, seeds, zeta)
    n = int(made.findings["N: steps to the highest mean confidence"])
    assert n == max(range(1, 5), key=confidences.__getitem__)
    assert made.findings["mean confidence after N steps"] == pytest.approx(confidences[n], abs=1e-5)
    moved = (images[n] - start).abs().max()
    assert moved > (0.01 if zeta > 0.1 else 5e-4)
    # float32: a pixel may differ in its last digits; no spike depends on them here
    torch.testing.assert_close(made.images, images[n], rtol=0, atol=1e-3 * moved.item())


def test_the_reset_in_the_gradient_would_be_another_attack() -> None:
    """What the attack must not follow: the victim's own gradient, where its reset is not detached."""
    network = victim(0.0, "poisson", Neuron()).requires_grad_(False)
    x = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (attached,) = torch.autograd.grad(network(x, seed=3).gather(1, FOUR[:, None]).sum(), x)
    _, detached = _confidence_and_gradient(_detached(network), x, FOUR, seed=3, size=4)
    assert not network.config.neuron.detach_reset  # the victim is left as it was
    assert attached.norm() < 0.2 * detached.norm()


@pytest.mark.slow
@pytest.mark.parametrize("neuron", [AdaptiveNeuron(), SwitchNeuron()], ids=["adaptive", "switch"])
def test_networks_of_other_neurons_can_be_attacked(neuron: Neuron) -> None:
    network = victim(0.0, neuron.encoders[0], neuron).requires_grad_(False)
    made = Direct(iterations=3)(Victim(network, Access.WEIGHTS), FOUR, AttackContext(torch.Generator().manual_seed(5)))
    assert made.images.shape == (4, 3, 6, 6)


@pytest.mark.slow
def test_images_do_not_depend_on_how_many_fit_the_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = victim(0.0, "poisson", Neuron()).requires_grad_(False)
    targets = torch.arange(4).repeat(2)
    made = []
    for budget in (1 << 32, 1):  # all eight at once; one by one
        monkeypatch.setattr(SpikingNetwork, "memory_budget", budget)
        context = AttackContext(torch.Generator().manual_seed(5))
        made.append(Direct(iterations=3, zeta=0.2)(Victim(network, Access.WEIGHTS), targets, context))
    whole, parts = made
    torch.testing.assert_close(parts.images, whole.images, rtol=0, atol=1e-4)
    assert parts.findings == pytest.approx(whole.findings)


def ended(confidences: list[float], patience: int = 3, rise: float = 0.1) -> tuple[_Ascent, int]:
    """The ascent over these confidences from step 0 on, and the step at which it was over (or the last)."""
    ascent = _Ascent(torch.empty(0), patience, rise)
    for step, confidence in enumerate(confidences):
        if ascent.ends(torch.tensor(step), step, confidence):
            return ascent, step
    return ascent, len(confidences) - 1


def test_the_ascent_ends_when_the_confidence_has_stopped_rising() -> None:
    ascent, step = ended([0.1, 0.3, 0.5, 0.7, 0.75, 0.72, 0.74, 0.99])
    assert (step, ascent.over) == (6, True)
    # the highest so far, though too little above .7 to count as a rise
    assert (ascent.best_step, ascent.best, int(ascent.images)) == (4, 0.75, 4)


def test_the_ascent_goes_on_while_the_confidence_rises() -> None:
    ascent, step = ended([0.05 * n for n in range(20)])
    assert (step, ascent.over, ascent.best_step) == (19, False, 19)


def test_a_network_that_is_silent_at_first_is_waited_for() -> None:
    ascent, step = ended([0.1] * 10 + [0.5, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert (step, ascent.over, ascent.best_step) == (14, True, 11)


def test_the_noise_at_the_start_is_never_handed_back() -> None:
    ascent, step = ended([0.9, 0.1, 0.3, 0.2, 0.2])
    assert (step, ascent.over, ascent.best_step, int(ascent.images)) == (4, False, 2, 2)


@pytest.mark.slow
def test_an_ascent_that_stopped_is_the_same_under_any_higher_limit(digits_ann: ImageClassifier) -> None:
    def attacked(iterations: int) -> Reconstruction:
        context = AttackContext(torch.Generator().manual_seed(0))
        attack = Direct(iterations=iterations, patience=5, rise=0.02)
        return attack(Victim(digits_ann, Access.WEIGHTS), torch.arange(10), context)

    stopped, longer, cut = attacked(200), attacked(400), attacked(10)
    name = "ended by the limit on steps (1) or for want of a rise (0)"
    assert (stopped.findings[name], longer.findings[name], cut.findings[name]) == (0, 0, 1)
    assert torch.equal(stopped.images, longer.images)
    assert 10 < stopped.cost.gradient_steps < 200
    n = "N: steps to the highest mean confidence"
    assert cut.findings[n] == 10 < stopped.findings[n] < stopped.cost.gradient_steps
    confidence = "mean confidence after N steps"
    assert cut.findings[confidence] < stopped.findings[confidence]
    # what is handed back is what was reported
    own = digits_ann(stopped.images).softmax(1)[range(10), range(10)].mean()
    assert stopped.findings[confidence] == pytest.approx(float(own), abs=1e-5)


def test_steps_are_taken_in_the_input_range() -> None:
    """The same network written for [0, 1] and for [-1, 1] images is the same attack up to the step's unit."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    for parameter in body.parameters():
        nn.init.uniform_(parameter, 0.1, 0.5, generator=torch.Generator().manual_seed(1))
    moves = []
    for input_range in ((0.0, 1.0), (-1.0, 1.0)):
        ann = ImageClassifier(body, (1, 2, 2), 2, input_range).eval().requires_grad_(False)
        context = AttackContext(torch.Generator().manual_seed(5))
        targets = torch.tensor([0, 1])
        images = Direct(iterations=1, zeta=0.01)(Victim(ann, Access.WEIGHTS), targets, context).images
        start = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(5))
        x = ann.input_range(start).requires_grad_()
        (gradient,) = torch.autograd.grad(body(x).gather(1, targets[:, None]).sum(), x)
        # zeta dy/du in the input range; a unit of it is 1 / scale of an image unit
        expected = (start + 0.01 * gradient / ann.input_range.scale).clamp(0, 1)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
        moves.append((images - start).abs().max().item())
    assert min(moves) > 1e-4


@pytest.mark.parametrize("readout", [Readout(0.0, "sum"), Readout(1.0, "last"), Readout(scale=0.02)])
def test_steps_are_as_long_whatever_a_network_makes_of_its_outputs(readout: Readout) -> None:
    given = victim(-1.0, "direct", Neuron())
    name = "first step, root mean square over pixels (images are from 0 to 1)"
    moves, firsts = [], []
    for network in (given, given.configured(dataclasses.replace(given.config, readout=readout))):
        context = AttackContext(torch.Generator().manual_seed(5))
        found = Direct(iterations=1)(Victim(network, Access.WEIGHTS), torch.arange(2), context)
        moves.append(found.images)
        firsts.append(found.findings[name])
    torch.testing.assert_close(*moves)
    assert firsts[0] > 0 and firsts[1] == pytest.approx(firsts[0], rel=1e-4)


def test_the_defaults_are_the_papers() -> None:
    assert Direct().params.zeta == 0.01


def test_large_orders_are_worked_off_in_batches(digits_ann: ImageClassifier) -> None:
    targets = torch.arange(10).repeat(15)
    context = AttackContext(torch.Generator().manual_seed(0))
    made = Direct(iterations=2)(Victim(digits_ann, Access.WEIGHTS), targets, context)
    assert made.images.shape == (150, 1, 8, 8)
    start = torch.rand(150, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rise = (digits_ann(made.images) - digits_ann(start)).gather(1, targets[:, None])
    assert (rise > 0).all()
