"""LiRA: membership by the likelihood of a confidence among those of references."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.confidences import Compared, ReferencesParams, compared, mean_over
from leakbench.contracts import Access, AttackContext, LabeledImages, MembershipAttack, Victim
from leakbench.errors import NotApplicable

SAMPLE_FROM = 64
"""references from which on each image has a variance of its own (the paper takes one for all with few)"""
LEAST = 4
"""references with which a variance can be told: two trained on each image and two not"""
TINY = 1e-12
"""the least variance that is believed"""


class LiraParams(ReferencesParams):
    """Which references an image is compared by, and how."""

    variance: Literal["auto", "global", "sample"] = Field(
        "auto",
        description="of confidences: of all images together, of each its own, or the latter from 64 references on",
    )
    calibrated: bool = Field(
        False,
        description="whether the online ratio is put in standard deviations of what it is for an untrained image, so "
        "that one threshold is one false positive rate for all images",
    )


class Lira(MembershipAttack[LiraParams]):
    """Scores an image by a likelihood ratio of its logit-scaled confidence, normal among references with and without.

    Offline: by minus the log of the probability of a higher confidence without. The global variance is that around the
    images' own means, by degrees of freedom; the authors' code takes the spread of all images together. ``calibrated``
    is after the remark of arXiv 2605.25819 that ratios of different images share no false positive rate; how is ours.
    """

    name = "lira"
    version = 3
    needs = Access.SCORES
    effort = "repeats"
    uses_references = True
    cites = "Carlini, Chien, Nasr, Song, Terzis, Tramer: Membership Inference Attacks From First Principles, S&P 2022"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        params = self.params
        answered = enough_answers(self, LabeledImages(candidates, labels), victim, context)
        many = len(context.references) >= SAMPLE_FROM
        own = params.variance == "sample" or (params.variance == "auto" and many)
        logits = answered.references.logits
        outside = normal_of(logits, ~answered.members, own)
        if params.mode == "offline":
            return offline_score(answered.victim.logits, outside)
        inside = normal_of(logits, answered.members, own)
        return online_score(answered.victim.logits, inside, outside, params.calibrated)


def enough_answers(
    attack: MembershipAttack[Any], asked: LabeledImages, victim: Victim, context: AttackContext
) -> Compared:
    """The confidences of the victim and of references; NotApplicable with fewer than LEAST."""
    answered = compared(victim, asked, attack.params.repeats, context, "asking for the candidates' confidences")
    count = len(context.references)
    if count < LEAST:
        raise NotApplicable(f"{attack.name} needs at least {LEAST} reference networks, got {count}")
    return answered


class Moments(NamedTuple):
    """What references say of each image: [N]."""

    mean: Tensor
    squares: Tensor
    """sum of squared deviations from it"""
    networks: Tensor
    """how many"""


def moments(values: Tensor, chosen: Tensor) -> Moments:
    """Of ``values`` [K, N] over the networks that are ``chosen``, bool [K, N]."""
    mean = mean_over(values, chosen)
    return Moments(mean, torch.where(chosen, (values - mean) ** 2, 0.0).sum(0), chosen.sum(0))


class Normal(NamedTuple):
    """Normal distributions, one an image."""

    mean: Tensor
    variance: Tensor

    def log_density(self, x: Tensor) -> Tensor:
        """Without the constant."""
        return -((x - self.mean) ** 2) / (2 * self.variance) - self.variance.log() / 2


def normal_of(values: Tensor, chosen: Tensor, own: bool) -> Normal:
    """Of ``values`` [K, N] over the networks that are ``chosen``; the variance of each image ``own``, or of all."""
    mean, squares, networks = moments(values, chosen)
    freedom = networks - 1
    variance = squares / freedom if own else (squares.sum() / freedom.sum()).expand_as(mean)
    return Normal(mean, variance.clamp(min=TINY))


def online_score(x: Tensor, inside: Normal, outside: Normal, calibrated: bool = False) -> Tensor:
    """log of the ratio of both densities at ``x`` [N].

    ``calibrated``: less its mean, over its standard deviation, of an x that is drawn from ``outside``; 0 where both
    distributions are the same.
    """
    score = inside.log_density(x) - outside.log_density(x)
    if not calibrated:
        return score
    # at x = mean + d the ratio is a d^2 + b d + constant
    a = (1 / outside.variance - 1 / inside.variance) / 2
    shift = outside.mean - inside.mean
    b = -shift / inside.variance
    d = x - outside.mean
    spread = (b**2 * outside.variance + 2 * a**2 * outside.variance**2).sqrt()
    centred = a * (d**2 - outside.variance) + b * d
    return torch.where(spread > 0, centred / spread.clamp(min=TINY), 0.0)


def offline_score(x: Tensor, outside: Normal) -> Tensor:
    """Minus the log of the probability that a draw from ``outside`` is above ``x`` [N]."""
    above: Tensor = torch.special.log_ndtr(-(x - outside.mean) / outside.variance.sqrt())
    return -above
