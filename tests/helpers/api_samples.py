"""Runs written by hand as folders, for the Python interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compared_runs import attacked, own, run
from PIL import Image

from leakbench.bench.grid import GridConfig
from leakbench.bench.run_folder import save_record
from leakbench.cells import Cell
from leakbench.records import CellRecord, Picture, RunRecord
from leakbench.runtime.workspace import Settings

HIGH = (0.9, 0.8, 0.9, 1.0, 0.8, 0.9, 0.7, 0.9, 1.0, 0.8)
LOW = (0.3, 0.4, 0.2, 0.5, 0.3, 0.2, 0.4, 0.3, 0.5, 0.4)
SIDE = 8
"""pixels of a picture"""


@dataclass(frozen=True)
class Computed:
    """What a run was asked to compute."""

    grid: GridConfig
    cells: Sequence[Cell]
    settings: Settings
    folder: Path
    jobs: int | None
    command: str


def pictured(cell: CellRecord, targets: Sequence[int] = (3, 7)) -> CellRecord:
    """The cell with a grey picture of each class, as bright as its number; the first is seen as the class 5."""
    pictures = [
        Picture(path=f"images/digits-s{cell.seed}/{target:03d}-00.png", target=target, named=target, confidence=0.75)
        for target in targets
    ]
    pictures[0] = pictures[0].model_copy(update={"named": 5, "accepted": False})
    return cell.model_copy(update={"pictures": pictures})


def one(name: str, scores: Sequence[float] = LOW, seed: int = 0) -> list[CellRecord]:
    """A defence, attacked by ``direct``, with pictures."""
    return [own(name, seed), pictured(attacked(name, scores, seed=seed))]


def two() -> RunRecord:
    """A run of two defences, of which one leaks more."""
    first, attack = one("privatesnn")
    return run(first, attack, own("datafree"), attacked("datafree", HIGH))


def write(folder: Path, record: RunRecord) -> Path:
    """The folder of a run with this record and its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for cell in record.cells:
        for picture in cell.pictures:
            path = folder / picture.path
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (SIDE, SIDE), picture.target).save(path)
    save_record(record, folder)
    return folder
