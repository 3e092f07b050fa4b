"""The grid as tables: defences by attacks, the leakage index and every metric; and the rows of the defences alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from leakbench.bench.comparison.records import ComparedAttack
from leakbench.leakage.inversion.class_evidence import OPEN_SET
from leakbench.leakage.inversion.index import NULLS
from leakbench.metrics.energy import ENERGY_RATIOS
from leakbench.metrics.metric import INDEX, Declaration
from leakbench.records import AttackRow, CellRecord, Index, Status, Validity
from leakbench.reports.report import Report
from leakbench.reports.summary import BOUNDS, JUDGED, KES, NOISE, REAL, Experiment, Group
from leakbench.reports.vocabulary import (
    STATUSES,
    bounds,
    extremes,
    in_full,
    number,
    shows_n,
    value_of,
)

LEVELS = 10
"""steps of the colour scale; templates/report.css holds as many colours"""
FRESH = "{} images, fresh draw"
NO_SCALE = "no scale"
GAPS: dict[Status, str] = {**STATUSES, "not-applicable": "n/a"}
"""a cell's status -> what stands where it has no value"""
_WORDS: dict[Validity, str] = {
    "valid": "",
    "invalid": "invalid",
    "optimisation failure": "not optimised",
    "gradient masking suspected": "masking suspected",
    "decoys suspected": "decoys suspected",
}


@dataclass(frozen=True)
class Line:
    """One seed's value in a cell, in the pieces that a page sets apart; seed is empty where a run has one."""

    seed: str
    value: str
    bounds: str
    n: str


@dataclass(frozen=True)
class GridCell:
    """One cell of a table: lines, or why there are none."""

    lines: tuple[Line, ...]
    level: int | None
    """step of the colour scale, 0 (nothing leaks) .. LEVELS - 1; None: no colour"""
    sort: str
    """the mean as a number for sorting; empty sorts last"""
    worst: bool = False
    """whether no other attack in the row tells more"""
    missing: str = ""
    """"failed", "n/a", "no signal", "no scale" (the page's flags say why) or "–" where there is no value"""
    full: str = ""
    """what the lines sum up or leave out; empty where they say it all"""
    invalid: str = ""
    """why the value says nothing, in a word or two; empty where it does"""

    @property
    def text(self) -> str:
        """The cell in one piece, for tables without markup."""
        lines = (
            " ".join(part for part in (line.seed and f"{line.seed}:", line.value, line.bounds, line.n) if part)
            for line in self.lines
        )
        return ("; ".join(lines) or self.missing) + (f" ({self.invalid})" if self.invalid else "")


@dataclass(frozen=True)
class GridRow:
    """A row's heading, whether it is a control, and its cells."""

    label: str
    control: bool
    cells: tuple[GridCell, ...]
    invalid: str = ""
    """as in a cell, where it holds for the whole row"""


@dataclass(frozen=True)
class Table:
    """A table with rows that can be sorted, and anchors below that stay where they are."""

    metric: Declaration | None
    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]
    anchors: tuple[GridRow, ...]
    scale: tuple[str, str] | None
    """what the two ends of the colour scale stand for; None: no colours"""
    corner: str = "Defence"
    """heading of the first column"""

    @property
    def first_look(self) -> bool:
        """Whether the page shows it unfolded: what the verdict rests on, KES, the paper's own metric."""
        return self.metric is not None and (self.metric.name in (OPEN_SET, JUDGED, KES) or self.metric.needs_same_n)


@dataclass(frozen=True)
class Tables:
    """The tables of one data set and model."""

    group: Group
    index: Table | None
    indices: list[Table]
    """of the other metrics"""
    leaks: list[Table]
    others: list[Table]


def section(report: Report) -> dict[str, Any]:
    return {"views": [_tables(group) for group in report.groups]}


def _tables(group: Group) -> Tables:
    others = (index_table(group, name) for name in group.indexed() if name != group.headline)
    return Tables(
        group,
        index_table(group, group.headline),
        [table for table in others if table],
        leak_tables(group),
        other_tables(group),
    )


def index_table(group: Group, metric: str) -> Table | None:
    """The leakage index of every attack on every defence, over all seeds; None where no row has one."""
    rows = tuple(
        GridRow(
            defense,
            defense in group.controls,
            outlined(
                [
                    index_cell(group.rows.get((defense, attack)), metric, group.experiments.get((defense, attack)))
                    for attack in group.attacks
                ]
            ),
        )
        for defense in group.defenses
        if any(label == defense for label, _ in group.rows)
    )
    if not any(cell.lines for row in rows for cell in row.cells):
        return None
    scale = group.scales.get(metric)
    fresh = {NOISE: scale.fresh_noise, REAL: scale.fresh_real} if scale else {}
    anchors = tuple(
        GridRow(FRESH.format(anchor), False, (cell_of(index),)) for anchor, index in fresh.items() if value_of(index)
    )
    return Table(group.vocabulary.describe(f"{INDEX}{metric}"), group.attacks, rows, anchors, ("0", "1"), group.corner)


def index_cell(row: AttackRow | None, metric: str, experiment: Experiment | None = None) -> GridCell:
    """The index of one attack on one defence, or why there is none; where the row is not valid, in which word."""
    if row is None:
        return gap(experiment)
    index = next((candidate for candidate in row.indices if candidate.metric == metric), None)
    if value_of(index) is None and experiment and experiment.bad:
        return GridCell((), None, "", missing=why_missing(experiment), full=row.reason)
    cell = cell_of(index)
    left_out = [f"without seed {bad.seed}, {told(bad)}" for bad in experiment.bad] if experiment else []
    return replace(cell, invalid=invalid(row), full="; ".join(part for part in (cell.full, *left_out) if part))


def cell_of(index: Index | None) -> GridCell:
    """An index as a cell; its reason where it has no value."""
    value = value_of(index)
    if index is None or value is None:
        return GridCell((), None, "", missing=NO_SCALE if index else "–", full=index.reason if index else "")
    line = Line("", number("share", value), bounds("share", value), f"n={value.n:,}" if value.n else "")
    against = f"0 is {NULLS.get(index.null, index.null)}" if index.null else ""
    return GridCell((line,), level_of(value.value, (0.0, 1.0)), repr(value.value), full=against)


def invalid(row: AttackRow | ComparedAttack | None) -> str:
    """Why a row's values say nothing of its defence, in a word or two; empty where they do."""
    return _WORDS[row.validity] if row and row.validity else ""


def leak_tables(group: Group) -> list[Table]:
    """The tables of every metric that measures leakage, coloured by how much leaks."""
    names = [name for name in group.attack_metrics() if group.vocabulary.describe(name).leaks]
    return [_table(group, name, _scale(group, name)) for name in names]


def other_tables(group: Group) -> list[Table]:
    """The tables of every other metric that an attack's cell carries, known here or not."""
    return [_table(group, name, None) for name in group.attack_metrics() if not group.vocabulary.describe(name).leaks]


def defense_table(group: Group) -> Table | None:
    """What the defences alone measured: a column a metric; None where there is nothing."""
    alone = group.with_attack("")
    if not any(experiment.metrics for experiment in alone):
        return None
    first = ("accuracy", "ann_accuracy", "reconverted_accuracy", "timesteps", *ENERGY_RATIOS)
    metrics = list(dict.fromkeys(name for experiment in alone for name in experiment.metrics))
    names = [name for name in first if name in metrics] + [name for name in metrics if name not in first]
    several = len(group.seeds) > 1
    rows = tuple(
        GridRow(
            experiment.defense,
            experiment.defense in group.controls,
            tuple(_cell(experiment, n, None, several) for n in names),
        )
        for experiment in alone
    )
    return Table(None, tuple(group.vocabulary.describe(name).title for name in names), rows, (), None, group.corner)


def mean_cell(experiment: Experiment | None, name: str) -> GridCell:
    """The mean over seeds with its interval, of bounds the lowest and the highest; what every seed has, and why others
    have nothing, is in full."""
    reading, value = (experiment.reading(name), experiment.overall(name)) if experiment else (None, None)
    if experiment is None or reading is None or value is None:
        return gap(experiment)
    unit, several = experiment.vocabulary.unit(name), len(reading.values) > 1
    # as many decimals as a seed's own value has: its n, and not the number of seeds, says how many are worth showing
    written = value.model_copy(update={"n": max(seed_value.n for _, seed_value in reading.values)})
    counted = f"n={value.n:,}{' seeds' if several and value.n == len(reading.values) else ''}"
    each = [f"seed {seed}: {in_full(unit, seed_value)}" for seed, seed_value in reading.values] if several else []
    each += [f"seed {bad.seed}, {told(bad)}" for bad in experiment.bad]
    shown = number(unit, written), bounds(unit, written)
    if name in BOUNDS:
        shown = extremes(unit, (seed_value for _, seed_value in reading.values)), ""
    line = Line("", *shown, counted if shows_n(value) else "")
    return GridCell((line,), None, repr(value.value) if math.isfinite(value.value) else "", full="; ".join(each))


def why_missing(experiment: Experiment | None) -> str:
    """What stands in a cell without a value: "failed", "n/a", "no signal" or "–"."""
    bad = experiment.bad if experiment else []
    return GAPS[bad[0].status] if bad else "–"


def gap(experiment: Experiment | None) -> GridCell:
    """A cell without a value, with the reason that the run gave."""
    reasons = dict.fromkeys(bad.reason for bad in experiment.bad if bad.reason) if experiment else ()
    return GridCell((), None, "", missing=why_missing(experiment), full="; ".join(reasons))


def told(cell: CellRecord) -> str:
    """A cell's status with its reason, as in "no signal: zero gradients"."""
    return ": ".join(part for part in (STATUSES[cell.status], cell.reason) if part)


def why_none(experiment: Experiment | None) -> str:
    """Why no seed of an experiment worked, each reason once; empty where one did."""
    if experiment is None or len(experiment.bad) < len(experiment.cells):
        return ""
    return "; ".join(dict.fromkeys(told(bad) for bad in experiment.bad))


def level_of(value: float, scale: tuple[float, float] | None) -> int | None:
    """Step of the colour scale, 0 .. LEVELS - 1, between the values at its two ends; None: no colour."""
    if scale is None or not math.isfinite(value):
        return None
    share = (value - scale[0]) / (scale[1] - scale[0])
    return min(LEVELS - 1, int(min(1.0, max(0.0, share)) * LEVELS))


def _scale(group: Group, name: str) -> tuple[float, float] | None:
    """Values at the pale and at the strong end of the colours: 0 and 1 of judge accuracies, else the anchors."""
    if name in (OPEN_SET, JUDGED):
        return 0.0, 1.0
    noise, real = group.reading("", NOISE, name), group.reading("", REAL, name)
    if noise is None or real is None:
        return None
    leaks = noise.mean > real.mean if group.vocabulary.describe(name).leaks == "less" else real.mean > noise.mean
    return (noise.mean, real.mean) if leaks else None


def _table(group: Group, name: str, scale: tuple[float, float] | None) -> Table:
    metric = group.vocabulary.describe(name)
    several = len(group.seeds) > 1
    rows = []
    for defense in group.defenses:
        experiments = [group.experiments.get((defense, attack)) for attack in group.attacks]
        if any(experiment is not None for experiment in experiments):
            cells = [_cell(experiment, name, scale, several) for experiment in experiments]
            if metric.leaks:
                words = (invalid(group.rows.get((defense, attack))) for attack in group.attacks)
                cells = [replace(cell, invalid=word) for cell, word in zip(cells, words, strict=True)]
            rows.append(GridRow(defense, defense in group.controls, _marked(cells, metric)))
    anchors = tuple(
        GridRow(f"{anchor} images", False, (_cell(experiment, name, scale, several),))
        for anchor in group.anchors
        if (experiment := group.experiments[("", anchor)]).reading(name)
    )
    ends = None
    if scale:
        ends = ("0", "1") if name in (OPEN_SET, JUDGED) else ("as noise images", "as real images")
    return Table(metric, group.attacks, tuple(rows), anchors, ends, group.corner)


def _cell(experiment: Experiment | None, name: str, scale: tuple[float, float] | None, several: bool) -> GridCell:
    reading = experiment.reading(name) if experiment else None
    if experiment is None or reading is None:
        return gap(experiment)
    unit = experiment.vocabulary.unit(name)
    lines = [
        Line(
            f"seed {seed}" if several else "",
            number(unit, value),
            bounds(unit, value),
            f"n={value.n:,}" if shows_n(value) else "",
        )
        for seed, value in reading.values
    ]
    lines += [Line(f"seed {bad.seed}", GAPS[bad.status], "", "") for bad in experiment.bad]
    sort = repr(reading.mean) if math.isfinite(reading.mean) else ""
    full = "; ".join(f"seed {bad.seed}, {told(bad)}" for bad in experiment.bad)
    return GridCell(tuple(lines), level_of(reading.mean, scale), sort, full=full)


def _marked(cells: list[GridCell], metric: Declaration) -> tuple[GridCell, ...]:
    """The row with its worst case marked, where the metric has one."""
    return outlined(cells, min if metric.leaks == "less" else max) if metric.leaks else tuple(cells)


def outlined(cells: list[GridCell], worst_of: Callable[[list[float]], float] = max) -> tuple[GridCell, ...]:
    """The row with its worst case marked, where more than one attack is valid there."""
    valid = [float(cell.sort) for cell in cells if cell.sort and not cell.invalid]
    if len(valid) < 2:
        return tuple(cells)
    worst = worst_of(valid)
    return tuple(
        replace(cell, worst=bool(cell.sort) and not cell.invalid and float(cell.sort) == worst) for cell in cells
    )
