"""The analog twin as an attack: what it reports, and that it knows what bare reconversion forgets."""

from __future__ import annotations

import pytest
import torch

from leakbench.attacks.analog_twin import AnalogTwin
from leakbench.contracts import Access, AttackContext, ImageClassifier, Victim
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, balance_thresholds

TEN = torch.arange(10)


def attacked(network: SpikingNetwork | ImageClassifier, **params: int) -> AttackContext:
    context = AttackContext(torch.Generator().manual_seed(0))
    AnalogTwin(**{"iterations": 60, "restarts": 1, **params})(Victim(network, Access.WEIGHTS), TEN, context)
    return context


@pytest.mark.slow
def test_it_reports_how_well_the_twin_says_what_the_victim_does(
    digits_ann: ImageClassifier, digits_snn: SpikingNetwork
) -> None:
    found = attacked(digits_snn).findings
    layers = [layer.layer for layer in digits_snn.neurons]
    assert {f"twin on its images: error of rates, layer {name}" for name in layers} <= found.keys()
    assert all(0 < found[f"twin on noise: error of rates, layer {name}"] < 0.05 for name in layers)
    assert found["twin on its images: correlation of logits"] > 0.95
    assert found["twin on its images: same class"] > 0.8
    assert attacked(digits_ann).findings == {}  # nothing spikes: nothing to agree with


@pytest.mark.slow
def test_leaks_part_the_twin_from_the_bare_relu_network(digits_ann: ImageClassifier) -> None:
    network = SpikingNetwork.from_ann(digits_ann, SpikingConfig(100, "direct", Neuron(leak=0.8)))
    balance_thresholds(network, torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), seed=0)
    network.requires_grad_(False)
    found = attacked(network, iterations=100).findings
    twin, bare = (found[f"{name} on its images: correlation of logits"] for name in ("twin", "ReLU network"))
    assert twin > 0.98
    assert 1 - twin < 0.5 * (1 - bare)
