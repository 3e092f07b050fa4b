"""Inversion from labels alone: away from the class's boundary, in the latent space of a public generator."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from leakbench.attacks.prior import PRESETS, GeneratorPrior, LatentParams
from leakbench.attacks.search import labels_of
from leakbench.contracts import Access, Attack, AttackContext, Variables, Victim

_LONGEST = 3.0
"""of a step, as the authors'"""


class LabelOnlyParams(LatentParams):
    """The generator, the pool and the walk. ``points`` + 1 queries an image and step."""

    truncation: float = Field(1.5, gt=0, description="every number of a code stays in [-truncation, truncation]")
    iterations: int = Field(24, ge=1, description="steps of the walk")
    points: int = Field(15, ge=1, description="codes on the sphere whose labels are asked each step")
    radius: float = Field(2.0, gt=0, description="of the first sphere")
    growth: float = Field(1.3, gt=1, description="factor on the radius where the class fills the sphere")
    # The released code compares the sum of +1 (inside) and -1 (outside) with .75 of the points: .875 of them inside.
    inside: float = Field(
        0.875, gt=0, lt=1, description="share of the points in the class above which the class fills the sphere"
    )


class LabelOnly(Attack[LabelOnlyParams]):
    """Boundary repulsion from labels alone, in the latent space of a GAN trained on public images."""

    name = "label_only"
    version = 2
    needs = Access.LABELS
    uses_public = True
    effort = "iterations"
    cites = "Kahla, Chen, Just, Jia (BREP-MI), CVPR 2022, Algorithm 1 and the authors' code"
    presets: ClassVar = {"quick": {**PRESETS["quick"], "iterations": 8, "points": 11}}

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        params = self.params
        prior = GeneratorPrior(params, context)
        pool = prior.codes(params.pool, context)
        # asked once, for all targets
        ask = partial(prior.in_batches, partial(labels_of, victim), pool)
        labels = context.once("label_only: asking about the pool", ask)
        index, started = _starts(pool, labels, targets)
        counts = (labels[:, None] == targets.unique()).sum(0)
        context.finding("pool images of the rarest target class", int(counts.min()))
        context.finding("targets without a start", int((~started).sum()))
        context.snapshot(prior.images(pool[index]))
        codes, radius = self._repelled(victim, prior, pool[index], started, targets, context)
        context.finding("targets whose class filled no sphere", int((radius == 0).sum()))
        context.finding("mean radius of the largest filled spheres", float(radius.mean()))
        return prior.images(codes)

    def _repelled(
        self,
        victim: Victim,
        prior: GeneratorPrior,
        start: Tensor,
        inside: Tensor,
        targets: Tensor,
        context: AttackContext,
    ) -> tuple[Tensor, Tensor]:
        """Codes [N, latent] and the radius [N] of the largest sphere around each that its class filled (0: none).

        ``inside`` [N] says which of ``start`` have their target's label. Each step asks points on a sphere around every
        centre: where the class fills it, it grows; elsewhere the centre is moved away from the points outside, unless
        that would take it out of the class. A centre that is not in its class goes to a point that is; while there is
        none, its sphere grows.
        """
        params, count = self.params, len(targets)
        each = torch.arange(count, device=targets.device)
        radius = torch.full((count, 1), params.radius, device=targets.device)
        walk = Variables(
            centre=start, largest=start, radius=radius, filled=torch.zeros_like(radius), inside=inside
        )  # fmt: skip
        for _ in context.steps(params.iterations, self.name, walk=walk):
            drawn = torch.randn(count, params.points, start.shape[1], generator=context.generator)
            directions = functional.normalize(drawn.to(context.device), dim=2)
            points = prior.truncated(walk.centre[:, None] + walk.radius[:, None] * directions)
            labels = prior.in_batches(partial(labels_of, victim), points.flatten(0, 1)).view(count, params.points)
            outside = labels != targets[:, None]
            full = walk.inside & ((~outside).double().mean(1) > params.inside)
            walk.largest = torch.where(full[:, None], walk.centre, walk.largest)
            walk.filled = torch.where(full[:, None], walk.radius, walk.filled)
            # repulsion alone: the points inside the class have no say
            away = -(outside[:, :, None] * directions).mean(1)
            moved = prior.truncated(walk.centre + (walk.radius / 3).clamp(max=_LONGEST) * away)
            moved = torch.where(walk.inside[:, None], moved, points[each, outside.long().argmin(1)])
            still = prior.in_batches(partial(labels_of, victim), moved) == targets
            walk.centre = torch.where((still & ~full)[:, None], moved, walk.centre)
            grows = full | ~(walk.inside | still)
            walk.radius = torch.where(grows[:, None], walk.radius * params.growth, walk.radius)
            walk.radius = torch.where((~walk.inside & still)[:, None], params.radius, walk.radius)
            walk.inside = walk.inside | still
            context.snapshot(prior.images(_reached(walk)))
        return _reached(walk), walk.filled.squeeze(1)


def _reached(walk: Variables) -> Tensor:
    """Codes [N, latent]: the centre of the largest sphere that the class filled; while there is none, the centre."""
    never = (walk.filled == 0) & walk.inside[:, None]
    return torch.where(never, walk.centre, walk.largest)


def _starts(pool: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """For ``targets`` [N] a code of ``pool`` with these ``labels`` [pool], and whether it has the target's label.

    The targets of a class take turns on its codes, those first that lie farthest out towards their mean: the boundary
    is likely behind them. Where the pool has none of a class, each of its targets takes any.
    """
    index = torch.empty_like(targets)
    started = torch.empty_like(targets, dtype=torch.bool)
    for wanted in targets.unique():
        where = (targets == wanted).nonzero().squeeze(1)
        members = (labels == wanted).nonzero().squeeze(1)
        started[where] = bool(len(members))
        if len(members):
            members = members[(pool[members] @ pool[members].mean(0)).argsort(descending=True)]
        else:
            members = torch.arange(len(pool), device=pool.device)
        index[where] = members[torch.arange(len(where), device=pool.device) % len(members)]
    return index, started
