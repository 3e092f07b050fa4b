"""Reconversion that knows thresholds and leaks: inversion of the ANN that the spiking network really computes."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.inversion import invert
from leakbench.attacks.search import SearchParams
from leakbench.contracts import Access, Attack, AttackContext, ImageClassifier, Victim
from leakbench.snn import SpikingNetwork, agreements, analog_twin, relu_network


class TwinParams(SearchParams):
    """The search's, with smoother images: saturated neurons spread the logits less, which weakens the prior."""

    total_variation: float = Field(0.06, ge=0, description="weight of the summed absolute differences of neighbours")


class AnalogTwin(Attack[TwinParams]):
    """Inversion of the spiking network's analog twin, whose activations are its neurons' transfer functions."""

    name = "analog_twin"
    version = 3
    needs = Access.WEIGHTS
    effort = "iterations"
    cites = (
        "transfer functions: Rueckauer et al., Front. Neurosci. 11, 2017; measured: LeakBench, docs/method.md, Attacks"
    )
    presets: ClassVar = {"quick": {"iterations": 150, "restarts": 2}}

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        network = victim.network
        if not isinstance(network, SpikingNetwork):
            # nothing spikes: a network is its own twin
            return invert(relu_network(network), victim, targets, context, self.params, self.name)
        twin = analog_twin(network, context.progress)
        images = invert(twin, victim, targets, context, self.params, self.name)
        _report(twin, network, images, context)
        return images


def _report(twin: ImageClassifier, network: SpikingNetwork, images: Tensor, context: AttackContext) -> None:
    """How well the twin, and the bare ReLU network, say what the victim does: on noise and on the images found."""
    noise = torch.rand(64, *network.image_shape, generator=context.generator).to(context.device)
    for name, probes in (("noise", noise), ("its images", images[:200])):
        twin_agreement, bare_agreement = agreements(network, probes, context.seed(), twin, relu_network(network))
        context.finding(f"twin on {name}: correlation of logits", twin_agreement.correlation)
        context.finding(f"ReLU network on {name}: correlation of logits", bare_agreement.correlation)
        context.finding(f"twin on {name}: same class", twin_agreement.same_class)
        for layer, error in twin_agreement.rate_error.items():
            context.finding(f"twin on {name}: error of rates, layer {layer}", error)
