"""The one table that a paper prints of a run or a comparison: every defence with its accuracy, energy and leakage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from leakbench.bench.comparison import ComparedDefense, Comparison, Pair, compare
from leakbench.bench.comparison.records import ENERGY, Quantity
from leakbench.contracts import Access
from leakbench.leakage.inversion.kind import Inversion
from leakbench.metrics.metric import Unit
from leakbench.records import RunRecord, Value, Verdict
from leakbench.reports import latex
from leakbench.reports.conclusion import needed_to_name, p_text
from leakbench.reports.latex import Column, breadth, escaped, shortened
from leakbench.reports.ranking import cut, rank_text
from leakbench.reports.summary import Group, groups
from leakbench.reports.vocabulary import INDEX_MEANING, Vocabulary, bounds, number, value_of

Mark = Literal["", "best", "tie", "untested"]
OWN = ("accuracy", "energy ratio")
WORST = "worst case"
_LINES = 33
"""of text in one float: what a page holds beside its caption"""
_NAME = 80
"""letters of a name: what is longer is cut, and stands in full in the record"""
_LONG = 12
"""characters of a number that no measurement has"""


@dataclass(frozen=True)
class Measured:
    """A cell of the table."""

    value: Value | None = None
    attack: str = ""
    """behind it"""
    unit: Unit = "share"
    """of the value: a share is also what the leakage index is"""
    mark: Mark = ""
    """how it stands to the best of its column, by the comparison's corrected differences"""

    @property
    def number(self) -> str:
        """As in ".71"; "–" where there is none."""
        if self.value is None:
            return "–"
        text = number(self.unit, self.value).removesuffix("×")
        return text if len(text) < _LONG else f"{self.value.value:.2e}"

    @property
    def interval(self) -> str:
        """As in "[.61, .79]"; empty where there is none."""
        if self.value is None or self.value.low is None or self.value.high is None:
            return ""
        text = bounds(self.unit, cut(self.value, self.unit)).replace("×", "")
        return text if len(text) < 2 * _LONG else f"[{self.value.low:.2e}, {self.value.high:.2e}]"


@dataclass(frozen=True)
class Line:
    """A defence."""

    label: str
    cells: tuple[Measured, ...]
    """one for each of :attr:`PaperTable.columns`"""
    rank: str = "–"
    inconclusive: bool = False
    classes: str = ""
    """how many leak significantly, and p that none does, of a single run; empty for controls"""


@dataclass(frozen=True)
class PaperTable:
    """The defences of one data set and model, those that leak least first."""

    dataset: str
    model: str
    columns: tuple[str, ...]
    """headings of the cells: of OWN, then leakage by what an attack is given, and in the worst case"""
    lines: tuple[Line, ...]
    controls: tuple[Line, ...]
    untested: tuple[str, ...]
    """columns in which no difference from the best was tested"""
    unattacked: int
    """defences that are left out: nothing attacked them, and other ones were attacked"""
    settings: str
    """with what all of it was made, one line"""

    @property
    def title(self) -> str:
        """As in "digits (vgg4)"."""
        return f"{self.dataset} ({self.model})" if self.model else self.dataset

    @property
    def leakage(self) -> int:
        """How many columns are of it: the last ones."""
        return sum(name not in OWN for name in self.columns)

    @property
    def has_ranks(self) -> bool:
        """Whether any defence has a rank."""
        return any(line.rank != "–" for line in self.lines)

    def has(self, mark: Mark) -> bool:
        """Whether some cell has this mark."""
        return any(cell.mark == mark for line in self.lines for cell in line.cells)


def paper_tables(comparison: Comparison, record: RunRecord | None = None) -> list[PaperTable]:
    """One for each data set and model of which anything was measured; with the controls of ``record``, the run that
    ``comparison`` is of."""
    controls = {(group.dataset, group.model): _controls(group, record) for group in groups(record)} if record else {}
    keys = dict.fromkeys((one.dataset, one.model) for one in comparison.defenses)
    tables = (_paper_table(comparison, *key, controls.get(key, [])) for key in keys)
    found = [table for table in tables if table.columns]
    labels = {(one.dataset, one.model, one.defense): one.label for one in comparison.defenses}
    return [_with_classes(table, record, labels) for table in found] if record else found


def _with_classes(table: PaperTable, record: RunRecord, labels: Mapping[tuple[str, str, str], str]) -> PaperTable:
    """With what the run's verdicts on classes say; ``labels``: those of (data set, model, defence) in the table."""

    def text(verdict: Verdict, p: float) -> str:
        lacking = "" if verdict.named else needed_to_name(verdict)
        named = f"{len(verdict.named)} of {len(verdict.classes)} classes"
        return f"{f'needs {lacking}' if lacking else named}, {p_text(p)}"

    texts = {
        labels.get((verdict.dataset, verdict.model, verdict.defense), verdict.defense): text(verdict, verdict.p)
        for verdict in record.verdicts
        if (verdict.dataset, verdict.model) == (table.dataset, table.model)
        and verdict.classes
        and verdict.p is not None
    }
    return replace(table, lines=tuple(replace(line, classes=texts.get(line.label, "")) for line in table.lines))


def run_tables(record: RunRecord) -> list[PaperTable]:
    """Those of one run."""
    return paper_tables(compare({"run": record}), record) if record.cells else []


# --- rows and columns ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """What the table says of a defence, or of a control."""

    label: str
    own: Mapping[str, Value | None]
    """accuracy and energy ratio"""
    ran: frozenset[Access]
    """what the attacks on it were given"""
    by_access: Mapping[Access, Measured]
    """the highest index of attacks that need no more than that, where any was run"""
    worst: Measured
    rank: tuple[int, int] | None = None
    inconclusive: bool = False


@dataclass(frozen=True)
class _Column:
    heading: str
    cell: Callable[[_Row], Measured]
    quantity: Quantity


def _row(one: ComparedDefense) -> _Row:
    return _Row(
        one.label,
        {name: one.value(name) for name in ("accuracy", ENERGY)},
        frozenset(_access(attack.access) for attack in one.attacks),
        {_access(threat.access): Measured(value_of(threat.index), threat.attack) for threat in one.threats},
        Measured(value_of(one.index), one.attack),
        one.rank,
        one.outcome == "inconclusive",
    )


def _controls(group: Group, record: RunRecord) -> list[_Row]:
    """The ANN, the conversion that protects nothing and the untrained network, where the run added them itself."""
    needs = {plugin.name: plugin.needs for plugin in record.plugins if plugin.kind == "attack"}
    rows = []
    for label in sorted(
        group.controls, key=lambda label: [*Inversion.controls, group.plugin(label)].index(group.plugin(label))
    ):
        alone = group.experiments.get((label, ""))
        attacks = {
            attack: _access(needs.get(experiment.cells[0].attack_name, ""))
            for (defense, attack), experiment in group.experiments.items()
            if defense == label and attack
        }
        valid = [a for a in attacks if (row := group.rows.get((label, a))) and row.validity == "valid"]
        attack, index = group.worst_case(label)
        rows.append(
            _Row(
                label,
                {name: alone.overall(name) if alone else None for name in ("accuracy", ENERGY)},
                frozenset(attacks.values()),
                {level: _strongest(group, label, [a for a in valid if attacks[a] <= level]) for level in Access},
                Measured(value_of(index), attack),
            )
        )
    return rows


def _strongest(group: Group, label: str, attacks: Sequence[str]) -> Measured:
    """The highest index of some attacks on a row."""
    known = [Measured(value_of(group.index(label, attack)), attack) for attack in attacks]
    return max(known, key=lambda cell: cell.value.value if cell.value else 0.0, default=Measured())


def _access(name: str) -> Access:
    """All, where the record doesn't say."""
    return Access.__members__.get(name, Access.WEIGHTS)


def _paper_table(comparison: Comparison, dataset: str, model: str, controls: Sequence[_Row]) -> PaperTable:
    every = [one for one in comparison.defenses if (one.dataset, one.model) == (dataset, model)]
    shown = [one for one in every if one.attacks] or every
    rows = [_row(one) for one in shown]
    vocabulary = Vocabulary(comparison.metrics)
    columns = [
        _Column(OWN[0], lambda row: Measured(row.own["accuracy"], unit=vocabulary.unit("accuracy")), "accuracy"),
        _Column(OWN[1], lambda row: Measured(row.own[ENERGY], unit=vocabulary.unit(ENERGY)), "energy_ratio_int32"),
        *(_level(access) for access in sorted(frozenset[Access]().union(*(row.ran for row in rows)))),
        _Column(WORST, lambda row: row.worst, "leakage"),
    ]
    columns = [column for column in columns if any(column.cell(row).value for row in (*rows, *controls))]
    marked = [_marked(column, rows, comparison.pairs) for column in columns]
    return PaperTable(
        dataset,
        model,
        tuple(column.heading for column in columns),
        tuple(
            Line(row.label, tuple(cells[index] for cells, _ in marked), rank_text(row.rank), row.inconclusive)
            for index, row in enumerate(rows)
        ),
        tuple(Line(row.label, tuple(column.cell(row) for column in columns)) for row in controls),
        tuple(column.heading for column, (_, tested) in zip(columns, marked, strict=True) if not tested),
        len(every) - len(shown),
        _settings(comparison, shown),
    )


def _level(access: Access) -> _Column:
    return _Column(access.name.lower(), lambda row: row.by_access.get(access, Measured()), "leakage")


def _marked(column: _Column, rows: Sequence[_Row], pairs: Iterable[Pair]) -> tuple[list[Measured], bool]:
    """The column's cells; False where no difference from the best was tested. Who has no rank leaks nobody knows how
    much, and is not the best."""
    cells = [column.cell(row) for row in rows]
    leakage = column.quantity == "leakage"
    worst = [cell.attack for cell in cells] == [row.worst.attack for row in rows]
    known = {
        # pairs decide who leaks least in the worst case: over the attacks that both were put to
        index: ((row.rank or (0, 0))[0] if worst else 0, cell.value.value if leakage else -cell.value.value)
        for index, (row, cell) in enumerate(zip(rows, cells, strict=True))
        if cell.value and math.isfinite(cell.value.value) and (row.rank or not leakage)
    }
    if len(known) < 2:
        return cells, True
    best = min(known, key=known.__getitem__)
    relations = {
        index: _relation(
            pairs, {rows[index].label, rows[best].label}, column.quantity, _attack(rows, cells, index, best)
        )
        for index in known
        if index != best
    }
    tested = set(relations.values()) != {"not tested"}
    marks: dict[str, Mark] = {"not distinguishable": "tie", **({"not tested": "untested"} if tested else {})}
    cells[best] = replace(cells[best], mark="best")
    for index, relation in relations.items():
        cells[index] = replace(cells[index], mark=marks.get(relation, ""))
    return cells, tested


def _attack(rows: Sequence[_Row], cells: Sequence[Measured], *two: int) -> str | None:
    """By which attack the two cells differ, "" for the worst case of both; None for two attacks, which no pair has."""
    attacks = [cells[index].attack for index in two]
    if attacks == [rows[index].worst.attack for index in two]:
        return ""
    return attacks[0] if len(set(attacks)) == 1 else None


def _relation(pairs: Iterable[Pair], labels: set[str], quantity: Quantity, attack: str | None) -> str:
    for pair in pairs:
        if (pair.quantity, pair.attack) == (quantity, attack) and {pair.first, pair.second} == labels:
            return "not tested" if pair.marks else pair.relation
    return "not tested"


def _settings(comparison: Comparison, shown: Sequence[ComparedDefense]) -> str:
    def listed(values: Iterable[Any]) -> str:
        texts = dict.fromkeys(shortened(str(value), _NAME) for value in values if value not in (None, ""))
        return ", ".join(texts)

    seeds = sorted({seed for one in shown for seed in one.seeds})
    parts = {
        "protocol {}": listed(one.protocol for one in shown),
        "LeakBench {}": listed(sorted({run.leakbench for run in comparison.runs})),
        "preset {}": listed(one.preset for one in shown),
        "T = {}": listed(sorted({one.timesteps for one in shown if one.timesteps is not None})),
        f"seed{'s' if len(seeds) > 1 else ''} {{}}": listed(seeds),
        "{} images of each class": listed(sorted({images for one in shown for images in one.images})),
        "attacks: {}": listed(attack.attack for one in shown for attack in one.attacks),
    }
    return "; ".join(text.format(value) for text, value in parts.items() if value)


# --- LaTeX -----------------------------------------------------------------------------------------------------------


def latex_text(tables: Sequence[PaperTable]) -> str:
    """The tables as LaTeX floats, for any document that has the packages booktabs and array."""
    return "\n\n".join([latex.HEAD, *(part for table in tables for part in _floats(table))]) + "\n"


_SIGNS: dict[Mark, str] = {
    "": "",
    "best": "",
    "tie": r"\textsuperscript{$\dagger$}",
    "untested": r"\textsuperscript{$\ddagger$}",
}
_UNPLACED = r"\textsuperscript{\S}"
_SHARES = {WORST: 0.17}


def _floats(table: PaperTable) -> Iterator[str]:
    """The table, in parts where it is longer than a page."""
    columns = [Column("Defence", 0.2), *(Column(name, _SHARES.get(name, 0.11)) for name in table.columns)]
    if table.has_ranks:
        columns.append(Column("Rank", 0.07))
    subject = "Class leakage" if table.leakage else "Accuracy and energy"
    parts = list(_parts([*table.lines, *table.controls]))
    for count, lines in enumerate(parts, start=1):
        part = f", part {count} of {len(parts)}" if len(parts) > 1 else ""
        title = f"{subject}, {_name(table.title)}{part}"
        blocks = [[one for one in lines if one in kind] for kind in (table.lines, table.controls)]
        yield latex.table(
            f"{subject}, {escaped(shortened(table.title))}{part}",
            f"{title}. {_caption(table)}" if count == 1 else title,
            latex.label(table.title, table.settings, *(line.label for line in lines)),
            columns,
            [[_cells(line)[: len(columns)] for line in block] for block in blocks],
            _over(table),
        )


def _parts(lines: Iterable[Line]) -> Iterator[tuple[Line, ...]]:
    part: list[Line] = []
    for line in lines:
        if part and sum(map(_height, [*part, line])) > _LINES:
            yield tuple(part)
            part = []
        part.append(line)
    if part:
        yield tuple(part)


def _height(line: Line) -> int:
    """Lines of text, roughly."""
    attack = line.cells[-1].attack if line.cells else ""
    below = 2 + 2 * bool(line.classes)
    return max(*(math.ceil(min(breadth(name), _NAME) / 12) + more for name, more in ((line.label, 0), (attack, below))))


def _name(text: str) -> str:
    return escaped(shortened(text, _NAME))


def _over(table: PaperTable) -> str:
    """A heading above the columns of leakage."""
    if not table.leakage:
        return ""
    before = 1 + len(table.columns) - table.leakage
    heading = f"{'&' * before} \\multicolumn{{{table.leakage}}}{{c}}{{Leakage index}}{' &' if table.has_ranks else ''}"
    return f"{heading} \\tabularnewline\n\\cmidrule(lr){{{before + 1}-{before + table.leakage}}}"


def _cells(line: Line) -> list[str]:
    label = _name(line.label) + (_UNPLACED if line.inconclusive else "")
    worst = len(line.cells) - 1
    below = [(_name(c.attack), escaped(line.classes)) if i == worst else () for i, c in enumerate(line.cells)]
    return [label, *(_cell(c, texts) for c, texts in zip(line.cells, below, strict=True)), escaped(line.rank)]


def _cell(cell: Measured, below: tuple[str, ...]) -> str:
    """The number, and in small print its interval and what else stands below it."""
    shown = escaped(cell.number, 8)
    first = (rf"\textbf{{{shown}}}" if cell.mark == "best" else shown) + _SIGNS[cell.mark]
    small = [text for text in (escaped(cell.interval, 8), *below) if text]
    return r"\newline ".join([first, *(rf"{{\scriptsize {text}}}" for text in small)])


def _caption(table: PaperTable) -> str:
    notes = {
        f"Leakage index ({INDEX_MEANING}) of the strongest attack with at most the access that the column says, "
        "and in the worst case.": table.leakage > 0,
        "Classes: how many leak significantly, and p that none does, all attacks together.": any(
            line.classes for line in table.lines
        ),
        r"Brackets: 95\,\% intervals.": True,
        "Energy ratio: E(ANN) over E(SNN), INT32 arithmetic.": OWN[1] in table.columns,
        "Rank: the first to the last that a defence may have, 1 leaks least.": table.has_ranks,
        "Bold: best of its column.": table.has("best"),
        rf"{_SIGNS['tie']}\,Not distinguishable from it: Holm-corrected p not below .05.": table.has("tie"),
        rf"{_SIGNS['untested']}\,Its difference from it was not tested.": table.has("untested"),
        f"No difference from the best was tested: {', '.join(table.untested)}.": bool(table.untested),
        rf"{_UNPLACED}\,Inconclusive.": any(line.inconclusive for line in table.lines),
        "Below the rule: controls.": bool(table.controls),
        f"Left out: {table.unattacked} that nothing attacked.": table.unattacked > 0,
        f"{escaped(table.settings)}.": True,
    }
    return " ".join(text for text, holds in notes.items() if holds)
