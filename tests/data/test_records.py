from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_trees import digest_of, picture

from leakbench.data.records import Collector, Published, arrays, check_complete
from leakbench.errors import DataError

IMAGES = [(label, picture(seed, 2, 3, 3)) for seed, label in enumerate((0, 1, 1, 0))]


def filled(images: list[tuple[int, np.ndarray]], each: int) -> Collector:
    collector = Collector(Path("set"), ["cat", "dog"], each, 18)
    for label, pixels in images:
        collector.add(label, pixels.tobytes())
    return collector


def test_any_order_gives_the_same_records() -> None:
    published = Published(2, digest_of(IMAGES))
    first = published.in_order("set", filled(IMAGES, 2).records)
    second = published.in_order("set", filled(IMAGES[::-1], 2).records)
    np.testing.assert_array_equal(first, second)
    assert {row.tobytes() for row in first} == {bytes([label]) + pixels.tobytes() for label, pixels in IMAGES}


def test_equal_images_stay() -> None:
    twice = [*IMAGES[:3], (0, IMAGES[0][1])]
    records = Published(2, digest_of(twice)).in_order("set", filled(twice, 2).records)
    assert len(records) == 4
    assert len({row.tobytes() for row in records}) == 3


@pytest.mark.parametrize("change", ["pixel", "class", "twice"])
def test_another_set_is_refused(change: str) -> None:
    published = Published(2, digest_of(IMAGES))
    others = {
        "pixel": [(label, pixels ^ (label == 1)) for label, pixels in IMAGES],
        "class": [(1 - label, pixels) for label, pixels in IMAGES],
        "twice": [*IMAGES[:3], (0, IMAGES[0][1])],
    }
    with pytest.raises(DataError, match=r"^set: an image or more is not the published one"):
        published.in_order("set", filled(others[change], 2).records)


def test_images_get_their_channels_and_labels_back() -> None:
    pair = [(1, picture(5, 2, 3, 3)), (0, picture(6, 2, 3, 3))]
    split = arrays(filled(pair, 1).records, (3, 2, 3))
    assert split.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(split.images[1], pair[0][1].transpose(2, 0, 1))
    np.testing.assert_array_equal(split.images[0], pair[1][1].transpose(2, 0, 1))


def test_what_is_missing_is_counted() -> None:
    check_complete(Path("set"), [filled(IMAGES, 2)], "set/CLASS")
    with pytest.raises(DataError, match="set: images are missing: 1 of cat, 2 of dog: get the set anew"):
        check_complete(Path("set"), [filled(IMAGES, 2), filled(IMAGES[:1], 2)], "set/CLASS")
    with pytest.raises(DataError, match="set holds no image of the set: right would be set/CLASS"):
        check_complete(Path("set"), [filled([], 2)], "set/CLASS")
    many = Collector(Path("set"), [f"c{number}" for number in range(8)], 1, 1)
    many.add(0, b"x")
    with pytest.raises(DataError, match="1 of c1, 1 of c2, 1 of c3, 1 of c4, 1 of c5 and of 2 classes more:"):
        check_complete(Path("set"), [many], "set/CLASS")


def test_too_many_images_are_refused_at_once() -> None:
    with pytest.raises(DataError, match="set: dog holds more than its 1 images"):
        filled(IMAGES, 1)
