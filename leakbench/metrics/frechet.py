"""Fréchet distance between Gaussians fitted to image features (Dowson & Landau 1982; Heusel et al. 2017).

d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2), with covariances divided by N - 1. The value depends
strongly on N (two samples of one distribution are far apart at small N), so it is only worth reading beside a
real-against-real value and a noise value at the same N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakbench.contracts import Params
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import CONFIDENCE, Estimate
from leakbench.metrics.metric import Measurement
from leakbench.metrics.reconstructions import INCEPTION, RELEASED, SQUEEZENET, ReconstructionMetric, Reconstructions


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """The Gaussian fitted to a reference set, in float64 on the CPU: computed once per set."""

    mean: Tensor
    """[d]"""
    sqrt_cov: Tensor
    """[d, d], the symmetric square root of the covariance"""
    trace: float
    """of the covariance"""
    n: int
    """images of the reference set"""


def statistics(features: Tensor) -> FeatureStatistics:
    """Fit the reference Gaussian to features [N, d], N >= 2.

    Raises UsageError for other shapes or N < 2, NumericalError for NaN or infinity.
    """
    x = _checked(features)
    mean = x.mean(0)
    centred = x - mean
    covariance = centred.T @ centred / (len(x) - 1)
    values, vectors = torch.linalg.eigh(covariance)
    # negative ones and those below rounding are zero in truth; their square roots would not be small
    floor = float(values[-1]) * len(values) * torch.finfo(torch.float64).eps
    values = torch.where(values > floor, values, 0.0)
    sqrt_cov = (vectors * values.sqrt()) @ vectors.T
    return FeatureStatistics(mean, sqrt_cov, float(covariance.trace()), len(x))


def frechet_distance(features: Tensor, reference: FeatureStatistics) -> float:
    """The squared Fréchet distance (what the literature calls FID's value), >= 0, of features [N, d], N >= 2.

    Low-rank form: tr sqrt(S1 S2) = ||A sqrt(S2)||_* (nuclear norm) with A = centred features / sqrt(N - 1).
    Exact at any rank, and no square root of a non-symmetric matrix is taken. Identical images are a Gaussian
    of zero spread: |m1 - m2|^2 + tr S2. Errors as in :func:`statistics`, and UsageError where d differs from
    the reference's.
    """
    x, mean, projected = _projected(features, reference)
    nuclear = float(torch.linalg.svdvals(projected).sum()) / math.sqrt(len(x) - 1)
    trace = float((x - mean).square().sum()) / (len(x) - 1)
    offset = float((mean - reference.mean).square().sum())
    # a distance of zero comes out as rounding error of either sign
    return max(0.0, offset + trace + reference.trace - 2 * nuclear)


def frechet_estimate(features: Tensor, reference: FeatureStatistics) -> Estimate:
    """:func:`frechet_distance` with a 95 % interval from the delete-one jackknife's standard error; n = N.

    A bootstrap would resample images with repeats: that lowers the rank and the spread of the fitted
    covariance and biases the distance upward, so its interval can miss its own estimate. The jackknife never
    repeats an image. The interval is value +- t(N-1) * standard error, cut at 0. It tells how far the
    distance *at this N* would move with another N images of the same kind; the reference is taken as fixed,
    and the bias of a small N is not in it. No interval (NaN) for N = 2, where one image has no covariance,
    nor for identical images.
    """
    x, mean, projected = _projected(features, reference)
    n = len(x)
    value = frechet_distance(x, reference)
    if n == 2 or bool((x == x[0]).all()):
        return Estimate(value, n=n)
    centred = x - mean
    squares = centred.square().sum(1)
    # without image i the mean moves by -c_i / (n - 1) and the scatter matrix loses n / (n - 1) c_i c_i^T
    offset = mean - reference.mean
    offsets = offset.square().sum() - 2 / (n - 1) * (centred @ offset) + squares / (n - 1) ** 2
    traces = (squares.sum() - n / (n - 1) * squares) / (n - 2)
    nuclear = _nuclear_norms_without_each(projected) / math.sqrt(n - 2)
    without = offsets + traces + reference.trace - 2 * nuclear
    error = math.sqrt((n - 1) / n * float((without - without.mean()).square().sum()))
    from scipy.stats import t  # takes half as long to load as torch

    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return Estimate(value, max(0.0, value - half), value + half, n)


def _nuclear_norms_without_each(centred: Tensor) -> Tensor:
    """[n]: the nuclear norm of a column-centred matrix B [n, d] without row i, centred anew, for every i.

    One singular value decomposition B = U S V^T serves all rows. B_i^T B_i = B^T B - rho b_i b_i^T with
    rho = n / (n - 1), and from sqrt(x) = 1/pi int_0^inf x / (x + t) dt / sqrt(t) and the determinant lemma,

        ||B_i||_* = ||B||_* + 1/pi int_0^inf log(1 - rho g_i(s)) ds,
        g_i(s) = sum_j U_ij^2 S_j^2 / (S_j^2 + s^2).

    With s = e^u the integrand's singularities all lie on Im u = +-pi/2, so the trapezoidal rule with step h
    errs by about exp(-pi^2 / h), whatever the spectrum; n decompositions would take O(n^4).
    """
    n = len(centred)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    if s[0] == 0:
        return torch.zeros(n, dtype=centred.dtype)
    step, reach = 0.25, 28.0  # exp(-pi^2 / 0.25) < 1e-17; exp(-28) < 1e-12 of the largest singular value
    nodes = torch.arange(-reach, reach + step, step, dtype=centred.dtype).exp()
    squares = (s / s[0]).square()[:, None]
    g = u.square() @ (squares / (squares + nodes.square()))
    # for a row that alone spans a direction 1 - rho g is rounding noise as s -> 0, where its weight is nil
    logs = torch.log1p((-n / (n - 1) * g).clamp(min=-1 + torch.finfo(g.dtype).eps))
    norms: Tensor = s.sum() + s[0] * step / math.pi * (logs * nodes).sum(1)
    return norms


def _projected(features: Tensor, reference: FeatureStatistics) -> tuple[Tensor, Tensor, Tensor]:
    """Features [N, d] in float64, their mean [d] and (features - mean) sqrt(S2) [N, d]."""
    x = _checked(features)
    if x.shape[1] != len(reference.mean):
        raise UsageError(f"the features have {x.shape[1]} dimensions, the reference {len(reference.mean)}")
    mean = x.mean(0)
    return x, mean, (x - mean) @ reference.sqrt_cov


def _checked(features: Tensor) -> Tensor:
    if features.ndim != 2 or not features.is_floating_point() or not features.shape[1]:
        raise UsageError(f"features must be floats [N, d], got {features.dtype} {tuple(features.shape)}")
    if len(features) < 2:
        raise UsageError(f"a Fréchet distance needs at least 2 images to fit a covariance, got {len(features)}")
    if not torch.isfinite(features).all():
        raise NumericalError("the features hold NaN or infinity")
    return features.detach().to("cpu", torch.float64)


class Fid(ReconstructionMetric[Params]):
    """Fréchet inception distance to the private test images. Lower means that more leaks. It depends on the number of
    images: read it beside the anchors.
    """

    name = "fid"
    title = "FID"
    unit, leaks, needs_same_n = "distance", "less", True
    network: ClassVar[str] = RELEASED

    def applies(self, drawn: Reconstructions) -> bool:
        return drawn.distance_features.network == self.network

    def measure(self, drawn: Reconstructions) -> Measurement:
        reference = drawn.real.once("frechet", lambda: statistics(drawn.real.distance_features.tensor))
        return Measurement(frechet_estimate(drawn.distance_features.tensor, reference))


class FdBnConv(Fid):
    """Fréchet distance to the private test images in the features of the evaluation model bnconv. Lower means that more
    leaks. It depends on the number of images: read it beside the anchors.
    """

    name = "fd_bnconv"
    title = "Fréchet distance (bnconv)"
    network = "bnconv"


class FdInception(Fid):
    """Fréchet distance to the private test images in the features of Inception with other weights than FID's. Lower
    means that more leaks. It depends on the number of images: read it beside the anchors.
    """

    name = "fd_inception"
    title = "Fréchet distance (inception)"
    network = INCEPTION


class FdSqueezeNet(Fid):
    """Fréchet distance to the private test images in the features of SqueezeNet 1.1 with torchvision's weights, trained
    on ImageNet and on no private image. Lower means that more leaks. It depends on the number of images: read it beside
    the anchors.
    """

    name = "fd_squeezenet"
    title = "Fréchet distance (squeezenet)"
    network = SQUEEZENET

    def applies(self, drawn: Reconstructions) -> bool:
        return drawn.squeezenet_features is not None and drawn.squeezenet_features.network == self.network

    def measure(self, drawn: Reconstructions) -> Measurement:
        features, real = drawn.squeezenet_features, drawn.real.squeezenet_features
        assert features is not None and real is not None, "it does not apply"
        reference = drawn.real.once("frechet squeezenet", lambda: statistics(real.tensor))
        return Measurement(frechet_estimate(features.tensor, reference))


def fd_squeezenet(features: str) -> type[FdSqueezeNet]:
    """The metric in those features: numbers from two files of weights never have one name.

    ``features`` is "squeezenet" with the first digits of the file's sha256 behind it, as in "squeezenet_1a2b3c4d".
    """
    digits = features.rpartition("_")[2]

    class FdOtherSqueezeNet(FdSqueezeNet):
        __doc__ = f"""Fréchet distance to the private test images in the features of SqueezeNet 1.1 with weights from
        the file whose sha256 begins with {digits}. Lower means that more leaks. It depends on the number of images:
        read it beside the anchors."""

        name = f"fd_{features}"
        title = f"Fréchet distance (squeezenet {digits})"
        network = features

    return FdOtherSqueezeNet
