"""Sets of reconstructions written by hand, as metrics see them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from leakbench.contracts import Context
from leakbench.metrics.reconstructions import Features, RealImages, Reconstructions


def _unread() -> Tensor:
    raise AssertionError("no metric under test reads these features")


def drawn(
    predictions: Tensor,
    targets: Tensor,
    images: Tensor | None = None,
    features: Callable[[], Tensor] = _unread,
    real_features: Callable[[], Tensor] = _unread,
    accepted: Tensor | None = None,
) -> Reconstructions:
    """Images (black ones of 4x4, where none are given) of which the evaluation models predict that; they see a class in
    all, if not told which they accept.

    The private images are two of each class, as bright as the class's number.
    """
    count, classes = predictions.shape
    if images is None:
        images = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    labels = torch.arange(classes).repeat_interleave(2)
    bright = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *images.shape[1:])
    theirs, own = Features("mine", real_features), Features("mine", features)
    real = RealImages(bright, labels, theirs, theirs, bright, labels, theirs)
    context = Context(torch.Generator().manual_seed(0), torch.device("cpu"))
    accepted = torch.ones(count, dtype=torch.bool) if accepted is None else accepted
    return Reconstructions(images, targets, predictions, accepted, own, own, real, context)
