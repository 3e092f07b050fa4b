"""Whose membership is asked about: as many training images as others, in random order."""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.cells import AttackCell
from leakbench.leakage.controls import OVERFITTED
from leakbench.leakage.halves import halves
from leakbench.leakage.kind import Deployed
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.workspace import Workspace

MOST = 1000
"""candidates of either side at most"""


def candidates_of(workspace: Workspace, cell: AttackCell, deployed: Deployed) -> tuple[Tensor, Tensor, Tensor]:
    """Images uint8 [N, C, H, W], their labels [N], and which are members, bool [N]: half of them.

    Members are images that the network was trained on: the ANN was on all training images, the overfitted control on
    those alone that it read. The others are from the half of the test set that no metric compares with.
    """
    data = workspace.dataset(cell.dataset)
    pool = torch.arange(len(data.train))
    if cell.defense.name == OVERFITTED:
        pool = pool[deployed.read_images]
    outside, _ = halves(data.test.labels)
    seed = seed_of("candidates", data=data.fingerprint, replicate=cell.seed)
    generator = torch.Generator().manual_seed(seed)
    count = min(MOST, len(pool), len(outside))
    inside = pool[torch.randperm(len(pool), generator=generator)[:count]]
    outside = outside[torch.randperm(len(outside), generator=generator)[:count]]
    images = torch.cat([data.train.images[inside], data.test.images[outside]])
    labels = torch.cat([data.train.labels[inside], data.test.labels[outside]])
    members = torch.arange(2 * count) < count
    # the attacker must not learn anything from the order
    order = torch.randperm(2 * count, generator=generator)
    return images[order], labels[order], members[order]
