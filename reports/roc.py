"""ROC curves of attacks on members, both axes logarithmic: what counts is how many are found at few false positives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from leakbench.records import CellRecord
from leakbench.reports.drawing import MUTED, PAPER, Label, clean, drawn, inline, line_look, put_labels, short

_HEIGHT = 3.0
"""inches"""
_SHOWN = (0.001, 0.01, 0.1)
"""false positive rates at which the figure is told in words"""

Curve = Sequence[tuple[float, float]]
"""(FPR, TPR) by rising FPR, mean over seeds"""


@dataclass(frozen=True)
class RocPanel:
    """The figure of one network."""

    defense: str
    figure: Markup


def panels(cells: Sequence[CellRecord], number: int) -> list[RocPanel]:
    """A figure of each defence in question among ``cells``; ``number`` sets them apart from others' on a page."""
    shown = [cell for cell in cells if cell.roc and not cell.control and not cell.of]
    made = []
    for place, defense in enumerate(dict.fromkeys(cell.defense for cell in shown)):
        here = [cell for cell in shown if cell.defense == defense]
        attacks = dict.fromkeys(cell.attack for cell in here)
        curves = {attack: mean_curve([cell for cell in here if cell.attack == attack]) for attack in attacks}
        svg = drawn(lambda axes, curves=curves: _draw(axes, curves), _HEIGHT, len(curves))  # type: ignore[misc]
        title = f"Members found over false positives, {clean(defense)}"
        # made by us: matplotlib escapes what is in it
        made.append(RocPanel(defense, Markup(inline(svg, f"roc-{number}-{place}", title, _spoken(curves)))))
    return made


def mean_curve(cells: Sequence[CellRecord]) -> Curve:
    """Over the seeds of an attack, at the first one's false positive rates: between its own a curve is flat."""
    rates = [point.fpr for point in cells[0].roc]
    each = [np.array([(point.fpr, point.tpr) for point in cell.roc]) for cell in cells]
    found = [roc[np.searchsorted(roc[:, 0], np.array(rates) + 1e-12, side="right") - 1, 1] for roc in each]
    return list(zip(rates, np.mean(found, axis=0).tolist(), strict=True))


def at_rate(curve: Curve, rate: float) -> float | None:
    """TPR at a false positive rate; None where so few cannot be told."""
    least = min((fpr for fpr, _ in curve if fpr > 0), default=1.0)
    return max(tpr for fpr, tpr in curve if fpr <= rate + 1e-12) if least <= rate + 1e-12 else None


def _draw(axes: Axes, curves: Mapping[str, Curve]) -> None:
    least = min(min((fpr for fpr, _ in curve if fpr > 0), default=0.5) for curve in curves.values())
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(least, 1.0)
    axes.set_ylim(least, 1.1)
    decades = [10.0**power for power in range(-5, 1) if 10.0**power >= least]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_ticks(decades, [f"{100 * rate:g}" for rate in decades])
    axes.set_xlabel("non-members taken for members (FPR), %")
    axes.set_ylabel("members found (TPR), %")
    axes.plot([least, 1], [least, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
    labels = []
    for turn, (attack, curve) in enumerate(curves.items()):
        colour, mark = line_look(turn)
        across = [fpr for fpr, _ in curve if fpr > 0]
        up = [max(tpr, least) for fpr, tpr in curve if fpr > 0]
        axes.step(across, up, where="post", color=colour, linewidth=1.5, zorder=2.5)
        start: Any = {"color": colour, "linestyle": "", "marker": mark, "markersize": 5, "markeredgecolor": PAPER}
        axes.plot(across[:1], up[:1], clip_on=False, zorder=3, **start)
        middle = len(across) // 2
        labels.append(Label(short(attack), (across[middle], up[middle]), colour, mark))
    put_labels(axes, labels)


def _spoken(curves: Mapping[str, Curve]) -> str:
    """The figure in words."""
    lines = []
    for attack, curve in curves.items():
        rates = [(rate, at_rate(curve, rate)) for rate in _SHOWN]
        each = (f"{100 * tpr:.1f} % at {100 * rate:g} %" for rate, tpr in rates if tpr is not None)
        lines.append(f"{clean(attack)}: {', '.join(each) or 'too few candidates'}")
    return f"Members found at false positive rates. {'; '.join(lines)}."
