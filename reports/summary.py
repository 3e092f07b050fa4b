"""The experiments of a run, cells and what was made of them: what the report's other parts look things up in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from leakbench.errors import NumericalError
from leakbench.leakage import leakage_kind
from leakbench.leakage.inversion.class_evidence import FORCED
from leakbench.leakage.inversion.index import SECOND_OPINION
from leakbench.leakage.inversion.kind import Inversion
from leakbench.leakage.membership.kind import Membership
from leakbench.leakage.seed_group import distinct, seed_group
from leakbench.metrics.audit import AuditedEpsilon
from leakbench.metrics.estimate import Estimate
from leakbench.records import AttackRow, CellRecord, Index, RunRecord, Scale, Value, Verdict, fields
from leakbench.reports.audited import noun_of
from leakbench.reports.vocabulary import Vocabulary, value_of

NOISE = "noise"
REAL = "real"
JUDGED, KES = FORCED, SECOND_OPINION
BOUNDS = frozenset({AuditedEpsilon.name})
"""metrics whose every value is a bound, and whose mean is none"""
SMALL_N = 30
"""fewer images than this and an interval on a share is wider than a third of the scale"""


@dataclass(frozen=True)
class Reading:
    """One metric in one experiment: (seed, value) for every seed that has it."""

    metric: str
    values: tuple[tuple[int, Value], ...]

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN where a value is."""
        return math.fsum(value.value for _, value in self.values) / len(self.values)


@dataclass(frozen=True)
class Experiment:
    """A defence alone (no attack), an attack on it, or an anchor (no defence), with every seed: a cell a seed."""

    defense: str
    attack: str
    cells: tuple[CellRecord, ...]
    vocabulary: Vocabulary = field(repr=False, compare=False)

    @property
    def metrics(self) -> list[str]:
        return _in_order(value.metric for cell in self.cells for value in cell.values)

    @property
    def bad(self) -> list[CellRecord]:
        """The cells that failed, do not apply or had no signal."""
        return [cell for cell in self.cells if cell.status != "ok"]

    def reading(self, metric: str) -> Reading | None:
        values = [(cell.seed, value) for cell in self.cells for value in cell.values if value.metric == metric]
        return Reading(metric, tuple(values)) if values else None

    def overall(self, metric: str) -> Value | None:
        """The mean over the seeds that worked with its interval, cut to what a share or a ratio can be; of one seed its
        own. Of bounds the highest, from the lowest to the highest."""
        reading = self.reading(metric)
        if reading and metric in BOUNDS and len(reading.values) > 1:
            each = [value.value for _, value in reading.values]
            return Value(metric=metric, value=max(each), low=min(each), high=max(each), n=len(each))
        try:
            estimate = seed_group(self.cells, self.vocabulary.declared).estimate(metric)
        except NumericalError:  # some seed's value is NaN or infinite, and so is the mean
            estimate = Estimate(math.nan)
        if estimate is None:
            return None
        value = Value(metric=metric, **fields(estimate))
        unit = self.vocabulary.unit(metric)
        if unit not in ("share", "ratio") or value.low is None or value.high is None:
            return value
        high = min(1.0, value.high) if unit == "share" else value.high
        return value.model_copy(update={"low": max(0.0, value.low), "high": high})


@dataclass(frozen=True)
class Group:
    """What leaks of one kind on one data set and model: the part of a grid whose numbers may be compared."""

    dataset: str
    model: str
    number: int
    """counts the groups of a run: makes the ids of a page unique"""
    defenses: tuple[str, ...]
    """labels in the order of the run, controls last"""
    attacks: tuple[str, ...]
    anchors: tuple[str, ...]
    """"noise", "real", and whatever else a run calibrates with"""
    seeds: tuple[int, ...]
    controls: frozenset[str]
    experiments: Mapping[tuple[str, str], Experiment]
    """(defence, attack) -> what was run"""
    rows: Mapping[tuple[str, str], AttackRow]
    """(defence, attack) -> what all seeds together say of it"""
    verdicts: Mapping[str, Verdict]
    scales: Mapping[str, Scale]
    """metric -> what its index is measured on"""
    vocabulary: Vocabulary = field(repr=False, compare=False)
    corner: str = "Defence"
    """what the rows are, as a heading"""

    @property
    def title(self) -> str:
        return f"{self.dataset} · {self.model}" if self.model else self.dataset

    @property
    def evaluated(self) -> list[str]:
        """The defences that the run was about: all that are no control."""
        return [label for label in self.defenses if label not in self.controls]

    @property
    def attacked(self) -> list[str]:
        """The defences that an attack was run on; of the others accuracy and cost alone are known."""
        return [label for label in self.defenses if any((label, attack) in self.experiments for attack in self.attacks)]

    def plugin(self, label: str) -> str:
        """Name of the plugin that made the row."""
        cells = (
            cell
            for (defense, _), experiment in self.experiments.items()
            if defense == label
            for cell in experiment.cells
        )
        return next((cell.defense_name for cell in cells if cell.defense_name), label)

    def apart_from_sweeps(self, labels: Sequence[str]) -> list[str]:
        """Of one method's labels those that were attacked, else those that name the fewest parameters."""
        fewest = min((label.count("=") for label in labels), default=0)
        alone = [label for label in labels if label.count("=") == fewest]
        return [label for label in labels if label in self.attacked] or alone

    def with_attack(self, attack: str) -> list[Experiment]:
        """The attack on every defence that it was run on; of an empty one the defences alone."""
        return [self.experiments[label, attack] for label in self.defenses if (label, attack) in self.experiments]

    def reading(self, defense: str, attack: str, metric: str) -> Reading | None:
        experiment = self.experiments.get((defense, attack))
        return experiment.reading(metric) if experiment else None

    def named(self, plugin: str) -> str | None:
        """Label of the first row that the plugin of this name made ("ann", "random"), if there is one."""
        return next((label for label in self.defenses if self.plugin(label) == plugin), None)

    def attack_metrics(self) -> list[str]:
        """Metrics of attacks on defences: judge accuracy, KES, those of which less leaks more, other leakage, then the
        rest as they came."""
        metrics = _in_order(
            metric
            for (defense, attack), experiment in self.experiments.items()
            if defense and attack
            for metric in experiment.metrics
        )

        def order(name: str) -> tuple[bool, ...]:
            leaks = self.vocabulary.describe(name).leaks
            return name != self.headline, name != JUDGED, name != KES, leaks != "less", not leaks

        return sorted(metrics, key=order)

    @property
    def headline(self) -> str:
        """The metric whose index carries the verdicts."""
        return next(
            (leakage_kind(row.leakage).headline_of(row).metric for row in self.rows.values() if row.indices), JUDGED
        )

    def index(self, defense: str, attack: str, metric: str = "") -> Index | None:
        """Of the headline where no metric is named."""
        metric = metric or self.headline
        row = self.rows.get((defense, attack))
        return next((index for index in row.indices if index.metric == metric), None) if row else None

    def indexed(self) -> list[str]:
        """Metrics that have a leakage index or should have one: judge accuracy first, the rest as they came."""
        metrics = _in_order(index.metric for row in self.rows.values() for index in row.indices)
        return sorted(metrics, key=lambda name: (name != self.headline, name != JUDGED, name != KES))

    def worst(self, defense: str) -> Index | None:
        """The verdict's index; of a control, of which there is no verdict, the highest of its valid attacks."""
        return self.worst_case(defense)[1]

    def worst_case(self, defense: str) -> tuple[str, Index | None]:
        """The attack behind :meth:`worst` and its index; "" and None where there is none."""
        if defense in self.verdicts:
            return self.verdicts[defense].attack, self.verdicts[defense].index
        cases = [
            (value.value, attack, index)
            for (label, attack), row in self.rows.items()
            if label == defense and row.validity == "valid"
            if (index := self.index(label, attack)) and (value := value_of(index))
        ]
        return max(cases, key=lambda case: case[0])[1:] if cases else ("", None)


def groups(record: RunRecord, leakage: str = Inversion.name) -> list[Group]:
    """The run's groups in its own order, with the attacks on a kind of leak. An anchor without a model belongs to every
    model of its data set.

    Cells that repeat another as a check are no cells of the grid: they are left out, and so are those of copies of one
    network, as verdicts leave them out.
    """
    grid = [cell for cell in record.cells if not cell.of and cell.leakage in ("", leakage)]
    keys = dict.fromkeys((c.dataset, c.model) for c in grid if c.defense or c.model)
    keys |= dict.fromkeys((c.dataset, "") for c in grid if c.dataset not in {key[0] for key in keys})
    grouped = []
    for count, (dataset, model) in enumerate(keys, start=1):
        cells = distinct(
            [
                cell
                for cell in grid
                if cell.dataset == dataset and (cell.model == model or not (cell.model or cell.defense))
            ]
        )
        grouped.append(_group(record, leakage, dataset, model, count, cells))
    return grouped


def members_of(record: RunRecord) -> dict[tuple[str, str], Group]:
    """(data set, model) -> the group as attacks on members see it; empty where none ran."""
    if all(cell.leakage != Membership.name for cell in record.cells):
        return {}
    return {(group.dataset, group.model): group for group in groups(record, Membership.name)}


def _group(record: RunRecord, leakage: str, dataset: str, model: str, number: int, cells: list[CellRecord]) -> Group:
    experiments: dict[tuple[str, str], list[CellRecord]] = {}
    for cell in cells:
        experiments.setdefault((cell.defense, cell.attack), []).append(cell)
    labels = _in_order(cell.defense for cell in cells if cell.defense)
    controls = frozenset(cell.defense for cell in cells if cell.control and cell.defense)
    anchors = _in_order(cell.attack for cell in cells if not cell.defense and cell.attack)
    here = (dataset, model)
    vocabulary = Vocabulary(record.metrics)
    return Group(
        dataset=dataset,
        model=model,
        number=number,
        defenses=tuple(sorted(labels, key=controls.__contains__)),
        attacks=tuple(_in_order(cell.attack for cell in cells if cell.defense and cell.attack)),
        anchors=tuple(sorted(anchors, key=lambda name: {NOISE: 0, REAL: 1}.get(name, 2))),
        seeds=tuple(sorted({cell.seed for cell in cells})),
        controls=controls,
        experiments={key: Experiment(*key, tuple(repeated), vocabulary) for key, repeated in experiments.items()},
        rows={
            (row.defense, row.attack): row
            for row in record.rows
            if (row.dataset, row.model, row.leakage) == (*here, leakage)
        },
        verdicts={
            verdict.defense: verdict
            for verdict in record.verdicts
            if (verdict.dataset, verdict.model, verdict.leakage) == (*here, leakage)
        },
        scales={scale.metric: scale for scale in record.scales if (scale.dataset, scale.model) == here},
        vocabulary=vocabulary,
        corner=noun_of(record).capitalize(),
    )


def label_of(cell: CellRecord) -> str:
    """How the report names a cell, seed aside: "inversion on privatesnn", "privatesnn", "noise images"."""
    if not cell.defense:
        return f"{cell.attack} images"
    return f"{cell.attack} on {cell.defense}" if cell.attack else cell.defense


def class_names(record: RunRecord, dataset: str) -> dict[int, str]:
    """The names of a data set's classes by their index; empty where the record does not describe the set."""
    dataset_info = next((info for info in record.datasets if info.name == dataset), None)
    return dict(enumerate(dataset_info.classes)) if dataset_info else {}


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
