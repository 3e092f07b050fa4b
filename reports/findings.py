"""What attacks and defences measured on their way: a table an attack, a row a finding, a column a defence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from leakbench.reports.grid import GridCell, GridRow, Line, Table, gap, told
from leakbench.reports.report import Report
from leakbench.reports.summary import Experiment, Group
from leakbench.reports.vocabulary import plain

DEFENSES = "defences"
"""title of the table of what defences measured"""


@dataclass(frozen=True)
class FindingsTable:
    """One attack's findings on every defence that it was run on, or those of the defences themselves."""

    attack: str
    table: Table


@dataclass(frozen=True)
class Findings:
    """The tables of one data set and model."""

    group: Group
    findings: list[FindingsTable]


def section(report: Report) -> dict[str, Any] | None:
    views = [Findings(group, tables) for group in report.groups if (tables := findings_tables(group))]
    return {"views": views} if views else None


def findings_tables(group: Group) -> list[FindingsTable]:
    """A table of the defences and one an attack, in the run's order; none for what reported nothing."""
    tables = []
    for attack in ("", *group.attacks):
        experiments = [one for one in group.with_attack(attack) if attack or any(cell.findings for cell in one.cells)]
        names = dict.fromkeys(
            measured.name for experiment in experiments for cell in experiment.cells for measured in cell.findings
        )
        if names:
            rows = tuple(
                GridRow(name, False, tuple(_cell(experiment, name) for experiment in experiments)) for name in names
            )
            table = Table(None, tuple(experiment.defense for experiment in experiments), rows, (), None, "Finding")
            tables.append(FindingsTable(attack or DEFENSES, table))
    return tables


def _cell(experiment: Experiment, name: str) -> GridCell:
    """The mean over the seeds that have the finding; what each of them has, and why others have none, is in full."""
    values = [(cell.seed, one.value) for cell in experiment.cells for one in cell.findings if one.name == name]
    if not values:
        return gap(experiment)
    mean = math.fsum(value for _, value in values) / len(values)
    each = [f"seed {seed}: {plain('count', value)}" for seed, value in values] if len(values) > 1 else []
    each += [f"seed {bad.seed}, {told(bad)}" for bad in experiment.bad]
    sort = repr(mean) if math.isfinite(mean) else ""
    return GridCell((Line("", plain("count", mean), "", ""),), None, sort, full="; ".join(each))
