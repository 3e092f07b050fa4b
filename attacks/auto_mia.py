"""The first ensemble on membership with a fixed budget and no knobs.

Its members' signals of a candidate (plain answers, answers with pixels dropped, the readout over T of a spiking victim)
are weighed by one classifier that learns from references, where the truth is known: no member has to be chosen by its
success on the victim, which an attacker does not know.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.attacks.confidences import compared
from leakbench.attacks.lira import Lira
from leakbench.attacks.noise_mia import NoiseMia, dropped_pixels
from leakbench.attacks.shadow import shadow_scores
from leakbench.attacks.trajectory_mia import TrajectoryMia, watched
from leakbench.contracts import Access, AttackContext, LabeledImages, MembershipAttack, Params, Victim
from leakbench.snn import SpikingNetwork

# Written out, so that no change of an attack's defaults changes what auto_mia-v1 computes.
ANSWERS = Lira(repeats=4, mode="online", variance="auto", calibrated=False)
NOISE = NoiseMia(draws=10, dropout=0.01)
TRAJECTORY = TrajectoryMia(points=8, repeats=4)
QUERIES = ANSWERS.params.repeats + NOISE.params.draws
"""of an image; beside them what it simulates itself"""


class AutoMiaV1(MembershipAttack[Params]):
    """The first version of auto_mia: answers, answers under noise and the readout over T, weighed by references.

    At a fixed budget of 14 queries and, of a spiking victim, 4 simulations an image.
    """

    name = "auto_mia-v1"
    version = 5
    needs = Access.WEIGHTS
    ensemble = True
    members = (ANSWERS, NOISE, TRAJECTORY)
    uses_references = True
    cites = "LeakBench; shadow classifiers: Shokri et al., S&P 2017; after Croce & Hein (AutoAttack), ICML 2020"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        context.finding("budget, queries an image", QUERIES)
        asked = LabeledImages(candidates, labels)

        def dropped(images: Tensor, generator: torch.Generator) -> Tensor:
            return dropped_pixels(images, NOISE.params.dropout, generator)

        plain = compared(victim, asked, ANSWERS.params.repeats, context, f"{self.name}: plain answers")
        noisy = compared(victim, asked, NOISE.params.draws, context, f"{self.name}: pixels dropped", dropped)
        ours = [one.victim.logits[:, None] for one in (plain, noisy)]
        theirs = [one.references.logits[..., None] for one in (plain, noisy)]
        if isinstance(victim.network, SpikingNetwork):
            seen = watched(victim, asked, TRAJECTORY.params, context, f"{self.name}: readout over T").confidences
            ours.append(seen[0].to(candidates.device))
            theirs.append(seen[1:].to(candidates.device))
        return shadow_scores(torch.cat(ours, 1), torch.cat(theirs, 2), plain.members)
