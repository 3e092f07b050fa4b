"""The image wall, as in the paper's Figure 6: real images, synthetic images, noise, then each attack on each
defence; a column a class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakbench.errors import DataError
from leakbench.leakage.inversion.class_evidence import OPEN_SET
from leakbench.records import Picture, RealPicture, RunRecord
from leakbench.reports.grid import invalid, told
from leakbench.reports.images import Embedded, embed
from leakbench.reports.report import Report
from leakbench.reports.summary import JUDGED, NOISE, REAL, Experiment, Group, class_names, label_of
from leakbench.reports.vocabulary import in_full, index_text, plain, value_of

MAX_CLASSES = 20


@dataclass(frozen=True)
class Tile:
    """One picture, or why there is none."""

    alt: str
    image: Embedded | None
    missing: str = ""
    prediction: str = ""
    """the class that the evaluation models predict, with their confidence, or that it is none; empty where nothing is
    known"""
    correct: bool = False
    """whether it is the target class"""


@dataclass(frozen=True)
class WallRow:
    """One row of pictures; the notes are of all its images, not of those shown."""

    label: str
    notes: tuple[str, ...]
    control: bool
    tiles: tuple[Tile, ...]
    why_empty: str = ""
    """said once where the whole row has no picture"""


@dataclass(frozen=True)
class Block:
    """Rows under one heading: what to compare with, or one attack on every defence."""

    title: str
    rows: tuple[WallRow, ...]


@dataclass(frozen=True)
class Wall:
    """A group's pictures; the first of each class."""

    classes: tuple[str, ...]
    total: int
    """classes that attacks drew (without attacks: that have pictures), of which the first MAX_CLASSES are shown"""
    blocks: tuple[Block, ...]
    private: tuple[Block, ...]
    """real images and the worst case of each defence, each beside the most similar private images"""
    private_classes: tuple[str, ...]
    shrunk: bool
    smooth: bool
    refused: tuple[tuple[str, str], ...]
    """(path, why) of pictures that could not be shown"""


@dataclass(frozen=True)
class _Source:
    label: str
    """the row's heading, below that of its block"""
    alt: str
    notes: tuple[str, ...]
    control: bool
    pictures: dict[int, Picture]
    """class -> its first picture"""
    why_empty: str


@dataclass(frozen=True)
class Pictures:
    """The wall of one data set and model."""

    group: Group
    wall: Wall | None


def section(report: Report) -> dict[str, Any]:
    return {"views": [Pictures(group, report.walls.get(group.number)) for group in report.groups]}


def wall(record: RunRecord, group: Group, run: Path) -> Wall | None:
    """The wall of one group; None where the run kept no picture of it."""
    blocks = [("For comparison", _references(record, group))]
    for attack in group.attacks:
        blocks.append((attack, [_source(group, experiment) for experiment in group.with_attack(attack)]))
    # what is compared with may have pictures of all classes, where few were attacked
    attacked, every = ({t for _, sources in some for s in sources for t in s.pictures} for some in (blocks[1:], blocks))
    targets = sorted(attacked or every)
    if not targets:
        return None
    names = class_names(record, group.dataset)
    shown = targets[:MAX_CLASSES]
    refused: list[tuple[str, str]] = []
    filled = []
    for title, sources in blocks:
        rows = [_row(source, shown, names, run, refused, group.headline == OPEN_SET) for source in sources]
        if rows:
            filled.append(Block(title, tuple(rows)))
    compared, private = _beside_private(group, names, run, refused)
    tiles = [tile for block in (*filled, *private) for row in block.rows for tile in row.tiles]
    return Wall(
        tuple(names.get(target, f"class {target}") for target in shown),
        len(targets),
        tuple(filled),
        tuple(private),
        tuple(names.get(target, f"class {target}") for target in compared),
        any(tile.image.shrunk for tile in tiles if tile.image),
        any(tile.image.smooth for tile in tiles if tile.image),
        tuple(refused),
    )


def _references(record: RunRecord, group: Group) -> list[_Source]:
    sources = []
    for anchor in sorted(group.anchors, key=lambda name: {REAL: 0, NOISE: 2}.get(name, 3)):
        experiment = group.experiments["", anchor]
        if any(cell.pictures for cell in experiment.cells):
            sources.append((0 if anchor == REAL else 2, _source(group, experiment)))
    sets = [
        synthetic
        for synthetic in record.synthetic
        if (synthetic.dataset, synthetic.model) == (group.dataset, group.model)
    ]
    for synthetic in sets:
        if synthetic.pictures:
            label = "synthetic images" if len(sets) == 1 else f"synthetic images {synthetic.key[:8]}"
            sources.append((1, _Source(label, label, (), False, _first(synthetic.pictures), "")))
    return [source for _, source in sorted(sources, key=lambda pair: pair[0])]


def _source(group: Group, experiment: Experiment) -> _Source:
    shown = next((cell for cell in experiment.cells if cell.pictures), experiment.cells[0])
    seed = f", seed {shown.seed}" if len(group.seeds) > 1 else ""
    reading = experiment.reading(JUDGED)
    why = told(shown) if shown.status != "ok" else ""
    index = group.index(experiment.defense, experiment.attack)
    notes = [word] if (word := invalid(group.rows.get((experiment.defense, experiment.attack)))) else []
    notes += [f"index {index_text(index)}"] if value_of(index) else []
    # Of several seeds the index alone: it is over all of them.
    values = [value for _, value in reading.values] if reading else []
    notes += [f"accuracy {in_full(group.vocabulary.unit(JUDGED), values[0])}"] if len(values) == 1 else []
    heading = f"{experiment.defense or label_of(shown)}{seed}"
    return _Source(
        heading,
        f"{label_of(shown)}{seed}",
        tuple(notes),
        experiment.defense in group.controls,
        _first(shown.pictures),
        why,
    )


def _first(pictures: Iterable[Picture]) -> dict[int, Picture]:
    first: dict[int, Picture] = {}
    for picture in pictures:
        first.setdefault(picture.target, picture)
    return first


def _prediction(picture: Picture, names: dict[int, str]) -> str:
    """As in "bag .93"."""
    if picture.named is None:
        return ""
    name = names.get(picture.named, f"class {picture.named}")
    return f"{name} {plain('share', picture.confidence)}" if picture.confidence is not None else name


def _row(
    source: _Source,
    targets: list[int],
    names: dict[int, str],
    run: Path,
    refused: list[tuple[str, str]],
    open_set: bool,
) -> WallRow:
    if not source.pictures:
        return WallRow(source.label, source.notes, source.control, (), source.why_empty or "no images kept")
    tiles = []
    for target in targets:
        name = names.get(target, "")
        alt = f"{source.alt}, class {name or target}"
        picture = source.pictures.get(target)
        if picture is None:
            tiles.append(Tile(alt, None, "none"))
            continue
        # where the headline asks for it, evaluation models may see none of the classes
        rejected = open_set and picture.accepted is False
        prediction = "none" if rejected else _prediction(picture, names)
        alt = f"{alt}, predicted {prediction}" if prediction else alt
        try:
            tiles.append(
                Tile(alt, embed(run, picture.path), "", prediction, picture.named == picture.target and not rejected)
            )
        except DataError as error:
            refused.append((picture.path, str(error)))
            tiles.append(Tile(alt, None, "not shown"))
    return WallRow(source.label, source.notes, source.control, tuple(tiles))


def _beside_private(
    group: Group, names: dict[int, str], run: Path, refused: list[tuple[str, str]]
) -> tuple[list[int], list[Block]]:
    """The classes and the rows of the pictures that were recorded with the private images most like them."""
    worst = [(label, group.worst_case(label)[0]) for label in group.evaluated]
    experiments = [group.experiments[where] for where in (("", REAL), *worst) if where in group.experiments]
    compared = []
    for experiment in experiments:
        shown = next((cell for cell in experiment.cells if cell.pictures), experiment.cells[0])
        pictures = {target: one for target, one in _first(shown.pictures).items() if one.training and one.held_out}
        if pictures:
            compared.append((label_of(shown), pictures))
    targets = sorted({target for _, pictures in compared for target in pictures})
    blocks = []
    for label, pictures in compared:
        rows = []
        for heading, paths in (
            ("image", {t: (one.path, None) for t, one in pictures.items()}),
            ("nearest training image", {t: _real(one.training) for t, one in pictures.items()}),
            ("nearest held-out image", {t: _real(one.held_out) for t, one in pictures.items()}),
        ):
            tiles = []
            for target in targets:
                path, score = paths.get(target, ("", None))
                alt = f"{label}, {heading}, class {names.get(target, target)}"
                tiles.append(_private_tile(run, path, alt, score, refused))
            rows.append(WallRow(heading, (), False, tuple(tiles)))
        blocks.append(Block(label, tuple(rows)))
    return targets, blocks


def _real(picture: RealPicture | None) -> tuple[str, float | None]:
    return (picture.path, picture.ssim) if picture else ("", None)


def _private_tile(run: Path, path: str, alt: str, ssim: float | None, refused: list[tuple[str, str]]) -> Tile:
    if not path:
        return Tile(alt, None, "none")
    note = "" if ssim is None else f"SSIM {plain('share', ssim)}"
    try:
        return Tile(f"{alt}, {note}" if note else alt, embed(run, path), "", note)
    except DataError as error:
        refused.append((path, str(error)))
        return Tile(alt, None, "not shown")
