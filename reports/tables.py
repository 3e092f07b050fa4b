"""The run as tables: results.csv is a stable format, results.md and results.tex are for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from leakbench.bench.records import CellRecord, Environment, RunRecord, Value
from leakbench.reports import method
from leakbench.reports.curves import curves
from leakbench.reports.findings import findings_tables
from leakbench.reports.grid import Table, defense_table, index_table, leak_tables, other_tables
from leakbench.reports.method import SOURCE_DIGITS
from leakbench.reports.suite import SuiteTable, suite
from leakbench.reports.summary import JUDGED, Group, groups
from leakbench.reports.verdict import cards
from leakbench.reports.vocabulary import value_of

COLUMNS = (
    *("dataset", "model", "defense", "attack", "seed", "status", "metric", "value", "low", "high", "n"),
    *("preset", "timesteps", "defense_params", "attack_params", "defense_version", "attack_version"),
    *("defense_source", "attack_source", "public"),
)
"""new ones only ever come last: whoever reads by position finds what was there before"""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def csv_text(record: RunRecord) -> str:
    """One row a measured value in the record's order, a cell's findings below its values as ``finding: <name>``; a
    cell without values has one row with empty metric. Below them, with an empty seed, what all seeds together say
    of an attack on a defence: ``valid`` and ``leaks`` (1 or 0) and ``index_<metric>``.

    The columns from ``preset`` on say with what the row was made: parameters as canonical JSON, the plugins' versions
    and the sha256 of their files (empty for built-ins), and where the attack's public images come from.

    Floats are written so that reading them gives the same float; "nan" and "inf" where a value is that, empty
    where no interval is defined. ``attack`` is empty for a defence's own values; anchors have an empty
    ``defense`` and the attack "noise" or "real". Lines end in "\\n"; text that holds commas, quotes or line
    ends is quoted.
    """
    rows: list[Sequence[str]] = [COLUMNS]
    for cell in record.cells:
        place = (cell.dataset, cell.model, cell.defense, cell.attack)
        head, made = [*map(safe_text, place), str(cell.seed), cell.status], _made_with(cell)
        rows += [[*head, *_written(value), *made] for value in cell.values]
        rows += [[*head, *_written(Value(metric=f"finding: {f.name}", value=f.value)), *made] for f in cell.findings]
        if not cell.values and not cell.findings:
            rows.append([*head, "", "", "", "", "", *made])
    for row in record.rows:
        place = (row.dataset, row.model, row.defense, row.attack)
        head, made = [*map(safe_text, place), "", "ok"], _made_with(record.cell(*place))
        said = {"valid": row.validity == "valid", "leaks": row.leaks}
        rows += [[*head, *_written(Value(metric=name, value=float(holds))), *made] for name, holds in said.items()]
        rows += [[*head, *_written(value), *made] for index in row.indices if (value := value_of(index))]
    return "".join(f"{','.join(map(_quoted, row))}\n" for row in rows)


def _made_with(cell: CellRecord | None) -> list[str]:
    """The columns from ``preset`` on; empty where the record does not say."""
    if cell is None:
        return [""] * (len(COLUMNS) - COLUMNS.index("preset"))
    numbers = (cell.timesteps, cell.defense_version, cell.attack_version)
    timesteps, *versions = ("" if number is None else str(number) for number in numbers)
    attacked = cell.defense and cell.attack  # an anchor is no attack
    params = [_json(cell.defense_params) if cell.defense else "", _json(cell.attack_params) if attacked else ""]
    texts = [cell.preset, timesteps, *params, *versions, cell.defense_source, cell.attack_source, cell.public]
    return [safe_text(text) for text in texts]


def _json(params: dict[str, Any]) -> str:
    """Canonical: the same parameters give the same text."""
    return json.dumps(params, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _written(value: Value) -> list[str]:
    ends = ["" if end is None else repr(end) for end in (value.low, value.high)]
    return [safe_text(value.metric), repr(value.value), *ends, str(value.n)]


def _quoted(text: str) -> str:
    # csv.writer leaves a carriage return unquoted when lines end in "\n": its reader stumbles on that.
    return '"' + text.replace('"', '""') + '"' if any(char in text for char in ',"\r\n') else text


def safe_text(text: str) -> str:
    """The text as a spreadsheet shows it instead of running it.

    A text that starts like a formula gets one apostrophe in front, and so does one that starts with an
    apostrophe, so that dropping one leading apostrophe always gives the original back. No built-in name
    and no Python identifier starts with any of these: ordinary names stay as they are. Numbers stay too.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def markdown_text(record: RunRecord) -> str:
    """The verdicts, the paper's tables of its suite, the index, every table of the grid and the sweeps as Markdown."""

    def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        lines = [heading, ["---"] * len(heading), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    parts = [f"# LeakBench {_markdown(record.leakbench)}, {_markdown(record.created)}"]
    for group in groups(record):
        parts.append(f"## {_markdown(group.title)}")
        for title, heading, rows in _tables(record, group, _markdown):
            parts += [f"### {title}", table(heading, rows)]
    for title, heading, rows in (_settings(record, _markdown), _environments(record, _markdown)):
        if rows:
            parts += [f"## {title}", table(heading, rows)]
    return "\n\n".join(parts) + "\n"


def latex_text(record: RunRecord) -> str:
    """The same as LaTeX tabulars; needs the package booktabs."""
    parts = ["% Tables of a LeakBench run. They need \\usepackage{booktabs}."]
    for group in groups(record):
        for title, heading, rows in _tables(record, group, _latex):
            body = " \\\\\n".join(" & ".join(row) for row in rows)
            parts.append(
                f"% {_comment(group.title)}\n"
                f"\\begin{{table}}\n\\caption{{{title}, {_latex(group.title)}}}\n"
                f"\\begin{{tabular}}{{l{'r' * (len(heading) - 1)}}}\n\\toprule\n"
                f"{' & '.join(heading)} \\\\\n\\midrule\n{body} \\\\\n\\bottomrule\n"
                "\\end{tabular}\n\\end{table}"
            )
    title, heading, rows = _settings(record, _latex)
    if rows:
        body = " \\\\\n".join(" & ".join(row) for row in rows)
        parts.append(
            f"\\begin{{table}}\n\\caption{{{title}}}\n"
            f"\\begin{{tabular}}{{{'l' * (len(heading) - 1)}p{{.4\\linewidth}}}}\n\\toprule\n"
            f"{' & '.join(heading)} \\\\\n\\midrule\n{body} \\\\\n\\bottomrule\n"
            "\\end{tabular}\n\\end{table}"
        )
    return "\n\n".join(parts) + "\n"


_Plain = tuple[str, list[str], list[list[str]]]


def _tables(record: RunRecord, group: Group, escape: Callable[[str], str]) -> list[_Plain]:
    """(title, heading, rows), all escaped. An anchor's value stands in the first column."""
    found = []
    verdicts = [[card.defense, card.chip, card.index or "–", card.attack or "–", card.reason] for card in cards(group)]
    if verdicts:
        heading = ["Defence", "Verdict", "Leakage index", "Attack", "Reason"]
        found.append(("Verdicts", heading, [[escape(text) for text in row] for row in verdicts]))
    sweeps = curves(group)
    paper = suite(record, group, sweeps)
    found += [_of_paper(table, escape) for table in paper.tables] if paper else []
    indices = index_table(group, JUDGED)
    if indices:
        found.append(_plain("Leakage index", indices, escape))
    defenses = defense_table(group)
    if defenses:
        found.append(_plain("Defences", defenses, escape))
    for table in [*leak_tables(group), *other_tables(group)]:
        found.append(_plain(table.metric.title if table.metric else "", table, escape))
    found += [_plain(f"Findings of {one.attack}", one.table, escape) for one in findings_tables(group)]
    found += [_plain(curve.title, curve.table, escape, f"any {curve.across}") for curve in sweeps]
    return found


def _settings(record: RunRecord, escape: Callable[[str], str]) -> _Plain:
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
    return escape(title), heading, [[escape(text) for text in row] for row in legend]


def _environments(record: RunRecord, escape: Callable[[str], str]) -> _Plain:
    """Where the artifacts were made that the numbers come from."""
    rows = [[escape(str(value)) for value in made.model_dump().values()] for made in record.environments]
    return "Environments", [*Environment.model_fields], rows


def _plain(title: str, table: Table, escape: Callable[[str], str], below: str = "any attack") -> _Plain:
    """``below``: what the value of an anchor is of."""
    rows = [[row.label, *(cell.text for cell in row.cells)] for row in table.rows]
    rows += [[f"{row.label} ({below})", row.cells[0].text, *[""] * (len(table.columns) - 1)] for row in table.anchors]
    heading = [table.corner, *table.columns]
    return escape(title), [escape(text) for text in heading], [[escape(text) for text in row] for row in rows]


def _of_paper(table: SuiteTable, escape: Callable[[str], str]) -> _Plain:
    """A block's heading stands before the rows' names; why a row is empty stands in its first cell."""
    rows = []
    for block in table.blocks:
        for row in block.rows:
            name = f"{block.title}: {row.heading}" if block.title else row.heading
            texts = [cell.text for cell in row.cells] or [row.why_empty, *[""] * (len(table.columns) - 1)]
            rows.append([escape(text) for text in (name, *texts)])
    return escape(table.title), [escape(name) for name in ("Method", *table.columns)], rows


def _markdown(text: str) -> str:
    # Everything that Markdown or the HTML inside it could act on; a cell must stay on its line.
    flat = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>|#!$~&" else char for char in flat)


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "–": "--",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def _latex(text: str) -> str:
    # A cell that starts with [ would be read as the optional argument of the row end above it.
    flat = "".join(_LATEX.get(char, char) for char in " ".join(text.split()))
    return f"{{{flat[0]}}}{flat[1:]}" if flat.startswith(("[", "*")) else flat


def _comment(text: str) -> str:
    return " ".join(text.split())
