"""Inversion without gradients: simultaneous perturbation, the control that tells whether gradients are masked."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from leakbench.attacks.search import LOSSES, Best, Loss, answers_of
from leakbench.contracts import Access, Attack, AttackContext, Params, Victim


class SpsaParams(Params):
    """The optimiser. Two queries a direction, step and image."""

    iterations: int = Field(40, ge=1, description="Adam steps")
    directions: int = Field(4, ge=1, description="random directions a step, each asked on both sides")
    spread: float = Field(0.5, gt=0, description="c: length of a perturbation of w, where x = sigmoid(w)")
    lr: float = Field(0.2, gt=0, description="Adam's learning rate on w")
    loss: Loss = Field("margin", description="margin, poincare or logit, of the victim's scores")
    side: int = Field(8, ge=2, description="w has at most so many pixels a side and is enlarged: fewer to search")
    confidence_draws: int = Field(4, ge=1, description="answers over small shifts whose mean is the confidence")


class Spsa(Attack[SpsaParams]):
    """Gradient-free inversion of scores by simultaneous perturbation (SPSA): the control against masked gradients."""

    name = "spsa"
    needs = Access.SCORES
    effort = "iterations"
    cites = "Spall, IEEE TAC 37, 1992; Uesato et al., ICML 2018"
    presets: ClassVar = {"quick": {"iterations": 15}}

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        params = self.params
        channels, height, width = victim.image_shape
        side = (min(params.side, height), min(params.side, width))
        start = torch.randn(len(targets), channels, *side, generator=context.generator)
        w = start.to(context.device)
        # the momentum and step sizes of torch's Adam, on a gradient that no backward pass made
        w.requires_grad_()
        optimizer = torch.optim.Adam([w], lr=params.lr)
        best = Best(victim, targets, context, params.confidence_draws)

        def image(w: Tensor) -> Tensor:
            return torch.sigmoid(functional.interpolate(w, (height, width), mode="bilinear", align_corners=False))

        for _ in context.steps(params.iterations, self.name, w=w, optimizer=optimizer):
            gradient = torch.zeros_like(w)
            for _ in range(params.directions):
                coin = torch.randint(0, 2, w.shape, generator=context.generator).to(w)
                direction = params.spread * (2 * coin - 1)
                with torch.no_grad():
                    both = torch.cat([image(w + direction), image(w - direction)])
                    loss = LOSSES[params.loss](answers_of(victim, both), targets.repeat(2))
                rise = (loss[: len(targets)] - loss[len(targets) :]).view(-1, 1, 1, 1)
                gradient += rise / (2 * params.directions * direction)
            w.grad = gradient
            optimizer.step()
            context.snapshot(image(w.detach()))
        best.offer(image(w.detach()), self.name)
        return best.images
