"""What the framework promises attacks on membership, and what it refuses from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_plugins import SHAPE, one_line, tiny
from torch import Tensor, nn

from leakbench import registry
from leakbench.contracts import (
    Access,
    Attack,
    AttackContext,
    BaseAttack,
    ImageClassifier,
    LabeledImages,
    MembershipAttack,
    Params,
    PublicImages,
    Reference,
    Victim,
)
from leakbench.errors import LeakBenchError, NoSignal, NotApplicable, NumericalError, PluginError, UsageError

LABELS = torch.tensor([0, 2, 1, 1])
CANDIDATES = torch.linspace(0, 1, 16).view(4, *SHAPE)


def attack(
    score: Callable[[Victim, Tensor, Tensor, AttackContext], Any], access: Access = Access.SCORES
) -> MembershipAttack[Params]:
    class Guesser(MembershipAttack[Params]):
        """Scores by what it is made with."""

        name = "guesser"
        needs = access

        def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
            scores: Tensor = score(victim, candidates, labels, context)
            return scores

    return Guesser()


def context() -> AttackContext:
    return AttackContext(torch.Generator().manual_seed(0))


def victim(access: Access = Access.WEIGHTS) -> Victim:
    return Victim(tiny(), access)


def test_scores_come_checked_with_cost_and_findings() -> None:
    def score(victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        for _ in context.steps(3, "guessing"):
            victim.scores(candidates)
        context.finding("guesses", 4)
        return (candidates.flatten(1).mean(1) + labels).float().requires_grad_()

    ours = context()
    outcome = attack(score)(victim(), CANDIDATES, LABELS, ours)
    assert (outcome.scores.dtype, outcome.scores.requires_grad) == (torch.float64, False)
    assert outcome.scores.tolist() == pytest.approx(
        [(1.5 + 4 * i) / 15 + label for i, label in enumerate([0, 2, 1, 1])]
    )
    assert (outcome.cost.queries, outcome.cost.gradient_steps) == (3 * 4, 3)
    assert outcome.cost.seconds > 0
    assert outcome.findings == {"guesses": 4.0}
    # the next call counts from nothing
    assert attack(score)(victim(), CANDIDATES, LABELS, ours).cost.queries == 12


def an_infinite_finding(_victim: Victim, candidates: Tensor, _labels: Tensor, context: AttackContext) -> Tensor:
    context.finding("x", float("inf"))
    return torch.zeros(len(candidates))


@pytest.mark.parametrize(
    ("score", "error", "message"),
    [
        (lambda _v, c, *_: torch.zeros(len(c) - 1), PluginError, "run must return scores of shape (4,), got (3,)"),
        (lambda _v, c, *_: torch.zeros(len(c), 1), PluginError, "scores of shape (4,), got (4, 1)"),
        (lambda *_: [0.0] * 4, PluginError, "scores of shape (4,), got list"),
        (lambda *_: None, PluginError, "scores of shape (4,), got NoneType"),
        (lambda _v, c, *_: torch.full((len(c),), float("nan")), NumericalError, "gave scores of NaN or infinity"),
        (lambda _v, _c, labels, _: -1 / (labels - 2), NumericalError, "gave scores of NaN or infinity"),
        (an_infinite_finding, NumericalError, "guesser found inf for 'x'"),
    ],
    ids=["too few", "columns", "list", "None", "NaN", "one infinity", "finding"],
)
def test_scores_that_break_the_contract_are_refused(score: Any, error: type[LeakBenchError], message: str) -> None:
    with pytest.raises(error) as caught:
        attack(score)(victim(), CANDIDATES, LABELS, context())
    assert type(caught.value) is error
    assert message in one_line(caught) and one_line(caught).startswith("guesser")


def test_an_attack_on_membership_gets_what_it_needs_and_not_more() -> None:
    def score(victim: Victim, candidates: Tensor, _labels: Tensor, _context: AttackContext) -> Tensor:
        with pytest.raises(NotApplicable, match="needs SCORES, the victim grants LABELS"):
            victim.scores(candidates)
        return victim.labels(candidates).double()

    assert attack(score, Access.LABELS)(victim(), CANDIDATES, LABELS, context()).cost.queries == 4
    with pytest.raises(NotApplicable, match="guesser needs SCORES, the victim grants LABELS"):
        attack(score)(victim(Access.LABELS), CANDIDATES, LABELS, context())


def test_a_victim_that_answers_nothing_is_no_protection() -> None:
    silent = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), SHAPE, 3)
    nn.init.zeros_(silent.body[1].weight)  # type: ignore[index, arg-type]
    with pytest.raises(NoSignal, match="constant network"):
        attack(lambda _v, c, *_: torch.zeros(len(c)))(Victim(silent, Access.SCORES), CANDIDATES, LABELS, context())


def test_public_images_are_for_those_that_say_so() -> None:
    seen: list[Any] = []
    guesser = attack(lambda _v, c, _l, ours: seen.append(ours.public) or torch.zeros(len(c)))  # type: ignore[func-returns-value]
    ours = context()
    ours.public = PublicImages(torch.zeros(1, *SHAPE, dtype=torch.uint8), "the tests'")
    guesser(victim(), CANDIDATES, LABELS, ours)
    assert seen == [None]
    type(guesser).uses_public = True
    with pytest.raises(NotApplicable, match="guesser needs public images"):
        guesser(victim(), CANDIDATES, LABELS, ours)


def test_synthetic_images_are_for_those_that_say_so() -> None:
    seen: list[Any] = []
    guesser = attack(lambda _v, c, _l, ours: seen.append(ours.synthetic) or torch.zeros(len(c)))  # type: ignore[func-returns-value]
    ours = context()
    ours.synthetic = CANDIDATES
    guesser(victim(), CANDIDATES, LABELS, ours)
    assert seen.pop() is None
    type(guesser).uses_synthetic = True
    with pytest.raises(NotApplicable, match="guesser needs images that the defence synthesised: this one kept none"):
        guesser(victim(), CANDIDATES, LABELS, ours)
    ours.synthetic = CANDIDATES
    guesser(victim(), CANDIDATES, LABELS, ours)
    assert seen.pop() is CANDIDATES


def test_references_and_population_are_for_those_that_say_so_and_with_their_access() -> None:
    seen: list[Any] = []

    def score(_victim: Victim, candidates: Tensor, _labels: Tensor, ours: AttackContext) -> Tensor:
        seen.append((len(ours.references), ours.population))
        for reference in ours.references:
            asked = reference.victim()
            asked.labels(candidates)
            with pytest.raises(NotApplicable, match="needs SCORES"):
                asked.scores(candidates)
        return torch.zeros(len(candidates))

    guesser = attack(score, Access.LABELS)
    ours = context()
    population = LabeledImages(CANDIDATES, LABELS)

    def equipped(members: Tensor) -> AttackContext:
        ours.references, ours.population = (Reference(members, victim),) * 2, population
        return ours

    half = torch.tensor([True, False, True, False])
    guesser(victim(), CANDIDATES, LABELS, equipped(half))
    assert seen.pop() == (0, None)
    type(guesser).uses_references = type(guesser).uses_population = True
    # what its own networks answer costs an attacker no queries
    assert guesser(victim(), CANDIDATES, LABELS, equipped(half)).cost.queries == 0
    assert seen.pop() == (2, population)
    with pytest.raises(UsageError, match="of 4 candidates"):
        guesser(victim(), CANDIDATES, LABELS, equipped(half[:3]))
    with pytest.raises(NotApplicable, match="guesser needs reference networks"):
        guesser(victim(), CANDIDATES, LABELS, context())
    type(guesser).uses_references = False
    with pytest.raises(NotApplicable, match="guesser needs images that the victim was not trained on"):
        guesser(victim(), CANDIDATES, LABELS, context())


@pytest.mark.parametrize(
    ("candidates", "labels", "message"),
    [
        (CANDIDATES[:3], LABELS, r"candidates must have the shape \(4, 1, 2, 2\), got \(3, 1, 2, 2\)"),
        (CANDIDATES.flatten(1), LABELS, r"candidates must have the shape \(4, 1, 2, 2\), got \(4, 4\)"),
        (CANDIDATES, torch.tensor([0, 1, 2, 3]), r"labels must be classes 0\.\.2"),
        (CANDIDATES, torch.tensor([0, 1, 2, -1]), r"labels must be classes 0\.\.2"),
    ],
)
def test_candidates_that_do_not_fit_are_refused(candidates: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        attack(lambda _v, c, *_: torch.zeros(len(c)))(victim(), candidates, labels, context())


def test_kinds_of_leak() -> None:
    assert (Attack.leakage, MembershipAttack.leakage) == ("inversion", "membership")
    assert issubclass(Attack, BaseAttack) and issubclass(MembershipAttack, BaseAttack)
    assert not issubclass(MembershipAttack, Attack)
    assert MembershipAttack.kind == "attack"


def test_the_registry_knows_both_and_misses_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    guesser = type(attack(lambda _v, c, *_: torch.zeros(len(c))))
    monkeypatch.setitem(registry._registered, "attack", {"guesser": guesser})
    assert registry.load("attack", "guesser") is guesser
    monkeypatch.delattr(guesser, "needs")
    with pytest.raises(PluginError, match=r"'guesser' is incomplete: it must say what it needs"):
        registry.load("attack", "guesser")


def test_references_go_with_members_of_the_training_alone() -> None:
    """They would say of other images than the candidates which of them they were trained on."""
    with pytest.raises(PluginError, match=r"Both: uses_references = True goes with asks_of = 'training' alone"):
        type("Both", (MembershipAttack,), {"uses_references": True, "asks_of": "conversion"})
    for alone in ({"uses_references": True}, {"asks_of": "conversion"}):
        assert issubclass(type("One", (MembershipAttack,), alone), MembershipAttack)
