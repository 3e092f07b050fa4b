"""Verification: can a machine tell from features whether two pictures show the same class, or the same person?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from leakbench.contracts import Params
from leakbench.errors import UsageError
from leakbench.metrics.neighbours import checked_features
from leakbench.metrics.reconstructions import ImageMetric, Reconstructions, some_of_each

_REAL_EACH = 20
"""real images of a class at most that an image is paired with"""
_REAL = 1000
"""and of all classes, equally many of each: 100 images of each of 200 classes have 20 million pairs, a gigabyte"""


def verification_errors(features: Tensor, targets: Tensor, reference: Tensor, labels: Tensor) -> Tensor:
    """How often a verification at its equal error rate is wrong about the pairs of each image [N], from 0 to 1.

    Features [N, d] of images made for the classes ``targets`` [N] are paired with [M, d] of real ones of the classes
    ``labels`` [M]. A pair is called one class where the cosine of its features, both less the mean of the real ones, is
    at or above one threshold for all: that at which pairs of one class are missed as often as others pass. An image's
    error is the mean of both shares, each of its own pairs. The mean over images is the equal error rate: 0 where all
    pairs of one class are more alike than all others, .5 where there is no difference.

    Raises UsageError where an image has no pairs of either kind.
    """
    y = checked_features(reference, "reference features")
    x = checked_features(features, dimensions=y.shape[1])
    same = targets[:, None] == labels
    if not (same.any(1) & ~same.all(1)).all():
        raise UsageError("verification needs real images of each target class, and of another")
    centre = y.mean(0)
    alike = normalize(x - centre) @ normalize(y - centre).T
    # an image's pairs with its own class weigh as much as those with all others
    of_one, of_others = (pairs.double() / pairs.sum(1, keepdim=True) for pairs in (same, ~same))
    thresholds, place = alike.flatten().unique(return_inverse=True)

    def below(weights: Tensor) -> Tensor:
        """The mean over images of the share that is below each threshold."""
        total = torch.zeros(len(thresholds) + 1, dtype=torch.float64)
        total[1:].index_add_(0, place, weights.flatten())
        return total.cumsum(0) / len(x)

    missed, passed = below(of_one), 1 - below(of_others)
    at = int((missed - passed).abs().argmin())
    refused = place.view_as(same) < at
    errors: Tensor = ((of_one * refused).sum(1) + (of_others * ~refused).sum(1)) / 2
    return errors


class VerificationError(ImageMetric[Params]):
    """Equal error rate of a verification: a pair of an attack's image and a real one is called the same class (of
    faces, the same person) where their features are alike. 0: always right; .5: as good as guessing.
    """

    name = "verification_eer"
    title = "Equal error rate of verification"
    unit, leaks = "share", "less"

    def scores(self, drawn: Reconstructions) -> Tensor:
        real = drawn.real
        each = max(1, min(_REAL_EACH, _REAL // len(real.labels.unique())))
        picked = some_of_each(real.labels, each, torch.Generator().manual_seed(4))
        reference = real.features.tensor[picked]
        return verification_errors(drawn.features.tensor, drawn.targets, reference, real.labels[picked])
