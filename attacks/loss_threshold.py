"""Membership from the loss: training images have a lower one."""

from __future__ import annotations

from torch import Tensor

from leakbench.attacks.confidences import AnswersParams, confidences_of
from leakbench.contracts import Access, AttackContext, LabeledImages, MembershipAttack, Victim


class LossThreshold(MembershipAttack[AnswersParams]):
    """Scores an image by the log odds of its true label: in the order of minus the victim's cross-entropy, which
    training has lowered, and apart where losses are 0 to the last digit.
    """

    name = "loss_threshold"
    version = 2
    needs = Access.SCORES
    effort = "repeats"
    cites = "Yeom, Giacomelli, Fredrikson, Jha: Privacy Risk in Machine Learning, CSF 2018, Adversary 2 (its score)"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        asked, what = LabeledImages(candidates, labels), "asking for the candidates' losses"
        return confidences_of(victim, asked, self.params.repeats, context, what).logits
