"""The same conversion by SpikingJelly's converter: one network, constant current, layer by layer.

Its rate coding divides currents by a layer's scale, lets IF neurons of threshold 1 fire with soft reset, and multiplies
their spikes by the scale. The scale is the maximum of the activations or a percentile of them, zeros included.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from leakbench.contracts import ImageClassifier
from leakbench.data import Dataset
from leakbench.snn import (
    Neuron,
    SpikingConfig,
    SpikingNetwork,
    highest_activations,
    percentile_activations,
    scale_weights,
    set_thresholds,
    watch_activations,
)

STEPS = 64
ann2snn = pytest.importorskip(
    "spikingjelly.activation_based.ann2snn", reason="SpikingJelly is not installed (pip install -e '.[dev]')"
)
functional = pytest.importorskip("spikingjelly.activation_based.functional")
neuron = pytest.importorskip("spikingjelly.activation_based.neuron")


def percentile_with_zeros(ann: ImageClassifier, images: Tensor, percentile: float) -> dict[str, float]:
    """As SpikingJelly has it: over all outputs of a layer."""
    seen: dict[str, list[Tensor]] = {}
    watch_activations(ann, images, lambda name, out: seen.setdefault(name, []).append(out.flatten()))
    return {name: float(torch.cat(parts).quantile(percentile / 100)) for name, parts in seen.items()}


def theirs(ann: ImageClassifier, calibration: Tensor, images: Tensor, mode: str) -> tuple[list[float], Any, Tensor]:
    """Scales, rates [B, ...] a layer, and mean outputs [B, classes] of SpikingJelly's conversion."""
    recipe = ann2snn.RateCodingRecipe(dataloader=[(calibration, None)], mode=mode)
    network = ann2snn.Converter(recipe).convert(copy.deepcopy(ann.body)).eval()
    fired: dict[str, Tensor] = {}
    nodes = [(name, module) for name, module in network.named_modules() if isinstance(module, neuron.IFNode)]
    for name, module in nodes:
        module.register_forward_hook(
            lambda _m, _a, out, name=name: fired.update({name: fired.get(name, torch.zeros(())) + out})
        )
    functional.reset_net(network)
    with torch.no_grad():
        output = torch.stack([network(images) for _ in range(STEPS)]).mean(0)
    scales = [
        float(module.scale) for name, module in network.named_modules() if name.endswith("scaler1")
    ]  # behind the spikes: what one is worth
    return scales, [fired[name] / STEPS for name, _ in nodes], output


def ours(ann: ImageClassifier, thetas: dict[str, float], images: Tensor, scaled: bool) -> tuple[list[Tensor], Tensor]:
    """Rates [B, ...] a layer and logits [B, classes]."""
    network = SpikingNetwork.from_ann(ann, SpikingConfig(STEPS, "direct", Neuron(reset="soft")))
    set_thresholds(network, thetas)
    if scaled:
        scale_weights(network)
    fired: dict[str, Tensor] = {}

    def watch(name: str, _i: Tensor, _u: Tensor, out: Tensor) -> None:
        fired[name] = fired.get(name, torch.zeros(())) + (out != 0).sum(0)

    logits = network.observe(images, watch, 0)
    return [fired[layer.layer] / STEPS for layer in network.neurons], logits


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("scaled", [False, True], ids=["thresholds", "weights"])
@pytest.mark.parametrize("mode", ["max", "99.9%"])
def test_rates_and_answers_are_spikingjellys(
    mode: str, scaled: bool, digits: Dataset, digits_ann: ImageClassifier
) -> None:
    calibration, images = digits.train.images[:200].float() / 255, digits.test.images[:100].float() / 255
    scales, rates, output = theirs(digits_ann, calibration, images, mode)
    if mode == "max":
        thetas = highest_activations(digits_ann, calibration)
    else:
        thetas = percentile_with_zeros(digits_ann, calibration, 99.9)
    # scales: float32 sums in another order
    assert list(thetas.values()) == pytest.approx(scales, rel=1e-5)
    mine, logits = ours(digits_ann, thetas, images, scaled)
    for own, other in zip(mine, rates, strict=True):
        assert 0.01 < float(other.mean()) < 0.9
        difference = (own - other).abs()
        # u >= theta there and u > theta here, and sums in another order: a spike may come a step later
        assert float(difference.max()) <= 2 / STEPS + 1e-6
        assert float(difference.mean()) < 0.02 / STEPS
    assert float((logits - output).abs().mean()) < 1e-3 * float(output.std())
    assert torch.equal(logits.argmax(1), output.argmax(1))


def test_leaving_out_zeros_gives_higher_thresholds(digits: Dataset, digits_ann: ImageClassifier) -> None:
    """Rueckauer's percentile is over what is not 0, SpikingJelly's over everything: a thousandth of more values."""
    images = digits.train.images[:200].float() / 255
    own, other = percentile_activations(digits_ann, images, 99.9), percentile_with_zeros(digits_ann, images, 99.9)
    highest = highest_activations(digits_ann, images)
    for name, value in own.items():
        assert other[name] < value <= highest[name]
