"""A strong activation maximisation on the ReLU network: what the paper's attack 1 leaves on the table."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from leakbench.attacks.search import Best, Model, SearchParams, followed, search
from leakbench.contracts import Access, Attack, AttackContext, ModuleNetwork, Victim
from leakbench.snn import SpikingNetwork


class Inversion(Attack[SearchParams]):
    """Strong inversion of the ReLU network: Adam on a margin loss with image priors, jitter and restarts."""

    name = "inversion"
    version = 3
    needs = Access.WEIGHTS
    effort = "iterations"
    cites = (
        "margin loss: Yuan et al. (PLG-MI), AAAI 2023; Poincare loss: Struppek et al. (PPA), ICML 2022; priors: "
        "Mahendran & Vedaldi, CVPR 2015, Yosinski et al. 2015, Yin et al. (DeepInversion), CVPR 2020"
    )
    presets: ClassVar = {"quick": {"iterations": 150, "restarts": 2}}

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        return invert(followed(victim, context), victim, targets, context, self.params, self.name)


def invert(
    model: Model, victim: Victim, targets: Tensor, context: AttackContext, params: SearchParams, name: str
) -> Tensor:
    """Restarts on ``model``, of which the victim's own confidence chooses the best for each image."""
    if isinstance(victim.network, SpikingNetwork | ModuleNetwork):
        victim.network.reseed(context.seed())
    best = Best(victim, targets, context, params.confidence_draws)
    for restart in range(params.restarts):
        title = f"{name}: restart {restart + 1} of {params.restarts}"
        images = search(model, targets, victim.image_shape, context, params, title, best=best)
        best.offer(images, f"restart {restart + 1}")
    return best.images
