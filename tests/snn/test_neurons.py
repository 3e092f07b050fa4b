"""Neurons: gradients against autograd through a plain loop, rates against their closed form, dropout's masks."""

from __future__ import annotations

import itertools

import pytest
import torch
from plain_loop import straight_through
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.errors import UsageError
from leakbench.snn import LIF, Neuron, SpikingConfig, SpikingNetwork, Surrogate
from leakbench.snn.neurons import Run, TimeFixedDropout
from leakbench.snn.noise import image_keys


# Doubles: what is compared differs in the order of a few dozen operations, so by some 1e-14 relative.
def assert_same(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def scan(currents: Tensor, theta: Tensor | float, neuron: Neuron, initial: Tensor | None = None) -> tuple[Tensor, Run]:
    """A LIF layer on currents [T, B, ...] -> spikes [T, B, ...]."""
    layer = LIF("layer", neuron).to(currents.dtype)
    layer.set_threshold(theta)
    steps, batch = currents.shape[:2]
    layer.run = Run(batch, image_keys(0, 0, batch, torch.device("cpu")))
    if initial is not None:
        layer.run.membranes["layer"] = initial
    return layer(currents.flatten(0, 1)).view(steps, batch, *currents.shape[2:]), layer.run


@pytest.mark.parametrize(
    ("reset", "detach", "leak"), list(itertools.product(("soft", "hard"), (False, True), (1.0, 0.99, 0.7)))
)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("surrogate", [Surrogate(), Surrogate("arctan", width=0.5, height=0.3)])
def test_gradients_are_autograds_through_a_plain_loop(
    reset: str, detach: bool, leak: float, per_channel: bool, surrogate: Surrogate, generator: torch.Generator
) -> None:
    currents = torch.randn(9, 2, 3, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    initial = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    theta = torch.tensor([0.6, 0.9, 1.4], dtype=torch.float64)[:, None, None] if per_channel else torch.tensor(0.8)
    theta = theta.double()
    neuron = Neuron(leak, reset, detach, surrogate)  # type: ignore[arg-type]
    # arbitrary gradients on both outputs: those of the spikes and that of the last membrane (time chunks need it)
    weights = torch.randn(9, 2, 3, 2, 2, generator=generator, dtype=torch.float64)
    last = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64)

    spikes, run = scan(currents, theta, neuron, initial)
    mine = torch.autograd.grad((spikes * weights).sum() + (run.membranes["layer"] * last).sum(), (currents, initial))
    wanted, end = straight_through(currents, initial, theta, leak, reset, detach, surrogate)
    theirs = torch.autograd.grad((wanted * weights).sum() + (end * last).sum(), (currents, initial))

    assert 0.1 < (spikes > 0).double().mean() < 0.6  # neither silent nor saturated
    assert_same(spikes, wanted)
    assert_same(run.membranes["layer"], end)
    for mine_one, theirs_one in zip(mine, theirs, strict=True):
        assert theirs_one.abs().sum() > 0
        assert_same(mine_one, theirs_one)


def test_a_neuron_by_hand() -> None:
    # theta 1, leak .5, soft: u = .8 | .4 + .8 = 1.2, spike, .2 left | .1 + .8 = .9 | .45 + .8 = 1.25, spike, .25 left
    currents = torch.tensor([0.8, 0.8, 0.8, 0.8]).view(4, 1, 1)
    soft, run = scan(currents, 1.0, Neuron(leak=0.5))
    assert soft.flatten().tolist() == [0, 1, 0, 1]
    assert run.membranes["layer"].item() == pytest.approx(0.25, abs=1e-6)
    # hard: nothing is left after a spike: .8 | 1.2, spike | .8 | 1.2, spike
    hard, run = scan(currents, 1.0, Neuron(leak=0.5, reset="hard"))
    assert hard.flatten().tolist() == [0, 1, 0, 1]
    assert run.membranes["layer"].item() == 0
    # a spike is worth theta, and a membrane that only just reaches theta does not fire
    strong, _ = scan(torch.tensor([0.5, 0.25]).view(2, 1, 1), 0.5, Neuron())
    assert strong.flatten().tolist() == [0, 0.5]


@pytest.mark.parametrize("steps", [1, 10, 100, 1000])
def test_rates_of_if_neurons_are_a_clipped_relu_up_to_one_spike(steps: int) -> None:
    # u(T) = T i - theta N with 0 <= u(T) <= theta for 0 <= i <= theta, so |theta N / T - i| <= theta / T
    theta = 0.75
    current = torch.linspace(-1, 1.5, 101, dtype=torch.float64)
    spikes, _ = scan(current.expand(steps, 1, -1), theta, Neuron())
    error = (spikes.mean(0)[0] - current.clamp(0, theta)).abs()
    assert error.max() <= theta / steps + 1e-9
    assert steps > 10 or error.max() > theta / steps / 2  # the bound is of the right size


def test_spikes_are_counted_where_they_are_made() -> None:
    currents = torch.full((4, 2, 3), 0.6)
    spikes, run = scan(currents, torch.tensor([0.5, 1.0, 7.0]), Neuron())
    assert int(run.counts["layer"]) == int((spikes > 0).sum())
    # per image over 4 steps of .6: theta .5 fires every time, theta 1 at u = 1.2 and 1.4, theta 7 never
    assert int(run.counts["layer"]) == 2 * (4 + 2 + 0)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), torch.tensor([1.0, 0.0])])
def test_thresholds_must_be_finite_and_positive(bad: float | Tensor) -> None:
    with pytest.raises(UsageError, match=r"thresholds must be finite and above 0.*'conv'") as error:
        LIF("conv", Neuron()).set_threshold(bad)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("leak", [0.0, -0.5, 1.01, float("nan")])
def test_leaks_outside_0_to_1_are_refused(leak: float) -> None:
    with pytest.raises(UsageError, match="leak"):
        Neuron(leak=leak)


def test_an_unknown_reset_is_refused() -> None:
    with pytest.raises(UsageError, match="'soft' or 'hard', got 'zero'"):
        Neuron(reset="zero")  # type: ignore[arg-type]


# --- dropout ---------------------------------------------------------------------------------------------------------


def dropped(p: float, steps: int, batch: int, size: int, seed: int = 0, salt: int = 3, first: int = 0) -> Tensor:
    layer = TimeFixedDropout(p, "drop", salt).train()
    layer.run = Run(batch, image_keys(seed, first, batch, torch.device("cpu")))
    out: Tensor = layer(torch.ones(steps * batch, size))
    return out.view(steps, batch, size)


def test_a_dropout_mask_is_fixed_over_time_and_fresh_for_each_sample() -> None:
    out = dropped(0.5, steps=6, batch=4, size=1000)
    assert torch.equal(out, out[:1].expand_as(out))
    for i, j in itertools.combinations(range(4), 2):
        # two independent fair masks agree on half of 1000 places, give or take 5 sigma = 79
        assert abs(int((out[0, i] == out[0, j]).sum()) - 500) < 79
    # the mask belongs to the sample and not to its place in the batch, and changes with the seed
    assert torch.equal(dropped(0.5, 1, 2, 1000, first=2)[0], out[0, 2:])
    assert not torch.equal(dropped(0.5, 1, 4, 1000, seed=1)[0], out[0])


def test_dropout_of_channels_has_one_mask_over_time() -> None:
    """nn.Dropout2d of an ANN: whole channels, the same at every step, and again as it was in the ANN behind it."""
    body = nn.Sequential(nn.Conv2d(1, 64, 1), nn.ReLU(), nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(64 * 16, 3))
    network = SpikingNetwork.from_ann(ImageClassifier(body, (1, 4, 4), 3), SpikingConfig(2))
    layer = network.body[2]
    assert isinstance(layer, TimeFixedDropout)
    layer.train().run = Run(3, image_keys(0, 0, 3, torch.device("cpu")))
    out = layer(torch.ones(6 * 3, 64, 4, 4)).view(6, 3, 64, 16)
    assert torch.equal(out, out[:1, :, :, :1].expand_as(out)) and set(out.unique().tolist()) == {0.0, 2.0}
    assert 20 < int((out[0, 0, :, 0] > 0).sum()) < 44 and not torch.equal(out[0, 0], out[0, 1])
    assert isinstance(network.reconvert().body[2], nn.Dropout2d)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_keeps_its_share_and_the_mean(p: float) -> None:
    out = dropped(p, steps=1, batch=20, size=5000)
    kept = out > 0
    # 100 000 draws: 5 sigma
    assert abs(kept.double().mean().item() - (1 - p)) < 5 * (p * (1 - p) / kept.numel()) ** 0.5
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 1 / (1 - p)))


def test_dropout_does_nothing_outside_training() -> None:
    x = torch.rand(4, 3)
    assert TimeFixedDropout(0.9, "drop", 0).eval()(x) is x
    assert TimeFixedDropout(0.0, "drop", 0).train()(x) is x


def test_two_dropout_layers_have_masks_of_their_own() -> None:
    """Whatever their sizes and places: the layers' parts of the noise stream must not overlap."""
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(32, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 2),
    )  # fmt: skip
    network = SpikingNetwork.from_ann(ImageClassifier(body, (1, 2, 4), 2), SpikingConfig(1))
    layers = [module for module in network.body.modules() if isinstance(module, TimeFixedDropout)]
    batch = 400
    masks = []
    for layer, size in zip(layers, (32, 20), strict=True):
        layer.train().run = Run(batch, image_keys(0, 0, batch, torch.device("cpu")))
        masks.append((layer(torch.ones(batch, size)) > 0).double() * 2 - 1)
    # 32 * 20 correlations of 400 fair coins: 5 sigma = .25
    assert (masks[0].T @ masks[1] / batch).abs().max() < 0.25
