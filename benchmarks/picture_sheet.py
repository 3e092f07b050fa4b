"""Writes docs/results/pictures.md: forty pictures of an attack with the evaluation models' answers.

leakbench run -d privatesnn -a auto --preset quick --out runs/pictures --cache CACHE
python benchmarks/picture_sheet.py runs/pictures --cache CACHE
"""

from __future__ import annotations

import argparse
from pathlib import Path

import result_page
import torch
from PIL import Image
from torch import Tensor

from leakbench.leakage.inversion.evaluation import evaluation_of
from leakbench.records import CellRecord
from leakbench.reports.files import read_record
from leakbench.runtime.workspace import Settings, Workspace

EACH = 4
"""pictures of a class"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--defense", default="privatesnn")
    given = parser.parse_args()
    record = read_record(given.run)
    workspace = Workspace(Settings(given.cache), lambda _what, _done, _total: None)
    cell = next(
        c for c in record.cells if (c.defense, c.of, c.seed) == (given.defense, "", 0) and "images" in c.artifacts
    )
    images, targets, classes, accepted = _answers(workspace, cell, record.datasets[0].name, record.grid["classes"])
    sheet = _sheet(images, targets, classes, accepted, record.datasets[0].classes)
    name = "pictures.png"
    sheet.save(result_page.RESULTS / name, optimize=True)
    right = classes == targets
    rows = [
        ["classified as their class", _share(right)],
        ["and accepted as showing it", _share(right & accepted)],
        ["another class, and accepted as showing that", _share(~right & accepted)],
        ["rejected (none of these)", _share(~accepted)],
    ]
    about = (
        f"{len(targets)} pictures that `{cell.attack}` drew out of `{cell.defense}` on {cell.dataset}, {EACH} a class. "
        "Below each: the class it was made for, then the evaluation models' answer, in brackets where they reject it."
    )
    made = result_page.of_run(record, "runs/pictures", "python benchmarks/picture_sheet.py runs/pictures --cache CACHE")
    result_page.write(
        "pictures.md", "What evaluation models accept", about, made, f"![The pictures]({name})",
        result_page.table(["pictures", "how many"], rows), _MEANING,
    )  # fmt: skip


_MEANING = (
    "An accepted picture is one in which classifiers that never saw the attacked network find its class, as surely as "
    "they do in blurred and noisy real images. That is what the leakage index counts. It does not say that a person "
    "recognises the picture: look at the sheet. Where you don't, class features leaked, and not a portrait."
)


def _answers(
    workspace: Workspace, cell: CellRecord, dataset: str, attacked: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    evaluation = evaluation_of(workspace, dataset, attacked)
    images, predicted = (workspace.store.read(cell.artifacts[role]) for role in ("images", "predictions"))
    assert images is not None and predicted is not None
    targets = images.tensors["targets"]
    first = torch.cat([(targets == c).nonzero().flatten()[:EACH] for c in targets.unique()])
    return (
        images.tensors["images"][first],
        targets[first],
        predicted.tensors["predictions"].argmax(1)[first],
        evaluation.accepts(predicted.tensors)[first],
    )


def _sheet(images: Tensor, targets: Tensor, classes: Tensor, accepted: Tensor, names: list[str]) -> Image.Image:
    columns = len(targets.unique())

    def tile(number: int) -> tuple[Image.Image, str]:
        pixels = images[number].permute(1, 2, 0).squeeze(-1).numpy()
        answer = names[int(classes[number])]
        shown = answer if accepted[number] else f"({answer})"
        return Image.fromarray(pixels), f"{names[int(targets[number])]}\n{shown}"

    rows = torch.arange(len(targets)).view(columns, EACH).T.tolist()
    return result_page.sheet([[tile(number) for number in row] for row in rows], lines=2)


def _share(hits: Tensor) -> str:
    return f"{int(hits.sum())} of {len(hits)}"


if __name__ == "__main__":
    main()
