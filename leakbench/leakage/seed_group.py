"""One place of a grid over its seeds: a cell a seed, those that worked."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from statistics import fmean

import numpy as np

from leakbench.contracts import MembershipAttack
from leakbench.leakage.controls import SHAPE_ALONE
from leakbench.metrics.estimate import CONFIDENCE, Estimate, mean
from leakbench.metrics.intervals import clustered_mean
from leakbench.metrics.metric import Declaration
from leakbench.records import CellRecord, ClassScore, Value

Declarations = Mapping[str, Declaration]
"""metric's name -> what is to be known of it"""


@dataclass(frozen=True)
class SeedGroup:
    """What was measured at one place of the grid, seed by seed."""

    cells: tuple[CellRecord, ...] = ()
    declared: Declarations = field(default_factory=dict, repr=False, compare=False)

    def __bool__(self) -> bool:
        return bool(self.cells)

    @cached_property
    def metrics(self) -> list[str]:
        """Those that every seed has."""
        each = [[v.metric for v in cell.values] for cell in self.cells]
        return [name for name in (each[0] if each else []) if all(name in names for names in each)]

    def is_share(self, metric: str) -> bool:
        """Whether the metric's values of a class are shares of images."""
        return metric in self.declared and self.declared[metric].counts != ""

    def _is_of_membership(self, metric: str) -> bool:
        return metric in self.declared and self.declared[metric].leakage == MembershipAttack.leakage

    def values(self, metric: str) -> list[Value]:
        """One value a seed."""
        return [v for cell in self.cells for v in cell.values if v.metric == metric]

    def mean(self, metric: str) -> float | None:
        """Over seeds; None where no seed has it."""
        values = self.values(metric)
        return math.fsum(v.value for v in values) / len(values) if values else None

    def estimate(self, metric: str) -> Estimate | None:
        """The one seed's own estimate, or the mean over seeds; None where no seed has it.

        The interval is over classes and seeds where images are counted by class, so that it stays in [0, 1] and has a
        width where seeds agree; Student's over seeds elsewhere. Of seeds that agree to the last digit it is the mean of
        their own, that of one network: they say nothing of how networks differ. Of membership it is never narrower than
        that: networks are asked about the same images in part, and how they differ says nothing of other images.
        """
        values = self.values(metric)
        if not values:
            return None
        if len(values) == 1:
            return values[0].estimate
        by_class = self.classes(metric) if self.is_share(metric) else {}
        scores = self.scores(metric, sorted(self.seeds(metric)), sorted(by_class)) if by_class else None
        if scores is None or len(scores) != len(values):
            own = [v.estimate for v in values]
            return of_shared_images(own) if self._is_of_membership(metric) else over_networks(own)
        return clustered_mean(
            scores, min(score.n for scores_of_class in by_class.values() for score in scores_of_class)
        )

    @property
    def p(self) -> float | None:
        """The seeds' permutation tests together (Fisher's method); None where no seed has one."""
        p_values = [v.value for v in self.values("p_value")]
        if len(p_values) < 2:
            return p_values[0] if p_values else None
        from scipy.stats import combine_pvalues  # scipy.stats takes half a second to load

        return float(combine_pvalues(p_values, method="fisher").pvalue)

    def scores(self, metric: str, seeds: Sequence[int], classes: Sequence[int]) -> np.ndarray | None:
        """[seeds, classes]; None where one of them is missing."""
        cells = {cell.seed: cell for cell in self.cells}
        rows = []
        for seed in seeds:
            by_target = {s.target: s.value for s in cells[seed].classes if s.metric == metric} if seed in cells else {}
            if any(c not in by_target for c in classes):
                return None
            rows.append([by_target[c] for c in classes])
        return np.array(rows, dtype=np.float64)

    def seeds(self, metric: str) -> set[int]:
        """Seeds that have the metric class by class."""
        return {cell.seed for cell in self.cells if any(s.metric == metric for s in cell.classes)}

    def classes(self, metric: str) -> dict[int, list[ClassScore]]:
        """Class -> its scores, one a seed."""
        by_class: dict[int, list[ClassScore]] = {}
        for cell in self.cells:
            for score in cell.classes:
                if score.metric == metric:
                    by_class.setdefault(score.target, []).append(score)
        return by_class


def over_networks(own: Sequence[Estimate]) -> Estimate:
    """Mean and Student's interval of several networks' values; of those that agree, the mean of their own intervals."""
    found = mean(one.value for one in own)
    if not math.isnan(found.low) or any(math.isnan(one.low) for one in own):
        return found
    return replace(found, low=fmean(one.low for one in own), high=fmean(one.high for one in own))


def of_shared_images(own: Sequence[Estimate], confidence: float = CONFIDENCE) -> Estimate:
    """Mean of networks' values, with an interval of that confidence that is no narrower than theirs are on average: the
    wider of Student's over networks, where they differ, and the mean of their own, as if its ends were normal."""
    from scipy.special import ndtri, stdtrit  # take a third as long to load as torch

    def widened(one: Estimate, quantile: Callable[[float], float]) -> Estimate:
        wider = quantile((1 + confidence) / 2) / quantile((1 + CONFIDENCE) / 2)
        low, high = (float(one.value + wider * (end - one.value)) for end in (one.low, one.high))
        return Estimate(one.value, low, high, one.n)

    over = over_networks(own) if len(own) > 1 else own[0]
    within = widened(replace(over, low=fmean(x.low for x in own), high=fmean(x.high for x in own)), ndtri)
    if len({one.value for one in own}) == 1:
        return within
    between = widened(over, partial(stdtrit, len(own) - 1))
    if math.isnan(within.low + within.high):
        return between
    return replace(over, low=min(between.low, within.low), high=max(between.high, within.high))


def seed_group(cells: Iterable[CellRecord], declared: Declarations) -> SeedGroup:
    """The cells that worked, by seed."""
    return SeedGroup(
        tuple(sorted((cell for cell in cells if cell.status == "ok"), key=lambda cell: cell.seed)), declared
    )


def distinct(cells: Sequence[CellRecord]) -> list[CellRecord]:
    """Those of one data set and model, of one seed for each network: copies of one are no evidence about others.

    Networks with the same weights are one, and so are those that were made of the same ANN (``--ann``), but for what
    takes nothing but its shape. Of its seeds a network has the first of those on which most cells worked.
    """
    first: dict[tuple[str, str], int] = {}
    seeds: dict[tuple[str, int], list[int]] = defaultdict(list)
    for cell in cells:
        if not cell.attack and not cell.of:
            ann = "" if cell.defense_name in SHAPE_ALONE else cell.artifacts.get("ann", "")
            known = [(cell.defense, one) for one in (ann, cell.weights) if one]
            network = next((first[one] for one in known if one in first), cell.seed)
            first |= dict.fromkeys(known, network)
            seeds[cell.defense, network].append(cell.seed)
    worked = Counter((cell.defense, cell.seed) for cell in cells if cell.status == "ok")
    copies = {
        (defense, seed)
        for (defense, _), of_network in seeds.items()
        for seed in of_network
        if seed != max(of_network, key=lambda one: worked[defense, one])
    }
    return [cell for cell in cells if (cell.defense, cell.seed) not in copies]
