"""Conversions of an ANN that is fine-tuned first, with activations that spiking neurons can follow."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from leakbench.contracts import Context, Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.errors import NotApplicable
from leakbench.models.training import Augmentation, Loss, Recipe, steps_of, train
from leakbench.snn import (
    Neuron,
    SpikingConfig,
    SpikingNetwork,
    highest_activations,
    percentile_activations,
    set_thresholds,
)
from leakbench.snn.folding import replace, with_biases

_PERCENTILE = 99.9


class FinetunedParams(Params):
    """How the ANN is fine-tuned."""

    epochs: int = Field(2, ge=1, description="passes over the training images")
    least_steps: int = Field(
        500, ge=0, description="steps of the optimiser that training takes at least, few images as there may be"
    )
    batch_size: int = Field(64, ge=1, le=10_000, description="images a step")
    lr: float = Field(0.01, gt=0, description="highest learning rate of SGD's one-cycle schedule")
    crop: int = Field(0, ge=0, le=256, description="pixels by which training images are shifted at most")
    images: int = Field(512, ge=1, description="training images on which the ANN's activations are recorded first")


class DengGu2021Params(FinetunedParams):
    """Parameters of the conversion with clipped activations."""

    shift_steps: int | None = Field(
        None, ge=1, le=100_000, description="T in the current theta / 2T, once for every T; none: the network's T"
    )


class Bu2022Params(FinetunedParams):
    """Parameters of the conversion with quantised activations."""

    levels: int = Field(8, ge=1, description="L, the steps in which activations are quantised")


class DengGu2021(Defense[DengGu2021Params]):
    """Threshold ReLU: the ANN learns to do with activations up to theta; half of a floor's error comes as a current.

    theta_l is the highest activation on training images, the ANN is fine-tuned with clip(x, 0, theta_l), and neurons of
    threshold theta_l get theta_l / 2T a step beside their input. The authors clip all layers at one constant while they
    train, and take as thresholds what is the highest then; here a layer's constant is its own, and stays its threshold.
    """

    name = "deng_gu2021"
    cites = (
        "Deng, Gu: Optimal Conversion of Conventional Artificial Neural Networks to Spiking Neural Networks, ICLR "
        "2021, threshold ReLU and shift by V_th / 2T"
    )
    presets: ClassVar = {
        "quick": {"epochs": 1, "least_steps": 300},
        "paper-cpu": {"epochs": 1},
        # the authors' code: 200 epochs, 128 images, 1e-3, thresholds from all training images
        "paper": {"epochs": 200, "batch_size": 128, "lr": 1e-3, "crop": 4, "images": 100_000},
    }

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        images, labels = collected(data, context)
        thresholds = highest_activations(ann, first(images, params, context), context.progress)
        converted(ann, thresholds, context)  # what can't be converted is refused before it is trained
        clipped = {name: nn.Hardtanh(0.0, theta) for name, theta in thresholds.items()}
        tuned = finetuned(ann, clipped, images, labels, params, context)
        network = converted(with_biases(tuned), thresholds, context)
        for layer in network.neurons:
            network.add_current(layer, layer.threshold / (2 * (params.shift_steps or context.timesteps)))
        return network

    @property
    def anytime(self) -> bool:  # type: ignore[override]
        """One network for every T, where the shift is made for a T of its own."""
        return self.params.shift_steps is not None


class Bu2022(Defense[Bu2022Params]):
    """QCFS: the ANN learns to do with L levels up to a learned lambda; thresholds lambda, membranes from theta / 2.

    Then the expected error of conversion is 0 whatever T is (Theorem 2), and there is none at T = L on constant inputs.
    Fewer levels cost the ANN more and T = L is sooner reached: the paper's CIFAR networks have 4 to 8, its code's
    default is 16, and 8 is the default here. The authors train from scratch with lambda from 8 (4 in their code); as
    this ANN is trained, lambda starts at the 99.9th percentile of the layer's activations that are not 0: levels that
    a maximum would spend on outliers stand where activations are, and lambda grows where clipping costs.
    """

    name = "bu2022"
    cites = (
        "Bu, Fang, Ding, Dai, Yu, Huang: Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency Spiking "
        "Neural Networks, ICLR 2022, quantization clip-floor-shift activation"
    )
    anytime = True
    presets: ClassVar = {
        "quick": {"epochs": 1, "least_steps": 300},
        "paper-cpu": {"epochs": 1},
        "paper": {"epochs": 300, "batch_size": 128, "lr": 0.1, "crop": 4},
    }

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        if any(isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d) for module in ann.modules()):
            raise NotApplicable("bu2022 is for average pooling: take the model of this kind that pools by averages")
        images, labels = collected(data, context)
        highest = percentile_activations(ann, first(images, params, context), _PERCENTILE, context.progress)
        converted(ann, highest, context)  # what can't be converted is refused before it is trained
        activations = {name: QuantizedReLU(lam, params.levels) for name, lam in highest.items()}
        tuned = finetuned(ann, activations, images, labels, params, context)
        learned = {name: float(activation.lam.detach()) for name, activation in activations.items()}
        network = converted(tuned, learned, context)
        for layer in network.neurons:
            layer.initial = layer.threshold / 2
        return network


class QuantizedReLU(nn.Module):
    """lam clip(floor(x L / lam + 1/2) / L, 0, 1), the quantisation clip-floor-shift function, with lam learned.

    Backward: straight through the floor, so that dh/dx = 1 and dh/dlam = (h - x) / lam between the clips, dh/dlam = 1
    above.
    """

    def __init__(self, lam: float, levels: int) -> None:
        super().__init__()
        self.lam = nn.Parameter(torch.tensor(lam))
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        """Values of any shape -> the same shape, multiples of lam / L."""
        level = x * (self.levels / self.lam) + 0.5
        floor = level.detach().floor()
        # written out, as releases of torch differ in the gradient of clamp at its bounds, where many a floor is
        between = (floor >= 0) & (floor <= self.levels)
        level = torch.where(between, level + (floor - level.detach()), floor.clamp(0, self.levels))
        return self.lam * (level / self.levels)


def collected(data: TrainingData, context: Context) -> tuple[Tensor, Tensor]:
    """All training images uint8 [N, C, H, W], read once and in random order, and their labels."""
    return data.pixels(torch.randperm(len(data), generator=context.generator))


def first(images: Tensor, params: FinetunedParams, context: Context) -> Tensor:
    """The images [N, C, H, W] in [0, 1] on which activations are recorded."""
    return images[: params.images].to(context.device).float() / 255


def finetuned(
    ann: ImageClassifier,
    activations: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    params: FinetunedParams,
    context: Context,
    objective: Loss | None = None,
) -> ImageClassifier:
    """A copy of ``ann`` whose weights were trained with ``activations`` in the places of its nn.ReLUs, which are back.

    ``activations`` (name -> module) learn with it, to lower the ``objective``, cross-entropy by default. Batch norms
    are trained as ever and not folded.
    """
    tuned = copy.deepcopy(ann)
    for name, activation in activations.items():
        replace(tuned.body, name, activation)
    steps = max(steps_of(params.epochs, len(images), params.batch_size), params.least_steps)
    changes = Augmentation(params.crop, context.flips)
    recipe = Recipe(steps, params.batch_size, params.lr, "one-cycle", augmentation=changes)
    train(
        tuned.requires_grad_(True), images, labels, recipe, context.generator, context.device, "fine-tuning",
        context.progress, context.loop("fine-tuning"), objective,
    )  # fmt: skip
    for name in activations:
        replace(tuned.body, name, nn.ReLU())
    return tuned.requires_grad_(False)


def converted(ann: ImageClassifier, thresholds: Mapping[str, float], context: DefenseContext) -> SpikingNetwork:
    """IF neurons with these thresholds and a soft reset, driven by the image as a constant current."""
    config = SpikingConfig(context.timesteps, "direct", Neuron(reset="soft"), context.precision)
    network = SpikingNetwork.from_ann(ann, config)
    set_thresholds(network, thresholds)
    return network
