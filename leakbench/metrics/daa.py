"""DAA: whether a class's own reconstruction is the one that the judge rates highest for it (BrainLeaks)."""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.contracts import Params
from leakbench.errors import UsageError
from leakbench.metrics.judged import checked_judgements
from leakbench.metrics.reconstructions import ImageMetric, Reconstructions


def daa_hits(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Whether each image beats those made for other classes, in the judge's probability of its own class.

    BrainLeaks (arXiv 2402.00906) has one image a class. Here the j-th images of all classes, in the order
    given, are one contact sheet: an image hits where the judge's probability of its target is strictly higher
    on it than on every other image of its sheet. A class with fewer images repeats its own from the first on,
    as rivals of the others alone: each image is scored once, on its own sheet.

    Judge's probabilities [N, C], targets [N] -> bool [N], image by image: DAA of a class is the mean over its
    images. A tie is no hit, so identical images score 0. Chance is one over the number of classes *present*,
    so compare at the same classes. Raises UsageError for fewer than 2 classes present; other errors as in
    :func:`~leakbench.metrics.judged.checked_judgements`.
    """
    p, labels = checked_judgements(probabilities, targets)
    classes = labels.unique()
    if len(classes) < 2:
        raise UsageError(f"DAA compares images of at least 2 classes, got {len(classes)}")
    images = [torch.nonzero(labels == c).flatten() for c in classes]
    sheet_numbers = torch.arange(max(map(len, images)))
    sheets = torch.stack([of_class[sheet_numbers % len(of_class)] for of_class in images], dim=1)
    rated = p[sheets[:, :, None], classes]  # [sheet, image, class]
    own_ratings = rated.diagonal(dim1=1, dim2=2)
    rival_ratings = rated.masked_fill(torch.eye(len(classes), dtype=torch.bool), -1.0).amax(1)
    hits = torch.empty(len(labels), dtype=torch.bool)
    for of_class, won in zip(images, (own_ratings > rival_ratings).T, strict=True):
        hits[of_class] = won[: len(of_class)]
    return hits


class Daa(ImageMetric[Params]):
    """Share of images to which the evaluation models give a higher probability of their target class than to the images
    made for any other class, one image of every class at a time (BrainLeaks).
    """

    name = "daa"
    title = "Distinguishability (DAA)"
    unit, leaks, counts = "share", "more", "images"
    of_predictions = True

    def scores(self, drawn: Reconstructions) -> Tensor:
        return daa_hits(drawn.predictions, drawn.targets)
