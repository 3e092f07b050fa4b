"""``leakbench cache`` on a store in which others left things."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_said import Leakbench

from leakbench.runtime.store import Store

HOSTILE = "\x1b[31mred\x1b]0;title\x07\nsecond line\r\u202e\udcff\x9b"


def filled(root: Path) -> Store:
    store = Store(root)
    for n in range(4):
        store.get_or_make("victim", 1, {"n": n}, lambda: ({}, {}))
    return store


def test_ls_shows_what_would_move_the_cursor_as_escapes(leakbench: Leakbench, tmp_path: Path) -> None:
    store = filled(tmp_path / "a\x1b[2Jcache\n")
    manifest = next((store.root / "objects").glob("??/*/manifest.json"))
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "stage": HOSTILE}))
    said = leakbench("cache", "ls", "--cache", store.root)
    assert (said.status, said.err) == (0, "")
    assert said.out.replace("\n", "").isprintable()
    assert len(said.out.splitlines()) == 4  # the folder, two stages, the sum
    assert r"\x1b[31mred" in said.out and r"\nsecond line" in said.out and r"\u202e" in said.out
    assert r"a\x1b[2Jcache\n" in said.out


@pytest.mark.parametrize("command", ["ls", "prune"])
def test_a_store_that_is_named_and_not_there_is_not_made(
    leakbench: Leakbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    assert leakbench("cache", command, "--cache", tmp_path / "typo").line == (
        f"--cache: no such folder {str(tmp_path / 'typo')!r}"
    )
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "first"))  # one that no run has filled yet is empty
    assert leakbench("cache", command).status == 0


@pytest.mark.slow
def test_ls_and_prune_survive_whatever_lies_in_a_store(leakbench: Leakbench, tmp_path: Path) -> None:
    store = filled(tmp_path / "cache")
    pipe, folder, link, deep = sorted((store.root / "objects").glob("??/*/manifest.json"))
    pipe.unlink()
    os.mkfifo(pipe)
    folder.unlink()
    (folder / "below").mkdir(parents=True)
    link.unlink()
    link.symlink_to(link.name)
    deep.write_text('{"stage":' * 100_000)
    free = [name for name in map("{:02x}".format, range(256)) if not (store.root / "objects" / name).exists()]
    os.mkfifo(store.root / "objects" / free[0])
    (store.root / "objects" / free[1]).symlink_to("nowhere")
    (store.root / "objects" / free[2]).mkdir()
    (store.root / "objects" / free[2] / ("f" * 64)).symlink_to("nowhere")
    (store.root / "objects" / free[2] / f".making-{HOSTILE}").mkdir()
    (store.root / "locks" / f"{'f' * 64}.lock").symlink_to("nowhere")
    os.mkfifo(store.root / "locks" / f"{'e' * 64}.lock")

    said = leakbench("cache", "ls", "--cache", store.root)
    assert (said.status, said.err) == (0, "")
    counts = {line.split()[0]: int(line.split()[1]) for line in said.out.splitlines()[1:]}
    assert counts == {"(damaged)": 7, "(unfinished)": 1, "all": 8}

    said = leakbench("cache", "prune", "--older-than", 0, "--cache", store.root)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("removed 8 artifacts")
    assert not list(store.entries())
    assert not any((store.root / "locks").iterdir())
    assert [path for path in (store.root / "objects").rglob("*") if not path.is_dir()] == []


def test_prune_removes_nothing_behind_a_link(leakbench: Leakbench, tmp_path: Path) -> None:
    root, elsewhere = filled(tmp_path / "store").root, tmp_path / "elsewhere"
    elsewhere.mkdir()
    theirs = [elsewhere / "model.safetensors", elsewhere / "photos.records"]
    for path in theirs:
        path.touch()
        os.utime(path, (0, 0))
    (root / "networks").mkdir()
    (root / "networks" / "0123456789abcdef").symlink_to(elsewhere)
    (root / "datasets").symlink_to(elsewhere)
    assert leakbench("cache", "prune", "--cache", root).status == 0
    assert all(path.exists() for path in theirs)
    (root / "networks" / "0123456789abcdef").unlink()
    (root / "networks").rmdir()
    (root / "networks").symlink_to(tmp_path)
    assert leakbench("cache", "prune", "--cache", root).status == 0
    assert all(path.exists() for path in theirs)
