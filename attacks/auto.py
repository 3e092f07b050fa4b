"""The ensemble with a fixed budget and no knobs: the one to report.

As AutoAttack (Croce & Hein, ICML 2020) for robustness: parameter-free, several attacks that fail for different reasons,
and each image goes on to a dearer one only where no cheaper one satisfied the victim.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from leakbench.attacks.analog_twin import AnalogTwin
from leakbench.attacks.inversion import Inversion
from leakbench.attacks.search import Best
from leakbench.attacks.spsa import Spsa
from leakbench.attacks.surrogate_zoo import SurrogateZoo
from leakbench.contracts import Access, Attack, AttackContext, Params, Victim
from leakbench.errors import NoSignal

# Written out, so that no change of an attack's defaults changes what auto-v1 computes.
_SEARCH = {
    "lr": 0.1, "loss": "margin", "total_variation": 0.03, "l2": 0.0, "jitter": 2, "flips": True, "blur": 0.0,
    "coarse": 0.5, "chroma": 0.25, "confidence_draws": 4,
}  # fmt: skip
_ESTIMATORS = (
    "own", "eot", "triangle-.5", "triangle-2", "fast_sigmoid-.2", "fast_sigmoid-1", "arctan-.5", "arctan-1",
    "rectangle-.5", "rectangle-1", "pdsg", "current", "rga", "hart-.5", "hart-1", "hart-2",
)  # fmt: skip
_MORE = Inversion(**_SEARCH, iterations=600, restarts=4)
ATTACKS: tuple[Attack[Any], ...] = (
    Inversion(**_SEARCH, iterations=300, restarts=2),
    AnalogTwin(**_SEARCH | {"total_variation": 0.06}, iterations=300, restarts=2),
    _MORE,
    SurrogateZoo(
        **_SEARCH,
        iterations=80,
        restarts=1,
        trial=25,
        finalists=2,
        encodings=4,
        steps=16,
        estimators="+".join(_ESTIMATORS),
    ),
    Spsa(iterations=40, directions=4, spread=0.5, lr=0.2, loss="margin", side=8, confidence_draws=4),
)
"""the first on every image, each other on those that none before it satisfied the victim with"""
SATISFIED = 0.9
"""the victim's averaged confidence from which on an image is done; that of gate G3"""
DRAWS = 8
"""answers over which it is averaged"""
GRADIENT_STEPS = 2 * (2 * 300) + 4 * 600 + 25 * len(_ESTIMATORS) + 2 * 80 + 40
QUERIES = 4 * (2 + 2 + 4 + len(_ESTIMATORS) + 2) + 8 * 40 + 4 + len(ATTACKS) * DRAWS
"""what it spends on an image at most"""


class AutoV1(Attack[Params]):
    """The predecessor of auto-v2: inversion, analog_twin, surrogate_zoo and spsa, at a fixed budget, cheap first."""

    name = "auto-v1"
    version = 3
    needs = Access.WEIGHTS
    ensemble = True
    members = ATTACKS
    cites = "LeakBench; after Croce & Hein (AutoAttack), ICML 2020"

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        context.finding("budget, gradient steps an image", GRADIENT_STEPS)
        context.finding("budget, queries an image", QUERIES)
        best = Best(victim, targets, context, DRAWS)
        refused: NoSignal | None = None
        for number, attack in enumerate(ATTACKS):
            left = (best.confidence <= SATISFIED).nonzero().squeeze(1)
            if number:
                context.finding(f"images that went on to {_title(attack)}", len(left))
            if not len(left):
                continue
            try:
                with context.part(left):
                    images = attack.run(victim, targets[left], context.apart())
            except NoSignal as error:  # masked from one attack is not masked from all
                context.finding(f"no signal to {_title(attack)}", 1)
                refused = error
                continue
            best.offer(images, _title(attack), left)
        if refused is not None and bool((best.confidence < 0).all()):
            raise refused
        best.report()
        return best.images


def _title(attack: Attack[Any]) -> str:
    return f"{attack.name}, more restarts" if attack is _MORE else attack.name
