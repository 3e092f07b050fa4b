"""Membership from labels alone: how robust the victim's label of an image is."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.search import labels_of
from leakbench.contracts import Access, AttackContext, MembershipAttack, Params, Variables, Victim

SIGMAS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
"""of the noise, in turns: somewhere among them an image's label begins to change"""


class LabelOnlyParams(Params):
    """How often the victim is asked."""

    draws: int = Field(70, ge=1, le=10_000, description="noisy images; seven strengths of the noise in turns")
    shift: int = Field(1, ge=0, le=16, description="pixels by which images are moved in every direction as well")


class LabelOnlyMia(MembershipAttack[LabelOnlyParams]):
    """Scores an image by the share of its noisy and moved copies that the victim gives the true label.

    The noisy ones take the place of the distance to the decision boundary, as in the paper's section on noise
    robustness; moved ones are its augmentation attack, by their number and without a shadow model. Mirrored images are
    among them where the data allow it.
    """

    name = "label_only_mia"
    needs = Access.LABELS
    effort = "draws"
    cites = "Choquette-Choo, Tramer, Carlini, Papernot: Label-Only Membership Inference Attacks, ICML 2021"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        draws, what = self.params.draws, "asking for the labels of altered images"
        moves = self._moves(candidates, context.flips)
        total = len(moves) + draws
        right = Variables(count=torch.zeros(len(labels), dtype=torch.float64, device=labels.device))
        for number in context.loop(what).steps(total, right=right):
            context.progress(what, number, total)
            if number < len(moves):
                shown = moves[number]
            else:
                sigma = SIGMAS[(number - len(moves)) % len(SIGMAS)]
                noise = torch.randn(candidates.shape, generator=context.generator).to(candidates.device)
                shown = (candidates + sigma * noise).clamp(0, 1)
            right.count = right.count + (labels_of(victim, shown) == labels).double()
        return right.count / total

    def _moves(self, images: Tensor, flips: bool) -> list[Tensor]:
        """The images as they are and moved by ``shift`` pixels, black where they were, and the same mirrored."""
        pixels = self.params.shift
        steps = range(-pixels, pixels + 1, max(1, pixels))
        padded = torch.nn.functional.pad(images, (pixels,) * 4)
        height, width = images.shape[2:]
        moved = [
            padded[:, :, pixels + down : pixels + down + height, pixels + right : pixels + right + width]
            for down in steps
            for right in steps
        ]
        return [*moved, *(one.flip(3) for one in moved)] if flips else moved
