"""The leak over the attacker's cost: a figure for each access, and what each gets, in a table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from leakbench.contracts.snapshots import LADDER
from leakbench.leakage.inversion.budget import HALF
from leakbench.metrics.class_leaks import NETWORKS
from leakbench.records import BudgetLeak, ThreatModel, Value, Verdict
from leakbench.reports.drawing import (
    LINES,
    MUTED,
    PAPER,
    Label,
    clean,
    draw_index_ends,
    drawn,
    inline,
    put_labels,
    short,
)
from leakbench.reports.report import Report
from leakbench.reports.summary import Group
from leakbench.reports.vocabulary import in_full, index_text, number

HEADING = ["Attacker has", "Attack", "Classes found", "Leakage index", "Cost to half", "Area"]
"""of a table of :class:`ThreatRow`"""
_MARKS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class ThreatRow:
    """What attackers with some access get out of a defence, in words."""

    access: str
    attack: str
    classes: str
    index: str
    half: str
    area: str

    @property
    def cells(self) -> list[str]:
        return [self.access, self.attack, self.classes, self.index, self.half, self.area]


@dataclass(frozen=True)
class Panel:
    """The figure of one access."""

    access: str
    figure: Markup


@dataclass(frozen=True)
class Budget:
    """The figures of one data set and model, and the table of each defence."""

    group: Group
    panels: list[Panel]
    tables: dict[str, tuple[ThreatRow, ...]]


def section(report: Report) -> dict[str, Any] | None:
    views = [
        Budget(group, panels(group), {label: threat_rows(verdict) for label, verdict in group.verdicts.items()})
        for group in report.groups
        if any(threat.points for verdict in group.verdicts.values() for threat in verdict.threats)
    ]
    return {"views": views, "heading": HEADING} if views else None


def threat_rows(verdict: Verdict) -> tuple[ThreatRow, ...]:
    """Those with the most access first; none where the verdict knows of none."""
    return tuple(_row(verdict, threat) for threat in reversed(verdict.threats))


def _row(verdict: Verdict, threat: ThreatModel) -> ThreatRow:
    access = threat.access.lower()
    if threat.index is None:
        return ThreatRow(access, "–", "–", "not attacked", "–", "–")
    found = f"{len(threat.named)} of {len(verdict.classes)}" if threat.named else "none for certain"
    return ThreatRow(
        access,
        threat.attack,
        found if verdict.networks >= NETWORKS else f"needs {NETWORKS} networks",
        index_text(threat.index),
        _half(threat.cost_to_half),
        in_full("share", threat.area).partition(" n=")[0] if threat.area else "–",
    )


def _half(cost: Value | None) -> str:
    if cost is None:
        return "not reached"
    if cost.low is None:
        return _cost(cost.value)
    return f"{_cost(cost.value)} [{_cost(cost.low)}, {'–' if cost.high is None else _cost(cost.high)}]"


def _cost(cost: float) -> str:
    return number("count", Value(metric="", value=float(round(cost))))


def panels(group: Group) -> list[Panel]:
    """A figure for each access with which anything was attacked, the most access first."""
    curves: dict[str, dict[str, list[BudgetLeak]]] = {}
    for label, verdict in group.verdicts.items():
        for threat in verdict.threats:
            if threat.points:
                curves.setdefault(threat.access, {})[label] = threat.points
    return [
        # made by us: matplotlib escapes what is in it
        Panel(access.lower(), Markup(_figure(group, access, curves[access])))
        for access in ("WEIGHTS", "SCORES", "LABELS")
        if access in curves
    ]


def _figure(group: Group, access: str, curves: dict[str, list[BudgetLeak]]) -> str:
    svg = drawn(lambda axes: _draw(axes, curves), 2.4, len(curves))
    title = f"Leakage index over the attacker's cost, attackers with {access.lower()}"
    return inline(svg, f"budget-{group.number}-{access.lower()}", title, _spoken(group, curves))


def _draw(axes: Axes, curves: dict[str, list[BudgetLeak]]) -> None:
    last = max(points[-1].cost for points in curves.values())
    end = max(float(LADDER[-1]), last)
    axes.set_xscale("log")
    axes.set_xlim(0.85, end * 1.15)
    axes.set_ylim(-0.03, 1.03)
    axes.xaxis.set_minor_locator(NullLocator())
    decades = [cost for cost in (10**power for power in range(10)) if cost <= end]
    axes.set_xticks(decades, [_cost(cost) for cost in decades])
    axes.set_xlabel("gradient steps and queries an image")
    axes.set_ylabel("leakage index")
    draw_index_ends(axes)
    axes.axhline(HALF, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    labels = []
    for turn, (label, points) in enumerate(curves.items()):
        colour, mark = LINES[turn % len(LINES)], _MARKS[(turn + turn // len(LINES)) % len(_MARKS)]
        across, up = [max(1.0, point.cost) for point in points], [point.value for point in points]
        # between two costs that were measured, an attacker has what the lower one gave
        axes.step(across, up, where="post", color=colour, linewidth=1.5, zorder=2.5)
        if all(point.low is not None and point.high is not None for point in points):
            limits = [point.low for point in points], [point.high for point in points]
            axes.fill_between(across, *limits, step="post", color=colour, alpha=0.1, linewidth=0, zorder=1.2)
        rises = [at for at, (before, now) in enumerate(pairwise([0.0, *up])) if now != before]
        marks = [across[at] for at in rises], [up[at] for at in rises]
        axes.plot(*marks, color=colour, linestyle="", marker=mark, markersize=5, markeredgecolor=PAPER, zorder=3)
        labels.append(Label(short(label), (across[-1], up[-1]), colour, mark))
    put_labels(axes, labels)


def _spoken(group: Group, curves: dict[str, list[BudgetLeak]]) -> str:
    """The figure in words."""
    lines = []
    for label, points in curves.items():
        each = (f"{point.value:.2f} at {_cost(point.cost)}" for point in points)
        lines.append(f"{clean(label)}: {', '.join(each)}")
    return f"{clean(group.title)}. {'; '.join(lines)}."
