"""A strong activation maximisation on the ReLU network: what the paper's attack 1 leaves on the table."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from leakbench.contracts import Access, Attack, Context, Params, Victim
from leakbench.snn import SpikingNetwork, relu_network


class InversionParams(Params):
    """The optimiser, its regularisers and restarts."""

    iterations: int = Field(300, ge=1, description="Adam steps a restart")
    restarts: int = Field(3, ge=1, description="starts an image; the victim's own confidence chooses the best")
    lr: float = Field(0.05, gt=0, description="Adam's learning rate on w, where x = sigmoid(w)")
    total_variation: float = Field(0.05, ge=0, description="weight of the summed absolute differences of neighbours")
    jitter: int = Field(
        2, ge=0, description="random shift up to so many pixels each step (an eighth of the image at most)"
    )
    confidence_draws: int = Field(4, ge=1, description="passes over which a spiking victim's confidence is averaged")


class Inversion(Attack[InversionParams]):
    """Strong inversion of the ReLU network: Adam on a margin loss with total variation, jitter and restarts."""

    name = "inversion"
    needs = Access.WEIGHTS
    effort = "iterations"
    cites = "margin loss: Yuan et al. (PLG-MI), AAAI 2023; priors: Mahendran & Vedaldi 2015, Yin et al. 2020"
    presets: ClassVar = {"quick": {"iterations": 150, "restarts": 2}}

    def run(self, victim: Victim, targets: Tensor, context: Context) -> Tensor:
        ann = relu_network(victim.network)
        if isinstance(victim.network, SpikingNetwork):
            victim.network.reseed(context.seed())
        best = torch.zeros(len(targets), *victim.image_shape, device=context.device)
        confidence = torch.full((len(targets),), -1.0, device=context.device)
        for restart in range(self.params.restarts):
            images = self._invert(ann.body, ann.input_range, targets, victim, context, restart)
            reached = self._confidence(victim, images, targets)
            better = reached > confidence
            best[better], confidence[better] = images[better], reached[better]
        return best

    def _invert(
        self,
        body: torch.nn.Module,
        input_range: Any,
        targets: Tensor,
        victim: Victim,
        context: Context,
        restart: int,
    ) -> Tensor:
        params = self.params
        jitter = min(params.jitter, min(victim.image_shape[1:]) // 8)
        start = torch.randn(len(targets), *victim.image_shape, generator=context.generator)
        w = start.to(context.device).requires_grad_()
        optimizer = torch.optim.Adam([w], lr=params.lr)
        for _ in context.steps(params.iterations, f"inversion: restart {restart + 1} of {params.restarts}"):
            x = torch.sigmoid(w)
            dy, dx = torch.randint(-jitter, jitter + 1, (2,), generator=context.generator).tolist()
            loss = margin_loss(body(input_range(torch.roll(x, (dy, dx), (2, 3)))), targets).sum()
            loss = loss + params.total_variation * total_variation(x).sum()
            (w.grad,) = torch.autograd.grad(loss, w)
            optimizer.step()
        return torch.sigmoid(w.detach())

    def _confidence(self, victim: Victim, images: Tensor, targets: Tensor) -> Tensor:
        draws = self.params.confidence_draws if isinstance(victim.network, SpikingNetwork) else 1
        total = torch.zeros(len(images), device=images.device)
        for _ in range(draws):
            total += victim.scores(images).softmax(1).gather(1, targets[:, None]).squeeze(1)
        return total / draws


def margin_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """max over other classes of y_j, minus y_c; [B]. Does not saturate as cross-entropy does (PLG-MI)."""
    own = logits.gather(1, targets[:, None]).squeeze(1)
    others = logits.scatter(1, targets[:, None], -torch.inf).amax(1)
    return others - own


def total_variation(x: Tensor) -> Tensor:
    """Sum over pixels of the absolute differences to the right and lower neighbours; [B]."""
    across = (x[..., 1:] - x[..., :-1]).abs().flatten(1).sum(1)
    down = (x[..., 1:, :] - x[..., :-1, :]).abs().flatten(1).sum(1)
    return across + down
