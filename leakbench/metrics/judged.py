"""How often an independent classifier recognises reconstructions (docs/method.md, Metrics: judge accuracy)."""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.contracts import Params
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.reconstructions import ImageMetric, Reconstructions

SUM_TOLERANCE = 1e-3
"""how far from 1 a row may sum: float32 softmax outputs are within 1e-5, half precision ones within this"""


def top_k_hits(probabilities: Tensor, targets: Tensor, k: int) -> Tensor:
    """Bool [N]: whether the class that an image was made for is among the k most probable.

    ``probabilities`` [N, C]: softmax outputs averaged over the judge's own augmentations of each image (and over the
    judges of an ensemble), so that pixel-level noise that fools one view does not count as recognition; ``targets``
    integers [N]. Of equally probable classes the lower index goes first. Chance is k/C. That an image is recognised
    does not say that it *looks* like its class: read it beside the noise and random-network rows. Errors as of
    :func:`checked_judgements`, and UsageError unless 1 <= k <= C.
    """
    p, labels = checked_judgements(probabilities, targets)
    if not 1 <= k <= p.shape[1]:
        raise UsageError(f"k must be within 1..{p.shape[1]}, the number of classes, got {k}")
    # stable: torch.topk leaves the order of ties open
    top = p.argsort(dim=1, descending=True, stable=True)[:, :k]
    return (top == labels[:, None]).any(1)


def checked_judgements(probabilities: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities [N, C] in float64 and targets [N] in int64, both on the CPU.

    Raises UsageError for other shapes or types, rows that are no probabilities or targets out of 0..C-1,
    NumericalError for NaN or infinity.
    """
    if probabilities.ndim != 2 or not probabilities.is_floating_point():
        raise UsageError(f"probabilities must be floats [N, C], got {probabilities.dtype} {tuple(probabilities.shape)}")
    n, classes = probabilities.shape
    if targets.shape != (n,) or targets.is_floating_point():
        raise UsageError(f"targets must be {n} integers [N], got {targets.dtype} {tuple(targets.shape)}")
    p, labels = probabilities.detach().to("cpu", torch.float64), targets.to("cpu", torch.int64)
    if not torch.isfinite(p).all():
        raise NumericalError("the judge's probabilities hold NaN or infinity")
    if bool((p < 0).any()) or bool(((p.sum(1) - 1).abs() > SUM_TOLERANCE).any()):
        raise UsageError("the judge's probabilities must be rows >= 0 that sum to 1: apply softmax first")
    if bool(((labels < 0) | (labels >= classes)).any()):
        raise UsageError(f"targets must be classes 0..{classes - 1}")
    return p, labels


class JudgeAccuracy(ImageMetric[Params]):
    """Share of images that an ensemble of independent evaluation models (judges), out of reach of every attack,
    classifies as the target class; predictions are averaged over small shifts and blurs. Higher means that more leaks.
    """

    name = "judge_accuracy"
    title = "Judge accuracy"
    unit, leaks, counts = "share", "more", "images"
    of_predictions = True

    def scores(self, drawn: Reconstructions) -> Tensor:
        return top_k_hits(drawn.predictions, drawn.targets, 1)


class OpenSetAccuracy(ImageMetric[Params]):
    """Share of images that the evaluation models (judges) classify as the target class where they may also answer
    "none of these", as they do of one in twenty real images (small ones blurred and noisy), or one in ten where only
    some classes are attacked. Chance is near zero.
    """

    name = "open_set_accuracy"
    title = "Open-set judge accuracy"
    unit, leaks, counts = "share", "more", "images"
    of_predictions = True

    def scores(self, drawn: Reconstructions) -> Tensor:
        return top_k_hits(drawn.predictions, drawn.targets, 1) & drawn.accepted


class JudgeTop5(ImageMetric[Params]):
    """Share of images whose target class is among the five that the evaluation models find most probable."""

    name = "judge_top5"
    title = "Judge accuracy, top 5"
    unit, leaks, counts = "share", "more", "images"
    of_predictions = True
    least_classes = 20
    """fewer, and chance alone is above a quarter"""

    def applies(self, drawn: Reconstructions) -> bool:
        return len(drawn.targets.unique()) >= self.least_classes

    def scores(self, drawn: Reconstructions) -> Tensor:
        return top_k_hits(drawn.predictions, drawn.targets, 5)
