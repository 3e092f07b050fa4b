from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from image_trees import digest_of, encoded, picture, special, write_folder, write_tar
from numpy.typing import NDArray

from leakbench.data import Dataset, cifar, default_data_folder, load_dataset
from leakbench.data.cifar import CIFAR10, CIFAR100, CifarSet
from leakbench.data.records import Published
from leakbench.errors import DataError

if TYPE_CHECKING:
    from conftest import FileServer

Images = list[tuple[int, NDArray[np.uint8]]]

TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAIN: Images = [(label, picture(seed, 32, 32, 3)) for seed, label in enumerate([*range(9, -1, -1), *range(10)])]
TEST: Images = [(label, picture(100 + label, 32, 32, 3)) for label in range(10)]
SMALL = replace(
    CIFAR10,
    train=Published(2, digest_of(TRAIN)),
    test=Published(1, digest_of(TEST)),
    train_files=CIFAR10.train_files[:4],
)
"""CIFAR-10 with two training images and a test image of each class, and four files of five in the archive"""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, dead_mirror: str, tmp_path: Path) -> None:
    monkeypatch.setattr(cifar, "_MIRRORS", (dead_mirror,))
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))


# --- images ------------------------------------------------------------------------------------------------------


def image_files(kind: str = "PNG", **options: object) -> dict[str, bytes]:
    """Name below the set's folder -> content."""
    return {
        f"{part}/{TEN[label]}/{number}.{kind.lower()}": encoded(pixels, kind, **options)
        for part, images in (("train", TRAIN), ("test", TEST))
        for number, (label, pixels) in enumerate(images)
    }


def members_of_archive(train: Images = TRAIN) -> dict[str, bytes]:
    """File -> content, as in the published archive: a label, then the channels one after the other."""

    def records(images: Images) -> bytes:
        return b"".join(bytes([label]) + pixels.transpose(2, 0, 1).tobytes() for label, pixels in images)

    files = [train[first : first + 5] for first in range(0, 20, 5)]
    return dict(zip([*SMALL.train_files, *SMALL.test_files], map(records, [*files, TEST]), strict=True))


def archive(folder: Path, kind: CifarSet, members: dict[str, bytes]) -> CifarSet:
    """Writes the archive of ``kind`` and returns the set with its md5."""
    with tarfile.open(folder / kind.archive, "w:gz") as tar:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return with_md5(folder, kind)


def with_md5(folder: Path, kind: CifarSet) -> CifarSet:
    return replace(kind, md5=hashlib.md5((folder / kind.archive).read_bytes()).hexdigest())


def content_of(data: Dataset) -> set[tuple[str, bytes]]:
    """(class, pixels) of the training images."""
    pairs = zip(data.train.labels.tolist(), data.train.images.numpy(), strict=True)
    return {(data.classes[label], image.transpose(1, 2, 0).tobytes()) for label, image in pairs}


def test_every_container_gives_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    for number, container in enumerate(("png", "webp", "tar", "archive")):
        # a cache each: no container gets another's copy
        monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / f"cache{number}"))
        folder = tmp_path / container
        folder.mkdir()
        kind = SMALL
        match container:
            case "png":
                write_folder(folder / "cifar10", image_files())
            case "webp":
                write_folder(folder / "cifar10", image_files("WEBP", lossless=True))
            case "tar":
                write_tar(folder / "cifar10.tar", "cifar10", dict(reversed(image_files().items())))
            case "archive":
                kind = archive(folder, SMALL, members_of_archive())
        loaded.append(kind(folder))
        assert kind.availability(folder).available
    assert len({data.fingerprint for data in loaded}) == 1
    for data in loaded:
        assert data.classes == tuple(TEN)
        assert data.image_shape == (3, 32, 32)
        assert content_of(data) == {(TEN[label], pixels.tobytes()) for label, pixels in TRAIN}
        assert data.test.labels.sort().values.tolist() == list(range(10))
        assert data.flips and tuple(data.input_range) == (-1, 1)
        # whatever it lies in, which a decoded copy would not tell
        assert data.source == "CIFAR-10, all 30 images checked by digest"


def test_a_decoded_copy_takes_the_place_of_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "cifar10", image_files())
    first = SMALL(tmp_path)
    monkeypatch.setattr(cifar, "pixels", None)  # nothing is decoded again
    again = SMALL(tmp_path)
    assert (again.fingerprint, again.source) == (first.fingerprint, first.source)
    (copy,) = (tmp_path / "cache" / "datasets").iterdir()
    copy.write_bytes(bytes(len(copy.read_bytes())))
    monkeypatch.undo()
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    assert SMALL(tmp_path).fingerprint == first.fingerprint
    assert copy.read_bytes().strip(b"\0")


def test_a_copy_alone_is_no_data_set(tmp_path: Path) -> None:
    write_folder(tmp_path / "cifar10", image_files())
    SMALL(tmp_path)
    assert not SMALL.availability(tmp_path / "empty").available
    with pytest.raises(DataError, match=r"cifar10: cifar-10-binary\.tar\.gz is missing in .*empty"):
        SMALL(tmp_path / "empty")


@pytest.mark.parametrize("tarred", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/bird/7.png": None}, r"images are missing: 1 of train/bird: get the set anew"),
        ({f"test/{name}/{number}.png": None for number, name in enumerate(TEN)},
         "images are missing: 1 of test/airplane, 1 of test/automobile, 1 of test/bird, 1 of test/cat, 1 of test/deer "
         "and of 5 classes more"),
        ({"test/cat/x.png": encoded(picture(1, 32, 32, 3), "PNG")}, "test/cat holds more than its 1 images"),
        ({"test/cat/3.png": encoded(picture(1, 32, 32, 3), "PNG")}, "test: an image or more is not the published one"),
        ({"test/cat/3.png": encoded(TEST[3][1][:28, :28], "PNG")},
         r"'test/cat/3\.png' is 28x28 pixels, right would be 32x32"),
        ({"test/cat/3.png": None, "test/cat/3.jpg": encoded(TEST[3][1], "JPEG")},
         r"'test/cat/3\.jpg' is compressed with loss"),
        ({"test/cat/3.png": encoded(TEST[3][1], "JPEG")}, r"'test/cat/3\.png' is compressed with loss"),
        ({"test/cat/3.png": encoded(TEST[3][1], "WEBP", quality=90)}, r"'test/cat/3\.png' is compressed with loss"),
        ({"test/cat/3.png": encoded(TEST[3][1], "BMP")}, "is no whole image in the format PNG or WEBP"),
        ({"test/cat/3.png": b""}, "is no whole image in the format PNG or WEBP"),
        ({"test/cat/3.png": encoded(TEST[3][1], "PNG")[:900]}, r"'test/cat/3\.png' can't be read"),
        ({"test/cat/3.png": bytes(2**16 + 1)}, "is 65,537 bytes: right would be 65,536 at most"),
        ({"test/kitty/3.png": b"x"}, r"'test/kitty/3\.png': CIFAR-10 has no class 'kitty'"),
    ],
)  # fmt: skip
def test_other_images_are_refused(change: dict[str, bytes | None], message: str, tarred: bool, tmp_path: Path) -> None:
    files = {name: content for name, content in (image_files() | change).items() if content is not None}
    if tarred:
        write_tar(tmp_path / "cifar10.tar", "cifar10", files)
    else:
        write_folder(tmp_path / "cifar10", files)
    with pytest.raises(DataError, match=message) as caught:
        SMALL(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_images_may_be_grey_or_have_a_palette(tmp_path: Path) -> None:
    """What tools that shrink PNGs make of them: other modes with the same pixels."""
    grey = np.repeat(picture(7, 32, 32, 1), 3, 2)
    few = np.where(picture(8, 32, 32, 1) > 99, np.uint8([1, 2, 3]), np.uint8([7, 8, 9])).astype(np.uint8)
    test = [(0, grey), (1, few), *TEST[2:]]
    files = image_files() | {
        "test/airplane/0.png": encoded(grey[:, :, 0], "PNG"),
        "test/automobile/1.png": palette(few),
    }
    write_folder(tmp_path / "cifar10", files)
    data = replace(SMALL, test=Published(1, digest_of(test)))(tmp_path)
    (row,) = (data.test.labels == 1).nonzero().flatten().tolist()
    np.testing.assert_array_equal(data.test.images[row].numpy(), few.transpose(2, 0, 1))


def palette(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    image = Image.fromarray(pixels).quantize(4)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels)
    image.save(stream, "PNG")
    return stream.getvalue()


def test_a_tar_of_something_else(tmp_path: Path) -> None:
    write_tar(tmp_path / "cifar10.tar", "CIFAR-10-images", image_files())
    with pytest.raises(
        DataError, match=r"cifar10\.tar holds no image of the set: right would be cifar10/\{train,test}"
    ):
        SMALL(tmp_path)
    write_tar(
        tmp_path / "cifar10.tar", "cifar10", {}, special("cifar10/test/cat/1.png", tarfile.SYMTYPE, "/etc/passwd")
    )
    with pytest.raises(DataError, match="is a link or no regular file"):
        SMALL(tmp_path)


# --- the archive -------------------------------------------------------------------------------------------------


def test_cifar100_takes_the_fine_label(tmp_path: Path) -> None:
    train: Images = [(label, picture(label, 32, 32, 3)) for label in range(100)]
    test: Images = [(label, picture(200 + label, 32, 32, 3)) for label in range(100)]
    members = {
        file: b"".join(bytes([19, label]) + pixels.transpose(2, 0, 1).tobytes() for label, pixels in images)
        for file, images in (("cifar-100-binary/train.bin", train), ("cifar-100-binary/test.bin", test))
    }
    small = replace(CIFAR100, train=Published(1, digest_of(train)), test=Published(1, digest_of(test)))
    data = archive(tmp_path, small, members)(tmp_path)
    assert content_of(data) == {(CIFAR100.classes[label], pixels.tobytes()) for label, pixels in train}


def test_the_archive_is_downloaded(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = archive(server.folder, SMALL, members_of_archive())
    monkeypatch.setattr(cifar, "_MIRRORS", (server.url,))
    assert len(kind(tmp_path / "data").train) == 20
    assert (tmp_path / "data" / kind.archive).is_file()


def test_a_wrong_md5_is_refused(tmp_path: Path) -> None:
    archive(tmp_path, SMALL, members_of_archive())
    with pytest.raises(DataError, match=r"cifar10: cifar-10-binary\.tar\.gz is damaged \(wrong md5\)"):
        CIFAR10(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({SMALL.train_files[1]: None}, r"holds no file cifar-10-batches-bin/data_batch_2\.bin"),
        ({SMALL.train_files[1]: bytes(15364)}, r"data_batch_2\.bin holds 15364 bytes, right would be 15365"),
        ({SMALL.test_files[0]: bytes(99_999)}, r"test_batch\.bin holds 30731 bytes, right would be 30730"),
        ({SMALL.test_files[0]: bytes(30730)}, "test: an image or more is not the published one"),
    ],
)
def test_other_contents_are_refused(change: dict[str, bytes | None], message: str, tmp_path: Path) -> None:
    members = members_of_archive() | change
    kept = {name: body for name, body in members.items() if body is not None}
    with pytest.raises(DataError, match=message):
        archive(tmp_path, SMALL, kept)(tmp_path)


def test_a_link_in_the_archive_is_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / CIFAR100.archive, "w:gz") as tar:
        tar.addfile(special("cifar-100-binary/train.bin", tarfile.SYMTYPE, "/etc/passwd"))
    with pytest.raises(DataError, match="holds no file"):
        with_md5(tmp_path, CIFAR100)(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_truncated_archive_with_a_right_md5_is_refused(keep: int, tmp_path: Path) -> None:
    archive(tmp_path, SMALL, members_of_archive())
    path = tmp_path / SMALL.archive
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="can't be read"):
        with_md5(tmp_path, SMALL)(tmp_path)


# --- the published sets ------------------------------------------------------------------------------------------


def test_availability(tmp_path: Path) -> None:
    missing = CIFAR10.availability(tmp_path)
    assert not missing.available
    for part in ("cifar-10-binary.tar.gz", "cifar10.tar", "cifar10/{train,test}/CLASS/NAME.png", str(tmp_path)):
        assert part in missing.detail
    (tmp_path / "cifar10").mkdir()  # holds anything: no images of the set
    assert not CIFAR10.availability(tmp_path).available
    # each is found before those that were there already
    for name in ("cifar-10-binary.tar.gz", "cifar10.tar"):
        (tmp_path / name).touch()
        assert CIFAR10.availability(tmp_path).detail == str(tmp_path / name)
    (tmp_path / "cifar10" / "train").mkdir()
    assert CIFAR10.availability(tmp_path).detail == str(tmp_path / "cifar10")


def test_the_published_sizes() -> None:
    # The page that publishes the archives says so.
    for kind, classes in ((CIFAR10, 10), (CIFAR100, 100)):
        assert len(kind.classes) == len(set(kind.classes)) == classes
        assert list(kind.classes) == sorted(kind.classes)
        assert kind.train.each * classes == 50_000
        assert kind.test.each * classes == 10_000


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "distinct"),
    [
        pytest.param(
            kind,
            distinct,
            id=kind.name,
            marks=pytest.mark.skipif(
                not kind.availability(default_data_folder()).available,
                reason=f"no {kind.title} in the data folder ($LEAKBENCH_DATA)",
            ),
        )
        for kind, distinct in ((CIFAR10, 50_000), (CIFAR100, 49_995))
    ],
)
def test_the_real_set(kind: CifarSet, distinct: int) -> None:
    """Decoded, then from its copy; ``distinct`` of the 50,000 training images differ."""
    first, again = load_dataset(kind.name), load_dataset(kind.name)
    assert first.fingerprint == again.fingerprint
    assert len(content_of(first)) == distinct
    if kind is CIFAR10:  # published, as in many recipes: 125.3, 123.0, 113.9
        np.testing.assert_allclose(
            first.train.images.numpy().mean((0, 2, 3)), [125.30691805, 122.95039414, 113.86538318], atol=1e-6
        )
