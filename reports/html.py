"""The report as one HTML page that needs nothing but itself: its sections, listed once, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from leakbench.bench.comparison import compare
from leakbench.leakage import compared_kind, leakage_kinds
from leakbench.leakage.inversion.gates import ALPHA
from leakbench.records import COMPLETE, RecordFiles, RunRecord
from leakbench.reports import (
    budget,
    by_class,
    controls,
    defenses,
    findings,
    flags,
    grid,
    membership,
    method,
    suite,
    sweeps,
    tradeoff,
    verdict,
    wall,
)
from leakbench.reports.audited import audit_lines, noun_of
from leakbench.reports.curves import curves
from leakbench.reports.headline import heading, lead
from leakbench.reports.page import environment, fill
from leakbench.reports.ranking import rankings
from leakbench.reports.report import Report
from leakbench.reports.summary import groups, members_of


@dataclass(frozen=True)
class Section:
    """One section of the page, with the partial templates/sections/<id>.html.j2."""

    id: str
    title: str
    """in the contents, and above the section where it has no heading of its own"""
    context: Callable[[Report], Mapping[str, Any] | None] = lambda _: {}
    """what its partial is filled with, besides the fields of the report; the contents show its ``count``. None: the
    page leaves the section out"""
    heading: str = ""
    folded: bool = False
    """whether the page opens with it closed: what a reader of the outcome need not see"""


SECTIONS = (
    Section("verdicts", "Verdicts", verdict.section),
    Section("suite", "The paper’s tables", suite.section),
    Section("flags", "Flags", flags.section),
    Section("wall", "Images", wall.section),
    Section("tradeoff", "Trade-off", tradeoff.section, "Accuracy, leakage and energy"),
    Section("budget", "Attack cost", budget.section, "Leak over the attacker’s cost"),
    Section("sweeps", "Sweeps", sweeps.section),
    Section("membership", "Members", membership.section, "Membership inference"),
    Section("controls", "Controls", controls.section, folded=True),
    Section("grid", "Grid", grid.section, "Every metric", folded=True),
    Section("classes", "By class", by_class.section, folded=True),
    Section("findings", "Findings", findings.section, "Attack diagnostics", folded=True),
    Section("defences", "Defences", defenses.section, folded=True),
    Section("index", "Leakage index", lambda _: {"alpha": ALPHA}, folded=True),
    Section("method", "Method", method.section, folded=True),
    Section("provenance", "Provenance", folded=True),
)


@dataclass(frozen=True)
class Filled:
    """A section of the page, ready."""

    id: str
    title: str
    heading: str
    count: int
    """0: the contents show none"""
    body: Markup
    folded: bool


def render(record: RunRecord, run: Path, files: RecordFiles = COMPLETE) -> str:
    """The page. Only ``record`` and the pictures in ``run``/images go in: no time, no path of a machine."""
    report = _report(record, run, files)
    # which files the pictures are in is nothing to a page without the folder, and a third of the record
    cells = [cell.model_copy(update={"pictures": []}) for cell in record.cells]
    return fill(
        "report.html.j2",
        record.model_copy(update={"cells": cells}),
        sections=[filled for section in _sections(record) if (filled := _filled(section, report))],
        heading=heading(record, report.groups),
        audit_lines=audit_lines(record),
        lead=lead([ranking for ranking in rankings(report.compared) if ranking.attacked > 1]),
        **vars(report),
    )


def _report(record: RunRecord, run: Path, files: RecordFiles) -> Report:
    all_groups, members = groups(record), members_of(record)
    walls = {group.number: pictures for group in all_groups if (pictures := wall.wall(record, group, run))}
    refused = [entry for pictures in walls.values() for entry in pictures.refused]
    return Report(
        record=record,
        run=run,
        files=files,
        groups=all_groups,
        walls=walls,
        curves={group.number: curves(group, members.get((group.dataset, group.model))) for group in all_groups},
        noun=noun_of(record),
        compared=compare({"": record}),
        flags=[*([flags.POORER] if files != COMPLETE else []), *flags.flags(record, all_groups, refused)],
        method=method.collect(record),
    )


def _filled(section: Section, report: Report) -> Filled | None:
    """The section with its partial filled; None where the page leaves it out."""
    context = section.context(report)
    if context is None:
        return None
    template = environment().get_template(f"sections/{section.id}.html.j2")
    sub = "h4" if len(report.groups) > 1 else "h3"
    # made by us: the partial escapes what is in it
    body = Markup(template.render(sub=sub, **vars(report), **context))
    title = section.title.replace("Defence", report.noun.capitalize())
    return Filled(section.id, title, section.heading or title, context.get("count", 0), body, section.folded)


def _sections(record: RunRecord) -> list[Section]:
    """The outcome first: where nothing attacked classes, what was found of members; where nothing was attacked,
    accuracy and cost. Without the sections of kinds of leak that nothing in the run is about."""
    kinds = {cell.leakage for cell in record.cells} - {""}
    spared = {section for kind in leakage_kinds() if kind.name not in kinds for section in kind.sections}
    first: tuple[str, ...] = ()
    if not any(cell.defense and cell.attack for cell in record.cells):
        first = ("verdicts", "suite", "defences")
        spared -= {*first, "wall"}
    elif compared_kind().name not in kinds:
        first = ("membership",)
    ahead = [replace(section, folded=False) for section in SECTIONS if section.id in first]
    return [*ahead, *(section for section in SECTIONS if section.id not in {*first, *spared})]
