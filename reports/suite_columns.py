"""The columns of the paper's tables, and which rows of a run stand for which of the paper's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from leakbench.leakage.controls import ANN
from leakbench.leakage.seed_group import over_networks
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.intervals import newcombe
from leakbench.metrics.metric import Declaration
from leakbench.records import CellRecord, Value, Verdict, fields
from leakbench.reports.grid import GridCell, Line, cell_of, invalid, mean_cell
from leakbench.reports.paper import DISTILLED, ENCRYPTED, Named, method_of, printed_for, printed_timesteps
from leakbench.reports.summary import Group
from leakbench.reports.verdict import CHIPS
from leakbench.reports.vocabulary import bounds, number

ACCURACY, ANN_ACCURACY, READ = "accuracy", "ann_accuracy", "training_images_read"
DIFFERENCE = Declaration("accuracy_difference", "Difference to the ANN", "", "share")
_MARKS = {True: "✓", False: "✗"}
NOTHING = GridCell((), None, "", missing="–")

Key = tuple[str, str]
"""(defence, attack): an experiment"""


@dataclass(frozen=True)
class Column:
    """A heading and what stands below it."""

    title: str
    cell: Callable[[Key], GridCell]
    optional: bool = False
    """whether it is left out where no row has anything there: the paper's numbers, a leak that was not asked about"""


@dataclass(frozen=True)
class Source:
    """A group of the run, and which of its rows stand for which of the paper's."""

    group: Group
    train_images: int | None
    methods: Mapping[str, list[str]]
    every: Mapping[str, list[str]]
    """the same with the rows of sweeps that were not attacked"""
    members: Mapping[str, Verdict]
    """label -> the verdict on members"""

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
                at_steps = [
                    label for label in labels.get(method, []) if first_cell(self.group, label).timesteps == steps
                ]
                if at_steps:
                    return at_steps
        return self.labels(method)

    def metric(self, name: str) -> Column:
        return Column(
            self.group.vocabulary.describe(name).title, lambda key: mean_cell(self.group.experiments.get(key), name)
        )

    def printed(self, source: str, title: str, name: str) -> Column:
        def cell(key: Key) -> GridCell:
            printed_number = printed_for(self.group, source, self.group.experiments.get(key), name)
            return text_cell(printed_number.text) if printed_number else NOTHING

        return Column(f"Paper: {title}", cell, True)

    def claims(self, rows: Mapping[str, Named]) -> Column:
        """What the paper says that a method addresses."""

        def cell(key: Key) -> GridCell:
            row = rows.get(self.method(key))
            return text_cell(f"data {_MARKS[row.data]}, class {_MARKS[row.classes]}") if row else NOTHING

        return Column("Paper: leakage addressed", cell, True)

    def read(self) -> Column:
        """Private images that the defence was handed, of how many."""

        def cell(key: Key) -> GridCell:
            images_read = mean_cell(self.group.experiments.get(key), READ)
            total = f"of {self.train_images:,}" if self.train_images else ""
            return replace(images_read, lines=tuple(replace(line, n=total) for line in images_read.lines))

        return Column(self.group.vocabulary.describe(READ).title, cell)

    def worst_case(self) -> list[Column]:
        """The verdict: its index, the attack behind it, and its outcome in words."""

        def index(key: Key) -> GridCell:
            attack, worst = self.group.worst_case(key[0])
            return _by(cell_of(worst), attack)

        def outcome(key: Key) -> GridCell:
            verdict = self.group.verdicts.get(key[0])
            if verdict:
                # where attacks were misled, the index is of what they saw, and may be the lowest of all
                how_much = "; how much is open" if verdict.outcome == "leaks" and not verdict.comparable else ""
                return text_cell(f"{CHIPS[verdict.outcome][0]}{how_much}")
            if key[0] not in self.group.attacked:
                return text_cell("not attacked")
            return text_cell("control" if key[0] in self.group.controls else "no verdict")

        return [
            Column("Worst-case class leakage", index),
            Column("Verdict", outcome),
        ]

    def worst_case_of_members(self) -> list[Column]:
        """The same of members."""

        def index(key: Key) -> GridCell:
            verdict = self.members.get(key[0])
            return _by(cell_of(verdict.index), verdict.attack) if verdict else NOTHING

        def outcome(key: Key) -> GridCell:
            verdict = self.members.get(key[0])
            return text_cell(CHIPS[verdict.outcome][0]) if verdict else NOTHING

        return [Column("Worst-case member leakage", index, True), Column("Verdict on members", outcome, True)]

    def timesteps(self) -> Column:
        """T; 1 where nothing spikes, as the paper counts it."""
        return Column("T", lambda key: text_cell(f"{first_cell(self.group, key[0]).timesteps or 1:,}"))

    def samples(self) -> Column:
        """Synthetic images that encryption was trained on."""

        def cell(key: Key) -> GridCell:
            trained = self.method(key) in (ENCRYPTED, DISTILLED)
            samples = first_cell(self.group, key[0]).defense_params.get("samples") if trained else None
            return text_cell(f"{samples:,}" if isinstance(samples, int) else "")

        return Column("Trained on synthetic", cell)

    def scored(self, name: str) -> Column:
        """A value of an attack, and whether it says anything of its defence."""

        def cell(key: Key) -> GridCell:
            shown = mean_cell(self.group.experiments.get(key), name)
            return replace(shown, invalid=invalid(self.group.rows.get(key))) if shown.lines else shown

        return Column(self.group.vocabulary.describe(name).title, cell)


def _by(shown: GridCell, attack: str) -> GridCell:
    """An index with the attack behind it."""
    by = (Line("", f"by {attack}", "", ""),) if attack and shown.lines else ()
    return replace(shown, lines=(*shown.lines, *by))


def all_labels(group: Group) -> dict[str, list[str]]:
    """The paper's row -> its labels."""
    labels: dict[str, list[str]] = {}
    for label in group.defenses:
        labels.setdefault(method_of(first_cell(group, label)), []).append(label)
    return labels


def paper_labels(group: Group, every: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The paper's row -> its labels: of a sweep those that were attacked, or the method by itself, or all."""
    methods = {method: group.apart_from_sweeps(labels) for method, labels in every.items()}
    # Of runs without distillation the one that is like a run with it otherwise: the other steps are the same then.
    distilled = [_besides_od(group, label) for label in methods.get(DISTILLED, [])]
    alike = [label for label in methods.get(ENCRYPTED, []) if _besides_od(group, label) in distilled]
    return methods | ({ENCRYPTED: alike} if alike else {})


def _besides_od(group: Group, label: str) -> tuple[int | None, dict[str, object]]:
    first = first_cell(group, label)
    return first.timesteps, {name: value for name, value in first.defense_params.items() if name != "od"}


def first_cell(group: Group, label: str) -> CellRecord:
    """A cell of the defence: by itself where it has one, and one that worked."""
    cells = [
        cell for (defense, _), experiment in group.experiments.items() if defense == label for cell in experiment.cells
    ]
    return min(cells, key=lambda cell: (cell.attack != "", cell.status != "ok"))


def text_cell(text: str) -> GridCell:
    return GridCell((Line("", text, "", ""),), None, "") if text else NOTHING


def difference_cell(group: Group, key: Key) -> GridCell:
    """The accuracy less the ANN's."""
    experiment = group.experiments.get(key)
    if experiment is None or group.plugin(key[0]) == ANN:
        return NOTHING
    pairs = []
    for cell in experiment.cells:
        accuracy, other = (
            next((v for v in cell.values if v.metric == name), None) for name in (ACCURACY, ANN_ACCURACY)
        )
        if accuracy and other and math.isfinite(accuracy.value) and math.isfinite(other.value):
            pairs.append((accuracy, other))
    if not pairs:
        return NOTHING
    if len(pairs) == 1:
        found, counted = difference_of(*pairs[0]), f"n={pairs[0][0].n:,}"
    else:
        found, counted = over_networks([difference_of(*pair) for pair in pairs]), f"n={len(pairs)} seeds"
    difference = Value(metric=DIFFERENCE.name, **fields(found))
    # as many decimals as the accuracies themselves have
    written = difference.model_copy(update={"n": max(accuracy.n for accuracy, _ in pairs)})
    line = Line("", number(DIFFERENCE.unit, written), bounds(DIFFERENCE.unit, written), counted)
    return GridCell((line,), None, repr(difference.value))


def difference_of(one: Value, other: Value) -> Estimate:
    """one - other of two shares of independent samples, with Newcombe's interval; the same number where they agree."""
    found = newcombe(one.estimate, other.estimate)
    return Estimate(round(found.value, 12), found.low, found.high, one.n)
