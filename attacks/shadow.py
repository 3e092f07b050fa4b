"""Membership learnt from references: a classifier that is told of each which candidates it was trained on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from leakbench.errors import NotApplicable

LEAST = 4
"""references: two pairs, so that one can be compared with the other"""
_FAR = 5.0
"""standard deviations to which features are cut: a few extreme ones must not decide the fit"""


def shadow_scores(victim: Tensor, references: Tensor, members: Tensor, read: Tensor | None = None) -> Tensor:
    """Log odds of membership [N], by logistic regression (Shokri et al. 2017) on features calibrated for each image.

    ``victim`` [N, F] and ``references`` [K, N, F] are what networks do with N candidates; ``members`` bool [K, N] says
    which reference was trained on which. A network's features of an image are told from those of references with and
    without it (:func:`told`); a reference takes the victim's place in turn, with the others but for the one of its pair
    as its references: their halves are complementary, so that each image is in half of those that are left, and how
    many they are says nothing. ``read`` [1 + K, N]: a score of each network's images, the victim's first, that counts
    as one feature more, as it is. NotApplicable with fewer than 4 references.
    """
    count = len(references)
    checked_pairs(count)
    rows = []
    for number in range(count):
        others = [other for other in range(count) if other // 2 != number // 2]
        rows.append(told(references[number], references[others], members[others]))
    asked = told(victim, references, members)
    if read is not None:
        asked, *rows = (torch.cat([one, score[:, None]], 1) for one, score in zip([asked, *rows], read, strict=True))
    learnt, truth = torch.cat(rows), members.reshape(-1)
    centre, spread = learnt.mean(0), learnt.std(0)
    used = spread > 0

    def scaled(features: Tensor) -> np.ndarray:
        cut = ((features - centre)[:, used] / spread[used]).clamp(-_FAR, _FAR)
        return cut.cpu().numpy()

    from sklearn.linear_model import LogisticRegression  # takes half a second to load

    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(scaled(learnt), truth.cpu().numpy())
    return torch.from_numpy(fitted.decision_function(scaled(asked)))


def checked_pairs(references: int) -> int:
    """How many pairs that many references are. NotApplicable with fewer than 4, or one that has no other."""
    if references < LEAST or references % 2:
        raise NotApplicable(
            f"a classifier of members needs an even number of references, {LEAST} at least: got {references}"
        )
    return references // 2


def told(own: Tensor, references: Tensor, members: Tensor) -> Tensor:
    """Features [N, 3F] of a network's ``own`` [N, F]: as they are, above the mean of references [K, N, F] without the
    image, and the log likelihood ratio of normal distributions of equal spread around both means, but for its scale."""
    trained = members[..., None].to(references.dtype)
    inside = (references * trained).sum(0) / trained.sum(0)
    outside = (references * (1 - trained)).sum(0) / (1 - trained).sum(0)
    ratio = (inside - outside) * (own - (inside + outside) / 2)
    return torch.cat([own, own - outside, ratio], 1).double()
