"""RMIA: membership by likelihood ratios against images of the population."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.confidences import Compared, Mode, ReferencesParams, compared, mean_over, share_below
from leakbench.contracts import Access, AttackContext, LabeledImages, MembershipAttack, Victim


class RmiaParams(ReferencesParams):
    """Which references an image is compared by, and how."""

    gamma: float = Field(
        1.0, gt=0, le=1000, description="times that an image must be likelier than one of the population (paper: 2)"
    )
    offline_a: float = Field(
        0.3, ge=0, le=1, description="a: the mean confidence of references trained on an image is a p + 1 - a"
    )


class Rmia(MembershipAttack[RmiaParams]):
    """Scores an image by the share of the population that it dominates in how much likelier the victim makes it.

    The ratio of x is p(x | victim) / p(x), with p(x) the mean over references. No reference was trained on images of
    the population: online their p(z) is the mean over all references as it is. gamma is 1 as in the authors' code
    (privacytrustlab/ml_privacy_meter, ``ratios > 1.0``). Images of one share are in the order of their ratios.
    """

    name = "rmia"
    version = 4
    needs = Access.SCORES
    effort = "repeats"
    uses_references = True
    uses_population = True
    cites = "Zarifzadeh, Liu, Shokri: Low-Cost High-Power Membership Inference Attacks, ICML 2024"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        assert context.population is not None  # the contract's
        repeats = self.params.repeats
        asked = LabeledImages(candidates, labels)
        ours = compared(victim, asked, repeats, context, "asking for the candidates' confidences")
        population = LabeledImages(*(tensor.to(context.device) for tensor in context.population))
        theirs = compared(victim, population, repeats, context, "asking for the population's confidences", outside=True)
        ratios = log_ratios(ours, self.params.mode, self.params.offline_a)
        others = log_ratios(theirs, self.params.mode, self.params.offline_a)
        return share_below(ratios, others, self.params.gamma)


def log_ratios(compared: Compared, mode: Mode, a: float) -> Tensor:
    """log(p(x | victim) / p(x)) of each image, [N].

    Online, where no reference was trained on any of them, p(x) is the mean over those that were not.
    """
    p, trained = compared.references.own.exp(), compared.members
    outside = mean_over(p, ~trained)
    inside = outside
    if mode == "offline":
        inside = a * outside + 1 - a
    elif bool(trained.any()):
        inside = mean_over(p, trained)
    # of an image that all references find impossible, the least that a float holds
    return compared.victim.own - ((inside + outside) / 2).clamp(min=torch.finfo(torch.float64).tiny).log()
