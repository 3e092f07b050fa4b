"""Membership from answers under noise: input dropout, and the noise of a spiking victim's own encoder."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.confidences import confidences_of
from leakbench.contracts import Access, AttackContext, LabeledImages, MembershipAttack, Params, Victim


class NoiseParams(Params):
    """How images are altered, and how often."""

    draws: int = Field(10, ge=1, le=10_000, description="altered images whose mean probabilities are taken")
    dropout: float = Field(
        0.01, ge=0, lt=1, description="probability that a value is dropped: a grey pixel, or one colour of a pixel"
    )


class NoiseMia(MembershipAttack[NoiseParams]):
    """Scores an image by the victim's mean probability for its true label over answers with values dropped at random.

    A dropped value enters the network as 0, for all steps of an answer (the authors draw anew at each step), where the
    network maps grey images to [0, 1], or colour, of which each value is drawn by itself, to [-1, 1], as those do that
    are trained here. Of an audited network that maps colour otherwise a dropped value is a mean grey. A spiking victim
    draws encoder noise of its own for every answer, which is averaged along; without dropout it is all there is.
    """

    name = "noise_mia"
    version = 4
    needs = Access.SCORES
    effort = "draws"
    cites = "Guan et al.: On the Privacy Risks of Spiking Neural Networks, UAI 2025, input dropout (p .01, 10 draws)"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        def dropped(images: Tensor, generator: torch.Generator) -> Tensor:
            return dropped_pixels(images, self.params.dropout, generator)

        asked = LabeledImages(candidates, labels)
        what = "asking about images with pixels dropped"
        return confidences_of(victim, asked, self.params.draws, context, what, dropped).logits


def dropped_pixels(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """``images`` [N, C, H, W] with each value dropped with that probability: to black, or to .5 in a colour image."""
    shown = 0.5 if images.shape[1] == 3 else 0.0
    kept = torch.rand(images.shape, generator=generator) >= probability
    return torch.where(kept.to(images.device), images, shown)
