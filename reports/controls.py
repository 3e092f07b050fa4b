"""What the verdicts rest on: the gates that every attack passed or not, the controls, and the scale of the index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leakbench.leakage.controls import ROLES
from leakbench.leakage.inversion.kind import Inversion
from leakbench.leakage.kind import GateRule
from leakbench.records import AttackRow, Gate, RunRecord
from leakbench.reports.grid import GridRow, Table, index_cell
from leakbench.reports.report import Report
from leakbench.reports.summary import Group
from leakbench.reports.vocabulary import in_full, index_text

PASSES, FAILS, UNKNOWN = "passes", "fails", "unknown"
NOT_NEEDED = "not needed: it leaks"
"""of a gate that fails on a row that leaks all the same"""
NAMED = 2
"""more defences than this are counted where a gate's outcome is told in a few words"""


@dataclass(frozen=True)
class GateCell:
    """One gate of an attack over all defences."""

    outcome: str
    """"passed", "failed" (somewhere), "spared" or "open": for the eye only, the text says it"""
    text: str


@dataclass(frozen=True)
class Reason:
    """Why a gate came out as it did, and on which defences with these very words."""

    gate: str
    outcome: str
    where: str
    text: str


@dataclass(frozen=True)
class GateRow:
    """One attack's gates in their order."""

    attack: str
    cells: tuple[GateCell, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class ScaleRow:
    """What 0 and 1 of one metric's index are, written out."""

    title: str
    name: str
    noise: str
    real: str
    fresh_noise: str
    fresh_real: str


@dataclass(frozen=True)
class Controls:
    """The gates, controls and scales of one data set and model."""

    group: Group
    gates: list[GateRow]
    controls: Table | None
    scales: list[ScaleRow]
    nulls: str
    """what the attacks got out of networks that know nothing, in a sentence; empty where there are none"""


def section(report: Report) -> dict[str, Any]:
    views = [
        Controls(
            group, gate_rows(group), control_table(group), scale_rows(group), null_networks_text(report.record, group)
        )
        for group in report.groups
    ]
    voiding = " and ".join(gate.name for gate in Inversion.gates if gate.voids_leaks)
    return {"views": views, "gates": Inversion.gates, "voiding": voiding}


def gate_rows(group: Group) -> list[GateRow]:
    """One row an attack, over the defences that the run was about; over the controls where there is nothing else."""
    table_rows = []
    for attack in group.attacks:
        rows = [row for (_, name), row in group.rows.items() if name == attack]
        rows = [row for row in rows if not row.control] or rows
        if rows:
            cells = tuple(_gate(gate, rows) for gate in Inversion.gates if gate.of_row)
            table_rows.append(GateRow(attack, cells, tuple(_reasons(rows))))
    return table_rows


def control_table(group: Group) -> Table | None:
    """The index of every attack on every control; None where there is none."""
    controls = [label for label in group.attacked if label in group.controls]
    rows = []
    for attack in group.attacks:
        keys = [(label, attack) for label in controls]
        cells = tuple(index_cell(group.rows.get(key), group.headline, group.experiments.get(key)) for key in keys)
        rows.append(GridRow(attack, False, cells))
    if not any(cell.lines for row in rows for cell in row.cells):
        return None
    return Table(None, tuple(role(group, label) for label in controls), tuple(rows), (), None, "Attack")


def scale_rows(group: Group) -> list[ScaleRow]:
    """One row a metric that has a scale."""
    return [
        ScaleRow(
            metric.title,
            metric.name,
            in_full(metric.unit, scale.noise),
            in_full(metric.unit, scale.real),
            index_text(scale.fresh_noise),
            index_text(scale.fresh_real),
        )
        for metric, scale in ((group.vocabulary.describe(name), scale) for name, scale in group.scales.items())
    ]


def null_networks_text(record: RunRecord, group: Group) -> str:
    """What the attacks got out of networks that know nothing; empty where there are none."""
    here = [
        (cell.attack, cell.votes)
        for cell in record.cells
        if cell.check == "null network" and (cell.dataset, cell.model) == (group.dataset, group.model) and cell.votes
    ]
    total = sum(len(votes.classes) for _, votes in here)
    if not total:
        return ""
    accepted = sum(len(votes.accepted) for _, votes in here)
    numbers = sorted(Counter(attack for attack, _ in here).values())
    networks = " to ".join(dict.fromkeys(map(str, (numbers[0], numbers[-1]))))
    share = f"{100 * accepted / total:.1f} % of {total:,} cases"
    return (
        f"Each attack was also run on {networks} networks that know nothing (untrained or trained on shuffled labels). "
        f"In {share}, the evaluation models accepted at least half of the images made for a class as one class."
    )


def role(group: Group, label: str) -> str:
    """What a control is, in words, with what tells it from others of its kind; its label where no word is known."""
    plugin = group.plugin(label)
    return f"{ROLES[plugin]}{label.removeprefix(plugin)}" if plugin in ROLES else label


def role_of(plugin: str) -> str:
    """What the control that this plugin makes is, in words; empty where no word is known."""
    return ROLES.get(plugin, "")


def _gate(rule: GateRule, rows: list[AttackRow]) -> GateCell:
    on: dict[str, list[str]] = {PASSES: [], FAILS: [], NOT_NEEDED: [], UNKNOWN: []}
    for row in rows:
        on[_outcome(row, rule)[0]].append(row.defense)
    for outcome, tone in ((FAILS, "failed"), (NOT_NEEDED, "spared")):
        if on[outcome]:
            return GateCell(tone, outcome if len(on[outcome]) == len(rows) else f"{outcome} on {_named(on[outcome])}")
    if not on[PASSES]:
        return GateCell("open", UNKNOWN)
    if on[UNKNOWN]:
        return GateCell("open", f"{PASSES}; {UNKNOWN} on {_named(on[UNKNOWN])}")
    return GateCell("passed", PASSES)


def _outcome(row: AttackRow, rule: GateRule) -> tuple[str, Gate | None]:
    """How a gate came out on a row, in a word or two, and what the row has of it."""
    gate = next((gate for gate in row.gates if gate.name == rule.name), None)
    if gate is None or gate.passed is None:
        return UNKNOWN, gate
    if gate.passed:
        return PASSES, gate
    return (NOT_NEEDED if row.leaks and not rule.voids_leaks else FAILS), gate


def _reasons(rows: list[AttackRow]) -> list[Reason]:
    where: dict[tuple[str, str, str], list[str]] = {}
    for rule in Inversion.gates:
        for row in rows:
            outcome, gate = _outcome(row, rule)
            if gate:
                where.setdefault((rule.name, outcome, gate.reason), []).append(row.defense)
    return [Reason(name, outcome, ", ".join(names), text) for (name, outcome, text), names in where.items()]


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} defences"
