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

from torch import Tensor

from leakbench.errors import UsageError

Shape = Literal["triangle", "rectangle", "fast_sigmoid", "arctan"]

# each may overwrite z
_SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "triangle": lambda z: z.abs_().neg_().add_(1).clamp_(min=0),
    "rectangle": lambda z: (z.abs() < 1).to(z.dtype) / 2,
    "fast_sigmoid": lambda z: (1 + z.abs()).pow_(-2),
    "arctan": lambda z: 1 / (1 + (math.pi / 2 * z) ** 2),
}


@dataclass(frozen=True)
class Surrogate:
    """``height * shape((v - 1) / width)``.

    triangle: Eq. 5 of PrivateSNN (Esser 2016, Bellec 2018); rectangle: Wu 2018 (STBP);
    fast_sigmoid: Zenke & Ganguli 2018; arctan: Fang 2021.
    """

    shape: Shape = "triangle"
    width: float = 1.0
    height: float = 1.0

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise UsageError(f"unknown surrogate {self.shape!r}: one of {', '.join(_SHAPES)}")
        if not (self.width > 0 and self.height > 0):
            raise UsageError(f"a surrogate's width and height must be above 0, got {self.width} and {self.height}")

    def __call__(self, v: Tensor) -> Tensor:
        """Derivative at v = u / theta, of v's shape."""
        z = v - 1
        if self.width != 1:
            z /= self.width
        slope = _SHAPES[self.shape](z)
        return slope if self.height == 1 else slope.mul_(self.height)
