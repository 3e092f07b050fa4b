"""Membership from how a spiking victim's answer comes about: its readout after each of several steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.confidences import Confidences, temperature, true_class
from leakbench.attacks.shadow import shadow_scores
from leakbench.contracts import (
    Access,
    AttackContext,
    ImageClassifier,
    LabeledImages,
    MembershipAttack,
    Params,
    Rows,
    Victim,
)
from leakbench.errors import NotApplicable
from leakbench.snn import SpikingNetwork

_BATCH = 100


class TrajectoryParams(Params):
    """Where the readout is looked at, and how often."""

    points: int = Field(
        8, ge=1, le=1000, description="steps at which it is looked at, evenly over T, the last included"
    )
    repeats: int = Field(4, ge=1, le=10_000, description="simulations whose mean probabilities are taken")


class TrajectoryMia(MembershipAttack[TrajectoryParams]):
    """Scores an image by the confidences of its true class over T, read by a classifier that learnt from references.

    It needs the network itself: a deployment answers once, after its last step. One that hands out its readout at every
    step gives as much away to whoever has SCORES.
    """

    name = "trajectory_mia"
    version = 2
    needs = Access.WEIGHTS
    effort = "repeats"
    uses_references = True
    cites = "LeakBench; shadow classifiers: Shokri, Stronati, Song, Shmatikov, S&P 2017"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        asked = LabeledImages(candidates, labels)
        seen = watched(victim, asked, self.params, context, "watching the readout over T").confidences
        members = torch.stack([reference.members for reference in context.references])
        return shadow_scores(seen[0], seen[1:], members)


@dataclass(frozen=True)
class Watched:
    """What the victim, which comes first, and all references answer to N images over T."""

    confidences: Tensor
    """of the true class, logit-scaled: [1 + K, N, points]"""
    answers: Tensor
    """mean logits after the last step: [1 + K, N, classes]"""


def watched(
    victim: Victim, asked: LabeledImages, params: TrajectoryParams, context: AttackContext, what: str
) -> Watched:
    """What networks answer over T. NotApplicable where one does not spike."""
    networks = [lambda: victim.network, *((lambda r=r: r.victim().network) for r in context.references)]
    seeds = [context.seed() for _ in networks]
    rows = Rows()
    for number in context.loop(what).steps(len(networks), rows=rows):
        context.progress(what, number, len(networks))
        network = networks[number]()
        if isinstance(network, ImageClassifier):
            raise NotApplicable("trajectory_mia needs a spiking victim: this one answers in one step")
        rows.add(torch.cat(_trajectory(network, asked, params, seeds[number]), 1)[None])
    return Watched(*rows.tensor.split([rows.tensor.shape[2] - victim.classes, victim.classes], 2))


@torch.no_grad()
def _trajectory(
    network: SpikingNetwork, asked: LabeledImages, params: TrajectoryParams, seed: int
) -> tuple[Tensor, Tensor]:
    """Logit-scaled confidences [N, points], and mean logits after the last step [N, classes]."""
    stops = looked_at(network.config.timesteps, params.points)
    total = torch.full((2, len(stops), len(asked.labels)), -math.inf, dtype=torch.float64)
    answers = torch.zeros(len(asked.labels), network.classes, dtype=torch.float64)
    for repeat in range(params.repeats):
        parts = []
        for first in range(0, len(asked.labels), _BATCH):
            simulations = network.simulate_at(asked.images[first : first + _BATCH], stops, seed + repeat, first)
            parts.append(torch.stack([simulations[stop].logits for stop in stops]))
        readouts = torch.cat(parts, 1)
        readouts = readouts / temperature(readouts[-1])
        total = torch.logaddexp(total, torch.stack([true_class(x, asked.labels) for x in readouts], 1).cpu())
        answers += readouts[-1].cpu()
    own, rest = total - math.log(params.repeats)
    return Confidences(own, rest).logits.T, answers / params.repeats


def simulations(network: SpikingNetwork, params: TrajectoryParams) -> int:
    """How often an image is simulated. Windows of time end at a step: anew for each step that is looked at."""
    anew = len(looked_at(network.config.timesteps, params.points)) if network.config.neuron.windows else 1
    return params.repeats * anew


def looked_at(timesteps: int, points: int) -> Sequence[int]:
    """So many steps of 1..T, evenly and the last included; fewer where T is less."""
    return sorted({math.ceil(timesteps * number / points) for number in range(1, points + 1)})
