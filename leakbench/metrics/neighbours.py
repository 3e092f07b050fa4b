"""Nearest neighbours among real images in feature space; class kNN distance (Zhang et al. 2020; PLG-MI, LOMMA)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from leakbench.contracts import Params
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.reconstructions import ImageMetric, Reconstructions

LARGEST = 1e24
"""of a feature's magnitude: up to it neither distances nor the variance of the kernel distance overflow"""


def class_knn_distance(
    features: Tensor, targets: Tensor, reference: Tensor, reference_labels: Tensor, k: int = 1
) -> Tensor:
    """Each image's squared Euclidean distance to the k-th nearest real image of its own target class.

    Features [N, d] of the reconstructions and their target classes [N], features [M, d] of real images and
    their labels [M] -> float64 [N] on the CPU, >= 0; exactly 0 for a copy. Small says near one real image of
    the class: set it beside the same distance of held-out real images. Depends on the number of real images a
    class. Raises UsageError for other shapes, k < 1 or a target class with fewer than k real images,
    NumericalError for NaN, infinity or features beyond 1e24.
    """
    y = checked_features(reference, "reference features")
    x = checked_features(features, dimensions=y.shape[1])
    for labels, name, n in ((targets, "targets", len(x)), (reference_labels, "reference labels", len(y))):
        if labels.shape != (n,) or labels.is_floating_point():
            raise UsageError(f"{name} must be {n} integers [N], got {labels.dtype} {tuple(labels.shape)}")
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}")
    distances = torch.empty(len(x), dtype=torch.float64)
    for c in targets.unique().tolist():
        mine, real = (targets == c).cpu(), y[(reference_labels == c).cpu()]
        if len(real) < k:
            raise UsageError(f"class {c} needs at least k = {k} real images in the reference, got {len(real)}")
        distances[mine] = (x[mine] - real[neighbours(real, k, x[mine])]).square().sum(1)
    return distances


def neighbours(reference: Tensor, k: int, queries: Tensor | None = None) -> Tensor:
    """Row numbers in ``reference`` [M, d] of each query's k-th nearest row, integers [N].

    Without queries: of each row's own k-th nearest among the others, [M]; a duplicate is another row.
    """
    from sklearn.neighbors import NearestNeighbors  # takes as long to load as torch

    # In high dimensions scikit-learn compares |x|^2 - 2 x.y + |y|^2, whose rounding grows with the distance from
    # the origin (hence the centring, by medians, which outliers don't move) and leaves two equal rows apart: it
    # may only swap neighbours that are equally far but for that rounding, and callers measure anew.
    points = reference.numpy()
    centre = np.median(points, axis=0)
    search = NearestNeighbors(n_neighbors=k).fit(points - centre)
    indices = search.kneighbors(None if queries is None else queries.numpy() - centre, return_distance=False)
    return torch.from_numpy(indices[:, -1])


def checked_features(features: Tensor, what: str = "features", least: int = 1, dimensions: int | None = None) -> Tensor:
    """Features [N, d] in float64 on the CPU.

    Raises UsageError for other shapes, N < ``least`` or d other than the reference's ``dimensions``,
    NumericalError for NaN, infinity or magnitudes beyond 1e24.
    """
    if features.ndim != 2 or not features.is_floating_point() or not features.shape[1]:
        raise UsageError(f"{what} must be floats [N, d], got {features.dtype} {tuple(features.shape)}")
    if len(features) < least:
        raise UsageError(f"{what} of at least {least} images are needed, got {len(features)}")
    if dimensions is not None and features.shape[1] != dimensions:
        raise UsageError(f"the features have {features.shape[1]} dimensions, the reference {dimensions}")
    x = features.detach().to("cpu", torch.float64)
    if not float(x.abs().max()) <= LARGEST:  # NaN compares false
        raise NumericalError(f"the {what} hold NaN, infinity or numbers beyond {LARGEST:g}")
    return x


class KnnDistance(ImageMetric[Params]):
    """Squared distance, in the features of an evaluation model, to the nearest real image of the target class. Lower
    means that more leaks.
    """

    name = "knn_distance"
    title = "Distance to the nearest real image"
    unit, leaks = "distance", "less"

    def scores(self, drawn: Reconstructions) -> Tensor:
        real = drawn.real
        return class_knn_distance(drawn.features.tensor, drawn.targets, real.features.tensor, real.labels)


def nearest_labels(images: Tensor, reference: Tensor, labels: Tensor, size: int = 10_000) -> Tensor:
    """The label of the image in ``reference`` [M, C, H, W] nearest to each of ``images`` [N, C, H, W], integers [N].

    Both uint8, distances Euclidean on raw pixels, in parts of ``size`` images of the reference; of equally near ones
    the first. Sums of squares of bytes are exact in float32 up to 256 pixels, and round to a few parts in 10^7 beyond.
    """
    x = images.flatten(1).float()
    least = torch.full((len(x),), torch.inf)
    nearest = torch.zeros(len(x), dtype=torch.int64)
    for start in range(0, len(reference), size):
        y = reference[start : start + size].flatten(1).float()
        # |x|^2 is the same for all
        distances, index = (y.square().sum(1) - 2 * x @ y.T).min(1)
        nearer = distances < least
        least[nearer], nearest[nearer] = distances[nearer], index[nearer] + start
    return labels[nearest]


class PixelNeighbourAccuracy(ImageMetric[Params]):
    """Share of images whose nearest private training image on raw pixels is of the target class. Of real images it is
    what evaluation models must not stay below.
    """

    name = "pixel_neighbour_accuracy"
    title = "Nearest neighbour on pixels"
    unit, leaks, counts = "share", "more", "images"

    def scores(self, drawn: Reconstructions) -> Tensor:
        real = drawn.real
        return nearest_labels(drawn.images, real.training_images, real.training_labels) == drawn.targets
