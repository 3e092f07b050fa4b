"""Membership from the loss: training images have a lower one."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.search import answers_of
from leakbench.contracts import Access, AttackContext, MembershipAttack, Params, Variables, Victim


class LossThresholdParams(Params):
    """How often the victim is asked."""

    repeats: int = Field(
        4, ge=1, le=10_000, description="answers whose mean probabilities are taken: a spiking victim's are noisy"
    )


class LossThreshold(MembershipAttack[LossThresholdParams]):
    """Scores an image by minus the victim's cross-entropy for its true label, which training has lowered."""

    name = "loss_threshold"
    needs = Access.SCORES
    effort = "repeats"
    cites = "Yeom, Giacomelli, Fredrikson, Jha: Privacy Risk in Machine Learning, CSF 2018, Adversary 2 (its score)"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        repeats, what = self.params.repeats, "asking for the candidates' losses"
        # as logarithms: a probability below 1e-308 is still a number
        summed = Variables(log=torch.full(labels.shape, -math.inf, dtype=torch.float64, device=labels.device))
        for number in context.loop(what).steps(repeats, summed=summed):
            context.progress(what, number, repeats)
            answers = answers_of(victim, candidates).double().log_softmax(1)
            summed.log = torch.logaddexp(summed.log, answers.gather(1, labels[:, None]).squeeze(1))
        return summed.log - math.log(repeats)
