"""The leakage index: where between noise and real images the images of an attack lie.

See docs/verdicts.md.

LI = (D_null - D_attack) / (D_null - D_real), for each metric, over all classes and seeds and class by class. The null
is the better-scoring of noise images and the same attack on an untrained network, so that what an attack brings along
itself (smooth blobs, a prior) is not booked on the victim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from leakbench.errors import LeakBenchError, UsageError
from leakbench.leakage.inversion.class_evidence import FORCED
from leakbench.leakage.seed_group import Declarations, SeedGroup
from leakbench.metrics.estimate import CONFIDENCE, Estimate
from leakbench.metrics.intervals import Difference, leakage_index, paired_difference, ratio_of_estimates
from leakbench.metrics.metric import Declaration
from leakbench.records import ClassIndex, ClassScore, Index, fields

SECOND_OPINION = "kes"
"""the metric that stands beside the one whose index carries the verdict"""
NULLS = {"noise": "noise images", "random": "the same attack on an untrained network"}
"""what 0 of an index may be, as :attr:`Index.null` has it -> in words"""


def has_index(declared: Declarations, metric: str) -> bool:
    """Whether the metric has a scale from what leaks nothing to real images."""
    return metric in declared and declared[metric].scale != ""


def index_of(metric: str, attack: SeedGroup, noise: SeedGroup, real: SeedGroup, random: SeedGroup) -> Index:
    """The index of one metric; without a value, and with the reason, where there is no scale.

    ``random`` is the same attack on the untrained network; empty where it was not run (or is what is scored).
    """
    declared = attack.declared[metric]
    if declared.scale == "brackets":
        return _between_brackets(metric, attack)
    null, name = _null(declared, noise, random)
    if not null or not real or any(metric not in group.metrics for group in (attack, null, real)):
        return Index(metric=metric, reason="no value of this metric for the attack or for an anchor")
    try:
        estimate = estimate_of(metric, attack, noise, real, random)
    except LeakBenchError as error:
        return Index(metric=metric, null=name, reason=str(error))
    by_class = _by_class(declared, attack, null, real) if declared.per == "class" else []
    return Index(metric=metric, **fields(estimate), null=name, classes=by_class)


def estimate_of(
    metric: str,
    attack: SeedGroup,
    noise: SeedGroup,
    real: SeedGroup,
    random: SeedGroup,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The index of a metric between the anchors with an interval of ``confidence``, which only one of each class can
    have other than .95. LeakBenchError where there is no scale."""
    declared = attack.declared[metric]
    null, _ = _null(declared, noise, random)
    if declared.per == "class":
        return _over_classes(declared, attack, null, real, confidence)
    counts = {value.n for group in (attack, null, real) for value in group.values(metric)}
    if declared.needs_same_n and len(counts) > 1:
        listed = ", ".join(map(str, sorted(counts)))
        raise UsageError(f"no scale: the values are of {listed} images, and compare at the same number alone")
    return _overall(declared, attack.estimate(metric), null.estimate(metric), real.estimate(metric))


def indices(attack: SeedGroup, noise: SeedGroup, real: SeedGroup, random: SeedGroup, headline: str) -> list[Index]:
    """The index of every metric that has one, the headline first."""
    names = [name for name in attack.metrics if has_index(attack.declared, name)]
    names.sort(key=lambda name: (name != headline, name != SECOND_OPINION))
    return [index_of(name, attack, noise, real, random) for name in names]


def paired(a: SeedGroup, b: SeedGroup, metric: str = FORCED) -> Difference | None:
    """How much higher the first place scores than the second, paired by class and seed: two defences or attacks.

    None where they have no class and seed in common, or no interval.
    """
    seeds = sorted(a.seeds(metric) & b.seeds(metric))
    classes = sorted(a.classes(metric).keys() & b.classes(metric).keys())
    first, second = a.scores(metric, seeds, classes), b.scores(metric, seeds, classes)
    if first is None or second is None or not first.size:
        return None
    return paired_difference(first, second)


def _null(declared: Declaration, noise: SeedGroup, random: SeedGroup) -> tuple[SeedGroup, str]:
    drawn, untrained = noise.mean(declared.name), random.mean(declared.name)
    if untrained is None or (drawn is not None and (drawn < untrained) == (declared.leaks == "less")):
        return noise, "noise"
    return random, "random"


def _over_classes(
    declared: Declaration, attack: SeedGroup, null: SeedGroup, real: SeedGroup, confidence: float
) -> Estimate:
    metric = declared.name
    groups = (attack, null, real)
    seeds = sorted(attack.seeds(metric))
    # of fewer networks it would be the index of something else
    if lacking := [seed for seed in seeds if seed not in null.seeds(metric) & real.seeds(metric)]:
        raise UsageError(f"no scale at seed {', '.join(map(str, lacking))}: no null or no real images there")
    classes = sorted(set.intersection(*(set(group.classes(metric)) for group in groups)))
    scores, low, high = (group.scores(metric, seeds, classes) for group in groups)
    if scores is None or low is None or high is None:
        raise UsageError("a seed lacks a class")
    images = min(one.n for by_seed in attack.classes(metric).values() for one in by_seed) if declared.counts else None
    return leakage_index(scores, low, high, declared.leaks == "more", images, confidence)


def _overall(declared: Declaration, attack: Estimate | None, null: Estimate | None, real: Estimate | None) -> Estimate:
    if attack is None or null is None or real is None:
        raise UsageError("a value is missing")
    if not (real.value < null.value if declared.leaks == "less" else real.value > null.value):
        raise UsageError(f"no scale: real images score no better ({real.value:.3g}) than the null ({null.value:.3g})")
    return ratio_of_estimates(attack, null, real)


def _between_brackets(metric: str, attack: SeedGroup) -> Index:
    """Fooling has a scale of its own, on the same victim: perturbations from real images, and from none.

    0 is the better of random signs and a perturbation from noise images, which needs no picture of any class either.
    """
    nulls = {end: one for end in ("random", "noise") if (one := attack.estimate(f"{metric}_{end}")) is not None}
    name = max(nulls, key=lambda end: nulls[end].value, default="")
    try:
        estimate, real = attack.estimate(metric), attack.estimate(f"{metric}_real")
        index = _overall(attack.declared[metric], estimate, nulls.get(name), real)
    except LeakBenchError as error:
        return Index(metric=metric, reason=str(error))
    return Index(metric=metric, **fields(index), null={"random": "random signs", "noise": "noise"}[name])


def _by_class(declared: Declaration, attack: SeedGroup, null: SeedGroup, real: SeedGroup) -> list[ClassIndex]:
    """Class by class, the interval that of the class's own images; the class's two ends are taken as known."""
    metric, lower_leaks = declared.name, declared.leaks == "less"
    ends = null.classes(metric), real.classes(metric)
    by_class = []
    for target, scores in sorted(attack.classes(metric).items()):
        low_end, high_end = (_mean(end[target]) if target in end else math.nan for end in ends)
        scale = high_end - low_end
        if not (scale < 0 if lower_leaks else scale > 0):
            by_class.append(ClassIndex(target=target))
            continue
        centre = _mean(scores)
        bounds = [_end(scores, centre, side) for side in ("low", "high")]
        limits = [None if bound is None else _clipped((bound - low_end) / scale) for bound in bounds]
        if lower_leaks:
            limits.reverse()
        by_class.append(
            ClassIndex(target=target, value=_clipped((centre - low_end) / scale), low=limits[0], high=limits[1])
        )
    return by_class


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
