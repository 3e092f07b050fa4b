"""Judge accuracy taken apart by class: an attack's table has a row a defence and a column a class."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from leakbench.bench.records import ClassScore, RunRecord, Value
from leakbench.metrics.estimate import proportion
from leakbench.reports.grid import GridCell, GridRow, Line, Table, level_of, why_missing
from leakbench.reports.summary import JUDGED, Group, Place, Reading, class_names
from leakbench.reports.vocabulary import bounds, describe, in_full, mean_text, number

MAX_CLASSES = 20
"""more classes than this and a table shows WORST_CLASSES of them"""
WORST_CLASSES = 10
OPEN_ROWS = 12
"""a group whose tables have more rows than this in all is folded"""
_SCALE = (0.0, 1.0)


@dataclass(frozen=True)
class ClassTable:
    """One attack, class by class."""

    attack: str
    worst: str
    """where the attack drew most; empty where no defence in question has a value"""
    of: int
    """classes that have a value; the table shows the worst of them where they are too many"""
    table: Table
    folded: bool


@dataclass(frozen=True)
class _Row:
    """A place of the grid with its scores, (seed, score) pairs under each class."""

    label: str
    control: bool
    place: Place
    scores: dict[int, list[tuple[int, ClassScore]]]

    def share(self, target: int) -> float:
        """Share of the class's images that the judge names as intended: mean over seeds."""
        found = self.scores[target]
        return math.fsum(score.hits / score.n for _, score in found) / len(found)

    def ranked(self) -> list[int]:
        """The classes, worst first; the classes' own order where shares are equal."""
        return sorted(self.scores, key=lambda target: (-self.share(target), target))

    def worst(self) -> list[int]:
        """The classes with the highest share; none where all are equal, which tells nothing of a class."""
        ranked = self.ranked()
        if not ranked or self.share(ranked[0]) == self.share(ranked[-1]):
            return []
        return [target for target in ranked if self.share(target) == self.share(ranked[0])]


def class_tables(record: RunRecord, group: Group) -> list[ClassTable]:
    """A table an attack, in the run's order; none for an attack of which no cell was scored class by class."""
    names = class_names(record, group.dataset)
    anchors = [_row(group, "", anchor) for anchor in group.anchors]
    anchors = [row for row in anchors if row.scores]
    found: list[tuple[str, list[_Row]]] = []
    for attack in group.attacks:
        rows = [_row(group, label, attack) for label in group.defenses if (label, attack) in group.places]
        if any(row.scores for row in rows):
            found.append((attack, rows))
    folded = sum(len(rows) + len(anchors) for _, rows in found) > OPEN_ROWS
    return [_class_table(group, attack, rows, anchors, names, folded) for attack, rows in found]


def _class_table(
    group: Group, attack: str, rows: list[_Row], anchors: list[_Row], names: dict[int, str], folded: bool
) -> ClassTable:
    targets = sorted({target for row in rows for target in row.scores})
    shown = targets if len(targets) <= MAX_CLASSES else _worst_of_each(_in_question(rows))
    several = len(group.seeds) > 1
    return ClassTable(
        attack,
        _where_worst(_in_question(rows), names),
        len(targets),
        Table(
            describe(JUDGED),
            tuple(_named(target, names) for target in shown),
            tuple(_grid_row(row, shown, set(row.worst()), several) for row in rows),
            # An anchor calibrates: which class of it the judge names most often is no leak.
            tuple(_grid_row(row, shown, set(), several) for row in anchors),
            ("0", "1"),
        ),
        folded,
    )


def _row(group: Group, defense: str, attack: str) -> _Row:
    place = group.places[defense, attack]
    scores: dict[int, list[tuple[int, ClassScore]]] = {}
    for cell in place.cells:
        # Counts that are no proportion have no share: their class reads as one without a value.
        usable = {score.target: score for score in cell.classes if score.n >= 1 and 0 <= score.hits <= score.n}
        for target, score in usable.items():
            scores.setdefault(target, []).append((cell.seed, score))
    return _Row(defense or f"{attack} images", defense in group.controls, place, scores)


def _in_question(rows: list[_Row]) -> list[_Row]:
    """The rows that the run was about; the controls where nothing else was scored."""
    scored = [row for row in rows if row.scores]
    return [row for row in scored if not row.control] or scored


def _worst_of_each(rows: list[_Row]) -> list[int]:
    """WORST_CLASSES classes in their own order: every row's worst, then every row's second, and so on.

    Not the highest shares overall, which would all be those of the row that leaks most.
    """
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(row.ranked() for row in rows)))
    picked = dict.fromkeys(target for target in turns if target is not None)
    return sorted(list(picked)[:WORST_CLASSES])


def _where_worst(rows: list[_Row], names: dict[int, str]) -> str:
    if not rows:
        return ""
    row = max(rows, key=lambda row: row.share(row.ranked()[0]))
    first = row.ranked()[0]
    equal = sum(row.share(target) == row.share(first) for target in row.scores) - 1
    more = f" and {equal} more" if equal else ""
    return f"{row.label}, class {names.get(first, first)}{more}, {_reading(row, first).short}"


def _named(target: int, names: dict[int, str]) -> str:
    return names.get(target, f"class {target}")


def _grid_row(row: _Row, targets: list[int], worst: set[int], several: bool) -> GridRow:
    return GridRow(row.label, row.control, tuple(_cell(row, target, target in worst, several) for target in targets))


def _cell(row: _Row, target: int, worst: bool, several: bool) -> GridCell:
    if target not in row.scores:
        return GridCell((), None, "", missing=why_missing(row.place))
    reading = _reading(row, target)
    one = len(reading.values) == 1
    return GridCell(
        (_only(reading, several) if one else _summed_up(reading),),
        level_of(reading, _SCALE),
        repr(reading.mean),
        worst=worst,
        full="" if one else _each(reading),
    )


def _reading(row: _Row, target: int) -> Reading:
    return Reading(JUDGED, tuple((seed, _value(score)) for seed, score in row.scores[target]))


def _value(score: ClassScore) -> Value:
    share = proportion(score.hits, score.n)
    return Value(metric=JUDGED, value=share.value, low=share.low, high=share.high, n=share.n)


def _only(reading: Reading, several: bool) -> Line:
    ((seed, value),) = reading.values
    metric = describe(JUDGED)
    return Line(f"seed {seed}" if several else "", number(metric, value), bounds(metric, value), f"n={value.n:,}")


def _summed_up(reading: Reading) -> Line:
    """Mean and extremes of several seeds: every seed is another network, so their images are not added up."""
    values = sorted((value for _, value in reading.values), key=lambda value: value.value)
    low, high = (number(describe(JUDGED), value) for value in (values[0], values[-1]))
    sizes = sorted({value.n for value in values})
    counted = "–".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    return Line("", mean_text(JUDGED, values), f"{low}–{high}", f"n={len(values)}×{counted}")


def _each(reading: Reading) -> str:
    return "; ".join(f"seed {seed}: {in_full(describe(JUDGED), value)}" for seed, value in reading.values)
