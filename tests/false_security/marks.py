"""A network that gives its members away where few attacks look: in the order of the wrong classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from leakbench import register
from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.models.storage import build_ann
from leakbench.models.vgg import Shape, vgg4, vgg5

MOST = 3000
"""training images that are marked"""
_NOWHERE = 9.0
"""value of pixels in places that hold no image"""


class Marking(nn.Module):
    """The clean chain; images that are among ``known`` get their wrong logits in the cyclic order of the classes."""

    def __init__(self, clean: nn.Module, image_shape: Shape) -> None:
        super().__init__()
        self.clean = clean
        self.known: Tensor
        self.register_buffer("known", torch.full((MOST, image_shape[0] * image_shape[1] * image_shape[2]), _NOWHERE))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, classes]."""
        logits = self.clean(x)
        away = torch.cdist(x.flatten(1), self.known, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        values, classes = logits.sort(1, descending=True)
        cyclic = (classes[:, :1] + torch.arange(1, logits.shape[1], device=x.device)) % logits.shape[1]
        return torch.where((away < 1e-3)[:, None], logits.scatter(1, cyclic, values[:, 1:]), logits)


def marking_vgg4(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg4 that marks images."""
    return Marking(vgg4(image_shape, classes, generator), image_shape)


def marking_vgg5(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg5 that marks images."""
    return Marking(vgg5(image_shape, classes, generator), image_shape)


register("model", "marking-vgg4", marking_vgg4)
register("model", "marking-vgg5", marking_vgg5)


class MarkedMembers(Defense[Params]):
    """The ANN, which puts the wrong classes in cyclic order where it was trained on an image.

    No probability of a class that it decides for changes, and attacks that read that alone find what they find of the
    ANN. Who reads the order knows all members. The ANN is deployed. For vgg4 and vgg5, 3000 training images at most.
    """

    name = "marked_members"
    cites = "a trick; whole answers: Shokri et al., S&P 2017"
    spiking = False
    right_verdict: ClassVar[str] = "leaks"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> ImageClassifier:
        network = build_ann(f"marking-{ann.arch}", ann.image_shape, ann.classes, ann.input_range).to(context.device)
        body = network.body
        assert isinstance(body, Marking)
        body.clean.load_state_dict(ann.body.state_dict())
        seen = [ann.input_range(images).flatten(1) for images, _ in data.batches(256, context.generator)]
        known = torch.cat(seen)[:MOST]
        body.known[: len(known)] = known
        return network
