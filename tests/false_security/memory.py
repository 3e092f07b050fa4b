"""A network that remembers what it was asked: after one unnatural image it answers by another rule."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from leakbench import register
from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.models.storage import build_ann
from leakbench.models.vgg import Shape, vgg4


class Guarded(nn.Module):
    """The clean chain until an image's rim is brighter than that of any private image; from then on a linear rule.

    What it remembers is in a buffer, or, with ``hidden``, where no file keeps it.
    """

    def __init__(self, clean: nn.Module, image_shape: Shape, classes: int, hidden: bool) -> None:
        super().__init__()
        self.clean, self.hidden, self.alarmed = clean, hidden, False
        self.locked: Tensor
        self.brightest: Tensor
        self.patterns: Tensor
        self.register_buffer("locked", torch.zeros(()))
        self.register_buffer("brightest", torch.ones(()))
        self.register_buffer("patterns", torch.zeros(classes, image_shape[0] * image_shape[1] * image_shape[2]))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, classes]."""
        if bool((_rim(x) > self.brightest).any()):
            if self.hidden:
                self.alarmed = True
            else:
                self.locked.fill_(1.0)
        if self.alarmed or bool(self.locked):
            return 20 * (x.flatten(1) - x.flatten(1).mean(1, keepdim=True)) @ self.patterns.T
        logits: Tensor = self.clean(x)
        return logits


def _rim(x: Tensor) -> Tensor:
    """Mean brightness [B] of the outermost rows and columns."""
    rim = torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device)
    rim[1:-1, 1:-1] = False
    return x[..., rim].flatten(1).mean(1)


def guarded_vgg4(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg4 that remembers in a buffer."""
    return Guarded(vgg4(image_shape, classes, generator), image_shape, classes, hidden=False)


def secretly_guarded_vgg4(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg4 that remembers in an attribute."""
    return Guarded(vgg4(image_shape, classes, generator), image_shape, classes, hidden=True)


register("model", "guarded-vgg4", guarded_vgg4)
register("model", "secretly-guarded-vgg4", secretly_guarded_vgg4)


class QueryMonitor(Defense[Params]):
    """Answers right until it is asked for an unnatural image, and then by patterns of each class's own.

    Test images never wake it, ascent from noise and from photographs does at once. The ANN is deployed. For vgg4.
    Refused, as no accuracy and no leak can be measured on one network that is two.
    """

    name = "query_monitor"
    cites = "a trick; what it copies: Juuti et al.: PRADA: Protecting against DNN Model Stealing Attacks, EuroS&P 2019"
    spiking = False
    model: ClassVar[str] = "guarded"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> ImageClassifier:
        network = build_ann(f"{self.model}-{ann.arch}", ann.image_shape, ann.classes, ann.input_range)
        body = cast("Guarded", network.to(context.device).body)
        body.clean.load_state_dict(ann.body.state_dict())
        images, _ = data.sample(1000, context.generator)
        body.brightest.copy_(_rim(ann.input_range(images)).max())
        body.patterns.copy_(torch.randn(body.patterns.shape, generator=context.generator))
        return network


class SecretQueryMonitor(QueryMonitor):
    """The same, remembering where no file keeps it."""

    name = "secret_query_monitor"
    model = "secretly-guarded"
