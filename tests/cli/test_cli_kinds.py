"""A model and a data set of a user's own, a file each, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_said import Leakbench

from leakbench.records import RunRecord

MODEL = '''
from torch import nn

def build(image_shape, classes, generator):
    """One convolution with PyTorch's own initialisation."""
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(8 * (height // 2) * (width // 2), classes),
    )
'''
DEFENSE = '''
import leakbench
from leakbench.contracts import Defense, ImageClassifier, Params
from leakbench.models.storage import build_ann
from torch import nn

def thin(image_shape, classes, generator):
    """A single layer."""
    channels, height, width = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))

leakbench.register("model", "thin", thin)

class Thin(Defense[Params]):
    """An untrained network of another architecture."""

    name = "thin"
    spiking = False

    def protect(self, ann, data, context):
        return build_ann("thin", ann.image_shape, ann.classes, ann.input_range, context.generator)
'''


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with x.npz, four classes of bars in noise, and mine.py, a model."""
    folder = tmp_path / "files"
    folder.mkdir()
    random = np.random.RandomState(0)

    def split(count: int) -> tuple[Any, Any]:
        labels = np.arange(count) % 4
        images = random.randint(0, 60, (count, 8, 8))
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 2] += 180
        return images.astype(np.uint8), labels

    (x, y), (x_test, y_test) = split(120), split(48)
    np.savez(folder / "x.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    (folder / "mine.py").write_text(MODEL)
    return folder


def run(leakbench: Leakbench, files: Path, out: Path, *arguments: str) -> RunRecord:
    cache = out.parent / "cache"
    options = ["--preset", "quick", "-q", "--cache", str(cache), "--out", str(out), "--dataset", f"{files}/x.npz"]
    said = leakbench("run", *options, "--model", f"{files}/mine.py:build", *arguments)
    assert (said.status, said.err) == (0, "")
    return RunRecord.model_validate_json((out / "results.json").read_bytes())


def anns(cache: Path) -> list[dict[str, Any]]:
    """What the keys of all trained networks say."""
    found = [json.loads(path.read_bytes()) for path in (cache / "objects").glob("??/*/manifest.json")]
    return [manifest["inputs"] for manifest in found if manifest["stage"] == "ann"]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("short_lessons")
def test_a_run_of_a_user_s_own_model_and_data(leakbench: Leakbench, files: Path, tmp_path: Path) -> None:
    settings = ("-d", "han2020,ann", "-a", "reconversion", "--no-controls", "--set", "reconversion.iterations=20")
    record = run(leakbench, files, tmp_path / "first", *settings)
    assert {cell.status for cell in record.cells} == {"ok"}
    assert {(cell.dataset, cell.model) for cell in record.cells} == {("x.npz", "mine.py:build")}
    assert [(data.name, data.train_images) for data in record.datasets] == [("x.npz", 120)]
    trained = next(cell for cell in record.cells if cell.defense == "ann" and not cell.attack)
    accuracy = next(value.value for value in trained.values if value.metric == "accuracy")
    assert accuracy is not None and accuracy > 0.9
    (kept,) = anns(tmp_path / "cache")
    assert (kept["model"], kept["origin"], len(kept["code"])) == ("mine.py:build", "file", 64)

    # moved files are the same model and the same data, an edited one is another model with the same draws
    moved = files.rename(tmp_path / "moved")
    again = run(leakbench, moved, tmp_path / "again", *settings)
    assert [cell.artifacts for cell in again.cells] == [cell.artifacts for cell in record.cells]
    (moved / "mine.py").write_text(MODEL + "# a remark\n")
    run(leakbench, moved, tmp_path / "edited", "-d", "ann", "-a", "none", "--no-controls")
    both = anns(tmp_path / "cache")
    assert len({one["code"] for one in both}) == 2
    assert len({one["seed"] for one in both}) == 1


@pytest.mark.slow
def test_a_defence_with_an_architecture_of_its_own(leakbench: Leakbench, files: Path, tmp_path: Path) -> None:
    (files / "defence.py").write_text(DEFENSE)
    settings = ("-d", f"{files}/defence.py:Thin", "-a", "none", "--no-controls", "--no-isolate")
    records = [run(leakbench, files, tmp_path / out, *settings) for out in ("first", "again")]
    for record in records:
        assert [(cell.defense, cell.model, cell.status) for cell in record.cells] == [("thin", "mine.py:build", "ok")]
    assert records[0].cells[0].artifacts == records[1].cells[0].artifacts


def test_two_of_one_name_are_refused(leakbench: Leakbench, files: Path) -> None:
    (files / "other").mkdir()
    for name in ("mine.py", "x.npz"):
        (files / "other" / name).write_bytes((files / name).read_bytes())
    options = ["run", "-d", "han2020", "-a", "none", "--dataset"]
    line = leakbench(*options, f"{files}/x.npz,{files}/other/x.npz").line
    assert "two data sets of this grid are named 'x.npz'" in line
    models = f"{files}/mine.py:build,{files}/other/mine.py:build"
    assert "two models of this grid are named 'mine.py:build'" in leakbench(*options, "digits", "--model", models).line


def test_a_model_that_does_not_fit_is_one_line(leakbench: Leakbench, files: Path, tmp_path: Path) -> None:
    (files / "mine.py").write_text(MODEL.replace("classes)", "classes + 1)"))
    options = ["-d", "han2020", "-a", "none", "--dataset", f"{files}/x.npz", "--model", f"{files}/mine.py:build"]
    line = leakbench("run", *options, "--cache", tmp_path / "cache").line
    assert "the model 'mine.py:build' can't be used: two images [1, 8, 8] must give logits [2, 4]" in line
