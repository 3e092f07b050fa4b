from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import beta as beta_distribution
from scipy.stats import binom

from leakbench.errors import UsageError
from leakbench.metrics.audit import AuditedEpsilon, audit_p, audited_epsilon, epsilon_bound
from leakbench.metrics.membership import ScoredCandidates


def authors_p(m: int, r: int, v: int, eps: float, delta: float) -> float:
    """Appendix D of arXiv 2305.08846, the paper's own code, line by line."""
    q = 1 / (1 + math.exp(-eps))
    beta = binom.sf(v - 1, r, q)
    alpha = total = 0.0
    for i in range(1, v + 1):
        total += binom.pmf(v - i, r, q)
        if total > i * alpha:
            alpha = total / i
    return float(min(beta + alpha * delta * 2 * m, 1.0))


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
@pytest.mark.parametrize(("m", "r", "v"), [(10, 0, 0), (10, 10, 0), (100, 40, 33), (1000, 100, 100), (500, 500, 260)])
def test_p_is_the_papers(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    assert audit_p(m, r, v, epsilon, delta) == pytest.approx(authors_p(m, r, v, epsilon, delta), rel=1e-9)


@pytest.mark.parametrize(("r", "v"), [(50, 50), (100, 90), (400, 260)])
def test_without_delta_it_is_the_exact_bound_of_a_proportion(r: int, v: int) -> None:
    # Clopper and Pearson's lower end of the share of right guesses, as the odds that epsilon allows
    share = beta_distribution.ppf(0.05, v, r - v + 1)
    assert epsilon_bound(1000, r, v, 0.0, 0.05) == pytest.approx(math.log(share / (1 - share)), abs=1e-6)


def test_a_bound_is_rejected_and_what_is_above_is_not() -> None:
    bound = epsilon_bound(1000, 100, 95, 1e-5, 0.05)
    assert audit_p(1000, 100, 95, bound, 1e-5) < 0.05 <= audit_p(1000, 100, 95, bound + 1e-6, 1e-5)
    assert bound > epsilon_bound(1000, 100, 95, 1e-3, 0.05) > 0


def test_guesses_at_chance_prove_nothing() -> None:
    assert epsilon_bound(1000, 100, 50, 1e-5, 0.05) == 0
    members = torch.arange(1000) < 500
    assert audited_epsilon(torch.zeros(1000), members) == 0  # ties say nothing, however candidates are ordered
    generator = torch.Generator().manual_seed(0)
    assert audited_epsilon(torch.rand(1000, generator=generator), members) == 0


def test_all_right_is_what_so_many_candidates_can_prove() -> None:
    members = torch.arange(1000) < 500
    found = audited_epsilon(members.double(), members, delta=0.0)
    share = (0.05 / 4) ** (1 / 1000)
    assert found == pytest.approx(math.log(share / (1 - share)), abs=1e-6)
    assert audited_epsilon(members.double()[:100], members[:100] ^ (torch.arange(100) >= 50), delta=0.0) < found


def test_few_that_are_certain_are_enough() -> None:
    generator = torch.Generator().manual_seed(1)
    members = torch.arange(2000) < 1000
    scores = torch.rand(2000, generator=generator)
    scores[:100] += 1
    scores[-100:] -= 1
    assert audited_epsilon(scores, members) > 2
    assert AuditedEpsilon().measure(ScoredCandidates(scores, members)).estimate.value > 2


def test_what_a_conversion_read_is_no_audit_of_the_training() -> None:
    members = torch.arange(1000) < 500
    scored = ScoredCandidates(members.double(), members, "conversion")
    for one in (scored, scored.copied()):
        with pytest.raises(UsageError, match="of the training, and this attack asks of the conversion"):
            AuditedEpsilon().measure(one)


def test_bounds_hold_for_randomised_response() -> None:
    # each membership told truly with probability e^eps / (1 + e^eps), which is eps-private and no more
    generator = torch.Generator().manual_seed(2)
    epsilon, above = 1.0, 0
    for _ in range(60):
        members = torch.rand(400, generator=generator) < 0.5
        told = members ^ (torch.rand(400, generator=generator) > 1 / (1 + math.exp(-epsilon)))
        above += audited_epsilon(told.double(), members, delta=0.0) > epsilon
    assert above <= 8  # 3 are expected at most; more than 8 have a probability below .01


@pytest.mark.parametrize(("m", "r", "v"), [(10, 11, 1), (10, 5, 6), (10, 5, -1)])
def test_counts_that_do_not_fit_are_refused(m: int, r: int, v: int) -> None:
    with pytest.raises(UsageError, match="correct <= guesses <= candidates"):
        audit_p(m, r, v, 1.0, 0.0)


def test_one_side_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="members and others"):
        audited_epsilon(torch.zeros(4), torch.ones(4, dtype=torch.bool))
