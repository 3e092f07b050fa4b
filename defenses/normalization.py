"""Conversions that normalise by the ANN's activations: Diehl 2015 and Rueckauer 2017."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.errors import NotApplicable
from leakbench.snn import (
    EncoderName,
    Neuron,
    SpikingConfig,
    SpikingNetwork,
    highest_activations,
    is_chain,
    percentile_activations,
    scale_weights,
    set_thresholds,
)
from leakbench.snn.blocks import Affine
from leakbench.snn.folding import with_spiking_pools

_SCALING = (
    "what is published: weights scaled to thresholds of 1, as in the paper, or the ANN's weights under the thresholds "
    "that give the same spikes, which any network allows"
)
Scaling = Literal["weights", "thresholds"]
_ROUNDING = 1e-5  # relative: above that of float32, below 1 / n for averages of n spikes


class Diehl2015Params(Params):
    """Parameters of weight normalisation."""

    norm: Literal["data", "model"] = Field(
        "data", description="data: by activations on training images; model: by weights alone, without any image"
    )
    images: int = Field(512, ge=1, description="training images on which activations are recorded (norm=data)")
    encoder: EncoderName = Field("poisson", description="poisson (signed rate code) or direct (constant current)")
    scaling: Scaling = Field("weights", description=_SCALING)


class Rueckauer2017Params(Params):
    """Parameters of robust normalisation."""

    percentile: float = Field(99.9, gt=0, le=100, description="of a layer's activations that are not 0; 100: the max")
    images: int = Field(512, ge=1, description="training images on which activations are recorded")
    encoder: EncoderName = Field("direct", description="direct (constant current) or poisson (signed rate code)")
    scaling: Scaling = Field("weights", description=_SCALING)


class Diehl2015(Defense[Diehl2015Params]):
    """Weight normalisation: layers scaled by their highest activation or input; pools spike; hard reset.

    Weights become W_l lam_(l-1) / lam_l under thresholds of 1. The authors' code multiplies by the factor lam_(l-1) /
    lam_(l-2) where lam_(l-1) belongs, which leaves deep layers at less than half of their range: here it is lam. Pools
    fire at their thresholds, as there, and lie a little below 1 for it.
    """

    name = "diehl2015"
    version = 2
    cites = (
        "Diehl, Neil, Binas, Cook, Liu, Pfeiffer: Fast-classifying, high-accuracy spiking deep networks through weight "
        "and threshold balancing, IJCNN 2015, model-based and data-based normalization"
    )
    anytime = True

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        pooled = with_spiking_pools(ann)
        config = SpikingConfig(context.timesteps, params.encoder, Neuron(reset="hard"), context.precision)
        network = SpikingNetwork.from_ann(pooled, config)
        if params.scaling == "weights":
            _require_chain(pooled, "weights are scaled along a chain of layers", "scaling=thresholds")
        if params.norm == "model":
            _require_chain(pooled, "the highest possible input is known along a chain of layers", "norm=data")
            if any(isinstance(module, Affine) for module in pooled.modules()):
                raise NotApplicable("the highest input of an ANN with --mean or --std is not known: take norm=data")
            lambdas = highest_inputs(network)
        else:
            x, _ = data.sample(params.images, context.generator)
            activations = highest_activations(pooled, x.to(context.device), context.progress)
            lambdas = _with_weights(network, activations)
        _published(network, lambdas, params.scaling)
        _fire_at_thresholds(network)
        return network


class Rueckauer2017(Defense[Rueckauer2017Params]):
    """Robust normalisation: layers scaled by a percentile of their activations; biases as currents; soft reset."""

    name = "rueckauer2017"
    cites = (
        "Rueckauer, Lungu, Hu, Pfeiffer, Liu: Conversion of Continuous-Valued Deep Networks to Efficient Event-Driven "
        "Networks for Image Classification, Front. Neurosci. 11:682, 2017, section 2.2 (parameter normalization)"
    )
    anytime = True

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        config = SpikingConfig(context.timesteps, params.encoder, Neuron(reset="soft"), context.precision)
        network = SpikingNetwork.from_ann(ann, config)
        if params.scaling == "weights":
            _require_chain(ann, "weights are scaled along a chain of layers", "scaling=thresholds")
        x, _ = data.sample(params.images, context.generator)
        lambdas = percentile_activations(ann, x.to(context.device), params.percentile, context.progress)
        return _published(network, lambdas, params.scaling)


def _require_chain(ann: ImageClassifier, what: str, instead: str) -> None:
    if not is_chain(ann.body):
        raise NotApplicable(f"{what}, and this network has branches: take {instead}")


def _published(network: SpikingNetwork, lambdas: dict[str, float], scaling: Scaling) -> SpikingNetwork:
    set_thresholds(network, lambdas)
    if scaling == "weights":
        scale_weights(network)
    return network


def _fire_at_thresholds(network: SpikingNetwork) -> None:
    """Pooling neurons fire *at* their thresholds, as in the authors' code, and not above.

    Averages of n unit spikes lie on a grid of 1 / n, of which the threshold is a point: any threshold a little below it
    is the same neuron without rounding errors. Neurons with weights are left as they are, their sums lie on no grid.
    """
    below = 1.0
    for layer in network.neurons:
        below = 1.0 if network.topology.feeders[layer.layer] else below * (1 - _ROUNDING)
        layer.set_threshold(layer.threshold * below)


def _with_weights(network: SpikingNetwork, activations: dict[str, float]) -> dict[str, float]:
    """lam_l = max(largest weight, largest activation) of each layer.

    A layer that pools has no weights and is not scaled: under a threshold of 1 it reads averages of unit spikes, so in
    the ANN's units its lam is that of the layer before it.
    """
    weights = network.weights()
    lambdas: dict[str, float] = {}
    before = 1.0
    for layer in network.topology.activations:
        entered = network.topology.feeders[layer]
        if entered:
            before = max(activations[layer], *(float(weights[name].max()) for name in entered))
        lambdas[layer] = before
    return lambdas


@torch.no_grad()
def highest_inputs(network: SpikingNetwork) -> dict[str, float]:
    """lam_l of a chain's layers without images: the highest input that any of their neurons can get.

    The paper divides a layer by s_l, the largest sum of positive weights that enters one of its neurons, which is what
    the neuron gets when all unit spikes arrive at once. In the ANN's units a spike is worth lam_(l-1), so
    lam_l = s_l lam_(l-1), plus a neuron's bias where there is one: no activation can be larger. A signed input counts
    with either sign.
    """
    low, high = network.input_range
    lambdas: dict[str, float] = {}
    for layer in network.neurons:
        if network.topology.feeders[layer.layer]:
            feeder = network.feeder(layer)
            inputs = torch.maximum(feeder.weight * low, feeder.weight * high).flatten(1).sum(1)
            bias: Tensor | float = 0.0 if feeder.bias is None else feeder.bias
            low, high = 0.0, float((inputs + bias).max())
        lambdas[layer.layer] = high  # a mean of spikes is worth no more than one
    return lambdas
