"""What attacks on membership by answers have in common: confidences of the true class, the victim's and references'."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.search import answers_of
from leakbench.contracts import AttackContext, LabeledImages, Params, Rows, Variables, Victim
from leakbench.errors import UsageError

Mode = Literal["online", "offline"]

Altered = Callable[[Tensor, torch.Generator], Tensor]
"""images [N, C, H, W] and a generator -> the images that the victim is shown"""


def unaltered(images: Tensor, _generator: torch.Generator) -> Tensor:
    """The images themselves."""
    return images


class AnswersParams(Params):
    """How often a network is asked."""

    repeats: int = Field(
        4, ge=1, le=10_000, description="answers whose mean probabilities are taken: a spiking network's are noisy"
    )


class ReferencesParams(AnswersParams):
    """Which references an image is compared by."""

    mode: Mode = Field(
        "online", description="online: references trained on the image and others count; offline: others alone"
    )


@dataclass(frozen=True)
class Confidences:
    """What networks answer to images with known classes, in float64: [..., N]."""

    own: Tensor
    """log of the true class's probability p, at most 0"""
    rest: Tensor
    """log of 1 - p, summed over the other classes, so that a p near 1 loses no digits"""

    @property
    def logits(self) -> Tensor:
        """log p - log(1 - p) (Carlini et al. 2022)."""
        return self.own - self.rest


@dataclass(frozen=True)
class Compared:
    """The victim's confidences and those of references."""

    victim: Confidences
    """[N]"""
    references: Confidences
    """[K, N]"""
    members: Tensor
    """bool [K, N]: which reference was trained on which image"""


def confidences_of(
    victim: Victim,
    asked: LabeledImages,
    repeats: int,
    context: AttackContext,
    what: str,
    altered: Altered = unaltered,
) -> Confidences:
    """The victim's confidences in the true classes: of the mean probabilities over so many answers.

    An interrupted run goes on between two answers. ``what``: for what is said of progress, of each call its own.
    """
    count = len(asked.labels)
    start = torch.full((2, count), -math.inf, dtype=torch.float64, device=asked.labels.device)
    summed = Variables(log=start)
    for number in context.loop(what).steps(repeats, summed=summed):
        context.progress(what, number, repeats)
        shown = altered(asked.images, context.generator)
        summed.log = torch.logaddexp(summed.log, _logs(victim, shown, asked.labels))
    own, rest = summed.log - math.log(repeats)
    return Confidences(own, rest)


def compared(
    victim: Victim,
    asked: LabeledImages,
    repeats: int,
    context: AttackContext,
    what: str,
    altered: Altered = unaltered,
    outside: bool = False,
) -> Compared:
    """The confidences of the victim and of all references, each asked as often, in the true classes of images.

    With ``outside`` the images are none of the candidates: no reference was trained on them.
    """
    ours = confidences_of(victim, asked, repeats, context, what, altered)
    rows = Rows()
    for number in context.loop(f"{what}, references").steps(len(context.references), rows=rows):
        context.progress(f"{what}, references", number, len(context.references))
        network = context.references[number].victim()
        logs = torch.stack([
            _logs(network, altered(asked.images, context.generator), asked.labels) for _ in range(repeats)
        ])  # fmt: skip
        rows.add((logs.logsumexp(0) - math.log(repeats))[None])
    own, rest = rows.tensor.to(asked.labels.device).unbind(1)
    members = torch.stack([reference.members for reference in context.references]).to(asked.labels.device)
    return Compared(ours, Confidences(own, rest), torch.zeros_like(own, dtype=torch.bool) if outside else members)


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of ``values`` [K, N] over the networks that are ``chosen``, bool [K, N]: [N].

    UsageError where an image has none.
    """
    counts = chosen.sum(0)
    if not bool(counts.all()):
        raise UsageError("every candidate needs references that were trained on it and others that were not")
    return torch.where(chosen, values, 0.0).sum(0) / counts


def share_below(scores: Tensor, others: Tensor, factor: float = 1.0) -> Tensor:
    """Share of ``others`` [M] that each of the scores exceeds by more than the logarithm of ``factor``; float64 [N].

    To it is added where the score lies among those of the same share, as less than a step of 1 / M.

    A share alone ends at all of the others: what few images are known by, how far they lie above them, would be cut.
    """
    margin = torch.tensor(factor, dtype=scores.dtype).log()
    below = torch.searchsorted(others.sort().values, scores - margin).double()
    place = torch.searchsorted(scores.sort().values, scores).double() / len(scores)
    return (below + place) / len(others)


def _logs(victim: Victim, images: Tensor, labels: Tensor) -> Tensor:
    answers = answers_of(victim, images)
    return true_class(answers / temperature(answers), labels)


def true_class(logits: Tensor, labels: Tensor) -> Tensor:
    """Of answers [N, classes] log p of the true class and log(1 - p): float64 [2, N]."""
    logs = logits.double().log_softmax(1)
    own = logs.gather(1, labels[:, None])
    # apart from it: of a p that is 1 to the last digit, how much less the others are is told all the same
    others = logs.scatter(1, labels[:, None], -math.inf).logsumexp(1)
    return torch.stack([own.squeeze(1), others])


LEAST_MARGIN, MOST_MARGIN = 0.01, 30.0
"""median difference of the two highest logits of networks that are taken as they are"""


def temperature(answers: Tensor) -> float:
    """What a network's answers [N, classes] are divided by, so that their scale hides nothing; 1 of most networks.

    A network that multiplies its logits decides as before, but its probabilities are all 1, or all equal, to the last
    digit, and means over several answers count them. Beyond the limits its median margin is brought to them.
    """
    two = answers.double().topk(2, dim=1).values
    margins = two[:, 0] - two[:, 1]
    if not bool((margins > 0).any()):
        return 1.0
    margin = float(margins[margins > 0].median())  # without ties, which hide the scale
    return margin / min(max(margin, LEAST_MARGIN), MOST_MARGIN)
