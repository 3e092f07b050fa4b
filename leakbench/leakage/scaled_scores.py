"""Scores on the scale of the leakage index, which two defences can be compared in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from leakbench.errors import UsageError
from leakbench.leakage.seed_group import SeedGroup


class ComparedScores(Protocol):
    """What two defences can be compared in."""

    @property
    def seeds(self) -> list[int]: ...

    @property
    def classes(self) -> list[int]: ...

    def at(self, seeds: Sequence[int], classes: Sequence[int]) -> np.ndarray:
        """[seeds, classes] of some of them; UsageError where there is no scale."""
        ...


@dataclass(frozen=True)
class ScaledScores:
    """An attack's scores on the scale of the leakage index, by seed and class; no scale where the two ends lack a seed.

    Their mean is the index before it is cut to [0, 1].
    """

    attack: SeedGroup
    noise: SeedGroup
    real: SeedGroup
    random: SeedGroup
    """the same attack on the untrained network; empty where it was not run"""
    metric: str
    _kept: dict[tuple[tuple[int, ...], tuple[int, ...]], np.ndarray] = field(default_factory=dict, repr=False)

    @cached_property
    def seeds(self) -> list[int]:
        """In rising order."""
        return sorted(self.attack.seeds(self.metric))

    @cached_property
    def classes(self) -> list[int]:
        """In rising order."""
        return sorted(set.intersection(*(set(group.classes(self.metric)) for group in self._all)))

    def at(self, seeds: Sequence[int], classes: Sequence[int]) -> np.ndarray:
        """[seeds, classes] of some of them; the scale is of these alone, so that no other seed of a run matters, and
        is taken as known. UsageError where there is none."""
        key = tuple(seeds), tuple(classes)
        if key not in self._kept:
            self._kept[key] = self._scaled(seeds, classes)
        return self._kept[key]

    def _scaled(self, seeds: Sequence[int], classes: Sequence[int]) -> np.ndarray:
        scores, noise, real, *random = (group.scores(self.metric, seeds, classes) for group in self._all)
        if scores is None or noise is None or real is None or not scores.size or any(one is None for one in random):
            raise UsageError("no scale: a seed or a class is missing")
        null: np.ndarray = max((noise, *(one for one in random if one is not None)), key=lambda one: float(one.mean()))
        if not all(((one >= 0) & (one <= 1)).all() for one in (scores, null, real)):
            raise UsageError("no scale: a share of images is outside of 0 to 1")
        scale = float(real.mean() - null.mean())
        if not scale > 0:
            raise UsageError("no scale: real images score no better than the null")
        scaled: np.ndarray = (scores - null) / scale
        return scaled

    @cached_property
    def mean(self) -> float | None:
        """Over all of them; None where there is no scale."""
        try:
            return float(self.at(self.seeds, self.classes).mean())
        except UsageError:
            return None

    @property
    def _all(self) -> list[SeedGroup]:
        return [self.attack, self.noise, self.real, *([self.random] if self.random else [])]
