"""Recorded activations against NumPy, weight scaling against thresholds spike by spike, and rates against the ReLU."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import NotApplicable, NumericalError, UsageError
from leakbench.models.storage import build_ann
from leakbench.snn import (
    LIF,
    Neuron,
    SpikingConfig,
    SpikingNetwork,
    calibration,
    highest_activations,
    is_chain,
    mean_activations,
    mean_outputs,
    percentile_activations,
    scale_weights,
    set_thresholds,
    watch_activations,
)
from leakbench.snn.folding import with_spiking_pools

SHAPE = (1, 8, 8)


def toy(bias: bool = True, seed: int = 1, pool: nn.Module | None = None) -> ImageClassifier:
    """conv - relu - pool - conv - relu - FC - relu - FC on images in [-1, 1]."""
    body = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=bias), nn.ReLU(), pool or nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, bias=bias), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 8, bias=bias), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3, bias=bias),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.1 if parameter.dim() == 1 else 0.4, generator=generator)
    return ImageClassifier(body, SHAPE, 3, (-1.0, 1.0)).eval().requires_grad_(False)


def images(count: int) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(7))


def outputs_by_hand(ann: ImageClassifier, x: Tensor) -> dict[str, np.ndarray[Any, Any]]:
    """All images at once, each ReLU's outputs written down on the way."""
    found, x = {}, x * 2 - 1
    for name, module in ann.body.named_children():
        x = module(x)
        if isinstance(module, nn.ReLU):
            found[name] = x.double().numpy()
    return found


# --- recorded activations --------------------------------------------------------------------------------------------


def test_activations_are_shown_in_the_order_of_execution_and_hooks_go() -> None:
    ann, seen = toy(), []
    watch_activations(ann, images(65), lambda name, out: seen.append((name, len(out))))
    # 65 images: a batch of 64 and one of 1
    assert seen == [("1", 64), ("4", 64), ("7", 64), ("1", 1), ("4", 1), ("7", 1)]

    def broken(_name: str, _out: Tensor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        watch_activations(ann, images(3), broken)
    ann(images(1))  # no hook is left to raise


def test_means_and_maxima_are_those_of_all_images_at_once() -> None:
    ann, x = toy(), images(150)
    highest, means = highest_activations(ann, x), mean_activations(ann, x)
    for name, values in outputs_by_hand(ann, x).items():
        assert highest[name] == pytest.approx(values.max(), rel=1e-6)
        assert means[name].numpy() == pytest.approx(values.mean(0), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("percentile", [99.9, 99, 50, 12.5, 100])
@pytest.mark.parametrize("count", [1, 64, 150])
def test_percentiles_are_numpys_over_what_is_not_zero(percentile: float, count: int) -> None:
    ann, x = toy(), images(count)
    found = percentile_activations(ann, x, percentile)
    for name, values in outputs_by_hand(ann, x).items():
        assert 0.1 < (values == 0).mean() < 0.9  # with zeros the percentile would be another
        assert found[name] == pytest.approx(np.percentile(values[values != 0], percentile), rel=1e-5)


def test_a_layer_that_is_never_active_gets_no_threshold() -> None:
    ann = toy(bias=False)
    ann.body.get_parameter("3.weight").abs_().neg_()
    network = SpikingNetwork.from_ann(ann, SpikingConfig(4))
    for found in (percentile_activations(ann, images(9), 99.9), highest_activations(ann, images(9))):
        assert found["4"] == 0
        with pytest.raises(NumericalError, match="layer '4' has no positive finite activation") as error:
            set_thresholds(network, found)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_threshold_is_taken_from_what_is_no_number(bad: float) -> None:
    ann = toy()
    ann.body.get_parameter("0.bias")[0] = bad
    network = SpikingNetwork.from_ann(ann, SpikingConfig(4))
    for found in (percentile_activations(ann, images(70), 99.9), highest_activations(ann, images(70))):
        with pytest.raises(NumericalError, match="layer '1'"):
            set_thresholds(network, found)


@pytest.mark.parametrize("encoder", ["direct", "poisson"])
def test_mean_outputs_are_rates_times_thresholds(encoder: Any) -> None:
    network = SpikingNetwork.from_ann(toy(), SpikingConfig(12, encoder))
    set_thresholds(network, {"1": 0.9, "4": 1.3, "7": 2.1})
    x = images(70)
    for layer in network.neurons:
        # the first batch of 64 has the noise of the seed, the second of the next
        made = [network.simulate(x[:64], seed=5).spikes, network.simulate(x[64:], seed=5 + 64).spikes]
        rate = sum(counts[layer.layer] for counts in made) / (70 * 12)
        assert float(mean_outputs(network, layer, x, seed=5).sum()) == pytest.approx(
            rate * float(layer.threshold), rel=1e-5
        )


def resnet() -> ImageClassifier:
    return build_ann("resnet8", SHAPE, 10, InputRange(-1, 1), torch.Generator().manual_seed(3)).eval()


def max_behind_the_last_neurons() -> ImageClassifier:
    ann = toy()
    ann.body = nn.Sequential(*ann.body[:5], nn.MaxPool2d(4), nn.Flatten(), nn.Linear(6, 3))  # type: ignore[index]
    return ann


class Wrapped(nn.Module):
    """A body that is no sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toy().body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


def wrapped() -> ImageClassifier:
    return ImageClassifier(Wrapped(), SHAPE, 3, (-1.0, 1.0)).eval()


@pytest.mark.parametrize(("make", "behind"), [(toy, 0), (max_behind_the_last_neurons, 0), (resnet, 1), (wrapped, 2)])
def test_mean_outputs_are_those_of_the_whole_network_and_simulate_little_behind_the_layer(
    make: Callable[[], ImageClassifier], behind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, in several chunks of time; a block of a residual network has two layers of neurons."""
    monkeypatch.setattr(calibration, "_WATCHED", 1 << 18)
    network, x, ran, fire = SpikingNetwork.from_ann(make(), SpikingConfig(12)), images(70), [], LIF.fire
    outputs: dict[str, list[Tensor]] = {}
    for layer in network.neurons:
        layer.set_threshold(0.7)
    whole = network.configured(network.config)
    whole.memory_budget = 1 << 18
    for first in (0, 64):
        whole.observe(
            x[first : first + 64], lambda name, _i, _u, out: outputs.setdefault(name, []).append(out), 5 + first
        )
    monkeypatch.setattr(LIF, "fire", lambda self, *args: ran.append(self.layer) or fire(self, *args))
    names = network.topology.activations
    for number, layer in enumerate(network.neurons):
        assert len(outputs[layer.layer]) > 2
        total = sum(out.sum((0, 1)) for out in outputs[layer.layer])
        ran.clear()
        assert torch.equal(mean_outputs(network, layer, x, seed=5), total / (70 * 12))
        assert set(ran) - set(names[: number + 1 + behind]) == set()


# --- weight scaling and threshold scaling ----------------------------------------------------------------------------

POWERS = {"1": 4.0, "4": 0.5, "7": 2.0}


def thresholded(ann: ImageClassifier, thetas: dict[str, float], config: SpikingConfig) -> SpikingNetwork:
    network = SpikingNetwork.from_ann(ann, config)
    set_thresholds(network, thetas)
    return network.requires_grad_(False)


def spike_trains(network: SpikingNetwork, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    trains: dict[str, list[Tensor]] = {}
    logits = network.observe(x, lambda name, _i, _u, out: trains.setdefault(name, []).append(out != 0), seed=3)
    return {name: torch.cat(parts) for name, parts in trains.items()}, logits


@pytest.mark.parametrize("encoder", ["direct", "poisson"])
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.MaxPool2d(2)], ids=["average", "max"])
def test_scaled_weights_make_the_very_spikes_of_the_thresholds(
    encoder: Any, reset: Any, bias: bool, pool: nn.Module
) -> None:
    """Thresholds are powers of two: scaling by them rounds nothing, so not one spike or bit may differ."""
    plain = thresholded(toy(bias, pool=pool), POWERS, SpikingConfig(25, encoder, Neuron(reset=reset)))
    plain.neurons[1].initial = torch.tensor(0.25)
    scaled = copy.deepcopy(plain)
    scale_weights(scaled)
    assert [float(layer.threshold) for layer in scaled.neurons] == [1, 1, 1]
    (mine, logits), (theirs, wanted) = spike_trains(scaled, images(6)), spike_trains(plain, images(6))
    for name in POWERS:
        assert 0.02 < theirs[name].double().mean() < 0.9  # neither silent nor saturated
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert torch.equal(logits, wanted)


def test_scaled_weights_are_those_of_the_formula() -> None:
    thetas = {"1": 0.83, "4": 1.7, "7": 2.9}
    ann = toy()
    network = thresholded(ann, thetas, SpikingConfig(5))
    scale_weights(network)
    before = 1.0
    for name, theta in (("0", 0.83), ("3", 1.7), ("6", 2.9), ("9", 1.0)):
        for kind, factor in (("weight", before / theta), ("bias", 1 / theta)):
            wanted = ann.body.get_parameter(f"{name}.{kind}") * factor
            torch.testing.assert_close(network.body.get_parameter(f"{name}.{kind}"), wanted, rtol=1e-6, atol=0)
        before = theta
    # the ANN behind it has activations of lam_l less, and the same logits
    torch.testing.assert_close(network.reconvert()(images(9)), ann(images(9)), rtol=1e-4, atol=1e-5)
    for name, highest in highest_activations(network.reconvert(), images(9)).items():
        assert highest == pytest.approx(highest_activations(ann, images(9))[name] / thetas[name], rel=1e-4)


def test_two_weight_layers_in_a_row_are_scaled_once() -> None:
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 5), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
    )
    ann = ImageClassifier(body, SHAPE, 3).eval().requires_grad_(False)
    network = thresholded(ann, {"2": 0.5, "5": 0.25}, SpikingConfig(5))
    wanted = network.simulate(images(9), seed=0)
    scale_weights(network)
    assert torch.equal(network.reconvert()(images(9)), ann(images(9)))
    found = network.simulate(images(9), seed=0)
    assert found.spikes == wanted.spikes
    assert torch.equal(found.logits, wanted.logits)


def test_pools_that_spike_take_the_threshold_before_them() -> None:
    ann = with_spiking_pools(toy())
    thetas = {"1": 4.0, "2.1": 4.0, "4": 0.5, "7": 2.0}
    plain = thresholded(ann, thetas, SpikingConfig(25, "direct"))
    scaled = copy.deepcopy(plain)
    scale_weights(scaled)
    (mine, logits), (theirs, wanted) = spike_trains(scaled, images(6)), spike_trains(plain, images(6))
    assert theirs["2.1"].any()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert torch.equal(logits, wanted)
    other = thresholded(ann, {**thetas, "2.1": 2.0}, SpikingConfig(25))
    with pytest.raises(UsageError, match=r"'2.1' has no weights to scale: its threshold must be 4, got 2"):
        scale_weights(other)


def test_thresholds_of_channels_are_no_factor_of_a_layer() -> None:
    network = thresholded(toy(), POWERS, SpikingConfig(5))
    network.neurons[0].set_threshold(torch.ones(4, 1, 1))
    with pytest.raises(UsageError, match="one factor a layer"):
        scale_weights(network)


class Skip(nn.Module):
    """conv - relu - (conv + skip) - relu - FC: nothing but the sum tells it from a chain."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu1, self.inner, self.relu2 = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU()
        self.out = nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.stem(x))
        logits: Tensor = self.out(self.relu2(self.inner(h) + h).flatten(1))
        return logits


class Twisted(nn.Sequential):
    """Its way depends on its input: no graph to be had."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def test_what_is_a_chain() -> None:
    built = {name: build_ann(name, SHAPE, 10, toy().input_range).body for name in ("vgg4", "vgg4bn", "vgg5max")}
    for body in (*built.values(), toy().body, with_spiking_pools(toy()).body, nn.Sequential(toy().body)):
        assert is_chain(body)
    resnet = build_ann("resnet8", SHAPE, 10, toy().input_range).body
    layers = "conv 4 k3x3", "relu", "flatten", "linear 10"
    normalised, shifted = (
        build_ann(f"graph: {'; '.join((*layers[:at], 'affine', *layers[at:]))}", SHAPE, 10, toy().input_range).body
        for at in (0, 2)
    )
    assert is_chain(normalised)
    twice = nn.Conv2d(4, 4, 3, padding=1)
    shared = nn.Sequential(nn.Conv2d(1, 4, 3), twice, nn.ReLU(), twice, nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    for body in (resnet, shifted, shared, Skip(), Twisted(nn.Flatten(), nn.Linear(64, 3))):
        assert not is_chain(body)


def test_a_network_with_branches_is_refused_and_left_alone() -> None:
    ann = ImageClassifier(Skip(), SHAPE, 3)
    network = thresholded(ann, {"relu1": 2.0, "relu2": 0.5}, SpikingConfig(5))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(NotApplicable, match="has branches: scaling=thresholds is the same") as error:
        scale_weights(network)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


# --- rates against the clipped ReLU ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, 8, 50, 256])
def test_the_rate_of_a_constant_current_is_the_clipped_relu_but_for_one_spike(steps: int) -> None:
    """|rate - clip(I / theta, 0, 1)| <= 1 / T; the number of spikes is ceil(T I / theta) - 1, as u must exceed theta.

    Currents and threshold are binary fractions, which doubles add without rounding.
    """
    theta = 0.75
    drive = torch.linspace(-0.5, 1.5, 129, dtype=torch.float64)
    body = nn.Sequential(nn.Flatten(), nn.Linear(1, 129, bias=True), nn.ReLU(), nn.Linear(129, 2)).double()
    assert isinstance(body[1], nn.Linear)
    with torch.no_grad():
        body[1].weight.zero_()
        body[1].bias.copy_(drive * theta)
    network = SpikingNetwork.from_ann(ImageClassifier(body, (1, 1, 1), 2), SpikingConfig(steps, "direct"))
    network.neurons[0].set_threshold(theta)
    rate = mean_outputs(network, network.neurons[0], torch.zeros(1, 1, 1, 1, dtype=torch.float64), 0) / theta
    spikes, clipped = (rate * steps).round(), drive.clamp(0, 1)
    torch.testing.assert_close(rate * steps, spikes, rtol=0, atol=1e-9)
    assert float((spikes - steps * clipped).abs().max()) <= 1
    wanted = torch.where(drive > 1, steps, (steps * clipped).ceil() - 1).clamp(min=0)
    assert torch.equal(spikes, wanted)


@pytest.mark.slow
def test_the_error_of_a_deep_network_falls_as_one_over_t() -> None:
    ann = toy().double()
    x = images(20).double()
    thetas = {name: 0.5 * top for name, top in highest_activations(ann, x).items()}  # some neurons saturate

    def clipped(x: Tensor) -> Tensor:
        x = x * 2 - 1
        for name, module in ann.body.named_children():
            x = x.clamp(0, thetas[name]) if isinstance(module, nn.ReLU) else module(x)
        return x

    errors = []
    for steps in (8, 32, 128, 512, 2048):
        network = thresholded(ann, thetas, SpikingConfig(steps, "direct")).double()
        errors.append(float((network(x) - clipped(x)).abs().mean()))
    spread = float(clipped(x).std())
    assert errors[0] < spread
    # four times the steps, a quarter of the error, give or take; a bias that stays would end the fall
    assert all(later < 0.45 * earlier for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 0.005 * spread
    # and it is the clipped network that they come to, not the ANN
    assert float((clipped(x) - ann(x)).abs().mean()) > 10 * errors[-1]
