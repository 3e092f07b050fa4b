from __future__ import annotations

import hashlib
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_trees import digest_of, encoded, picture, special, write_folder, write_tar
from numpy.typing import NDArray

from leakbench.data import default_data_folder, grid_defaults, load_dataset
from leakbench.data.faces import FACES, shrunk
from leakbench.data.records import Published
from leakbench.errors import DataError

IMAGES: list[tuple[int, NDArray[np.uint8]]] = [
    (person, picture(10 * person + number, 112, 92)) for person in range(2) for number in range(10)
]
SMALL = replace(FACES, people=2, published=Published(10, digest_of(IMAGES)))


def files() -> dict[str, bytes]:
    return {
        f"s{person + 1}/{number % 10 + 1}.pgm": encoded(pixels, "PPM") for number, (person, pixels) in enumerate(IMAGES)
    } | {"README": b"The ORL face database"}


def test_folder_and_tar_give_the_same_faces(tmp_path: Path) -> None:
    write_folder(tmp_path / "one" / "orl_faces", files())
    (tmp_path / "two").mkdir()
    write_tar(tmp_path / "two" / "faces.tar", "orl_faces", dict(reversed(files().items())))
    one, two = SMALL(tmp_path / "one"), SMALL(tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    assert (one.source.split(",")[0], two.source.split(",")[0]) == (
        "AT&T/ORL faces from orl_faces",
        "AT&T/ORL faces from faces.tar",
    )
    assert one.classes == ("s1", "s2")
    assert one.image_shape == (1, 32, 32)
    assert one.flips and tuple(one.input_range) == (0, 1)
    for split, each in ((one.train, 7), (one.test, 3)):
        assert torch.bincount(split.labels).tolist() == [each, each]


def test_the_split_is_by_digest(tmp_path: Path) -> None:
    """Names may be anything: the seven images of a person with the smallest digests are trained on."""
    write_folder(tmp_path / "orl_faces", {name.replace(".pgm", "a.pgm"): body for name, body in files().items()})
    data = SMALL(tmp_path)
    for person in range(2):
        own = [pixels for label, pixels in IMAGES if label == person]
        ordered = sorted(own, key=lambda pixels: hashlib.sha256(bytes([person]) + pixels.tobytes()).digest())
        expected = shrunk(np.stack(ordered)[:, None])
        np.testing.assert_array_equal(data.train.images[data.train.labels == person].numpy(), expected[:7])
        np.testing.assert_array_equal(data.test.images[data.test.labels == person].numpy(), expected[7:])


def test_images_are_shrunk_by_area() -> None:
    images = np.stack([picture(seed, 1, 112, 92) for seed in range(3)])
    images[2] = 255
    found = shrunk(images)
    # every pixel as 8x8 ones, then the mean of every 23x23
    fine = images[:, 0, 10:102].repeat(8, 1).repeat(8, 2).reshape(3, 32, 23, 32, 23)
    np.testing.assert_array_equal(found[:, 0], np.round(fine.mean((2, 4))).astype(np.uint8))
    # outside of the centre nothing counts
    images[:, :, :10] = images[:, :, 102:] = 0
    np.testing.assert_array_equal(shrunk(images), found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s2/3.pgm": None}, "images are missing: 1 of s2: get the set anew"),
        ({"s2/11.pgm": encoded(picture(1, 112, 92), "PPM")}, "s2 holds more than its 10 images"),
        ({"s2/3.pgm": encoded(picture(1, 112, 92), "PPM")}, "an image or more is not the published one"),
        ({"s3/1.pgm": encoded(picture(1, 112, 92), "PPM")}, r"'s3/1\.pgm': there are 2 people, s1 to s2"),
        ({"s2/3.pgm": encoded(picture(1, 92, 112), "PPM")}, r"'s2/3\.pgm' is 112x92 pixels, right would be 92x112"),
        ({"s2/3.pgm": encoded(picture(1, 112, 92), "PNG")}, r"'s2/3\.pgm' is no whole image in the format PPM"),
        ({"s2/3.pgm": files()["s2/3.pgm"][:-1]}, r"'s2/3\.pgm' can't be read"),
        ({"s2/3.pgm": b"P5 92 112 65535 " + bytes(2 * 92 * 112)}, r"'s2/3\.pgm' has the pixel format I"),
        ({"s2/3.pgm": b"P5 92 112 255 " + bytes(2**16)}, "right would be 65,536 at most"),
        (dict.fromkeys(files()) | {"1.pgm": b"x"}, r"holds no image of the set: right would be orl_faces/sN"),
    ],
)
def test_other_images_are_refused(change: dict[str, bytes | None], message: str, tmp_path: Path) -> None:
    kept = {name: content for name, content in (files() | change).items() if content is not None}
    write_folder(tmp_path / "orl_faces", kept)
    with pytest.raises(DataError, match=message) as caught:
        SMALL(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_link_in_the_tar_is_refused(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "faces.tar", "orl_faces", files(), special("orl_faces/s1/9.pgm", tarfile.SYMTYPE, "/etc/passwd")
    )
    with pytest.raises(DataError, match="is a link or no regular file"):
        SMALL(tmp_path)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    missing = FACES.availability(tmp_path)
    assert not missing.available
    for part in ("orl_faces/s1...s40/NAME.pgm", "faces.tar", str(tmp_path)):
        assert part in missing.detail
    with pytest.raises(DataError, match=r"^faces are missing: put the folder orl_faces"):
        FACES(tmp_path)
    (tmp_path / "faces.tar").touch()
    assert FACES.availability(tmp_path).detail == str(tmp_path / "faces.tar")
    (tmp_path / "orl_faces").mkdir()
    assert FACES.availability(tmp_path).detail == str(tmp_path / "orl_faces")


def test_a_small_network_by_default() -> None:
    assert grid_defaults("faces").model == "vgg5"


@pytest.mark.skipif(
    not FACES.availability(default_data_folder()).available,
    reason="no AT&T/ORL faces in the data folder ($LEAKBENCH_DATA)",
)
def test_the_real_faces() -> None:
    data = load_dataset("faces")
    assert data.classes == tuple(f"s{number}" for number in range(1, 41))
    assert (len(data.train), len(data.test)) == (280, 120)
    # different people look different: a nearest neighbour on pixels knows nearly all
    nearest = torch.cdist(data.test.images.flatten(1).float(), data.train.images.flatten(1).float()).argmin(1)
    assert (data.train.labels[nearest] == data.test.labels).float().mean() > 0.9
