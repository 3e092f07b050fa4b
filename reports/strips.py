"""Six classes at a glance: private images, what an attack drew of them, and what it draws of an untrained network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leakbench.errors import DataError
from leakbench.leakage.controls import UNTRAINED
from leakbench.leakage.inversion.class_evidence import OPEN_SET
from leakbench.records import CellRecord, Picture
from leakbench.reports.images import Embedded, embed
from leakbench.reports.summary import REAL, Group

REAL_TITLE = "real images"
"""test images, which no network was trained on"""
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
        REAL_TITLE: _first(group, "", REAL),
        f"drawn by {attack}": drawn,
        "of an untrained network": _first(group, untrained, attack) if untrained and untrained != defense else {},
    }
    classes = sorted(drawn)[:CLASSES]
    shown = []
    for title, pictures in rows.items():
        open_set = group.headline == OPEN_SET  # else the answer has to be a class
        tiles = tuple(_thumbnail(title, pictures.get(c), names.get(c, str(c)), names, run, open_set) for c in classes)
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


def _thumbnail(
    title: str, picture: Picture | None, name: str, names: dict[int, str], run: Path, open_set: bool
) -> Thumbnail | None:
    if picture is None:
        return None
    try:
        image = embed(run, picture.path)
    except DataError:
        return None
    if title == REAL_TITLE:
        return Thumbnail(f"real image, class {name}", image, name)
    rejected = open_set and picture.accepted is False
    seen = "none" if rejected else names.get(picture.named, "") if picture.named is not None else ""
    right = picture.named == picture.target and not rejected
    classified = f", classified as {seen}" if seen else ""
    return Thumbnail(f"{title}, class {name}{classified}", image, f"✓ {seen}" if right else seen, right)
