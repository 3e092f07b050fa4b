"""What membership guesses prove of differential privacy: a lower bound on epsilon from one run (Steinke et al. 2023).

The theorem is of a mechanism whose candidates were each included by a fair coin of its own. Candidates here are a fixed
half of training images and as many of the test set, and the data set was split once and not by us. Where images of both
halves are exchangeable the bound is what such coins would have given; where they differ for another reason than
membership, that is counted as leakage.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from leakbench.contracts import Params
from leakbench.errors import UsageError
from leakbench.metrics.estimate import CONFIDENCE, exact
from leakbench.metrics.membership import MembershipMetric, ScoredCandidates, parted
from leakbench.metrics.metric import Measurement

DELTA = 1e-5
"""of the guarantee whose epsilon is bounded"""
SHARES = (0.01, 0.05, 0.2, 0.5)
"""of the candidates that are guessed members, and as many that are guessed others: chosen before any score is seen, and
each at a confidence by which all hold together"""
_BISECTIONS = 40


class AuditedEpsilon(MembershipMetric[Params]):
    """Epsilon that the network's training exceeds with 95 % confidence, by the guesses on the highest and the lowest
    scores (Steinke et al. 2023, one-run audit; delta 1e-5). 0 is chance. The confidence is for candidates that coins
    chose, which a fixed training set is not.

    A lower bound: that it is small is no evidence of privacy, and it never reaches the epsilon that holds.
    """

    name = "audited_epsilon"
    version = 3
    title = "Audited epsilon"
    leaks = "more"

    def measure(self, scored: ScoredCandidates) -> Measurement:
        if scored.question != "training":
            raise UsageError(f"an audit is of the training, and this attack asks of the {scored.question}")
        return Measurement(exact(audited_epsilon(scored.scores, scored.members), len(scored.scores)))


def audited_epsilon(scores: Tensor, members: Tensor, delta: float = DELTA, confidence: float = CONFIDENCE) -> float:
    """Lower bound on epsilon from scores [N] for members, bool [N]; the highest over :data:`SHARES`, by Bonferroni.

    Ties are broken at random. Raises as :func:`leakbench.metrics.membership.auc`.
    """
    parted(scores, members)
    # candidates of one score must not stand in an order that says which are members
    shuffled = torch.randperm(len(scores), generator=torch.Generator().manual_seed(0))
    order = shuffled[scores.double().cpu()[shuffled].argsort(stable=True)]
    truth = members.bool().cpu()[order]
    count, level = len(truth), (1 - confidence) / len(SHARES)
    bounds = [0.0]
    for share in SHARES:
        guessed = math.floor(share * count)
        if guessed:
            correct = int(truth[-guessed:].sum()) + int((~truth[:guessed]).sum())
            bounds.append(epsilon_bound(count, 2 * guessed, correct, delta, level))
    return max(bounds)


def epsilon_bound(candidates: int, guesses: int, correct: int, delta: float, level: float) -> float:
    """The largest epsilon >= 0 that is rejected at ``level`` (Steinke et al. 2023, appendix D); 0 where none is."""
    if audit_p(candidates, guesses, correct, 0.0, delta) >= level:
        return 0.0
    low, high = 0.0, 1.0
    while audit_p(candidates, guesses, correct, high, delta) < level:
        low, high = high, 2 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        rejected = audit_p(candidates, guesses, correct, middle, delta) < level
        low, high = (middle, high) if rejected else (low, middle)
    return low


def audit_p(candidates: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """How probable so many correct guesses are at most, if training is (epsilon, delta)-private.

    Theorem 5.2 of Steinke, Nasr and Jagielski: beta + 2 m delta alpha, where beta = P[B >= v] of a binomial B of r
    guesses, each right with probability e^eps / (1 + e^eps), and alpha the largest of P[v > B >= v - i] / i over
    i = 1..v. UsageError for counts that don't fit together.
    """
    if not 0 <= correct <= guesses <= candidates:
        raise UsageError(f"0 <= correct <= guesses <= candidates is needed, got {correct}, {guesses}, {candidates}")
    import numpy as np
    from scipy.stats import binom  # scipy.stats takes half a second to load

    right = 1 / (1 + math.exp(-epsilon))
    beta = float(binom.sf(correct - 1, guesses, right))
    alpha = 0.0
    if correct and delta:
        below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))
        alpha = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, beta + 2 * candidates * delta * alpha)
