"""Undoing weight scaling: networks that were scaled by hand, and networks that must come back as they are."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, agreements, reconverted

SHAPE = (2, 6, 6)
LAMBDAS = [(1.0, 1.0, 1.0, 1.0), (2.1, 0.7, 1.6, 3.0), (40.0, 0.02, 5.0, 0.1)]


def chain(bias: bool = False) -> ImageClassifier:
    """conv - pool - conv - FC - FC, four weight layers, in doubles, of none of the norms that initialisation gives."""
    body = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=bias), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3, padding=1, bias=bias),
        nn.ReLU(), nn.Flatten(), nn.Linear(45, 8, bias=bias), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3, bias=bias),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.1 if parameter.dim() == 1 else 0.3, generator=generator)
    return ImageClassifier(body.double(), SHAPE, 3).eval().requires_grad_(False)


def probes(count: int = 20) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def converted(ann: ImageClassifier, thetas: Sequence[float], config: SpikingConfig | None = None) -> SpikingNetwork:
    """Threshold scaling: the ANN's own weights under thresholds theta_l."""
    network = SpikingNetwork.from_ann(ann, config or SpikingConfig(200, "direct")).double()
    for layer, theta in zip(network.neurons, thetas, strict=True):
        layer.set_threshold(theta)
    return network.requires_grad_(False)


def weight_scaled(
    ann: ImageClassifier, lambdas: Sequence[float], config: SpikingConfig | None = None
) -> SpikingNetwork:
    """Weight scaling: W_l lam_(l-1) / lam_l and b_l / lam_l under thresholds of 1."""
    scaled = copy.deepcopy(ann)
    layers = [module for module in scaled.body.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer, before, after in zip(layers, [1.0, *lambdas[:-1]], lambdas, strict=True):
        layer.weight.mul_(before / after)
        if layer.bias is not None:
            layer.bias.div_(after)
    return converted(scaled, [1.0] * (len(layers) - 1), config)


def proportional(logits: Tensor, to: Tensor) -> bool:
    """Whether one positive factor leads from one to the other."""
    factors = logits / to
    return bool(factors.min() > 0) and float(factors.max() / factors.min()) < 1 + 1e-5


@pytest.mark.parametrize("lambdas", LAMBDAS)
@pytest.mark.parametrize("bias", [False, True])
def test_a_scaled_network_makes_the_spikes_of_the_thresholds_that_were_scaled_away(
    bias: bool, lambdas: tuple[float, ...]
) -> None:
    """What the other tests build on is weight scaling."""
    ann, images = chain(bias), probes(3)
    network, plain = weight_scaled(ann, lambdas), converted(ann, lambdas[:-1])
    wanted = plain.simulate(images)
    rebuilt = network.simulate(images)
    assert rebuilt.spikes == wanted.spikes
    torch.testing.assert_close(rebuilt.logits * lambdas[-1], wanted.logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("lambdas", LAMBDAS)
def test_without_biases_any_scaling_only_multiplies_the_logits(lambdas: tuple[float, ...]) -> None:
    ann, images = chain(), probes()
    rebuilt = reconverted(weight_scaled(ann, lambdas), images, seed=0)
    assert proportional(rebuilt(images), ann(images))
    assert torch.equal(rebuilt(images).argmax(1), ann(images).argmax(1))
    assert not any(p is q for p in rebuilt.parameters() for q in ann.parameters())


def test_each_layer_gets_the_norm_of_its_initialisation() -> None:
    rebuilt = reconverted(weight_scaled(chain(), LAMBDAS[1]), probes(), seed=0)
    norms = [float(p.square().mean()) for p in rebuilt.parameters()]
    # Kaiming: a variance of 2 / fan-in
    assert norms == pytest.approx([2 / 18, 2 / 36, 2 / 45, 2 / 8])


def peaks_of(ann: ImageClassifier) -> tuple[float, ...]:
    """Each layer's largest activation on the probes, and a factor for the output: no rate saturates under these."""
    peaks: list[float] = []
    relus = [module for module in ann.body.modules() if isinstance(module, nn.ReLU)]
    handles = [relu.register_forward_hook(lambda _m, _a, out: peaks.append(float(out.max()))) for relu in relus]
    ann(probes())
    for handle in handles:
        handle.remove()
    return (*peaks, 0.3)


@pytest.mark.slow
def test_biases_that_were_scaled_with_the_weights_come_back_as_the_anns() -> None:
    # 400 steps of constant current at rates below 1 follow the ANN: biases a factor of 2 away, the next that the search
    # tries, fit worse
    ann, images = chain(bias=True), probes()
    network = weight_scaled(ann, peaks_of(ann), SpikingConfig(400, "direct"))
    rebuilt = reconverted(network, images, seed=0)
    assert proportional(rebuilt(images), ann(images))
    fit = agreements(network, images, 0, rebuilt)[0].correlation
    assert fit > 0.999
    for layer in ("0", "3", "6", "9"):
        other = copy.deepcopy(ann)
        other.body.get_parameter(f"{layer}.bias").mul_(2)
        assert agreements(network, images, 0, other)[0].correlation < fit


@pytest.mark.parametrize("bias", [False, True])
def test_two_scalings_of_one_network_come_back_as_the_same(bias: bool) -> None:
    ann = chain(bias)
    # with biases, two that change no more than the rounding of rates, as the victim's answers are asked for
    pair = [tuple(k * peak for peak in peaks_of(ann)) for k in (1.0, 1.3)] if bias else LAMBDAS[1:]
    first, second = (reconverted(weight_scaled(ann, lambdas), probes(), seed=0) for lambdas in pair)
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=0)


def silent_bias() -> SpikingNetwork:
    """Two neurons that answer to their pixels and one that has a bias of .1 alone: under a leak of .8 it never fires.

    Spikes do not know of the bias, and in the ReLU network it holds class 0 up by .1 * 30.
    """
    hidden, out = nn.Linear(2, 3), nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        hidden.bias.copy_(torch.tensor([0.0, 0.0, 0.1]))
        out.weight.copy_(torch.tensor([[1.0, 0.0, 30.0], [0.0, 1.0, 0.0]]))
    ann = ImageClassifier(nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), out), (1, 1, 2), 2).eval()
    return converted(ann, [1.0], SpikingConfig(100, "direct", Neuron(0.8)))


def test_a_bias_that_counts_differently_for_spikes_is_found_by_search() -> None:
    network = silent_bias()
    images = torch.rand(30, 1, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bare, rebuilt = network.reconvert(), reconverted(network, images, seed=0)
    before, after = agreements(network, images, 0, bare, rebuilt)
    # the less of the bias the better: the grid's least factor, 1/16, in each of two sweeps
    weights, biases = (dict(one.body.named_parameters()) for one in (bare, rebuilt))
    scale = float(biases["1.weight"][0, 0])
    assert biases["1.bias"].tolist() == pytest.approx((weights["1.bias"] * scale / 256).tolist())
    assert before.correlation < 0.5 < 0.95 < after.correlation
    assert before.same_class < 0.8 < 0.9 < after.same_class


# --- what comes back as it is ----------------------------------------------------------------------------------------


class Residual(nn.Module):
    """conv - relu - (conv + skip) - relu - FC: a factor on the inner convolution is no factor of the logits."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.stem, self.relu1 = nn.Conv2d(2, 6, 3, padding=1, bias=bias), nn.ReLU()
        self.inner, self.relu2 = nn.Conv2d(6, 6, 3, padding=1, bias=bias), nn.ReLU()
        self.out = nn.Linear(6 * 36, 4, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.stem(x))
        logits: Tensor = self.out(self.relu2(self.inner(h) + h).flatten(1))
        return logits


class Backwards(nn.Module):
    """A chain whose layers were registered from the last to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.relu2, self.hidden = nn.Linear(5, 3), nn.ReLU(), nn.Linear(7, 5)
        self.relu1, self.first = nn.ReLU(), nn.Linear(72, 7)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.relu2(self.hidden(self.relu1(self.first(x.flatten(1))))))
        return logits


def seeded(body: nn.Module, classes: int) -> ImageClassifier:
    generator = torch.Generator().manual_seed(3)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return ImageClassifier(body.double(), SHAPE, classes).eval().requires_grad_(False)


def test_layers_are_taken_in_the_order_of_execution() -> None:
    ann, images = seeded(Backwards(), 3), probes()
    # thresholds of 1 that no rate saturates at, so that no other biases agree better
    ann.body.get_parameter("first.weight").mul_(0.1)
    network = converted(ann, [1.0, 1.0], SpikingConfig(400, "direct"))
    rebuilt = reconverted(network, images, seed=0)
    assert proportional(rebuilt(images), ann(images))
    weights = [p for p in rebuilt.parameters() if p.dim() > 1]
    assert [float(w.square().mean() * w.shape[1]) for w in weights] == pytest.approx([2, 2, 2])


def same_tensors(mine: nn.Module, theirs: nn.Module) -> bool:
    first, second = mine.state_dict(), theirs.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("bias", [False, True])
def test_other_networks_come_back_as_they_are(bias: bool) -> None:
    ann, images = chain(bias), probes()
    assert reconverted(ann, images, seed=0) is ann
    for thetas in ([1.0, 1.0, 1.01], [0.4, 0.3, 0.2]):
        other = converted(ann, thetas, SpikingConfig(10))
        assert same_tensors(reconverted(other, images, seed=0), ann)
    channels = converted(ann, [1.0, 1.0, 1.0], SpikingConfig(10))
    channels.neurons[0].set_threshold(torch.tensor([1.0, 1.0, 1.0, 0.5])[:, None, None])
    assert same_tensors(reconverted(channels, images, seed=0), ann)
    residual = seeded(Residual(bias), 4)
    assert same_tensors(reconverted(converted(residual, [1.0, 1.0], SpikingConfig(10)), images, seed=0), residual)


def test_a_folded_batch_norm_is_a_bias_like_any_other() -> None:
    norm = nn.BatchNorm2d(4)
    ann = seeded(
        nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3, bias=False)), 3
    )
    assert norm.running_mean is not None
    norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    network, images = converted(ann, [1.0], SpikingConfig(10)), probes()
    rebuilt, folded = reconverted(network, images, seed=0), network.reconvert()
    layers = [(rebuilt.body.get_submodule(name), folded.body.get_submodule(name)) for name in ("0", "4")]
    factors = [float(mine.weight.norm() / original.weight.norm()) for mine, original in layers]  # type: ignore[operator, union-attr]
    assert factors[0] != pytest.approx(1, abs=0.01)
    for (mine, original), factor in zip(layers, factors, strict=True):
        torch.testing.assert_close(mine.weight, original.weight * factor)  # type: ignore[operator]


@pytest.mark.parametrize("make", [lambda: weight_scaled(chain(), LAMBDAS[1]), silent_bias], ids=["chain", "searched"])
def test_the_victim_is_not_changed(make: object) -> None:
    assert callable(make)
    network: SpikingNetwork = make()
    before = copy.deepcopy(network)
    images = torch.rand(5, *network.image_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rebuilt = reconverted(network, images, seed=0)
    assert not same_tensors(rebuilt, network.reconvert())
    assert same_tensors(network, before)
