"""The attack to report on membership, with a fixed budget and no knobs: readout over T and whole answer.

What `auto_mia-v2` reads, how sure of the true class a network is after each of several steps, is weighed with what a
forest makes of its whole answer: a network may mark its members in the wrong classes alone. Nothing more is asked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.attacks.confidences import Confidences, true_class
from leakbench.attacks.shadow import shadow_scores
from leakbench.attacks.shadow_mia import ShadowMia, forest_scores, prediction_vectors
from leakbench.attacks.trajectory_mia import TrajectoryMia, simulations, watched
from leakbench.contracts import Access, AttackContext, LabeledImages, MembershipAttack, Params, Victim
from leakbench.snn import SpikingNetwork

# Written out, so that no change of an attack's defaults changes what auto_mia-v3 computes.
TRAJECTORY, ANSWER = TrajectoryMia(points=8, repeats=4), ShadowMia(repeats=4)
QUERIES = 1
"""of an image, where the victim is an ANN: its answer is the same each time"""
SIMULATIONS = TRAJECTORY.params.repeats
"""of an image, where it spikes"""


class AutoMiaV3(MembershipAttack[Params]):
    """Recommended: membership from the readout over T and the whole answer, weighed by references.

    At a fixed budget of 4 simulations an image, of ``han_roy2020`` 4 for each of 8 steps; of an ANN, 1 query.
    """

    name = "auto_mia-v3"
    version = 3
    needs = Access.WEIGHTS
    ensemble = True
    members = (TRAJECTORY, ANSWER)
    uses_references = True
    cites = "LeakBench; shadow classifiers: Shokri et al., S&P 2017; after Croce & Hein (AutoAttack), ICML 2020"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        asked = LabeledImages(candidates, labels)
        if isinstance(network := victim.network, SpikingNetwork):
            context.finding("budget, simulations an image", simulations(network, TRAJECTORY.params))
            seen = watched(victim, asked, TRAJECTORY.params, context, f"{self.name}: readout over T")
            confidences, answers = seen.confidences, seen.answers
        else:
            context.finding("budget, queries an image", QUERIES)
            answers = prediction_vectors(victim, asked, QUERIES, context, f"{self.name}: answers")
            logs = torch.stack([true_class(one, labels.cpu()) for one in answers], 1)
            confidences = Confidences(*logs).logits[..., None]
        read = forest_scores(answers, labels, context, f"{self.name}: learning from answers")
        members = torch.stack([reference.members for reference in context.references]).cpu()
        return shadow_scores(confidences[0], confidences[1:], members, read)
