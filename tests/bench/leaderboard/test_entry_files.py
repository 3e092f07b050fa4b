"""A folder that anybody may have filled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from board_entries import attack_on, entry, key_of, saved

from leakbench.bench.leaderboard.entries import MOST_BYTES
from leakbench.bench.leaderboard.files import defense_file, entry_files
from leakbench.errors import UsageError


def read(folder: Path, out: Path | None = None) -> tuple[list[str], list[str]]:
    files, refused = entry_files(folder, out or folder.parent / "out")
    assert all(line.isprintable() for line in refused)
    return [one.path for one in files], refused


def test_entries_are_found_below_the_folder(tmp_path: Path) -> None:
    folder = saved(tmp_path / "entries", b=entry(), a=entry("a"))
    saved(folder / "deep", c=entry("c"))
    (folder / "README.md").write_text("no entry")
    assert read(folder) == (["a.json", "b.json", "deep/c.json"], [])
    files, _ = entry_files(folder, tmp_path / "out")
    assert files[0].digest == key_of((folder / "a.json").read_text())


def test_a_page_in_the_folder_is_no_entry(tmp_path: Path) -> None:
    folder = saved(tmp_path / "entries", a=entry())
    saved(folder / "page", leaderboard=entry("b"))
    assert read(folder, folder / "page") == (["a.json"], [])
    with pytest.raises(UsageError, match="is the folder of entries"):
        read(folder, folder)


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    outside = saved(tmp_path / "outside", secret=entry("secret"))
    folder = saved(tmp_path / "entries", a=entry())
    (folder / "link.json").symlink_to(outside / "secret.json")
    (folder / "linked").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    with (folder / "large.json").open("wb") as file:
        file.truncate(100 << 20)  # sparse: reading it would take as much memory
    (folder / "just.json").write_bytes(b" " * (MOST_BYTES + 1))
    paths, refused = read(folder)
    limit = f"is no regular file of at most {MOST_BYTES >> 10} KB (links are not followed)"
    assert paths == ["a.json"]
    assert sorted(refused) == [
        f"just.json: {limit}",
        f"large.json: {limit}",
        f"link.json: {limit}",
        "linked: is a link: it is not followed",
        "loop: is a link: it is not followed",
        f"pipe.json: {limit}",
    ]


def test_names_of_files_may_be_anything(tmp_path: Path) -> None:
    folder = tmp_path / "entries"
    folder.mkdir()
    text = entry().model_dump_json()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\x1b[2J<b>.json")).write_text(text)
    files, refused = entry_files(folder, tmp_path / "out")
    assert refused == []
    assert files[0].path == "\\udcff\x1b[2J<b>.json"  # the page and the terminal show the rest


def test_there_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        read(tmp_path / "none")


def test_one_file_is_read_with_the_same_distrust(tmp_path: Path) -> None:
    folder = saved(tmp_path / "entries", a=entry())
    (folder / "link.json").symlink_to(folder / "a.json")
    (folder / "b.json").write_text("{")
    saved(folder, attack=attack_on(entry()))
    assert defense_file(folder / "a.json") == (entry(), key_of((folder / "a.json").read_text()))
    for name, why in {
        "none.json": "give an entry",
        "link.json": "give an entry",
        ".": "give an entry",
        "b.json": "b.json is no JSON",
        "attack.json": "is the entry of an attack: give that of the defence",
    }.items():
        with pytest.raises(UsageError, match=why):
            defense_file(folder / name)
