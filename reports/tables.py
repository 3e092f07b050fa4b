"""The run as tables: results.csv is a stable format, results.md is for people, results.tex for papers."""

from __future__ import annotations

from collections.abc import Sequence

from leakbench.errors import printable
from leakbench.leakage.membership.kind import Membership
from leakbench.leakage.membership.verdict import INDEX
from leakbench.records import Environment, RunRecord
from leakbench.reports import frames, latex, method
from leakbench.reports.curves import curves
from leakbench.reports.findings import findings_tables
from leakbench.reports.grid import Table, defense_table, index_table, leak_tables, other_tables
from leakbench.reports.latex import Column, escaped, shortened, width
from leakbench.reports.member_rows import MembershipRow, MembershipView, membership_view
from leakbench.reports.method import SOURCE_DIGITS
from leakbench.reports.paper_table import latex_text as latex_of
from leakbench.reports.paper_table import run_tables
from leakbench.reports.suite import SuiteRow, SuiteTable, suite
from leakbench.reports.summary import Group, groups, members_of
from leakbench.reports.threats import HEADING, threat_rows
from leakbench.reports.verdict import cards


def csv_text(record: RunRecord) -> str:
    """:func:`~leakbench.reports.frames.long_frame` as CSV: a stable format."""
    return frames.long_csv(frames.long_frame(record))


def markdown_text(record: RunRecord) -> str:
    """As Markdown: of classes the verdicts, the paper's tables of its suite, the index, every table of the grid and the
    sweeps; of members the verdicts and every attacked network."""

    parts = [f"# LeakBench {markdown(record.leakbench)}, {markdown(record.created)}"]
    protocol = f", protocol {markdown(record.protocol)}" if record.protocol else ""
    for group in groups(record):
        parts.append(f"## {markdown(group.title)}{protocol}")
        for title, heading, rows in [*_tables(record, group), *_member_tables(record, group)]:
            parts += [f"### {title}", markdown_table(heading, rows)]
    for title, heading, rows in (_settings(record), _environments(record)):
        if rows:
            parts += [f"## {title}", markdown_table(heading, rows)]
    return "\n\n".join(parts) + "\n"


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Of texts that are Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex_text(record: RunRecord) -> str:
    """The one table that a paper prints, for each data set and model, its like of members, and the paper's own tables
    of its suite."""
    all_groups = groups(record)
    floats = [member_float(view) for group in all_groups if (view := _members(record, group))]
    suites = [(group, suite(record, group, ())) for group in all_groups]
    floats += [suite_float(group, table) for group, laid_out in suites if laid_out for table in laid_out.tables]
    return "\n".join([latex_of(run_tables(record)), *(f"{text}\n" for text in floats)])


def member_float(view: MembershipView) -> str:
    """Every attacked network, those in question above the controls."""
    columns = [Column("Network", 0.24), Column("Attack", 0.2)]
    columns += [Column(name, 0.14) for name in ("AUC", "Index", "p", "Validity")]

    def cells(row: MembershipRow) -> list[str]:
        names = [escaped(shortened(name, 80)) for name in (row.defense, row.attack)]
        numbers = [escaped(text, 8) for text in (row.auc, row.index, row.p, row.validity)]
        return [rf"\scriptsize {text}" for text in (*names, *numbers)]

    blocks = [[cells(row) for row in view.rows if row.control == control] for control in (False, True)]
    note = f"Brackets: 95 % intervals. AUC: {Membership.chance} is chance. Index: {INDEX}."
    controls = " Below the rule: controls." if all(blocks) else ""
    return latex.table(
        f"Membership inference, {escaped(shortened(view.title))}",
        escaped(f"Membership inference, {view.title}. {note}{controls}"),
        latex.label("Members", view.title),
        columns,
        blocks,
    )


def suite_float(group: Group, table: SuiteTable) -> str:
    """One of the paper's tables; a row without values says why over all of its cells."""
    # no column has room for longer words: that of the methods has twice the others' share
    columns = [Column("Method", 2.0), *(Column(escaped(name, 7), 1.0) for name in table.columns)]
    rest = width(1 - columns[0].share / sum(column.share for column in columns))
    over = rf"\multicolumn{{{len(table.columns)}}}{{>{{\raggedright\arraybackslash}}p{{{rest}}}}}"

    def cells(row: SuiteRow, title: str) -> list[str]:
        heading = rf"\scriptsize {escaped(f'{title}: {row.heading}' if title else row.heading)}"
        if not row.cells:
            return [heading, rf"{over}{{\scriptsize {escaped(row.why_empty)}}}"]
        return [heading, *(rf"\scriptsize {escaped(cell.text, 7)}" for cell in row.cells)]

    title = f"As in the PrivateSNN paper's {table.title}, {group.title}"
    return latex.table(
        f"{escaped(table.title)}, {escaped(shortened(group.title))}",
        escaped(f"{title}. {table.note}"),
        latex.label(table.title, group.title),
        columns,
        [[cells(row, block.title) for row in block.rows] for block in table.blocks],
    )


VERDICTS = ["Defence", "Verdict", "Leakage index", "Attack", "Reason"]
CLASS_VERDICTS = [*VERDICTS[:2], "Conclusion", *VERDICTS[2:4], "p", "Networks", VERDICTS[4], "To know more"]
_Plain = tuple[str, list[str], list[list[str]]]


def _tables(record: RunRecord, group: Group) -> list[_Plain]:
    """(title, heading, rows), all of it Markdown. An anchor's value stands in the first column."""
    tables = []
    verdicts = [
        [
            *(card.defense, card.chip, card.conclusion, card.index or "–", card.attack or "–", card.p),
            *(str(card.networks or "–"), card.reason, card.settle or "–"),
        ]
        for card in cards(group, record)
    ]
    if verdicts:
        tables.append(("Verdicts", CLASS_VERDICTS, [[markdown(text) for text in row] for row in verdicts]))
    threats = [
        [label, *row.cells] for label, verdict in group.verdicts.items() for row in threat_rows(verdict, group.rows)
    ]
    if threats:
        rows = [[markdown(text) for text in row] for row in threats]
        tables.append(("Leak over the attacker's cost", ["Defence", *HEADING], rows))
    sweeps = curves(group, members_of(record).get((group.dataset, group.model)))
    paper = suite(record, group, sweeps)
    tables += [paper_table(table) for table in paper.tables] if paper else []
    indices = index_table(group, group.headline)
    if indices:
        tables.append(_plain("Leakage index", indices))
    defenses = defense_table(group)
    if defenses:
        tables.append(_plain("Defences", defenses))
    for table in [*leak_tables(group), *other_tables(group)]:
        tables.append(_plain(table.metric.title if table.metric else "", table))
    tables += [_plain(f"Findings of {one.attack}", one.table) for one in findings_tables(group)]
    tables += [_plain(curve.title, curve.table, f"any {curve.across}") for curve in sweeps]
    return tables


def _members(record: RunRecord, group: Group) -> MembershipView | None:
    return membership_view(record, group.dataset, group.model)


def _member_tables(record: RunRecord, group: Group) -> list[_Plain]:
    """The verdicts on members, and every attacked network."""
    view = _members(record, group)
    if view is None:
        return []
    verdicts = [[card.defense, card.chip, card.index, card.attack, card.reason] for card in view.cards]
    rows = [
        [r.defense, r.attack, r.auc, r.index, r.p, r.leaks, r.validity, r.gates, r.queries, *r.others]
        for r in view.rows
    ]
    rows += [
        [defense, attack, "–", "–", "–", "–", "–", reason, "–", *("–" for _ in view.metrics)]
        for defense, attack, reason in view.failed
    ]
    heading = [
        "Network",
        "Attack",
        "AUC",
        "Index",
        "p",
        "Leaks",
        "Validity",
        "Gates",
        "Queries",
        *(m.title for m in view.metrics),
    ]
    tables = [("Verdicts, members", VERDICTS, verdicts), ("Attacks on members", heading, rows)]
    return [
        (title, [markdown(text) for text in head], [[markdown(text) for text in row] for row in body])
        for title, head, body in tables
        if body
    ]


def _settings(record: RunRecord) -> _Plain:
    """The legend of the labels: with what each was made, in full."""
    heading = ["Row", "Kind", "T", "Preset", "Version", "Source", "Parameters"]
    legend = [
        [
            f"{row.label} ({row.where})" if row.where else row.label,
            row.kind,
            row.timesteps or "–",
            row.preset or "–",
            row.version or "–",
            row.source[:SOURCE_DIGITS] or "–",
            "; ".join(f"{name} = {text}" for name, text in row.parameters) or "–",
        ]
        for row in method.rows(record)
    ]
    seeds = ", ".join(map(str, sorted({cell.seed for cell in record.cells})))
    title = f"Settings, seed{'s' if ',' in seeds else ''} {seeds}"
    return markdown(title), heading, [[markdown(text) for text in row] for row in legend]


def _environments(record: RunRecord) -> _Plain:
    """Where the artifacts were made that the numbers come from."""
    rows = [[markdown(str(value)) for value in origin.model_dump().values()] for origin in record.environments]
    return "Environments", [*Environment.model_fields], rows


def _plain(title: str, table: Table, below: str = "any attack") -> _Plain:
    """``below``: what the value of an anchor is of."""
    rows = [[row.label, *(cell.text for cell in row.cells)] for row in table.rows]
    rows += [[f"{row.label} ({below})", row.cells[0].text, *[""] * (len(table.columns) - 1)] for row in table.anchors]
    heading = [table.corner, *table.columns]
    return markdown(title), [markdown(text) for text in heading], [[markdown(text) for text in row] for row in rows]


def paper_table(table: SuiteTable) -> _Plain:
    """A block's heading stands before the rows' names; why a row is empty stands in its first cell."""
    rows = []
    for block in table.blocks:
        for row in block.rows:
            name = f"{block.title}: {row.heading}" if block.title else row.heading
            texts = [cell.text for cell in row.cells] or [row.why_empty, *[""] * (len(table.columns) - 1)]
            rows.append([markdown(text) for text in (name, *texts)])
    return markdown(table.title), [markdown(name) for name in ("Method", *table.columns)], rows


def markdown(text: str) -> str:
    """The text as Markdown shows it, on one line: all that Markdown, or HTML inside it, could act on is escaped."""
    flat = printable(" ".join(text.split()))
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>|#!$~&" else char for char in flat)
