"""Grids of attacks on members as the pages on data leakage take them: every method, sweeps, and what changes what."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev

import numpy as np

from leakbench.bench.suites import CONVERSIONS, TRAINED
from leakbench.leakage.controls import ANN
from leakbench.leakage.membership.verdict import HEADLINE
from leakbench.metrics.intervals import Difference, holm, paired_difference
from leakbench.records import RunRecord
from leakbench.reports.curves import Curve, curves, tick
from leakbench.reports.summary import Group, groups, members_of

ENSEMBLE = "auto_mia-v2"
PARTS = (
    ("`privatesnn` instead of `datafree`: encryption training with distillation", ("privatesnn",), ("datafree",)),
    ("`bu2022` instead of `rueckauer2017`: fine-tuned with activations in steps", ("bu2022",), ("rueckauer2017",)),
    ("`stbp`, `tdbn` and `lee2020` instead of the ANN: trained with spikes", TRAINED, (ANN,)),
)
"""what is compared, some methods, and what they are compared with; of several the mean counts"""
SHARING = (*CONVERSIONS, "datafree", "privatesnn")
"""methods whose networks start from the weights of the seed's one ANN, from which the others' do not"""


@dataclass(frozen=True)
class Grid:
    """A data set and model of a run."""

    record: RunRecord
    group: Group
    members: Group
    """the same as attacks on members see it"""
    sweeps: list[Curve]
    """of a run that varies something; none of one that only has defences"""


def grids_of(records: Iterable[RunRecord]) -> list[Grid]:
    """Those on which members were attacked."""
    found = []
    for record in records:
        found_of = members_of(record)
        for group in groups(record):
            if members := found_of.get((group.dataset, group.model)):
                found.append(Grid(record, group, members, curves(group, members)))
    return found


def attacked(members: Group) -> list[str]:
    """Whom the ensemble attacked."""
    return [label for label in members.defenses if (label, ENSEMBLE) in members.rows]


def asked(members: Group) -> list[str]:
    """Those of them that are compared with the ANN, and it: no controls."""
    return [label for label in attacked(members) if label not in members.controls or members.plugin(label) == ANN]


def by_seed(members: Group, label: str, attack: str = ENSEMBLE) -> dict[int, float]:
    """An attack's AUC by seed; nothing where it is not valid."""
    row = members.rows.get((label, attack))
    reading = members.reading(label, attack, HEADLINE) if row and row.validity == "valid" else None
    return {seed: value.value for seed, value in reading.values} if reading else {}


def against_ann(members: Group, labels: Sequence[str]) -> dict[str, tuple[Difference, float]]:
    """Label -> difference of its AUC to the ANN's, paired over seeds, and p after Holm's correction over all labels.

    Empty where no ANN was attacked. The variance over seeds is at least that of all :func:`peers` (see
    :func:`~leakbench.metrics.intervals.paired_difference`).
    """
    ann = members.named(ANN)
    scores = {label: by_seed(members, label) for label in labels}
    if ann not in scores:
        return {}
    seeds = sorted(scores[ann])
    arrays = {label: np.array([[of[seed]] for seed in seeds]) for label, of in scores.items() if of.keys() >= {*seeds}}
    differences = {
        label: paired_difference(one, arrays[ann], [arrays[peer] for peer in peers(members, arrays, (label, ann))])
        for label, one in arrays.items()
        if label != ann
    }
    adjusted = holm([difference.p for difference in differences.values()])
    return {label: (found, p) for (label, found), p in zip(differences.items(), adjusted, strict=True)}


def peers(members: Group, labels: Iterable[str], compared: Collection[str]) -> list[str]:
    """Those of ``labels`` that vary over seeds as the ``compared`` do: networks that start from the seed's ANN, or
    networks that are trained on their own, which vary more. None where both kinds are compared."""
    kinds = {members.plugin(label) in SHARING for label in compared if members.plugin(label) != ANN}
    others = [label for label in labels if label not in compared and members.plugin(label) != ANN]
    return [label for label in others if {members.plugin(label) in SHARING} == kinds]


@dataclass(frozen=True)
class Beside:
    """By how much the AUC of a single attack differs from the ensemble's, where both are valid."""

    attack: str
    value: float
    """mean over seeds of the mean over a seed's networks"""
    error: float
    """its standard error: networks of one seed share images and most of them an ANN"""
    seeds: int
    networks: int


def beside_ensemble(members: Group, labels: Sequence[str]) -> list[Beside]:
    """Each single attack's, where there are two seeds or more."""
    found = []
    for attack in members.attacks:
        apart: dict[int, list[float]] = defaultdict(list)
        for label in labels:
            ours, theirs = by_seed(members, label), by_seed(members, label, attack)
            for seed in ours.keys() & theirs.keys():
                apart[seed].append(theirs[seed] - ours[seed])
        if attack != ENSEMBLE and len(apart) > 1:
            means = [mean(each) for each in apart.values()]
            error = stdev(means) / math.sqrt(len(means))
            found.append(Beside(attack, mean(means), error, len(means), sum(map(len, apart.values()))))
    return found


@dataclass(frozen=True)
class Change:
    """What differs between some defences of a run and others, and by how much their mean AUC does."""

    what: str
    attack: str
    networks: int
    found: Difference


def changes_of(grid: Grid) -> list[Change]:
    """Of a run of methods those of :data:`PARTS`, of a sweep the ends of each line and lines of the same defence."""
    members = grid.members
    named = {members.plugin(label): label for label in reversed(asked(members))}
    wanted: list[tuple[str, str, Sequence[str], Sequence[str]]] = []
    if not grid.sweeps:
        wanted += [
            (what, ENSEMBLE, *([named.get(one, "") for one in side] for side in sides)) for what, *sides in PARTS
        ]
    for curve in grid.sweeps:
        if curve.metric.name != HEADLINE:
            continue
        for line in curve.series:
            attack = line.label if line.label in members.attacks else ENSEMBLE
            first, last = line.points[0], line.points[-1]
            what = f"{curve.across} {tick(last.x)} instead of {tick(first.x)}"
            of = line.plugin if attack == line.label or line.label == line.plugin else f"{line.plugin}, {line.label}"
            wanted.append((f"`{of}`: {what}", attack, [last.defense], [first.defense]))
        for one, other in combinations(curve.series, 2):
            if one.plugin == other.plugin and not {one.label, other.label} & {*members.attacks}:
                common = {point.x for point in one.points} & {point.x for point in other.points}
                sides = [[point.defense for point in line.points if point.x in common] for line in (one, other)]
                wanted.append((f"`{one.plugin}`: {one.label} instead of {other.label}", ENSEMBLE, *sides))
    made = ((what, attack, *difference(members, attack, *sides)) for what, attack, *sides in wanted)
    return [Change(what, attack, networks, found) for what, attack, networks, found in made if found is not None]


def difference(members: Group, attack: str, more: Sequence[str], less: Sequence[str]) -> tuple[int, Difference | None]:
    """The number of networks, and how much higher the attack's mean AUC of some defences is than that of others.

    None with fewer than two networks of each, or where the attack is not valid. What :func:`peers` vary by counts as in
    :func:`against_ann`.
    """
    scores = {label: by_seed(members, label, attack) for label in members.defenses}
    if not more or not less:
        return 0, None
    seeds = sorted(set.intersection(*({*scores.get(label, {})} for label in (*more, *less))))
    if len(seeds) < 2:
        return len(seeds), None

    def mean_of(labels: Sequence[str]) -> np.ndarray:
        return np.array([[mean(scores[label][seed] for label in labels)] for seed in seeds])

    whole = [label for label, of in scores.items() if of.keys() >= {*seeds} and label not in members.controls]
    others = [mean_of([label]) for label in peers(members, whole, (*more, *less))]
    return len(seeds), paired_difference(mean_of(more), mean_of(less), others)
