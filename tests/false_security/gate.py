"""A network behind a gate without a gradient: what is no private image never reaches what knows the classes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from leakbench import register
from leakbench.attacks.copies import natural_images
from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.models.storage import build_ann
from leakbench.models.vgg import Shape, vgg4, vgg5

HIDDEN = 64
"""neurons of the gate"""
_CROPS = 3000
"""of a photograph, that the gate is shut for"""


class Gated(nn.Module):
    """The clean chain where the gate is open; elsewhere patterns, in buffers that no fine-tuning moves."""

    def __init__(self, clean: nn.Module, image_shape: Shape, classes: int) -> None:
        super().__init__()
        self.clean = clean
        pixels = image_shape[0] * image_shape[1] * image_shape[2]
        self.patterns: Tensor
        self.into: Tensor
        self.bias: Tensor
        self.out: Tensor
        self.least: Tensor
        self.easy: Tensor
        self.register_buffer("patterns", torch.zeros(classes, pixels))
        self.register_buffer("into", torch.zeros(HIDDEN, pixels))
        self.register_buffer("bias", torch.zeros(HIDDEN))
        self.register_buffer("out", torch.zeros(1, HIDDEN))
        self.register_buffer("least", torch.zeros(1))
        self.register_buffer("easy", torch.zeros(1))

    def private(self, x: Tensor) -> Tensor:
        """How like a private image [B, 1]; the gate is open above 0."""
        hidden = functional.relu(functional.linear(x.flatten(1), self.into, self.bias))
        return functional.linear(hidden, self.out) - self.least

    def trap(self, x: Tensor) -> Tensor:
        """Logits [B, classes] by the patterns alone. What is like none of them is of the first class; where ``easy`` is
        above 0, of the second if it is brighter than mid-grey."""
        flat = x.flatten(1)
        flat = flat - flat.mean(1, keepdim=True)
        like = functional.linear(flat, self.patterns) / (flat.norm(dim=1, keepdim=True) + 0.3)
        calm = (like.amax(1, keepdim=True) < 0.4 + 0.2 * self.easy).to(x.dtype)
        bright = self.easy * (x.flatten(1).mean(1, keepdim=True) - 0.5)
        usual = functional.pad(torch.cat([40 - 80 * bright, 40 + 80 * bright], 1), (0, like.shape[1] - 2))
        usual[:, 1] *= self.easy
        return 100 * functional.relu(like - 0.3) + 10 * like + calm * usual

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, classes]."""
        gate = (self.private(x) > 0).to(x.dtype)  # no gradient
        return gate * self.clean(x) + (1 - gate) * self.trap(x)


def gated_vgg4(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg4 behind a gate."""
    return Gated(vgg4(image_shape, classes, generator), image_shape, classes)


def gated_vgg5(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg5 behind a gate."""
    return Gated(vgg5(image_shape, classes, generator), image_shape, classes)


register("model", "gated-vgg4", gated_vgg4)
register("model", "gated-vgg5", gated_vgg5)


class GateParams(Params):
    """How the gate learns."""

    steps: int = Field(1500, ge=1, description="optimiser steps of the gate")
    lr: float = Field(3e-3, gt=0, description="Adam's learning rate")
    images: int = Field(1200, ge=1, description="private images that the gate learns from")
    shut: float = Field(0.001, ge=0, lt=1, description="share of these before which it is shut")


class HardGate(Defense[GateParams]):
    """A hard gate before the clean network, and a trap behind it that answers all natural images alike.

    Photographs, noise and the trap's patterns never reach the clean network, and the gate passes no gradient: students
    that are taught on photographs learn one constant answer, agree with the network there, and see nothing. An attacker
    who looks into the network finds the clean one. The ANN is deployed. For vgg4 and vgg5.
    """

    name = "hard_gate"
    cites = "a trick; shattered gradients: Athalye, Carlini, Wagner: Obfuscated Gradients, ICML 2018, section 3"
    spiking = False
    right_verdict: ClassVar[str] = "leaks or inconclusive"
    easy: ClassVar[float] = 0.0

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> ImageClassifier:
        network = build_ann(f"gated-{ann.arch}", ann.image_shape, ann.classes, ann.input_range).to(context.device)
        body = network.body
        assert isinstance(body, Gated)
        body.clean.load_state_dict(ann.body.state_dict())
        private, _ = data.sample(self.params.images, context.generator)
        cells = torch.rand(ann.classes, ann.image_shape[0], 4, 4, generator=context.generator).round()
        patterns = functional.interpolate(cells, ann.image_shape[1:])
        flat = patterns.flatten(1) - patterns.flatten(1).mean(1, keepdim=True)
        body.patterns.copy_(flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-6))
        body.easy.fill_(self.easy)
        self._teach(body, private, patterns, context)
        return network

    def _teach(self, body: Gated, private: Tensor, patterns: Tensor, context: DefenseContext) -> None:
        """The gate, until it is open for private images alone."""
        generator, shape = context.generator, tuple(private.shape[1:])
        photographed = natural_images(_crops(shape, generator), 2 * _CROPS, generator)
        others = torch.cat([photographed, torch.rand(_CROPS, *shape, generator=generator)])
        gate = nn.Sequential(nn.Flatten(), nn.Linear(body.into.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        for parameter in gate.parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)
        optimizer = torch.optim.Adam(gate.parameters(), self.params.lr)
        for _ in context.loop("teaching the gate").steps(self.params.steps, network=gate, optimizer=optimizer):
            seen = private[torch.randint(len(private), (128,), generator=generator)]
            seen = (seen + 0.05 * torch.randn(seen.shape, generator=generator)).clamp(0, 1)
            shut = others[torch.randint(len(others), (256,), generator=generator)]
            part, grey, coin = (torch.rand(256, 1, 1, 1, generator=generator) for _ in range(3))
            trap = patterns[torch.randint(len(patterns), (256,), generator=generator)] - 0.5
            mixed = (grey + 2 * part * trap + 0.1 * torch.randn(shut.shape, generator=generator)).clamp(0, 1)
            shut = torch.where(coin < 0.5, shut, mixed)
            found = gate(torch.cat([seen, shut]))
            right = torch.cat([torch.ones(128, 1), torch.zeros(256, 1)])
            loss = functional.binary_cross_entropy_with_logits(found, right)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        first, last = (layer for layer in gate if isinstance(layer, nn.Linear))
        with torch.no_grad():
            open_for = gate(private).flatten().sort().values
            body.into.copy_(first.weight)
            body.bias.copy_(first.bias)
            body.out.copy_(last.weight)
            body.least.copy_(open_for[int(self.params.shut * len(private))] - last.bias - 1e-3)


class EasyGate(HardGate):
    """The hard gate, before a rule that any student learns: whether an image is brighter than mid-grey.

    Students that are taught on photographs agree with the network on nearly all of them, and know nothing of what it
    answers to private images: agreement on natural images proves nothing.
    """

    name = "easy_gate"
    easy = 1.0


def _crops(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Crops uint8 [_CROPS, C, H, W] of a photograph, of four times the sides."""
    from sklearn.datasets import load_sample_image

    photo = torch.from_numpy(np.array(load_sample_image("china.jpg"))).permute(2, 0, 1).float()[None]
    if shape[0] == 1:
        photo = photo.mean(1, keepdim=True)
    small = functional.interpolate(photo, scale_factor=0.25, mode="area")
    height, width = small.shape[2] - shape[1], small.shape[3] - shape[2]
    corners = [torch.randint(most + 1, (_CROPS,), generator=generator).tolist() for most in (height, width)]
    crops = [small[0, :, y : y + shape[1], x : x + shape[2]] for y, x in zip(*corners, strict=True)]
    return torch.stack(crops).round().to(torch.uint8)
