"""Six classes at a glance: private images, what an attack drew of them, and what it draws of an untrained network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leakbench.errors import DataError
from leakbench.leakage.controls import UNTRAINED
from leakbench.records import CellRecord, Picture
from leakbench.reports.images import Embedded, embed
from leakbench.reports.summary import REAL, Group

CLASSES = 6
"""the first of the data set, whatever leaks"""


@dataclass(frozen=True)
class Thumbnail:
    """One picture of a strip."""

    alt: str
    image: Embedded
    caption: str
    """what the evaluation models see in it; of a private image its class"""
    right: bool = False
    """whether they accept it as its class"""


@dataclass(frozen=True)
class Strip:
    """A row of pictures, a column a class; None where there is no picture."""

    title: str
    pictures: tuple[Thumbnail | None, ...]


def strips(group: Group, defense: str, attack: str, names: dict[int, str], run: Path) -> tuple[Strip, ...]:
    """Of a defence; empty where no attack on it left pictures. ``attack``: the worst case, empty where there is none.

    The first picture of each class, not the best, of the first network. What can't be shown is left out: the wall of
    images says why.
    """
    attacks = [attack, *group.attacks] if attack else group.attacks
    drawn: dict[int, Picture] = {}
    for name in attacks:
        if drawn := _first(group, defense, name):
            attack = name
            break
    untrained = group.named(UNTRAINED)
    rows = {
        "private images": _first(group, "", REAL),
        "drawn from it": drawn,
        "untrained": _first(group, untrained, attack) if untrained and untrained != defense else {},
    }
    classes = sorted(drawn)[:CLASSES]
    shown = []
    for title, pictures in rows.items():
        tiles = tuple(_thumbnail(title, pictures.get(c), names.get(c, str(c)), names, run) for c in classes)
        if any(tiles):
            shown.append(Strip(title, tiles))
    return tuple(shown) if drawn else ()


def _first(group: Group, defense: str, attack: str) -> dict[int, Picture]:
    """Class -> its first picture."""
    experiment = group.experiments.get((defense, attack))
    cells: tuple[CellRecord, ...] = tuple(experiment.cells) if experiment else ()
    pictures = next((cell.pictures for cell in cells if cell.pictures), [])
    first: dict[int, Picture] = {}
    for picture in pictures:
        first.setdefault(picture.target, picture)
    return first


def _thumbnail(title: str, picture: Picture | None, name: str, names: dict[int, str], run: Path) -> Thumbnail | None:
    if picture is None:
        return None
    try:
        image = embed(run, picture.path)
    except DataError:
        return None
    if title == "private images":
        return Thumbnail(f"private image, class {name}", image, name)
    seen = "none" if picture.accepted is False else names.get(picture.named, "") if picture.named is not None else ""
    right = picture.named == picture.target and picture.accepted is not False
    classified = f", classified as {seen}" if seen else ""
    return Thumbnail(f"{title}, class {name}{classified}", image, f"✓ {seen}" if right else seen, right)
