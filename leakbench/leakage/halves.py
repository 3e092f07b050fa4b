"""The two halves of a test set: one to draw from (anchors, non-members), one to compare with."""

from __future__ import annotations

import torch
from torch import Tensor


def halves(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of two halves of a test set with ``labels`` [N], class by class, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    first, second = [], []
    for c in labels.unique().tolist():
        members = (labels == c).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        # of a single image both get it: better than a class that can't be compared with
        half = max(1, len(members) // 2)
        first.append(members[:half])
        second.append(members[half:] if len(members) > 1 else members)
    return torch.cat(first), torch.cat(second)
