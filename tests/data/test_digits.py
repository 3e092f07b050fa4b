from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

from leakbench.data import load_dataset


@pytest.mark.slow
def test_digits_are_all_of_scikit_learns_in_a_stratified_split(tmp_path: Path) -> None:
    data = load_dataset("digits", tmp_path)
    raw = load_digits()
    assert (len(data.train), len(data.test), data.image_shape) == (1437, 360, (1, 8, 8))
    assert data.classes == tuple("0123456789")
    assert not data.flips

    # Integer arithmetic: half a grey level apart at most, for each of the counts 0..16.
    grey = {count: round(count * 255 / 16) for count in range(17)}
    expected = Counter(
        (int(label), *(grey[int(pixel)] for pixel in image)) for image, label in zip(raw.data, raw.target, strict=True)
    )
    found: Counter[tuple[int, ...]] = Counter()
    for split in (data.train, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            found[(int(label), *image.flatten().tolist())] += 1
    assert found == expected

    of_class = Counter(raw.target.tolist())
    for digit, count in Counter(data.test.labels.tolist()).items():
        assert abs(count - 360 * of_class[digit] / 1797) < 1
    assert list(tmp_path.iterdir()) == []


def test_the_split_is_fixed(tmp_path: Path) -> None:
    assert load_dataset("digits", tmp_path).fingerprint == load_dataset("digits").fingerprint


def test_train_and_test_share_no_image() -> None:
    data = load_dataset("digits")
    train = {image.numpy().tobytes() for image in data.train.images}
    test = [image.numpy().tobytes() for image in data.test.images]
    assert not train.intersection(test)
