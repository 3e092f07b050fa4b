"""A conversion whose weights are blurred by Gaussian noise before they are deployed."""

from __future__ import annotations

import copy

import torch
from pydantic import Field
from torch import nn

from leakbench.contracts import Context, Defense, ImageClassifier, Params, TrainingData
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds


class WeightNoiseParams(Params):
    """How much noise, and what thresholds are found on."""

    sigma: float = Field(0.1, ge=0, le=10, description="noise, in standard deviations of each layer's weights")
    images: int = Field(64, ge=1, description="training images on which thresholds are found")


class WeightNoise(Defense[WeightNoiseParams]):
    """Gaussian noise on every weight, then a conversion with thresholds from training images."""

    name = "weight-noise"
    cites = "folklore"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: Context) -> SpikingNetwork:
        noisy = copy.deepcopy(ann)
        with torch.no_grad():
            for module in noisy.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    noise = torch.randn(module.weight.shape, generator=context.generator)
                    module.weight += self.params.sigma * module.weight.std() * noise.to(module.weight.device)
        network = SpikingNetwork.from_ann(noisy, SpikingConfig(context.timesteps))
        images, _ = data.sample(self.params.images, context.generator)
        balance_thresholds(network, images.to(context.device), context.seed(), progress=context.progress)
        return network
