"""What came out of a run or a comparison: tables as DataFrames, figures, images, and the first screen of the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from leakbench.errors import UnknownName, UsageError, printable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from leakbench.bench.comparison import Comparison
    from leakbench.records import RecordFiles, RunRecord
    from leakbench.reports.summary import Group


@dataclass(frozen=True)
class AttackImage:
    """An image that a run kept."""

    seed: int
    target: str
    """the class that it was made for"""
    predicted: str
    """what the evaluation models see in it where they have to name a class; empty where none was asked"""
    confidence: float | None
    """their mean probability of that class"""
    accepted: bool | None
    """whether they see a class in it where they may also answer "none of these"; None where they were not asked"""
    image: Image = field(repr=False)


@dataclass(frozen=True, repr=False)
class RunResult:
    """What a run wrote. Two are equal where their records are, wherever they lie."""

    folder: Path = field(compare=False)
    files: RecordFiles = field(compare=False)
    record: RunRecord
    """all of it, as in results.json"""

    @property
    def report(self) -> Path:
        """The report's page, which opens from disk."""
        return self.folder / self.files.page

    @property
    def failed(self) -> int:
        """How many cells failed: the report says why."""
        return sum(cell.status == "failed" for cell in self.record.cells)

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row a verdict (:func:`leakbench.reports.frames.verdicts_frame`)."""
        from leakbench.reports.frames import verdicts_frame

        return verdicts_frame(self.record)

    @property
    def attacks(self) -> pd.DataFrame:
        """One row an attack on a defence, all seeds together (:func:`leakbench.reports.frames.attacks_frame`)."""
        from leakbench.reports.frames import attacks_frame

        return attacks_frame(self.record)

    @property
    def values(self) -> pd.DataFrame:
        """One row a measured value: the long table of :meth:`to_frame`."""
        return self.to_frame()

    def to_frame(self, shape: Literal["long", "wide"] = "long") -> pd.DataFrame:
        """What ``leakbench export --csv`` writes: one row a measured value, or one a cell with metrics as columns."""
        from leakbench.reports.frames import long_frame, wide_frame

        if shape not in ("long", "wide"):
            raise UnknownName("shape", str(shape), ("long", "wide"))
        return long_frame(self.record) if shape == "long" else wide_frame(self.record)

    def images(
        self, defense: str, attack: str, dataset: str | None = None, model: str | None = None
    ) -> list[AttackImage]:
        """The images that the run kept of an attack on a defence, by their labels, of all seeds; they are few a class.

        Without a defence ("") the attacks "real" and "noise" are images to compare with. UsageError where the attack
        was run on several data sets or models and none is named; DataError where a file is missing or damaged.
        """
        from leakbench.reports.images import opened
        from leakbench.reports.summary import class_names

        shown: list[AttackImage] = []
        of_defense = [cell for cell in self.record.cells if cell.defense == defense and cell.attack and not cell.of]
        if not of_defense:
            attacked = {printable(cell.defense) for cell in self.record.cells if cell.attack}
            raise UnknownName("attacked defense", defense, attacked)
        cells = [cell for cell in of_defense if cell.attack == attack]
        if not cells:
            there = {printable(cell.attack) for cell in of_defense}
            raise UnknownName(f"attack on {defense!r}", attack, there)
        chosen = _chosen([(cell.dataset, cell.model) for cell in cells], dataset, model)
        for cell in cells:
            if (cell.dataset, cell.model) != chosen:
                continue
            names = class_names(self.record, cell.dataset)
            for one in cell.pictures:
                predicted = "" if one.named is None else names.get(one.named, str(one.named))
                target = names.get(one.target, str(one.target))
                picture = opened(self.folder, one.path)
                shown.append(AttackImage(cell.seed, target, predicted, one.confidence, one.accepted, picture))
        return shown

    def plot_leakage(self, dataset: str | None = None, model: str | None = None) -> Figure:
        """The leakage index of each defence's worst case, with its interval. Names where the run has several."""
        from leakbench.reports.leakage import plot, rows_of_run

        return _drawn(plot(rows_of_run(self._group(dataset, model))), "no defence has a leakage index")

    def plot_tradeoff(self, dataset: str | None = None, model: str | None = None) -> Figure:
        """Accuracy, leakage and energy of each defence. Names where the run has several."""
        from leakbench.bench.comparison import compare
        from leakbench.reports.tradeoff import plot, standing

        group = self._group(dataset, model)
        return _drawn(
            plot(group, *standing(group, compare({"": self.record}))),
            "no defence has both an accuracy and a leakage index",
        )

    def plot_budget(self, access: str | None = None, dataset: str | None = None, model: str | None = None) -> Figure:
        """The leakage index over the attacker's cost, for attackers with so much access: weights, scores or labels.

        The most that anything was attacked with where none is named. Names where the run has several.
        """
        from leakbench.reports.budget import curves_by_access, plot

        curves = curves_by_access(self._group(dataset, model))
        if not curves:
            return _drawn(None, "no leak over the attacker's cost was recorded")
        if access is not None and access not in curves:
            raise UnknownName("access", access, curves)
        return plot(curves[access or next(iter(curves))])

    def _group(self, dataset: str | None, model: str | None) -> Group:
        """The part of the run whose numbers may be compared."""
        from leakbench.reports.summary import groups

        by_name = {(one.dataset, one.model): one for one in groups(self.record)}
        return by_name[_chosen(by_name, dataset, model)]

    def __repr__(self) -> str:
        from leakbench.reports.first_screen import run_lines

        return "\n".join(map(printable, run_lines(self.record, self.report)))

    def _repr_html_(self) -> str:
        from leakbench.reports.first_screen import run_html

        return run_html(self.record, self.report)


@dataclass(frozen=True, repr=False)
class ComparisonResult:
    """What a comparison wrote. Two are equal where their comparisons are, wherever they lie."""

    folder: Path = field(compare=False)
    comparison: Comparison
    """all of it, as in comparison.json"""

    @property
    def report(self) -> Path:
        """The comparison's page, which opens from disk."""
        return self.folder / "comparison.html"

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row a defence: its rank, outcome, worst case and values
        (:func:`leakbench.reports.frames.defenses_frame`)."""
        from leakbench.reports.frames import defenses_frame

        return defenses_frame(self.comparison)

    @property
    def values(self) -> pd.DataFrame:
        """One row a pair of defences and what of them is compared: the long table of :meth:`to_frame`."""
        return self.to_frame()

    def to_frame(self) -> pd.DataFrame:
        """One row a pair of defences and what of them is compared (:func:`leakbench.reports.frames.pairs_frame`)."""
        from leakbench.reports.frames import pairs_frame

        return pairs_frame(self.comparison)

    def plot_leakage(self) -> Figure:
        """The leakage index of each defence's worst case, with its interval."""
        from leakbench.reports.leakage import plot, rows_of_comparison

        return _drawn(plot(rows_of_comparison(self.comparison.defenses)), "no defence has a leakage index")

    def __repr__(self) -> str:
        from leakbench.reports.first_screen import comparison_lines

        return "\n".join(map(printable, comparison_lines(self.comparison, self.report)))

    def _repr_html_(self) -> str:
        from leakbench.reports.first_screen import comparison_html

        return comparison_html(self.comparison, self.report)


def _chosen(there: Iterable[tuple[str, str]], dataset: str | None, model: str | None) -> tuple[str, str]:
    """The one (data set, model) that is named; UsageError where none or several are. Private images have no model."""
    every = dict.fromkeys(there)
    found = [one for one in every if dataset in (None, one[0]) and (model is None or one[1] in (model, ""))]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"dataset={one[0]!r} model={one[1]!r}" for one in every)
    raise UsageError(f"{'name one of several' if found else 'no such data set and model, there are'}: {names}")


def _drawn(figure: Figure | None, why: str) -> Figure:
    if figure is None:
        raise UsageError(f"there is nothing to draw: {why}")
    return figure
