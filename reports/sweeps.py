"""The figures of the sweeps: lines over T or over a parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from leakbench.leakage.membership.kind import Membership
from leakbench.reports.curves import Curve, tick
from leakbench.reports.drawing import (
    LINES,
    MUTED,
    PAPER,
    Label,
    clean,
    draw_index_ends,
    drawn,
    figure,
    inline,
    line_look,
    put_labels,
    short,
)
from leakbench.reports.report import Report
from leakbench.reports.summary import Group
from leakbench.reports.vocabulary import interval

# from the seventh line on, lines are told by how they are drawn, too
_STYLES: Any = ("-", (0, (6, 2)), (0, (3, 1.5, 1, 1.5)), (0, (1, 1.5)))
_HEIGHT = 3.2
_LEVEL_STYLES: Any = ((0, (4, 3)), (0, (1, 2)))


@dataclass(frozen=True)
class Sweep:
    """A curve and its picture."""

    curve: Curve
    figure: Markup


@dataclass(frozen=True)
class Sweeps:
    """Those of one data set and model."""

    group: Group
    sweeps: list[Sweep]


def section(report: Report) -> dict[str, Any] | None:
    views = [
        # made by us: matplotlib escapes what is in it
        Sweeps(group, [Sweep(curve, Markup(sweep(group, curve))) for curve in report.curves[group.number]])
        for group in report.groups
        if report.curves[group.number]
    ]
    curves = [sweep.curve for view in views for sweep in view.sweeps]
    on_members = any(curve.metric.leakage == Membership.name for curve in curves)
    on_claims, on_worst = any(curve.claimed for curve in curves), any(curve.worst for curve in curves)
    facts = {"views": views, "on_members": on_members, "on_claims": on_claims, "on_worst": on_worst}
    return facts if views else None


def sweep(group: Group, curve: Curve) -> str:
    """SVG: what is across, with a tick at every value measured; each line's points with their intervals, its name and
    mark at the right; what lies level as a broken line without marks."""
    svg = drawn(lambda axes: _draw_sweep(axes, curve), _HEIGHT, len(curve.series) + len(curve.levels))
    return inline(svg, curve.id, clean(curve.title), _spoken_sweep(group, curve))


def sweep_figure(curve: Curve) -> Figure:
    """The same as a Figure in the page's light colours."""
    return figure(lambda axes: _draw_sweep(axes, curve), _HEIGHT, len(curve.series) + len(curve.levels))


def _draw_sweep(axes: Axes, curve: Curve) -> None:
    _frame(axes, curve)
    labels = []
    for number, series in enumerate(curve.series):
        colour, mark = line_look(number)
        across = [point.x for point in series.points]
        up = [point.value.value for point in series.points]
        style = _STYLES[number // len(LINES) % len(_STYLES)]
        axes.plot(across, up, color=colour, linestyle=style, linewidth=1.5, zorder=2.5)
        # a rim in the page's colour: marks that lie on each other stay apart
        axes.plot(across, up, color=colour, linestyle="", marker=mark, markersize=6, markeredgecolor=PAPER, zorder=3)
        for point in series.points:
            if ends := interval(point.value):
                axes.plot([point.x] * 2, ends, color=colour, linewidth=1.1, alpha=0.7, zorder=2)
        labels.append(Label(short(series.label), (across[-1], up[-1]), colour, mark))
    for number, level in enumerate(curve.levels):
        style = _LEVEL_STYLES[number % len(_LEVEL_STYLES)]
        axes.axhline(level.value.value, color=MUTED, linewidth=1.2, linestyle=style, zorder=1.5)
        labels.append(Label(short(level.label), (axes.get_xlim()[1], level.value.value), MUTED, dashes=style))
    if curve.claimed:
        claims = sorted({point.x for series in curve.series for point in series.points})
        axes.plot(claims, claims, color=MUTED, linewidth=1.2, linestyle=_LEVEL_STYLES[0], zorder=1.5)
        labels.append(Label("claimed", (claims[-1], claims[-1]), MUTED, dashes=_LEVEL_STYLES[0]))
    put_labels(axes, labels)


def _frame(axes: Axes, curve: Curve) -> None:
    """Limits, ticks and titles of both axes."""
    points = [point for series in curve.series for point in series.points]
    across = sorted({point.x for point in points})
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
    axes.set_ylabel(curve.up)
    if curve.index:
        axes.set_ylim(-0.03, 1.03)
        draw_index_ends(axes)
        return
    values = [point.value for point in points] + [level.value for level in curve.levels]
    ends = [end for value in values for end in (value.value, *(interval(value) or ()))]
    ends += across if curve.claimed else []
    room = max(0.01, 0.06 * (max(ends) - min(ends)))
    most = 1.01 if curve.metric.unit == "share" else math.inf
    axes.set_ylim(max(-0.01, min(ends) - room), min(most, max(ends) + room))
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))  # no quarters: few digits, so that they fit


def _ticks(axes: Axes, across: list[float]) -> list[str]:
    """A number at every tick that has room for one."""
    texts, taken = [], -1.0
    for position in across:
        x, _ = axes.transAxes.inverted().transform(axes.transData.transform((position, axes.get_ylim()[0])))
        half = 0.0095 * len(tick(position)) + 0.005  # of the axes' width
        texts.append(tick(position) if x - half > taken else "")
        taken = x + half if texts[-1] else taken
    return texts


def _spoken_sweep(group: Group, curve: Curve) -> str:
    """The figure in words: every point; the intervals are in the table below it."""
    lines = []
    for series in curve.series:
        points = (f"{point.value.value:.3f} at {tick(point.x)}" for point in series.points)
        lines.append(f"{clean(series.label)}: {', '.join(points)}")
    lines += [f"{clean(level.label)}, the same everywhere: {level.value.value:.3f}" for level in curve.levels]
    lines += ["the dashed line is the claim, its own value everywhere"] if curve.claimed else []
    return f"{clean(group.title)}, over {clean(curve.across)}. {'; '.join(lines)}."
