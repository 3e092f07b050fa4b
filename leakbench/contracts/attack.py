"""What every attack is, whatever it leaks, and the attacks on classes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor

from leakbench.contracts.context import AttackContext, Findings
from leakbench.contracts.cost import Cost
from leakbench.contracts.networks import ImageClassifier
from leakbench.contracts.plugin import P, Plugin
from leakbench.contracts.snapshots import Snapshot, Snapshots
from leakbench.contracts.victim import Access, Victim
from leakbench.errors import NotApplicable, NumericalError, PluginError, UsageError


class BaseAttack(Plugin[P]):
    """What the attacker runs. Derive from the class of what it leaks: :class:`Attack`, MembershipAttack."""

    kind = "attack"
    leakage: ClassVar[str]
    """the kind of leak: inversion (classes) or membership (images)"""
    needs: ClassVar[Access]
    effort: ClassVar[str] = ""
    """the whole-number parameter of which more should never be worse (steps, restarts, samples): of an attack
    on classes a run also tries half of it, since one that does better with less tells of gradients that are masked"""
    ensemble: ClassVar[bool] = False
    """whether it runs other attacks: ``--attack all`` then leaves it out"""
    members: ClassVar[tuple[BaseAttack[Any], ...]] = ()
    """the attacks that an ensemble runs, with their parameters: what they compute is what it computes"""
    uses_public: ClassVar[bool] = False
    """whether the attacker also has public images of other classes (``context.public``)"""

    @classmethod
    def prepared_images(cls, classes: int) -> int:  # noqa: ARG003
        """How many images pass through networks as large as a victim of ``classes`` before any target is attacked.

        Only estimates of time ask for it; parameters that say so themselves (``steps``, ``rounds``, ``pool``) are
        known to them.
        """
        return 0

    def _attacked(
        self, victim: Victim, context: AttackContext, run: Callable[[Victim], Any], shown: Tensor | None = None
    ) -> Any:
        """What ``run`` makes of the victim with no more access than ``needs``; its cost is counted from nothing.

        ``shown`` [B, C, H, W]: images that it asks about.
        """
        if victim.access < self.needs:
            raise NotApplicable(f"{self.name} needs {self.needs.name}, the victim grants {victim.access.name}")
        if not self.uses_public:
            context.public = None
        elif context.public is None:
            raise NotApplicable(f"{self.name} needs public images of other classes: name some with --public")
        victim.require_answers(self.needs, shown)
        context.cost, context.findings, context.victim_noise = Cost(), Findings(), victim.noise
        context.student = None
        context.stopwatch.restart()
        outcome = run(victim.restricted_to(self.needs, context.cost))
        context.cost.seconds = context.stopwatch.seconds
        return outcome


class Reconstruction(NamedTuple):
    """The outcome of a class-leakage attack."""

    images: Tensor
    """[N, C, H, W] in [0, 1]"""
    targets: Tensor
    """[N] the class that each image was made for"""
    cost: Cost
    findings: dict[str, float]
    """what the attack measured on the way"""
    spent: float
    """gradient steps and queries an image, together, of the target that had the most"""
    snapshots: tuple[Snapshot, ...]
    """what it had on the way, by rising budget"""
    student: ImageClassifier | None
    """its model of the victim, if it handed one over"""


class Attack(BaseAttack[P]):
    """Class inversion: draws pictures of the target classes out of a victim."""

    leakage = "inversion"

    @final
    def __call__(self, victim: Victim, targets: Tensor, context: AttackContext) -> Reconstruction:
        """Runs :meth:`run` with no more access than ``needs``; shape, range, finiteness and cost are checked here."""
        if len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < victim.classes):
            raise UsageError(f"targets must be classes 0..{victim.classes - 1}")

        def run(opened: Victim) -> Tensor:
            context.snapshots = Snapshots(context.cost, len(targets), victim.image_shape)
            return self.run(opened, targets.to(context.device), context)

        images = self._attacked(victim, context, run)
        expected = (len(targets), *victim.image_shape)
        if not isinstance(images, Tensor) or tuple(images.shape) != expected:
            got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise PluginError(f"{self.name}.run must return images of shape {expected}, got {got}")
        if images.is_complex():
            raise PluginError(f"{self.name}.run must return real numbers, got {images.dtype}")
        images = images.detach().float().cpu()
        if not torch.isfinite(images).all():
            raise NumericalError(f"{self.name} made images with NaN or infinity")
        if len(images) and (float(images.min()) < -1e-4 or float(images.max()) > 1 + 1e-4):
            raise PluginError(f"{self.name}.run must return images in [0, 1]: clamp inside the attack, not after it")
        context.findings.check(self.name)
        self._check_student(context.student, victim)
        kept = context.snapshots
        return Reconstruction(
            images.clamp(0, 1), targets.cpu(), context.cost, context.findings, kept.spent, tuple(kept.kept),
            context.student,
        )  # fmt: skip

    def _check_student(self, student: ImageClassifier | None, victim: Victim) -> None:
        if student is None:
            return
        if not isinstance(student, ImageClassifier):
            raise PluginError(f"{self.name} must hand over an ImageClassifier, got {type(student).__name__}")
        if (student.image_shape, student.classes) != (victim.image_shape, victim.classes):
            raise PluginError(
                f"{self.name} must hand over a student of {victim.classes} classes and images {victim.image_shape}, "
                f"got {student.classes} and {student.image_shape}"
            )

    @abstractmethod
    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        """All that an author writes: images [N, C, H, W] in [0, 1], one for each of ``targets`` [N]."""
