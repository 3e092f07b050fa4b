"""The decoded copy: believed for its digests alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_trees import digest_of, picture

from leakbench.data.decoded import DecodedCopy, decoded_copies, prune_copies
from leakbench.data.records import Published, Records

TRAIN = [(label, picture(seed, 1, 2, 3)) for seed, label in enumerate((0, 1, 1, 0))]
TEST = [(1, picture(8, 1, 2, 3)), (0, picture(9, 1, 2, 3))]


def rows(images: list[tuple[int, np.ndarray]]) -> Records:
    return np.stack([np.concatenate([[np.uint8(label)], pixels.ravel()]) for label, pixels in images])


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DecodedCopy:
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    return DecodedCopy("small", (Published(2, digest_of(TRAIN)), Published(1, digest_of(TEST))), 2, 6)


def written(copy: DecodedCopy) -> list[Records]:
    splits = [split.in_order("x", rows(images)) for split, images in zip(copy.splits, (TRAIN, TEST), strict=True)]
    copy.write(splits)
    return splits


def test_what_is_written_is_read(copy: DecodedCopy, caplog: pytest.LogCaptureFixture) -> None:
    assert copy.read() is None
    splits = written(copy)
    read = copy.read()
    assert read is not None
    for one, other in zip(read, splits, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in copy.path.parent.iterdir()] == [copy.path.name]
    assert not caplog.records


def forge(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".other"))
    path.symlink_to(path.with_suffix(".other"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (forge, "not the published one"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "41 bytes, right would be 42"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "43 bytes"),
        (lambda path: path.write_bytes(b""), "0 bytes"),
        (link, "it is a link"),
        pytest.param(pipe, "no regular file", marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")),
    ],
)
def test_what_is_no_copy_is_replaced(
    damage: Callable[[Path], object], reason: str, copy: DecodedCopy, caplog: pytest.LogCaptureFixture
) -> None:
    written(copy)
    damage(copy.path)
    assert copy.read() is None
    assert reason in caplog.text
    written(copy)
    assert copy.read() is not None


def test_does_without_a_cache(copy: DecodedCopy, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").touch()
    written(copy)
    assert "small is decoded at every use" in caplog.text
    assert copy.read() is None


def test_what_is_not_used_is_pruned(copy: DecodedCopy, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert decoded_copies(cache) == {} and prune_copies(cache, 0) == (0, 0)
    written(copy)
    long_ago = time.time() - 10 * 86400
    os.utime(copy.path, (long_ago, long_ago))
    assert prune_copies(cache, 11) == (0, 0)
    copy.read()
    assert prune_copies(cache, 5) == (0, 0)  # it was used
    os.utime(copy.path, (long_ago, long_ago))
    (left,) = decoded_copies(cache)
    assert left == copy.path
    assert prune_copies(cache, 5) == (1, 42)
    assert decoded_copies(cache) == {}
