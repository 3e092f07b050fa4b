"""The ensemble to report, second version: the victim's claims stop no member, and alone they choose nothing.

It sees the network as it is, junk of honeypots included. Its companions (``repaired``, ``pruned``,
``distilled``) see networks that forgot it or never learnt it, and less of the rest. Nobody has to choose whom to
believe: each hands over its own images, and the worst case counts.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from leakbench.attacks.members import BLACK, INVERSION, TWIN, WHITE, Member, Reading, drawn_together
from leakbench.attacks.search import answers_of, followed
from leakbench.contracts import Access, Attack, AttackContext, ModuleNetwork, Params, Victim
from leakbench.errors import NoSignal
from leakbench.snn import SpikingNetwork, analog_twin

_SEARCHES = 5
GRADIENT_STEPS = _SEARCHES * INVERSION.params.iterations
QUERIES = _SEARCHES * INVERSION.params.confidence_draws
"""what it spends on an image at most"""


class AutoV2(Attack[Params]):
    """Recommended: searches the ReLU network and the analog twin from noise, black and white.

    At a fixed budget. Both networks and the victim choose among the images.
    """

    name = "auto-v2"
    version = 5
    needs = Access.WEIGHTS
    ensemble = True
    members = (INVERSION,) * 3 + (TWIN,) * 2
    cites = "LeakBench; after Croce & Hein (AutoAttack), ICML 2020"

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        context.finding("budget, gradient steps an image", GRADIENT_STEPS)
        context.finding("budget, queries an image", QUERIES)
        network = victim.network
        if isinstance(network, SpikingNetwork | ModuleNetwork):
            network.reseed(context.seed())
        name = "network" if isinstance(network, ModuleNetwork) else "ReLU network"
        members, readings = [], [Reading("the victim", partial(answers_of, victim))]
        try:
            relu = followed(victim, context)
        except NoSignal:
            if not isinstance(network, SpikingNetwork):
                raise
            context.finding(f"no signal to {name}", 1)  # the twin's gradients are others
        else:
            members += [
                Member(name, relu),
                Member(f"{name}, from black", relu, brightness=BLACK),
                Member(f"{name}, from white", relu, brightness=WHITE),
            ]
            readings.append(Reading(f"the {name}", relu))
        twin = analog_twin(network, context.progress) if isinstance(network, SpikingNetwork) else relu
        members += [
            Member("analog twin", twin, TWIN.params),
            Member("analog twin, from black", twin, TWIN.params, BLACK),
        ]
        readings.append(Reading("the analog twin", twin))
        return drawn_together(self.name, members, readings, targets, victim.image_shape, context)
