"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020) in feature space."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from leakbench.contracts import Params
from leakbench.errors import UsageError
from leakbench.metrics.estimate import Estimate, mean, proportion
from leakbench.metrics.metric import Measurement, Unit
from leakbench.metrics.neighbours import checked_features, neighbours
from leakbench.metrics.reconstructions import ReconstructionMetric, Reconstructions, some_of_each


class PRDC(NamedTuple):
    """Four views of how two sets of images overlap; an image's ball reaches to its k-th neighbour in its set."""

    precision: Estimate
    """share of the N images in some real image's ball: how much of what was made looks real"""
    recall: Estimate
    """share of the M real images in some made image's ball: how much of the real was reached"""
    density: Estimate
    """mean number of real balls that an image lies in, over k: >= 0, may exceed 1"""
    coverage: Estimate
    """share of the M real images with some made image in their ball"""


def prdc(features: Tensor, reference: Tensor, k: int = 5) -> PRDC:
    """Precision, recall, density and coverage of features [N, d] against real ones [M, d].

    All four depend on N and M (a sparser set has wider balls), so compare at matched numbers only. Distances
    are Euclidean. A ball's edge counts as inside, as in Kynkäänniemi et al.; duplicates are neighbours like any
    other, so that k + 1 equal images have balls of radius 0, in which exact copies lie.

    Wilson intervals for the shares, Student's t, cut at 0, for the density (none, NaN, where every image lies
    in equally many balls). They take the balls as given. Raises UsageError for other shapes and unless
    1 <= k < min(N, M), NumericalError for NaN, infinity or features beyond 1e24.
    """
    y = checked_features(reference, "reference features")
    x = checked_features(features, dimensions=y.shape[1])
    n, m = len(x), len(y)
    if not 1 <= k < min(n, m):
        raise UsageError(f"k must be at least 1 and below the {n} images and the {m} real ones, got {k}")
    distances = _distances(x, y)
    in_real = distances <= _radii(y, k)
    in_made = distances <= _radii(x, k)[:, None]
    density = mean((in_real.sum(1).double() / k).tolist())
    return PRDC(
        precision=proportion(int(in_real.any(1).sum()), n),
        recall=proportion(int(in_made.any(0).sum()), m),
        density=replace(density, low=max(density.low, 0.0)),  # NaN comes first, and so stays
        coverage=proportion(int(in_real.any(0).sum()), m),
    )


def _radii(x: Tensor, k: int) -> Tensor:
    """[N]: each row's distance to its k-th nearest other row, to the last bit as in :func:`_distances`."""
    return _distances(x[:, None], x[neighbours(x, k)][:, None]).flatten()


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, from differences: |x|^2 - 2 x.y + |y|^2 gives equal rows a distance, and edges turn to chance."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


class Precision(ReconstructionMetric[Params]):
    """Share of the attack's images that lie among real ones: within the distance from some real image to its fifth
    neighbour.
    """

    name = "precision"
    title = "Precision"
    unit: ClassVar[Unit] = "share"
    leaks = "more"

    def measure(self, drawn: Reconstructions) -> Measurement:
        same_number = _matched(drawn.real.labels, len(drawn.images))
        views = prdc(drawn.features.tensor, drawn.real.features.tensor[same_number])
        return Measurement(getattr(views, self.name))


class Density(Precision):
    """In how many neighbourhoods of real images the attack's images lie, over five. Near 1 for real images; may exceed
    it.
    """

    name = "density"
    title = "Density"
    unit = "number"


class Coverage(Precision):
    """Share of real images with one of the attack's images within the distance to their fifth neighbour."""

    name = "coverage"
    title = "Coverage"


class Recall(Precision):
    """Share of real images within the distance from some image of the attack to its fifth neighbour. Wide scatter
    inflates it.
    """

    name = "recall"
    title = "Recall"


def _matched(labels: Tensor, count: int) -> Tensor:
    """As many real images as there are others, spread over the classes: these four are biased by their numbers."""
    classes = len(labels.unique())
    picked = some_of_each(labels, -(-count // classes), torch.Generator().manual_seed(1))
    keep = torch.randperm(len(picked), generator=torch.Generator().manual_seed(2))[:count]
    return picked[keep]
