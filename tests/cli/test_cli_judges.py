"""Evaluation models out of one run into another: the same numbers, under other keys, and no model of anything else."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_said import Leakbench, record_in
from safetensors.torch import load_file, save_file
from tiny_runs import OURS_LABEL, Warm

from leakbench.data import Dataset, load_dataset
from leakbench.errors import UsageError
from leakbench.leakage.inversion.judge_files import CONTENTS, read_judges
from leakbench.records import RunRecord
from leakbench.session.judges import export_judges


@pytest.fixture
def exported(warm: Warm, tmp_path: Path) -> Path:
    """The evaluation models of the tiny run."""
    export_judges(warm.record, tmp_path / "judges", warm.cache)
    return tmp_path / "judges"


@pytest.fixture
def data(warm: Warm) -> Dataset:
    return load_dataset(warm.tiny.dataset)


def measured(record: RunRecord) -> Any:
    """All numbers of a run's cells, and what follows from them."""
    cells = {
        (cell.defense, cell.attack, cell.of): (cell.values, cell.classes, cell.votes, cell.findings)
        for cell in record.cells
    }
    return cells, record.scales, record.rows, record.verdicts


@pytest.mark.long
@pytest.mark.slow
def test_a_run_with_given_models_has_the_numbers_of_the_run_that_trained_them(
    leakbench: Leakbench, warm: Warm, tmp_path: Path
) -> None:
    said = leakbench("export", warm.out, "--judges", "--cache", warm.cache, "--out", "judges")
    assert (said.status, said.out, said.err) == (0, "", "")
    written = json.loads((tmp_path / "judges" / CONTENTS).read_text())
    (ensemble,) = written["evaluation_models"]
    assert ensemble["fingerprint"] == warm.record.datasets[0].fingerprint
    assert [model["recipe"]["steps"] > 0 for model in ensemble["models"]] == [True, True]

    arguments = [*warm.tiny.arguments(tmp_path / "given"), "--quiet"]
    assert leakbench(*arguments, "--cache", warm.grown, "--judges", "judges").status == 0
    given = record_in(tmp_path / "given")
    assert measured(given) == measured(warm.record)
    assert {judge.name: judge.given for judge in given.judges} == {
        **{model["name"]: model["weights"] for model in ensemble["models"]},
        "ensemble": "",
    }
    models = {cell.artifacts["judge mixer"] for cell in given.cells if "judge mixer" in cell.artifacts}
    before = {cell.artifacts["judge mixer"] for cell in warm.record.cells if "judge mixer" in cell.artifacts}
    assert len(models) == 1 and models != before
    # and out again
    export_judges(given, tmp_path / "again", warm.grown)
    again = json.loads((tmp_path / "again" / CONTENTS).read_text())["evaluation_models"][0]["models"]
    assert [(one["sha256"], one["recipe"]) for one in again] == [(one["sha256"], None) for one in ensemble["models"]]


@pytest.mark.slow
def test_models_of_other_data_end_a_run_before_it_starts(
    leakbench: Leakbench, warm: Warm, exported: Path, tmp_path: Path
) -> None:
    line = leakbench(
        "run", "-d", "ann", "-a", "direct", "--dataset", "digits", "--judges", exported, "--cache", tmp_path / "cache",
        "--out", "none", "-q",
    ).line  # fmt: skip
    assert "are of other data" in line and "not of digits" in line
    assert not (tmp_path / "none").exists()
    for arguments, problem in (
        (("export", warm.out, "--judges"), "--judges writes a folder: give --out FOLDER"),
        (("export", warm.out, "--judges", "--cache", tmp_path / "empty", "--out", "x"), "no more: run the grid again"),
        (("export", warm.out, "--judges", "--snn", OURS_LABEL, "--out", "x"), "export writes one format"),
    ):
        assert problem in leakbench(*arguments).line
    assert not (tmp_path / "x").exists()


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    written = json.loads((folder / CONTENTS).read_text())
    change(written)
    (folder / CONTENTS).write_text(json.dumps(written))


def first(written: dict[str, Any]) -> Any:
    return written["evaluation_models"][0]


def refilled(folder: Path, name: str, value: torch.Tensor | None) -> None:
    """Another tensor in the first model's file, whose digest is right."""
    path = folder / first(json.loads((folder / CONTENTS).read_text()))["models"][0]["file"]
    tensors = load_file(path)
    tensors.pop(name, None)
    save_file(tensors | ({} if value is None else {name: value}), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    changed(folder, lambda written: first(written)["models"][0].update(sha256=sha256))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda w: w.update(format=2), "judges.json is of format 2, and this LeakBench reads format 1"),
        (lambda w: w.pop("evaluation_models"), "judges.json: evaluation_models: Field required"),
        (lambda w: first(w).update(fingerprint="0" * 64), "are of other data"),
        (lambda w: first(w).update(image_shape=[1, 9, 9]), r"are of images \[1, 9, 9\], and .* has \[1, 8, 8\]"),
        (lambda w: first(w).update(classes=["a", "b"]), "are of classes 2, and .* has 3"),
        (lambda w: first(w)["models"].pop(), "lacks the evaluation model 'mixer'"),
        (lambda w: first(w)["models"][0].update(name="old"), "bnconv and mixer are needed, it has old and mixer"),
        (lambda w: first(w)["models"][0].update(file="../judges.json"), "models.0.file: String should match pattern"),
        (lambda w: first(w)["models"][0].update(file="none.safetensors"), "none.safetensors is missing"),
        (lambda w: first(w)["models"][0].update(sha256="0" * 64), "was altered: its sha256"),
        (lambda w: first(w)["models"][0].update(file=CONTENTS), "was altered: its sha256"),
    ],
)
def test_folders_that_are_wrong(exported: Path, data: Dataset, change: Any, problem: str) -> None:
    changed(exported, change)
    with pytest.raises(UsageError, match=problem) as error:
        read_judges(exported, data)
    assert str(error.value).startswith("--judges") and "\n" not in str(error.value)


@pytest.mark.slow
def test_files_of_others(exported: Path, data: Dataset, tmp_path: Path) -> None:
    assert list(read_judges(exported, data)) == ["bnconv", "mixer"]
    with pytest.raises(UsageError, match="are of other data"):
        read_judges(exported, replace(data, fingerprint="f" * 64))
    right = load_file(next(exported.glob("*-bnconv.safetensors")))["head.bias"]
    for value, problem in (
        (torch.zeros(4), r"'head.bias' is \[4\] instead of \[3\]"),
        (None, r"lacks head.bias \[3\]"),
        (torch.full_like(right, torch.nan), "holds NaN or infinity in 'head.bias'"),
        (torch.zeros(3, dtype=torch.int8), "'head.bias' holds torch.int8"),
    ):
        refilled(exported, "head.bias", value)
        with pytest.raises(UsageError, match=problem):
            read_judges(exported, data)
    refilled(exported, "head.bias", right)
    assert list(read_judges(exported, data)) == ["bnconv", "mixer"]
    with pytest.raises(UsageError, match="no such folder"):
        read_judges(tmp_path / "none", data)
    with pytest.raises(UsageError, match=r"judges\.json is missing"):
        read_judges(tmp_path, data)
    (exported / CONTENTS).unlink()
    os.mkfifo(exported / CONTENTS)  # nothing waits for a writer
    with pytest.raises(UsageError, match=r"judges\.json is no file"):
        read_judges(exported, data)
    (exported / CONTENTS).unlink()
    (exported / CONTENTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"judges\.json is no readable file"):
        read_judges(exported, data)
