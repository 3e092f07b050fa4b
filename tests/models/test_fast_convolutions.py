"""Convolutions while a network is trained, against PyTorch's in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from leakbench.contracts import ImageClassifier, ModuleNetwork
from leakbench.models import fast_convolutions as fast
from leakbench.models.fast_convolutions import fast_convolutions
from leakbench.models.standardized import standardized
from leakbench.snn import SpikingConfig, SpikingNetwork

ROUNDING = 5e-6
"""largest error relative to the largest value, as of the engine's convolutions by tiles"""


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def layer(channels: int, out: int, *, bias: bool = False) -> nn.Conv2d:
    made = nn.Conv2d(channels, out, 3, padding=1, bias=bias)
    made.weight.data = numbers(*made.weight.shape)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def passes(network: nn.Module, maps: Tensor) -> list[Tensor]:
    """Output, and gradients of the input and of all parameters."""
    x = maps.detach().requires_grad_()
    out = network(x)
    return [out, *torch.autograd.grad((out * numbers(*out.shape).to(out.dtype)).sum(), [x, *network.parameters()])]


def assert_close(actual: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= ROUNDING * other.abs().max()


@pytest.fixture
def every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "WORTHWHILE", 0)
    monkeypatch.setattr(fast, "FEWEST", 1)


@pytest.mark.usefixtures("every_layer")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (7, 9), (4, 5), (2, 2), (1, 1), (1, 2), (2, 1), (3, 3)])
def test_a_layer_gives_what_the_convolution_gives(size: tuple[int, int], bias: bool) -> None:
    convolution = layer(32, 48, bias=bias)
    maps = numbers(5, 32, *size)
    exact = passes(copy.deepcopy(convolution).double(), maps.double())
    with fast_convolutions(convolution):
        assert_close(passes(convolution, maps), exact)
        assert_close(passes(convolution, maps.to(memory_format=torch.channels_last)), exact)


def test_large_layers_round_otherwise_and_those_of_small_images_and_batches_not_at_all() -> None:
    convolution = layer(64, 64)
    large, small, few = numbers(2, 64, 16, 16), numbers(500, 64, 8, 8), numbers(1, 64, 16, 16)
    plain = [convolution(maps) for maps in (large, small, few)]
    with fast_convolutions(convolution):
        same = [torch.equal(convolution(maps), other) for maps, other in zip((large, small, few), plain, strict=True)]
    assert same == [False, True, True]


@pytest.mark.usefixtures("every_layer")
def test_only_gradients_in_float32_take_another_way() -> None:
    convolution, maps = layer(32, 32), numbers(4, 32, 8, 8)
    plain = convolution(maps)
    half = torch.autocast("cpu", dtype=torch.bfloat16)
    with half:
        rounded = convolution(maps)
    with fast_convolutions(convolution):
        assert not torch.equal(convolution(maps), plain), "a training takes it"
        with torch.no_grad():
            assert torch.equal(convolution(maps), plain)
        with half:
            assert torch.equal(convolution(maps), rounded)
        convolution.requires_grad_(False)
        assert torch.equal(convolution(maps), plain)
        assert not torch.equal(convolution(maps.clone().requires_grad_()), plain), "a search for images takes it"
        convolution.requires_grad_(True).double()
        assert torch.equal(convolution(maps.double()), nn.Conv2d.forward(convolution, maps.double()))


@pytest.mark.usefixtures("every_layer")
@pytest.mark.parametrize(
    "other",
    [
        {"stride": 2},
        {"padding": 0},
        {"padding": "same"},
        {"dilation": 2},
        {"groups": 2},
        {"kernel_size": 5},
        {"padding_mode": "circular"},
    ],
)
def test_other_convolutions_are_left_as_they_are(other: dict[str, object]) -> None:
    given: dict[str, object] = {"kernel_size": 3, "padding": 1, **other}
    convolution = nn.Conv2d(32, 32, **given)  # type: ignore[arg-type]
    maps = numbers(4, 32, 8, 8)
    plain = convolution(maps)
    with fast_convolutions(convolution):
        assert torch.equal(convolution(maps), plain)


@pytest.mark.usefixtures("every_layer")
def test_layers_are_as_they_were_afterwards() -> None:
    network = nn.Sequential(layer(16, 32), nn.ReLU(), layer(32, 32))
    maps = numbers(4, 16, 8, 8)
    plain = network(maps)
    with pytest.raises(ZeroDivisionError), fast_convolutions(network):
        network(numbers(4, 16, 8, 8)).sum().backward()
        raise ZeroDivisionError
    assert torch.equal(network(maps), plain)
    assert torch.equal(copy.deepcopy(network)(maps), plain)


@pytest.mark.usefixtures("every_layer")
def test_it_may_be_within_itself() -> None:
    convolution, maps = layer(32, 32), numbers(4, 32, 8, 8)
    plain = convolution(maps)
    with fast_convolutions(convolution):
        taken = convolution(maps)
        with fast_convolutions(convolution):
            assert torch.equal(convolution(maps), taken)
        assert torch.equal(convolution(maps), taken)
    assert torch.equal(convolution(maps), plain)
    assert not torch.equal(taken, plain)


@pytest.mark.usefixtures("every_layer")
def test_modules_that_cannot_be_read_keep_their_convolutions() -> None:
    """They may feed membranes: a number that is rounded otherwise makes another spike."""

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = layer(16, 32)

        def forward(self, images: Tensor, _seed: int) -> Tensor:
            return self.first(images).mean((2, 3))

    network, maps = ModuleNetwork(Body(), (16, 8, 8), 32), torch.rand(4, 16, 8, 8)
    plain = network(maps, seed=0)
    with fast_convolutions(nn.Sequential(network)):
        assert torch.equal(network(maps, seed=0), plain)


@pytest.mark.usefixtures("every_layer")
def test_spiking_networks_keep_their_convolutions() -> None:
    body = nn.Sequential(layer(16, 32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 4))
    ann = ImageClassifier(body, (16, 8, 8), 4)
    network = SpikingNetwork.from_ann(ann, SpikingConfig(4))
    convolution, maps = next(m for m in network.modules() if isinstance(m, nn.Conv2d)), numbers(4, 16, 8, 8)
    plain = convolution(maps)
    with fast_convolutions(network):
        assert torch.equal(convolution(maps), plain)


@pytest.mark.usefixtures("every_layer")
@pytest.mark.parametrize("size", [(8, 8), (2, 2)])
def test_what_follows_may_change_the_maps_in_place(size: tuple[int, int]) -> None:
    network = nn.Sequential(layer(16, 32), nn.ReLU(inplace=True), layer(32, 32), nn.ReLU(inplace=True))
    maps = numbers(4, 16, *size)
    exact = passes(copy.deepcopy(network).double(), maps.double())
    with fast_convolutions(network):
        assert_close(passes(network, maps), exact)


class Doubled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Tripled(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return 3 * super()._conv_forward(x, weight, bias)


@pytest.mark.usefixtures("every_layer")
@pytest.mark.parametrize("kind", [Doubled, Tripled])
def test_subclasses_compute_what_they_compute(kind: type[nn.Conv2d]) -> None:
    network, maps = kind(16, 32, 3, padding=1, bias=False).to(memory_format=torch.channels_last), numbers(4, 16, 8, 8)  # type: ignore[call-overload]
    exact = passes(copy.deepcopy(network).double(), maps.double())
    with fast_convolutions(network):
        assert_close(passes(network, maps), exact)


def test_weights_that_are_computed_are_so_once_a_call() -> None:
    network = spectral_norm(layer(16, 16))
    other, maps = copy.deepcopy(network), numbers(4, 16, 8, 8)
    for _ in range(3):
        plain = other(maps)
        with fast_convolutions(network):
            assert torch.equal(network(maps), plain)


def test_wrong_maps_are_pytorchs_to_refuse() -> None:
    convolution = layer(64, 64)
    with fast_convolutions(convolution):
        assert convolution(numbers(0, 64, 16, 16)).shape == (0, 64, 16, 16)
        assert convolution(input=numbers(4, 64, 16, 16)).shape == (4, 64, 16, 16)
        for channels in (16, 128):
            with pytest.raises(RuntimeError, match="to have 64 channels"):
                convolution(numbers(8, channels, 16, 16))


def test_weights_that_are_chosen_can_hide_gradients_which_is_why_no_attack_takes_it() -> None:
    """A channel that is huge at bright pixels silences these, in the tile that their neighbours are computed in."""
    first, second = nn.Conv2d(3, 64, 3, padding=1), layer(64, 64)
    with torch.no_grad():
        first.weight[63] = 0
        first.weight[63, 0, 1, 1], first.bias[63] = 1e10, -0.9e10  # type: ignore[index]
        second.weight[:, 63] = 0
        second.weight[:, 63, 1, 1] = -1
    network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    exact = passes(copy.deepcopy(network).double(), images.double())[1].float()
    likeness = nn.CosineSimilarity(0)
    assert likeness(passes(network, images)[1].flatten(), exact.flatten()) > 0.99
    with fast_convolutions(network):
        assert likeness(passes(network, images)[1].flatten(), exact.flatten()) < 0.5


@pytest.mark.usefixtures("every_layer")
def test_weights_may_be_standardized() -> None:
    network = nn.Sequential(layer(16, 32), nn.ReLU(), layer(32, 32))
    maps = numbers(4, 16, 8, 8)
    with standardized(network):
        exact = passes(copy.deepcopy(network).double(), maps.double())
        with fast_convolutions(network):
            assert_close(passes(network, maps), exact)
