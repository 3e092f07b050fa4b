"""The ensemble to quote, second version: no member is stopped, and no choice left, by what the victim claims.

Confidence belongs to the defender: a honeypot is surer of junk than of anything that it was trained for. So every
member runs to its budget, several readings of the network choose together, and where copies that forgot the network's
favourite images draw other pictures than the network does, only these copies are believed (docs/method.md, Attacks).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leakbench.attacks.distillation import spread
from leakbench.attacks.search import Model, SearchParams, answers_of, margin_loss, search
from leakbench.attacks.students import likeness, natural_images, pupil, repaired, same_class, together
from leakbench.contracts import Access, Attack, AttackContext, ImageClassifier, Params, Victim
from leakbench.errors import NoSignal
from leakbench.models.training import predict
from leakbench.snn import SpikingNetwork, analog_twin, reconverted

# Written out, so that no change of another attack's defaults changes what auto-v2 computes.
_SEARCH = SearchParams(
    iterations=300, restarts=1, lr=0.1, loss="margin", total_variation=0.03, l2=0.0, jitter=2, flips=True, blur=0.0,
    coarse=0.5, confidence_draws=1,
)  # fmt: skip
_SMOOTH = _SEARCH.model_copy(update={"total_variation": 0.06})
_GLANCE = _SEARCH.model_copy(update={"iterations": 80})
_GLANCES = 4
"""images a class at which short ascents end: what a copy has to forget"""
_COPIES = 3
_LESSON, _HELD_OUT = 4000, 1000
"""natural images that students learn from, and others by which they are examined"""
_WIDTH, _PUPIL_LR, _PUPIL_STEPS = 16, 3e-3, 400
_REPAIR_LR, _REPAIR_STEPS = 5e-3, 100
_DRAWS = 4
"""answers over small shifts whose mean is a reading of an image"""
SAME = 0.85
"""likeness of the copies' pictures to the network's, as a share of that of its pictures to each other, below which
decoys are suspected"""

GRADIENT_STEPS = (2 + 1 + 2 + 1 + 2 + _COPIES) * 300 + 2 * _COPIES * 80 + _PUPIL_STEPS + _COPIES * _REPAIR_STEPS
"""what it spends on an image at most"""
QUERIES = (2 + 1 + 2 + 1 + 2 + _COPIES) * _DRAWS
SHARED_QUERIES = _LESSON + _HELD_OUT
"""on all images together"""

AGREEMENT = "students' agreement with the victim"
"""the finding: the least over students of the share of held-out natural images that student and victim put into the
same class"""
LIKENESS = "likeness of the repaired copies' pictures to the network's"
SUSPECTED = "decoys suspected"


@dataclass(frozen=True)
class Candidates:
    """One member's image of each target."""

    member: str
    images: Tensor
    repaired: bool
    """whether they were drawn from copies that forgot decoys"""


@dataclass(frozen=True)
class Reading:
    """One way to read the network, and the unit of its logits: their spread on natural images."""

    name: str
    ask: Callable[[Tensor], Tensor]
    unit: float


class AutoV2(Attack[Params]):
    """The ensemble to quote: five members at a fixed budget, chosen by what several readings of the network agree on.

    Inversion of the ReLU network (from noise, and from black), of the analog twin, of a student that was distilled on
    public images, and of copies that forgot where short ascents end.
    """

    name = "auto-v2"
    needs = Access.WEIGHTS
    uses_public = True
    ensemble = True
    cites = (
        "LeakBench; after Croce & Hein (AutoAttack), ICML 2020; forgetting found triggers: Wang et al. (Neural Cleanse), "
        "S&P 2019"
    )

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        context.finding("budget, gradient steps an image", GRADIENT_STEPS)
        context.finding("budget, queries an image", QUERIES)
        context.finding("budget, queries for all images", SHARED_QUERIES)
        readings = Readings(victim, targets, context)
        drawn = readings.candidates()
        context.finding(LIKENESS, readings.likeness)
        suspected = readings.likeness < SAME
        context.finding(SUSPECTED, suspected)
        believed = [c for c in drawn if c.repaired] if suspected else drawn
        asked = readings.of_copies if suspected else readings.all
        return choose(believed or drawn, asked, targets, context)


class Readings:
    """The victim's readings, made once, and what their inversions draw."""

    def __init__(self, victim: Victim, targets: Tensor, context: AttackContext) -> None:
        self._victim, self._targets, self._context = victim, targets, context
        assert context.public is not None  # checked by the framework, as uses_public says so
        network, generator = victim.network, context.generator
        if isinstance(network, SpikingNetwork):
            network.reseed(context.seed())
        probes = torch.rand(64, *victim.image_shape, generator=generator).to(context.device)
        self._relu = reconverted(network, probes, context.seed())
        self._twin = analog_twin(network) if isinstance(network, SpikingNetwork) else self._relu
        images = natural_images(context.public.images, SHARED_QUERIES, generator)
        ask = partial(predict, partial(answers_of, victim), images, context.device)
        answers = context.once("auto-v2: asking about natural images", ask)
        self._learnt, self._kept = images[:_LESSON], images[_LESSON:]
        self._answers, self._right = answers[:_LESSON], answers[_LESSON:].argmax(1)
        self._classes = torch.arange(victim.classes).repeat_interleave(_GLANCES)
        self.likeness = 1.0
        self.of_copies: list[Reading] = []
        self.all = [Reading("victim", partial(answers_of, victim), spread(answers))]

    def candidates(self) -> list[Candidates]:
        """What each member draws; members without any gradient are left out. NoSignal where that is all of them."""
        drawn: list[Candidates] = []
        refused: NoSignal | None = None
        student = pupil(
            self._learnt, self._answers, _WIDTH, _PUPIL_LR, _PUPIL_STEPS, self._context, "auto-v2: teaching a student"
        )
        agreements = [same_class(partial(predict, student, device=self._context.device), self._kept, self._right)]
        copies = self._copies()
        agreements += [same_class(partial(predict, c, device=self._context.device), self._kept, self._right) for c in copies]
        self._context.finding(AGREEMENT, min(agreements))
        members: list[tuple[str, Model, SearchParams, bool, bool]] = [
            ("ReLU network", self._relu, _SEARCH, False, False),
            ("ReLU network", self._relu, _SEARCH, False, False),
            ("ReLU network, from black", self._relu, _SEARCH, True, False),
            ("analog twin", self._twin, _SMOOTH, False, False),
            ("analog twin", self._twin, _SMOOTH, False, False),
            ("student", student, _SEARCH, False, False),
        ]
        units = [self._unit(c) for c in copies]
        if copies:
            both = together(copies, units)
            members += [("repaired copies together", both, _SEARCH, False, True)] * 2
            members += [("a repaired copy", c, _SEARCH, False, True) for c in copies]
        self.of_copies = [Reading("repaired copy", c, u) for c, u in zip(copies, units, strict=True)]
        self.all += [
            Reading("ReLU network", self._relu, self._unit(self._relu)),
            Reading("analog twin", self._twin, self._unit(self._twin)),
            Reading("student", student, self._unit(student)),
            *self.of_copies,
        ]
        for number, (name, model, params, dark, of_copies) in enumerate(members):
            title = f"{AutoV2.name}: {name} ({number + 1} of {len(members)})"
            try:
                images = search(
                    model, self._targets, self._victim.image_shape, self._context, params, title, dark=dark
                )
            except NoSignal as error:  # masked from one is not masked from all
                self._context.finding(f"no signal to {name}", 1)
                refused = error
                continue
            drawn.append(Candidates(name, images, of_copies))
        if not drawn:
            assert refused is not None
            raise refused
        return drawn

    def _copies(self) -> list[ImageClassifier]:
        """Copies of the ReLU network that forgot where short ascents end, each other ones; none without any gradient.

        ``likeness`` then says how like the network's these copies' own short ascents are.
        """
        copies, found = [], []
        natural, context = self._learnt, self._context
        answers = predict(self._relu, natural, context.device)
        try:
            for number in range(_COPIES):
                decoys = self._glance(self._relu)
                found.append(decoys)
                what = f"auto-v2: repairing copy {number + 1} of {_COPIES}"
                copies.append(repaired(self._relu, natural, answers, decoys, _REPAIR_LR, _REPAIR_STEPS, context, what))
            glances = [self._glance(c) for c in copies]
        except NoSignal:
            context.finding("no signal to repaired copies", 1)
            return []
        pairs = list(itertools.permutations(range(_COPIES), 2))
        among = sum(likeness(found[i], found[j], self._classes) for i, j in pairs)
        between = sum(likeness(glances[i], found[j], self._classes) for i, j in pairs)
        self.likeness = between / among if among > 0 else 1.0
        return copies

    def _glance(self, model: Model) -> Tensor:
        shape, classes = self._victim.image_shape, self._classes.to(self._context.device)
        return search(model, classes, shape, self._context, _GLANCE, "auto-v2: a glance").cpu()

    def _unit(self, model: Model) -> float:
        return spread(predict(model, self._learnt, self._context.device))


def choose(drawn: list[Candidates], readings: list[Reading], targets: Tensor, context: AttackContext) -> Tensor:
    """For each of ``targets`` [N] the image with the highest margin of its class, mean over the readings.

    Margins are those of logits averaged over small shifts, in units of the reading; one that is no number counts for
    nothing.
    """
    scores = torch.stack([torch.stack([_margins(c, r, targets, context) for r in readings]) for c in drawn])
    context.once  # noqa: B018
    usable = torch.isfinite(scores).all(2).all(0)
    mean = scores[:, usable].mean(1)
    chosen = mean.argmax(0)
    for name in dict.fromkeys(c.member for c in drawn):
        won = sum(int((chosen == number).sum()) for number, c in enumerate(drawn) if c.member == name)
        context.finding(f"images won by {name}", won)
    images = torch.stack([c.images for c in drawn])
    return images[chosen, torch.arange(len(targets), device=targets.device)]


@torch.no_grad()
def _margins(candidates: Candidates, reading: Reading, targets: Tensor, context: AttackContext) -> Tensor:
    def ask() -> Tensor:
        total: Any = 0
        for draw in range(_DRAWS):
            shift = torch.randint(-1, 2, (2,), generator=context.generator).tolist() if draw else [0, 0]
            total = total + reading.ask(candidates.images.roll(shift, (2, 3)))
        return -margin_loss(total / _DRAWS, targets) / reading.unit

    return context.once(f"auto-v2: {reading.name} on images of {candidates.member}", ask)
