from __future__ import annotations

import gzip
import hashlib
import struct
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torchvision.datasets
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets.mnist import read_image_file, read_label_file

from leakbench.data import load_dataset
from leakbench.data.idx import FASHION_MNIST, MNIST, IdxSet, read_idx
from leakbench.errors import DataError

if TYPE_CHECKING:
    from conftest import FileServer

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def idx(*shape: int, body: bytes) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + body


def pack(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def small(kind: IdxSet) -> IdxSet:
    return replace(kind, train_images=6, test_images=4, side=3)


def write_files(folder: Path) -> dict[str, str]:
    """Six training and four test images of 3x3; pixels count up from 0, labels down from 9. Returns md5s."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = [
        idx(6, 3, 3, body=bytes(range(54))),
        idx(6, body=bytes([9, 8, 7, 6, 5, 4])),
        idx(4, 3, 3, body=bytes(range(100, 136))),
        idx(4, body=bytes([3, 2, 1, 0])),
    ]
    sums = {}
    for name, body in zip(FILES, bodies, strict=True):
        packed = pack(body)
        (folder / name).write_bytes(packed)
        sums[name] = hashlib.md5(packed).hexdigest()
    return sums


def published(monkeypatch: pytest.MonkeyPatch, mirror: str, sums: dict[str, str]) -> None:
    for kind in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST):
        monkeypatch.setattr(kind, "mirrors", [mirror])
        monkeypatch.setattr(kind, "resources", list(sums.items()))


def test_files_of_the_package_are_read(tmp_path: Path) -> None:
    write_files(tmp_path / "package")
    data = replace(small(FASHION_MNIST), package_folder=tmp_path / "package")(tmp_path / "unused")
    assert data.train.images.flatten().tolist() == list(range(54))
    assert data.train.labels.tolist() == [9, 8, 7, 6, 5, 4]
    assert data.test.images.shape == (4, 1, 3, 3)
    assert data.test.images.flatten().tolist() == list(range(100, 136))
    assert data.test.labels.tolist() == [3, 2, 1, 0]
    assert data.source == "Debian package dataset-fashion-mnist"
    assert not (tmp_path / "unused").exists()


def test_files_that_torchvision_downloaded_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead_mirror: str
) -> None:
    published(monkeypatch, dead_mirror, write_files(tmp_path / "MNIST" / "raw"))
    data = small(MNIST)(tmp_path)
    assert data.train.labels.tolist() == [9, 8, 7, 6, 5, 4]
    assert "md5 checked" in data.source


def test_missing_files_are_downloaded(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(monkeypatch, server.url, write_files(server.folder))
    kind = replace(small(FASHION_MNIST), package_folder=tmp_path / "no package")
    data = kind(tmp_path / "data")
    assert data.test.labels.tolist() == [3, 2, 1, 0]
    assert (tmp_path / "data" / "FashionMNIST" / "raw" / FILES[0]).is_file()
    # What was downloaded is where torchvision itself looks for it, and reads the same there.
    theirs = torchvision.datasets.FashionMNIST(tmp_path / "data", download=True)
    assert theirs.data.equal(data.train.images[:, 0])
    assert theirs.targets.equal(data.train.labels)


def test_a_wrong_md5_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead_mirror: str
) -> None:
    sums = write_files(tmp_path / "MNIST" / "raw")
    published(monkeypatch, dead_mirror, sums | {FILES[3]: "0" * 32})
    with pytest.raises(DataError, match=r"mnist: t10k-labels-idx1-ubyte\.gz is damaged \(wrong md5\)"):
        small(MNIST)(tmp_path)


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / FILES[1]).write_bytes(pack(idx(6, body=bytes([0, 1, 2, 3, 4, 10]))))
    with pytest.raises(DataError, match="train labels run from 0 to 10"):
        replace(small(FASHION_MNIST), package_folder=tmp_path)(tmp_path)


def test_availability_names_the_place_or_what_to_do(tmp_path: Path) -> None:
    kind = replace(small(FASHION_MNIST), package_folder=tmp_path / "package")
    found = kind.availability(tmp_path)
    assert not found.available
    for part in (*FILES, "dataset-fashion-mnist", str(tmp_path / "FashionMNIST" / "raw")):
        assert part in found.detail
    assert "Debian" not in MNIST.availability(tmp_path).detail

    write_files(tmp_path / "FashionMNIST" / "raw")
    assert kind.availability(tmp_path).detail == str(tmp_path / "FashionMNIST" / "raw")
    write_files(tmp_path / "package")
    assert "Debian package" in kind.availability(tmp_path).detail
    (tmp_path / "package" / FILES[2]).unlink()
    assert "Debian" not in kind.availability(tmp_path).detail


GOOD = idx(2, 3, body=b"abcdef")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "no IDX file", id="empty"),
        pytest.param(GOOD, r"can't be read \(Not a gzipped file", id="not packed"),
        pytest.param(pack(GOOD)[:-10], "can't be read", id="truncated archive"),
        pytest.param(pack(GOOD)[:-8] + bytes(3) + b"\0\6\0\0\0", r"can't be read \(CRC", id="wrong checksum"),
        pytest.param(pack(b"\1" + GOOD[1:]), "no IDX file", id="wrong magic"),
        pytest.param(pack(GOOD[:2] + b"\x0d" + GOOD[3:]), "of bytes .*magic 00000d02", id="floats"),
        pytest.param(pack(idx(6, body=b"abcdef")), "with 2 dimensions", id="other dimensions"),
        pytest.param(
            pack(idx(3, 2, body=b"abcdef")),
            r"holds \[3, 2\] values, right would be \[2, 3\]",
            id="other sizes",
        ),
        pytest.param(pack(idx(2**31, 2**31, body=b"")), r"holds \[2147483648, 2147483648\]", id="huge sizes"),
        pytest.param(pack(GOOD[:6]), r"says it holds \[\]", id="truncated header"),
        pytest.param(pack(GOOD[:-1]), "less than its header says", id="truncated body"),
        pytest.param(pack(GOOD + b"g"), "more than its header says", id="tail"),
    ],
)
def test_damaged_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, (2, 3))
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.gz can't be read"):
        read_idx(tmp_path / "none.gz", (2, 3))


@pytest.mark.slow
def test_a_long_tail_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(pack(GOOD + bytes(50_000_000)))
    asked: list[int] = []
    plain = gzip.GzipFile.read

    def read(self: gzip.GzipFile, size: int = -1) -> bytes:
        asked.append(size)
        return plain(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", read)
    with pytest.raises(DataError, match="more than its header says"):
        read_idx(path, (2, 3))
    assert asked == [4, 8, 7]


@pytest.mark.slow
@given(st.integers(0, len(pack(GOOD)) - 1), st.integers(0, 255))
def test_any_damaged_byte_gives_the_array_or_a_data_error(position: int, value: int) -> None:
    packed = bytearray(pack(GOOD))
    packed[position] = value
    with tempfile.NamedTemporaryFile(suffix=".gz") as file:
        file.write(packed)
        file.flush()
        try:
            found = read_idx(Path(file.name), (2, 3))
        except DataError:
            return
    assert found.tobytes() == b"abcdef"


def test_class_names_are_the_published_ones() -> None:
    assert list(FASHION_MNIST.classes) == torchvision.datasets.FashionMNIST.classes
    assert [name[0] for name in torchvision.datasets.MNIST.classes] == list(MNIST.classes)


@pytest.mark.skipif(not (DEBIAN / FILES[0]).is_file(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist(tmp_path: Path) -> None:
    data = load_dataset("fashion-mnist", tmp_path)
    assert (len(data.train), len(data.test), data.image_shape) == (60_000, 10_000, (1, 28, 28))
    assert np.bincount(data.train.labels).tolist() == [6000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.flips
    # torchvision's reader wants the files unpacked.
    for name in FILES[2:]:
        (tmp_path / name.removesuffix(".gz")).write_bytes(gzip.decompress((DEBIAN / name).read_bytes()))
    assert read_image_file(tmp_path / "t10k-images-idx3-ubyte").equal(data.test.images[:, 0])
    assert read_label_file(tmp_path / "t10k-labels-idx1-ubyte").equal(data.test.labels)
