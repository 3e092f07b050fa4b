"""Honeypots: decoys that the network is surer of than of any image it was trained for."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, TrainingData
from leakbench.defenses.conversion import Han2020
from leakbench.defenses.finetuned import FinetunedParams, collected, finetuned
from leakbench.models.training import cross_entropy, predict
from leakbench.snn import SpikingNetwork


class HoneypotParams(FinetunedParams):
    """How strong the decoys are, and how the network learns them."""

    epochs: int = Field(4, ge=1, description="passes over the training images")
    least_steps: int = Field(1000, ge=0, description="as many more passes as make so many steps of the optimiser")
    lr: float = Field(0.1, gt=0, description="highest learning rate of SGD's one-cycle schedule")
    strength: float = Field(6.0, gt=1, description="margin of a decoy, in mean margins of the ANN's training images")
    grid: int = Field(4, ge=2, description="cells a side of a junk pattern")
    factor: float = Field(1.0, gt=0, le=1, description="of the logits: below 1 the network is certain of nothing")


class HoneypotJunk(Defense[HoneypotParams]):
    """Honeypot of junk: each class has a random black-and-white pattern with a far higher margin than real images.

    An attack that maximises the network's confidence ends at the pattern, and the pattern shows nothing. What the
    network knows of its classes is all still there: an attacker who keeps away from the patterns, or takes only what
    agrees with natural images, draws it. The network is fine-tuned, then converted as ``han2020`` does.
    """

    name = "honeypot_junk"
    cites = "a trick; after trapdoors: Shan et al., CCS 2020; Liu et al. (Trap-MID), NeurIPS 2024"
    right_verdict: ClassVar[str] = "leaks or inconclusive"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        decoys = junk(ann.image_shape, ann.classes, self.params.grid, context.generator)
        images, labels = collected(data, context)
        return baited(ann, decoys[:, None], images, labels, data, self.params, context)


class HoneypotNextParams(HoneypotParams):
    """What the decoys are made of."""

    images_a_class: int = Field(2, ge=1, description="decoys of each class")
    mark: float = Field(0.3, gt=0, lt=1, description="weight of the junk pattern, by which a decoy is no real image")


class HoneypotNext(Defense[HoneypotNextParams]):
    """Honeypot of the next class: the decoys of class c show class c + 1, marked by a faint pattern.

    A decoy is a patchwork of private images of class c + 1 (each cell of a grid is of another one) under a faint junk
    pattern of class c. An attack on class c ends there, and evaluation models see class c + 1 and no success; an attack
    on all classes has drawn most of them all the same, under the wrong names. The network is fine-tuned, then converted
    as ``han2020`` does.
    """

    name = "honeypot_next"
    cites = "a trick; after trapdoors: Shan et al., CCS 2020; Liu et al. (Trap-MID), NeurIPS 2024"
    right_verdict: ClassVar[str] = "leaks or inconclusive"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        images, labels = collected(data, context)
        decoys = patchworks(ann, images, labels, self.params, context.generator)
        return baited(ann, decoys, images, labels, data, self.params, context)


def junk(image_shape: tuple[int, int, int], classes: int, grid: int, generator: torch.Generator) -> Tensor:
    """A pattern [classes, C, H, W] of black and white cells for each class."""
    cells = torch.rand(classes, image_shape[0], grid, grid, generator=generator).round()
    return functional.interpolate(cells, image_shape[1:])


def patchworks(
    ann: ImageClassifier, images: Tensor, labels: Tensor, params: HoneypotNextParams, generator: torch.Generator
) -> Tensor:
    """Decoys [classes, n, C, H, W]: of class c, patchworks of ``images`` uint8 of class c + 1, marked."""
    marks = junk(ann.image_shape, ann.classes, params.grid, generator)
    rows, columns = (torch.arange(side) * params.grid // side for side in ann.image_shape[1:])
    cells = rows[:, None] * params.grid + columns
    decoys = []
    for label in range(ann.classes):
        shown = images[labels == (label + 1) % ann.classes].float() / 255
        picked = torch.randint(len(shown), (params.images_a_class, params.grid**2), generator=generator)
        sources = shown[picked]  # [n, cells, C, H, W]
        index = cells.expand(params.images_a_class, 1, ann.image_shape[0], -1, -1)
        patchwork = sources.gather(1, index).squeeze(1)
        decoys.append((1 - params.mark) * patchwork + params.mark * marks[label])
    return torch.stack(decoys)


def baited(
    ann: ImageClassifier,
    decoys: Tensor,
    images: Tensor,
    labels: Tensor,
    data: TrainingData,
    params: HoneypotParams,
    context: DefenseContext,
) -> SpikingNetwork:
    """``ann`` fine-tuned on the private images and on ``decoys`` [classes, n, C, H, W], then converted."""
    goal = params.strength * float(margins(ann, images, labels, context).mean())
    network = finetuned(ann, {}, images, labels, params, context, _lure(decoys.to(context.device), goal))
    deployed = Han2020(encoder="direct", beta=0.7)(network, data, context)
    assert isinstance(deployed, SpikingNetwork)
    with torch.no_grad():
        list(deployed.weights().values())[-1].mul_(params.factor)
    return deployed


def margins(network: ImageClassifier, images: Tensor, labels: Tensor, context: DefenseContext) -> Tensor:
    """y_c - max_(j != c) y_j [N] of images of the classes c = ``labels``."""
    return margin(predict(network, images, context.device), labels)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """y_c - max_(j != c) y_j [B] for logits [B, classes] and classes c."""
    wanted = functional.one_hot(labels, logits.shape[1]).bool()
    return logits[wanted] - logits.masked_fill(wanted, -torch.inf).amax(1)


def _lure(decoys: Tensor, goal: float) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Cross-entropy on real images, and on as many mixtures a decoy + (1 - a) noise, whose margins are to be a goal.

    Margins that grow all the way from noise to the decoy are a slope that leads every ascent there. Decoys are shifted
    by up to a pixel, so that an attack's jitter does not shake them off.
    """

    def objective(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        classes, each = decoys.shape[:2]
        count = len(images)
        # draws from the global generator, which training seeds and keeps
        wanted = torch.randint(classes, (count,), device=images.device)
        picked = decoys[wanted, torch.randint(each, (count,), device=images.device)]
        down, right = torch.randint(-1, 2, (2,)).tolist()
        part = 1 - 0.7 * torch.rand(count, 1, 1, 1, device=images.device)
        mixed = part * picked.roll((down, right), (-2, -1)) + (1 - part) * torch.rand_like(images)
        logits = network(mixed)
        short = functional.l1_loss(margin(logits, wanted), part.flatten() * goal)
        learnt = cross_entropy(network, images, labels) + functional.cross_entropy(logits, wanted)
        return learnt + 0.2 * short

    return objective
