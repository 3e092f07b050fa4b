"""A user's arrays: every layout they come in, and files that are damaged, false or hostile."""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from leakbench.data import catalogue, dataset_label, load_dataset, public_images
from leakbench.data.npz import load_npz
from leakbench.errors import DataError, LeakBenchError, UnknownName, UsageError

CLASSES = 4
SIDE = 8


def arrays(**changes: Any) -> dict[str, Any]:
    """16 images to train on, 8 to test on, of 4 classes."""
    random = np.random.RandomState(0)
    found: dict[str, Any] = {
        "x_train": random.randint(0, 256, (16, SIDE, SIDE)).astype(np.uint8),
        "y_train": np.arange(16) % CLASSES,
        "x_test": random.randint(0, 256, (8, SIDE, SIDE)).astype(np.uint8),
        "y_test": np.arange(8) % CLASSES,
    } | changes
    return {name: value for name, value in found.items() if value is not None}


def write(folder: Path, **changes: Any) -> str:
    np.savez_compressed(folder / "mine.npz", **arrays(**changes))
    return str(folder / "mine.npz")


def colour(layout: str) -> dict[str, Any]:
    random = np.random.RandomState(1)
    shape = (SIDE, SIDE + 2, 3) if layout == "last" else (3, SIDE, SIDE + 2)
    return {
        f"x_{part}": random.randint(0, 256, (n, *shape)).astype(np.uint8) for part, n in (("train", 16), ("test", 8))
    }


# --- right ones --------------------------------------------------------------------------------------------------


def test_grey_images(tmp_path: Path) -> None:
    name = write(tmp_path)
    data, given = load_dataset(name), arrays()
    assert data.image_shape == (1, SIDE, SIDE)
    assert data.classes == ("0", "1", "2", "3")
    assert np.array_equal(data.train.images[:, 0].numpy(), given["x_train"])
    assert np.array_equal(data.test.labels.numpy(), given["y_test"])
    assert data.name == name and dataset_label(name) == "mine.npz"
    assert str(tmp_path) not in data.source and "mine.npz" in data.source


def test_whether_mirrored_images_keep_their_class_is_the_users_to_say(tmp_path: Path) -> None:
    name = write(tmp_path)
    plain, stated, half = load_dataset(name), load_dataset(f"{name}:flips"), load_dataset(f"{name}:flips:half")
    assert (plain.flips, stated.flips, half.flips) == (False, True, True)
    assert plain.fingerprint != stated.fingerprint
    assert len(half.classes) == CLASSES // 2
    assert dataset_label(stated.name) == "mine.npz:flips" and dataset_label(half.name) == "mine.npz:flips:half"
    with pytest.raises(UsageError, match=r"no such file '.*other\.npz': give an \.npz file"):
        load_dataset(str(tmp_path / "other.npz:flips"))
    with pytest.raises(UnknownName, match=r"unknown dataset '.*:flip': .*FILE\.npz:flips"):
        load_dataset(f"{name}:flip")


@pytest.mark.parametrize("layout", ["first", "last"])
def test_colours_first_or_last(layout: str, tmp_path: Path) -> None:
    changes = colour(layout)
    data = load_dataset(write(tmp_path, **changes))
    assert data.image_shape == (3, SIDE, SIDE + 2)
    wanted = changes["x_train"].transpose(0, 3, 1, 2) if layout == "last" else changes["x_train"]
    assert np.array_equal(data.train.images.numpy(), wanted)


def test_other_names_and_columns_of_labels(tmp_path: Path) -> None:
    """As MedMNIST has them; what else is in the file is left alone."""
    plain = arrays()
    renamed: dict[str, Any] = {
        "train_images": plain["x_train"][..., None],
        "train_labels": plain["y_train"][:, None].astype(np.uint8),
        "test_images": plain["x_test"][..., None],
        "test_labels": plain["y_test"][:, None].astype(np.int32),
        "val_images": np.array([{"an": "object"}], dtype=object),
    }
    np.savez(tmp_path / "med.npz", **renamed)
    assert load_dataset(f"{tmp_path}/med.npz").fingerprint == load_dataset(write(tmp_path)).fingerprint


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    first = load_dataset(write(tmp_path))
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other" / "renamed.npz", **arrays(x_train=np.asfortranarray(arrays()["x_train"])))
    assert load_dataset(f"{tmp_path}/other/renamed.npz").fingerprint == first.fingerprint
    changed = arrays()["x_train"]
    changed[3, 2, 1] ^= 1
    assert load_dataset(write(tmp_path, x_train=changed)).fingerprint != first.fingerprint


def test_its_half(tmp_path: Path) -> None:
    name = write(tmp_path)
    half = load_dataset(f"{name}:half")
    assert half.classes == ("0", "2")
    assert dataset_label(half.name) == "mine.npz:half"
    assert len(half.train) == 8


def test_test_images_that_are_training_images_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = arrays()
    plain = load_dataset(write(tmp_path))
    assert plain.source.endswith("its own train and test images") and not caplog.text
    given["x_test"][[0, 2, 5]] = given["x_train"][[4, 7, 7]]
    name = write(tmp_path, x_test=given["x_test"])
    data = load_dataset(name)
    copies = "3 of 8 test images are also training images"
    assert data.source == f"{plain.source}; {copies}"
    assert data.fingerprint == load_npz(name).fingerprint
    assert caplog.messages == [f"mine.npz: {copies}: accuracy is overestimated"]
    caplog.clear()
    assert load_dataset(f"{name}:half").source.endswith("; 1 of 4 test images are also training images")
    assert len(caplog.messages) == 1
    caplog.clear()
    public_images(name, load_dataset("digits"))  # takes training images alone
    assert not caplog.text


def test_copies_in_published_data_sets_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "among", lambda images, _: np.ones(len(images), bool))
    for name in ("digits", "digits:half"):
        assert "also training images" not in load_dataset(name).source


# --- wrong ones --------------------------------------------------------------------------------------------------

UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "missing array": ({"y_test": None}, "must hold the arrays x_train, y_train, x_test, y_test or train_images"),
    "float images": ({"x_train": np.zeros((16, 8, 8))}, "x_train must be uint8 in 0..255, and is float64"),
    "signed images": ({"x_test": np.zeros((8, 8, 8), np.int8)}, "x_test must be uint8"),
    "object images": ({"x_train": np.array([[1], [2, 3]], dtype=object)}, "x_train must be uint8 in 0..255, and is ob"),
    "object labels": ({"y_train": np.array([0, "a"] * 8, dtype=object)}, "y_train must be whole numbers, and is obj"),
    "float labels": ({"y_test": np.zeros(8)}, "y_test must be whole numbers, and is float64"),
    "text labels": ({"y_test": np.array(["a"] * 8)}, "y_test must be whole numbers, and is <U1"),
    "fewer labels": ({"y_train": np.arange(15) % 4}, r"y_train must be \[16\], a label for each of x_train, and is"),
    "one-hot labels": ({"y_train": np.eye(4, dtype=int)[np.arange(16) % 4]}, r"y_train must be \[16\]"),
    "labels in a scalar": ({"y_train": np.array(3)}, r"y_train must be \[16\].*and is \[\]"),
    "negative labels": ({"y_train": np.arange(16) % 4 - 1}, "y_train must run from 0 on, and run from -1 to 2"),
    "huge labels": ({"y_train": np.full(16, 2**63, np.uint64)}, "y_train must run from 0 on"),
    "labels with a gap": (
        {"y_train": np.arange(16) % 4 * 2},
        "train labels must be 0 to 3 for 4 classes, and go up to",
    ),
    "a class of test images alone": ({"y_test": np.arange(8) % 5}, "class 4 is in only one of train and test"),
    "a class without test images": ({"y_test": np.arange(8) % 3}, "class 3 is in only one of train and test"),
    "one class": ({"y_train": np.zeros(16, int), "y_test": np.zeros(8, int)}, "name 1 class: two or more are needed"),
    "one image of a class": ({"y_train": np.minimum(np.arange(16), 1)}, "class 0 has one image to train on"),
    "no image": ({"x_train": np.zeros((0, 8, 8), np.uint8), "y_train": np.zeros(0, int)}, "x_train says that it is"),
    "flat images": ({"x_train": np.zeros((16, 64), np.uint8)}, r"x_train must be \[N, H, W\].*and is \[16, 64\]"),
    "two channels": ({"x_train": np.zeros((16, 8, 8, 2), np.uint8)}, r"with C 1 or 3, and is \[16, 8, 8, 2\]"),
    "too small": ({"x_train": np.zeros((16, 7, 9), np.uint8)}, "x_train images are 9x7 pixels, right would be 8x8 to"),
    "too large": ({"x_train": np.zeros((16, 8, 1025), np.uint8)}, "images are 1025x8 pixels"),
    "two sizes": ({"x_test": np.zeros((8, 9, 9), np.uint8)}, r"alike, and are \[1, 8, 8\] and \[1, 9, 9\]"),
}


def refused(name: str, error: type[LeakBenchError] = DataError) -> str:
    with pytest.raises(LeakBenchError) as caught:
        load_dataset(name)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("what", UNFIT)
def test_unfit_arrays(what: str, tmp_path: Path) -> None:
    changes, said = UNFIT[what]
    message = refused(write(tmp_path, **changes))
    assert re.search(said, message), message
    assert "mine.npz" in message


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(shape: str, dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def zipped(folder: Path, **members: bytes) -> str:
    """The right arrays, some of their bytes replaced."""
    whole = {name: npy(array) for name, array in arrays().items()} | members
    with zipfile.ZipFile(folder / "mine.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in whole.items():
            archive.writestr(f"{name}.npy", content)
    return str(folder / "mine.npz")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "can't be read"),
        (b"not an array", "can't be read"),
        (header("(16, 8, 8)"), r"says that it is \[16, 8, 8\], and holds 0 bytes"),
        (header("(16, 8, 8)") + bytes(1023), "holds 1,023 bytes"),
        (header("(16, 8, 8)") + bytes(1025), "holds 1,025 bytes"),
        (header("(4611686018427387904, 8, 8)"), "more than 4,096 MB"),
        (header("(16, 8, -8)"), "x_train"),
        (header("(16, 8, 8)", "|O") + bytes(1024), "must be uint8 in 0..255, and is object"),
        (header("(16, 8, 8)", "<V99999999999"), "mine.npz"),
        (header("__import__('os').abort()"), "can't be read"),
        (b"\x93NUMPY\x03\x00" + bytes(40), "has the npy version"),
        (b"\x93NUMPY\x02\x00" + b"\xff" * 40, "can't be read"),
    ],
)  # fmt: skip
def test_false_arrays(content: bytes, said: str, tmp_path: Path) -> None:
    message = refused(zipped(tmp_path, x_train=content))
    assert re.search(said, message), message


def test_a_zip_bomb_is_seen_before_it_is_unpacked(tmp_path: Path) -> None:
    """A member that says it is as large as its array, which is more than an array may be."""
    name = zipped(tmp_path)
    path, images = Path(name), 2**24
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("x_train.npy").file_size
    false = header(f"({images}, 32, 32)")
    name = zipped(tmp_path, x_train=false)
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, central + 24, 2**32 - 2)  # the size that the directory tells
    path.write_bytes(content)
    assert size < 2000
    assert "x_train is 16,384 MB, more than 4,096 MB" in refused(name)


def test_an_array_that_grows_beyond_what_it_said(tmp_path: Path) -> None:
    """The directory tells the size of the array, the member holds a megabyte more: no more than told is read."""
    name = zipped(tmp_path, x_train=header("(16, 8, 8)") + bytes(2**20))
    content = bytearray(Path(name).read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, len(header("(16, 8, 8)")) + 1024)
    Path(name).write_bytes(content)
    assert "mine.npz can't be read (BadZipFile" in refused(name)  # its checksum is of the whole


def test_damaged_files(tmp_path: Path) -> None:
    whole = Path(write(tmp_path)).read_bytes()
    random = np.random.RandomState(3)
    for number in range(60):
        damaged = bytearray(whole)
        for place in random.randint(0, len(whole), 8):
            damaged[place] = random.randint(256)
        cut = bytes(damaged[: random.randint(1, len(whole) + 1)]) if number % 2 else bytes(damaged)
        (tmp_path / "damaged.npz").write_bytes(cut)
        try:
            load_dataset(f"{tmp_path}/damaged.npz")
        except DataError as error:
            assert "\n" not in str(error)


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "no such file" in refused(f"{tmp_path}/none.npz", UsageError)
    (tmp_path / "folder.npz").mkdir()
    assert "no such file" in refused(f"{tmp_path}/folder.npz", UsageError)
    os.mkfifo(tmp_path / "pipe.npz")  # reading it would block
    assert "no such file" in refused(f"{tmp_path}/pipe.npz", UsageError)
    assert "a character that no file's name can" in refused("a\0b.npz", UsageError)
    assert "'~no such user/x.npz' can't be used" in refused("~no such user/x.npz", UsageError)
    (tmp_path / "text.npz").write_text("hello")
    assert "can't be read (BadZipFile" in refused(f"{tmp_path}/text.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    assert "can't be read" in refused(f"{tmp_path}/single.npz")
