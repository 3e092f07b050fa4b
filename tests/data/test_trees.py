"""Files of a folder or a tar: which are read, and what hostile ones come to."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from image_trees import special, write_folder, write_tar

from leakbench.data import trees
from leakbench.data.trees import read_tree
from leakbench.errors import DataError

WANTED = re.compile(r"(a|b)/[^/]+\.txt")
FILES = {
    "b/2.txt": b"two", "a/1.txt": b"one", "a/.hidden.txt": b"x", ".git/a/1.txt": b"x", "a/1.dat": b"x", "1.txt": b"x",
    "a/deep/1.txt": b"x", "README": b"x",
}  # fmt: skip


def read(path: Path, most_bytes: int = 10) -> dict[str, bytes]:
    return {found.string: content for found, content in read_tree(path, "top", WANTED, most_bytes)}


def as_folder(base: Path, files: dict[str, bytes]) -> Path:
    return write_folder(base / "top", files)


def as_tar(base: Path, files: dict[str, bytes]) -> Path:
    return write_tar(base / "files.tar", "top", files)


@pytest.mark.parametrize("made", [as_folder, as_tar])
def test_what_matches_is_read(made: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path) -> None:
    assert read(made(tmp_path, FILES)) == {"a/1.txt": b"one", "b/2.txt": b"two"}


@pytest.mark.parametrize("made", [as_folder, as_tar])
def test_a_large_file_is_refused(made: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path) -> None:
    path = made(tmp_path, {"a/1.txt": bytes(11), "README": bytes(1000)})
    assert len(read(path, most_bytes=11)["a/1.txt"]) == 11
    with pytest.raises(DataError, match=r"a/1\.txt' is 11 bytes: right would be 10 at most"):
        read(path)


def test_names_of_a_tar_may_begin_with_a_dot(tmp_path: Path) -> None:
    assert read(write_tar(tmp_path / "files.tar", "./top", FILES)) == {"a/1.txt": b"one", "b/2.txt": b"two"}


def test_other_tops_of_a_tar_are_passed_over(tmp_path: Path) -> None:
    assert read(write_tar(tmp_path / "files.tar", "other", FILES)) == {}
    assert read(write_tar(tmp_path / "files.tar", "other/top", FILES)) == {}


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (special("top/a/2.txt", tarfile.SYMTYPE, "/etc/passwd"), r"'top/a/2\.txt' is a link or no regular file"),
        (special("top/a/2.txt", tarfile.LNKTYPE, "top/a/1.txt"), r"'top/a/2\.txt' is a link or no regular file"),
        (special("elsewhere", tarfile.CHRTYPE), "'elsewhere' is a link or no regular file"),
        (special("top/a/2.txt", tarfile.FIFOTYPE), "is a link or no regular file"),
        (special("top/../2.txt", tarfile.REGTYPE), r"'top/\.\./2\.txt' leaves the folder top"),
        (special("top/..", tarfile.DIRTYPE), r"'top/\.\.' leaves the folder top"),
        (special("/top/a/2.txt", tarfile.REGTYPE), r"'/top/a/2\.txt' leaves the folder top"),
        (special("top/" + 2**16 * "a/", tarfile.REGTYPE), r"ReadError: a header of 131\d\d\d bytes"),
    ],
)
def test_a_tar_of_more_than_files_is_refused(member: tarfile.TarInfo, message: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "files.tar", "top", FILES, member)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.REGTYPE])
def test_a_negative_size_is_refused(kind: bytes, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "files.tar", "top", {"a/1.txt": b"one"})
    member = special("top/a/2.txt", kind)
    member.size = -(2**20)
    whole = path.read_bytes()
    path.write_bytes(whole[:1024] + member.tobuf(tarfile.GNU_FORMAT) + whole[1024:])
    with pytest.raises(DataError, match=r"files\.tar") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("left", [0, 100, 512, 700, 1024, -10240, -10000])
def test_a_tar_that_was_cut_off_is_refused(left: int, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "files.tar", "top", {f"a/{number}.txt": b"0123456789" for number in range(20)})
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    with pytest.raises(DataError, match=r"files\.tar (is cut off or damaged at byte|can't be read)") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "files.tar", "top", {"a/1.txt": b"one", "a/2.txt": b"two"})
    content = bytearray(path.read_bytes())
    content[1024 + 3] ^= 1  # the second name
    path.write_bytes(content)
    with pytest.raises(DataError, match="is cut off or damaged at byte 1,024"):
        read(path)


def test_a_compressed_tar_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "files.tar", "top", FILES, mode="w:gz")
    with pytest.raises(DataError, match="can't be read as an uncompressed tar"):
        read(path)


def test_a_huge_tar_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_tar(tmp_path, FILES)
    monkeypatch.setattr(trees, "MOST_TAR_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match="is larger than 0 MB"):
        read(path)


def test_a_tar_of_countless_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_tar(tmp_path, FILES)
    monkeypatch.setattr(trees, "MOST_MEMBERS", len(FILES))
    assert len(read(path)) == 2
    monkeypatch.setattr(trees, "MOST_MEMBERS", len(FILES) - 1)
    with pytest.raises(DataError, match="holds more than 7 files"):
        read(path)


@pytest.mark.parametrize("target", ["outside.txt", "top/a/1.txt", "nowhere", "/dev/zero"])
def test_a_linked_file_is_refused(target: str, tmp_path: Path) -> None:
    root = as_folder(tmp_path, {"a/1.txt": b"one"})
    (tmp_path / "outside.txt").touch()
    (root / "a" / "2.txt").symlink_to(tmp_path / target)
    with pytest.raises(DataError, match=r"a/2\.txt' can't be read: it is a link"):
        read(root)


def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    root = as_folder(tmp_path, {"a/1.txt": b"one"})
    (root / "b").symlink_to(root / "a")
    with pytest.raises(DataError, match="b' can't be read: it is a link"):
        read(root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no named pipes")
def test_a_pipe_blocks_nobody(tmp_path: Path) -> None:
    root = as_folder(tmp_path, {"a/1.txt": b"one"})
    os.mkfifo(root / "a" / "2.txt")
    with pytest.raises(DataError, match=r"a/2\.txt' is no regular file"):
        read(root)
