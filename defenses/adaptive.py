"""Adaptive spiking neurons in place of the activations that their transfer function was trained in."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import Context, Defense, ImageClassifier, Params, TrainingData
from leakbench.errors import NumericalError
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.adaptive import AdaptiveNeuron, AdaptiveTransfer
from leakbench.snn.folding import has_batch_norm, replace, with_biases
from leakbench.snn.network import sharing_copy


class AdaptiveParams(Params):
    """Parameters of the conversion to adaptive spiking neurons."""

    images: int = Field(512, ge=1, description="training images on which the layers' scales are found")
    m_f: float = Field(
        0.1, gt=0, le=1, description="speed of the thresholds' adaptation, and their value at rest, in a layer's scale"
    )
    finetune: bool = Field(True, description="train the ANN with the neurons' transfer function before conversion")
    epochs: int = Field(3, ge=1, description="passes over the training images in that training")
    batch_size: int = Field(64, ge=1, description="images a step")
    lr: float = Field(0.01, gt=0, description="SGD's learning rate, lowered to 0 along half a cosine")


class Zambrano2019(Defense[AdaptiveParams]):
    """AdSNN: adaptive spiking neurons, whose transfer function the ANN is trained with (fine-tuned, here).

    The paper trains networks with f from scratch, behind batch norms that put S into f's range. Here the ANN at hand is
    fine-tuned with it, its batch norms folded, and each layer's S is measured in units of the layer's highest
    activation on training images, where f(1) = 1. Pooling stands behind the neurons, as in the ANN, and the logits are
    means over all steps.
    """

    name = "zambrano2019"
    cites = (
        "Zambrano, Nusselder, Scholte, Bohte: Sparse Computation in Adaptive Spiking Neural Networks, Front. Neurosci. "
        "12, 2019"
    )
    anytime = True
    presets: ClassVar = {"quick": {"epochs": 1}, "paper": {"epochs": 10}}

    def protect(self, ann: ImageClassifier, data: TrainingData, context: Context) -> SpikingNetwork:
        params, neuron = self.params, AdaptiveNeuron(m_f=self.params.m_f)
        tuned = with_biases(ann) if has_batch_norm(ann.body) else copy.deepcopy(ann)
        images, _ = data.sample(params.images, context.generator)
        scales = highest_activations(tuned, images.to(context.device))
        if params.finetune:
            finetune(tuned, scales, neuron, data, params, context)
        network = SpikingNetwork.from_ann(tuned, SpikingConfig(context.timesteps, "direct", neuron, context.precision))
        for layer in network.neurons:
            layer.set_threshold(scales[layer.layer])
        return network


@torch.no_grad()
def highest_activations(ann: ImageClassifier, images: Tensor) -> dict[str, Tensor]:
    """Activation -> its highest value [] over ``images`` [N, C, H, W] in [0, 1]. NumericalError where that is none."""
    highest: dict[str, Tensor] = {}

    def see(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, out: Tensor) -> None:
            highest[name] = torch.maximum(highest[name], out.max()) if name in highest else out.max()

        return hook

    handles = [
        module.register_forward_hook(see(name))
        for name, module in ann.body.named_modules()
        if isinstance(module, nn.ReLU)
    ]
    try:
        for part in images.split(100):
            ann(part)
    finally:
        for handle in handles:
            handle.remove()
    for name, value in highest.items():
        if not 0 < float(value) < math.inf:
            raise NumericalError(f"the activations {name!r} have no positive finite maximum (got {value:g})")
    return highest


def finetune(
    ann: ImageClassifier,
    scales: dict[str, Tensor],
    neuron: AdaptiveNeuron,
    data: TrainingData,
    params: AdaptiveParams,
    context: Context,
) -> None:
    """Trains ``ann``'s weights in place with the transfer function for its activations, by SGD on cross-entropy."""
    body = sharing_copy(ann.body)
    for name, scale in scales.items():
        replace(body, name, AdaptiveTransfer(name, neuron, scale))
    network = ImageClassifier(body, ann.image_shape, ann.classes, ann.input_range).train().requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=params.lr, momentum=0.9, weight_decay=5e-4)
    total = params.epochs * math.ceil(len(data) / params.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    done = 0
    with torch.random.fork_rng(devices=[]):
        # dropout draws from the global generator: seeded here, given back afterwards
        torch.manual_seed(context.seed())
        for _ in range(params.epochs):
            for images, labels in data.batches(params.batch_size, context.generator):
                logits = network(images.to(context.device))
                loss = functional.cross_entropy(logits, labels.to(context.device))
                if not math.isfinite(loss.item()):
                    raise NumericalError(f"zambrano2019: the loss is {loss.item()} at step {done}: lower the rate lr")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                done += 1
                context.progress("training with the transfer function", done, total)
    network.requires_grad_(False)
    ann.zero_grad()
