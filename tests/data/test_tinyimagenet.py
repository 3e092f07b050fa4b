from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from leakbench.data import tinyimagenet
from leakbench.data.tinyimagenet import TinyImageNet
from leakbench.errors import DataError

if TYPE_CHECKING:
    from conftest import FileServer

SMALL = TinyImageNet(classes=2, train_images_per_class=2, test_images=3)
ARCHIVE = "tiny-imagenet-200.zip"
FISH, CRANE = "n01443537", "n02012849"


def picture(path: Path, level: int, mode: str = "RGB", side: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    color = (level, 255 - level, 128) if mode == "RGB" else level
    Image.new(mode, (side, side), color).save(path)


def tree(folder: Path, side: int = 64) -> Path:
    """The published layout with two classes; grey levels tell the images apart."""
    root = folder / "tiny-imagenet-200"
    picture(root / "train" / FISH / "images" / f"{FISH}_0.JPEG", 10, side=side)
    picture(root / "train" / FISH / "images" / f"{FISH}_1.JPEG", 50, side=side)
    picture(root / "train" / CRANE / "images" / f"{CRANE}_0.JPEG", 90, "L", side=side)
    picture(root / "train" / CRANE / "images" / f"{CRANE}_1.JPEG", 130, side=side)
    for number, level in enumerate((170, 210, 250)):
        picture(root / "val" / "images" / f"val_{number}.JPEG", level, side=side)
    (root / "wnids.txt").write_text(f"{CRANE}\n{FISH}\n")
    (root / "words.txt").write_text(f"n00000001\tentity\n{FISH}\tgoldfish, Carassius auratus\n{CRANE}\tcrane\n")
    lines = [
        f"val_0.JPEG\t{CRANE}\t0\t0\t5\t5",
        f"val_1.JPEG\t{FISH}\t0\t0\t5\t5",
        f"val_2.JPEG\t{CRANE}\t0\t0\t5\t5",
    ]
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def pack(root: Path, path: Path) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, dead_mirror: str) -> None:
    monkeypatch.setattr(tinyimagenet, "_MIRRORS", (dead_mirror,))


def test_the_folder_is_read(tmp_path: Path) -> None:
    tree(tmp_path)
    data = SMALL(tmp_path)
    assert data.classes == ("goldfish", "crane")
    assert data.image_shape == (3, 64, 64)
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.test.labels.tolist() == [1, 0, 1]
    # JPEG and its colour space round by a level or two.
    assert data.train.images[:, 0, 30, 30].tolist() == pytest.approx([10, 50, 90, 130], abs=3)
    assert data.test.images[:, 0, 30, 30].tolist() == pytest.approx([170, 210, 250], abs=3)
    assert data.train.images[2, :, 30, 30].tolist() == [90, 90, 90]


def test_images_may_have_been_shrunk_which_the_source_says(tmp_path: Path) -> None:
    tree(tmp_path, side=32)
    data = SMALL(tmp_path)
    assert data.image_shape == (3, 32, 32)
    assert "shrunk to 32x32" in data.source
    picture(tmp_path / "tiny-imagenet-200" / "val" / "images" / "val_1.JPEG", 9)
    with pytest.raises(DataError, match=r"val_1.JPEG' is 64x64 pixels, right would be 32x32"):
        SMALL(tmp_path)


def test_pixels_are_in_the_right_place(tmp_path: Path) -> None:
    path = tree(tmp_path) / "train" / FISH / "images" / f"{FISH}_0.JPEG"
    rows, columns = np.mgrid[0:64, 0:64]
    Image.fromarray(np.stack([rows * 3, columns * 2, rows * 0], 2).astype(np.uint8)).save(path, quality=95)
    image = SMALL(tmp_path).train.images[0].int().numpy()
    assert np.abs(image[0] - rows * 3).mean() < 4
    assert np.abs(image[1] - columns * 2).mean() < 4


def test_the_zip_is_downloaded_and_unpacked(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = pack(tree(tmp_path / "made"), server.folder / ARCHIVE)
    monkeypatch.setattr(tinyimagenet, "_MIRRORS", (server.url,))
    folder = tmp_path / "data"
    data = replace(SMALL, md5=md5)(folder)
    assert data.fingerprint == SMALL(tmp_path / "made").fingerprint
    left = {path.name for path in folder.iterdir() if path.is_dir()}
    assert left == {"tiny-imagenet-200"}
    # From now on the folder is enough.
    (folder / ARCHIVE).unlink()
    assert SMALL(folder).fingerprint == data.fingerprint


def test_a_zip_with_another_md5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pack(tree(tmp_path / "made"), tmp_path / "data" / ARCHIVE)
    with pytest.raises(DataError, match=r"tiny-imagenet-200\.zip is damaged \(wrong md5\)"):
        SMALL(tmp_path / "data")


def test_a_broken_zip_leaves_no_folder(tmp_path: Path) -> None:
    pack(tree(tmp_path / "made"), tmp_path / ARCHIVE)
    body = (tmp_path / ARCHIVE).read_bytes()
    for broken in (body[:-30], b"no zip at all"):
        (tmp_path / ARCHIVE).write_bytes(broken)
        with pytest.raises(DataError, match="can't be unpacked"):
            replace(SMALL, md5=hashlib.md5(broken).hexdigest())(tmp_path)
        assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"made"}


def test_missing_data_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        TinyImageNet()(tmp_path)
    for part in (ARCHIVE, str(tmp_path), "90528d7ca1a48142e341f4ef8d21d0de"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_classes_with_the_same_word_are_told_apart(tmp_path: Path) -> None:
    (tree(tmp_path) / "words.txt").write_text(f"{FISH}\tcrane, machine\n{CRANE}\tcrane\n")
    assert SMALL(tmp_path).classes == (f"crane ({FISH})", f"crane ({CRANE})")


def _edit(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "wnids.txt").unlink(), r"wnids\.txt can't be read"),
        (lambda root: (root / "words.txt").write_bytes(b"\xff\xfe"), r"words\.txt can't be read"),
        (_edit("wnids.txt", FISH), "lists 1 classes, right would be 2"),
        (_edit("wnids.txt", f"{FISH} ../../x"), r"lists '\.\./\.\./x', which is no WordNet number"),
        (
            lambda root: (root / "train" / CRANE / "images" / f"{CRANE}_1.JPEG").unlink(),
            f"train/{CRANE}/images holds 1 images, right would be 2",
        ),
        (_edit("val/val_annotations.txt", f"val_0.JPEG\t{FISH}\t0\n"), "names 1 images in 1 lines"),
        (_edit("val/val_annotations.txt", f"val_0.JPEG\t{FISH}\n" * 3), "names 1 images in 3 lines"),
        (_edit("val/val_annotations.txt", f"../../x.JPEG\t{FISH}\t0\n"), "line 1 is not"),
        (_edit("val/val_annotations.txt", f"val_0.JPEG\t{FISH}\nval_1.JPEG\tn00000002\n"), "line 2 is not"),
        (
            lambda root: (root / "val" / "images" / "val_1.JPEG").unlink(),
            r"'val/images/val_1\.JPEG' is missing",
        ),
        (lambda root: (root / "val" / "images" / "val_1.JPEG").write_bytes(b"\xff\xd8"), "can't be read"),
        (lambda root: Image.new("RGB", (63, 64)).save(root / "val/images/val_1.JPEG"), "is 63x64 pixels"),
    ],
)
def test_a_damaged_folder_is_refused(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    damage(tree(tmp_path))
    with pytest.raises(DataError, match=message):
        SMALL(tmp_path)


def test_availability(tmp_path: Path) -> None:
    missing = SMALL.availability(tmp_path)
    assert not missing.available
    assert ARCHIVE in missing.detail
    assert str(tmp_path) in missing.detail
    (tmp_path / ARCHIVE).touch()
    assert SMALL.availability(tmp_path).detail == str(tmp_path / ARCHIVE)
    tree(tmp_path)
    assert SMALL.availability(tmp_path).detail == str(tmp_path / "tiny-imagenet-200")
