"""Surrogate derivatives of the spike function.

All are functions of v = u / theta and give the derivative of what a spike is worth downstream, theta * o, with
respect to u. In these units Eq. 5 of PrivateSNN, max(0, 1 - |u - theta| / theta), has height 1 and does not depend
on whether a network is written with scaled thresholds or scaled weights; the 0.3 / theta of the authors'
repository is height 0.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from leakbench.errors import UsageError

Shape = Literal["triangle", "rectangle", "fast_sigmoid", "arctan", "potential", "fired"]


def _potential(z: Tensor) -> Tensor:
    """Normal density of mean sigma / 2 and deviation sigma at z = v - 1 [T, B, C, ...].

    sigma is that of a channel's potentials over images, places and the steps so far (of a whole layer, where it has
    no maps); 1 where they are all alike, as in the authors' code.
    """
    # doubles: squares of potentials that are alike differ by more than nothing in floats
    x = z.double()
    over = [d for d in range(1, z.dim()) if d != 2 or z.dim() == 3]
    count = math.prod(z.shape[d] for d in over) * torch.arange(1, len(z) + 1, device=z.device, dtype=x.dtype)
    count = count.view(-1, *[1] * (z.dim() - 1))
    mean, square = (y.sum(over, keepdim=True).cumsum(0) / count for y in (x, x * x))
    variance = (square - mean * mean) * count / (count - 1).clamp(min=1)
    # below rounding, potentials are alike
    sigma = torch.where(variance > 1e-12 * square, variance.sqrt(), 1.0).to(z.dtype)
    return torch.exp(-0.5 * ((z - 0.5 * sigma) / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)


# each may overwrite z
_SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "triangle": lambda z: z.abs_().neg_().add_(1).clamp_(min=0),
    "rectangle": lambda z: (z.abs() < 1).to(z.dtype) / 2,
    "fast_sigmoid": lambda z: (1 + z.abs()).pow_(-2),
    "arctan": lambda z: 1 / (1 + (math.pi / 2 * z) ** 2),
    "potential": _potential,
    "fired": lambda z: (z > 0).to(z.dtype),
}


@dataclass(frozen=True)
class Surrogate:
    """``height * shape((v - 1) / width)``.

    triangle: Eq. 5 of PrivateSNN (Esser 2016, Bellec 2018); rectangle: Wu 2018 (STBP);
    fast_sigmoid: Zenke & Ganguli 2018; arctan: Fang 2021; potential: PDSG (Lun et al., CVPR 2025), whose width follows
    from the potentials themselves; fired: Lee 2020, 1 where there was a spike and 0 elsewhere, of no width.
    """

    shape: Shape = "triangle"
    width: float = 1.0
    height: float = 1.0

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise UsageError(f"unknown surrogate {self.shape!r}: one of {', '.join(_SHAPES)}")
        if not (self.width > 0 and self.height > 0):
            raise UsageError(f"a surrogate's width and height must be above 0, got {self.width} and {self.height}")

    @property
    def looks_back(self) -> bool:
        """Whether the derivative at a step depends on the steps before it: they have to be handed over together."""
        return self.shape == "potential"

    def __call__(self, v: Tensor) -> Tensor:
        """Derivative at v = u / theta [T, B, ...], of v's shape."""
        z = v - 1
        if self.width != 1:
            z /= self.width
        slope = _SHAPES[self.shape](z)
        return slope if self.height == 1 else slope.mul_(self.height)
