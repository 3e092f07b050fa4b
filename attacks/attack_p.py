"""Membership from the loss among the losses of the population."""

from __future__ import annotations

from torch import Tensor

from leakbench.attacks.confidences import AnswersParams, confidences_of, share_below
from leakbench.contracts import Access, AttackContext, LabeledImages, MembershipAttack, Victim


class AttackP(MembershipAttack[AnswersParams]):
    """Scores an image by the share of images outside the training set on which the victim's loss is higher.

    Within one network its order is that of the losses: what it adds is a false positive rate that is known beforehand.
    Images of one share are in that order, too.
    """

    name = "attack_p"
    version = 3
    needs = Access.SCORES
    effort = "repeats"
    uses_population = True
    cites = "Ye, Maddi, Murakonda, Bindschaedler, Shokri: Enhanced Membership Inference Attacks, CCS 2022, Attack P"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        assert context.population is not None  # the contract's
        repeats = self.params.repeats
        asked = LabeledImages(candidates, labels)
        ours = confidences_of(victim, asked, repeats, context, "asking for the candidates' losses").logits
        population = LabeledImages(*(tensor.to(context.device) for tensor in context.population))
        others = confidences_of(victim, population, repeats, context, "asking for the population's losses").logits
        return share_below(ours, others)
