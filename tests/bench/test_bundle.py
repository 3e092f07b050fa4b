"""Bundles: the same run on another machine, and zips that are none."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from leakbench.bench import bundle
from leakbench.bench.bundle import opened, unpack, write_bundle
from leakbench.errors import StoreError, UsageError
from leakbench.reports.files import read_record

FILES = {
    "results.json": b"{}",
    "grid.json": b"{}",
    "images/digits-vgg4-s0/han2020/direct/000-00-0123abcd.png": b"png",
    "report.html": b"<html>",
    "results.csv": b"a,b",
}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return write_bundle("run", FILES, tmp_path / "run.zip")


def test_what_is_packed_is_unpacked(packed: Path) -> None:
    with opened(packed) as folder:
        assert folder.name == "run"
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert found == FILES
    assert not folder.exists()


def test_a_folder_is_left_as_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        assert folder == tmp_path
    (tmp_path / "folder.zip").mkdir()
    with opened(tmp_path / "folder.zip") as folder:
        assert folder == tmp_path / "folder.zip"


def test_the_same_files_give_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    os.utime(packed, (0, 0))
    assert write_bundle("run", FILES, tmp_path / "again.zip").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "images/../../x.png", "notes.txt", "images/.hidden.png"])
def test_other_files_are_not_packed(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="can't go into a bundle"):
        write_bundle("run", {name: b""}, tmp_path / "x.zip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("limit", "most"), [("MOST_FILES", 4), ("MOST_BYTES", 12)])
def test_what_could_not_be_opened_is_not_written(
    limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, limit, most)
    with pytest.raises(UsageError, match=r"the run has 5 files of 0 MB, a bundle takes .*: pass on its folder"):
        write_bundle("run", FILES, tmp_path / "x.zip")
    assert list(tmp_path.iterdir()) == []


# --- zips of strangers -----------------------------------------------------------------------------------------------


def zipped(path: Path, *members: str | zipfile.ZipInfo, content: bytes = b"{}") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            archive.writestr(member, content)
    return path


def refused(path: Path, into: Path) -> str:
    into.mkdir(exist_ok=True)
    with pytest.raises((UsageError, StoreError)) as error:
        unpack(path, into)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "/evil.png",
        "run/../../evil.png",
        "run/images/../../../evil.png",
        "run/images/..\\..\\evil.png",
        "run\\results.json",
        "C:/evil.png",
        "run/images//evil.png",
        "run/images/a\n.png",
        "run/images/é.png",
        "run/images/" + "a/" * 8 + "b.png",
        "run/images/" + "a" * 200 + ".png",
        "run/evil.py",
        "run/evil.html",
        "run/results.partial.json",
        "./results.json",
        "../results.json",
        ".git/results.json",
        "run/",
        "",
        "other/results.json",
    ],
)
def test_no_path_leaves_its_folder(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "evil.zip", "run/results.json", name or "/")
    assert "is no bundle of a run" in refused(path, tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []
    assert sorted(one.name for one in tmp_path.iterdir()) == ["evil.zip", "into"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("run/images/a.png")
    info.external_attr = (kind | 0o777) << 16
    path = zipped(tmp_path / "evil.zip", "run/results.json", info, content=b"/etc/passwd")
    assert "'run/images/a.png' is no regular file" in refused(path, tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "evil.zip", "run/results.json", "run/results.json")
    assert "stands in it twice" in refused(path, tmp_path / "into")


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "evil.zip", "run/results.json", "run/images/a.png", "run/images/a.png/b.png")
    assert "can't be unpacked" in refused(path, tmp_path / "into")


def test_a_bundle_has_a_record(tmp_path: Path) -> None:
    assert "with results.json in it" in refused(zipped(tmp_path / "a.zip", "run/grid.json"), tmp_path / "into")
    assert "with results.json in it" in refused(zipped(tmp_path / "b.zip"), tmp_path / "into")


def test_what_is_wrong_with_its_record_is_said_of_the_bundle(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "run/results.json", content=b"{}")
    with pytest.raises(UsageError) as raised, opened(path) as folder:
        read_record(folder)
    assert str(raised.value).startswith(f"{path}/results.json is no record of a run")


def understated(path: Path) -> None:
    """Have the zip say that its file unpacks to one byte."""
    raw = bytearray(path.read_bytes())
    start = raw.rfind(b"PK\x01\x02")
    raw[start + 24 : start + 28] = struct.pack("<I", 1)
    path.write_bytes(raw)


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MOST_BYTES", 1 << 20)
    path = zipped(tmp_path / "bomb.zip", "run/results.json", content=bytes(8 << 20))
    assert path.stat().st_size < 20_000
    assert "unpacks to more than 1 MB" in refused(path, tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []
    understated(path)
    assert "is no zip that can be read" in refused(path, tmp_path / "into")
    assert sum(one.stat().st_size for one in (tmp_path / "into").rglob("*") if one.is_file()) <= 1


def test_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "many.zip", "run/results.json", *(f"run/images/{n}.png" for n in range(50)))
    monkeypatch.setattr(bundle, "_MOST_DIRECTORY", 1000)
    assert "holds more than" in refused(path, tmp_path / "into")
    monkeypatch.undo()
    monkeypatch.setattr(bundle, "MOST_FILES", 50)
    assert "holds more than 50 files" in refused(path, tmp_path / "into")


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.zip").open("wb") as file:
        file.truncate(bundle.MOST_PACKED + 1)
    assert "is larger than" in refused(tmp_path / "large.zip", tmp_path / "into")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("run/results.json", b"{}")
    assert "is packed in an unknown way" in refused(tmp_path / "x.zip", tmp_path / "into")


def _cut(raw: bytearray) -> bytearray:
    return raw[: len(raw) // 2]


def _zip64(raw: bytearray) -> bytearray:
    end = raw.rfind(b"PK\x05\x06")
    return raw[:end] + b"PK\x06\x07" + bytes(16) + raw[end:]


def _encrypted(raw: bytearray) -> bytearray:
    start = raw.find(b"PK\x01\x02")
    raw[start + 8] |= 1
    return raw


def _flipped(raw: bytearray) -> bytearray:
    raw[47] ^= 0xFF  # of the first file itself
    return raw


@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        (lambda _: b"", "it is no zip"),
        (lambda _: b"PK\x05\x06", "it is no zip"),
        (lambda _: b"no zip" * 100, "it is no zip"),
        (_cut, "it is no zip"),
        (_zip64, "it is a zip64"),
        (_encrypted, "is encrypted"),
        (_flipped, "is no zip that can be read"),
    ],
    ids=range(7),
)
def test_what_is_no_zip_that_can_be_read(
    tmp_path: Path, packed: Path, damage: Callable[[bytearray], bytes], wanted: str
) -> None:
    packed.write_bytes(damage(bytearray(packed.read_bytes())))
    assert wanted in refused(packed, tmp_path / "into")


def test_any_damage_is_one_line(tmp_path: Path, packed: Path) -> None:
    """Every byte of the zip's table of contents, turned over: unpacked or refused, and nothing outside its folder."""
    whole = packed.read_bytes()
    start = whole.find(b"PK\x01\x02")
    for number, place in enumerate(range(start, len(whole))):
        raw = bytearray(whole)
        raw[place] ^= 0xFF
        packed.write_bytes(raw)
        into = tmp_path / "into" / str(number)
        into.mkdir(parents=True)
        try:
            unpack(packed, into)
        except (UsageError, StoreError) as error:
            assert len(str(error).splitlines()) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == ["into", "run.zip"]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "is no file" in refused(tmp_path / "none.zip", tmp_path / "into")
    os.mkfifo(tmp_path / "pipe.zip")
    assert "is no file" in refused(tmp_path / "pipe.zip", tmp_path / "into")
