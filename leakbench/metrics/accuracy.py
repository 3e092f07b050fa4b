"""Accuracy: the share of images that a network names right."""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import Estimate, proportion


def accuracy(logits_or_predictions: Tensor, labels: Tensor) -> Estimate:
    """Top-1 accuracy in [0, 1] with its Wilson interval.

    Takes logits (or probabilities) [N, C] of floats, or predicted classes [N] of integers; ``labels`` are
    integers [N]. A tie goes to the lower class index, as in torch.argmax. Raises UsageError for other shapes,
    types, labels out of range or N = 0, NumericalError for NaN or infinite logits.
    """
    predictions = _predictions(logits_or_predictions)
    if labels.ndim != 1 or labels.is_floating_point() or len(labels) != len(predictions):
        raise UsageError(f"labels must be {len(predictions)} integers [N], got {labels.dtype} {tuple(labels.shape)}")
    if logits_or_predictions.ndim == 2 and len(labels):
        classes = logits_or_predictions.shape[1]
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise UsageError(f"labels must be classes 0..{classes - 1}")
    hits = int((predictions.cpu() == labels.cpu()).sum())
    return proportion(hits, len(labels))


def _predictions(given: Tensor) -> Tensor:
    if given.ndim == 2 and given.is_floating_point() and given.shape[1]:
        if not torch.isfinite(given).all():
            raise NumericalError("accuracy: the logits hold NaN or infinity")
        return given.argmax(1)
    if given.ndim == 1 and not given.is_floating_point():
        return given
    raise UsageError(
        f"accuracy needs float logits [N, C] or integer predictions [N], got {given.dtype} {tuple(given.shape)}"
    )
