"""Accuracy, leakage and energy of every defence in one figure."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leakbench.bench.comparison import Comparison
from leakbench.leakage.controls import UNTRAINED
from leakbench.records import Value
from leakbench.reports.drawing import (
    CONTROL,
    DEFENSE,
    MUTED,
    PAPER,
    Label,
    clean,
    draw_index_ends,
    drawn,
    figure,
    inline,
    put_labels,
    short,
)
from leakbench.reports.report import Report
from leakbench.reports.summary import Group, Reading
from leakbench.reports.vocabulary import interval, plain, value_of

_HEIGHT = 4.0
"""inches"""


@dataclass(frozen=True)
class TradeOff:
    """The figure of one data set and model; empty where there is none."""

    group: Group
    figure: Markup

    @property
    def without_untrained(self) -> bool:
        """Whether the run has the untrained network, which the figure leaves out."""
        return self.group.named(UNTRAINED) is not None


@dataclass(frozen=True)
class Point:
    """One defence in the picture: accuracy (mean over seeds), leakage index, and what its label says."""

    label: str
    control: bool
    open: bool
    """whether how much it leaks is open: the index is of what was seen, and it has no rank"""
    accuracy: float
    index: Value
    energy: Reading | None


def section(report: Report) -> dict[str, Any]:
    # made by us: matplotlib escapes what is in it
    figures = ((group, Markup(trade_off(group, *standing(group, report.compared)))) for group in report.groups)
    return {"views": [TradeOff(*one) for one in figures]}


def trade_off(group: Group, ranked: Collection[str] = (), front: bool = False) -> str:
    """SVG: accuracy across, worst-case leakage index up with its interval, energy ratio as size and label.

    Empty where no defence has both an accuracy and an index. Those of the ``ranked`` defences of which no other is as
    accurate and leaks less, or as much and is more accurate, are joined by a line where a ``front`` is asked for.
    """
    points = _points(group, ranked)
    if not points:
        return ""
    joined = _front(points) if front else []
    svg = drawn(lambda axes: _draw(axes, points, joined), _HEIGHT, len(points))
    return inline(svg, f"tradeoff-{group.number}", "Accuracy, leakage and energy", _spoken(group, points))


def plot(group: Group, ranked: Collection[str] = (), front: bool = False) -> Figure | None:
    """The same as a Figure; None where there is nothing to draw."""
    points = _points(group, ranked)
    joined = _front(points) if front else []
    return figure(lambda axes: _draw(axes, points, joined), _HEIGHT, len(points)) if points else None


def _points(group: Group, ranked: Collection[str]) -> list[Point]:
    points = []
    for label in group.defenses:
        if group.plugin(label) == UNTRAINED:
            continue  # its accuracy is chance: it would only squeeze the others into a corner
        accuracy, index = group.reading(label, "", "accuracy"), value_of(group.worst(label))
        if accuracy and index and math.isfinite(accuracy.mean):
            energy = group.reading(label, "", "energy_ratio_int32")
            control = label in group.controls
            points.append(Point(label, control, not control and label not in ranked, accuracy.mean, index, energy))
    return points


def standing(group: Group, compared: Comparison) -> tuple[set[str], bool]:
    """The defences of the group that have a rank, and whether two of them differ significantly in leak or accuracy."""
    here = [one for one in compared.defenses if (one.dataset, one.model) == (group.dataset, group.model) and one.rank]
    labels = {one.label for one in here}
    differ = any(
        pair.relation in ("less", "more") and not pair.attack and not pair.marks
        for pair in compared.pairs
        if pair.quantity in ("leakage", "accuracy") and {pair.first, pair.second} <= labels
    )
    return {one.defense for one in here}, differ


def _front(points: list[Point]) -> list[Point]:
    """The defences that no other beats in one of leakage and accuracy and equals in the other; without controls and
    those without a rank."""
    ours = [point for point in points if not point.control and not point.open]
    front = [
        one
        for one in ours
        if not any(
            (other.accuracy >= one.accuracy and other.index.value <= one.index.value)
            and (other.accuracy, other.index.value) != (one.accuracy, one.index.value)
            for other in ours
        )
    ]
    return sorted(front, key=lambda point: point.accuracy)


def _draw(axes: Axes, points: list[Point], front: list[Point]) -> None:
    axes.set_ylim(-0.03, 1.03)
    across = [point.accuracy for point in points]
    room = max(0.05, 0.12 * (max(across) - min(across)))
    axes.set_xlim(max(-0.01, min(across) - room), min(1.01, max(across) + room))
    limits = axes.get_xlim()
    axes.set_xticks([tick for tick in axes.get_xticks() if limits[0] <= tick <= min(1.0, limits[1])])
    axes.set_xlabel("accuracy on test images")
    axes.set_ylabel("leakage index, worst attack")
    draw_index_ends(axes)
    if len(front) > 1:
        corners = [(point.accuracy, point.index.value) for point in front]
        axes.plot(*zip(*corners, strict=True), color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1.5)
    for point in points:
        colour = CONTROL if point.control else DEFENSE
        ends = interval(point.index)
        if ends:
            axes.plot([point.accuracy] * 2, ends, color=colour, linewidth=1.4, zorder=2)
        axes.scatter(
            point.accuracy,
            point.index.value,
            s=_area(point.energy),
            marker="s" if point.control else "o",
            facecolor=PAPER if point.control or point.open else colour,
            edgecolor=colour,
            linewidth=1.4,
            zorder=3,
        )
    put_labels(
        axes,
        [
            Label(_label(point), (point.accuracy, point.index.value), CONTROL if point.control else DEFENSE)
            for point in points
        ],
    )


def _area(energy: Reading | None) -> float:
    """Marker area in square points: grows with the logarithm of the energy ratio."""
    ratio = energy.mean if energy and math.isfinite(energy.mean) and energy.mean > 0 else 1.0
    return 24.0 + 16.0 * min(7.0, max(0.0, math.log2(ratio)))


def _label(point: Point) -> str:
    name = short(point.label)
    return f"{name} · {_energy(point)}" if point.energy else name


def _energy(point: Point) -> str:
    return plain("ratio", point.energy.mean) if point.energy else ""


def _spoken(group: Group, points: list[Point]) -> str:
    """The figure in words."""
    parts = []
    for point in points:
        energy = f", energy ratio {_energy(point)}" if point.energy else ""
        sentence = f"accuracy {point.accuracy:.3f}, leakage index of the worst attack {point.index.value:.2f}"
        parts.append(f"{clean(point.label)}: {sentence}{energy}")
    return f"{clean(group.title)}. {'; '.join(parts)}."
