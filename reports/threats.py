"""What attackers with weights, scores or labels get out of a defence, in words."""

from __future__ import annotations

from dataclasses import dataclass

from leakbench.metrics.class_leaks import NETWORKS
from leakbench.records import ThreatModel, Value, Verdict
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
