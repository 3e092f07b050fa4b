"""Which classes attacks draw, where these are not all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def attacked_classes(classes: int, at_most: int | None) -> Tensor:
    """The classes that attacks on a network of so many draw, ascending: all, or ``at_most`` picked at random.

    Always the same ones, so that networks, attacks and controls can be compared, and the fewer are among the more.
    """
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(0))
    return order[:at_most].sort().values


def part_of_key(classes: int, attacked: int) -> Mapping[str, int]:
    """What a key says of them: nothing where all are attacked."""
    return {"classes": attacked} if attacked < classes else {}
