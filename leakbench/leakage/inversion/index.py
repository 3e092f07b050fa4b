"""The leakage index: where between noise and real images the images of an attack lie.

See docs/method.md, The leakage index.

LI = (D_null - D_attack) / (D_null - D_real), for each metric, over all classes and seeds and class by class. The null
is the better-scoring of noise images and the same attack on an untrained network, so that what an attack brings along
itself (smooth blobs, a prior) is not booked on the victim.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from leakbench.errors import LeakBenchError, UsageError
from leakbench.metrics.estimate import Estimate, mean
from leakbench.metrics.intervals import Difference, clustered_mean, leakage_index, paired_difference, ratio_of_estimates
from leakbench.records import CellRecord, ClassIndex, ClassScore, Index, Value, fields

HEADLINE = "judge_accuracy"
"""the metric whose index carries the verdict; kes is the second opinion beside it"""
_CLASS_MEANS = ("judge_accuracy", "judge_top5", "kes", "daa", "knn_distance")
"""means over classes: their intervals are over classes and seeds"""
_COUNTED = ("judge_accuracy", "judge_top5", "kes", "daa")
"""shares of images"""
_SETS = ("precision", "recall", "density", "coverage")
_FOOLING = "uap_fooling"


def has_index(metric: str) -> bool:
    """Whether the metric has a scale from noise to real images."""
    return metric in (*_CLASS_MEANS, *_SETS, _FOOLING) or lower_leaks(metric)


def lower_leaks(metric: str) -> bool:
    """Whether a lower value means that more leaks."""
    return metric in ("knn_distance", "fid", "kid") or metric.startswith(("fd_", "kd_"))


@dataclass(frozen=True)
class Place:
    """What was measured at one place of the grid: one cell a seed, those that worked."""

    cells: tuple[CellRecord, ...]

    def __bool__(self) -> bool:
        return bool(self.cells)

    @cached_property
    def metrics(self) -> list[str]:
        """Those that every seed has."""
        each = [[v.metric for v in cell.values] for cell in self.cells]
        return [name for name in (each[0] if each else []) if all(name in names for names in each)]

    def values(self, metric: str) -> list[Value]:
        """One value a seed."""
        return [v for cell in self.cells for v in cell.values if v.metric == metric]

    def mean(self, metric: str) -> float | None:
        """Over seeds; None where no seed has it."""
        found = self.values(metric)
        return math.fsum(v.value for v in found) / len(found) if found else None

    def estimate(self, metric: str) -> Estimate | None:
        """The one seed's own estimate, or the mean over seeds; None where no seed has it.

        The interval is over classes and seeds where images are counted by class, so that it stays in [0, 1] and has a
        width where seeds agree; Student's over seeds elsewhere.
        """
        found = self.values(metric)
        if not found:
            return None
        if len(found) == 1:
            return found[0].estimate
        by_class = self.classes(metric) if metric in _COUNTED else {}
        scores = self.scores(metric, sorted(self.seeds(metric)), sorted(by_class)) if by_class else None
        if scores is None or len(scores) != len(found):
            return mean(v.value for v in found)
        return clustered_mean(scores, min(score.n for own in by_class.values() for score in own))

    @property
    def p(self) -> float | None:
        """The seeds' permutation tests together (Fisher's method); None where no seed has one."""
        found = [v.value for v in self.values("p_value")]
        if not found:
            return None
        if len(found) == 1:
            return found[0]
        from scipy.stats import combine_pvalues  # takes half as long to load as torch

        return float(combine_pvalues(found, method="fisher").pvalue)

    def scores(self, metric: str, seeds: Sequence[int], classes: Sequence[int]) -> np.ndarray | None:
        """[seeds, classes]; None where one of them is missing."""
        cells = {cell.seed: cell for cell in self.cells}
        rows = []
        for seed in seeds:
            own = {s.target: s.value for s in cells[seed].classes if s.metric == metric} if seed in cells else {}
            if any(c not in own for c in classes):
                return None
            rows.append([own[c] for c in classes])
        return np.array(rows, dtype=np.float64)

    def seeds(self, metric: str) -> set[int]:
        """Seeds that have the metric class by class."""
        return {cell.seed for cell in self.cells if any(s.metric == metric for s in cell.classes)}

    def classes(self, metric: str) -> dict[int, list[ClassScore]]:
        """Class -> its scores, one a seed."""
        found: dict[int, list[ClassScore]] = {}
        for cell in self.cells:
            for score in cell.classes:
                if score.metric == metric:
                    found.setdefault(score.target, []).append(score)
        return found


def index_of(metric: str, attack: Place, noise: Place, real: Place, random: Place) -> Index:
    """The index of one metric; without a value, and with the reason, where there is no scale.

    ``random`` is the same attack on the untrained network; empty where it was not run (or is what is scored).
    """
    if metric == _FOOLING:
        return _between_brackets(attack)
    null, name = _null(metric, noise, random)
    if not null or not real or any(metric not in place.metrics for place in (attack, null, real)):
        return Index(metric=metric, reason="no value of this metric for the attack or for an anchor")
    try:
        if metric in _CLASS_MEANS:
            found = _over_classes(metric, attack, null, real)
        else:
            found = _overall(metric, attack.estimate(metric), null.estimate(metric), real.estimate(metric))
    except LeakBenchError as error:
        return Index(metric=metric, null=name, reason=str(error))
    by_class = _by_class(metric, attack, null, real) if metric in _CLASS_MEANS else []
    return Index(metric=metric, **fields(found), null=name, classes=by_class)


def indices(attack: Place, noise: Place, real: Place, random: Place) -> list[Index]:
    """The index of every metric that has one, the headline first."""
    names = [name for name in attack.metrics if has_index(name)]
    names.sort(key=lambda name: (name != HEADLINE, name != "kes"))
    return [index_of(name, attack, noise, real, random) for name in names]


@dataclass(frozen=True)
class ScaledScores:
    """An attack's scores on the scale of the leakage index, by seed and class, where the two ends have them, too.

    Their mean is the index of the headline before it is cut to [0, 1].
    """

    attack: Place
    noise: Place
    real: Place
    random: Place
    """the same attack on the untrained network; empty where it was not run"""
    _kept: dict[tuple[tuple[int, ...], tuple[int, ...]], np.ndarray] = field(default_factory=dict, repr=False)

    @cached_property
    def seeds(self) -> list[int]:
        """In rising order."""
        return sorted(set.intersection(*(place.seeds(HEADLINE) for place in self._all)))

    @cached_property
    def classes(self) -> list[int]:
        """In rising order."""
        return sorted(set.intersection(*(set(place.classes(HEADLINE)) for place in self._all)))

    def at(self, seeds: Sequence[int], classes: Sequence[int]) -> np.ndarray:
        """[seeds, classes] of some of them; the scale is of these alone, so that no other seed of a run matters, and
        is taken as known. UsageError where there is none."""
        key = tuple(seeds), tuple(classes)
        if key not in self._kept:
            self._kept[key] = self._scaled(seeds, classes)
        return self._kept[key]

    def _scaled(self, seeds: Sequence[int], classes: Sequence[int]) -> np.ndarray:
        scores, noise, real, *random = (place.scores(HEADLINE, seeds, classes) for place in self._all)
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
    def _all(self) -> list[Place]:
        return [self.attack, self.noise, self.real, *([self.random] if self.random else [])]


def paired(a: Place, b: Place, metric: str = HEADLINE) -> Difference | None:
    """How much higher the first place scores than the second, paired by class and seed: two defences or attacks.

    None where they have no class and seed in common, or no interval.
    """
    seeds = sorted(a.seeds(metric) & b.seeds(metric))
    classes = sorted(a.classes(metric).keys() & b.classes(metric).keys())
    first, second = a.scores(metric, seeds, classes), b.scores(metric, seeds, classes)
    if first is None or second is None or not first.size:
        return None
    return paired_difference(first, second)


def _null(metric: str, noise: Place, random: Place) -> tuple[Place, str]:
    drawn, untrained = noise.mean(metric), random.mean(metric)
    if untrained is None or (drawn is not None and (drawn < untrained) == lower_leaks(metric)):
        return noise, "noise"
    return random, "random"


def _over_classes(metric: str, attack: Place, null: Place, real: Place) -> Estimate:
    places = (attack, null, real)
    seeds = sorted(set.intersection(*(place.seeds(metric) for place in places)))
    classes = sorted(set.intersection(*(set(place.classes(metric)) for place in places)))
    scores, low, high = (place.scores(metric, seeds, classes) for place in places)
    if scores is None or low is None or high is None:
        raise UsageError("a seed lacks a class")
    images = min(score.n for own in attack.classes(metric).values() for score in own) if metric in _COUNTED else None
    return leakage_index(scores, low, high, higher_leaks=not lower_leaks(metric), images=images)


def _overall(metric: str, attack: Estimate | None, null: Estimate | None, real: Estimate | None) -> Estimate:
    if attack is None or null is None or real is None:
        raise UsageError("a value is missing")
    if not (real.value < null.value if lower_leaks(metric) else real.value > null.value):
        raise UsageError(f"no scale: real images score no better ({real.value:.3g}) than the null ({null.value:.3g})")
    return ratio_of_estimates(attack, null, real)


def _between_brackets(attack: Place) -> Index:
    """Fooling has a scale of its own, on the same victim: perturbations from real images, and from none.

    0 is the better of random signs and a perturbation from noise images, which needs no picture of any class either.
    """
    nulls = {end: one for end in ("random", "noise") if (one := attack.estimate(f"{_FOOLING}_{end}")) is not None}
    name = max(nulls, key=lambda end: nulls[end].value, default="")
    try:
        own, real = attack.estimate(_FOOLING), attack.estimate(f"{_FOOLING}_real")
        found = _overall(_FOOLING, own, nulls.get(name), real)
    except LeakBenchError as error:
        return Index(metric=_FOOLING, reason=str(error))
    return Index(metric=_FOOLING, **fields(found), null={"random": "random signs", "noise": "noise"}[name])


def _by_class(metric: str, attack: Place, null: Place, real: Place) -> list[ClassIndex]:
    """Class by class, the interval that of the class's own images; the class's two ends are taken as known."""
    ends = null.classes(metric), real.classes(metric)
    found = []
    for target, scores in sorted(attack.classes(metric).items()):
        low_end, high_end = (_mean(end[target]) if target in end else math.nan for end in ends)
        scale = high_end - low_end
        if not (scale < 0 if lower_leaks(metric) else scale > 0):
            found.append(ClassIndex(target=target))
            continue
        centre = _mean(scores)
        bounds = [_end(scores, centre, side) for side in ("low", "high")]
        places = [None if bound is None else _clipped((bound - low_end) / scale) for bound in bounds]
        if lower_leaks(metric):
            places.reverse()
        found.append(
            ClassIndex(target=target, value=_clipped((centre - low_end) / scale), low=places[0], high=places[1])
        )
    return found


def _mean(scores: Sequence[ClassScore]) -> float:
    return math.fsum(score.value for score in scores) / len(scores)


def _end(scores: Sequence[ClassScore], centre: float, side: str) -> float | None:
    """One end of the interval of several seeds' mean: their errors in quadrature."""
    ends = [getattr(score, side) for score in scores]
    if any(end is None for end in ends):
        return None
    error = math.sqrt(sum((end - score.value) ** 2 for end, score in zip(ends, scores, strict=True))) / len(scores)
    return centre - error if side == "low" else centre + error


def _clipped(share: float) -> float:
    return min(1.0, max(0.0, share))


def place_of(cells: Iterable[CellRecord]) -> Place:
    """The cells that worked, by seed."""
    return Place(tuple(sorted((cell for cell in cells if cell.status == "ok"), key=lambda cell: cell.seed)))
