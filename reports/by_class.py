"""The leakage index taken apart by class: an attack's table has a row a defence and a column a class."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

from leakbench.metrics.metric import INDEX
from leakbench.records import ClassIndex, ClassScore, Index, RunRecord, Value
from leakbench.reports.grid import GridCell, GridRow, Line, Table, cell_of, invalid, why_missing
from leakbench.reports.report import Report
from leakbench.reports.summary import JUDGED, Experiment, Group, class_names
from leakbench.reports.vocabulary import index_text, mean_text, number

MAX_CLASSES = 20
"""more classes than this and a table shows WORST_CLASSES of them"""
WORST_CLASSES = 10
OPEN_ROWS = 12
"""a group whose tables have more rows than this in all is folded"""


@dataclass(frozen=True)
class ClassTable:
    """One attack, class by class."""

    attack: str
    worst: str
    """where the attack drew most; empty where it is valid nowhere or no class has a value"""
    total: int
    """classes that have a value; the table shows the worst of them where they are too many"""
    table: Table
    folded: bool


@dataclass(frozen=True)
class _Row:
    """An experiment: each class's index, and the predictions for its images, (seed, share) pairs."""

    label: str
    control: bool
    invalid: str
    missing: str
    null: str
    indices: dict[int, ClassIndex]
    shares: dict[int, list[tuple[int, ClassScore]]]

    def value(self, target: int) -> float:
        value = self.indices[target].value
        return math.nan if value is None else value

    def ranked(self) -> list[int]:
        """The classes that have an index, worst first; the classes' own order where they are equal."""
        scored = [target for target in self.indices if not math.isnan(self.value(target))]
        return sorted(scored, key=lambda target: (-self.value(target), target))

    def worst(self) -> list[int]:
        """The classes with the highest index; none where all are equal, which tells nothing of a class."""
        ranked = self.ranked()
        if self.invalid or not ranked or self.value(ranked[0]) == self.value(ranked[-1]):
            return []
        return [target for target in ranked if self.value(target) == self.value(ranked[0])]


@dataclass(frozen=True)
class Classes:
    """The tables of one data set and model."""

    group: Group
    classes: list[ClassTable]


def section(report: Report) -> dict[str, Any] | None:
    views = [Classes(group, tables) for group in report.groups if (tables := class_tables(report.record, group))]
    return {"views": views} if views else None


def class_tables(record: RunRecord, group: Group) -> list[ClassTable]:
    """A table an attack, in the run's order; none for an attack of which nothing was scored class by class."""
    names = class_names(record, group.dataset)
    anchors = [row for anchor in group.anchors if (row := _row(group, "", anchor)).shares]
    rows_by_attack: list[tuple[str, list[_Row]]] = []
    for attack in group.attacks:
        rows = [_row(group, label, attack) for label in group.defenses if (label, attack) in group.experiments]
        if any(row.indices or row.shares for row in rows):
            rows_by_attack.append((attack, rows))
    folded = sum(len(rows) + len(anchors) for _, rows in rows_by_attack) > OPEN_ROWS
    return [_class_table(group, attack, rows, anchors, names, folded) for attack, rows in rows_by_attack]


def _class_table(
    group: Group, attack: str, rows: list[_Row], anchors: list[_Row], names: dict[int, str], folded: bool
) -> ClassTable:
    targets = sorted({target for row in rows for target in (*row.indices, *row.shares)})
    shown = targets if len(targets) <= MAX_CLASSES else _worst_of_each(_in_question(rows), targets)
    return ClassTable(
        attack,
        _where_worst(_in_question(rows), names),
        len(targets),
        Table(
            group.vocabulary.describe(f"{INDEX}{group.headline}"),
            tuple(names.get(target, f"class {target}") for target in shown),
            tuple(_grid_row(row, shown) for row in rows),
            tuple(_grid_row(row, shown) for row in anchors),
            ("0", "1"),
        ),
        folded,
    )


def _row(group: Group, defense: str, attack: str) -> _Row:
    experiment = group.experiments[defense, attack]
    index = group.index(defense, attack)
    return _Row(
        defense or f"{attack} images",
        defense in group.controls,
        invalid(group.rows.get((defense, attack))),
        why_missing(experiment),
        index.null if index else "",
        {class_index.target: class_index for class_index in index.classes} if index else {},
        _shares(experiment, group.headline),
    )


def _shares(experiment: Experiment, metric: str) -> dict[int, list[tuple[int, ClassScore]]]:
    shares: dict[int, list[tuple[int, ClassScore]]] = {}
    for cell in experiment.cells:
        # What is no share is left out: its class reads as one without a value.
        usable = [score for score in cell.classes if score.metric == metric and score.n >= 1 and 0 <= score.value <= 1]
        for score in usable:
            shares.setdefault(score.target, []).append((cell.seed, score))
    return shares


def _in_question(rows: list[_Row]) -> list[_Row]:
    """The rows that the run was about and that are valid; where none is, all that the run was about; the controls
    where nothing else was scored."""
    scored = [row for row in rows if row.ranked()]
    asked = [row for row in scored if not row.control] or scored
    return [row for row in asked if not row.invalid] or asked


def _worst_of_each(rows: list[_Row], targets: list[int]) -> list[int]:
    """WORST_CLASSES classes in their own order: every row's worst, then every row's second, and so on.

    Not the highest of all, which would all be those of the row that leaks most. The first ``targets`` where no
    class has an index.
    """
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(row.ranked() for row in rows)))
    picked = dict.fromkeys(target for target in (*turns, *targets) if target is not None)
    return sorted(list(picked)[:WORST_CLASSES])


def _where_worst(rows: list[_Row], names: dict[int, str]) -> str:
    rows = [row for row in rows if not row.invalid]
    if not rows:
        return ""
    row = max(rows, key=lambda row: row.value(row.ranked()[0]))
    first = row.ranked()[0]
    equal = sum(row.value(target) == row.value(first) for target in row.ranked()) - 1
    more = f" and {equal} more" if equal else ""
    return f"{row.label}, class {names.get(first, first)}{more}, {index_text(_index(row.indices[first]))}"


def _grid_row(row: _Row, targets: list[int]) -> GridRow:
    worst = set(row.worst())
    return GridRow(row.label, row.control, tuple(_cell(row, t, t in worst) for t in targets), row.invalid)


def _cell(row: _Row, target: int, worst: bool) -> GridCell:
    """The class's index, and below it the judge accuracy behind it."""
    shares = row.shares.get(target, [])
    judged = (_judged([score for _, score in shares]),) if shares else ()
    each = "; ".join(_told(seed, score) for seed, score in shares) if len(shares) > 1 else ""
    index = row.indices.get(target)
    if index is None:
        return GridCell(judged, None, "", missing="" if judged else row.missing, full=each)
    cell = cell_of(_index(index, row.null))
    if not cell.lines:
        why = "no scale: noise scores as well as real images here"
        cell = GridCell((Line("", "–", "", ""),), None, "", full=why)
    level = None if row.invalid else cell.level
    full = "; ".join(part for part in (cell.full, each) if part)
    return replace(cell, lines=(*cell.lines, *judged), level=level, worst=worst, full=full)


def _index(class_index: ClassIndex, null: str = "") -> Index:
    return Index(metric=JUDGED, value=class_index.value, low=class_index.low, high=class_index.high, null=null)


def _judged(scores: list[ClassScore]) -> Line:
    """The share, or the mean of several seeds: every seed is another network, so their images are not added up."""
    sizes = sorted({score.n for score in scores})
    counted = "–".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    several = f"{len(scores)}×" if len(scores) > 1 else ""
    return Line("accuracy", mean_text("share", [_share(score) for score in scores]), "", f"n={several}{counted}")


def _told(seed: int, score: ClassScore) -> str:
    return f"seed {seed}: accuracy {number('share', _share(score))} n={score.n:,}"


def _share(score: ClassScore) -> Value:
    return Value(metric=JUDGED, value=score.value, n=score.n)
