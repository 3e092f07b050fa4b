"""What attackers with weights, scores or labels get out of a defence, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from leakbench.contracts.snapshots import LADDER
from leakbench.metrics.class_leaks import NETWORKS
from leakbench.records import AttackRow, ThreatModel, Value, Verdict
from leakbench.reports.conclusion import needed_to_name
from leakbench.reports.vocabulary import bounds, index_text, number

HEADING = ["Attacker has", "Attack", "Classes found", "Leakage index", "Cost to half", "Area"]
"""of a table of :class:`ThreatRow`"""


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


def threat_rows(verdict: Verdict, rows: Mapping[tuple[str, str], AttackRow]) -> tuple[ThreatRow, ...]:
    """Those with the most access first; none where the verdict knows of none. ``rows`` are by defence and attack."""
    return tuple(
        _row(verdict, threat, rows.get((verdict.defense, threat.attack))) for threat in reversed(verdict.threats)
    )


def _row(verdict: Verdict, threat: ThreatModel, row: AttackRow | None) -> ThreatRow:
    access = threat.access.lower()
    if threat.index is None:
        return ThreatRow(access, "–", "–", "no valid attack", "–", "–")
    lacking = needed_to_name(verdict)
    if verdict.networks < NETWORKS:
        found = f"needs {lacking}"
    elif threat.named:
        found = f"{len(threat.named)} of {len(verdict.classes)}"
    elif row is not None and row.validity != "valid":
        found = f"unknown: {row.validity}"
    else:
        found = f"needs {lacking}" if lacking else "none significantly"
    return ThreatRow(
        access,
        threat.attack,
        found,
        index_text(threat.index),
        _half(threat.cost_to_half),
        _area(threat.area) if threat.area else "–",
    )


def _half(cost: Value | None) -> str:
    if cost is None:
        return "not reached"
    if cost.low is None:
        return cost_text(cost.value)
    return f"{cost_text(cost.value)} [{cost_text(cost.low)}, {'–' if cost.high is None else cost_text(cost.high)}]"


def cost_text(cost: float) -> str:
    """Gradient steps and queries, rounded to whole ones."""
    return number("count", Value(metric="", value=float(round(cost))))


def _area(area: Value) -> str:
    return f"{number('share', area)} {bounds('share', area)}".rstrip()


# --- the curve of a card ----------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 260, 108
"""of a card's curve, in units of its view box"""
_LEFT, _RIGHT, _TOP, _BOTTOM = 18.0, 252.0, 10.0, 84.0
_STUB, _NAME = 8.0, 60.0
"""how far a line goes on at its end, and where the name of the shortest ends"""


@dataclass(frozen=True)
class Line:
    """The index over the cost, for attackers with some access."""

    access: str
    path: str
    """of SVG"""
    x: float
    y: float
    """where its name ends"""


@dataclass(frozen=True)
class Curve:
    """Every access with which anything was attacked."""

    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]
    left: float
    """where the lines begin"""
    levels: tuple[tuple[float, str], ...]
    """heights of 0, a half and 1"""
    spoken: str


def curve(verdict: Verdict) -> Curve | None:
    """Of the verdict's threat models; None where no index is known at any cost."""
    lines: list[Line] = []
    spoken = []
    for threat in reversed(verdict.threats):
        if not threat.points:
            continue
        steps = [(_across(point.cost), _up(point.value or 0.0)) for point in threat.points]
        path = f"M{_LEFT:g} {_BOTTOM:g}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in steps)
        # a stub: beyond what was spent nothing was measured
        end = min(_RIGHT, steps[-1][0] + _STUB)
        lines.append(Line(threat.access.lower(), f"{path}H{end:.1f}", max(end, _NAME), steps[-1][1] - 3))
        last = threat.points[-1]
        spoken.append(f"{threat.access.lower()}: {last.value or 0.0:.2f} at {cost_text(last.cost)}")
    if not lines:
        return None
    ticks = tuple((_across(cost), cost_text(cost)) for cost in (1.0, 100.0, float(LADDER[-1])))
    levels = tuple((_up(level), text) for level, text in ((0.0, "0"), (0.5, ".5"), (1.0, "1")))
    heights = _apart([line.y for line in lines], _BOTTOM - 3)
    placed = tuple(replace(line, y=height) for line, height in zip(lines, heights, strict=True))
    return Curve(placed, ticks, _LEFT, levels, "; ".join(spoken))


def _apart(heights: Sequence[float], lowest: float, gap: float = 10.0) -> list[float]:
    """Heights of names, downwards: the next below, but for those that would end below the lowest, which push up.

    More access is never less of a leak, so the first is the highest.
    """
    apart: list[float] = []
    for height in heights:
        apart.append(max(height, apart[-1] + gap) if apart else height)
    limit = lowest
    for place in reversed(range(len(apart))):
        apart[place] = min(apart[place], limit)
        limit = apart[place] - gap
    return apart


def _across(cost: float) -> float:
    share = math.log10(max(1.0, cost)) / math.log10(LADDER[-1])
    return _LEFT + (_RIGHT - _LEFT) * min(1.0, share)


def _up(index: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * min(1.0, max(0.0, index))
