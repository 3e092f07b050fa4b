"""What copies draw that lost the neurons which serve what ascents find most."""

from __future__ import annotations

from torch import Tensor, nn

from leakbench.attacks.copies import GLANCE, GLANCES, Original, members_of, pruned, readings_of
from leakbench.attacks.members import INVERSION, drawn_together
from leakbench.contracts import Access, Attack, AttackContext, ModuleNetwork, Params, Victim
from leakbench.errors import NotApplicable

_COPIES, _CUT, _ROUNDS = 2, 0.04, 3
"""copies, and the share of the last layer's inputs that each loses in a round"""
_SEARCHES = 2
GRADIENT_STEPS = _SEARCHES * INVERSION.params.iterations + _COPIES * _ROUNDS * GLANCE.iterations
"""what it spends on an image at most"""


class Pruned(Attack[Params]):
    """Copies without the neurons that serve what short ascents find more than natural images: decoys' own neurons.

    Part of `auto`.
    """

    name = "pruned"
    needs = Access.WEIGHTS
    uses_public = True
    ensemble = True
    members = (INVERSION,) * _SEARCHES
    cites = "LeakBench; after Liu, Dolan-Gavitt, Garg (Fine-Pruning), RAID 2018"

    @classmethod
    def prepared_images(cls, classes: int) -> int:
        return _COPIES * _ROUNDS * GLANCE.iterations * GLANCES * classes

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        context.finding("budget, gradient steps an image", GRADIENT_STEPS)
        if isinstance(victim.network, ModuleNetwork):
            raise NotApplicable("the network is a module whose layers can't be read: none can be pruned")
        original = Original(victim, context)
        if not any(isinstance(layer, nn.Linear) for layer in original.relu.modules()):
            raise NotApplicable("pruned needs a network with a linear last layer, whose inputs it cuts off")
        copies = [
            pruned(original.relu, original.natural, original.classes, original.ascents, _CUT, _ROUNDS)
            for _ in range(_COPIES)
        ]
        members, readings = members_of("pruned copies", copies, original), readings_of("pruned copy", copies)
        return drawn_together(self.name, members, readings, targets, victim.image_shape, context)
