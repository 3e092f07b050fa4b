"""What the defences measured by themselves: accuracy, energy, and their layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from leakbench.reports.grid import Table, defense_table
from leakbench.reports.layers import LayerTable, energy_tables, motion_tables
from leakbench.reports.report import Report
from leakbench.reports.summary import Group


@dataclass(frozen=True)
class Defenses:
    """The defences of one data set and model."""

    group: Group
    defenses: Table | None
    energy: list[LayerTable]
    motion: list[LayerTable]


def section(report: Report) -> dict[str, Any]:
    views = [
        Defenses(group, defense_table(group), energy_tables(group), motion_tables(group)) for group in report.groups
    ]
    return {"views": views}
