"""Similarity to private images: does a reconstruction show the class, or somebody's picture?

What is near to the class is near to its training images, too. So the nearest training image of the target class is set
beside what images of the class that nobody trained on would give: the row of real images for :class:`TrainSsim`, the
nearest held-out image for the others.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from leakbench.contracts import Params
from leakbench.errors import UsageError
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.intervals import clustered_mean
from leakbench.metrics.metric import Measurement
from leakbench.metrics.neighbours import class_knn_distance
from leakbench.metrics.reconstructions import ImageMetric, ReconstructionMetric, Reconstructions

WINDOW = 7
"""side of SSIM's window, pixels"""
SHORTLIST = 32
"""real images of the class, the nearest by pixels, whose SSIM to an image is computed"""
_BATCH = 2**20
"""pixels that are compared at a time"""


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each pair of images (Wang et al. 2004, eq. 13, K1 = .01, K2 = .03), -1 to 1.

    uint8 [N, C, H, W] twice -> float32 [N], the mean over channels and all places of a uniform window of 7 x 7 pixels
    (the whole side, where that is shorter) within the image; Wang's Gaussian window of 11 is wider than 8x8 images.
    Exactly 1 for identical images. Raises UsageError for other shapes or types.
    """
    if x.ndim != 4 or x.shape != y.shape or x.dtype != torch.uint8 or y.dtype != torch.uint8:
        shown = " and ".join(f"{one.dtype} {tuple(one.shape)}" for one in (x, y))
        raise UsageError(f"SSIM needs two sets of uint8 images [N, C, H, W] of one shape, got {shown}")
    window = [min(WINDOW, side) for side in x.shape[2:]]

    def local(z: Tensor) -> Tensor:
        return avg_pool2d(z, window, stride=1)

    a, b = x.float() / 255, y.float() / 255
    mean_a, mean_b = local(a), local(b)
    spread = local(a * a) - mean_a * mean_a + (local(b * b) - mean_b * mean_b)
    covariance = local(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * (mean_a * mean_b) + c1) * (2 * covariance + c2)
    return (alike / ((mean_a * mean_a + mean_b * mean_b + c1) * (spread + c2))).mean((1, 2, 3))


def nearest_by_pixels(images: Tensor, reference: Tensor, k: int) -> Tensor:
    """Row numbers in ``reference`` of each image's k nearest (all, where there are fewer), by squared distance.

    uint8 [N, C, H, W] and [M, C, H, W] -> int64 [N, min(k, M)]. In float64, where these sums are exact.
    """
    x = images.flatten(1).double()
    parts = []
    for part in reference.flatten(1).split(max(1, _BATCH // x.shape[1])):
        y = part.double()
        parts.append(y.square().sum(1) - 2 * (x @ y.T))  # |x|^2 is the same for all
    return torch.cat(parts, dim=1).topk(min(k, len(reference)), largest=False).indices


def shortlisted_ssim(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM of each image to its 32 nearest by pixels: rows of ``reference`` and scores, [N, min(32, M)] each.

    A copy is always among them. The most similar image by SSIM may not be; its score is then a lower bound.
    """
    rows = nearest_by_pixels(images, reference, SHORTLIST)
    own = torch.arange(len(images)).repeat_interleave(rows.shape[1])
    size = max(1, _BATCH // images[0].numel())
    pairs = zip(own.split(size), rows.flatten().split(size), strict=True)
    return rows, torch.cat([ssim(images[i], reference[j]) for i, j in pairs]).view(rows.shape)


def most_similar(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """The row of ``reference`` with the highest SSIM to each image on its shortlist, and that SSIM, [N] each."""
    rows, scores = shortlisted_ssim(images, reference)
    best = scores.max(1)
    return rows.gather(1, best.indices[:, None]).squeeze(1), best.values


def at_equal_numbers(share: float, chance: float) -> float:
    """The share of images nearer to training images, had there been as many held-out ones.

    ``chance``, N / (N + n) of N training and n held-out images, is the share where the two are alike; it becomes .5,
    and 0 and 1 stay. Odds are divided by those of chance: where each training image is as likely the nearest as L
    held-out ones, one of N is the nearest with probability L N / (L N + n), and L / (L + 1) is returned.
    """
    nearer, farther = share * (1 - chance), (1 - share) * chance
    return nearer / (nearer + farther)


def of_class(images: Tensor, labels: Tensor, target: int) -> Tensor:
    """The real images with that label. UsageError where there is none."""
    chosen = images[labels == target]
    if not len(chosen):
        raise UsageError(f"class {target} has no real image to compare with")
    return chosen


class TrainSsim(ImageMetric[Params]):
    """Structural similarity (SSIM) to the most similar private training image of the target class, among the 32 nearest
    by pixels. 1 is a copy. Read it beside the row of real images: so similar are images that nobody trained on.
    """

    name = "train_ssim"
    title = "SSIM to the nearest private training image"
    leaks, scale = "more", ""  # real images are no upper end: a copy is beyond them
    cites = "Wang et al. 2004, IEEE Transactions on Image Processing 13(4)"

    def scores(self, drawn: Reconstructions) -> Tensor:
        scores = torch.empty(len(drawn.images))
        for target in drawn.targets.unique().tolist():
            mine = drawn.targets == target
            private = of_class(drawn.real.training_images, drawn.real.training_labels, target)
            scores[mine] = most_similar(drawn.images[mine], private)[1]
        return scores


class TrainingNearest(ReconstructionMetric[Params]):
    """How often the nearest real image is one that the network was trained on.

    All training images of a class count, since a copy may be of any of them, against the fewer held-out ones; the
    share is brought to equal numbers by :func:`at_equal_numbers`. Where few images are nearest to a held-out one, fewer
    than ten or so, the value is biased towards 1, though not its interval: hence there are no values by class.
    """

    unit, leaks, scale = "share", "more", ""

    @abstractmethod
    def nearer(self, drawn: Reconstructions) -> Tensor:
        """Bool [N]: whether a training image of the target class is nearer than every held-out one of it."""

    @final
    def measure(self, drawn: Reconstructions) -> Measurement:
        nearer, real = self.nearer(drawn), drawn.real
        shares, chances, counts = [], [], []
        for target in drawn.targets.unique().tolist():
            mine = nearer[drawn.targets == target]
            training, held_out = int((real.training_labels == target).sum()), int((real.labels == target).sum())
            shares.append(float(mine.double().mean()))
            chances.append(training / (training + held_out))
            counts.append(len(mine))
        pooled = clustered_mean([shares], images=min(counts))
        chance = sum(chances) / len(chances)
        value, low, high = (at_equal_numbers(share, chance) for share in (pooled.value, pooled.low, pooled.high))
        return Measurement(Estimate(value, low, high, len(nearer)))


class TrainingNearestFeatures(TrainingNearest):
    """How often, in the features of an evaluation model, the nearest real image of the target class is a private
    training image and not a held-out one, at equal numbers of both. 0.5 is chance, 1 always. The evaluation model was
    trained on the same images: read it beside the row of real images.
    """

    name = "training_nearest"
    title = "Nearest real image is a training image, in features"

    def nearer(self, drawn: Reconstructions) -> Tensor:
        x, targets, real = drawn.features.tensor, drawn.targets, drawn.real
        private = class_knn_distance(x, targets, real.training_features.tensor, real.training_labels)
        return private < class_knn_distance(x, targets, real.features.tensor, real.labels)


class TrainingNearestSsim(TrainingNearest):
    """How often, by structural similarity (SSIM), the nearest real image of the target class is a private training
    image and not a held-out one, at equal numbers of both. 0.5 is chance, 1 always.
    """

    name = "training_nearest_ssim"
    title = "Nearest real image is a training image, by SSIM"
    cites = TrainSsim.cites

    def nearer(self, drawn: Reconstructions) -> Tensor:
        real = drawn.real
        nearer = torch.empty(len(drawn.images), dtype=torch.bool)
        for target in drawn.targets.unique().tolist():
            mine = drawn.targets == target
            private = of_class(real.training_images, real.training_labels, target)
            # one shortlist of both kinds, which gives neither an advantage
            together = torch.cat([private, of_class(real.images, real.labels, target)])
            rows, scores = shortlisted_ssim(drawn.images[mine], together)
            trained = rows < len(private)
            nearer[mine] = _best(scores, trained) > _best(scores, ~trained)
        return nearer


def _best(scores: Tensor, chosen: Tensor) -> Tensor:
    return scores.masked_fill(~chosen, -torch.inf).amax(1)
