"""How much each defence leaks, in one figure: the index of the worst case with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leakbench.bench.comparison import ComparedDefense
from leakbench.records import Value
from leakbench.reports.drawing import CONTROL, DEFENSE, INK, MUTED, PAPER, figure, short
from leakbench.reports.summary import Group
from leakbench.reports.vocabulary import interval, value_of

_ROOM, _ROW = 1.1, 0.26
"""inches: around the rows, and of one"""


@dataclass(frozen=True)
class Row:
    """One defence and the index of its worst case."""

    label: str
    control: bool
    index: Value


def rows_of_run(group: Group) -> list[Row]:
    """The defences of a run that have an index, in its order, controls last."""
    indices = ((label, value_of(group.worst(label))) for label in group.defenses)
    return [Row(label, label in group.controls, index) for label, index in indices if index]


def rows_of_comparison(defenses: Sequence[ComparedDefense]) -> list[Row]:
    """The compared defences that have an index, in their order."""
    return [Row(one.label, False, index) for one in defenses if (index := value_of(one.index))]


def plot(rows: Sequence[Row]) -> Figure | None:
    """A row a defence, between noise images (0) and real images (1); None where there is nothing to draw."""
    return figure(lambda axes: _draw(axes, rows), _ROOM + _ROW * len(rows), 0) if rows else None


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlabel("leakage index, worst attack")
    for end, name, side in ((0.0, "noise images", "left"), (1.0, "real images", "right")):
        axes.axvline(end, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
        axes.text(end, 1.02, name, transform=axes.get_xaxis_transform(), color=MUTED, fontsize=8, ha=side, va="bottom")
    for at, row in enumerate(rows):
        colour = CONTROL if row.control else DEFENSE
        if ends := interval(row.index):
            axes.plot(ends, [at, at], color=colour, linewidth=1.4, zorder=2)
        axes.scatter(
            row.index.value,
            at,
            s=32,
            marker="s" if row.control else "o",
            facecolor=PAPER if row.control else colour,
            edgecolor=colour,
            linewidth=1.4,
            zorder=3,
        )
        axes.text(
            1.03, at, short(row.label), transform=axes.get_yaxis_transform(), color=INK, va="center", parse_math=False
        )
