"""The second ensemble on membership with a fixed budget and no knobs: the readout over T, weighed by references.

The last of the steps that a readout is looked at after is T: a simulation gives the answer along with the readout.
What `auto_mia-v1` asks beside it, 14 answers more, told no more on average (docs/results/single-measurements.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.attacks.confidences import compared
from leakbench.attacks.shadow import shadow_scores
from leakbench.attacks.trajectory_mia import TrajectoryMia, simulations, watched
from leakbench.contracts import Access, AttackContext, LabeledImages, MembershipAttack, Params, Victim
from leakbench.snn import SpikingNetwork

# Written out, so that no change of an attack's defaults changes what auto_mia-v2 computes.
TRAJECTORY = TrajectoryMia(points=8, repeats=4)
QUERIES = 1
"""of an image, where the victim is an ANN: its answer is the same each time"""
SIMULATIONS = TRAJECTORY.params.repeats
"""of an image, where it spikes"""


class AutoMiaV2(MembershipAttack[Params]):
    """The predecessor of auto_mia-v3: the readout over T, of which the true class alone is read, weighed by references.

    At a fixed budget of 4 simulations an image, of ``han_roy2020`` 4 for each of 8 steps; of an ANN, 1 query.
    """

    name = "auto_mia-v2"
    version = 2
    needs = Access.WEIGHTS
    ensemble = True
    members = (TRAJECTORY,)
    uses_references = True
    cites = "LeakBench; shadow classifiers: Shokri et al., S&P 2017; after Croce & Hein (AutoAttack), ICML 2020"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        asked = LabeledImages(candidates, labels)
        if isinstance(network := victim.network, SpikingNetwork):
            context.finding("budget, simulations an image", simulations(network, TRAJECTORY.params))
            seen = watched(victim, asked, TRAJECTORY.params, context, f"{self.name}: readout over T").confidences
            members = torch.stack([reference.members for reference in context.references])
            return shadow_scores(seen[0], seen[1:], members)
        context.finding("budget, queries an image", QUERIES)
        plain = compared(victim, asked, QUERIES, context, f"{self.name}: answers")
        return shadow_scores(plain.victim.logits[:, None], plain.references.logits[..., None], plain.members)
