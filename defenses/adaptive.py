"""Adaptive spiking neurons in place of the activations that their transfer function was trained in."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, TrainingData
from leakbench.defenses.finetuned import FinetunedParams, collected, finetuned, first
from leakbench.snn import SpikingConfig, SpikingNetwork, highest_activations, set_thresholds
from leakbench.snn.adaptive import AdaptiveNeuron, AdaptiveTransfer


class AdaptiveParams(FinetunedParams):
    """Parameters of the conversion to adaptive spiking neurons."""

    m_f: float = Field(
        0.1, gt=0, le=1, description="speed of the thresholds' adaptation, and their value at rest, in a layer's scale"
    )
    finetune: bool = Field(True, description="train the ANN with the neurons' transfer function before conversion")


class Zambrano2019(Defense[AdaptiveParams]):
    """AdSNN: adaptive spiking neurons, whose transfer function the ANN is trained with (fine-tuned, here).

    The paper trains networks with f from scratch. Here the ANN at hand is fine-tuned with it, and each layer's S is
    measured in units of the layer's highest activation on training images, where f(1) = 1. Pooling stands behind the
    neurons, as in the ANN, and the logits are means over all steps. The neuron's constants, the order of its steps and
    the coefficients of f are those of the group's public code (Sorensen, Zambrano et al., SpatialAttention_sDCNN_2020).
    """

    name = "zambrano2019"
    cites = (
        "Zambrano, Nusselder, Scholte, Bohte: Sparse Computation in Adaptive Spiking Neural Networks, Front. Neurosci. "
        "12, 2019"
    )
    anytime = True
    presets: ClassVar = {
        "quick": {"epochs": 1, "least_steps": 300},
        "paper-cpu": {"epochs": 1},
        "paper": {"epochs": 10},
    }

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params, neuron = self.params, AdaptiveNeuron(m_f=self.params.m_f)
        config = SpikingConfig(context.timesteps, "direct", neuron, context.precision)
        if params.finetune:
            images, labels = collected(data, context)
            x = first(images, params, context)
        else:
            x = data.sample(params.images, context.generator)[0].to(context.device)
        scales = highest_activations(ann, x, context.progress)
        network = SpikingNetwork.from_ann(ann, config)
        set_thresholds(network, scales)  # what can't be converted is refused before it is trained
        if params.finetune:
            transfer = {
                layer.layer: AdaptiveTransfer(layer.layer, neuron, layer.threshold) for layer in network.neurons
            }
            network = SpikingNetwork.from_ann(finetuned(ann, transfer, images, labels, params, context), config)
            set_thresholds(network, scales)
        return network
