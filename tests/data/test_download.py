from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from leakbench.data.download import fetch
from leakbench.errors import DataError

if TYPE_CHECKING:
    from conftest import FileServer

CONTENT = b"what was published"
FILES = {"one.bin": hashlib.md5(CONTENT).hexdigest()}


def test_a_missing_file_is_downloaded_once(server: FileServer, tmp_path: Path) -> None:
    (server.folder / "one.bin").write_bytes(CONTENT)
    folder = tmp_path / "new" / "data"
    assert fetch("set", [server.url], FILES, folder) == [folder / "one.bin"]
    assert (folder / "one.bin").read_bytes() == CONTENT
    asked = len(server.fetched)
    assert asked > 0
    fetch("set", [server.url], FILES, folder)
    assert len(server.fetched) == asked


def test_the_next_mirror_is_tried(server: FileServer, dead_mirror: str, tmp_path: Path) -> None:
    (server.folder / "one.bin").write_bytes(CONTENT)
    (path,) = fetch("set", [dead_mirror, server.url], FILES, tmp_path / "data")
    assert path.read_bytes() == CONTENT


def test_a_damaged_file_is_downloaded_anew(server: FileServer, tmp_path: Path) -> None:
    (server.folder / "one.bin").write_bytes(CONTENT)
    (tmp_path / "one.bin").write_bytes(CONTENT[:-1])
    (path,) = fetch("set", [server.url], FILES, tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_download_with_another_md5_is_refused(server: FileServer, tmp_path: Path) -> None:
    (server.folder / "one.bin").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"one\.bin is missing .* can't be downloaded \(RuntimeError"):
        fetch("set", [server.url], FILES, tmp_path / "data")
    with pytest.raises(DataError, match=r"one\.bin is damaged \(wrong md5\)"):
        fetch("set", [server.url], FILES, tmp_path / "data")


def test_without_network_one_line_says_what_belongs_where(dead_mirror: str, tmp_path: Path) -> None:
    files = FILES | {"two.bin": "0" * 32}
    with pytest.raises(DataError) as caught:
        fetch("set", [dead_mirror], files, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("set:", "one.bin is missing", str(tmp_path), FILES["one.bin"], "two.bin", dead_mirror):
        assert part in message


def test_a_folder_that_can_not_be_made_is_named(dead_mirror: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="LEAKBENCH_DATA"):
        fetch("set", [dead_mirror], FILES, tmp_path / "file" / "data")
