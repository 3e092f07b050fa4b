"""Controls: what must leak, and what must not."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from leakbench.contracts import Context, Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.errors import NotApplicable, NumericalError
from leakbench.models.training import UNCHANGED, Recipe, steps_of, train
from leakbench.snn import EncoderName, SpikingConfig, SpikingNetwork, balance_thresholds
from leakbench.snn.blocks import Affine

_LONGEST = 64
"""steps within which a spike comes to the last layer, or never"""


class Ann(Defense[Params]):
    """Control: the unprotected ANN itself; attacks must succeed here or say nothing."""

    name = "ann"
    cites = "positive control: LeakBench, docs/verdicts.md, Gates and verdicts"
    spiking = False

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> ImageClassifier:  # noqa: ARG002
        return ann


class Random(Defense[Params]):
    """Control: an untrained network of the same shape, converted on noise; it knows nothing that could leak."""

    name = "random"
    cites = "negative control: LeakBench, docs/verdicts.md, Gates and verdicts"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:  # noqa: ARG002
        return _on_noise(untrained(ann, context), context)


class ShuffledParams(Params):
    """How the network is trained."""

    epochs: int = Field(10, ge=1, description="passes over the training images")
    lr: float = Field(0.05, gt=0, description="highest learning rate of the one-cycle schedule")
    batch_size: int = Field(64, ge=1, le=10_000, description="images a step")


class Shuffled(Defense[ShuffledParams]):
    """Control on request: a network of the same shape trained on shuffled labels; it knows images but no class."""

    name = "shuffled"
    cites = "negative control: LeakBench, docs/verdicts.md, Gates and verdicts; random labels: Zhang et al., ICLR 2017"
    presets: ClassVar = {"quick": {"epochs": 3}}

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        blank = untrained(ann, context)
        images, labels = data.pixels(torch.randperm(len(data), generator=context.generator))
        shuffled = labels[torch.randperm(len(labels), generator=context.generator)]
        steps = steps_of(params.epochs, len(images), params.batch_size)
        recipe = Recipe(steps, params.batch_size, params.lr, "one-cycle", augmentation=UNCHANGED)
        what = "training on shuffled labels"
        train(
            blank.requires_grad_(True), images, shuffled, recipe, context.generator, context.device, what,
            context.progress, context.loop(what),
        )  # fmt: skip
        return _on_noise(blank.requires_grad_(False), context)


class OverfittedParams(Params):
    """What the network memorises, and how."""

    images: int = Field(200, ge=1, description="training images that it learns, the only ones that it ever sees")
    epochs: int = Field(100, ge=1, description="passes over them")
    lr: float = Field(0.05, gt=0, description="highest learning rate of the one-cycle schedule")
    batch_size: int = Field(32, ge=1, le=10_000, description="images a step")
    encoder: EncoderName = Field("poisson", description="poisson (signed rate code) or direct (constant current)")


class Overfitted(Defense[OverfittedParams]):
    """Control: an ANN that memorises few images, converted on them: attacks on membership must succeed here.

    Added where one is run. It is converted as ``han2020`` does it, so that attacks are tried on what they meet: spikes,
    their noise, and thresholds.
    """

    name = "overfitted"
    version = 2
    cites = "positive control: LeakBench; overfitting gives members away: Yeom et al., CSF 2018"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        blank = untrained(ann, context)
        x, labels = data.sample(params.images, context.generator)
        images = (x * 255).round().to(torch.uint8)
        # nothing that keeps it from memorising them: no shifts, no flips, no weight decay
        steps = steps_of(params.epochs, len(images), params.batch_size)
        recipe = Recipe(steps, params.batch_size, params.lr, "one-cycle", weight_decay=0.0, augmentation=UNCHANGED)
        what = "memorising few images"
        train(
            blank.requires_grad_(True), images, labels, recipe, context.generator, context.device, what,
            context.progress, context.loop(what),
        )  # fmt: skip
        return _converted(blank.requires_grad_(False), x, context, params.encoder)


class UnseenParams(Params):
    """How the network is converted."""

    images: int = Field(200, ge=1, description="training images for the thresholds")
    encoder: EncoderName = Field("poisson", description="poisson (signed rate code) or direct (constant current)")


class Unseen(Defense[UnseenParams]):
    """Control: the conversion of an ANN that was trained on other images than those that are asked about.

    Added where an attack on membership is run: a grid trains its ANN by the usual recipe on the training images that
    are no candidates, and hands it over with these. What attacks find there is no membership but another difference
    between training and test images.
    """

    name = "unseen"
    cites = "negative control: LeakBench, docs/membership.md, Gates and verdict"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        images, _ = data.sample(self.params.images, context.generator)
        return _converted(ann, images, context, self.params.encoder)


def untrained(ann: ImageClassifier, context: Context) -> ImageClassifier:
    """A copy of ``ann`` with He-normal weights, zero biases and statistics at rest: nothing that was learned.

    NotApplicable for layers with other numbers of their own, of which nobody knows how they began.
    """
    blank = copy.deepcopy(ann)
    for name, module in blank.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_parameters()  # statistics too: no number that was learned stays
        elif isinstance(module, nn.Conv2d | nn.Linear):
            cpu = torch.empty(module.weight.shape)
            nn.init.kaiming_normal_(cpu, generator=context.generator)
            with torch.no_grad():
                module.weight.copy_(cpu)
                if module.bias is not None:
                    module.bias.zero_()
        elif not isinstance(module, Affine) and [*module.parameters(False), *module.buffers(False)]:
            raise NotApplicable(
                f"nobody knows how the layer {name!r}, a {type(module).__name__}, was before training: networks of "
                "convolutions, linear layers and batch norms can be made anew"
            )
    return blank


def _on_noise(network: ImageClassifier, context: DefenseContext) -> SpikingNetwork:
    """Converted without any image."""
    return _converted(network, torch.rand(64, *network.image_shape, generator=context.generator), context)


def _converted(
    network: ImageClassifier, images: Tensor, context: DefenseContext, encoder: EncoderName = "poisson"
) -> SpikingNetwork:
    """With thresholds that are the maxima over ``images`` [N, C, H, W], and soft reset."""
    spiking = SpikingNetwork.from_ann(network, SpikingConfig(context.timesteps, encoder, precision=context.precision))
    seed, steps = context.seed(), context.timesteps
    while True:
        try:
            balance_thresholds(
                spiking, images.to(context.device), seed,
                steps=steps, progress=context.progress, loop=context.loop("balancing thresholds"),
            )  # fmt: skip
        except NumericalError:
            # within few steps no spike comes to the last layers, of which nothing would be known
            if steps >= _LONGEST:
                raise
            steps *= 2
        else:
            return spiking
