"""A search that needs no gradient: keep a random change where the victim grows surer."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from leakbench.contracts import Access, Attack, Context, Params, Victim


class RandomSearchParams(Params):
    """How long and how far."""

    steps: int = Field(50, ge=1, le=100_000, description="changes that are tried on each image")
    spread: float = Field(0.2, gt=0, le=1, description="standard deviation of a change, in image units")


class RandomSearch(Attack[RandomSearchParams]):
    """Random search on the victim's scores: a change stays where the target's probability rises."""

    name = "random-search"
    needs = Access.SCORES
    cites = "folklore"

    def run(self, victim: Victim, targets: Tensor, context: Context) -> Tensor:
        def sure(images: Tensor) -> Tensor:
            return victim.scores(images).softmax(1).gather(1, targets[:, None]).squeeze(1)

        shape = (len(targets), *victim.image_shape)
        best = torch.rand(shape, generator=context.generator).to(context.device)
        confidence = sure(best)
        for _ in context.steps(self.params.steps, "random search"):
            change = torch.randn(shape, generator=context.generator).to(context.device)
            tried = (best + self.params.spread * change).clamp(0, 1)
            reached = sure(tried)
            better = reached > confidence
            best[better], confidence[better] = tried[better], reached[better]
        return best
