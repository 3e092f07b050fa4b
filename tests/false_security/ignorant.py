"""Networks that have nothing to give away: their accuracy says so, not their protection."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.defenses.controls import untrained
from leakbench.defenses.conversion import Han2020
from leakbench.defenses.finetuned import FinetunedParams, finetuned
from leakbench.snn import SpikingNetwork


class KnowsNothing(Defense[Params]):
    """An untrained network: nothing can be drawn from it, and it is right as often as chance.

    Its zero leak is no protection, as there is nothing that it could leak: accuracy is part of a verdict. Converted as
    ``han2020`` does, on private images.
    """

    name = "knows_nothing"
    cites = "a trick"
    right_verdict: ClassVar[str] = "inconclusive"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        network = Han2020(encoder="direct")(untrained(ann, context), data, context)
        assert isinstance(network, SpikingNetwork)
        return network


class OtherDataParams(FinetunedParams):
    """What is learnt instead, and how."""

    lr: float = Field(0.05, gt=0, description="highest learning rate of SGD's one-cycle schedule")
    crops: int = Field(100, ge=1, description="crops of the photograph in each class")


class OtherData(Defense[OtherDataParams]):
    """A network trained on a public photograph: class c are crops of the c-th strip of it, of as many as there are.

    It is confident, its features are those of natural images, and it has never seen a private one: accuracy is near
    chance, and again nothing leaks that was never learnt. Converted as ``han2020`` does, on the photograph.
    """

    name = "other_data"
    cites = "a trick; the photograph is scikit-learn's china.jpg"
    right_verdict: ClassVar[str] = "inconclusive"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:  # noqa: ARG002
        images, labels = strips(ann.image_shape, ann.classes, self.params.crops, context.generator)
        learnt = finetuned(untrained(ann, context), {}, images, labels, self.params, context)
        network = Han2020(encoder="direct")(learnt, TrainingData(images, labels), context)
        assert isinstance(network, SpikingNetwork)
        return network


def strips(
    image_shape: tuple[int, int, int], classes: int, crops: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Crops uint8 [classes * crops, C, H, W] of a photograph, in the order of their classes, and these."""
    from sklearn.datasets import load_sample_image

    photo = torch.from_numpy(np.array(load_sample_image("china.jpg"))).permute(2, 0, 1).float()
    if image_shape[0] == 1:
        photo = photo.mean(0, keepdim=True)
    height, width = photo.shape[1:]
    side = width // classes
    images = []
    for label in range(classes):
        for top in torch.randint(height - side + 1, (crops,), generator=generator).tolist():
            crop = photo[None, :, top : top + side, label * side : (label + 1) * side]
            images.append(functional.interpolate(crop, image_shape[1:], mode="area"))
    return torch.cat(images).round().to(torch.uint8), torch.arange(classes).repeat_interleave(crops)
