"""The run's cells by place in the grid: what the report's other pages look things up in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from leakbench.bench.records import CellRecord, RunRecord, Value
from leakbench.reports.vocabulary import describe, in_full, interval, is_distance, mean_text, number

NOISE = "noise"
REAL = "real"
JUDGED = "judge_accuracy"
SMALL_N = 30
"""fewer images than this and an interval on a share is wider than a third of the scale"""


@dataclass(frozen=True)
class Reading:
    """One metric at one place of the grid: (seed, value) for every seed that has it."""

    metric: str
    values: tuple[tuple[int, Value], ...]

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN where a value is."""
        return math.fsum(value.value for _, value in self.values) / len(self.values)

    @property
    def text(self) -> str:
        """As in ".71 [.61, .79] n=100"; several seeds: their mean, then each seed's own value."""
        metric = describe(self.metric)
        each = [in_full(metric, value) for _, value in self.values]
        if len(each) == 1:
            return each[0]
        mean = mean_text(self.metric, [value for _, value in self.values])
        return f"{mean} (mean of {len(each)} seeds: {'; '.join(each)})"

    @property
    def short(self) -> str:
        """The text where one seed was run; of several the mean and the extremes."""
        if len(self.values) == 1:
            return self.text
        values = sorted((value for _, value in self.values), key=lambda value: value.value)
        low, high = (number(describe(self.metric), value) for value in (values[0], values[-1]))
        sizes = {value.n for value in values}
        counted = f", n={sizes.pop():,} each" if len(sizes) == 1 else ""
        return f"{mean_text(self.metric, values)} ({len(values)} seeds: {low} to {high}{counted})"

    def above(self, other: Reading) -> bool | None:
        """Whether every seed's interval lies above all of the other's; None where an interval is missing."""
        mine = [interval(value) for _, value in self.values]
        others = [interval(value) for _, value in other.values]
        if None in mine or None in others:
            return None
        return min(ends[0] for ends in mine if ends) > max(ends[1] for ends in others if ends)


@dataclass(frozen=True)
class Place:
    """All cells, one a seed, of a defence alone (no attack), an attack on it, or an anchor (no defence)."""

    defense: str
    attack: str
    cells: tuple[CellRecord, ...]

    @property
    def metrics(self) -> list[str]:
        return _in_order(value.metric for cell in self.cells for value in cell.values)

    @property
    def bad(self) -> list[CellRecord]:
        """The cells that failed or do not apply."""
        return [cell for cell in self.cells if cell.status != "ok"]

    def reading(self, metric: str) -> Reading | None:
        found = [(cell.seed, value) for cell in self.cells for value in cell.values if value.metric == metric]
        return Reading(metric, tuple(found)) if found else None


@dataclass(frozen=True)
class Group:
    """One data set and model: the part of the grid whose numbers may be compared with each other."""

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
    places: Mapping[tuple[str, str], Place]
    """(defence, attack) -> place"""

    @property
    def title(self) -> str:
        return f"{self.dataset} · {self.model}" if self.model else self.dataset

    @property
    def asked(self) -> list[str]:
        """The defences that the run was about: all that are no control."""
        return [label for label in self.defenses if label not in self.controls]

    def reading(self, defense: str, attack: str, metric: str) -> Reading | None:
        place = self.places.get((defense, attack))
        return place.reading(metric) if place else None

    def named(self, plugin: str) -> str | None:
        """Label of the first row that the plugin of this name made ("ann", "random"), if there is one."""
        for label in self.defenses:
            for (defense, _), place in self.places.items():
                names = {cell.defense_name or cell.defense for cell in place.cells}
                if defense == label and names == {plugin}:
                    return label
        return None

    def attack_metrics(self) -> list[str]:
        """Metrics of attacks on defences: judge accuracy, then distances, then the rest as they came."""
        found = _in_order(
            metric for (defense, attack), place in self.places.items() if defense and attack for metric in place.metrics
        )
        return sorted(found, key=lambda name: (name != JUDGED, not is_distance(name)))

    def worst(self, defense: str) -> tuple[str, Reading] | None:
        """The attack with the highest judge accuracy on the defence (mean over seeds), with its reading."""
        found = [
            (attack, reading)
            for attack in self.attacks
            if (reading := self.reading(defense, attack, JUDGED)) and not math.isnan(reading.mean)
        ]
        return max(found, key=lambda pair: pair[1].mean) if found else None


def groups(record: RunRecord) -> list[Group]:
    """The run's groups in its own order. An anchor without a model belongs to every model of its data set."""
    keys = dict.fromkeys((c.dataset, c.model) for c in record.cells if c.defense or c.model)
    keys |= dict.fromkeys((c.dataset, "") for c in record.cells if c.dataset not in {key[0] for key in keys})
    made = []
    for count, (dataset, model) in enumerate(keys, start=1):
        cells = [
            cell
            for cell in record.cells
            if cell.dataset == dataset and (cell.model == model or not (cell.model or cell.defense))
        ]
        made.append(_group(dataset, model, count, cells))
    return made


def _group(dataset: str, model: str, number: int, cells: list[CellRecord]) -> Group:
    places: dict[tuple[str, str], list[CellRecord]] = {}
    for cell in cells:
        places.setdefault((cell.defense, cell.attack), []).append(cell)
    labels = _in_order(cell.defense for cell in cells if cell.defense)
    controls = frozenset(cell.defense for cell in cells if cell.control and cell.defense)
    anchors = _in_order(cell.attack for cell in cells if not cell.defense and cell.attack)
    return Group(
        dataset=dataset,
        model=model,
        number=number,
        defenses=tuple(sorted(labels, key=controls.__contains__)),
        attacks=tuple(_in_order(cell.attack for cell in cells if cell.defense and cell.attack)),
        anchors=tuple(sorted(anchors, key=lambda name: {NOISE: 0, REAL: 1}.get(name, 2))),
        seeds=tuple(sorted({cell.seed for cell in cells})),
        controls=controls,
        places={key: Place(*key, tuple(found)) for key, found in places.items()},
    )


def label_of(cell: CellRecord) -> str:
    """How the report names a cell, seed aside: "inversion on privatesnn", "privatesnn", "noise images"."""
    if not cell.defense:
        return f"{cell.attack} images"
    return f"{cell.attack} on {cell.defense}" if cell.attack else cell.defense


def class_names(record: RunRecord, dataset: str) -> dict[int, str]:
    """The names of a data set's classes by their index; empty where the record does not describe the set."""
    found = next((info for info in record.datasets if info.name == dataset), None)
    return dict(enumerate(found.classes)) if found else {}


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
