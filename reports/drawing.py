"""What every figure is drawn with: a matplotlib Figure, inline SVG that obeys the page's content policy and follows its
colours, dark or light, and a column of labels beside the axes."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_hex, to_rgb, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from scipy.optimize import isotonic_regression

from leakbench.errors import printable

# Colours that matplotlib draws with and the page replaces by its own, one set for light and one for dark.
INK, MUTED, GRID, DEFENSE, CONTROL, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
LINES = ("#070707", "#080808", "#090909", "#0a0a0a", "#0b0b0b", "#0c0c0c")
_NAMES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    DEFENSE: "--fig-defense",
    CONTROL: "--fig-control",
    PAPER: "--paper",
    **{colour: f"--fig-line-{number}" for number, colour in enumerate(LINES, start=1)},
}
"""as the page's style sheet calls them"""
_MARKS = ("o", "s", "^", "D", "v", "P")
LONGEST = 30
"""characters of a label"""
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


def line_look(number: int) -> tuple[str, str]:
    """Colour and mark of a figure's line: told by its mark as well as by its colour, beyond six in other pairs."""
    turn, place = divmod(number, len(LINES))
    return LINES[place], _MARKS[(place + turn) % len(_MARKS)]


class PageFigure(Figure):
    """A Figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        with _quiet_about_glyphs():
            self.savefig(stream, format="png")
        return stream.getvalue()


def drawn(draw: Callable[[Axes], None], height: float, labels: int) -> str:
    """Matplotlib's SVG of one pair of axes with room for a column of labels at the right; ``height`` in inches."""
    with _styled():
        figure = _filled(draw, height, labels)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def figure(draw: Callable[[Axes], None], height: float, labels: int) -> Figure:
    """The same as a Figure in the page's light colours."""
    with _styled():
        made = _filled(draw, height, labels)
        colours = _light()
        for artist in made.findobj():
            _recolour(artist, colours)
    return made


@contextmanager
def _styled() -> Iterator[None]:
    # The page's own fonts draw the text; what matplotlib's lacks is no loss.
    with matplotlib.rc_context(_RC), _quiet_about_glyphs():
        yield


@contextmanager
def _quiet_about_glyphs() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def _filled(draw: Callable[[Axes], None], height: float, labels: int) -> Figure:
    height = max(height, 0.9 + 0.19 * labels)  # room for the labels to stand apart
    made = PageFigure(figsize=(7.4, height))
    made.subplots_adjust(left=0.085, right=0.66, bottom=0.52 / height, top=1 - 0.16 / height)
    axes = made.add_subplot()
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    draw(axes)
    return made


def _light() -> dict[str, str]:
    """What stands for each colour where there is no page: the first palette of its style sheet."""
    sheet = resources.files("leakbench.reports").joinpath("templates", "report.css").read_text(encoding="utf-8")
    palette = dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", sheet.partition("}")[0]))
    return {colour: palette[name] for colour, name in _NAMES.items()}


def _recolour(artist: Artist, colours: Mapping[str, str]) -> None:
    for name in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
        get, put = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
        if get is None or put is None:
            continue
        before = to_rgba_array(get())
        after = [(*to_rgb(colours.get(to_hex(one), to_hex(one))), one[3]) for one in before]
        if len(after) and not np.array_equal(before, after):
            put(after if isinstance(artist, Collection) else after[0])


def draw_index_ends(axes: Axes) -> None:
    """The two ends of the leakage index."""
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


@dataclass(frozen=True)
class Label:
    """What stands at the right, and where on the axes its line leads."""

    text: str
    to: tuple[float, float]
    colour: str
    mark: str = ""
    dashes: Any = None
    """of a line that has no marks"""


def put_labels(axes: Axes, labels: list[Label]) -> None:
    """Labels in a column to the right, in the order of what they name and apart, each with a line to it."""
    places = {label: axes.transAxes.inverted().transform(axes.transData.transform(label.to)) for label in labels}
    order = sorted(labels, key=lambda label: label.to[1])
    gap = min(0.07, 0.96 / len(order))
    steps = gap * np.arange(len(order))
    wanted = np.array([places[label][1] for label in order])
    # The nearest heights that are at least a gap apart: isotonic regression on what is left of the gaps.
    free = isotonic_regression(wanted - steps).x
    heights = np.clip(free, 0.02, max(0.02, 0.98 - steps[-1])) + steps
    for label, height in zip(order, heights, strict=True):
        x, y = places[label]
        axes.plot(
            [x, 1.0, 1.03],
            [y, height, height],
            transform=axes.transAxes,
            color=label.colour,
            linewidth=0.6,
            alpha=0.55,
            clip_on=False,
            zorder=1.8,
        )
        beside: Any = {"transform": axes.transAxes, "color": label.colour, "clip_on": False}
        if label.mark:
            axes.plot([1.052], [height], marker=label.mark, markersize=5, **beside)
        if label.dashes:
            axes.plot([1.036, 1.068], [height, height], linestyle=label.dashes, linewidth=1.2, **beside)
        axes.text(
            1.078 if label.mark or label.dashes else 1.04,
            height,
            label.text,
            transform=axes.transAxes,
            va="center",
            fontsize=8.5,
            color=INK,
            parse_math=False,
            fontproperties=FontProperties(size=8.5),
        )


def short(text: str) -> str:
    name = clean(text)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


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
    ids = {identifier: f"{name}-{index}" for index, identifier in enumerate(sorted(used))}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style", f"{_SVG}title", f"{_SVG}desc"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        _plain_attributes(element, ids)
    heading, words = ET.Element("title", id=f"{name}-title"), ET.Element("desc", id=f"{name}-desc")
    heading.text, words.text = printable(title), printable(description)
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
        if value in _NAMES:
            attributes[key] = f"var({_NAMES[value]})"
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
