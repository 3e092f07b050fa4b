"""How near an attack's images come to single images that the network was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.contracts import Params
from leakbench.metrics.reconstructions import ImageMetric, Reconstructions


class TrainingDistance(ImageMetric[Params]):
    """Mean absolute difference of the pixels, from 0 to 1, to the nearest private training image of the target class.
    Lower means that more leaks.
    """

    name = "training_distance"
    title = "Distance to the nearest <training> image"
    unit, leaks = "share", "less"
    cites = "folklore"

    def scores(self, drawn: Reconstructions) -> Tensor:
        images, private = (x.flatten(1).float() / 255 for x in (drawn.images, drawn.real.training_images))
        of_class = drawn.targets[:, None] == drawn.real.training_labels
        return torch.cdist(images, private, p=1).div(images.shape[1]).where(of_class, torch.inf).amin(1)
