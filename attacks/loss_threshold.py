"""Membership from the loss: training images have a lower one."""

from __future__ import annotations

import math
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.search import answers_of
from leakbench.contracts import Access, AttackContext, MembershipAttack, Params, Victim


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
        repeats, log_probabilities = self.params.repeats, []
        ask = partial(answers_of, victim, candidates)
        for number in range(repeats):
            context.progress("asking for the candidates' losses", number, repeats)
            answers = context.once("asking for the candidates' losses", ask).double().log_softmax(1)
            log_probabilities.append(answers.gather(1, labels[:, None]).squeeze(1))
        # log of the mean probability: that of a probability below 1e-308 is still a number
        return torch.stack(log_probabilities).logsumexp(0) - math.log(repeats)
