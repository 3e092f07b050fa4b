"""The grid as tables: defences by attacks, one table a metric; and the rows of the defences alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from leakbench.reports.headline import succeeds
from leakbench.reports.summary import JUDGED, NOISE, REAL, Group, Place, Reading
from leakbench.reports.vocabulary import Metric, bounds, describe, is_distance, number, shows_n

LEVELS = 10
"""steps of the colour scale; templates/report.css holds as many colours"""


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
    """"failed", "n/a" (the page's flags say why) or "–" where there is no value"""
    full: str = ""
    """what the lines sum up; empty where they say it all"""

    @property
    def text(self) -> str:
        """The cell in one piece, for tables without markup."""
        lines = (
            " ".join(part for part in (line.seed and f"{line.seed}:", line.value, line.bounds, line.n) if part)
            for line in self.lines
        )
        return "; ".join(lines) or self.missing


@dataclass(frozen=True)
class GridRow:
    """A row's heading, whether it is a control, and its cells."""

    label: str
    control: bool
    cells: tuple[GridCell, ...]


@dataclass(frozen=True)
class Table:
    """A table with rows that can be sorted, and anchors below that stay where they are."""

    metric: Metric | None
    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]
    anchors: tuple[GridRow, ...]
    scale: tuple[str, str] | None
    """what the two ends of the colour scale stand for; None: no colours"""


@dataclass(frozen=True)
class ControlRow:
    """How an attack did where the outcome is known beforehand."""

    attack: str
    ann: str
    random: str
    noise: str
    real: str
    reading: str
    valid: bool | None


def leak_tables(group: Group) -> list[Table]:
    """The tables of judge accuracy and of every distance, coloured by how much leaks."""
    return [_leak_table(group, name) for name in group.attack_metrics() if name == JUDGED or is_distance(name)]


def other_tables(group: Group) -> list[Table]:
    """The tables of every other metric that an attack's cell carries, known here or not."""
    names = [name for name in group.attack_metrics() if not (name == JUDGED or is_distance(name))]
    return [_table(group, name, group.attacks, None) for name in names]


def defense_table(group: Group) -> Table | None:
    """What the defences alone measured: a column a metric; None where there is nothing."""
    alone = [group.places[label, ""] for label in group.defenses if (label, "") in group.places]
    if not any(place.metrics for place in alone):
        return None
    first = ("accuracy", "ann_accuracy", "timesteps", "energy_ratio_int32", "energy_ratio_fp32")
    found = list(dict.fromkeys(name for place in alone for name in place.metrics))
    names = [name for name in first if name in found] + [name for name in found if name not in first]
    several = len(group.seeds) > 1
    rows = tuple(
        GridRow(
            place.defense,
            place.defense in group.controls,
            tuple(_cell(place, n, None, several) for n in names),
        )
        for place in alone
    )
    return Table(None, tuple(describe(name).title for name in names), rows, (), None)


def control_rows(group: Group) -> list[ControlRow]:
    """One row an attack: on the unprotected ANN, where it should succeed, and on an untrained network, where
    it should not."""
    ann, random = group.named("ann"), group.named("random")

    def text(defense: str | None, attack: str) -> str:
        reading = group.reading(defense, attack, JUDGED) if defense is not None else None
        return reading.short if reading else "–"

    rows = []
    for attack in group.attacks:
        works = succeeds(group, ann, attack) if ann else None
        draws = succeeds(group, random, attack) if random else None
        rows.append(
            ControlRow(
                attack,
                text(ann, attack),
                text(random, attack),
                text("", NOISE),
                text("", REAL),
                _bad_text(group, ann, attack) or _control_text(works, draws),
                None if works is None else bool(works and not draws),
            )
        )
    return rows


def why_missing(place: Place | None) -> str:
    """What stands in a cell without a value: "failed", "n/a" or "–"."""
    bad = place.bad if place else []
    return {"failed": "failed", "not-applicable": "n/a"}[bad[0].status] if bad else "–"


def level_of(reading: Reading, scale: tuple[float, float] | None) -> int | None:
    """Step of the colour scale, 0 .. LEVELS - 1, between the values at its two ends; None: no colour."""
    if scale is None or not math.isfinite(reading.mean):
        return None
    share = (reading.mean - scale[0]) / (scale[1] - scale[0])
    return min(LEVELS - 1, max(0, int(share * LEVELS)))


def _bad_text(group: Group, ann: str | None, attack: str) -> str:
    place = group.places.get((ann, attack)) if ann else None
    if place is None or place.reading(JUDGED) or not place.bad:
        return ""
    status = {"failed": "failed", "not-applicable": "not applicable"}[place.bad[0].status]
    return f"{status} on the ANN: can't be told"


def _control_text(works: bool | None, draws: bool | None) -> str:
    if works is None:
        return "can't be told: the ANN control, the noise anchor or an interval is missing"
    if not works:
        return "not clearly better than noise on the ANN: says nothing about a defence"
    if draws:
        return "clearly better than noise on an untrained network too: only the excess is a leak"
    if draws is None:
        return "works on the ANN; no untrained network to compare with"
    return "works on the ANN, not on an untrained network"


def _leak_table(group: Group, name: str) -> Table:
    return _table(group, name, group.attacks, _scale(group, name))


def _scale(group: Group, name: str) -> tuple[float, float] | None:
    """Values at the pale and at the strong end of the colours: 0 and 1, or the anchors of a distance."""
    if name == JUDGED:
        return 0.0, 1.0
    noise, real = group.reading("", NOISE, name), group.reading("", REAL, name)
    if noise is None or real is None or not noise.mean > real.mean:
        return None
    return noise.mean, real.mean


def _table(group: Group, name: str, attacks: tuple[str, ...], scale: tuple[float, float] | None) -> Table:
    several = len(group.seeds) > 1
    rows = []
    for defense in group.defenses:
        places = [group.places.get((defense, attack)) for attack in attacks]
        if any(place is not None for place in places):
            cells = _marked([_cell(place, name, scale, several) for place in places], name)
            rows.append(GridRow(defense, defense in group.controls, cells))
    anchors = tuple(
        GridRow(f"{anchor} images", False, (_cell(place, name, scale, several),))
        for anchor in group.anchors
        if (place := group.places[("", anchor)]).reading(name)
    )
    ends = None
    if scale:
        ends = ("0", "1") if name == JUDGED else ("as far as noise", "as near as real images")
    return Table(describe(name), attacks, tuple(rows), anchors, ends)


def _cell(place: Place | None, name: str, scale: tuple[float, float] | None, several: bool) -> GridCell:
    reading = place.reading(name) if place else None
    if place is None or reading is None:
        return GridCell((), None, "", missing=why_missing(place))
    metric = describe(name)
    lines = tuple(
        Line(
            f"seed {seed}" if several else "",
            number(metric, value),
            bounds(metric, value),
            f"n={value.n:,}" if shows_n(value) else "",
        )
        for seed, value in reading.values
    )
    return GridCell(lines, level_of(reading, scale), repr(reading.mean) if math.isfinite(reading.mean) else "")


def _marked(cells: list[GridCell], name: str) -> tuple[GridCell, ...]:
    """The row with its worst case marked, where the metric has one and there is more than one attack."""
    means = [float(cell.sort) for cell in cells if cell.sort]
    if len(means) < 2 or not (name == JUDGED or is_distance(name)):
        return tuple(cells)
    worst = min(means) if is_distance(name) else max(means)
    return tuple(replace(cell, worst=bool(cell.sort) and float(cell.sort) == worst) for cell in cells)
