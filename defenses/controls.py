"""The two controls of every grid: what must leak, and what must not."""

from __future__ import annotations

import copy

import torch
from torch import nn

from leakbench.contracts import Context, Defense, ImageClassifier, Params, TrainingData
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds


class Ann(Defense[Params]):
    """Control: the unprotected ANN itself; attacks must succeed here or say nothing."""

    name = "ann"
    cites = "positive control (method, section 8)"
    spiking = False

    def protect(self, ann: ImageClassifier, data: TrainingData, context: Context) -> ImageClassifier:  # noqa: ARG002
        return ann


class Random(Defense[Params]):
    """Control: an untrained network of the same shape, converted on noise; it knows nothing that could leak."""

    name = "random"
    cites = "negative control (method, section 8)"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: Context) -> SpikingNetwork:  # noqa: ARG002
        blank = copy.deepcopy(ann)
        for module in blank.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()  # statistics too: no number that was learned stays
            elif isinstance(module, nn.Conv2d | nn.Linear):
                cpu = torch.empty(module.weight.shape)
                nn.init.kaiming_normal_(cpu, generator=context.generator)
                with torch.no_grad():
                    module.weight.copy_(cpu)
                    if module.bias is not None:
                        module.bias.zero_()
        network = SpikingNetwork.from_ann(blank, SpikingConfig(context.timesteps))
        noise = torch.rand(64, *ann.image_shape, generator=context.generator).to(context.device)
        balance_thresholds(network, noise, context.seed(), progress=context.progress)
        return network
