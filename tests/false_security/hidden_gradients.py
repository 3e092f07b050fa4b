"""Networks that answer as ever and whose gradients say nothing, or little."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from leakbench import register
from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.defenses.conversion import Han2020
from leakbench.models.storage import build_ann
from leakbench.models.vgg import Shape, vgg4, vgg5
from leakbench.snn import SpikingNetwork


class ScaledLayersParams(Params):
    """By how much."""

    exponent: int = Field(123, ge=1, le=124, description="the factor is 2 to the power of it; 123: 1.1e37")


class ScaledLayers(Defense[ScaledLayersParams]):
    """Weights of the first layer times 1.1e37, divided out again by the layers behind it: the same network.

    What travels back through the spiking layers to the first one is below the smallest normal number of float32, and
    zero where such numbers are flushed, as in leakbench's commands. (One layer that divided it all out would lose its
    own weights in this way.) Factors are powers of two, so no answer changes; who divides them out has the network of
    ``han2020``, and the ReLU network of these weights has most of its gradient as it is.
    """

    name = "scaled_layers"
    cites = "a trick; vanishing gradients: Athalye, Carlini, Wagner: Obfuscated Gradients, ICML 2018, section 3"
    right_verdict: ClassVar[str] = "leaks"

    @torch.no_grad()
    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        network = Han2020(encoder="direct")(ann, data, context)
        assert isinstance(network, SpikingNetwork)
        layers = network.neurons
        before = 1.0
        for number, layer in enumerate(layers):
            factor = 2.0 ** (self.params.exponent * (len(layers) - 1 - number) // (len(layers) - 1))
            network.feeder(layer).weight.mul_(factor / before)
            layer.set_threshold(layer.threshold * factor)
            before = factor
        return network


class TinyLogitsParams(Params):
    """By how much."""

    factor: float = Field(1e-8, gt=0, lt=1, description="what logits are multiplied by")


class TinyLogits(Defense[TinyLogitsParams]):
    """Logits times 1e-8: every class gets the same confidence to seven digits, and gradients are as small.

    Which class is answered stays as it is. An attack that waits for confidence waits for ever, and one of fixed steps
    does not move; who looks at the order of the logits has the network of ``han2020``.
    """

    name = "tiny_logits"
    cites = "a trick; saturated or flat outputs: Carlini & Wagner: Defensive Distillation Is Not Robust, 2016"
    right_verdict: ClassVar[str] = "leaks"

    @torch.no_grad()
    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        network = Han2020(encoder="direct")(ann, data, context)
        assert isinstance(network, SpikingNetwork)
        list(network.weights().values())[-1].mul_(self.params.factor)
        return network


class NoisyInput(nn.Module):
    """Adds Gaussian noise of the standard deviation ``sigma``, fresh at each call, in training and out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.sigma: Tensor
        self.register_buffer("sigma", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Images of any shape -> the same shape."""
        return x + self.sigma * torch.randn_like(x)


def noisy_vgg4(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg4 behind noise."""
    return nn.Sequential(NoisyInput(), *vgg4(image_shape, classes, generator).children())


def noisy_vgg5(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg5 behind noise."""
    return nn.Sequential(NoisyInput(), *vgg5(image_shape, classes, generator).children())


register("model", "noisy-vgg4", noisy_vgg4)
register("model", "noisy-vgg5", noisy_vgg5)


class RandomisedParams(Params):
    """How much noise."""

    sigma: float = Field(0.05, gt=0, le=1, description="standard deviation of the noise on the input, in image units")


class Randomised(Defense[RandomisedParams]):
    """Gaussian noise on the input, fresh at each query: no two answers and no two gradients are alike.

    Gradient ascent takes hundreds of steps and averages by itself. The ANN is deployed: of a spiking network the store
    keeps no noise but its encoder's, and with that it is randomised anyway. For vgg4 and vgg5.
    """

    name = "randomised"
    cites = "a trick; randomised inference: Athalye, Carlini, Wagner: Obfuscated Gradients, ICML 2018, section 4"
    spiking = False
    right_verdict: ClassVar[str] = "leaks"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> ImageClassifier:  # noqa: ARG002
        # no generator: a check that a second network of the same weights gives the same answers would fail
        noisy = build_ann(f"noisy-{ann.arch}", ann.image_shape, ann.classes, ann.input_range).to(context.device)
        layers = list(noisy.body.children())
        nn.Sequential(*layers[1:]).load_state_dict(ann.body.state_dict())
        noisy.body.state_dict()["0.sigma"].fill_(self.params.sigma * ann.input_range.scale)
        return noisy


FAR = 1.5 * 2.0**23
"""float32 holds no fraction of a number of this size"""


class RoundedAway(nn.Module):
    """A clean chain beside neurons of random weights, whose answers are rounded to 0 and whose gradients stay."""

    def __init__(self, clean: nn.Module, image_shape: Shape, classes: int) -> None:
        super().__init__()
        self.clean = clean
        pixels = image_shape[0] * image_shape[1] * image_shape[2]
        self.into: Tensor
        self.out: Tensor
        self.register_buffer("into", torch.zeros(64, pixels))
        self.register_buffer("out", torch.zeros(classes, 64))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, classes]."""
        junk = functional.linear(functional.relu(functional.linear(x.flatten(1), self.into)), self.out)
        answers: Tensor = self.clean(x) + ((1e-6 * junk + FAR) - FAR) * 1e6
        return answers


def rounded_vgg4(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg4 beside neurons that rounding hides."""
    return RoundedAway(vgg4(image_shape, classes, generator), image_shape, classes)


def rounded_vgg5(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg5 beside neurons that rounding hides."""
    return RoundedAway(vgg5(image_shape, classes, generator), image_shape, classes)


register("model", "rounded-vgg4", rounded_vgg4)
register("model", "rounded-vgg5", rounded_vgg5)


class PhantomParams(Params):
    """How misleading."""

    weight: float = Field(10.0, gt=0, le=1000, description="deviation of the hidden branch's output weights")


class Phantom(Defense[PhantomParams]):
    """Gradients of something else: those of random neurons, whose values rounding takes away, hide the network's own.

    The ANN is deployed, and answers every image as it would alone. Where the branch's gradients are far larger, whoever
    follows them draws noise. For vgg4 and vgg5.
    """

    name = "phantom"
    cites = "a trick; gradient masking: Athalye, Carlini, Wagner: Obfuscated Gradients, ICML 2018"
    spiking = False
    right_verdict: ClassVar[str] = "leaks or inconclusive"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> ImageClassifier:  # noqa: ARG002
        hidden = build_ann(f"rounded-{ann.arch}", ann.image_shape, ann.classes, ann.input_range).to(context.device)
        clean, state = hidden.body.get_submodule("clean"), hidden.body.state_dict()
        clean.load_state_dict(ann.body.state_dict())
        for name, deviation in (("into", 1.0), ("out", self.params.weight)):
            state[name].copy_(deviation * torch.randn(state[name].shape, generator=context.generator))
        return hidden
