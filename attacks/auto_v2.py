"""The ensemble to quote, second version: the victim's claims stop no member, and alone they choose nothing.

Confidence belongs to the defender: a honeypot is surer of junk than of anything that it was trained for. So every
member runs to its budget, several readings of the network choose together, and where copies that forgot the network's
favourite images draw other pictures than the network does, only these copies are believed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leakbench.attacks.analog_twin import AnalogTwin
from leakbench.attacks.distillation import spread
from leakbench.attacks.inversion import Inversion
from leakbench.attacks.search import Model, SearchParams, answers_of, margin_loss, search
from leakbench.attacks.students import likeness, natural_images, pupil, repaired, together
from leakbench.contracts import Access, Attack, AttackContext, ImageClassifier, Params, Victim
from leakbench.errors import NoSignal
from leakbench.models.training import predict
from leakbench.snn import SpikingNetwork, analog_twin, reconverted

# Written out, so that no change of an attack's defaults changes what auto-v2 computes.
_SEARCH = {
    "iterations": 300, "restarts": 1, "lr": 0.1, "loss": "margin", "total_variation": 0.03, "l2": 0.0, "jitter": 2,
    "flips": True, "blur": 0.0, "coarse": 0.5, "confidence_draws": 4,
}  # fmt: skip
_INVERSION, _TWIN = Inversion(**_SEARCH), AnalogTwin(**_SEARCH | {"total_variation": 0.06})
_GLANCE = _INVERSION.params.model_copy(update={"iterations": 80})
_GLANCES = 4
"""images a class at which short ascents end: what a copy has to forget"""
_COPIES = 3
_LESSON, _HELD_OUT = 4000, 1000
"""natural images that students learn from, and others by which they are examined"""
_WIDTH, _PUPIL_LR, _PUPIL_STEPS = 16, 3e-3, 400
_REPAIR_LR, _REPAIR_STEPS = 5e-3, 100
_BLACK, _WHITE = 0.04, 0.96
"""brightness of flat images to start from: some networks answer nothing to noise"""
_SEARCHES = 6 + 2 + _COPIES
SAME = 0.8
"""likeness of the copies' pictures to the network's, as a share of that of its pictures to each other, below which
decoys are suspected"""
LEAST_LIKENESS = 0.1
"""below it, the network's own pictures of a class have next to nothing in common that copies could have lost"""

GRADIENT_STEPS = (
    _SEARCHES * _INVERSION.params.iterations + 2 * _COPIES * _GLANCE.iterations + _PUPIL_STEPS + _COPIES * _REPAIR_STEPS
)
"""what it spends on an image at most, students' lessons included"""
QUERIES = _SEARCHES * _INVERSION.params.confidence_draws
SHARED_QUERIES = _LESSON + _HELD_OUT
"""on all images together"""

AGREEMENT = "students' agreement with the victim"
"""finding: the least over students of the share of held-out natural images that student and victim put into the same
class, from that of the best constant answer (0) to all (1): to agree with a network that always answers the same tells
nothing"""
LIKENESS = "likeness of the repaired copies' pictures to the network's"
"""finding: what is compared with :data:`SAME`"""
SUSPECTED = "decoys suspected"
"""finding: 1 where only pictures of repaired copies were believed, 0 where all were and likeness is known"""


@dataclass(frozen=True)
class Reading:
    """One way to read the network."""

    name: str
    model: Model
    unit: float
    """of its logits: their spread on natural images"""


@dataclass(frozen=True)
class Member:
    """One search, by the gradients of one reading."""

    name: str
    model: Model
    params: SearchParams
    brightness: float | None = None
    """of the flat images that it starts from; None: noise"""
    repaired: bool = False
    """whether it sees copies alone that forgot decoys"""


@dataclass(frozen=True)
class Candidates:
    """A member's image of each target."""

    member: Member
    images: Tensor


class AutoV2(Attack[Params]):
    """The ensemble to quote: five readings of the network, at a fixed budget, and no stop where the victim is sure.

    The ReLU network, the analog twin, a student taught on public images, copies that forgot where short ascents end,
    and the victim, who answers.
    """

    name = "auto-v2"
    needs = Access.WEIGHTS
    uses_public = True
    ensemble = True
    members = (_INVERSION,) * (_SEARCHES - 2) + (_TWIN,) * 2
    cites = (
        "LeakBench; after Croce & Hein (AutoAttack), ICML 2020; unlearning of triggers that were found: Wang et al. "
        "(Neural Cleanse), S&P 2019"
    )

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        context.finding("budget, gradient steps an image", GRADIENT_STEPS)
        context.finding("budget, queries an image", QUERIES)
        context.finding("budget, queries for all images", SHARED_QUERIES)
        if isinstance(victim.network, SpikingNetwork):
            victim.network.reseed(context.seed())
        students = Students(victim, context)
        suspected = students.likeness is not None and students.likeness < SAME
        context.finding(AGREEMENT, students.agreement)
        if students.likeness is not None:
            context.finding(LIKENESS, students.likeness)
            context.finding(SUSPECTED, suspected)
        drawn = run_members(students.members(), targets, victim.image_shape, context, suspected)
        believed = [candidates for candidates in drawn if candidates.member.repaired or not suspected] or drawn
        return chosen(believed, students.readings(suspected), targets, context)


class Students:
    """All readings of a victim, made on public images."""

    def __init__(self, victim: Victim, context: AttackContext) -> None:
        self._victim, self._context = victim, context
        assert context.public is not None  # checked by the framework, as uses_public says so
        network = victim.network
        probes = torch.rand(64, *victim.image_shape, generator=context.generator).to(context.device)
        self._relu = reconverted(network, probes, context.seed())
        self._twin = analog_twin(network) if isinstance(network, SpikingNetwork) else self._relu
        natural = natural_images(context.public.images, SHARED_QUERIES, context.generator)
        ask = partial(self._answers, partial(answers_of, victim), natural)
        answers = context.once("auto-v2: asking the victim about natural images", ask)
        self._natural, self._unit = natural[:_LESSON], spread(answers)
        self._pupil = pupil(
            self._natural, answers[:_LESSON], _WIDTH, _PUPIL_LR, _PUPIL_STEPS, context, "auto-v2: teaching a student"
        )
        self.likeness: float | None = None
        """of the copies' pictures to the network's, over that of its pictures to each other; None where these are no
        more alike than chance, and without copies"""
        self._copies = self._repaired()
        examined, own = natural[_LESSON:], answers[_LESSON:].argmax(1)
        same = [
            (self._answers(model, examined).argmax(1) == own).double().mean() for model in (self._pupil, *self._copies)
        ]
        self.agreement = above_constant(float(min(same)), own)

    def members(self) -> list[Member]:
        """What is searched, in turn."""
        usual, smooth = _INVERSION.params, _TWIN.params
        of_copies: list[Member] = []
        if self._copies:
            mean = together(self._copies, [self._spread(model) for model in self._copies])
            of_copies = [
                Member("repaired copies", mean, usual, None, True),
                Member("repaired copies, from black", mean, usual, _BLACK, True),
                *(Member("a repaired copy, from black", model, usual, _BLACK, True) for model in self._copies),
            ]
        return [
            Member("ReLU network", self._relu, usual),
            Member("ReLU network, from black", self._relu, usual, _BLACK),
            Member("ReLU network, from white", self._relu, usual, _WHITE),
            Member("analog twin", self._twin, smooth),
            Member("analog twin, from black", self._twin, smooth, _BLACK),
            Member("student", self._pupil, usual),
            *of_copies,
        ]

    def readings(self, suspected: bool) -> list[Reading]:
        """What chooses: the repaired copies where decoys are suspected, else the victim and its analog readings."""
        if suspected:
            return [Reading("a repaired copy", model, self._spread(model)) for model in self._copies]
        return [
            Reading("the victim", partial(answers_of, self._victim), self._unit),
            Reading("the ReLU network", self._relu, self._spread(self._relu)),
            Reading("the analog twin", self._twin, self._spread(self._twin)),
        ]

    def _repaired(self) -> list[ImageClassifier]:
        """Copies of the ReLU network, each of which forgot images of its own; none where ascents have no gradient."""
        context = self._context
        answers = self._answers(self._relu, self._natural)
        decoys, copies = [], []
        try:
            for number in range(_COPIES):
                decoys.append(self._glance(self._relu))
                what = f"auto-v2: repairing copy {number + 1} of {_COPIES}"
                copies.append(
                    repaired(self._relu, self._natural, answers, decoys[-1], _REPAIR_LR, _REPAIR_STEPS, context, what)
                )
            pictures = [self._glance(model) for model in copies]
        except NoSignal:
            context.finding("no signal to repaired copies", 1)
            return []
        pairs = list(itertools.permutations(range(_COPIES), 2))
        usual, now = (
            sum(likeness(images[one], decoys[other], self._classes) for one, other in pairs)
            for images in (decoys, pictures)
        )
        self.likeness = now / usual if usual > LEAST_LIKENESS * len(pairs) else None
        return copies

    @property
    def _classes(self) -> Tensor:
        return torch.arange(self._victim.classes).repeat_interleave(_GLANCES)

    def _glance(self, model: Model) -> Tensor:
        """Where short ascents from noise end: images [classes * _GLANCES, C, H, W]."""
        wanted = self._classes.to(self._context.device)
        return search(model, wanted, self._victim.image_shape, self._context, _GLANCE, "auto-v2: short ascents").cpu()

    def _answers(self, model: Model, images: Tensor) -> Tensor:
        return predict(model, images, self._context.device)

    def _spread(self, model: Model) -> float:
        return spread(self._answers(model, self._natural))


def above_constant(agreement: float, answers: Tensor) -> float:
    """``agreement`` with ``answers`` [N], from that of the best constant answer (0) to all (1)."""
    constant = float(answers.bincount().max()) / len(answers)
    return max(0.0, (agreement - constant) / (1 - constant)) if constant < 1 else 0.0


def run_members(
    members: Sequence[Member], targets: Tensor, shape: tuple[int, int, int], context: AttackContext, suspected: bool
) -> list[Candidates]:
    """What each member draws of ``targets`` [N], all of them to their budgets; NoSignal where none has a gradient.

    Who stops before the choice hands over what the first draws, of repaired copies where decoys are ``suspected``.
    """
    drawn: list[Candidates] = []
    refused: NoSignal | None = None
    for number, member in enumerate(members):
        title = f"auto-v2: {member.name} ({number + 1} of {len(members)})"
        try:
            images = search(member.model, targets, shape, context, member.params, title, brightness=member.brightness)
        except NoSignal as error:  # masked from one is not masked from all
            context.finding(f"no signal to {member.name}", 1)
            refused = error
            continue
        if not any(own.member.repaired or not suspected for own in drawn) and (member.repaired or not suspected):
            context.snapshot(images)
        drawn.append(Candidates(member, images))
    if not drawn and refused is not None:
        raise refused
    return drawn


def chosen(drawn: Sequence[Candidates], readings: Sequence[Reading], targets: Tensor, context: AttackContext) -> Tensor:
    """For each of ``targets`` [N] the image of the highest margin, mean over ``readings``; [N, C, H, W].

    Whose images they are goes into the findings.
    """
    scores = torch.stack(
        [torch.stack([margins(reading, own, targets, context) for reading in readings]).mean(0) for own in drawn]
    )
    best = scores.argmax(0)
    for name in dict.fromkeys(own.member.name for own in drawn):
        won = sum(int((best == number).sum()) for number, own in enumerate(drawn) if own.member.name == name)
        context.finding(f"images won by {name}", won)
    images = torch.stack([own.images for own in drawn])
    return images[best, torch.arange(len(targets), device=targets.device)]


def margins(reading: Reading, drawn: Candidates, targets: Tensor, context: AttackContext) -> Tensor:
    """The reading's margins of ``targets`` [N], in its unit, of its mean logits over small shifts of the images; [N].

    A margin that is no number counts as none.
    """

    @torch.no_grad()
    def ask() -> Tensor:
        total: Any = 0
        for draw in range(_INVERSION.params.confidence_draws):
            shift = torch.randint(-1, 2, (2,), generator=context.generator).tolist() if draw else [0, 0]
            total = total + reading.model(drawn.images.roll(shift, (2, 3)))
        logits = total / _INVERSION.params.confidence_draws / reading.unit
        return -margin_loss(logits, targets).nan_to_num(0.0, 0.0, 0.0)

    return context.once(f"auto-v2: {reading.name} reads the images of {drawn.member.name}", ask)
