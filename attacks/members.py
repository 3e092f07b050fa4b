"""What the ensembles of several readings share: searches by the gradients of one, and a choice by all of them.

A reading is a model that answers as the victim does, or nearly so. Confidence belongs to the defender: so every search
runs to its budget whatever a reading claims, and of a target's images the one is kept that all readings like best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakbench.attacks.analog_twin import AnalogTwin
from leakbench.attacks.distillation import spread
from leakbench.attacks.inversion import Inversion
from leakbench.attacks.search import Model, SearchParams, margin_loss, search
from leakbench.contracts import AttackContext
from leakbench.errors import NoSignal

# Written out, so that no change of an attack's defaults changes what the ensembles compute.
_SEARCH = {
    "iterations": 300, "restarts": 1, "lr": 0.1, "loss": "margin", "total_variation": 0.03, "l2": 0.0, "jitter": 2,
    "flips": True, "blur": 0.0, "coarse": 0.5, "chroma": 0.25, "confidence_draws": 4,
}  # fmt: skip
INVERSION, TWIN = Inversion(**_SEARCH), AnalogTwin(**_SEARCH | {"total_variation": 0.06})
BLACK, WHITE = 0.04, 0.96
"""brightness of flat images to start from: some networks answer nothing to noise"""
_TOGETHER = 300
"""images that a reading answers at once: whole batches of :func:`answers_of`, so that a victim's noise is as of all"""


@dataclass(frozen=True)
class Reading:
    """One way to read the network."""

    name: str
    model: Model


@dataclass(frozen=True)
class Member:
    """One search, by the gradients of one reading."""

    name: str
    model: Model
    params: SearchParams = INVERSION.params
    brightness: float | None = None
    """of the flat images that it starts from; None: noise"""


@dataclass(frozen=True)
class Candidates:
    """A member's image of each target."""

    member: Member
    images: Tensor


def drawn_together(
    attack: str,
    members: Sequence[Member],
    readings: Sequence[Reading],
    targets: Tensor,
    shape: tuple[int, int, int],
    context: AttackContext,
) -> Tensor:
    """Of ``targets`` [N] what the ``members`` draw and the ``readings`` choose: images [N, *shape].

    Raises NoSignal where no member had a gradient. ``attack``: its name, for what is said of progress.
    """
    drawn = run_members(attack, members, targets, shape, context)
    if not drawn:
        raise NoSignal(f"zero gradients: no member of {attack} had a gradient with respect to the input")
    return chosen(attack, drawn, readings, targets, context)


def run_members(
    attack: str, members: Sequence[Member], targets: Tensor, shape: tuple[int, int, int], context: AttackContext
) -> list[Candidates]:
    """What each member draws, all of them to their budgets; nothing of those without a gradient.

    Who stops before the choice hands over what the first draws.
    """
    drawn: list[Candidates] = []
    for number, member in enumerate(members, 1):
        title = f"{attack}: {member.name} ({number} of {len(members)})"
        try:
            images = search(
                member.model,
                targets,
                shape,
                context,
                member.params,
                title,
                brightness=member.brightness,
                shown=not drawn,
                own=True,
            )
        except NoSignal:  # masked from one is not masked from all
            context.finding(f"no signal to {member.name}", 1)
            continue
        if not drawn:
            context.snapshot(images)
        drawn.append(Candidates(member, images))
    return drawn


def chosen(
    attack: str, drawn: Sequence[Candidates], readings: Sequence[Reading], targets: Tensor, context: AttackContext
) -> Tensor:
    """For each of ``targets`` [N] the image of the highest margin, mean over ``readings``; [N, C, H, W].

    Whose images they are goes into the findings.
    """
    scores = torch.stack([margins(attack, reading, drawn, targets, context) for reading in readings]).mean(0)
    best = scores.argmax(0)
    for name in dict.fromkeys(own.member.name for own in drawn):
        won = sum(int((best == number).sum()) for number, own in enumerate(drawn) if own.member.name == name)
        context.finding(f"images won by {name}", won)
    images = torch.stack([own.images for own in drawn])
    return images[best, torch.arange(len(targets), device=targets.device)]


def margins(
    attack: str, reading: Reading, drawn: Sequence[Candidates], targets: Tensor, context: AttackContext
) -> Tensor:
    """The reading's margins of ``targets`` [N] in all that was drawn, of its mean logits over small shifts: [drawn, N].

    In units of their spread over all these images, so that no reading counts for more than another. A margin that is
    no number counts as none, and images with logits that are none have no part in the spread.
    """

    def asked(own: Candidates) -> Tensor:
        @torch.no_grad()
        def ask() -> Tensor:
            total: Any = 0
            for draw in range(INVERSION.params.confidence_draws):
                shift = torch.randint(-1, 2, (2,), generator=context.generator).tolist() if draw else [0, 0]
                parts = own.images.roll(shift, (2, 3)).split(_TOGETHER)
                total = total + torch.cat([reading.model(part) for part in parts])
            mean: Tensor = total / INVERSION.params.confidence_draws
            return mean

        return context.once(f"{attack}: {reading.name} reads the images of {own.member.name}", ask)

    logits = torch.stack([asked(own) for own in drawn])
    known = logits.isfinite().all(2)
    unit = spread(logits[known]) if bool(known.any()) else 1.0
    return torch.stack([-margin_loss(one / unit, targets).nan_to_num(0.0, 0.0, 0.0) for one in logits])
