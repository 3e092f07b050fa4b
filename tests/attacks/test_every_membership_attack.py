"""What holds for every built-in attack on membership, one row each; a new attack is one row more."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_origin

import pytest
import torch
from memorisers import Planted, planted

from leakbench import registry
from leakbench.contracts import (
    Access,
    AttackContext,
    LabeledImages,
    MembershipAttack,
    MembershipScores,
    Reference,
    Victim,
)
from leakbench.errors import NotApplicable
from leakbench.metrics.membership import auc, true_positives
from leakbench.snn import SpikingNetwork


@dataclass(frozen=True)
class Row:
    """How an attack is kept fast, what it may use, and what it must then find of a memoriser."""

    needs: Access
    params: dict[str, Any] = field(default_factory=dict)
    queries: int = 0
    """of an image"""
    of_population: int = 0
    """queries of an image of the population"""
    population: bool = False
    synthetic: bool = False
    """whether it uses images that the defence synthesised, which of a memoriser there are none"""
    references: bool = False
    area: float = 0.6
    """AUC at least where the true class has a bump of 4 in the logits of training images"""
    spiking_only: bool = False


ATTACKS = {
    "loss_threshold": Row(Access.SCORES, {"repeats": 2}, 2),
    "attack_p": Row(Access.SCORES, {"repeats": 2}, 2, of_population=2, population=True),
    "rmia": Row(Access.SCORES, {"repeats": 2}, 2, of_population=2, population=True, references=True, area=0.99),
    "lira": Row(Access.SCORES, {"repeats": 2}, 2, references=True, area=0.99),
    "bavaria": Row(Access.SCORES, {"repeats": 2}, 2, references=True, area=0.99),
    "shadow_mia": Row(Access.SCORES, {"repeats": 2}, 2, references=True, area=0.9),
    "threshold_membership": Row(Access.WEIGHTS, {"draws": 2}, spiking_only=True),
    "synthetic_leak": Row(Access.LABELS, population=True, synthetic=True),
    "noise_mia": Row(Access.SCORES, {"draws": 3, "dropout": 0.0}, 3),
    "label_only_mia": Row(Access.LABELS, {"draws": 7}, 7 + 9),
    "gradient_mia": Row(Access.WEIGHTS),
    "trajectory_mia": Row(Access.WEIGHTS, {"repeats": 1}, references=True, spiking_only=True),
    "auto_mia-v1": Row(Access.WEIGHTS, queries=14, references=True, area=0.99),
    "auto_mia-v2": Row(Access.WEIGHTS, queries=1, references=True, area=0.99),
    "auto_mia-v3": Row(Access.WEIGHTS, queries=1, references=True, area=0.99),
}
every = pytest.mark.parametrize("name", list(ATTACKS))
on_anns = pytest.mark.parametrize(
    "name", [name for name, row in ATTACKS.items() if not row.spiking_only and not row.synthetic]
)


def attack(name: str) -> MembershipAttack[Any]:
    made: MembershipAttack[Any] = registry.load("attack", name)(**ATTACKS[name].params)
    return made


def run(name: str, given: Planted) -> MembershipScores:
    return attack(name)(given.victim(), given.candidates.images, given.candidates.labels, given.context)


def test_the_table_is_complete() -> None:
    built_in = [entry.name for entry in registry.entries("attack").values() if entry.origin == "built-in"]
    assert [name for name in built_in if registry.load("attack", name).leakage == "membership"] == list(ATTACKS)


@every
def test_every_parameter_is_described_and_bounded_and_the_attack_says_where_it_is_from(name: str) -> None:
    plugin = registry.load("attack", name)
    assert plugin.cites
    for parameter, info in plugin.Params.model_fields.items():
        assert info.description, parameter
        assert info.metadata or get_origin(info.annotation) is Literal or info.annotation is bool, parameter


@on_anns
def test_it_finds_the_members_of_a_memoriser(name: str) -> None:
    given = planted(4.0)
    outcome = run(name, given)
    assert auc(outcome.scores, given.members).value > ATTACKS[name].area
    row = ATTACKS[name]
    assert outcome.cost.queries == row.queries * 400 + row.of_population * 300


@pytest.mark.parametrize("name", ["rmia", "lira", "bavaria", "auto_mia-v1", "auto_mia-v2", "auto_mia-v3"])
def test_with_references_nearly_all_members_are_found_at_few_false_positives(name: str) -> None:
    given = planted(4.0)
    found = true_positives(run(name, given).scores, given.members, 0.01)
    assert found.value > 0.9


@on_anns
def test_the_same_seed_gives_the_same_scores(name: str) -> None:
    first, again = (run(name, planted(1.0, candidates=60)).scores for _ in range(2))
    assert torch.equal(first, again)


@every
@pytest.mark.parametrize("granted", [Access.LABELS, Access.SCORES])
def test_less_access_than_it_needs_is_refused(name: str, granted: Access) -> None:
    if granted >= ATTACKS[name].needs:
        return
    given = planted(1.0, candidates=20)
    with pytest.raises(NotApplicable, match=f"{name} needs {ATTACKS[name].needs.name}"):
        attack(name)(given.victim(granted), given.candidates.images, given.candidates.labels, given.context)


@every
def test_without_what_it_uses_it_is_not_applicable(name: str) -> None:
    given, row = planted(1.0, candidates=20), ATTACKS[name]
    plugin = attack(name)
    assert plugin.uses_references == row.references
    assert (plugin.uses_population, plugin.uses_synthetic) == (row.population, row.synthetic)
    bare = replace(given.context, references=(), population=None)
    if row.references or row.population:
        with pytest.raises(NotApplicable, match=f"{name} needs"):
            plugin(given.victim(), given.candidates.images, given.candidates.labels, bare)


@pytest.mark.parametrize("name", [name for name, row in ATTACKS.items() if row.spiking_only])
def test_what_needs_spikes_says_so(name: str) -> None:
    with pytest.raises(NotApplicable, match=f"{name} needs a spiking victim"):
        run(name, planted(1.0, candidates=20))


@pytest.mark.slow
@every
def test_it_scores_candidates_of_a_spiking_network_and_leaves_it_as_it_was(
    name: str, digits_snn: SpikingNetwork
) -> None:
    random = torch.Generator().manual_seed(3)
    count = 12
    images, labels = torch.rand(count, 1, 8, 8, generator=random), torch.arange(count) % 10
    context = AttackContext(torch.Generator().manual_seed(0))
    half = torch.arange(count) % 2 == 0
    pairs = [half, ~half, half.roll(1) ^ (torch.arange(count) < 4), ~(half.roll(1) ^ (torch.arange(count) < 4))]
    context.references = tuple(Reference(chosen, lambda: Victim(digits_snn, Access.WEIGHTS)) for chosen in pairs)
    context.population, context.synthetic = LabeledImages(images, labels), images.flip(3)
    before = {key: value.clone() for key, value in digits_snn.state_dict().items()}
    digits_snn.reseed(1)
    outcome = attack(name)(Victim(digits_snn, Access.WEIGHTS), images, labels, context)
    assert outcome.scores.shape == (count,)
    assert all(torch.equal(value, before[key]) for key, value in digits_snn.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in digits_snn.parameters())
