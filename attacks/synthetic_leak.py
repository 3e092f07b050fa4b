"""Membership from the images that a defence synthesised: are training images nearer to them than others are?"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from leakbench.contracts import Access, AttackContext, MembershipAttack, Params, Victim

_BATCH = 500
_LEAST = 0.5 / 255
"""distance that no two different images are within: they are bytes"""


class SyntheticLeakParams(Params):
    """How near is measured."""

    neighbours: int = Field(
        1, ge=1, le=1000, description="nearest images of a set whose mean distance counts; all of a smaller set"
    )


class SyntheticLeak(MembershipAttack[SyntheticLeakParams]):
    """Scores an image by how much nearer the synthetic images are to it than images of the population: log of ratio.

    An audit of the synthetic set itself, and no attack on what is deployed: the defence keeps this set to itself, and
    the victim is asked nothing. Distances are Euclidean, in pixels. The authors ask of samples of a generator, and
    calibrate by a second one that learnt from other images; here such images themselves stand for it.
    """

    name = "synthetic_leak"
    needs = Access.LABELS
    uses_population = True
    uses_synthetic = True
    cites = "LeakBench; nearest samples, calibrated: Chen, Yu, Zhang, Fritz: GAN-Leaks, CCS 2020"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:  # noqa: ARG002
        assert context.population is not None and context.synthetic is not None  # the contract's
        neighbours = self.params.neighbours
        context.finding("synthetic images", len(context.synthetic))
        near = distances(candidates, context.synthetic.to(context.device), neighbours)
        usual = distances(candidates, context.population.images.to(context.device), neighbours)
        context.finding("candidates nearer to a synthetic image than to the population", int((near < usual).sum()))
        return usual.log() - near.log()


def distances(images: Tensor, others: Tensor, neighbours: int) -> Tensor:
    """Mean distance of each of ``images`` [N, C, H, W] to its nearest ``others`` [M, C, H, W]: float64 [N]."""
    flat, reference = images.flatten(1).double(), others.flatten(1).double()
    rows = [
        torch.cdist(part, reference).topk(min(neighbours, len(reference)), 1, largest=False).values.mean(1)
        for part in flat.split(_BATCH)
    ]
    return torch.cat(rows).clamp(min=_LEAST)
