"""BaVarIA: LiRA with a prior, so that few references give no wild means and variances."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from leakbench.attacks.confidences import ReferencesParams
from leakbench.attacks.lira import TINY, Moments, enough_answers, moments
from leakbench.contracts import Access, AttackContext, LabeledImages, MembershipAttack, Victim

_LEAST_EVIDENCE = 1e-6
"""of a trigamma or a ratio of variances: a prior as strong as a million references is one of all images together"""
_FLOOR = 1e-10
"""of the median: images whose variance is below are left out, for none has no logarithm"""


class Bavaria(MembershipAttack[ReferencesParams]):
    """Scores an image as LiRA does, by the predictive distributions of a normal with a normal-inverse-gamma prior.

    From the paper's abstract are the likelihood ratio of logit-scaled confidences, the conjugate prior, Student's t as
    the predictive distribution (BaVarIA-t), and that nothing is left to tune. How the prior is found is our reading:
    from all images' own means and variances, by empirical Bayes, one prior for references that were trained on an
    image and one for others. Offline: by minus the log of the probability of a higher confidence among the latter.
    """

    name = "bavaria"
    version = 3
    needs = Access.SCORES
    effort = "repeats"
    uses_references = True
    cites = (
        "Brännvall: Exponential-Family Membership Inference: From LiRA and RMIA to BaVarIA, arXiv 2603.11799; the "
        "prior: Smyth, Stat. Appl. Genet. Mol. Biol. 3(1), 2004"
    )

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        answered = enough_answers(self, LabeledImages(candidates, labels), victim, context)
        logits, x = answered.references.logits, answered.victim.logits
        outside = predictive(moments(logits, ~answered.members))
        if self.params.mode == "offline":
            return -outside.log_above(x)
        return predictive(moments(logits, answered.members)).log_density(x) - outside.log_density(x)


class StudentT(NamedTuple):
    """Student's t distributions, one an image: [N]."""

    mean: Tensor
    scale: Tensor
    freedom: Tensor

    def log_density(self, x: Tensor) -> Tensor:
        """At ``x`` [N]."""
        half, z = self.freedom / 2, (x - self.mean) / self.scale
        constant = torch.lgamma(half + 0.5) - torch.lgamma(half) - (math.pi * self.freedom).log() / 2
        return constant - self.scale.log() - (half + 0.5) * torch.log1p(z**2 / self.freedom)

    def log_above(self, x: Tensor) -> Tensor:
        """log of the probability of more than ``x`` [N]."""
        from scipy.special import stdtr  # takes a third as long to load as torch

        z = (x - self.mean) / self.scale
        share = torch.from_numpy(stdtr(self.freedom.cpu().numpy(), (-z).cpu().numpy())).to(x)
        # what no float holds is so far out that the density falls off by its first order
        slope = z * (self.freedom - 1).clamp(min=1) / (self.freedom + z**2)
        far = self.log_density(x) + self.scale.log() - slope.clamp(min=TINY).log()
        return torch.where(share > 1e-290, share.clamp(min=1e-290).log(), far)


class Prior(NamedTuple):
    """Normal-inverse-gamma, in units that count references: variances are inverse-chi-squared of ``freedom`` around
    ``variance``, means are normal around ``mean`` with 1 / ``weight`` of an image's variance."""

    mean: float
    weight: float
    variance: float
    freedom: float


def fitted_prior(of: Moments) -> Prior:
    """What all images together say of one, by moments.

    The log of a sample variance of d degrees of freedom has the mean log s0^2 + psi(d/2) - log(d/2) - psi(v/2) +
    log(v/2) and the variance psi'(d/2) + psi'(v/2), if variances are inverse-chi-squared of v degrees around s0^2
    (Smyth 2004, section 6.2). Means have the variance s^2 (1/n + 1/weight).
    """
    from scipy.special import digamma, polygamma  # takes a third as long to load as torch

    variances = of.squares / (of.networks - 1)
    known = variances > max(TINY, _FLOOR * float(variances.median()))
    freedom, variance = 2 / _LEAST_EVIDENCE, TINY
    if int(known.sum()) > 1:
        half = (of.networks[known] - 1).double().cpu().numpy() / 2
        logs = variances[known].log().cpu().numpy() - digamma(half) + np.log(half)
        more = float(logs.var(ddof=1) - polygamma(1, half).mean())
        freedom = 2 * _inverse_trigamma(max(more, _LEAST_EVIDENCE))
        variance = math.exp(float(logs.mean() + digamma(freedom / 2)) - math.log(freedom / 2))
    usual = max(float(of.squares.sum() / (of.networks - 1).sum()), TINY)
    apart = float(of.mean.var(correction=1)) / usual - float((1 / of.networks).mean())
    return Prior(float(of.mean.mean()), 1 / max(apart, _LEAST_EVIDENCE), variance, freedom)


def predictive(of: Moments, prior: Prior | None = None) -> StudentT:
    """What another network of the same kind answers; ``prior``: none for that of all images together."""
    prior = prior or fitted_prior(of)
    weight, freedom = prior.weight + of.networks, prior.freedom + of.networks
    mean = (prior.weight * prior.mean + of.networks * of.mean) / weight
    moved = prior.weight * of.networks / weight * (of.mean - prior.mean) ** 2
    variance = (prior.freedom * prior.variance + of.squares + moved) / freedom
    return StudentT(mean, (variance * (1 + 1 / weight)).sqrt(), freedom)


def _inverse_trigamma(value: float) -> float:
    """The y with psi'(y) = ``value`` > 0, by Newton's method on 1 / psi', which is convex (Smyth 2004, appendix)."""
    from scipy.special import polygamma  # takes a third as long to load as torch

    y = 0.5 + 1 / value
    for _ in range(50):
        at = float(polygamma(1, y))
        step = at * (1 - at / value) / float(polygamma(2, y))
        y += step
        if abs(step) < 1e-10 * y:
            break
    return y
