"""A run from its start to its end: what is refused before anything is computed, who hears of it, interrupts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import (
    CELLS,
    CLASSES,
    DEFENSES,
    Quiet,
    Warm,
    artifacts,
    copied,
    numbers,
    run_here,
    user_network,
    write_images,
)

from leakbench.bench import executors
from leakbench.cells import AttackCell
from leakbench.errors import LeakBenchError
from leakbench.records import RunRecord


@pytest.mark.slow
def test_the_reporter_hears_of_every_cell_once(warm: Warm, tmp_path: Path) -> None:
    reporter = Quiet()
    run_here(warm.tiny.options(), warm.cache, tmp_path / "run", reporter=reporter)
    ended = [job.title for job, _ in reporter.ended_jobs if job.is_cell]
    assert sum(job.is_cell for job in reporter.jobs) == CELLS
    assert len(ended) == len(set(ended)) == CELLS
    assert {result.seconds for _, result in reporter.ended_jobs} == {0}  # all of it was in the store


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["shape", "classes", "names", "nan", "text", "pickle"])
def test_a_checkpoint_that_does_not_fit_is_one_line_and_leaves_no_run(warm: Warm, tmp_path: Path, fault: str) -> None:
    weights, path = load_file(warm.tiny.checkpoint), tmp_path / "wrong.safetensors"
    if fault == "shape":
        weights["7.weight"] = torch.zeros(128, 1024)
    elif fault == "classes":
        weights = {name: value.contiguous() for name, value in user_network(10).state_dict().items()}
    elif fault == "names":
        weights["stem.0.weight"] = weights.pop("0.weight")
    elif fault == "nan":
        weights["3.weight"][0, 0, 0, 0] = float("nan")
    save_file(weights, path)
    if fault == "text":
        path.write_text("no weights")
    elif fault == "pickle":
        torch.save(weights, path)
    before = artifacts(warm.cache)
    with pytest.raises(LeakBenchError) as caught:
        run_here(warm.tiny.options(ann=str(path)), warm.cache, tmp_path / "run")
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    words = {
        "shape": ["'vgg4'", "'7.weight'", "[128, 1024]", "[128, 256]"],
        "classes": ["'vgg4'", "'10.weight'", "[10, 128]", "[3, 128]", "number of classes"],
        "names": ["'vgg4'", "lacks 0.weight", "has also stem.0.weight"],
        "nan": ["NaN", "'3.weight'"],
        "text": ["safetensors"],
        "pickle": ["safetensors"],
    }[fault]
    assert [word for word in [*words, "--ann", str(path)] if word not in text] == []
    assert artifacts(warm.cache) == before
    # the same folder must serve the run with the right weights
    record = run_here(warm.tiny.options(), warm.cache, tmp_path / "run")
    assert record.complete


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["one-class", "broken-image", "missing"])
def test_a_folder_that_is_no_data_set_is_one_line(warm: Warm, tmp_path: Path, fault: str) -> None:
    images = tmp_path / "images"
    if fault == "one-class":
        write_images(images, CLASSES[:1], 3)
    elif fault == "broken-image":
        write_images(images, CLASSES, 3)
        (images / "bars" / "01.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(LeakBenchError) as caught:
        run_here(warm.tiny.options(dataset=[f"folder:{images}"]), tmp_path / "cache", tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1
    word = {"one-class": "two or more are needed", "broken-image": "01.png", "missing": "no such folder"}[fault]
    assert word in str(caught.value)


@pytest.fixture
def interrupted() -> Iterator[pytest.MonkeyPatch]:
    """Ctrl-C at the second attack, until it is undone."""
    ran: list[str] = []
    run_task = executors.run_task

    def run(pipeline: Any, task: Any, cell: Any) -> Any:
        if task == "compute" and isinstance(cell, AttackCell):
            ran.append(cell.title)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run_task(pipeline, task, cell)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "run_task", run)
        yield patch


@pytest.mark.slow
def test_an_error_in_the_middle_still_leaves_a_partial_record(
    warm: Warm, tmp_path: Path, interrupted: pytest.MonkeyPatch
) -> None:
    """What ended before is written, marked as incomplete."""
    with pytest.raises(KeyboardInterrupt):
        run_here(warm.tiny.options(), warm.cache, tmp_path / "run")
    interrupted.undo()
    record = RunRecord.model_validate_json((tmp_path / "run" / "results.json").read_bytes())
    assert not record.complete
    assert len(record.cells) == 4 + len(DEFENSES) + 1  # anchors, defences, the first attack
    assert numbers(record).items() <= numbers(warm.record).items()
    assert numbers(run_here(warm.tiny.options(), warm.cache, tmp_path / "run")) == numbers(warm.record)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["complete"] is True


@pytest.mark.slow
def test_a_run_that_breaks_off_leaves_the_record_and_the_pictures_of_the_whole_one(
    warm: Warm, tmp_path: Path, interrupted: pytest.MonkeyPatch
) -> None:
    out = copied(warm.out, tmp_path / "run")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(KeyboardInterrupt):
        run_here(warm.tiny.options(), warm.cache, out)
    interrupted.undo()
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {out / "results.partial.json"}
    assert after.items() > before.items()
    partial = RunRecord.model_validate_json((out / "results.partial.json").read_bytes())
    assert not partial.complete and 0 < len(partial.cells) < len(warm.record.cells)
    run_here(warm.tiny.options(), warm.cache, out)
    assert {path for path in out.rglob("*") if path.is_file()} == before.keys()
