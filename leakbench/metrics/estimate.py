"""A measured value with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import norm


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval and the number of observations behind it.

    ``low`` and ``high`` are NaN where no interval is defined (a count, a wall time): never made up.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 1
