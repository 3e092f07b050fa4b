"""What copies draw that unlearned where short ascents end."""

from __future__ import annotations

from torch import Tensor

from leakbench.attacks.copies import GLANCE, GLANCES, Original, members_of, readings_of, repaired
from leakbench.attacks.distillation import BATCH
from leakbench.attacks.members import BLACK, INVERSION, Member, drawn_together
from leakbench.contracts import Access, Attack, AttackContext, Params, Victim

_COPIES, _LR, _STEPS = 3, 5e-3, 100
_SEARCHES = 2 + _COPIES
GRADIENT_STEPS = _SEARCHES * INVERSION.params.iterations + _COPIES * (GLANCE.iterations + _STEPS)
"""what it spends on an image at most, lessons included"""


class Repaired(Attack[Params]):
    """Copies that unlearned what short ascents find, decoys first of all, and answer natural images as before.

    Part of `auto`. Three copies, each taught by ascents of its own; they draw together and alone.
    """

    name = "repaired"
    needs = Access.WEIGHTS
    uses_public = True
    ensemble = True
    members = (INVERSION,) * _SEARCHES
    cites = "LeakBench; unlearning of triggers that were found: Wang et al. (Neural Cleanse), S&P 2019"

    @classmethod
    def prepared_images(cls, classes: int) -> int:
        return _COPIES * (GLANCE.iterations * GLANCES * classes + _STEPS * 2 * BATCH)

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        context.finding("budget, gradient steps an image", GRADIENT_STEPS)
        original = Original(victim, context)
        answers = original.answers(original.relu, original.natural)
        copies = [
            repaired(
                original.relu,
                original.natural,
                answers,
                original.ascents(original.relu),
                _LR,
                _STEPS,
                context,
                f"repaired: teaching copy {number} of {_COPIES}",
            )
            for number in range(1, _COPIES + 1)
        ]
        members = [
            *members_of("repaired copies", copies, original),
            *(Member("a repaired copy, from black", copy, brightness=BLACK) for copy in copies),
        ]
        readings = readings_of("repaired copy", copies)
        return drawn_together(self.name, members, readings, targets, victim.image_shape, context)
