"""Inversion from scores alone, by evolution in the latent space of a generator that was trained on public images."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.prior import PRESETS, GeneratorPrior, LatentParams, ranked_starts
from leakbench.attacks.search import LOSSES, Best, Loss, answers_of
from leakbench.contracts import Access, Attack, AttackContext, Variables, Victim


class EvolutionParams(LatentParams):
    """The generator, the pool and the strategy. ``population`` queries an image and generation."""

    iterations: int = Field(16, ge=1, description="generations")
    population: int = Field(16, ge=2, le=10_000, description="codes that are tried in a generation")
    share: float = Field(
        0.25, gt=0, le=1, description="share of them, the best, whose mean the next ones are drawn around"
    )
    spread: float = Field(0.5, gt=0, description="standard deviation of a code's numbers around that mean")
    loss: Loss = Field("margin", description="margin, poincare or logit, of the victim's scores")
    confidence_draws: int = Field(4, ge=1, description="answers over small shifts whose mean is the confidence")


class Evolution(Attack[EvolutionParams]):
    """Gradient-free search of scores in the latent space of a GAN trained on public images."""

    name = "evolution"
    needs = Access.SCORES
    uses_public = True
    effort = "iterations"
    cites = (
        "evolution in a public generator's latent space, from a pool of scored codes: An et al. (MIRROR), NDSS 2022; "
        "(mu/mu_w, lambda) selection: Hansen & Ostermeier, Evol. Comput. 9, 2001"
    )
    presets: ClassVar = {"quick": {**PRESETS["quick"], "iterations": 6, "population": 12}}

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        params = self.params
        prior = GeneratorPrior(params, context)
        pool = prior.codes(params.pool, context)
        # asked once, for all targets
        ask = partial(prior.in_batches, partial(answers_of, victim), pool)
        logits = context.once("evolution: asking about the pool", ask)
        start = ranked_starts(logits, params.loss, targets, 1).squeeze(1)
        context.finding("share of starts in their class", float((logits.argmax(1)[start] == targets).double().mean()))
        best = Best(victim, targets, context, params.confidence_draws)
        before = best.offer(prior.images(pool[start]), "the pool")
        after = best.offer(prior.images(self._evolved(victim, prior, pool[start], targets, context)), "evolution")
        context.finding("confidence, the pool", float(before.mean()))
        context.finding("confidence, evolution", float(after.mean()))
        best.report()
        return best.images

    def _evolved(
        self, victim: Victim, prior: GeneratorPrior, start: Tensor, targets: Tensor, context: AttackContext
    ) -> Tensor:
        """The last generation's mean for each of ``targets`` [N], from ``start`` [N, latent].

        All of a generation is drawn anew, the best included: one lucky answer of a noisy victim does not stay.
        """
        params = self.params
        weights = _weights(max(1, round(params.share * params.population))).to(context.device)
        search = Variables(mean=start)
        for _ in context.steps(params.iterations, self.name, search=search):
            steps = torch.randn(len(targets), params.population, start.shape[1], generator=context.generator)
            codes = prior.truncated(search.mean[:, None] + params.spread * steps.to(context.device))
            logits = prior.in_batches(partial(answers_of, victim), codes.flatten(0, 1))
            losses = LOSSES[params.loss](logits, targets.repeat_interleave(params.population)).view(codes.shape[:2])
            chosen = losses.argsort(1)[:, : len(weights), None].expand(-1, -1, start.shape[1])
            search.mean = (weights[:, None] * codes.gather(1, chosen)).sum(1)
            context.snapshot(prior.images(search.mean))
        return search.mean


def _weights(count: int) -> Tensor:
    """Of the best ``count``, best first: log(count + 1/2) - log(rank), normalised [count]."""
    weights = torch.log(torch.tensor(count + 0.5)) - torch.arange(1, count + 1).log()
    return weights / weights.sum()
