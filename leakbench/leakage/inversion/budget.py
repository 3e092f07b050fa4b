"""The leak over the attacker's cost, and by what the attacker is given.

Pure functions of records. With everything at an index of 1 nothing can be compared: what an attack costs still can. The
cost is gradient steps and queries an image, together, as :mod:`leakbench.contracts.snapshots` counts it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import pairwise

import numpy as np

from leakbench.contracts import Access
from leakbench.contracts.snapshots import LADDER
from leakbench.errors import LeakBenchError, UsageError
from leakbench.leakage.inversion.class_evidence import OPEN_SET, ClassEvidence
from leakbench.leakage.inversion.index import estimate_of, index_of
from leakbench.leakage.scaled_scores import ScaledScores
from leakbench.leakage.seed_group import SeedGroup
from leakbench.metrics.estimate import CONFIDENCE
from leakbench.metrics.intervals import clustered_mean
from leakbench.metrics.worst_case import Interval, worst_case
from leakbench.records import BudgetLeak, CellRecord, ClassScore, ThreatModel, Value, fields

HALF = 0.5
"""of the scale"""
ALL = math.log10(LADDER[-1])
"""decades over which the area is taken, from a cost of 1"""


@dataclass(frozen=True)
class Anchors:
    """What 0 and 1 of the index are."""

    noise: SeedGroup
    real: SeedGroup
    metric: str
    """that carries the verdict"""


@dataclass(frozen=True)
class Reading:
    """What an attack had at a cost, over all seeds."""

    attack: str
    cost: float
    interval: Interval
    """its index"""
    scores: ScaledScores

    @property
    def index(self) -> float:
        return self.interval(CONFIDENCE).value


def threat_models(
    attacks: Mapping[str, tuple[SeedGroup, SeedGroup]],
    telling: Collection[str],
    needs: Mapping[str, str],
    anchors: Anchors,
    evidence: Callable[[Sequence[str]], ClassEvidence | None],
) -> list[ThreatModel]:
    """By rising access, each with the attacks that need no more.

    ``attacks`` has for each label its cells on the defence and those on the untrained network (none where it was not
    run), ``telling`` those among which the worst case is looked for, ``needs`` for each plugin the access; ``evidence``
    says which classes some of the attacks show.
    """
    readings = {label: course(label, *attacks[label], anchors) for label in telling}
    models = []
    for access in Access:
        within = [
            label
            for label, (own, _) in attacks.items()
            if Access[needs.get(own.cells[0].attack_name, "WEIGHTS")] <= access
        ]
        scaled = {label: readings[label] for label in within if readings.get(label)}
        found = evidence(within) if within else None
        named = found.named if found else []
        model = ThreatModel(access=access.name, named=named)
        models.append(model.model_copy(update=_leaks(scaled, attacks, anchors)) if scaled else model)
    return models


def _leaks(
    readings: Mapping[str, Sequence[Reading]], attacks: Mapping[str, tuple[SeedGroup, SeedGroup]], anchors: Anchors
) -> dict[str, object]:
    case = worst_case({label: each[-1].interval for label, each in readings.items()})
    own, null = attacks[case.attack]
    index = index_of(anchors.metric, own, anchors.noise, anchors.real, null)
    points, path = curve(readings)
    return {
        "attack": case.attack,
        "index": index.model_copy(update=fields(case.estimate) | {"classes": []}),
        "points": points,
        "cost_to_half": cost_to_half(points),
        "area": AreaScores(tuple(one.cost for one in points), tuple(path)).value,
    }


def course(label: str, own: SeedGroup, null: SeedGroup, anchors: Anchors) -> list[Reading]:
    """What an attack had at each cost at which any of its seeds has another image to show; empty without a scale.

    It begins where all seeds have something.
    """
    by_cell = [_scores(cell, anchors.metric) for cell in own.cells]
    if not by_cell or not all(by_cell) or anchors.metric not in own.declared:
        return []
    begin = max(next(iter(scores)) for scores in by_cell)
    readings = []
    for cost in sorted({cost for scores in by_cell for cost in scores if cost >= begin}):
        cells = [
            cell.model_copy(update={"classes": scores[max(one for one in scores if one <= cost)]})
            for cell, scores in zip(own.cells, by_cell, strict=True)
        ]
        group = SeedGroup(tuple(cells), own.declared)
        ends = group, anchors.noise, anchors.real, null
        interval = cache(partial(estimate_of, anchors.metric, *ends))
        try:
            interval(CONFIDENCE)
        except LeakBenchError:
            return []
        readings.append(Reading(label, cost, interval, ScaledScores(*ends, anchors.metric)))
    return readings


def curve(readings: Mapping[str, Sequence[Reading]]) -> tuple[list[BudgetLeak], list[Reading]]:
    """The worst case at each cost at which it may change, and the reading that it is there.

    An attack counts with the best that it had at no more than that cost. The interval is corrected for the number of
    attacks, and not for the number of costs. Between two costs the index is that of the lower one.
    """
    points: list[BudgetLeak] = []
    path: list[Reading] = []
    best: dict[str, Reading] = {}
    for reading in sorted((one for each in readings.values() for one in each), key=lambda one: one.cost):
        before = best.get(reading.attack)
        if before is None or reading.index > before.index:
            best[reading.attack] = reading
        case = worst_case({label: one.interval for label, one in best.items()})
        if points and points[-1].cost == reading.cost:  # several attacks had something at this cost
            points.pop()
            path.pop()
        points.append(BudgetLeak(cost=reading.cost, attack=case.attack, **fields(case.estimate)))
        path.append(best[case.attack])
    return points, path


def cost_to_half(points: Sequence[BudgetLeak]) -> Value | None:
    """The first cost at which the index is half of the scale or more, with those at which its two limits are.

    None where it never is; without a high end where the lower limit never is.
    """

    def first(end: Callable[[BudgetLeak], float | None]) -> BudgetLeak | None:
        return next((one for one in points if (height := end(one)) is not None and height >= HALF), None)

    low, at, high = first(lambda one: one.high), first(lambda one: one.value), first(lambda one: one.low)
    if at is None:
        return None
    return Value(
        metric="cost_to_half", value=at.cost, low=low.cost if low else None, high=high.cost if high else None, n=at.n
    )


@dataclass(frozen=True)
class AreaScores:
    """The area under the index over log10 cost from 1 to the ladder's end, as a share of the whole, by seed and class.

    Before the first cost nothing is had, beyond the last one no more than there. The attacks on the path are taken as
    given. Where the index is above 1, all scores are lowered alike until it is 1, as the curve is cut there.
    """

    costs: tuple[float, ...]
    path: tuple[Reading, ...]
    """what is had from each of the costs on"""

    @cached_property
    def seeds(self) -> list[int]:
        """In rising order."""
        return sorted(set.intersection(*(set(one.scores.seeds) for one in self.path)))

    @cached_property
    def classes(self) -> list[int]:
        """In rising order."""
        return sorted(set.intersection(*(set(one.scores.classes) for one in self.path)))

    def at(self, seeds: Sequence[int], classes: Sequence[int]) -> np.ndarray:
        """[seeds, classes] of some of them. UsageError where there is no scale."""
        ends = [min(ALL, max(0.0, math.log10(cost))) if cost > 0 else 0.0 for cost in (*self.costs, LADDER[-1])]
        total = np.zeros((len(seeds), len(classes)))
        for reading, (begin, end) in zip(self.path, pairwise(ends), strict=True):
            if reading.index > 0:  # where less is had than of the null, nothing is
                scores = reading.scores.at(seeds, classes)
                total += (end - begin) / ALL * (scores - max(0.0, float(scores.mean()) - 1))
        return total

    @property
    def value(self) -> Value | None:
        """The mean with an interval over classes and seeds; where all have the same area, that of their images alone.

        None where the attacks of the path have no seed or class in common, or no scale on those that they have.
        """
        if not self.seeds or not self.classes:
            return None
        try:
            total = self.at(self.seeds, self.classes)
        except UsageError:
            return None
        estimate = clustered_mean(total)
        if math.isnan(estimate.low):
            estimate = clustered_mean(total.clip(0, 1), _images(self.path[-1]))
        low, value, high = np.clip((estimate.low, estimate.value, estimate.high), 0, 1).tolist()
        return Value(metric="area", value=value, low=low, high=high, n=estimate.n)


def area_scores(attacks: Mapping[str, ScaledScores]) -> AreaScores | None:
    """Of the worst case over ``attacks``, label -> scores of the outcome; None where none has a scale."""
    ends = {label: (one.attack, one.random, Anchors(one.noise, one.real, one.metric)) for label, one in attacks.items()}
    readings = {label: found for label, each in ends.items() if (found := course(label, *each))}
    if not readings:
        return None
    points, path = curve(readings)
    return AreaScores(tuple(point.cost for point in points), tuple(path))


def _scores(cell: CellRecord, metric: str) -> dict[float, list[ClassScore]]:
    """What the evaluation models saw at each cost, by rising cost: at that of the outcome alone where no more was kept.

    Nothing where they judged nothing.
    """
    outcome = sorted((one for one in cell.classes if one.metric == metric), key=lambda one: one.target)
    if not outcome:
        return {}
    if not cell.budget:
        spent = {value.metric: value.value for value in cell.values}
        images = sum(score.n for score in outcome)
        return {spent.get("gradient_steps", 0.0) + spent.get("queries", 0.0) / images: outcome}
    return {
        point.cost: [
            ClassScore(metric=metric, target=score.target, value=hits / point.images, n=point.images)
            for score, hits in zip(outcome, point.accepted if metric == OPEN_SET else point.forced, strict=True)
        ]
        for point in cell.budget
    }


def _images(reading: Reading) -> int:
    """The fewest behind a score."""
    metric = reading.scores.metric
    return min(score.n for each in reading.scores.attack.classes(metric).values() for score in each)
