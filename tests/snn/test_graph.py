"""What feeds what: counts by hand, producers through pooling and sums, and what can't become a spiking network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import NotApplicable
from leakbench.snn import INPUT, SpikingConfig, SpikingNetwork, trace
from leakbench.snn.blocks import SpikeMax
from leakbench.snn.neurons import LIF, GatedMaxPool


class Residual(nn.Module):
    """conv - relu - (conv + skip) - relu - pool - (two linear branches, summed)."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.relu1 = nn.ReLU()
        self.inner = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.relu2 = activation()
        self.pool = nn.AvgPool2d(2)
        self.left = nn.Linear(4 * 3 * 3, 5, bias=False)
        self.right = nn.Linear(2 * 6 * 6, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.stem(x))
        h = self.relu2(self.inner(h) + h)
        out: Tensor = self.left(self.pool(h).flatten(1)) + self.right(x.flatten(1))
        return out


def test_a_chain_by_hand() -> None:
    body = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(3, 6, 3, stride=2, groups=3), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(6 * 1 * 2, 5),
    )  # fmt: skip
    topology = trace(body, (2, 8, 10))
    assert topology.activations == ("1", "4")
    # maps: 3x8x10, pooled 3x4x5, 6x1x2
    assert topology.neurons == {"1": 240, "4": 12}
    conv, grouped, linear = topology.weights
    assert (conv.name, conv.macs, conv.input_neurons, conv.output_neurons) == ("0", 240 * 2 * 9, 160, 240)
    # 3 groups: each output sees one of the three channels
    assert (grouped.name, grouped.macs, grouped.input_neurons, grouped.output_neurons) == ("3", 12 * 1 * 9, 60, 12)
    assert (linear.name, linear.macs, linear.input_neurons, linear.output_neurons) == ("7", 60, 12, 5)
    assert [layer.producers for layer in topology.weights] == [(INPUT,), ("1",), ("4",)]
    # what the eight modules put out: conv, relu, pool, conv, relu, flatten, dropout, linear
    assert topology.elements == 240 + 240 + 60 + 12 + 12 + 12 + 12 + 5


def test_feeders_are_the_layers_whose_sum_enters_an_activation() -> None:
    assert trace(Residual(), (2, 6, 6)).feeders == {"relu1": ("stem",), "relu2": ("inner",)}
    pooled = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AvgPool2d(2), nn.ReLU(), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3))
    assert trace(pooled, (1, 4, 4)).feeders == {"2": ("0",), "3": ()}


def test_producers_are_found_through_sums_pools_and_branches() -> None:
    weights = {layer.name: layer for layer in trace(Residual(), (2, 6, 6)).weights}
    producers = {name: set(layer.producers) for name, layer in weights.items()}
    # left sees relu2 only: what the sum adds is behind it; nothing reaches a layer through a ReLU
    assert producers == {"stem": {INPUT}, "inner": {"relu1"}, "left": {"relu2"}, "right": {INPUT}}


def test_a_layer_behind_a_sum_has_both_producers() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.relu_a, self.relu_b = nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            a = self.relu_a(self.a(x.flatten(1)))
            b = self.relu_b(self.b(a))
            out: Tensor = self.out(a + 2 * b)
            return out

    weights = {layer.name: layer for layer in trace(Sum(), (1, 2, 2)).weights}
    assert set(weights["out"].producers) == {"relu_a", "relu_b"}


def test_tracing_leaves_the_network_as_it_was() -> None:
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).train()
    body[0].weight.requires_grad_(False)
    before = {key: value.clone() for key, value in body.state_dict().items()}
    with torch.no_grad():
        trace(body, (1, 4, 4))
    assert body.training and body[1].training
    assert [p.requires_grad for p in body.parameters()] == [False, True, True, True, True, True]
    assert all(torch.equal(value, before[key]) for key, value in body.state_dict().items())
    assert all(p.grad is None for p in body.parameters())
    assert not any(module._forward_hooks for module in body.modules())


def test_a_network_in_doubles_can_be_traced() -> None:
    assert trace(Residual().double(), (2, 6, 6)) == trace(Residual(), (2, 6, 6))


def test_activations_that_work_in_place_are_followed_like_others() -> None:
    """As torchvision's networks have them."""
    in_place = Residual(lambda: nn.ReLU(inplace=True))
    in_place.relu1 = nn.ReLU(inplace=True)
    assert trace(in_place, (2, 6, 6)) == trace(Residual(), (2, 6, 6))
    for inplace in (False, True):
        pooled = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.AvgPool2d(2), nn.ReLU(inplace), nn.Flatten(), nn.Linear(2, 3), nn.ReLU(inplace)
        )
        assert trace(pooled, (1, 4, 4)).feeders == {"2": ("0",), "5": ("4",)}


def test_max_pooling_is_a_module_of_its_own_at_each_place() -> None:
    class Pooled(nn.Module):
        def __init__(self, other: Callable[[Tensor], Tensor] | None) -> None:
            super().__init__()
            self.conv, self.relu, self.conv2, self.relu2 = nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU()
            self.pool, self.spare, self.last = nn.MaxPool2d(2), nn.MaxPool2d(3), nn.Linear(8, 3)
            self.other = other or self.pool

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(self.relu(self.conv(x)))
            out: Tensor = self.last(self.other(self.relu2(self.conv2(x))).flatten(1))
            return out

    own = Pooled(nn.MaxPool2d(2))
    topology = trace(own, (1, 8, 8))
    assert set(topology.max_pools) == {"pool", "other"}  # the spare one is never called
    ann = ImageClassifier(own, (1, 8, 8), 3, InputRange(0.0, 1.0), "pooled").eval()
    gated = {
        name for name, module in SpikingNetwork.from_ann(ann, SpikingConfig(4)).body.named_modules()
        if isinstance(module, GatedMaxPool)
    }  # fmt: skip
    assert gated == {"pool", "other"}
    with pytest.raises(NotApplicable, match=r"the max pooling '.*' is used more than once"):
        trace(Pooled(None), (1, 8, 8))
    with pytest.raises(NotApplicable, match=r"must be an nn\.MaxPool2d module"):
        trace(Pooled(lambda x: functional.max_pool2d(x, 2)), (1, 8, 8))
    imported = trace(Pooled(SpikeMax((2, 2), (2, 2), (0, 0))), (1, 8, 8))
    assert imported.max_pools == ("pool",)


def test_a_module_spikes_by_whatever_name_it_is_called() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.pool, self.last = nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Linear(8, 3)
            self.act, self.down = self.relu, self.pool

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.down(self.act(self.conv(x))).flatten(1))
            return out

    ann = ImageClassifier(Named(), (1, 4, 4), 3, InputRange(0.0, 1.0), "named").eval()
    body = SpikingNetwork.from_ann(ann, SpikingConfig(4)).body
    assert isinstance(body.act, LIF) and body.act is body.relu
    assert isinstance(body.down, GatedMaxPool) and body.down is body.pool


def test_a_relu_used_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.relu = nn.Linear(4, 4), nn.Linear(4, 2), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(self.relu(self.a(self.relu(x.flatten(1)))))
            return out

    with pytest.raises(NotApplicable, match="'relu' is used more than once"):
        trace(Twice(), (1, 2, 2))


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
def test_other_convolutions_are_refused_in_one_line(kind: type[nn.Module]) -> None:
    body = nn.Sequential(nn.Flatten(2), kind(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    body(torch.zeros(1, 1, 4, 4))
    with pytest.raises(NotApplicable, match=rf"must be nn.Conv2d modules to take spikes, found {kind.__name__} in '1'"):
        trace(body, (1, 4, 4))


def test_a_network_without_a_relu_is_refused() -> None:
    with pytest.raises(NotApplicable, match=r"no nn\.ReLU module"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))


@pytest.mark.parametrize(
    "activation",
    [
        nn.GELU, nn.LeakyReLU, nn.ReLU6, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.ELU, nn.PReLU, nn.Softplus, nn.Hardswish,
        nn.SELU, nn.CELU, nn.Softsign, nn.Hardsigmoid, nn.LogSigmoid, nn.RReLU, nn.Softshrink,
    ],
)  # fmt: skip
def test_other_activations_are_refused_in_one_line(activation: type[nn.Module]) -> None:
    # A network that keeps one of them would run on it at every step and be no spiking network at all.
    with pytest.raises(NotApplicable, match=r"nn\.ReLU") as error:
        trace(Residual(activation), (2, 6, 6))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "function",
    [
        functional.relu, torch.relu, functional.gelu, torch.sigmoid, torch.tanh, functional.leaky_relu,
        functional.silu, functional.elu, functional.hardtanh, functional.softplus, functional.relu6,
        lambda x: x.clamp(min=0), torch.abs, torch.square, lambda x: x * x, lambda x: x @ x.T @ x,
    ],
    ids=[
        "relu", "torch.relu", "gelu", "sigmoid", "tanh", "leaky_relu", "silu", "elu", "hardtanh", "softplus", "relu6",
        "clamp", "abs", "square", "product", "matrix product",
    ],
)  # fmt: skip
def test_activations_that_are_called_as_functions_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.c(function(self.b(self.relu(self.a(x.flatten(1))))))
            return out

    with pytest.raises(NotApplicable):
        trace(Functional(), (1, 2, 2))
