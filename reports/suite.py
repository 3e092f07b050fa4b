"""The numbers of ``leakbench run --suite paper`` laid out as the tables of the PrivateSNN paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from leakbench.metrics.estimate import mean
from leakbench.records import CellRecord, RunRecord, Value, fields
from leakbench.reports.curves import TIMESTEPS, Curve
from leakbench.reports.grid import GridCell, Line, cell_of, invalid, mean_cell, why_none
from leakbench.reports.paper import (
    CONVERTED,
    DISTILLED,
    ENCRYPTED,
    NAMES,
    TABLE_1,
    TABLE_3,
    Named,
    in_paper,
    method_of,
    printed_for,
    printed_timesteps,
)
from leakbench.reports.summary import JUDGED, NOISE, REAL, Group
from leakbench.reports.verdict import CHIPS
from leakbench.reports.vocabulary import (
    ENERGY_RATIOS,
    PAPER_RATIO,
    Metric,
    bounds,
    depends_on_n,
    describe,
    interval,
    number,
)

PAPER = "paper"
"""``grid["suite"]`` of a run whose report has these tables"""
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
    ("Data-free conversion", (CONVERTED,)),
    ("PrivateSNN", (DISTILLED,)),
)
"""the rows of Table 1 under their headings"""
SCENARIOS = (("Attack scenario 1", "reconversion"), ("Attack scenario 2", "direct"))
ANN, ACCURACY, ANN_ACCURACY, READ, FID = "ann", "accuracy", "ann_accuracy", "training_images_read", "fid"
QUANTIZED = "energy_ratio_quantized"
_DIFFERENCE = Metric("accuracy_difference", "Difference to the ANN", "share", "")
_MARKS = {True: "✓", False: "✗"}
_NONE = GridCell((), None, "", missing="–")

Key = tuple[str, str]
"""(defence, attack): a place of the grid"""


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
    """whether the paper prints numbers for this data set and network"""
    tables: tuple[SuiteTable, ...]
    over_timesteps: str
    """id of the curve that is Figure 5a; empty where the run has none"""
    over_samples: str
    """of Figure 5b"""


@dataclass(frozen=True)
class _Column:
    """A heading and what stands below it; what the paper printed is left out where no row has any."""

    title: str
    cell: Callable[[Key], GridCell]
    printed: bool = False


@dataclass(frozen=True)
class _Source:
    """A group of the run, and which of its rows stand for which of the paper's."""

    group: Group
    train_images: int | None
    methods: Mapping[str, list[str]]
    every: Mapping[str, list[str]]
    """the same with the rows of sweeps that were not attacked"""

    def method(self, key: Key) -> str:
        return next((method for method, labels in self.methods.items() if key[0] in labels), "")

    def labels(self, *methods: str) -> list[str]:
        return [label for method in methods for label in self.methods.get(method, [])]

    def rows(self, source: str, methods: Iterable[str]) -> list[Key]:
        """The methods' rows in one of the paper's tables: where it gives a T, those at that T if the run has any."""
        return [(label, "") for method in methods for label in self._at(method, source)]

    def _at(self, method: str, source: str) -> list[str]:
        steps = printed_timesteps(self.group, source, method)
        if steps:
            for labels in (self.methods, self.every):
                found = [label for label in labels.get(method, []) if _first(self.group, label).timesteps == steps]
                if found:
                    return found
        return self.labels(method)

    def metric(self, name: str) -> _Column:
        return _Column(describe(name).title, lambda key: mean_cell(self.group.places.get(key), name))

    def printed(self, source: str, title: str, name: str) -> _Column:
        def cell(key: Key) -> GridCell:
            found = printed_for(self.group, source, self.group.places.get(key), name)
            return _text(found.text) if found else _NONE

        return _Column(f"Paper: {title}", cell, True)

    def claims(self, rows: Mapping[str, Named]) -> _Column:
        """What the paper says that a method addresses."""

        def cell(key: Key) -> GridCell:
            row = rows.get(self.method(key))
            return _text(f"data {_MARKS[row.data]}, class {_MARKS[row.classes]}") if row else _NONE

        return _Column("Paper: leakage addressed", cell, True)

    def read(self) -> _Column:
        """Private images that the defence was handed, of how many."""

        def cell(key: Key) -> GridCell:
            found = mean_cell(self.group.places.get(key), READ)
            of = f"of {self.train_images:,}" if self.train_images else ""
            return replace(found, lines=tuple(replace(line, n=of) for line in found.lines))

        return _Column(describe(READ).title, cell)

    def worst_case(self) -> list[_Column]:
        """The verdict: its index, the attack behind it, and its outcome in words."""

        def index(key: Key) -> GridCell:
            attack, worst = self.group.worst_case(key[0])
            found = cell_of(worst)
            by = (Line("", f"by {attack}", "", ""),) if attack and found.lines else ()
            return replace(found, lines=(*found.lines, *by))

        def outcome(key: Key) -> GridCell:
            verdict = self.group.verdicts.get(key[0])
            if verdict:
                return _text(CHIPS[verdict.outcome][0])
            if key[0] not in self.group.attacked:
                return _text("not attacked")
            return _text("control" if key[0] in self.group.controls else "no verdict")

        return [
            _Column("Worst-case class leakage", index),
            _Column("Verdict", outcome),
        ]

    def timesteps(self) -> _Column:
        """T; 1 where nothing spikes, as the paper counts it."""
        return _Column("T", lambda key: _text(f"{_first(self.group, key[0]).timesteps or 1:,}"))

    def samples(self) -> _Column:
        """Synthetic images that encryption was trained on."""

        def cell(key: Key) -> GridCell:
            trained = self.method(key) in (ENCRYPTED, DISTILLED)
            samples = _first(self.group, key[0]).defense_params.get("samples") if trained else None
            return _text(f"{samples:,}" if isinstance(samples, int) else "")

        return _Column("Trained on synthetic", cell)

    def scored(self, name: str) -> _Column:
        """A value of an attack, and whether it says anything of its defence."""

        def cell(key: Key) -> GridCell:
            found = mean_cell(self.group.places.get(key), name)
            return replace(found, invalid=invalid(self.group.rows.get(key))) if found.lines else found

        return _Column(describe(name).title, cell)

    def table(
        self,
        title: str,
        note: str,
        names: Mapping[str, str],
        columns: Sequence[_Column],
        blocks: Iterable[tuple[str, Iterable[Key]]],
    ) -> SuiteTable | None:
        """The table without blocks that have no row; None where none has one."""
        found = [(heading, list(keys)) for heading, keys in blocks]
        whys = {key: why_none(self.group.places.get(key)) for _, keys in found for key in keys}
        kept = [
            column
            for column in columns
            if not column.printed or any(column.cell(key).lines for key, why in whys.items() if not why)
        ]

        def row(key: Key) -> SuiteRow:
            cells = () if whys[key] else tuple(column.cell(key) for column in kept)
            return SuiteRow(key[0] or f"{key[1]} images", names.get(self.method(key), ""), cells, whys[key])

        made = tuple(Block(heading, tuple(row(key) for key in keys)) for heading, keys in found if keys)
        return SuiteTable(title, note, tuple(column.title for column in kept), made) if made else None


def suite(record: RunRecord, group: Group, curves: Iterable[Curve]) -> Suite | None:
    """The paper's tables that this group has rows for; None for any other run than one of the paper's suite."""
    if record.grid.get("suite") != PAPER:
        return None
    train_images = next((info.train_images for info in record.datasets if info.name == group.dataset), None)
    every = _every(group)
    source = _Source(group, train_images, _methods(group, every), every)
    tables = (make(source) for make in (_leakage, _accuracies, _steps, _distances, _energies))
    drawn = [(curve, {series.plugin for series in curve.series}) for curve in curves if curve.metric.name == ACCURACY]
    return Suite(
        in_paper(group),
        tuple(table for table in tables if table),
        next((curve.id for curve, plugins in drawn if curve.across == TIMESTEPS and CONVERTED in plugins), ""),
        next((curve.id for curve, plugins in drawn if curve.across == "samples" and DISTILLED in plugins), ""),
    )


def _every(group: Group) -> dict[str, list[str]]:
    """The paper's row -> its labels."""
    found: dict[str, list[str]] = {}
    for label in group.defenses:
        found.setdefault(method_of(_first(group, label)), []).append(label)
    return found


def _methods(group: Group, found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The paper's row -> its labels: of a sweep those that were attacked, or all where none was."""
    attacked = group.attacked
    methods = {method: [label for label in labels if label in attacked] or labels for method, labels in found.items()}
    # Of runs without distillation the one that is like a run with it otherwise: the other steps are the same then.
    distilled = [_besides_od(group, label) for label in methods.get(DISTILLED, [])]
    alike = [label for label in methods.get(ENCRYPTED, []) if _besides_od(group, label) in distilled]
    return methods | ({ENCRYPTED: alike} if alike else {})


def _besides_od(group: Group, label: str) -> tuple[int | None, dict[str, object]]:
    first = _first(group, label)
    return first.timesteps, {name: value for name, value in first.defense_params.items() if name != "od"}


def _first(group: Group, label: str) -> CellRecord:
    """A cell of the defence: by itself where it has one, and one that worked."""
    cells = [cell for (defense, _), place in group.places.items() if defense == label for cell in place.cells]
    return min(cells, key=lambda cell: (cell.attack != "", cell.status != "ok"))


def _leakage(source: _Source) -> SuiteTable | None:
    note = (
        "Data leakage is what the framework counted, class leakage the worst case over the attacks of this run. Beside "
        "them stands what the paper says that its kinds of methods address."
    )
    columns = [source.read(), *source.worst_case(), source.claims(TABLE_1)]
    blocks = [(title, source.rows("Table 1", names)) for title, names in METHODS]
    return source.table("Table 1: data and class leakage", note, NAMES, columns, blocks)


def _accuracies(source: _Source) -> SuiteTable | None:
    note = (
        "With one seed the difference has Newcombe's interval for independent samples; both networks saw the same test "
        "images, so it is rather too wide. With several it has Student's over the seeds' differences."
    )
    columns = [
        source.read(),
        source.timesteps(),
        source.metric(ACCURACY),
        source.metric(ANN_ACCURACY),
        _Column(_DIFFERENCE.title, lambda key: _difference(source.group, key)),
        source.printed("Table 2", "accuracy", ACCURACY),
    ]
    return source.table("Table 2: accuracy", note, NAMES, columns, [("", _all(source, "Table 2"))])


def _steps(source: _Source) -> SuiteTable | None:
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
    return source.table("Table 3: what each step adds", note, names, columns, [("", source.rows("Table 3", TABLE_3))])


def _distances(source: _Source) -> SuiteTable | None:
    group, labels = source.group, source.labels(CONVERTED, DISTILLED)
    blocks = [
        (f"{scenario}: {attack}", [(label, attack) for label in labels if (label, attack) in group.places])
        for scenario, plugin in SCENARIOS
        for attack in _attacks(group, plugin)
    ]
    measured = {name for _, keys in blocks for key in keys for name in group.places[key].metrics if depends_on_n(name)}
    if not measured:
        return None
    metric = FID if FID in measured else min(measured, key=group.attack_metrics().index)
    anchors = [("", anchor) for anchor in (NOISE, REAL) if group.reading("", anchor, metric)]
    note = (
        "Lower is nearer to the test images. A distance alone misleads: it grows with whatever tells an image from a "
        "real one, not with what hides its class. Judge accuracy is the share whose class is recognised."
    )
    columns = [source.scored(metric), source.scored(JUDGED), source.printed("Table 4", "FID", metric)]
    names = {CONVERTED: "without encryption", DISTILLED: "with encryption"}
    title = f"Table 4: {describe(metric).title}"
    return source.table(title, note, names, columns, [*blocks, ("For comparison", anchors)])


def _energies(source: _Source) -> SuiteTable | None:
    places = source.group.places
    ann = source.rows("Table 5", [ANN])
    keys = [
        key
        for key in _all(source, "Table 5")
        if key in ann or (key in places and any(places[key].reading(name) for name in ENERGY_RATIOS))
    ]
    if not set(keys) - set(ann):
        return None

    def ratio(name: str) -> _Column:
        found = source.metric(name)
        return found if name == QUANTIZED else replace(found, cell=_unless(found.cell, ann, _text("1×")))

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
        "and put an ANN of no more levels than T steps can tell apart in the ANN's place."
    )
    return source.table("Table 5: energy", note, NAMES, columns, [("", keys)])


def _all(source: _Source, table: str) -> list[Key]:
    """The ANN, then every method in the order of Table 1."""
    return source.rows(table, [ANN, *(name for _, names in METHODS for name in names)])


def _attacks(group: Group, plugin: str) -> list[str]:
    """The labels of an attack's plugin."""
    names = {cell.attack: cell.attack_name or cell.attack for place in group.places.values() for cell in place.cells}
    return [attack for attack in group.attacks if names[attack] == plugin]


def _unless(cell: Callable[[Key], GridCell], keys: Sequence[Key], other: GridCell) -> Callable[[Key], GridCell]:
    return lambda key: other if key in keys else cell(key)


def _text(text: str) -> GridCell:
    return GridCell((Line("", text, "", ""),), None, "") if text else _NONE


def _difference(group: Group, key: Key) -> GridCell:
    """The accuracy less the ANN's."""
    place = group.places.get(key)
    if place is None or group.plugin(key[0]) == ANN:
        return _NONE
    pairs = []
    for cell in place.cells:
        own, other = (next((v for v in cell.values if v.metric == name), None) for name in (ACCURACY, ANN_ACCURACY))
        if own and other and math.isfinite(own.value) and math.isfinite(other.value):
            pairs.append((own, other))
    if not pairs:
        return _NONE
    if len(pairs) == 1:
        found, counted = newcombe(*pairs[0]), f"n={pairs[0][0].n:,}"
    else:
        over = mean(own.value - other.value for own, other in pairs)
        found, counted = Value(metric=_DIFFERENCE.name, **fields(over)), f"n={len(pairs)} seeds"
    # as many decimals as the accuracies themselves have
    written = found.model_copy(update={"n": max(own.n for own, _ in pairs)})
    line = Line("", number(_DIFFERENCE, written), bounds(_DIFFERENCE, written), counted)
    return GridCell((line,), None, repr(found.value))


def newcombe(one: Value, other: Value) -> Value:
    """one - other of two shares with the interval of Newcombe (1998), method 10, from their own Wilson intervals.

    It is for two independent samples. No interval where either share has none.
    """
    value = one.value - other.value
    ends, less = interval(one), interval(other)
    if ends is None or less is None:
        return Value(metric=_DIFFERENCE.name, value=value, n=one.n)
    low = value - math.hypot(one.value - ends[0], less[1] - other.value)
    high = value + math.hypot(ends[1] - one.value, other.value - less[0])
    return Value(metric=_DIFFERENCE.name, value=value, low=low, high=high, n=one.n)
