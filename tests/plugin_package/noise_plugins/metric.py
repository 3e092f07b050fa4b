"""How near an attack's images come to single images that the network was trained on."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from leakbench.contracts import Params
from leakbench.metrics.reconstructions import ImageMetric, Reconstructions


class TrainingDistanceParams(Params):
    """What is compared."""

    margin: int = Field(0, ge=0, le=2, description="pixels at each edge that are left out")


class TrainingDistance(ImageMetric[TrainingDistanceParams]):
    """Mean absolute difference of the pixels, from 0 to 1, to the nearest private training image of the target class.
    Lower means that more leaks.
    """

    name = "training_distance"
    title = "Distance to the nearest <training> image"
    unit, leaks = "share", "less"
    cites = "folklore"

    def scores(self, drawn: Reconstructions) -> Tensor:
        edge = self.params.margin
        inner = slice(edge, drawn.images.shape[-1] - edge)
        images, private = (
            x[..., inner, inner].flatten(1).float() / 255 for x in (drawn.images, drawn.real.training_images)
        )
        of_class = drawn.targets[:, None] == drawn.real.training_labels
        return torch.cdist(images, private, p=1).div(images.shape[1]).where(of_class, torch.inf).amin(1)
