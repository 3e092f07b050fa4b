"""The ensemble to quote, second version: the victim's claims stop no member, and alone they choose nothing.

Confidence belongs to the defender: a honeypot is surer of junk than of anything that it was trained for. So every
member runs to its budget, several readings of the network choose together, and where copies that lost the network's
favourite images draw other pictures than the network does, only the copies that lost most are believed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from leakbench.attacks.analog_twin import AnalogTwin
from leakbench.attacks.distillation import spread
from leakbench.attacks.inversion import Inversion
from leakbench.attacks.search import Model, SearchParams, answers_of, margin_loss, search
from leakbench.attacks.students import likeness, natural_images, pruned, pupil, repaired, together
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
"""images a class at which short ascents end: what a copy has to lose"""
_REPAIRED, _COPIES = "repaired copies", 3
_PRUNED, _PRUNED_COPIES = "pruned copies", 2
_CUT, _ROUNDS = 0.04, 3
"""share of the last layer's inputs that a pruned copy loses each round"""
_LESSON, _HELD_OUT = 4000, 1000
"""natural images that students learn from, and others by which they are examined"""
_WIDTH, _PUPIL_LR, _PUPIL_STEPS = 16, 3e-3, 400
_REPAIR_LR, _REPAIR_STEPS = 5e-3, 100
_BLACK, _WHITE = 0.04, 0.96
"""brightness of flat images to start from: some networks answer nothing to noise"""
_ANALOG = 5
"""searches that need no students"""
_SEARCHES = _ANALOG + 1 + 2 + _COPIES + 2
SAME = 0.8
"""likeness of the copies' pictures to the network's, as a share of that of its pictures to each other, below which
decoys are suspected"""
LEAST_LIKENESS = 0.1
"""below it, the network's own pictures of a class have next to nothing in common that copies could have lost"""

GRADIENT_STEPS = (
    _SEARCHES * _INVERSION.params.iterations
    + (2 * _COPIES + _PRUNED_COPIES * (1 + _ROUNDS)) * _GLANCE.iterations
    + _PUPIL_STEPS
    + _COPIES * _REPAIR_STEPS
)
"""what it spends on an image at most, students' lessons included"""
QUERIES = _SEARCHES * _INVERSION.params.confidence_draws
SHARED_QUERIES = _LESSON + _HELD_OUT
"""on all images together"""

AGREEMENT = "students' agreement with the victim"
"""finding: the least over students of the share of held-out natural images that student and victim put into the same
class, from that of the best constant answer (0) to all (1): to agree with a network that always answers the same tells
nothing"""
LIKENESS = "likeness of the {}' pictures to the network's"
"""finding: what is compared with :data:`SAME`, for each kind of copies"""
SUSPECTED = "decoys suspected"
"""finding: 1 where only pictures of one kind of copies were believed, 0 where all were and likeness is known"""


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
    copies: str | None = None
    """the kind of copies that it sees alone; None: it sees the network"""


@dataclass(frozen=True)
class Copies:
    """Copies of the ReLU network that lost where its short ascents end."""

    name: str
    models: list[ImageClassifier]
    likeness: float | None
    """of their pictures to the network's, over that of its pictures to each other; None where these are no more alike
    than chance"""


@dataclass(frozen=True)
class Candidates:
    """A member's image of each target."""

    member: Member
    images: Tensor


class AutoV2(Attack[Params]):
    """The ensemble to quote: six readings of the network, at a fixed budget, and no stop where the victim is sure.

    The ReLU network, the analog twin, a student taught on public images, copies that forgot where short ascents end,
    copies without the neurons that serve these images, and the victim, who answers.
    """

    name = "auto-v2"
    version = 3
    needs = Access.WEIGHTS
    uses_public = True
    ensemble = True
    members = (_INVERSION,) * (_SEARCHES - 2) + (_TWIN,) * 2
    cites = (
        "LeakBench; after Croce & Hein (AutoAttack), ICML 2020; unlearning of triggers that were found: Wang et al. "
        "(Neural Cleanse), S&P 2019; pruning: Liu, Dolan-Gavitt, Garg (Fine-Pruning), RAID 2018"
    )

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        context.finding("budget, gradient steps an image", GRADIENT_STEPS)
        context.finding("budget, queries an image", QUERIES)
        context.finding("budget, queries for all images", SHARED_QUERIES)
        if isinstance(victim.network, SpikingNetwork):
            victim.network.reseed(context.seed())
        students = Students(victim, context)
        # first what needs no students: who stops early has that
        drawn = run_members(students.analog_members(), targets, victim.image_shape, context, 0)
        students.learn()
        context.finding(AGREEMENT, students.agreement)
        for name, likeness_there in students.likeness.items():
            context.finding(LIKENESS.format(name), likeness_there)
        trusted = students.trusted
        if students.likeness:
            context.finding(SUSPECTED, trusted is not None)
        members = students.taught_members()
        drawn += run_members(members, targets, victim.image_shape, context, _ANALOG, trusted)
        if not drawn:
            raise NoSignal("zero gradients: no member of auto-v2 had a gradient with respect to the input")
        believed = [candidates for candidates in drawn if trusted in (None, candidates.member.copies)] or drawn
        return chosen(believed, students.readings(), targets, context)


class Students:
    """All readings of a victim, made on public images."""

    def __init__(self, victim: Victim, context: AttackContext) -> None:
        self._victim, self._context = victim, context
        network = victim.network
        probes = torch.rand(64, *victim.image_shape, generator=context.generator).to(context.device)
        self._relu = reconverted(network, probes, context.seed())
        self._twin = analog_twin(network) if isinstance(network, SpikingNetwork) else self._relu
        self._copies: list[Copies] = []

    def learn(self) -> None:
        """Ask the victim about natural images, and make the student and the copies."""
        victim, context = self._victim, self._context
        assert context.public is not None  # checked by the framework, as uses_public says so
        natural = natural_images(context.public.images, SHARED_QUERIES, context.generator)
        ask = partial(self._answers, partial(answers_of, victim), natural)
        answers = context.once("auto-v2: asking the victim about natural images", ask)
        self._natural, self._unit = natural[:_LESSON], spread(answers)
        self._pupil = pupil(
            self._natural, answers[:_LESSON], _WIDTH, _PUPIL_LR, _PUPIL_STEPS, context, "auto-v2: teaching a student"
        )
        self._copies = self._lost()
        examined, own = natural[_LESSON:], answers[_LESSON:].argmax(1)
        taught = [self._pupil, *itertools.chain(*(own.models for own in self._copies if own.name == _REPAIRED))]
        same = [(self._answers(model, examined).argmax(1) == own).double().mean() for model in taught]
        self.agreement = above_constant(float(min(same)), own)

    @property
    def likeness(self) -> dict[str, float]:
        """Name of the copies -> likeness, of those of which it is known."""
        return {copies.name: copies.likeness for copies in self._copies if copies.likeness is not None}

    @property
    def trusted(self) -> str | None:
        """The kind of copies that lost most of what the network draws, where that is enough to suspect decoys."""
        least = min(self.likeness, key=self.likeness.__getitem__, default=None)
        return least if least is not None and self.likeness[least] < SAME else None

    def analog_members(self) -> list[Member]:
        """What is searched first, in turn: the network itself, without its spikes."""
        usual, smooth = _INVERSION.params, _TWIN.params
        return [
            Member("ReLU network", self._relu, usual),
            Member("ReLU network, from black", self._relu, usual, _BLACK),
            Member("ReLU network, from white", self._relu, usual, _WHITE),
            Member("analog twin", self._twin, smooth),
            Member("analog twin, from black", self._twin, smooth, _BLACK),
        ]

    def taught_members(self) -> list[Member]:
        """What is searched then: the student, and copies of which some lost decoys."""
        usual = _INVERSION.params
        of_copies = []
        for copies in self._copies:
            name, mean = copies.name, together(copies.models, [self._spread(model) for model in copies.models])
            of_copies += [
                Member(name, mean, usual, None, name),
                Member(f"{name}, from black", mean, usual, _BLACK, name),
            ]
            if name == _REPAIRED:
                of_copies += [
                    Member("a repaired copy, from black", model, usual, _BLACK, name) for model in copies.models
                ]
        return [Member("student", self._pupil, usual), *of_copies]

    def readings(self) -> list[Reading]:
        """What chooses: the copies that are trusted where decoys are suspected, else the victim and analog readings."""
        for copies in self._copies:
            if copies.name == self.trusted:
                return [Reading(f"one of the {copies.name}", model, self._spread(model)) for model in copies.models]
        return [
            Reading("the victim", partial(answers_of, self._victim), self._unit),
            Reading("the ReLU network", self._relu, self._spread(self._relu)),
            Reading("the analog twin", self._twin, self._spread(self._twin)),
        ]

    def _lost(self) -> list[Copies]:
        """Repaired and pruned copies, each by ascents of its own; none where ascents have no gradient."""
        try:
            decoys = [self._glance(self._relu) for _ in range(_COPIES)]
            kinds = {
                _REPAIRED: [self._repaired(number, images) for number, images in enumerate(decoys, 1)],
            }
            # a network without a last layer that reads features has none to lose
            if any(isinstance(layer, nn.Linear) for layer in self._relu.modules()):
                kinds[_PRUNED] = [self._pruned() for _ in range(_PRUNED_COPIES)]
            pictures = {name: [self._glance(model) for model in models] for name, models in kinds.items()}
        except NoSignal:
            self._context.finding("no signal to copies", 1)
            return []
        usual = self._likeness(decoys, decoys)
        return [
            Copies(name, models, self._likeness(decoys, pictures[name]) / usual if usual > LEAST_LIKENESS else None)
            for name, models in kinds.items()
        ]

    def _likeness(self, images: list[Tensor], others: list[Tensor]) -> float:
        """Mean over pairs; one that was made by the other is no pair."""
        pairs = [(i, j) for i in range(len(images)) for j in range(len(others)) if i != j]
        return sum(likeness(images[i], others[j], self._classes) for i, j in pairs) / len(pairs)

    def _repaired(self, number: int, decoys: Tensor) -> ImageClassifier:
        answers = self._answers(self._relu, self._natural)
        what = f"auto-v2: repairing copy {number} of {_COPIES}"
        return repaired(self._relu, self._natural, answers, decoys, _REPAIR_LR, _REPAIR_STEPS, self._context, what)

    def _pruned(self) -> ImageClassifier:
        return pruned(self._relu, self._natural, self._classes, self._glance, _CUT, _ROUNDS)

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
    members: Sequence[Member],
    targets: Tensor,
    shape: tuple[int, int, int],
    context: AttackContext,
    before: int,
    trusted: str | None = None,
) -> list[Candidates]:
    """What each member draws of ``targets`` [N], all of them to their budgets; nothing of those without a gradient.

    Who stops before the choice hands over what the very first draws, and after the first of the ``trusted`` copies what
    that drew, where decoys are suspected. ``before``: members that were run before these.
    """
    drawn: list[Candidates] = []
    for number, member in enumerate(members, before + 1):
        title = f"auto-v2: {member.name} ({number} of {_SEARCHES})"
        first = not before and not drawn
        try:
            images = search(
                member.model, targets, shape, context, member.params, title, brightness=member.brightness, shown=first
            )
        except NoSignal:  # masked from one is not masked from all
            context.finding(f"no signal to {member.name}", 1)
            continue
        if first or (trusted == member.copies and trusted and not any(own.member.copies == trusted for own in drawn)):
            context.snapshot(images)
        drawn.append(Candidates(member, images))
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
