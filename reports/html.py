"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from leakbench.bench.comparison import Comparison, compare
from leakbench.records import COMPLETE, RecordFiles, RunRecord
from leakbench.reports import figures, method
from leakbench.reports.by_class import ClassTable, class_tables
from leakbench.reports.controls import GATES, GateRow, ScaleRow, control_table, gate_rows, scale_rows
from leakbench.reports.curves import Curve, curves
from leakbench.reports.findings import FindingsTable, findings_tables
from leakbench.reports.flags import POORER, Flag, flags
from leakbench.reports.grid import Table, defense_table, index_table, leak_tables, other_tables
from leakbench.reports.layers import LayerTable, energy_tables, motion_tables
from leakbench.reports.page import fill
from leakbench.reports.paper import CITATION, Beside, beside
from leakbench.reports.ranking import rankings
from leakbench.reports.suite import Suite, suite
from leakbench.reports.summary import JUDGED, Group, groups
from leakbench.reports.verdict import Card, cards
from leakbench.reports.wall import Wall, wall


@dataclass(frozen=True)
class Sweep:
    """A curve and its picture."""

    curve: Curve
    figure: Markup


@dataclass(frozen=True)
class GroupView:
    """Everything that the page shows of one data set and model."""

    group: Group
    cards: list[Card]
    spared: int
    """defences that no attack was run on, where some were attacked"""
    suite: Suite | None
    gates: list[GateRow]
    controls: Table | None
    scales: list[ScaleRow]
    index: Table | None
    indices: list[Table]
    """of the other metrics"""
    leaks: list[Table]
    others: list[Table]
    wall: Wall | None
    classes: list[ClassTable]
    findings: list[FindingsTable]
    figure: Markup
    sweeps: list[Sweep]
    defenses: Table | None
    energy: list[LayerTable]
    motion: list[LayerTable]
    paper: list[Beside]


def render(record: RunRecord, run: Path, files: RecordFiles = COMPLETE) -> str:
    """The page. Only ``record`` and the pictures in ``run``/images go in: no time, no path of a machine."""
    views = [_view(record, group, run) for group in groups(record)]
    refused = [entry for view in views if view.wall for entry in view.wall.refused]
    compared = compare({"": record})
    found: list[Flag] = [POORER] if files != COMPLETE else []
    found += flags(record, [view.group for view in views], refused)
    return fill(
        "report.html.j2",
        record,
        record=record,
        files=files,
        views=views,
        flags=found,
        method=method.collect(record),
        citation=CITATION,
        gates=GATES,
        source_digits=method.SOURCE_DIGITS,
        heading=_heading(record, views),
        rankings=[found for found in rankings(compared) if found.attacked > 1],
        links=_links(compared, views),
        title="Ranking",
    )


def _links(compared: Comparison, views: list[GroupView]) -> dict[str, str]:
    """Label of a defence in the ranking -> id of its card."""
    ids = {
        (view.group.dataset, view.group.model, card.defense): f"verdict-{view.group.number}-{number}"
        for view in views
        for number, card in enumerate(view.cards, start=1)
    }
    here = {one.label: ids.get((one.dataset, one.model, one.defense)) for one in compared.defenses}
    return {label: found for label, found in here.items() if found}


def _view(record: RunRecord, group: Group, run: Path) -> GroupView:
    found = curves(group)
    return GroupView(
        group=group,
        cards=cards(group),
        spared=len(set(group.asked) - set(group.attacked) - set(group.verdicts)),
        suite=suite(record, group, found),
        gates=gate_rows(group),
        controls=control_table(group),
        scales=scale_rows(group),
        index=index_table(group, JUDGED),
        indices=[table for name in group.indexed() if name != JUDGED and (table := index_table(group, name))],
        leaks=leak_tables(group),
        others=other_tables(group),
        wall=wall(record, group, run),
        classes=class_tables(record, group),
        findings=findings_tables(group),
        # made by us: matplotlib escapes what is in it
        figure=Markup(figures.trade_off(group)),
        sweeps=[Sweep(curve, Markup(figures.sweep(group, curve))) for curve in found],
        defenses=defense_table(group),
        energy=energy_tables(group),
        motion=motion_tables(group),
        paper=beside(group),
    )


def _heading(record: RunRecord, views: list[GroupView]) -> str:
    attacked = {label for view in views for label in view.group.attacked}
    asked = list(dict.fromkeys(label for view in views for label in view.group.asked))
    names = [label for label in asked if label in attacked] or asked
    if not names:
        return "Leakage report"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    where = ", ".join(dict.fromkeys(cell.dataset for cell in record.cells))
    return f"{'Leakage' if attacked else 'Accuracy'} report: {', '.join(names[:3])}{more} on {where}"
