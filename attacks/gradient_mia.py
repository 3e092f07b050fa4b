"""Membership from the gradient of the loss with respect to the weights."""

from __future__ import annotations

import copy
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from leakbench.attacks.confidences import temperature
from leakbench.contracts import Access, AttackContext, MembershipAttack, ModuleNetwork, Params, Rows, Victim
from leakbench.errors import NoSignal, NotApplicable
from leakbench.snn import SpikingNetwork

_BATCH = 100


class GradientParams(Params):
    """How often gradients are taken."""

    repeats: int = Field(
        1, ge=1, le=1000, description="answers whose mean loss is differentiated: a spiking victim's are noisy"
    )


class GradientMia(MembershipAttack[GradientParams]):
    """Scores an image by minus the log of the norm of its loss's gradient with respect to all weights.

    Training has brought it down for the images that it was done with. Of a spiking victim it is the surrogate
    gradient, through all T steps.
    """

    name = "gradient_mia"
    version = 2
    needs = Access.WEIGHTS
    cites = "Nasr, Shokri, Houmansadr: Comprehensive Privacy Analysis of Deep Learning, S&P 2019 (gradient norm)"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        network = copy.deepcopy(victim.network)  # its weights are to need gradients
        weights = [p.requires_grad_() for p in network.parameters() if p.is_floating_point()]
        seeds = [context.seed() for _ in range(self.params.repeats)]
        scale = temperature(_answers(network, candidates, seeds[0]))
        what, rows = "differentiating the candidates' losses", Rows()
        for number in context.loop(what).steps(len(labels), rows=rows):
            context.progress(what, number, len(labels))
            image, label = candidates[number : number + 1], labels[number : number + 1]
            rows.add(_norm(network, weights, image, label, seeds, number, scale)[None])
        norms = rows.tensor
        if not bool(norms.any()):
            raise NoSignal("zero gradients: no weight has any influence on the loss of any candidate")
        return -norms.clamp(min=torch.finfo(torch.float64).tiny).log()


def _norm(
    network: SpikingNetwork | nn.Module,
    weights: list[Tensor],
    image: Tensor,
    label: Tensor,
    seeds: list[int],
    number: int,
    scale: float,
) -> Tensor:
    """Of the gradient of the mean loss over the noise of ``seeds``, of logits over ``scale``: float64 []."""
    losses = [
        nn.functional.cross_entropy(_answer(network, image, seed, number) / scale, label)
        for seed in (seeds if isinstance(network, SpikingNetwork | ModuleNetwork) else seeds[:1])
    ]
    loss = torch.stack(losses).mean()
    if not loss.requires_grad:
        raise NotApplicable("no gradient passes through the module: its answers alone can be attacked")
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    squares = [g.double().square().sum() for g in gradients if g is not None]
    return torch.stack(squares).sum().sqrt().detach()


def _answer(network: SpikingNetwork | nn.Module, images: Tensor, seed: int, first: int) -> Tensor:
    """Logits of images, the number ``first`` and following, whose noise follows from the seed and that number."""
    if isinstance(network, SpikingNetwork):
        answer = network(images, seed, first)
    elif isinstance(network, ModuleNetwork):
        answer = network(images, (seed + first) % 2**62)  # a batch draws from its seed alone
    else:
        answer = network(images)
    return cast(Tensor, answer)


@torch.no_grad()
def _answers(network: SpikingNetwork | nn.Module, images: Tensor, seed: int) -> Tensor:
    """Logits of all images."""
    starts = range(0, len(images), _BATCH)
    return torch.cat([_answer(network, images[first : first + _BATCH], seed, first) for first in starts])
