"""The two kinds of figure: accuracy, leakage and energy of every defence, and the lines of a sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from leakbench.records import Value
from leakbench.reports.curves import Curve, tick
from leakbench.reports.drawing import (
    CONTROL,
    DEFENSE,
    LINES,
    MUTED,
    PAPER,
    Label,
    clean,
    drawn,
    inline,
    put_labels,
    short,
)
from leakbench.reports.summary import Group, Reading
from leakbench.reports.vocabulary import interval, plain, value_of

# A line is told by its mark as well as by its colour; from the seventh on, by how it is drawn.
_MARKS = ("o", "s", "^", "D", "v", "P")
_STYLES: Any = ("-", (0, (6, 2)), (0, (3, 1.5, 1, 1.5)), (0, (1, 1.5)))
_LEVEL_STYLES: Any = ((0, (4, 3)), (0, (1, 2)))


@dataclass(frozen=True)
class Point:
    """One defence in the picture: accuracy (mean over seeds), leakage index, and what its label says."""

    label: str
    control: bool
    accuracy: float
    index: Value
    energy: Reading | None


def trade_off(group: Group) -> str:
    """SVG: accuracy across, worst-case leakage index up with its interval, energy ratio as size and label.

    Empty where no defence has both an accuracy and an index.
    """
    points = _points(group)
    if not points:
        return ""
    svg = drawn(lambda axes: _draw(axes, points), 4.0, len(points))
    return inline(svg, f"tradeoff-{group.number}", "Accuracy, leakage and energy", _spoken(group, points))


def sweep(group: Group, curve: Curve) -> str:
    """SVG: what is across, with a tick at every value measured; each line's points with their intervals, its name and
    mark at the right; what lies level as a broken line without marks."""
    svg = drawn(lambda axes: _draw_sweep(axes, curve), 3.2, len(curve.series) + len(curve.levels))
    return inline(svg, curve.id, clean(curve.title), _spoken_sweep(group, curve))


def _points(group: Group) -> list[Point]:
    points = []
    for label in group.defenses:
        if group.plugin(label) == "random":
            continue  # its accuracy is chance: it would only squeeze the others into a corner
        accuracy, index = group.reading(label, "", "accuracy"), value_of(group.worst(label))
        if accuracy and index and math.isfinite(accuracy.mean):
            energy = group.reading(label, "", "energy_ratio_int32")
            points.append(Point(label, label in group.controls, accuracy.mean, index, energy))
    return points


def _draw(axes: Axes, points: list[Point]) -> None:
    axes.set_ylim(-0.03, 1.03)
    across = [point.accuracy for point in points]
    room = max(0.05, 0.12 * (max(across) - min(across)))
    axes.set_xlim(max(-0.01, min(across) - room), min(1.01, max(across) + room))
    limits = axes.get_xlim()
    axes.set_xticks([at for at in axes.get_xticks() if limits[0] <= at <= min(1.0, limits[1])])
    axes.set_xlabel("accuracy on test images")
    axes.set_ylabel("leakage index, worst attack")
    _index_ends(axes)
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
            facecolor=PAPER if point.control else colour,
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


def _index_ends(axes: Axes) -> None:
    """The two ends of the leakage index."""
    for height, name in ((0.0, "noise images"), (1.0, "real images")):
        axes.axhline(height, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
        axes.annotate(
            name,
            (0, height),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3 if height < 0.5 else -10),
            textcoords="offset points",
            color=MUTED,
            fontsize=8,
        )


def _area(energy: Reading | None) -> float:
    """Marker area in square points: grows with the logarithm of the energy ratio."""
    ratio = energy.mean if energy and math.isfinite(energy.mean) and energy.mean > 0 else 1.0
    return 24.0 + 16.0 * min(7.0, max(0.0, math.log2(ratio)))


def _draw_sweep(axes: Axes, curve: Curve) -> None:
    _frame(axes, curve)
    labels = []
    for number, series in enumerate(curve.series):
        turn, place = divmod(number, len(LINES))
        colour, mark = LINES[place], _MARKS[(place + turn) % len(_MARKS)]
        across = [point.at for point in series.points]
        up = [point.value.value for point in series.points]
        style = _STYLES[turn % len(_STYLES)]
        axes.plot(across, up, color=colour, linestyle=style, linewidth=1.5, zorder=2.5)
        # a rim in the page's colour: marks that lie on each other stay apart
        axes.plot(across, up, color=colour, linestyle="", marker=mark, markersize=6, markeredgecolor=PAPER, zorder=3)
        for point in series.points:
            if ends := interval(point.value):
                axes.plot([point.at] * 2, ends, color=colour, linewidth=1.1, alpha=0.7, zorder=2)
        labels.append(Label(short(series.label), (across[-1], up[-1]), colour, mark))
    for number, level in enumerate(curve.levels):
        style = _LEVEL_STYLES[number % len(_LEVEL_STYLES)]
        axes.axhline(level.value.value, color=MUTED, linewidth=1.2, linestyle=style, zorder=1.5)
        labels.append(Label(short(level.label), (axes.get_xlim()[1], level.value.value), MUTED, dashes=style))
    put_labels(axes, labels)


def _frame(axes: Axes, curve: Curve) -> None:
    """Limits, ticks and titles of both axes."""
    points = [point for series in curve.series for point in series.points]
    across = sorted({point.at for point in points})
    if curve.log:
        axes.set_xscale("log")
        room = (across[-1] / across[0]) ** 0.04
        axes.set_xlim(across[0] / room, across[-1] * room)
    else:
        room = 0.04 * (across[-1] - across[0])
        axes.set_xlim(across[0] - room, across[-1] + room)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(across, _ticks(axes, across))
    axes.set_xlabel(short(curve.across), parse_math=False)
    if curve.metric.name != "accuracy":
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("leakage index, worst attack")
        _index_ends(axes)
        return
    values = [point.value for point in points] + [level.value for level in curve.levels]
    ends = [end for value in values for end in (value.value, *(interval(value) or ()))]
    room = max(0.01, 0.06 * (max(ends) - min(ends)))
    axes.set_ylim(max(-0.01, min(ends) - room), min(1.01, max(ends) + room))
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))  # no quarters: few digits, so that they fit
    axes.set_ylabel("accuracy on test images")


def _ticks(axes: Axes, across: list[float]) -> list[str]:
    """A number at every tick that has room for one."""
    texts, taken = [], -1.0
    for at in across:
        x, _ = axes.transAxes.inverted().transform(axes.transData.transform((at, axes.get_ylim()[0])))
        half = 0.0095 * len(tick(at)) + 0.005  # of the axes' width
        texts.append(tick(at) if x - half > taken else "")
        taken = x + half if texts[-1] else taken
    return texts


def _spoken_sweep(group: Group, curve: Curve) -> str:
    """The figure in words: every point; the intervals are in the table below it."""
    lines = []
    for series in curve.series:
        points = (f"{point.value.value:.3f} at {tick(point.at)}" for point in series.points)
        lines.append(f"{clean(series.label)}: {', '.join(points)}")
    lines += [f"{clean(level.label)}, the same everywhere: {level.value.value:.3f}" for level in curve.levels]
    return f"{clean(group.title)}, over {clean(curve.across)}. {'; '.join(lines)}."


def _label(point: Point) -> str:
    name = short(point.label)
    return f"{name} · {_energy(point)}" if point.energy else name


def _energy(point: Point) -> str:
    return plain(point.energy.metric, point.energy.mean) if point.energy else ""


def _spoken(group: Group, points: list[Point]) -> str:
    """The figure in words."""
    parts = []
    for point in points:
        energy = f", energy ratio {_energy(point)}" if point.energy else ""
        what = f"accuracy {point.accuracy:.3f}, leakage index of the worst attack {point.index.value:.2f}"
        parts.append(f"{clean(point.label)}: {what}{energy}")
    return f"{clean(group.title)}. {'; '.join(parts)}."
