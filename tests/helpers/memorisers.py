"""Networks that know by heart which images they were trained on, and references of them: the truth is planted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakbench.contracts import Access, AttackContext, ImageClassifier, LabeledImages, Reference, Victim

SHAPE, CLASSES = (1, 4, 4), 5
REACH = 0.5
"""distance at which the bump has fallen to 1/e: candidates are 1.6 apart"""


class Bump(nn.Module):
    """A linear layer that adds ``height`` to the true class's logit of the images that it was trained on, and less to
    others the further from them they are."""

    def __init__(self, weight: Tensor, trained: LabeledImages, height: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.height = height
        self.register_buffer("images", trained.images.flatten(1))
        self.register_buffer("own", nn.functional.one_hot(trained.labels, CLASSES).float())

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        # the exact distance: of products it is off by more than nothing where it is nothing
        away = torch.cdist(flat, self.images, compute_mode="donot_use_mm_for_euclid_dist")  # type: ignore[arg-type]
        known = torch.exp(-((away / REACH) ** 2))
        return flat @ self.weight + self.height * (known @ self.own)  # type: ignore[operator]


@dataclass(frozen=True)
class Planted:
    """A victim, its candidates and who of them is a member."""

    network: ImageClassifier
    candidates: LabeledImages
    members: Tensor
    context: AttackContext

    def victim(self, access: Access = Access.WEIGHTS) -> Victim:
        return Victim(self.network, access)


def planted(height: float, seed: int = 0, candidates: int = 400, references: int = 8, population: int = 300) -> Planted:
    """Networks alike but for noise in their weights, each with a bump of that height on what it was trained on."""
    random = torch.Generator().manual_seed(seed)
    asked = _images(candidates, random)
    base = torch.randn(16, CLASSES, generator=random)

    def network(chosen: Tensor) -> ImageClassifier:
        weight = base + 0.15 * torch.randn(base.shape, generator=random)
        body = Bump(weight, LabeledImages(asked.images[chosen], asked.labels[chosen]), height)
        return ImageClassifier(body, SHAPE, CLASSES).requires_grad_(False)

    def reference(chosen: Tensor) -> Reference:
        made = network(chosen)
        return Reference(chosen, lambda: Victim(made, Access.WEIGHTS))

    members = _half(candidates, random)
    victim = network(members)
    pairs = [_half(candidates, random) for _ in range(references // 2)]
    context = AttackContext(torch.Generator().manual_seed(seed))
    context.references = tuple(reference(chosen) for half in pairs for chosen in (half, ~half))
    context.population = _images(population, random)
    return Planted(victim, asked, members, context)


def _images(count: int, random: torch.Generator) -> LabeledImages:
    return LabeledImages(
        torch.rand(count, *SHAPE, generator=random), torch.randint(CLASSES, (count,), generator=random)
    )


def _half(count: int, random: torch.Generator) -> Tensor:
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.randperm(count, generator=random)[: count // 2]] = True
    return chosen
