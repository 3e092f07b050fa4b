"""Reference networks as attacks get them."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from toy_networks import toy_images, toy_snn

from leakbench.bench.stages.reference import BuiltReference
from leakbench.snn import SpikingConfig


def test_no_reference_answers_under_the_victim_s_noise_or_another_s() -> None:
    network = toy_snn(SpikingConfig(5, "poisson"))
    built: Any = SimpleNamespace(deployed=SimpleNamespace(copy=lambda: copy.deepcopy(network)))
    references = [BuiltReference(built, torch.ones(4, dtype=torch.bool), None).handed(number) for number in range(3)]  # type: ignore[arg-type]
    victim = copy.deepcopy(network)
    answers = [one(toy_images()) for one in (victim, *(reference.victim().network for reference in references))]
    for number, answer in enumerate(answers):
        assert all(not torch.equal(answer, other) for other in answers[:number])
    again = references[0].victim().network(toy_images())
    assert torch.equal(again, answers[1])  # the same whenever it is asked anew: a resumed attack sees what it saw


def test_what_an_attack_writes_into_a_reference_s_members_stays_with_it() -> None:
    """The same references serve the row's next attack."""
    held = torch.ones(4, dtype=torch.bool)
    reference = BuiltReference(SimpleNamespace(), held, None)  # type: ignore[arg-type]
    reference.handed(0).members.zero_()
    assert held.all() and reference.handed(0).members.all()
