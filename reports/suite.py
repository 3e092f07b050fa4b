"""The numbers of ``leakbench run --suite`` laid out as the tables of the PrivateSNN paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from leakbench.leakage.controls import ANN
from leakbench.leakage.membership.kind import Membership
from leakbench.metrics.energy import ENERGY_RATIOS, PAPER_RATIO
from leakbench.records import RunRecord
from leakbench.reports.curves import TIMESTEPS, Curve
from leakbench.reports.grid import GridCell, why_none
from leakbench.reports.paper import (
    CITATION,
    CONVERTED,
    DISTILLED,
    NAMES,
    TABLE_1,
    TABLE_3,
    in_paper,
    unlike_paper,
)
from leakbench.reports.report import Report
from leakbench.reports.suite_columns import (
    ACCURACY,
    ANN_ACCURACY,
    DIFFERENCE,
    Column,
    Key,
    Source,
    all_labels,
    difference_cell,
    paper_labels,
    text_cell,
)
from leakbench.reports.summary import JUDGED, NOISE, REAL, Group

PAPER, PRIVACY = "paper", "privacy"
"""``grid["suite"]`` of runs whose reports have these tables, and of those that have Table 1 alone"""
METHODS = (
    ("Private ANN approaches", ("zskd", "knowledge_within")),
    (
        "ANN-SNN conversion",
        (
            "diehl2015",
            "rueckauer2017",
            "sengupta2019",
            "han2020",
            "han_roy2020",
            "zambrano2019",
            "deng_gu2021",
            "li2021",
            "bu2022",
        ),
    ),
    ("SNN surrogate gradients", ("stbp", "tdbn", "lee2020")),
    ("Differentially private training", ("dpsgd",)),
    ("Data-free conversion", (CONVERTED,)),
    ("PrivateSNN", (DISTILLED,)),
)
"""the rows of Table 1 under their headings"""
SCENARIOS = (("Attack scenario 1", "reconversion"), ("Attack scenario 2", "direct"))
FID = "fid"
QUANTIZED = "energy_ratio_quantized"


@dataclass(frozen=True)
class SuiteRow:
    """One row: what the run and what the paper call it, and its cells, or why there are none."""

    label: str
    named: str
    """empty where the paper has no name for it"""
    cells: tuple[GridCell, ...]
    why_empty: str = ""

    @property
    def heading(self) -> str:
        """Both names in one piece, for tables without markup."""
        return f"{self.label} ({self.named})" if self.named else self.label


@dataclass(frozen=True)
class Block:
    """Rows under one heading, which may be empty."""

    title: str
    rows: tuple[SuiteRow, ...]


@dataclass(frozen=True)
class SuiteTable:
    """One table of the paper."""

    title: str
    note: str
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Suite:
    """The paper's tables of one data set and network, and where its figures stand."""

    beside: bool
    """whether the paper prints numbers for this data set"""
    departures: tuple[str, ...]
    """what stands beside them and was made on less or more than in the paper, a line a defence"""
    tables: tuple[SuiteTable, ...]
    over_timesteps: str
    """id of the curve that is Figure 5a; empty where the run has none"""
    over_samples: str
    """of Figure 5b"""


@dataclass(frozen=True)
class SuiteView:
    """The paper's tables of one data set and network, on the page."""

    group: Group
    suite: Suite
    illustrated: bool
    """whether the image wall, which is Figure 6, has pictures of it"""


def section(report: Report) -> dict[str, Any] | None:
    views = [
        SuiteView(group, tables, group.number in report.walls)
        for group in report.groups
        if (tables := suite(report.record, group, report.curves[group.number]))
    ]
    return {"views": views, "citation": CITATION} if views else None


def suite(record: RunRecord, group: Group, curves: Iterable[Curve]) -> Suite | None:
    """The paper's tables that this group has rows for; None for any other run than one of a suite."""
    name = record.grid.get("suite")
    if name not in (PAPER, PRIVACY):
        return None
    train_images = next((info.train_images for info in record.datasets if info.name == group.dataset), None)
    every = all_labels(group)
    members = {
        verdict.defense: verdict
        for verdict in record.verdicts
        if (verdict.dataset, verdict.model, verdict.leakage) == (group.dataset, group.model, Membership.name)
    }
    source = Source(group, train_images, paper_labels(group, every), every, members)
    others = (_accuracies, _steps, _distances, _energies) if name == PAPER else ()
    tables = (make(source) for make in (_leakage, *others))
    drawn = [(curve, {series.plugin for series in curve.series}) for curve in curves if curve.metric.name == ACCURACY]
    return Suite(
        in_paper(group),
        tuple(unlike_paper(group, record.datasets)),
        tuple(table for table in tables if table),
        next((curve.id for curve, plugins in drawn if curve.across == TIMESTEPS and CONVERTED in plugins), ""),
        next((curve.id for curve, plugins in drawn if curve.across == "samples" and DISTILLED in plugins), ""),
    )


def _table(
    source: Source,
    title: str,
    note: str,
    names: Mapping[str, str],
    columns: Sequence[Column],
    blocks: Iterable[tuple[str, Iterable[Key]]],
) -> SuiteTable | None:
    """The table without blocks that have no row; None where none has one."""
    rows_by_heading = [(heading, list(keys)) for heading, keys in blocks]
    whys = {key: why_none(source.group.experiments.get(key)) for _, keys in rows_by_heading for key in keys}
    kept = [
        column
        for column in columns
        if not column.optional or any(column.cell(key).lines for key, why in whys.items() if not why)
    ]

    def row(key: Key) -> SuiteRow:
        cells = () if whys[key] else tuple(column.cell(key) for column in kept)
        return SuiteRow(key[0] or f"{key[1]} images", names.get(source.method(key), ""), cells, whys[key])

    filled = tuple(Block(heading, tuple(row(key) for key in keys)) for heading, keys in rows_by_heading if keys)
    return SuiteTable(title, note, tuple(column.title for column in kept), filled) if filled else None


def _leakage(source: Source) -> SuiteTable | None:
    note = (
        "Data leakage is what the framework counted and, where membership inference attacks ran, what these found: "
        "members are those of the ANN's training, however few images the conversion read; an index of 0 is chance, and "
        "no evidence of privacy. Class leakage is the worst case over the attacks of this run. The last column has the "
        "leakages that the method addresses according to the paper."
    )
    columns = [source.read(), *source.worst_case(), *source.worst_case_of_members(), source.claims(TABLE_1)]
    blocks = [(title, source.rows("Table 1", names)) for title, names in METHODS]
    return _table(source, "Table 1: data and class leakage", note, NAMES, columns, blocks)


def _accuracies(source: Source) -> SuiteTable | None:
    note = (
        "With one seed the difference has Newcombe's interval for independent samples; both networks saw the same test "
        "images, so it is rather too wide. With several it has Student's over the seeds' differences."
    )
    columns = [
        source.read(),
        source.timesteps(),
        source.metric(ACCURACY),
        source.metric(ANN_ACCURACY),
        Column(DIFFERENCE.title, lambda key: difference_cell(source.group, key)),
        source.printed("Table 2", "accuracy", ACCURACY),
    ]
    return _table(source, "Table 2: accuracy", note, NAMES, columns, [("", _all(source, "Table 2"))])


def _steps(source: Source) -> SuiteTable | None:
    note = "DC: data-free conversion; CET: class encryption training; OD: on-device distillation."
    columns = [
        source.read(),
        *source.worst_case(),
        source.samples(),
        source.timesteps(),
        source.metric(ACCURACY),
        source.claims(TABLE_3),
        source.printed("Table 3", "accuracy", ACCURACY),
    ]
    names = {method: row.name for method, row in TABLE_3.items()}
    return _table(source, "Table 3: what each step adds", note, names, columns, [("", source.rows("Table 3", TABLE_3))])


def _distances(source: Source) -> SuiteTable | None:
    group, labels = source.group, source.labels(CONVERTED, DISTILLED)
    blocks = [
        (f"{scenario}: {attack}", [(label, attack) for label in labels if (label, attack) in group.experiments])
        for scenario, plugin in SCENARIOS
        for attack in _attacks(group, plugin)
    ]
    metrics = {name for _, keys in blocks for key in keys for name in group.experiments[key].metrics}
    measured = {name for name in metrics if group.vocabulary.describe(name).needs_same_n}
    if not measured:
        return None
    metric = FID if FID in measured else min(measured, key=group.attack_metrics().index)
    anchors = [("", anchor) for anchor in (NOISE, REAL) if group.reading("", anchor, metric)]
    note = (
        "Lower is nearer to the test images. A distance alone misleads: it grows with any difference from real "
        "images, also where the class stays recognisable. Judge accuracy is the share classified as the target class."
    )
    columns = [source.scored(metric), source.scored(JUDGED), source.printed("Table 4", "FID", metric)]
    names = {CONVERTED: "without encryption", DISTILLED: "with encryption"}
    title = f"Table 4: {group.vocabulary.describe(metric).title}"
    return _table(source, title, note, names, columns, [*blocks, ("For comparison", anchors)])


def _energies(source: Source) -> SuiteTable | None:
    experiments = source.group.experiments
    ann = source.rows("Table 5", [ANN])
    keys = [
        key
        for key in _all(source, "Table 5")
        if key in ann or (key in experiments and any(experiments[key].reading(name) for name in ENERGY_RATIOS))
    ]
    if not set(keys) - set(ann):
        return None

    def ratio(name: str) -> Column:
        column = source.metric(name)
        return column if name == QUANTIZED else replace(column, cell=_unless(column.cell, ann, text_cell("1×")))

    columns = [
        source.timesteps(),
        source.metric(ACCURACY),
        source.printed("Table 5", "accuracy", ACCURACY),
        ratio(PAPER_RATIO),
        source.printed("Table 5", "E(ANN) / E(SNN)", PAPER_RATIO),
        *(ratio(name) for name in ENERGY_RATIOS if name != PAPER_RATIO),
    ]
    note = (
        "Constants of 45 nm. The paper's ratios compare with its own count alone: spikes per neuron of a layer, before "
        "pooling and without the input's. It names no constants; INT32 is the only set under which they are plausible. "
        "INT32 and FP32 count accumulates where spikes arrive, the input's included. The last two add memory accesses, "
        "and replace the ANN by one with no more activation levels than T steps can represent."
    )
    return _table(source, "Table 5: energy", note, NAMES, columns, [("", keys)])


def _all(source: Source, table: str) -> list[Key]:
    """The ANN, then every method in the order of Table 1."""
    return source.rows(table, [ANN, *(name for _, names in METHODS for name in names)])


def _attacks(group: Group, plugin: str) -> list[str]:
    """The labels of an attack's plugin."""
    names = {
        cell.attack: cell.attack_name or cell.attack
        for experiment in group.experiments.values()
        for cell in experiment.cells
    }
    return [attack for attack in group.attacks if names[attack] == plugin]


def _unless(cell: Callable[[Key], GridCell], keys: Sequence[Key], other: GridCell) -> Callable[[Key], GridCell]:
    return lambda key: other if key in keys else cell(key)
