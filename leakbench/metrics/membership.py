"""Metrics of membership scores: how well they tell training images (members) from others (non-members).

With m members and n others, the area under the ROC curve (AUC) is the chance that a member scores above an other, ties
counted half; 0.5 is chance. What an average over all images says is little: a network may give away a few of them for
certain at an AUC near 0.5 (Carlini et al. 2022), which the share of members found at a low false positive rate shows.

All intervals take images as independent, and the network and its references as given: that these vary is in the
interval over seeds, each of which has networks of its own. That one is about other images in part at most: all seeds
draw them from one training set and one half of the test set, and take the whole half where it is small.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from leakbench.contracts import Params
from leakbench.contracts.membership import Question
from leakbench.contracts.plugin import P
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import CONFIDENCE, Estimate, clopper_pearson, exact
from leakbench.metrics.intervals import newcombe
from leakbench.metrics.metric import Measurement, Metric
from leakbench.metrics.rank_sum import rank_sum_p

_PARTS = 8
"""numbers of members between two others that an interval takes into account"""


@dataclass(frozen=True)
class ScoredCandidates:
    """What an attack said of each candidate, and the truth."""

    scores: Tensor
    """float64 [N]; higher: more likely a training image"""
    members: Tensor
    """bool [N]: whether it was one"""
    question: Question = "training"
    """whose members they are: of what the network was trained on, or of what its conversion read"""

    def copied(self) -> ScoredCandidates:
        """The same, in tensors of their own, for a metric that may write to them."""
        return replace(self, scores=self.scores.clone(), members=self.members.clone())


class MembershipMetric(Metric[P]):
    """Measures how well scores tell members from others."""

    leakage = "membership"

    @abstractmethod
    def measure(self, scored: ScoredCandidates) -> Measurement:
        """The value of all candidates. What can't be measured raises an error of leakbench.errors, with the reason."""


class MembershipAuc(MembershipMetric[Params]):
    """Chance that a member (training image) scores above a non-member (area under the ROC curve). 0.5 is chance. An
    average over all images: at 0.5 individual images may still be identifiable.
    """

    name = "membership_auc"
    title = "Membership AUC"
    unit, leaks, scale = "share", "more", "chance"

    def measure(self, scored: ScoredCandidates) -> Measurement:
        return Measurement(auc(scored.scores, scored.members))


class MembershipP(MembershipMetric[Params]):
    """How often scores as far apart come from images of one kind (one-sided Mann-Whitney test)."""

    name = "membership_p"
    version = 2
    title = "p, members above non-members"
    unit = "p"

    def measure(self, scored: ScoredCandidates) -> Measurement:
        return Measurement(_mann_whitney(scored, "greater"))


class MembershipLowerP(MembershipMetric[Params]):
    """The same test the other way round, as a network may be taught to be less sure of its members."""

    name = "membership_lower_p"
    version = 2
    title = "p, members below non-members"
    unit = "p"

    def measure(self, scored: ScoredCandidates) -> Measurement:
        return Measurement(_mann_whitney(scored, "less"))


def _mann_whitney(scored: ScoredCandidates, alternative: Literal["greater", "less"]) -> Estimate:
    members, others = parted(scored.scores, scored.members)
    return exact(rank_sum_p(members.numpy(), others.numpy(), alternative))


class _TruePositives(MembershipMetric[Params]):
    """Share of members found at a false positive rate."""

    version = 2
    unit, leaks = "share", "more"
    rate: ClassVar[float]
    """false positives, as a share of the others, at most"""

    def measure(self, scored: ScoredCandidates) -> Measurement:
        return Measurement(true_positives(scored.scores, scored.members, self.rate))


class TruePositives1(_TruePositives):
    """Share of members found where at most 1 % of non-members are taken for some. Chance is slightly above 0.01: with n
    non-members, of which k may be taken, (k + 1) / (n + 1). High where some images are given away for certain, whatever
    the average is.
    """

    name = "membership_tpr_at_1pct_fpr"
    title = "Members found at 1 % FPR"
    rate = 0.01


class TruePositives01(_TruePositives):
    """Share of members found where at most 0.1 % of non-members are taken for some, with 1000 non-members or more.
    Chance with n non-members, of which k may be taken, is (k + 1) / (n + 1): 0.002 with 1000.
    """

    name = "membership_tpr_at_01pct_fpr"
    title = "Members found at 0.1 % FPR"
    rate = 0.001


class MembershipTailP(MembershipMetric[Params]):
    """How often scores of one kind put as many members above all non-members, or above all but 1 % of them (exact,
    one-sided, twice the smaller of both).
    """

    name = "membership_tail_p"
    title = "p, members above nearly all"
    unit = "p"

    def measure(self, scored: ScoredCandidates) -> Measurement:
        smallest = min(tail_p(scored.scores, scored.members, rate) for rate in (0.0, TruePositives1.rate))
        return Measurement(exact(min(1.0, 2 * smallest)))


class MembershipAdvantage(MembershipMetric[Params]):
    """Largest difference of the shares of members and of non-members above one threshold (Yeom et al. 2018). 0 is
    chance, and as the threshold is chosen for it, a guess has some more.
    """

    name = "membership_advantage"
    version = 2
    title = "Membership advantage"
    unit, leaks = "share", "more"

    def measure(self, scored: ScoredCandidates) -> Measurement:
        return Measurement(advantage(scored.scores, scored.members))


class MembersAgainstMembers(MembershipMetric[Params]):
    """Chance that a member of one random half scores above one of the other half: a control, 0.5 where the scores and
    the interval are as they should be. The halves follow from the scores: nobody knows them beforehand.
    """

    name = "members_against_members_auc"
    version = 2
    title = "Members against members"
    unit = "share"

    def measure(self, scored: ScoredCandidates) -> Measurement:
        members, _ = parted(scored.scores, scored.members)
        if len(members) < 2:
            raise UsageError("members against members need two or more")
        drawn = hashlib.sha256(members.numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(drawn[:7], "big"))
        order = torch.randperm(len(members), generator=generator)
        return Measurement(auc(members[order], torch.arange(len(members)) < len(members) // 2))


def true_positives(scores: Tensor, members: Tensor, rate: float) -> Estimate:
    """Share of members above all but a ``rate`` of the others, with a 95 % interval; n = the number of members.

    The threshold is the score of the first other that is one too many; members must lie above it. The interval allows
    for where the choice of the others puts it, see :func:`_share_above`. Raises UsageError where there are fewer than
    1 / rate others, of which none could be a false positive, and as :func:`auc`.
    """
    one, other = parted(scores, members)
    if len(other) * rate < 1 - 1e-9:
        raise UsageError(
            f"a false positive rate of {100 * rate:g} % needs at least {round(1 / rate)} images that the network was "
            f"not trained on, there are {len(other)}"
        )
    value = _found(one, other, _allowed(rate, len(other))) / len(one)
    low, high = _share_above(one, other, rate)
    return Estimate(value, min(low, value), max(high, value), len(one))


def _share_above(members: Tensor, others: Tensor, rate: float) -> tuple[float, float]:
    """95 % interval of the share of members above the threshold whose false positive rate is ``rate`` for certain.

    Of n others J lie above it, which is binomial(n, rate), whatever the scores are distributed like. With J = j the
    members above it are at least those above the j-th highest of the others, and at most those above the one below it:
    each number between the two is taken for as likely, and gives the share Jeffreys' beta distribution. The ends are
    quantiles of all of them together. With the threshold as given, as in Clopper and Pearson's interval, only 50 to
    90 % of intervals held the share in simulations; of these 95 % or more did.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.stats import beta, binom

    chances = binom.pmf(np.arange(len(others) + 1), len(others), rate)
    (likely,) = np.nonzero(chances > 1e-9)
    highest = others.sort(descending=True).values[: int(likely[-1]) + 1]
    above = [0, *((members > score).sum().item() for score in highest), len(members)]
    parts = (np.arange(_PARTS) + 0.5) / _PARTS
    counts = np.concatenate([above[j] + (above[j + 1] - above[j]) * parts for j in likely])
    weights = np.repeat(chances[likely], _PARTS) / (_PARTS * chances[likely].sum())

    def quantile(share: float) -> float:
        below = lambda x: weights @ beta.cdf(x, counts + 0.5, len(members) - counts + 0.5) - share  # noqa: E731
        return float(brentq(below, 0, 1))

    return quantile((1 - CONFIDENCE) / 2), quantile((1 + CONFIDENCE) / 2)


def found_by_chance(others: int, rate: float) -> float:
    """Share of members that :func:`true_positives` finds on average where scores say nothing, with so many others.

    (k + 1) / (n + 1), k being the false positives that the rate allows: a member's place among n others is any of n + 1
    with the same chance, and it is found at the first k + 1. Ties make it less, as a member must lie above.
    """
    return min(1.0, (_allowed(rate, others) + 1) / (others + 1))


def tail_p(scores: Tensor, members: Tensor, rate: float) -> float:
    """P-value of the number of members above all but a ``rate`` of the others, were both of one kind.

    Exact: with k members found at j false positives, at most j of the k + j highest of all would be others, which is
    hypergeometric. Ties count against members. With fewer than 1 / rate others j is 0. Raises as :func:`auc`.
    """
    from scipy.stats import hypergeom  # scipy.stats takes half a second to load

    one, other = parted(scores, members)
    allowed = _allowed(rate, len(other))
    found = _found(one, other, allowed)
    return float(hypergeom.cdf(allowed, len(one) + len(other), len(other), found + allowed))


def advantage(scores: Tensor, members: Tensor) -> Estimate:
    """Largest TPR - FPR over thresholds, with a 95 % interval; n = the number of candidates. Raises as :func:`auc`.

    The interval reaches from the lowest to the highest end of three: the basic bootstrap over members and others (1000
    draws, always the same), which takes away what the choice of the threshold adds; Newcombe's (1998) of the
    difference at that threshold, which has a width where all members lie above all others; and, below, what Smirnov's
    bound allows for the choice, which intervals of a guess need to exclude 0 no more often than they say. It is for
    a difference of 0; of others it is scaled by the largest standard error that a threshold can have there.
    """
    import numpy as np

    one, other = (np.sort(side.numpy()) for side in parted(scores, members))

    def largest(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
        cuts = np.concatenate([x, y])
        tpr = 1 - np.searchsorted(x, cuts) / len(x)
        fpr = 1 - np.searchsorted(y, cuts) / len(y)
        best = int(np.argmax(tpr - fpr))
        return max(0.0, float(tpr[best] - fpr[best])), float(tpr[best]), float(fpr[best])

    value, tpr, fpr = largest(one, other)
    random = np.random.default_rng(0)
    draws = [
        largest(np.sort(random.choice(one, len(one))), np.sort(random.choice(other, len(other))))[0]
        for _ in range(1000)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = (2 * value - float(np.quantile(draws, end)) for end in (1 - tail, tail))
    at_threshold = newcombe(
        clopper_pearson(round(tpr * len(one)), len(one)), clopper_pearson(round(fpr * len(other)), len(other))
    )
    chosen = math.sqrt(-math.log(tail) / 2 * (1 / len(one) + 1 / len(other)) * (1 - value * value))
    low, high = min(low, at_threshold.low, value - chosen), max(high, at_threshold.high)
    return Estimate(value, max(0.0, low), min(1.0, high), len(one) + len(other))


def roc(scores: Tensor, members: Tensor) -> list[tuple[float, float]]:
    """(FPR, TPR) at no, one, two, ... false positives, from ten on in steps of a tenth. Raises as :func:`auc`."""
    one, other = parted(scores, members)
    points, allowed = [], 0
    while allowed < len(other):
        points.append((allowed / len(other), _found(one, other, allowed) / len(one)))
        allowed += max(1, allowed // 10)
    return [*points, (1.0, 1.0)]


def _allowed(rate: float, others: int) -> int:
    """False positives at that rate; a product that is a whole number but for rounding counts as it."""
    return math.floor(rate * others + 1e-9)


def _found(members: Tensor, others: Tensor, allowed: int) -> int:
    """How many members lie above all but ``allowed`` of the others."""
    if allowed >= len(others):
        return len(members)
    return int((members > others.sort(descending=True).values[allowed]).sum())


def auc(scores: Tensor, members: Tensor) -> Estimate:
    """Area under the ROC curve of scores [N] for members, bool [N], with a 95 % interval; n = N.

    The interval is Newcombe's score interval (Statistics in Medicine 2006, method 5): all areas that lie within 1.96
    standard errors of the one found, the error being that of Hanley and McNeil (1982) at *that* area. It stays in
    [0, 1] and has a width at 0 and 1. It takes images as independent and the network as given. Raises UsageError for
    other shapes or where one side is empty, NumericalError for scores that are no numbers.
    """
    one, other = parted(scores, members)
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


def parted(scores: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of members and of others, float64. Raises as :func:`auc`."""
    if scores.ndim != 1 or scores.shape != members.shape:
        raise UsageError(f"scores and members must both be [N], got {tuple(scores.shape)} and {tuple(members.shape)}")
    if not scores.isfinite().all():
        raise NumericalError("membership scores hold NaN or infinity")
    scores, members = scores.double().cpu(), members.bool().cpu()
    if not members.any() or members.all():
        raise UsageError("an area under the ROC curve needs members and others, at least one of each")
    return scores[members], scores[~members]
