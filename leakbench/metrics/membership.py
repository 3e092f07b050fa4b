"""Metrics of membership scores: how well they tell training images from others.

With m members and n others, the area under the ROC curve (AUC) is the chance that a member scores above an other, ties
counted half; 0.5 is chance. What an average over all images says is little: a network may give away a few of them for
certain at an AUC near 0.5 (Carlini et al. 2022).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from leakbench.contracts import Params
from leakbench.contracts.plugin import P
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import CONFIDENCE, Estimate, exact
from leakbench.metrics.metric import Measurement, Metric


@dataclass(frozen=True)
class ScoredCandidates:
    """What an attack said of each candidate, and the truth."""

    scores: Tensor
    """float64 [N]; higher: more likely a training image"""
    members: Tensor
    """bool [N]: whether it was one"""

    def copied(self) -> ScoredCandidates:
        """The same, in tensors of their own, for a metric that may write to them."""
        return ScoredCandidates(self.scores.clone(), self.members.clone())


class MembershipMetric(Metric[P]):
    """Measures how well scores tell members from others."""

    leakage = "membership"

    @abstractmethod
    def measure(self, scored: ScoredCandidates) -> Measurement:
        """The value of all candidates. What can't be measured raises an error of leakbench.errors, with the reason."""


class MembershipAuc(MembershipMetric[Params]):
    """Chance that a training image scores above an image that the network was not trained on (area under the ROC
    curve). 0.5 is chance. An average over all images: at 0.5 individual images may still be identifiable.
    """

    name = "membership_auc"
    title = "Membership AUC"
    unit, leaks, scale = "share", "more", "chance"

    def measure(self, scored: ScoredCandidates) -> Measurement:
        return Measurement(auc(scored.scores, scored.members))


class MembershipP(MembershipMetric[Params]):
    """How often scores as far apart come from images of one kind (one-sided Mann-Whitney test)."""

    name = "membership_p"
    title = "p, members above others"
    unit = "p"

    def measure(self, scored: ScoredCandidates) -> Measurement:
        from scipy.stats import mannwhitneyu  # scipy.stats takes half a second to load

        members, others = _parted(scored.scores, scored.members)
        return Measurement(exact(float(mannwhitneyu(members.numpy(), others.numpy(), alternative="greater").pvalue)))


def auc(scores: Tensor, members: Tensor) -> Estimate:
    """Area under the ROC curve of scores [N] for members, bool [N], with a 95 % interval; n = N.

    The interval is Newcombe's score interval (Statistics in Medicine 2006, method 5): all areas that lie within 1.96
    standard errors of the one found, the error being that of Hanley and McNeil (1982) at *that* area. It stays in
    [0, 1] and has a width at 0 and 1. It takes images as independent and the network as given. Raises UsageError for
    other shapes or where one side is empty, NumericalError for scores that are no numbers.
    """
    one, other = _parted(scores, members)
    m, n = len(one), len(other)
    import numpy as np
    from scipy.stats import norm, rankdata  # scipy.stats takes half a second to load

    ranks = rankdata(np.concatenate([one.numpy(), other.numpy()]))
    area = float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))
    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    return Estimate(area, _end(area, m, n, z, 0.0), _end(area, m, n, z, 1.0), m + n)


def _end(area: float, m: int, n: int, z: float, end: float) -> float:
    """The area nearest to ``end`` that is within z standard errors of ``area``."""
    from scipy.optimize import brentq

    def beyond(theta: float) -> float:
        return abs(theta - area) - z * _standard_error(theta, m, n)

    if beyond(end) <= 0:
        return end
    # at 0 and 1 the error is 0, which is a root as well: not the one that is sought
    inner = min(max(area, 1e-9), 1 - 1e-9)
    return float(brentq(beyond, min(end, inner), max(end, inner)))


def _standard_error(theta: float, m: int, n: int) -> float:
    """Of an area theta, for exponential scores: Hanley & McNeil with both sizes in the numerator at their mean."""
    mean = (m + n) / 2 - 1
    spread = 1 + mean * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    return math.sqrt(theta * (1 - theta) * spread / (m * n))


def _parted(scores: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    if scores.ndim != 1 or scores.shape != members.shape:
        raise UsageError(f"scores and members must both be [N], got {tuple(scores.shape)} and {tuple(members.shape)}")
    if not scores.isfinite().all():
        raise NumericalError("membership scores hold NaN or infinity")
    scores, members = scores.double().cpu(), members.bool().cpu()
    if not members.any() or members.all():
        raise UsageError("an area under the ROC curve needs members and others, at least one of each")
    return scores[members], scores[~members]
