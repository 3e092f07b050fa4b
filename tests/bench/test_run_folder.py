"""A run's folder: which record may take which one's place, and what is left after an error."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from by_hand import cell
from tiny_runs import Warm

from leakbench.bench.grid import make_config
from leakbench.bench.run_folder import (
    holds_run,
    open_run,
    read_grid,
    records_in,
    remove_unnamed_pictures,
    save_record,
)
from leakbench.errors import StoreError, UsageError
from leakbench.leakage.pictures import beside, write_pictures
from leakbench.records import COMPLETE, PARTIAL, CellRecord, RecordFiles, RunRecord
from leakbench.reports.files import COMPARISON, holds_comparison, read_record
from leakbench.runtime import files as runtime_files
from leakbench.runtime.files import write_file

PARTIAL_FILES = {
    *("results.partial.json", "results.partial.csv", "results.partial.md", "results.partial.tex"),
    "report.partial.html",
}


def record(*cells: CellRecord, complete: bool = True, command: str = "leakbench run") -> RunRecord:
    return RunRecord(
        leakbench="0.1.0", created="2025-01-02T03:04:05Z", seconds=1.0, command=command, complete=complete, grid={},
        environment={}, datasets=[], judges=[], plugins=[], synthetic=[], cells=list(cells), scales=[], rows=[],
        verdicts=[],
    )  # fmt: skip


def named(*names: str, status: str = "ok", **given: Any) -> list[CellRecord]:
    """One cell of each attack on the defence d."""
    return [cell("d", name, status=status, **given) for name in names]


WHOLE = record(*named("", "a", "b"))
INTERRUPTED = record(*named("", "a"), complete=False)
FAILED = record(*named("", "a", "b", status="failed"))


def read(out: Path, files: RecordFiles) -> RunRecord:
    return RunRecord.model_validate_json((out / files.record).read_bytes())


def test_a_folder_in_which_the_same_run_is_about_to_start_is_taken(tmp_path: Path) -> None:
    config = make_config({"defense": "ann", "attack": "none"})
    (tmp_path / ".grid.json.abc").write_text("{")
    assert not holds_run(tmp_path, config)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        holds_run(tmp_path, config)


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


# --- which record takes which one's place


@pytest.mark.parametrize(
    "poorer",
    [
        INTERRUPTED,
        FAILED,
        record(complete=False),
        record(*named("", "a"), *named("b", status="failed")),
        record(*named("", "a"), *named("b", status="no-signal")),
        record(*named("", "a", "c", "e"), complete=False),  # more cells, and not those
        record(*named("", "a"), *named("b", seed=1), complete=False),
        record(*named("", "a"), *named("b", of="a"), complete=False),
        record(*named("", "a"), *named("b", dataset="other"), complete=False),
    ],
)
def test_a_poorer_record_lies_beside_the_one_that_is_there(tmp_path: Path, poorer: RunRecord) -> None:
    assert save_record(WHOLE, tmp_path) == COMPLETE
    before = contents(tmp_path)
    assert save_record(poorer, tmp_path) == PARTIAL
    assert records_in(tmp_path) == [PARTIAL, COMPLETE]
    assert contents(tmp_path).items() > before.items()
    assert (read(tmp_path, COMPLETE), read(tmp_path, PARTIAL)) == (WHOLE, poorer)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WHOLE, WHOLE),
        (INTERRUPTED, WHOLE),
        (INTERRUPTED, INTERRUPTED),
        (FAILED, INTERRUPTED),  # nothing was ok in it
        (WHOLE, record(*named("", "a", "b", "c"), complete=False)),
        # another version plans the grid with other cells: a whole run takes the place
        (WHOLE, record(*named("", "a", "c"))),
        (record(*named("a[x=1]")), record(*named("a"))),
    ],
)
def test_a_record_that_holds_as_much_takes_the_place(tmp_path: Path, before: RunRecord, after: RunRecord) -> None:
    save_record(before, tmp_path)
    newer = after.model_copy(update={"command": "the same again"})
    assert save_record(newer, tmp_path) == COMPLETE
    assert records_in(tmp_path) == [COMPLETE]
    assert contents(tmp_path) == {"results.json": newer.model_dump_json(indent=1).encode()}


def test_cells_of_other_names_do_not_excuse_a_failure(tmp_path: Path) -> None:
    save_record(record(*named("a[x=1]")), tmp_path)
    assert save_record(record(*named("a", status="failed")), tmp_path) == PARTIAL


def test_a_whole_record_removes_what_lay_beside_the_one_before(tmp_path: Path) -> None:
    save_record(WHOLE, tmp_path)
    save_record(INTERRUPTED, tmp_path)
    for name in PARTIAL_FILES:
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    save_record(WHOLE, tmp_path)
    assert contents(tmp_path).keys() == {"results.json", "notes.txt"}


def test_of_two_poorer_records_the_newer_is_kept(tmp_path: Path) -> None:
    for one in (WHOLE, INTERRUPTED, FAILED):
        save_record(one, tmp_path)
    assert (read(tmp_path, COMPLETE), read(tmp_path, PARTIAL)) == (WHOLE, FAILED)


def test_a_record_of_another_version_is_compared_by_its_cells(tmp_path: Path) -> None:
    old = {"schema_version": 2, "cells": json.loads(WHOLE.model_dump_json())["cells"], "unknown": 1}
    (tmp_path / "results.json").write_text(json.dumps(old))
    assert save_record(INTERRUPTED, tmp_path) == PARTIAL
    assert json.loads((tmp_path / "results.json").read_text()) == old
    assert save_record(WHOLE, tmp_path) == COMPLETE


@pytest.mark.parametrize(
    "damaged",
    ["", "{", "[]", "3", "{}", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{"seed": []}]}', "[" * 100_000, "\0\xff"],
)
def test_a_damaged_record_is_replaced(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "results.json").write_text(damaged, encoding="latin-1")
    assert save_record(INTERRUPTED, tmp_path) == COMPLETE
    assert read(tmp_path, COMPLETE) == INTERRUPTED


def test_a_folder_without_a_record_has_none(tmp_path: Path) -> None:
    assert records_in(tmp_path) == []


# --- a full disk


def full_disk(allowed: int) -> Callable[[int], None]:
    """An fsync that fails after so many calls."""
    calls = iter(range(10_000))

    def fsync(_handle: int) -> None:
        if next(calls) >= allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fsync


@pytest.mark.parametrize("newer", [WHOLE, INTERRUPTED])
def test_on_a_full_disk_what_was_there_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newer: RunRecord
) -> None:
    save_record(WHOLE, tmp_path)
    save_record(FAILED, tmp_path)
    before = contents(tmp_path)
    write_pictures(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([0]), tmp_path, Path("images/new"))
    monkeypatch.setattr(runtime_files.os, "fsync", full_disk(0))
    with pytest.raises(StoreError, match="No space left on device") as caught:
        save_record(newer, tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert contents(tmp_path) == before  # the new pictures are gone, too


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_handle: int) -> None:
        raise KeyboardInterrupt

    write_file(tmp_path / "file", b"old")
    monkeypatch.setattr(runtime_files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "file", b"new")
    assert contents(tmp_path) == {"file": b"old"}


# --- pictures


def drawn(value: int, out: Path, attack: str = "a") -> CellRecord:
    """A cell with a picture of that grey."""
    images = torch.full((1, 1, 2, 2), value, dtype=torch.uint8)
    pictures = write_pictures(images, torch.tensor([0]), out, Path("images") / attack)
    return cell("d", attack, pictures=pictures)


def test_no_picture_takes_the_place_of_one_that_a_record_names(tmp_path: Path) -> None:
    whole = record(drawn(1, tmp_path), drawn(1, tmp_path, "b"))
    save_record(whole, tmp_path)
    before = contents(tmp_path)
    poorer = record(drawn(2, tmp_path))
    poorer = poorer.model_copy(update={"complete": False})
    assert save_record(poorer, tmp_path) == PARTIAL
    after = contents(tmp_path)
    assert after.items() > before.items()
    assert poorer.cells[0].pictures[0].path in after.keys() - before.keys()
    # what only the poorer one named goes with it
    save_record(record(drawn(1, tmp_path), drawn(1, tmp_path, "b")), tmp_path)
    assert contents(tmp_path) == before


def test_private_images_beside_a_picture_are_named_with_it(tmp_path: Path) -> None:
    def beside_private(value: int) -> CellRecord:
        one = drawn(1, tmp_path)
        image = torch.full((1, 1, 2, 2), value, dtype=torch.uint8)
        score = torch.zeros(1)
        private = {"training": image, "held_out": image + 1, "training_ssim": score, "held_out_ssim": score}
        pictures = beside(one.pictures, {"targets": torch.tensor([0]), **private}, tmp_path, Path("images") / "a")
        return one.model_copy(update={"pictures": pictures})

    save_record(record(beside_private(2)), tmp_path)
    before = contents(tmp_path)
    assert sum(name.endswith(".png") for name in before) == 3
    save_record(record(beside_private(4)), tmp_path)
    assert sum(name.endswith(".png") for name in contents(tmp_path)) == 3
    save_record(record(beside_private(2)), tmp_path)
    assert contents(tmp_path) == before


def test_what_is_no_picture_of_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images" / "mine").mkdir(parents=True)
    mine = {"images/mine/cat.png", "images/mine/000-01.txt", "notes.png"}
    gone = {"images/mine/000-01.png", "images/mine/001-10-0123abcd.png", "images/mine/.001-10-0123abcd.png.x8_k"}
    for name in mine | gone:
        (tmp_path / name).touch()
    save_record(WHOLE, tmp_path)
    assert contents(tmp_path).keys() == {*mine, "results.json"}


def test_no_picture_is_removed_behind_a_link_or_beside_a_damaged_record(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (elsewhere / "000-01.png").touch()
    (out / "images").symlink_to(elsewhere)
    save_record(WHOLE, out)
    assert (elsewhere / "000-01.png").exists()
    (out / "images").unlink()
    (out / "images" / "deep").mkdir(parents=True)
    (out / "images" / "deep" / "link").symlink_to(elsewhere)
    remove_unnamed_pictures(out)
    assert (elsewhere / "000-01.png").exists()
    (out / "images" / "000-01.png").touch()
    (out / "results.json").write_text("{")
    remove_unnamed_pictures(out)
    assert (out / "images" / "000-01.png").exists()


def test_no_picture_is_written_behind_a_link(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = make_config({"defense": "han2020"})
    open_run(out, config)
    (out / "images").symlink_to(elsewhere)
    with pytest.raises(UsageError, match=r"images' is a link"):
        open_run(out, config)  # before anything is computed
    with pytest.raises(StoreError, match="leads through a link"):
        drawn(1, out)
    (out / "images").unlink()
    (out / "images").mkdir()
    (out / "images" / "a").symlink_to(elsewhere)
    with pytest.raises(StoreError, match="leads through a link"):
        drawn(1, out)
    assert not any(elsewhere.iterdir())


def test_pictures_stay_beside_a_record_that_names_none_as_pictures(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000-01.png").touch()
    (tmp_path / "results.json").write_text('{"cells": [{"pictures": ["x"]}], "synthetic": []}')
    remove_unnamed_pictures(tmp_path)
    assert (tmp_path / "images" / "000-01.png").exists()


def test_a_file_that_is_larger_than_any_record_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> bytes:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(Path, "read_bytes", read)
    with (tmp_path / COMPLETE.record).open("wb") as stream:
        stream.truncate(3 << 30)  # of no bytes on the disk
    with pytest.raises(UsageError, match="is larger than 512 MB, which no record is"):
        read_record(tmp_path)
    assert not holds_comparison(tmp_path)
    (tmp_path / COMPARISON).hardlink_to(tmp_path / COMPLETE.record)
    assert not holds_comparison(tmp_path)
    (tmp_path / "grid.json").hardlink_to(tmp_path / COMPLETE.record)
    with pytest.raises(UsageError, match=r"grid\.json.* is damaged: choose another --out"):
        open_run(tmp_path, make_config({"defense": "han2020"}))
    with pytest.raises(UsageError, match=r"--resume: .*grid\.json.* is damaged"):
        read_grid(tmp_path)


def test_a_file_that_is_larger_than_any_record_gives_way_to_one(warm: Warm, tmp_path: Path) -> None:
    with (tmp_path / COMPLETE.record).open("wb") as stream:
        stream.truncate(3 << 30)
    assert save_record(warm.record, tmp_path) == COMPLETE
    assert read_record(tmp_path) == warm.record


def test_an_edited_grid_says_so(warm: Warm, tmp_path: Path) -> None:
    open_run(tmp_path, make_config(warm.tiny.options()))
    said = json.loads((tmp_path / "grid.json").read_text())
    said["grid"]["seeds"] = 2
    (tmp_path / "grid.json").write_text(json.dumps(said))
    with pytest.raises(UsageError, match=r"grid\.json' was edited, or is of another version of LeakBench"):
        read_grid(tmp_path)


def test_the_grid_of_another_version_is_not_called_damaged(warm: Warm, tmp_path: Path) -> None:
    open_run(tmp_path, make_config(warm.tiny.options()))
    said = json.loads((tmp_path / "grid.json").read_text())
    said["grid"]["spikes"] = 3
    (tmp_path / "grid.json").write_text(json.dumps(said))
    with pytest.raises(UsageError, match=r"holds no grid of this LeakBench \(spikes: .*\): use the version"):
        read_grid(tmp_path)


# --- pipes -------------------------------------------------------------------------------------------------------


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "grid.json")
    with pytest.raises(UsageError, match=r"grid\.json.* is damaged: choose another --out"):
        open_run(tmp_path, make_config({"defense": "han2020"}))
    with pytest.raises(UsageError, match="holds no run"):
        read_grid(tmp_path)
    os.mkfifo(tmp_path / COMPLETE.record)
    with pytest.raises(UsageError, match="is no regular file"):
        read_record(tmp_path)


@pytest.mark.parametrize("text", ['{"digest":' * 100_000, "[]", "3"])
def test_a_grid_that_is_no_table_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "grid.json").write_text(text)
    with pytest.raises(UsageError, match="is damaged"):
        open_run(tmp_path, make_config({"defense": "han2020"}))


def test_no_file_takes_the_place_of_a_pipe_or_a_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(StoreError, match="is no regular file"):
        write_file(pipe, b"table")
    assert pipe.is_fifo()


def test_a_folder_of_the_same_grid_is_gone_on_with(warm: Warm, tmp_path: Path) -> None:
    config = make_config(warm.tiny.options())
    open_run(tmp_path / "a" / "run", config)
    open_run(tmp_path / "a" / "run", config)
    assert read_grid(tmp_path / "a" / "run") == config


@pytest.mark.parametrize("content", ["another grid", "foreign", "damaged"])
def test_a_folder_that_is_in_use_is_refused(warm: Warm, tmp_path: Path, content: str) -> None:
    out, config = tmp_path / "run", make_config(warm.tiny.options())
    if content == "another grid":
        open_run(out, make_config(warm.tiny.options(seeds=2)))
    else:
        out.mkdir()
        (out / ("grid.json" if content == "damaged" else "thesis.tex")).write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UsageError) as caught:
        open_run(out, config)
    assert len(str(caught.value).splitlines()) == 1
    assert str(out) in str(caught.value)
    assert "choose another" in str(caught.value)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("below", ["file", "file/run"])
def test_a_folder_that_cannot_be_written_is_refused(warm: Warm, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError) as caught:
        open_run(tmp_path / below, make_config(warm.tiny.options()))
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path / below) in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"grid": 3}', '{"grid": []}', '{"grid": {"a": 1}}'])
def test_a_folder_without_a_readable_grid_cannot_be_resumed(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "grid.json").write_text(text)
    with pytest.raises(UsageError, match="--resume") as caught:
        read_grid(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
