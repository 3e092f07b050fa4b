"""Attacks on the training data: whether an image was among it."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor

from leakbench.contracts.attack import BaseAttack
from leakbench.contracts.context import AttackContext
from leakbench.contracts.cost import Cost
from leakbench.contracts.plugin import P
from leakbench.contracts.victim import Victim
from leakbench.errors import NotApplicable, NumericalError, PluginError, UsageError


class MembershipScores(NamedTuple):
    """The outcome of a membership attack."""

    scores: Tensor
    """float64 [N], one for each candidate; higher: more likely a training image"""
    cost: Cost
    findings: dict[str, float]
    """what the attack measured on the way"""


Question = Literal["training", "conversion"]


class MembershipAttack(BaseAttack[P]):
    """Membership inference: scores images by how likely the victim was trained on them.

    The attacker is handed the candidates and their true labels, and never which of them are members.
    """

    leakage = "membership"
    uses_references: ClassVar[bool] = False
    """whether the attacker also has networks that were made as the victim was (``context.references``)"""
    uses_population: ClassVar[bool] = False
    """whether the attacker also has images that the victim was not trained on (``context.population``)"""
    uses_synthetic: ClassVar[bool] = False
    """whether the attacker also has the images that the defence synthesised (``context.synthetic``), which it does not
    deploy"""
    asks_of: ClassVar[Question] = "training"
    """which images are its members: those that the network was trained on, or those that the defence read, where it
    read any, as a conversion does to find its thresholds"""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.uses_references and cls.asks_of != "training":
            raise PluginError(
                f"{cls.__name__}: uses_references = True goes with asks_of = 'training' alone: references are made for "
                "the members of the training"
            )

    @final
    def __call__(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> MembershipScores:
        """Runs :meth:`run` with no more access than ``needs``; shape, finiteness and cost are checked here.

        ``candidates`` float [N, C, H, W] in [0, 1], ``labels`` int64 [N]. Raises UsageError where they are something
        else, PluginError and NumericalError for scores of another shape or that are no numbers.
        """
        expected = (len(labels), *victim.image_shape)
        if tuple(candidates.shape) != expected:
            raise UsageError(f"candidates must have the shape {expected}, got {tuple(candidates.shape)}")
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < victim.classes):
            raise UsageError(f"labels must be classes 0..{victim.classes - 1}")
        self._check_equipment(context, len(labels))
        images, classes = candidates.to(context.device), labels.to(context.device)
        scores = self._attacked(victim, context, lambda opened: self.run(opened, images, classes, context), images)
        if not isinstance(scores, Tensor) or tuple(scores.shape) != (len(labels),):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise PluginError(f"{self.name}.run must return scores of shape {(len(labels),)}, got {got}")
        scores = scores.detach().double().cpu()
        if not torch.isfinite(scores).all():
            raise NumericalError(f"{self.name} gave scores of NaN or infinity")
        context.findings.check(self.name)
        return MembershipScores(scores, context.cost, context.findings)

    def _check_equipment(self, context: AttackContext, candidates: int) -> None:
        """Leaves in the context what the attack says that it uses. NotApplicable where that is not there."""
        if not self.uses_references:
            context.references = ()
        elif not context.references:
            raise NotApplicable(f"{self.name} needs reference networks")
        for reference in context.references:
            if tuple(reference.members.shape) != (candidates,):
                raise UsageError(f"references must say of {candidates} candidates which they were trained on")
        context.references = tuple(reference.restricted_to(self.needs) for reference in context.references)
        if not self.uses_population:
            context.population = None
        elif context.population is None:
            raise NotApplicable(f"{self.name} needs images that the victim was not trained on")
        if not self.uses_synthetic:
            context.synthetic = None
        elif context.synthetic is None:
            raise NotApplicable(f"{self.name} needs images that the defence synthesised: this one kept none")

    @abstractmethod
    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        """All that an author writes: scores [N], one for each of ``candidates`` [N, C, H, W] with ``labels`` [N]."""
