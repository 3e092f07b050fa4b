from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from leakbench.data import cifar
from leakbench.data.cifar import CIFAR10, CIFAR100, CifarSet
from leakbench.errors import DataError

if TYPE_CHECKING:
    from conftest import FileServer

TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def pixels(seed: int) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, 3072, dtype=np.uint8).tobytes()


def cifar10_members() -> dict[str, bytes]:
    """Five files of two images and a test file of one, as in the published archive."""
    members = {"batches.meta.txt": ("\n".join(TEN) + "\n\n").encode()}
    for number in range(1, 6):
        body = bytes([number]) + pixels(number) + bytes([number + 4]) + pixels(number + 10)
        members[f"data_batch_{number}.bin"] = body
    members["test_batch.bin"] = bytes([9]) + pixels(20)
    return {f"cifar-10-batches-bin/{name}": body for name, body in members.items()}


def cifar100_members() -> dict[str, bytes]:
    names = "\n".join(f"class_{number}" for number in range(100))
    members = {
        "fine_label_names.txt": names.encode(),
        "train.bin": bytes([19, 99]) + pixels(1) + bytes([3, 40]) + pixels(2),
        "test.bin": bytes([7, 55]) + pixels(3),
    }
    return {f"cifar-100-binary/{name}": body for name, body in members.items()}


def archive(folder: Path, kind: CifarSet, members: dict[str, bytes], images: int) -> CifarSet:
    """Writes the archive of ``kind`` and returns the set with its md5 and sizes."""
    path = folder / kind.archive
    with tarfile.open(path, "w:gz") as tar:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return patched(path, kind, images)


def patched(path: Path, kind: CifarSet, images: int = 2) -> CifarSet:
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return replace(kind, md5=md5, images_per_file=images, test_images_per_file=1)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, dead_mirror: str) -> None:
    monkeypatch.setattr(cifar, "_MIRRORS", (dead_mirror,))


def test_cifar10(tmp_path: Path) -> None:
    data = archive(tmp_path, CIFAR10, cifar10_members(), 2)(tmp_path)
    assert data.classes == tuple(TEN)
    assert data.image_shape == (3, 32, 32)
    assert data.train.labels.tolist() == [1, 5, 2, 6, 3, 7, 4, 8, 5, 9]
    assert data.test.labels.tolist() == [9]
    expected = b"".join(pixels(seed) for number in range(1, 6) for seed in (number, number + 10))
    assert data.train.images.numpy().tobytes() == expected
    # The first 1024 bytes are the red channel, row by row.
    assert data.test.images[0, 0, 0].tolist() == list(pixels(20)[:32])
    assert data.test.images[0, 2, 31].tolist() == list(pixels(20)[-32:])
    assert data.flips
    assert tuple(data.input_range) == (-1, 1)


def test_cifar100_takes_the_fine_label(tmp_path: Path) -> None:
    data = archive(tmp_path, CIFAR100, cifar100_members(), 2)(tmp_path)
    assert data.train.labels.tolist() == [99, 40]
    assert data.test.labels.tolist() == [55]
    assert data.classes[99] == "class_99"
    assert data.train.images.numpy().tobytes() == pixels(1) + pixels(2)


def test_the_archive_is_downloaded(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = archive(server.folder, CIFAR100, cifar100_members(), 2)
    monkeypatch.setattr(cifar, "_MIRRORS", (server.url,))
    assert kind(tmp_path / "data").test.labels.tolist() == [55]


def test_a_wrong_md5_is_refused(tmp_path: Path) -> None:
    archive(tmp_path, CIFAR10, cifar10_members(), 2)
    with pytest.raises(DataError, match=r"cifar10: cifar-10-binary\.tar\.gz is damaged \(wrong md5\)"):
        CIFAR10(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cifar-100-binary/train.bin": None}, r"holds no file cifar-100-binary/train\.bin"),
        ({"cifar-100-binary/fine_label_names.txt": b"a b"}, "names 2 classes, right would be 100"),
        ({"cifar-100-binary/train.bin": bytes(6147)}, r"train\.bin holds 6147 bytes, right would be 6148"),
        ({"cifar-100-binary/test.bin": bytes(99_999)}, r"test\.bin holds 3075 bytes, right would be 3074"),
        ({"cifar-100-binary/test.bin": b"\0\x64" + bytes(3072)}, "test labels run from 100 to 100"),
    ],
)
def test_other_contents_are_refused(change: dict[str, bytes | None], message: str, tmp_path: Path) -> None:
    members = cifar100_members() | change
    kept = {name: body for name, body in members.items() if body is not None}
    with pytest.raises(DataError, match=message):
        archive(tmp_path, CIFAR100, kept, 2)(tmp_path)


def test_a_link_in_the_archive_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / CIFAR100.archive
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo("cifar-100-binary/fine_label_names.txt")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(DataError, match="holds no file"):
        patched(path, CIFAR100)(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_truncated_archive_with_a_right_md5_is_refused(keep: int, tmp_path: Path) -> None:
    archive(tmp_path, CIFAR100, cifar100_members(), 2)
    path = tmp_path / CIFAR100.archive
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="can't be read"):
        patched(path, CIFAR100)(tmp_path)


def test_availability(tmp_path: Path) -> None:
    missing = CIFAR10.availability(tmp_path)
    assert not missing.available
    assert "cifar-10-binary.tar.gz" in missing.detail
    assert str(tmp_path) in missing.detail
    archive(tmp_path, CIFAR10, cifar10_members(), 2)
    assert CIFAR10.availability(tmp_path).detail == str(tmp_path / "cifar-10-binary.tar.gz")


def test_the_published_sizes() -> None:
    # The page that publishes the archives says so.
    assert len(CIFAR10.train_files) * CIFAR10.images_per_file == 50_000
    assert len(CIFAR100.train_files) * CIFAR100.images_per_file == 50_000
    assert CIFAR10.test_images_per_file == CIFAR100.test_images_per_file == 10_000
