"""The gradients of convolutions of spikes: each way to compute them, and only those that somebody wants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exact_networks import assert_alike, gradients, images, network_of
from torch import Tensor

from leakbench.errors import UsageError
from leakbench.snn import SpikingConfig
from leakbench.snn.engine import gradients as engine_gradients
from leakbench.snn.engine import winograd
from leakbench.snn.engine.convolution import Convolution
from leakbench.snn.engine.threads import as_array


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_dense_and_listed_spikes_are_the_same(density: float, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("vgg", SpikingConfig(6)).requires_grad_(True)
    network.fast = False
    spikes, expected = network.simulate(images(), seed=3).spikes, gradients(network, images())
    monkeypatch.setattr("leakbench.snn.engine.events.DENSEST", density)
    monkeypatch.setattr("leakbench.snn.engine.convolution.SMALL_FAN_IN", 0)
    network.fast = True
    assert network.simulate(images(), seed=3).spikes == spikes
    assert_alike(expected, gradients(network, images()))


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_weights_gradients_of_dense_and_listed_spikes_are_the_same(
    density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of("vgg", SpikingConfig(6)).requires_grad_(True)
    network.fast = False
    expected = gradients(network, images())
    calls: list[int] = []

    def counted(*arguments: Any, original: Any = winograd.weights_gradient) -> Tensor:
        calls.append(1)
        gradient: Tensor = original(*arguments)
        return gradient

    monkeypatch.setattr("leakbench.snn.engine.events._LISTED", density)
    monkeypatch.setattr(winograd, "weights_gradient", counted)
    network.fast = True
    assert_alike(expected, gradients(network, images()))
    assert bool(calls) == (density == 0)


def test_weights_gradients_of_small_fan_in_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("vgg", SpikingConfig(6)).requires_grad_(True)
    whole = gradients(network, images())
    calls: list[int] = []

    def counted(*arguments: Any, original: Any = engine_gradients._small_weights_gradient) -> Tensor:
        calls.append(1)
        gradient: Tensor = original(*arguments)
        return gradient

    monkeypatch.setattr(engine_gradients, "_small_weights_gradient", counted)
    monkeypatch.setattr(engine_gradients, "_AT_ONCE", 1)
    assert_alike(whole, gradients(network, images()))
    assert calls == [1]


def test_weights_gradients_do_not_depend_on_which_thread_came_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of floats depend on their order."""
    network = network_of("vgg", SpikingConfig(6)).requires_grad_(True)
    with torch.no_grad():
        for weight in network.weights().values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    monkeypatch.setattr("leakbench.snn.engine.events._LISTED", 1.0)
    monkeypatch.setattr("leakbench.snn.engine.convolution.SMALL_FAN_IN", 0)
    batch, found = images(9), list[list[Tensor]]()
    shared = list[int]()
    for order in (1, -1):

        def share(count: int, work: Any, arguments: Any = None, order: int = order) -> None:
            shared.append(count)
            for first in range(0, count, 2)[::order]:
                work(first, min(first + 2, count), *map(as_array, arguments or ()))

        monkeypatch.setattr(engine_gradients, "share", share)
        network.zero_grad()
        network.simulate(batch, seed=3).logits.square().sum().backward()  # type: ignore[no-untyped-call]
        found.append([weight.grad.clone() for weight in network.weights().values() if weight.grad is not None])
    assert 9 in shared
    assert all(map(torch.equal, *found))


def test_only_wanted_gradients_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("vgg", SpikingConfig(4)).requires_grad_(False)
    called: list[str] = []
    monkeypatch.setattr("leakbench.snn.engine.events.DENSEST", 10.0)
    for name in ("weights_gradient", "input_gradient"):
        original = getattr(__import__("leakbench.snn.engine.events", fromlist=[name]), name)

        def spy(*args: Any, _name: str = name, _original: Any = original) -> Any:
            called.append(_name)
            return _original(*args)

        monkeypatch.setattr(f"leakbench.snn.engine.events.{name}", spy)
    gradients(network, images())
    assert set(called) == {"input_gradient"}
    called.clear()
    network.requires_grad_(True)
    network(images(), seed=3).sum().backward()
    # three convolutions and a linear layer feed neurons; the first has nothing below it
    assert called.count("weights_gradient") == 4
    assert called.count("input_gradient") == 3
    called.clear()
    with torch.no_grad():
        network(images(), seed=3)
    assert not called


def test_a_graph_is_walked_back_once() -> None:
    """Its memory is where the gradients go; a second walk says so and does not return something else."""
    network = network_of("vgg", SpikingConfig(4)).requires_grad_(True)
    loss = network(images(), seed=3).square().sum()
    loss.backward(retain_graph=True)
    with pytest.raises(UsageError, match="simulate again"):
        loss.backward()


def factors(side: int) -> tuple[Tensor, Tensor]:
    """The gradient of maps [3, 2, side, side, 32] that a convolution of 16 channels puts out, and its weights."""
    generator = torch.Generator().manual_seed(5)
    maps = torch.randn(3, 2, side, side, 32, generator=generator)
    return maps, torch.randn(32, 16, 3, 3, generator=generator)


@pytest.mark.parametrize("side", [5, 16])
def test_bfloat16_rounds_each_factor_alone(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the gradient in float64 of factors that were rounded to bfloat16; in parts, and not rounded in float32."""
    grad, weight = factors(side)
    shape, conv = torch.Size([3, 2, side, side, 16]), Convolution(3, 3, 1, 1)
    monkeypatch.setattr(engine_gradients, "_AT_ONCE", 1)

    def error(half: bool, exact_grad: Tensor, exact_weight: Tensor) -> float:
        maps, kernels = exact_grad.double().flatten(0, 1).permute(0, 3, 1, 2), exact_weight.double()
        exact = torch.nn.functional.conv_transpose2d(maps, kernels, padding=1).permute(0, 2, 3, 1).view(shape)
        actual = engine_gradients.input_gradient(grad, weight, conv, shape, half)
        assert actual.dtype == torch.float32 and actual.shape == shape
        return float((actual - exact).abs().max() / exact.abs().max())

    assert error(False, grad, weight) < 5e-6
    # what comes out is rounded once more, by half of a last place of eight bits
    assert 1e-4 < error(True, grad.bfloat16(), weight.bfloat16()) <= 2**-8


def test_bfloat16_leaves_maps_of_one_tile_in_float32() -> None:
    grad, weight = factors(4)
    shape, conv = torch.Size([3, 2, 4, 4, 16]), Convolution(3, 3, 1, 1)
    halves = [engine_gradients.input_gradient(grad, weight, conv, shape, half) for half in (False, True)]
    assert torch.equal(*halves)
