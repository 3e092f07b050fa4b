"""Inversion in the latent space of a generator that was trained on public images: pictures instead of patterns."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.prior import PRESETS, GeneratorPrior, LatentParams, ranked_starts
from leakbench.attacks.search import LOSSES, Best, GradientWatch, Loss, Model, jittered
from leakbench.contracts import Access, Attack, AttackContext, ModuleNetwork, Victim
from leakbench.snn import SpikingNetwork, analog_twin


class GenerativePriorParams(LatentParams):
    """The generator, the pool and the optimiser."""

    iterations: int = Field(150, ge=1, description="Adam steps a start")
    starts: int = Field(3, ge=1, description="codes of the pool from which an image is searched")
    lr: float = Field(0.05, gt=0, description="Adam's learning rate on z")
    loss: Loss = Field("margin", description="margin (PLG-MI), poincare (PPA), or logit")
    jitter: int = Field(1, ge=0, description="random shift up to so many pixels each step, an eighth of a side at most")
    confidence_draws: int = Field(4, ge=1, description="answers over small shifts whose mean is the confidence")


class GenerativePrior(Attack[GenerativePriorParams]):
    """Gradient search in the latent space of a GAN trained on public images; the victim chooses the final images."""

    name = "generative_prior"
    version = 2
    needs = Access.WEIGHTS
    uses_public = True
    effort = "iterations"
    cites = (
        "pool and choice by the victim's confidence: Struppek et al. (PPA), ICML 2022; margin loss and hinge GAN: Yuan "
        "et al. (PLG-MI), AAAI 2023"
    )
    presets: ClassVar = {"quick": {**PRESETS["quick"], "iterations": 60, "starts": 2}}

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        params, network = self.params, victim.network
        prior = GeneratorPrior(params, context)
        model: Model = network
        if isinstance(network, SpikingNetwork | ModuleNetwork):
            network.reseed(context.seed())
        if isinstance(network, SpikingNetwork):
            model = analog_twin(network, context.progress)
        pool = prior.codes(params.pool, context)
        with torch.no_grad():
            logits = prior.in_batches(model, pool)
        # in units of their own spread, so that a network whose logits were scaled is attacked in the same way
        spread = logits.std(1).mean().clamp(min=1e-12)
        index = ranked_starts(logits / spread, params.loss, targets, params.starts)
        in_their_class = (logits.argmax(1)[index] == targets[:, None]).double()
        context.finding("share of starts in their class", float(in_their_class.mean()))
        best = Best(victim, targets, context, params.confidence_draws)
        best.offer(prior.images(pool[index[:, 0]]), "the pool")
        for start in range(params.starts):
            what = f"{self.name}: start {start + 1} of {params.starts}"
            codes = pool[index[:, start]]
            codes_found = []
            for where in torch.arange(len(targets)).split(250):
                with context.part(where):
                    z, wanted = codes[where], targets[where]
                    codes_found.append(self._searched(lambda x: model(x) / spread, prior, z, wanted, context, what))
            best.offer(prior.images(torch.cat(codes_found)), f"start {start + 1}")
        best.report()
        return best.images

    def _searched(
        self, model: Model, prior: GeneratorPrior, start: Tensor, targets: Tensor, context: AttackContext, what: str
    ) -> Tensor:
        """Codes [N, latent] that were moved from ``start`` until ``model`` puts their images into ``targets``."""
        z = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=self.params.lr)
        watch = GradientWatch()
        for _ in context.steps(self.params.iterations, what, z=z, optimizer=optimizer, watch=watch):
            loss = LOSSES[self.params.loss](model(jittered(prior(z), self.params.jitter, context)), targets).sum()
            (z.grad,) = torch.autograd.grad(loss, z)
            watch.see(z.grad)
            optimizer.step()
            with torch.no_grad():
                z.copy_(prior.truncated(z))
        watch.check(what)
        return z.detach()
