"""Figures as inline SVG that obeys the page's content policy and follows its colours, dark or light."""

from __future__ import annotations

import io
import math
import re
import warnings
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from scipy.optimize import isotonic_regression

from leakbench.bench.records import Value
from leakbench.reports.summary import Group, Reading
from leakbench.reports.vocabulary import interval, plain, value_of

# Colours that matplotlib draws with and the page replaces by its own, one set for light and one for dark.
INK, MUTED, GRID, DEFENSE, CONTROL, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    DEFENSE: "var(--fig-defense)",
    CONTROL: "var(--fig-control)",
    PAPER: "var(--paper)",
}
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_RC: Any = {  # matplotlib types the keys as one long Literal
    "svg.fonttype": "none",  # text stays text: readable by a screen reader, in the page's colours
    "svg.hashsalt": "leakbench",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.linewidth": 0.8,
}


@dataclass(frozen=True)
class Point:
    """One defence in the picture: accuracy (mean over seeds), leakage index, and what its label says."""

    label: str
    control: bool
    accuracy: float
    index: Value
    energy: Reading | None


def trade_off(group: Group) -> str:
    """SVG: accuracy across, worst-case leakage index up with its interval, energy ratio as size and label.

    Empty where no defence has both an accuracy and an index.
    """
    points = _points(group)
    if not points:
        return ""
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        # The page's own fonts draw the text; what matplotlib's lacks is no loss.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        height = max(4.0, 0.9 + 0.19 * len(points))  # inches: room for the labels to stand apart
        figure = Figure(figsize=(7.4, height))
        figure.subplots_adjust(left=0.085, right=0.66, bottom=0.52 / height, top=1 - 0.16 / height)
        axes = figure.add_subplot()
        _draw(axes, points)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return inline(stream.getvalue(), f"tradeoff-{group.number}", "Accuracy, leakage and energy", _spoken(group, points))


def _points(group: Group) -> list[Point]:
    points = []
    for label in group.defenses:
        if group.plugin(label) == "random":
            continue  # its accuracy is chance: it would only squeeze the others into a corner
        accuracy, index = group.reading(label, "", "accuracy"), value_of(group.worst(label))
        if accuracy and index and math.isfinite(accuracy.mean):
            energy = group.reading(label, "", "energy_ratio_int32")
            points.append(Point(label, label in group.controls, accuracy.mean, index, energy))
    return points


def _draw(axes: Axes, points: list[Point]) -> None:
    axes.set_ylim(-0.03, 1.03)
    across = [point.accuracy for point in points]
    room = max(0.05, 0.12 * (max(across) - min(across)))
    axes.set_xlim(max(-0.01, min(across) - room), min(1.01, max(across) + room))
    limits = axes.get_xlim()
    axes.set_xticks([tick for tick in axes.get_xticks() if limits[0] <= tick <= min(1.0, limits[1])])
    axes.set_xlabel("accuracy on test images")
    axes.set_ylabel("leakage index, worst attack")
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for height, name in ((0.0, "noise images"), (1.0, "real images")):
        axes.axhline(height, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
        axes.annotate(
            name,
            (0, height),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3 if height < 0.5 else -10),
            textcoords="offset points",
            color=MUTED,
            fontsize=8,
        )
    for point in points:
        colour = CONTROL if point.control else DEFENSE
        ends = interval(point.index)
        if ends:
            axes.plot([point.accuracy] * 2, ends, color=colour, linewidth=1.4, zorder=2)
        axes.scatter(
            point.accuracy,
            point.index.value,
            s=_area(point.energy),
            marker="s" if point.control else "o",
            facecolor=PAPER if point.control else colour,
            edgecolor=colour,
            linewidth=1.4,
            zorder=3,
        )
    _labels(axes, points)


def _area(energy: Reading | None) -> float:
    """Marker area in square points: grows with the logarithm of the energy ratio."""
    ratio = energy.mean if energy and math.isfinite(energy.mean) and energy.mean > 0 else 1.0
    return 24.0 + 16.0 * min(7.0, max(0.0, math.log2(ratio)))


def _labels(axes: Axes, points: list[Point]) -> None:
    """Labels in a column to the right, in the points' order and apart, each with a line to its point."""
    order = sorted(points, key=lambda point: point.index.value)
    gap = min(0.07, 0.96 / len(order))
    steps = gap * np.arange(len(order))
    wanted = np.array([axes.transLimits.transform((point.accuracy, point.index.value))[1] for point in order])
    # The nearest heights that are at least a gap apart: isotonic regression on what is left of the gaps.
    free = isotonic_regression(wanted - steps).x
    heights = np.clip(free, 0.02, max(0.02, 0.98 - steps[-1])) + steps
    for point, height in zip(order, heights, strict=True):
        x, y = axes.transLimits.transform((point.accuracy, point.index.value))
        colour = CONTROL if point.control else DEFENSE
        axes.plot(
            [x, 1.0, 1.03],
            [y, height, height],
            transform=axes.transAxes,
            color=colour,
            linewidth=0.6,
            alpha=0.55,
            clip_on=False,
            zorder=1.8,
        )
        axes.text(
            1.04,
            height,
            _label(point),
            transform=axes.transAxes,
            va="center",
            fontsize=8.5,
            color=INK,
            parse_math=False,
            fontproperties=FontProperties(size=8.5),
        )


def _label(point: Point) -> str:
    name = clean(point.label)
    name = name if len(name) <= 30 else f"{name[:29]}…"
    return f"{name} · {_energy(point)}" if point.energy else name


def _energy(point: Point) -> str:
    return plain(point.energy.metric, point.energy.mean) if point.energy else ""


def _spoken(group: Group, points: list[Point]) -> str:
    """The figure in words."""
    parts = []
    for point in points:
        energy = f", energy ratio {_energy(point)}" if point.energy else ""
        what = f"accuracy {point.accuracy:.3f}, leakage index of the worst attack {point.index.value:.2f}"
        parts.append(f"{clean(point.label)}: {what}{energy}")
    return f"{clean(group.title)}. {'; '.join(parts)}."


def clean(text: str) -> str:
    """The text without characters that XML does not allow."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def inline(svg: str, name: str, title: str, description: str) -> str:
    """Matplotlib's SVG as an element of an HTML page whose policy allows no inline style.

    Every ``style`` becomes presentation attributes, the sheet and the metadata go, ids are made the page's
    own (``name`` in front) or dropped, the size is left to the page, the drawing colours become variables.
    """
    root = ET.fromstring(svg)
    view = root.get("viewBox", "")
    values = " ".join(value for element in root.iter() for value in element.attrib.values())
    used = {element.get("id", "") for element in root.iter()} & set(re.findall(r"#([\w.-]+)", values))
    ids = {found: f"{name}-{index}" for index, found in enumerate(sorted(used))}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style", f"{_SVG}title", f"{_SVG}desc"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        _plain_attributes(element, ids)
    heading, words = ET.Element("title", id=f"{name}-title"), ET.Element("desc", id=f"{name}-desc")
    heading.text, words.text = title, description
    root[:0] = [heading, words]
    root.attrib.clear()
    root.attrib.update(
        {
            "viewBox": view,
            "class": "figure",
            "role": "img",
            "aria-labelledby": f"{name}-title",
            "aria-describedby": f"{name}-desc",
            # what matplotlib's style sheet sets for everything
            "stroke-linejoin": "round",
            "stroke-linecap": "butt",
        }
    )
    return ET.tostring(root, encoding="unicode")


def _plain_attributes(element: ET.Element, ids: dict[str, str]) -> None:
    attributes: dict[str, str] = {}
    for key, value in element.attrib.items():
        if key == "id":
            if value in ids:
                attributes["id"] = ids[value]
        elif key == _HREF:
            attributes["href"] = f"#{ids[value.removeprefix('#')]}"
        elif key == "style":
            for part in value.split(";"):
                prop, _, setting = part.partition(":")
                if setting:
                    attributes.update(_presentation(prop.strip(), setting.strip()))
        else:
            attributes[key] = value
    for key, value in attributes.items():
        if value in _COLOURS:
            attributes[key] = _COLOURS[value]
        elif value.startswith("url(#"):
            attributes[key] = f"url(#{ids[value[5:-1]]})"
    element.attrib.clear()
    element.attrib.update(attributes)


def _presentation(prop: str, setting: str) -> dict[str, str]:
    if prop == "font-family":
        return {}  # the page's own
    if prop != "font":
        return {prop: setting}
    # the shorthand is no presentation attribute
    size = re.search(r"([\d.]+)px", setting)
    return {"font-size": size.group(1)} if size else {}
