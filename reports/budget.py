"""The leak over the attacker's cost: a figure for each access."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from leakbench.contracts.snapshots import LADDER
from leakbench.leakage.inversion.budget import HALF
from leakbench.records import BudgetLeak
from leakbench.reports.drawing import (
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
from leakbench.reports.threats import cost_text

_HEIGHT = 2.4
"""inches"""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Panel:
    """The figure of one access."""

    access: str
    figure: Markup


@dataclass(frozen=True)
class Budget:
    """The figures of one data set and model."""

    group: Group
    panels: list[Panel]


def section(report: Report) -> dict[str, Any] | None:
    views = [
        Budget(group, panels(group))
        for group in report.groups
        if any(threat.points for verdict in group.verdicts.values() for threat in verdict.threats)
    ]
    return {"views": views} if views else None


Curves = Mapping[str, list[BudgetLeak]]
"""label of a defence -> its leak over cost"""


def panels(group: Group) -> list[Panel]:
    """A figure for each access with which anything was attacked, the most access first."""
    return [
        # made by us: matplotlib escapes what is in it
        Panel(access, Markup(_figure(group, access, curves)))
        for access, curves in curves_by_access(group).items()
    ]


def curves_by_access(group: Group) -> dict[str, Curves]:
    """What each access got at what cost ("weights", "scores", "labels"), the most access first; only those with which
    anything was attacked."""
    curves: dict[str, dict[str, list[BudgetLeak]]] = {}
    for label, verdict in group.verdicts.items():
        for threat in verdict.threats:
            if threat.points:
                curves.setdefault(threat.access, {})[label] = threat.points
    return {access.lower(): curves[access] for access in ("WEIGHTS", "SCORES", "LABELS") if access in curves}


def plot(curves: Curves) -> Figure:
    """The figure of one access, as the page has it."""
    return figure(lambda axes: _draw(axes, curves), _HEIGHT, len(curves))


def _figure(group: Group, access: str, curves: Curves) -> str:
    svg = drawn(lambda axes: _draw(axes, curves), _HEIGHT, len(curves))
    title = f"Leakage index over the attacker's cost, attackers with {access}"
    return inline(svg, f"budget-{group.number}-{access}", title, _spoken(group, curves))


def _draw(axes: Axes, curves: Curves) -> None:
    last = max(points[-1].cost for points in curves.values())
    end = max(float(LADDER[-1]), last)
    axes.set_xscale("log")
    axes.set_xlim(0.85, end * 1.15)
    axes.set_ylim(-0.03, 1.03)
    axes.xaxis.set_minor_locator(NullLocator())
    decades = [cost for cost in (10**power for power in range(10)) if cost <= end]
    axes.set_xticks(decades, [cost_text(cost) for cost in decades])
    axes.set_xlabel("gradient steps and queries an image")
    axes.set_ylabel("leakage index")
    draw_index_ends(axes)
    axes.axhline(HALF, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    labels = []
    for turn, (label, points) in enumerate(curves.items()):
        colour, mark = line_look(turn)
        across, up = [max(1.0, point.cost) for point in points], [point.value for point in points]
        # before the first cost an attacker has nothing, between two that were measured what the lower one gave
        axes.step([1.0, *across], [0.0, *up], where="post", color=colour, linewidth=1.5, zorder=2.5)
        low = [point.low for point in points if point.low is not None]
        high = [point.high for point in points if point.high is not None]
        if len(low) == len(high) == len(points):
            axes.fill_between(across, low, high, step="post", color=colour, alpha=0.1, linewidth=0, zorder=1.2)
        rises = [at for at, (before, now) in enumerate(pairwise([0.0, *up])) if now - before > _ROUNDING]
        marks = [across[at] for at in rises], [up[at] for at in rises]
        axes.plot(*marks, color=colour, linestyle="", marker=mark, markersize=5, markeredgecolor=PAPER, zorder=3)
        labels.append(Label(short(label), (across[-1], up[-1]), colour, mark))
    put_labels(axes, labels)


def _spoken(group: Group, curves: Curves) -> str:
    """The figure in words."""
    lines = []
    for label, points in curves.items():
        each = (f"{point.value:.2f} at {cost_text(point.cost)}" for point in points)
        lines.append(f"{clean(label)}: {', '.join(each)}")
    return f"{clean(group.title)}. {'; '.join(lines)}."
