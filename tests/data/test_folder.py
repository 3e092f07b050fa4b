from __future__ import annotations

import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder

from leakbench.data import Dataset, folder, load_dataset
from leakbench.data.images import EXTENSIONS
from leakbench.errors import DataError, LeakBenchError, UsageError


def picture(path: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (9, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


def tree(root: Path, counts: dict[str, int], mode: str = "RGB", seed: int = 0) -> Path:
    for position, (name, count) in enumerate(counts.items()):
        for number in range(count):
            picture(root / name / f"{number:02}.png", seed + 1000 * position + number, mode)
    return root


def load(root: Path | str) -> Dataset:
    return load_dataset(f"folder:{root}")


def test_the_fixed_split_is_stratified_and_complete(tmp_path: Path) -> None:
    root = tree(tmp_path, {"dog": 10, "cat": 5, "elk": 2})
    data = load(root)
    assert data.name == f"folder:{root}"
    assert data.classes == ("cat", "dog", "elk")
    assert data.image_shape == (3, 8, 9)
    assert np.bincount(data.train.labels).tolist() == [4, 8, 1]
    assert np.bincount(data.test.labels).tolist() == [1, 2, 1]

    # torchvision's own reader over the same folder: each image is in exactly one split, with its class.
    theirs = ImageFolder(str(root))
    assert theirs.classes == list(data.classes)
    expected = sorted((label, np.asarray(image).transpose(2, 0, 1).tobytes()) for image, label in theirs)
    found = [
        (int(label), image.numpy().tobytes())
        for split in (data.train, data.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert sorted(found) == expected
    assert load(root).fingerprint == data.fingerprint


def test_the_split_depends_on_names_alone(tmp_path: Path) -> None:
    root = tree(tmp_path / "one", {"a": 6, "b": 6})
    moved = tmp_path / "two"
    files = [path.relative_to(root) for path in root.rglob("*.png")]
    random.Random(3).shuffle(files)  # another order of creation, so another order in the file system
    for file in files:
        (moved / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, moved / file)
    assert load(moved).fingerprint == load(root).fingerprint


def test_own_train_and_test_folders_are_the_splits(tmp_path: Path) -> None:
    tree(tmp_path / "train", {"a": 3, "b": 2})
    tree(tmp_path / "test", {"a": 1, "b": 2}, seed=500)
    tree(tmp_path / "val", {"c": 1})
    data = load(tmp_path)
    assert data.classes == ("a", "b")
    for part, split in (("train", data.train), ("test", data.test)):
        theirs = ImageFolder(str(tmp_path / part))
        assert split.labels.tolist() == theirs.targets
        for image, (expected, _) in zip(split.images, theirs, strict=True):
            assert np.array_equal(image.numpy().transpose(1, 2, 0), np.asarray(expected))
    assert "train and test subfolders" in data.source


def test_files_with_the_same_pixels_in_both_splits_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree(tmp_path / "train", {"a": 3, "b": 2})
    tree(tmp_path / "test", {"a": 1, "b": 2}, seed=500)
    shutil.copy(tmp_path / "train" / "a" / "02.png", tmp_path / "test" / "b" / "00.png")  # of another class, too
    copies = "1 of 3 test images are also training images"
    assert load(tmp_path).source.endswith(f"train and test subfolders; {copies}")
    assert caplog.messages == [f"folder:{tmp_path}: {copies}: accuracy is overestimated"]


def test_train_and_test_may_be_names_of_classes(tmp_path: Path) -> None:
    assert load(tree(tmp_path, {"plane": 2, "train": 2})).classes == ("plane", "train")
    assert load(tree(tmp_path, {"test": 2})).classes == ("plane", "test", "train")


def test_the_report_does_not_show_where_the_folder_lay(tmp_path: Path) -> None:
    assert str(tmp_path) not in load(tree(tmp_path / "pets", {"a": 2, "b": 2})).source


def test_grey_only_if_all_images_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tree(tmp_path, {"a": 3, "b": 3}, mode="L")
    picture(root / "b" / "00.png", 7, "1")
    data = load(root)
    assert data.image_shape == (1, 8, 9)
    values = {bytes(image.numpy().tobytes()) for split in (data.train, data.test) for image in split.images}
    assert np.asarray(Image.open(root / "a" / "01.png")).tobytes() in values
    assert np.asarray(Image.open(root / "b" / "00.png").convert("L")).tobytes() in values

    assert not caplog.text
    picture(root / "b" / "02.png", 8, "RGB")
    colour = load(root)
    assert "'b/02.png' is in colour or transparent and 'a/00.png' is grey: all are read as colour" in caplog.text
    assert colour.image_shape == (3, 8, 9)
    images = np.concatenate([colour.train.images.numpy(), colour.test.images.numpy()])
    assert sum(bool((image[0] == image[1]).all()) for image in images) == 5


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA"])
def test_other_8_bit_formats_become_rgb(mode: str, tmp_path: Path) -> None:
    root = tree(tmp_path, {"a": 2, "b": 2}, mode=mode)
    data = load(root)
    expected = {np.asarray(Image.open(path).convert("RGB")).tobytes() for path in root.rglob("*.png")}
    found = {image.permute(1, 2, 0).numpy().tobytes() for s in (data.train, data.test) for image in s.images}
    assert found == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_refused(mode: str, tmp_path: Path) -> None:
    root = tree(tmp_path, {"a": 2, "b": 2})
    if mode == "P":
        Image.new("P", (9, 8)).save(root / "a" / "01.png", transparency=0)
    else:
        Image.new(mode, (9, 8), (7,) * (len(mode) - 1) + (254,)).save(root / "a" / "01.png")
    with pytest.raises(DataError, match=r"the image 'a/01.png' has transparent pixels, .*: mend or remove it") as error:
        load(root)
    assert "\n" not in str(error.value)


def test_more_than_8_bits_a_channel_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, {"a": 2, "b": 2})
    (root / "b" / "02.ppm").write_bytes(b"P6 9 8 4095\n" + bytes(2 * 9 * 8 * 3))
    with pytest.raises(DataError, match=r"'b/02.ppm' has more than 8 bits a channel"):
        load(root)
    (root / "b" / "02.ppm").unlink()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes(8 * (1 + 2 * 9 * 3)))
    header = struct.pack(">IIBBBBB", 9, 8, 16, 2, 0, 0, 0)  # 16 bits, RGB
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    (root / "b" / "02.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(DataError, match=r"'b/02.png' has more than 8 bits a channel"):
        load(root)


@pytest.mark.parametrize("names", [("Train", "Test"), ("Training", "Testing"), ("train", "val", "Test")])
def test_splits_by_other_names_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        tree(tmp_path / name, {"a": 2, "b": 2})
    with pytest.raises(DataError, match=r"call the splits train and test|none in test"):
        load(tmp_path)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_extension_is_read(extension: str, tmp_path: Path) -> None:
    mode = "L" if extension == ".pgm" else "RGB"
    for name in ("a/1", "a/2", "b/1", "b/2"):
        picture(tmp_path / f"{name}{extension.upper()}", 1, mode)
    assert len(load(tmp_path).train) == 2


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_read_upright(kind: str, orientation: int, tmp_path: Path) -> None:
    """EXIF says how the stored rows and columns are turned; sizes are compared as the images are seen."""
    # what each orientation needs (EXIF 2.3, 4.6.4 A), as a map of row-major pixels
    upright: Callable[[np.ndarray], np.ndarray] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }[orientation]
    turned = orientation >= 5
    for name in ("a/1", "a/2", "b/1", "b/2"):
        picture(tmp_path / f"{name}.png", 1, "L")
    path = tmp_path / "a" / f"0.{kind}"
    stored = np.zeros((9, 8) if turned else (8, 9), np.uint8)
    stored[:4, :4] = 250
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).convert("RGB").save(path, exif=exif, **({"lossless": True} if kind == "webp" else {}))
    data = load(tmp_path)
    images = np.concatenate([data.train.images.numpy(), data.test.images.numpy()])
    (found,) = images[(images > 200).mean((1, 2, 3)) * (images.std((1, 2, 3)) > 90) > 0.2]
    assert np.abs(found[0].astype(int) - upright(stored)).max() < (60 if kind == "jpg" else 1)


def test_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    root = tree(tmp_path, {"a": 2, "b": 2})
    picture(root / "a" / "deeper" / "x.png", 5)
    before = load(root).fingerprint
    for name in ("a/._00.png", "a/notes.txt", ".git/00.png", "a/.thumbs/00.png", "top.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"no image")
    data = load(root)
    assert data.fingerprint == before
    assert len(data.train) + len(data.test) == 5


def test_files_that_are_no_images_are_passed_over_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tree(tmp_path, {"a": 2, "b": 2})
    load(root)
    assert not caplog.messages
    (root / "b" / "02.gif").write_bytes(b"GIF89a")
    load(root)
    assert caplog.messages[-1].endswith("'b/02.gif' is passed over: " + ", ".join(EXTENSIONS) + " count as images")
    (root / "a" / "labels.csv").touch()
    load(root)
    assert "'a/labels.csv' and 1 more are passed over: .bmp" in caplog.messages[-1]


@pytest.mark.parametrize("kind", ["tiff", "webp", "png"])
def test_a_file_of_several_pictures_is_refused(kind: str, tmp_path: Path) -> None:
    root = tree(tmp_path, {"a": 2, "b": 2})
    first, second = (Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (9, 200))
    first.save(root / "a" / f"2.{kind}", save_all=True, append_images=[second])
    with pytest.raises(DataError, match=rf"the image 'a/2.{kind}' holds several pictures"):
        load(root)


def test_whether_mirrored_images_keep_their_class_is_the_users_to_say(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets", {"dog": 10, "cat": 5})
    plain, stated = load(root), load_dataset(f"folder:{root}:flips")
    assert (plain.flips, stated.flips) == (False, True)
    assert stated.name == f"folder:{root}:flips"
    assert torch.equal(plain.train.images, stated.train.images)
    assert plain.fingerprint != stated.fingerprint  # training may differ
    # a folder of that name is had with a slash behind it
    odd = tree(tmp_path / "odd:flips", {"dog": 10, "cat": 5})
    assert load_dataset(f"folder:{odd}/").fingerprint == plain.fingerprint
    for wrong, path in ((odd, "odd"), (f"{root}:flip", "pets:flip"), (f"{root}:flips=no", "pets:flips=no")):
        with pytest.raises(UsageError, match=f"no such folder '.*{path}': give folder:PATH or folder:PATH:flips, with"):
            load_dataset(f"folder:{wrong}")


@pytest.mark.parametrize("given", ["", "none", "file.png"])
def test_a_path_that_is_no_folder(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.png").touch()
    with pytest.raises(UsageError, match=f"no such folder '{given}': give folder:PATH"):
        load(given)


@pytest.mark.parametrize("given", ["~no-such-user/x", "x" * 5000, "a\0b"])
def test_a_path_that_can_not_be(given: str) -> None:
    with pytest.raises(UsageError, match=r"the folder '.*' can't be used"):
        load(given)


def _broken(root: Path) -> None:
    body = (root / "b" / "01.png").read_bytes()
    (root / "b" / "01.png").write_bytes(body[: len(body) // 2])


def _bomb(root: Path) -> None:
    # A PNG header that promises 20000 x 20000 pixels: refused from the header, nothing is unpacked.
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (root / "b" / "01.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _postscript(root: Path) -> None:
    (root / "b" / "01.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 8\n%%EndComments\nshowpage\n")


def _sixteen_bits(root: Path) -> None:
    Image.fromarray(np.full((8, 9), 40_000, np.uint16)).save(root / "b" / "01.png")


def _link_out(root: Path) -> None:
    picture(root.parent / "outside.png", 1)
    (root / "b" / "01.png").unlink()
    (root / "b" / "01.png").symlink_to(root.parent / "outside.png")


def _link_out_by_dots(root: Path) -> None:
    picture(root.parent / "outside.png", 1)
    (root / "b" / "01.png").unlink()
    (root / "b" / "01.png").symlink_to("../../outside.png")


def _linked_class(root: Path) -> None:
    tree(root.parent / "elsewhere", {"c": 2})
    (root / "c").symlink_to(root.parent / "elsewhere" / "c")


def _circle(root: Path) -> None:
    (root / "b" / "again").symlink_to("..")


def _pipe(root: Path) -> None:
    os.mkfifo(root / "b" / "02.png")


def _dangling(root: Path) -> None:
    (root / "b" / "02.png").symlink_to("nowhere.png")


def _only_train(root: Path) -> None:
    tree(root / "train", {"a": 2, "b": 2})


def _only_test(root: Path) -> None:
    tree(root / "test", {"a": 2, "b": 2})
    tree(root, {"train": 2})


def _no_image(root: Path) -> None:
    shutil.rmtree(root / "b")
    (root / "b").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root / "b"), "has 1 class subfolders: two or more"),
        (_no_image, "the class 'b' holds 0 images"),
        (lambda root: (root / "b" / "01.png").unlink(), "the class 'b' holds 1 images"),
        (_broken, r"the image 'b/01\.png' can't be read"),
        (lambda root: (root / "b" / "01.png").write_bytes(b""), r"the image 'b/01\.png' can't be read"),
        (_postscript, r"the image 'b/01\.png' can't be read \(UnidentifiedImageError"),
        (_bomb, r"the image 'b/01\.png' .*exceeds limit"),
        (
            lambda root: picture(root / "b" / "01.png", 1, size=(1025, 8)),
            r"'b/01\.png' is 1025x8 pixels, more than 1024",
        ),
        (_sixteen_bits, r"'b/01\.png' has the pixel format I;16, right would be 8 bits"),
        (
            lambda root: picture(root / "b" / "01.png", 1, size=(8, 9)),
            r"'b/01\.png' is 8x9 pixels, but 'a/00\.png' is 9x8",
        ),
        (_link_out, r"'b/01\.png' is a link that leaves the folder"),
        (_link_out_by_dots, r"'b/01\.png' is a link that leaves the folder"),
        (_linked_class, "'c' is a link to a folder"),
        (_circle, "'b/again' is a link to a folder"),
        (_pipe, r"'b/02\.png' is missing or no regular file"),
        (_dangling, r"'b/02\.png' is missing or no regular file"),
        (_only_train, "has class subfolders in train but none in test"),
        (_only_test, "has class subfolders in test but none in train"),
        (lambda root: (root / "b").rename(root / "b\nc"), r"class name 'b\\nc' is empty or not printable"),
    ],
)
def test_unfit_folders_are_refused_in_one_line(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "data", {"a": 2, "b": 2})
    load(root)
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        load(root)
    assert "\n" not in str(caught.value)


def test_images_of_one_size_that_is_too_small(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        picture(tmp_path / name, 1, size=(8, 7))
    with pytest.raises(DataError, match=r"'a/1\.png' is 8x7 pixels: at least 8x8"):
        load(tmp_path)


def test_more_images_than_memory_should_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, {"a": 5, "b": 5})
    monkeypatch.setattr(folder, "MOST_BYTES", 8 * 9 * 8 * 3)
    assert len(load(tmp_path).train) == 8
    monkeypatch.setattr(folder, "MOST_BYTES", 8 * 9 * 8 * 3 - 1)
    with pytest.raises(DataError, match=r"8 images of 9x8 pixels are 0 MB in memory, more than 0 MB: make them"):
        load(tmp_path)


def test_train_and_test_must_have_the_same_classes(tmp_path: Path) -> None:
    tree(tmp_path / "train", {"a": 2, "b": 2})
    tree(tmp_path / "test", {"a": 1, "c": 1})
    with pytest.raises(DataError, match="the class 'b' is in only one of train and test"):
        load(tmp_path)


def test_links_that_stay_inside_are_followed(tmp_path: Path) -> None:
    root = tree(tmp_path, {"a": 2, "b": 2})
    before = load(root).fingerprint
    (root / "b" / "01.png").rename(root / "kept.png")
    (root / "b" / "01.png").symlink_to("../kept.png")
    assert load(root).fingerprint == before


def test_the_folder_itself_may_be_a_link_or_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "real", {"a": 2, "b": 2})
    (tmp_path / "link").symlink_to(root)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(tmp_path / "link").fingerprint == load("~/real").fingerprint == load(root).fingerprint


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    position=st.integers(0, 10_000),
    value=st.integers(0, 255),
    kind=st.sampled_from(["png", "jpg", "webp", "tif"]),
)
def test_any_damaged_byte_gives_images_or_an_error_of_ours(
    position: int, value: int, kind: str, tmp_path: Path
) -> None:
    root = tmp_path / f"{kind}-{position}-{value}"
    for name in ("a/1", "a/2", "b/1", "b/2"):
        picture(root / f"{name}.{kind}", 1)
    path = root / "b" / f"2.{kind}"
    body = bytearray(path.read_bytes())
    body[position % len(body)] = value
    path.write_bytes(body)
    try:
        data = load(root)
    except LeakBenchError as error:
        assert "\n" not in str(error)
    else:
        assert data.image_shape == (3, 8, 9)
    shutil.rmtree(root)
