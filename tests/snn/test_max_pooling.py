"""Max pooling of spikes, step by step in NumPy, and the rates that it comes to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.graph import trace
from leakbench.snn.neurons import GatedMaxPool, Run


def gated_by_hand(spikes: np.ndarray[Any, Any], size: int, stride: int, padding: int) -> np.ndarray[Any, Any]:
    """Of each window, at each step, the spike of the neuron that has fired most so far, this step included.

    ``spikes`` [T, B, C, H, W]; of neurons that have fired alike, the first one, row by row.
    """
    steps, batch, channels, height, width = spikes.shape
    rows, columns = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
    out = np.zeros((steps, batch, channels, rows, columns))
    fired = np.zeros(spikes.shape[1:])
    for t in range(steps):
        fired += spikes[t]
        for b, c, i, j in np.ndindex(batch, channels, rows, columns):
            best: tuple[int, int] | None = None
            for y in range(i * stride - padding, i * stride - padding + size):
                for x in range(j * stride - padding, j * stride - padding + size):
                    inside = 0 <= y < height and 0 <= x < width
                    if inside and (best is None or fired[b, c, y, x] > fired[b, c, best[0], best[1]]):
                        best = (y, x)
            assert best is not None
            out[t, b, c, i, j] = spikes[t, b, c, best[0], best[1]]
    return out


def pooled(spikes: Tensor, pool: GatedMaxPool, chunks: list[int]) -> Tensor:
    """The layer inside of a simulation that runs in ``chunks`` of steps."""
    run = Run(spikes.shape[1], torch.zeros(spikes.shape[1], 2, dtype=torch.int32))
    parts = []
    for part in spikes.split(chunks):
        pool.run = run
        parts.append(pool(part.flatten(0, 1)).unflatten(0, (len(part), -1)))
        pool.run = None
    return torch.cat(parts)


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 0), (2, 1, 0)])
@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 1, 6]])
@pytest.mark.parametrize("density", [0.1, 0.6])
def test_it_is_the_statement_step_by_step(
    size: int, stride: int, padding: int, chunks: list[int], density: float, generator: torch.Generator
) -> None:
    spikes = (torch.rand(12, 2, 3, 6, 7, generator=generator) < density).double()
    # a spike is worth the threshold of its channel; binary fractions, whose counts tie as whole numbers do
    spikes *= torch.tensor([0.25, 1.0, 4.0], dtype=torch.float64)[:, None, None]
    gated = pooled(spikes, GatedMaxPool(nn.MaxPool2d(size, stride, padding), "pool"), chunks)
    wanted = gated_by_hand(spikes.numpy(), size, stride, padding)
    assert 0 < (wanted != 0).mean() < 1
    assert np.array_equal(gated.numpy(), wanted)


@pytest.mark.parametrize("chunks", [[1] * 60, [7] * 8 + [4], [30, 30]])
def test_neurons_that_fired_as_often_tie_wherever_steps_are_cut(chunks: list[int], generator: torch.Generator) -> None:
    # sums of .37 in float32 depend on their order
    spikes = (torch.rand(60, 2, 3, 8, 8, generator=generator) < 0.3).float() * 0.37
    whole = pooled(spikes, GatedMaxPool(nn.MaxPool2d(2), "pool"), [60])
    assert torch.equal(pooled(spikes, GatedMaxPool(nn.MaxPool2d(2), "pool"), chunks), whole)
    counts = gated_by_hand((spikes > 0).double().numpy(), 2, 2, 0)
    assert np.array_equal((whole > 0).numpy(), counts > 0)


def test_outside_of_a_simulation_it_pools_values(generator: torch.Generator) -> None:
    x = torch.rand(2, 3, 6, 6, generator=generator)
    plain = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
    assert torch.equal(GatedMaxPool(plain, "pool")(x), plain(x))


def constant(rates: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Rates of windows [N] and the mean of their largest single spike, for neurons [N, 2, 2] of constant currents."""
    t = torch.arange(1, steps + 1, dtype=torch.float64)[:, None, None, None]
    counts = (rates * t).floor()
    spikes = counts.diff(dim=0, prepend=torch.zeros_like(counts[:1]))
    gated = pooled(spikes[:, None], GatedMaxPool(nn.MaxPool2d(2), "pool"), [steps])
    return gated.mean(0).flatten(), spikes.amax((2, 3)).mean(0)


def test_its_rates_come_to_the_largest_of_rates(generator: torch.Generator) -> None:
    rates = torch.rand(200, 2, 2, generator=generator, dtype=torch.float64) * 0.6
    wanted = rates.amax((1, 2))
    for steps in (16, 64, 256, 1024):
        gated, naive = constant(rates, steps)
        # three spikes: while it is open which neuron fires most, those of others pass too (longest where two are close)
        assert float((gated - wanted).abs().mean()) < 3 / steps
    # the maximum of single spikes fires for any of the four
    assert float((naive - wanted).mean()) > 0.1


@pytest.mark.parametrize("encoder", ["direct", "poisson"])
def test_the_fast_path_pools_the_same_spikes(encoder: Any, generator: torch.Generator) -> None:
    """Weights and thresholds are binary fractions: sums are exact in every order."""
    body = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False),
    )  # fmt: skip
    for parameter in body.parameters():
        parameter.data.copy_(torch.randint(-8, 13, parameter.shape, generator=generator) / 64)
    network = SpikingNetwork.from_ann(ImageClassifier(body.eval(), (1, 8, 8), 3), SpikingConfig(20, encoder))
    for layer, theta in zip(network.neurons, (0.5, 1.0, 2.0), strict=True):
        layer.set_threshold(theta)
    x = torch.randint(0, 17, (4, 1, 8, 8), generator=generator) / 16
    with torch.no_grad():
        fast = network.simulate(x, seed=2)
        network.fast = False
        plain = network.simulate(x, seed=2)
        network.memory_budget = 1  # a step at a time
        stepped = network.simulate(x, seed=2)
    assert fast.spikes == plain.spikes == stepped.spikes
    # a window of four neurons lets one of them pass, and none more than it makes
    assert plain.spikes["1"] / 4 < plain.spikes["2"] < plain.spikes["1"]
    entering = dict.fromkeys(("3", "7"), 0)

    def count(name: str) -> Any:
        def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            entering[name] += int(torch.count_nonzero(given[0]))

        return hook

    network.memory_budget = 1 << 30
    handles = [dict(network.body.named_modules())[name].register_forward_pre_hook(count(name)) for name in entering]
    with torch.no_grad():
        network.simulate(x, seed=2)
    for handle in handles:
        handle.remove()
    assert entering == {"3": plain.spikes["2"], "7": plain.spikes["5"]}
    assert min(plain.spikes.values()) > 0
    torch.testing.assert_close(fast.logits, plain.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(stepped.logits, plain.logits, rtol=0, atol=1e-5)


def test_what_passes_is_counted_only_where_single_spikes_are_pooled() -> None:
    """A maximum of averages may be several spikes."""
    layers = [nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)]
    assert trace(nn.Sequential(*layers), (1, 8, 8)).weights[-1].entered_by == ("1",)
    layers[2] = nn.MaxPool2d(2)
    assert trace(nn.Sequential(*layers), (1, 8, 8)).weights[-1].entered_by == ("3",)
