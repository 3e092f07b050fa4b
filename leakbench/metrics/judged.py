"""How often an independent classifier recognises reconstructions (method, section 6: judge accuracy)."""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.accuracy import accuracy
from leakbench.metrics.estimate import Estimate

SUM_TOLERANCE = 1e-3
"""how far from 1 a row may sum: float32 softmax outputs are within 1e-5, half precision ones within this"""


def judge_accuracy(probabilities: Tensor, targets: Tensor) -> Estimate:
    """Share of images whose most probable class is the one they were made for, with its Wilson interval.

    ``probabilities`` [N, C]: softmax outputs averaged over the judge's own augmentations of each image (and
    over the judges of an ensemble), so that pixel-level noise that fools one view does not count as
    recognition; ``targets`` integers [N]. Chance is 1/C. A high value does not say that an image *looks* like
    its class: read it beside the noise and random-network rows. Raises UsageError for rows that are no
    probabilities (logits, say).
    """
    if probabilities.ndim != 2 or not probabilities.is_floating_point():
        raise UsageError(f"probabilities must be floats [N, C], got {probabilities.dtype} {tuple(probabilities.shape)}")
    if not torch.isfinite(probabilities).all():
        raise NumericalError("judge accuracy: the probabilities hold NaN or infinity")
    off = (probabilities.double().sum(1) - 1).abs()
    if len(probabilities) and (float(probabilities.min()) < 0 or float(off.max()) > SUM_TOLERANCE):
        raise UsageError("judge accuracy needs probabilities (rows >= 0 that sum to 1): apply softmax first")
    return accuracy(probabilities, targets)
