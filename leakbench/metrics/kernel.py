"""Kernel distance between sets of image features: the KID (Binkowski et al. 2018), exact over all images.

The unbiased estimate of MMD^2 with k(x, y) = (x.y / d + 1)^3. Unlike the Fréchet distance its expectation does
not depend on N, so values at unequal N may be compared; only its interval widens as N falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakbench.contracts import Params
from leakbench.metrics.estimate import Estimate, mean
from leakbench.metrics.metric import Measurement
from leakbench.metrics.neighbours import checked_features
from leakbench.metrics.reconstructions import INCEPTION, RELEASED, ReconstructionMetric, Reconstructions

BLOCK = 256
"""rows of a kernel matrix at once: about 100 MiB against 50,000 images"""


@dataclass(frozen=True, eq=False)
class KernelReference:
    """A reference set with its own part of the distance: computed once per set."""

    features: Tensor
    """[M, d], float64 on the CPU"""
    within: float
    """mean kernel of two different images of the set"""


def kernel_reference(features: Tensor) -> KernelReference:
    """Take features [M, d], M >= 2, as the reference.

    Raises UsageError for other shapes or M < 2, NumericalError for NaN, infinity or features beyond 1e24.
    """
    y = checked_features(features, least=2)
    return KernelReference(y, float(_sums_over_others(y).sum()) / (len(y) * (len(y) - 1)))


def kernel_estimate(features: Tensor, reference: KernelReference) -> Estimate:
    """The kernel distance of features [N, d], N >= 2, with a 95 % interval from the delete-one jackknife; n = N.

    The literature prints a mean over random subsets. Every pair of images is as likely as any other to be in a
    subset, so that mean's expectation over the subsets is the same mean over *all* pairs, which is computed
    here: no random numbers, no subset size. Unbiased, hence negative about as often as not between two samples
    of one distribution, and not clamped.

    The interval is value +- t(N-1) * standard error and takes the reference as fixed. None (NaN) for N = 2,
    where one image has no pair, nor for identical images. Errors as in :func:`kernel_reference`, and UsageError
    where d differs from the reference's.
    """
    x = checked_features(features, least=2, dimensions=reference.features.shape[1])
    n = len(x)
    others = _sums_over_others(x)
    across = _sums(x, reference.features) / len(reference.features)
    value = float(others.sum() / (n * (n - 1)) + reference.within - 2 * across.mean())
    if n == 2 or bool((x == x[0]).all()):
        return Estimate(value, n=n)
    # n * value - (n - 1) * (value without image i). Their mean is the value, for a jackknife leaves an unbiased
    # estimate as it is, and the standard error of their mean is the jackknife's (Tukey 1958).
    pseudo = 2 * others / (n - 2) - others.sum() / ((n - 1) * (n - 2)) + reference.within - 2 * across
    return mean(pseudo.tolist())


def _sums_over_others(x: Tensor) -> Tensor:
    """[N]: each row's kernels with all other rows, summed."""
    return _sums(x, x) - (x.square().mean(1) + 1) ** 3


def _sums(x: Tensor, y: Tensor) -> Tensor:
    """[N]: the kernels of each row of x [N, d] with all rows of y [M, d], summed."""
    from sklearn.metrics.pairwise import polynomial_kernel  # takes as long to load as torch

    blocks = (polynomial_kernel(block.numpy(), y.numpy(), degree=3, coef0=1) for block in x.split(BLOCK))
    return torch.cat([torch.from_numpy(block.sum(1)) for block in blocks])


class Kid(ReconstructionMetric[Params]):
    """Kernel inception distance to the private test images. Lower means that more leaks. Unbiased in the number of
    images, so it may be negative.
    """

    name = "kid"
    title = "KID"
    unit, leaks = "distance", "less"
    network: ClassVar[str] = RELEASED

    def applies(self, drawn: Reconstructions) -> bool:
        return drawn.distance_features.network == self.network

    def measure(self, drawn: Reconstructions) -> Measurement:
        reference = drawn.real.once("kernel", lambda: kernel_reference(drawn.real.distance_features.tensor))
        return Measurement(kernel_estimate(drawn.distance_features.tensor, reference))


class KdBnConv(Kid):
    """Kernel distance to the private test images in the features of the evaluation model bnconv. Lower means that more
    leaks. Unbiased in the number of images, so it may be negative.
    """

    name = "kd_bnconv"
    title = "Kernel distance (bnconv)"
    network = "bnconv"


class KdInception(Kid):
    """Kernel distance to the private test images in the features of Inception with other weights than FID's. Lower
    means that more leaks. Unbiased in the number of images, so it may be negative.
    """

    name = "kd_inception"
    title = "Kernel distance (inception)"
    network = INCEPTION
