from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from leakbench.data.dataset import Arrays, Dataset, Split, fingerprint, make_dataset
from leakbench.errors import DataError


def arrays(count: int, channels: int = 1, side: int = 8, classes: int = 2) -> Arrays:
    generator = np.random.default_rng(count)
    images = generator.integers(0, 256, (count, channels, side, side), dtype=np.uint8)
    return Arrays(images, np.arange(count, dtype=np.int64) % classes)


def dataset(**changes: Any) -> Dataset:
    given: dict[str, Any] = {
        "name": "small",
        "classes": ("a", "b"),
        "train": arrays(4),
        "test": arrays(3),
        "source": "made here",
        "flips": True,
    }
    return make_dataset(**(given | changes))


def test_a_split_shares_the_memory_of_its_arrays() -> None:
    train = arrays(4)
    assert dataset(train=train).train.images.data_ptr() == train.images.ctypes.data


@pytest.mark.parametrize(("channels", "input_range"), [(1, (0, 1)), (3, (-1, 1))])
def test_input_range_follows_the_channels(channels: int, input_range: tuple[int, int]) -> None:
    data = dataset(train=arrays(4, channels), test=arrays(3, channels))
    assert data.image_shape == (channels, 8, 8)
    assert tuple(data.input_range) == input_range


def test_fingerprint_is_the_documented_hash() -> None:
    train, test = arrays(2), arrays(1)
    head = b'{"classes": ["a", "\\u00fc"], "flips": false, "test": [1, 1, 8, 8], "train": [2, 1, 8, 8]}\n'
    body = train.images.tobytes() + struct.pack("<2q", 0, 1) + test.images.tobytes() + struct.pack("<q", 0)
    expected = hashlib.sha256(head + body).hexdigest()
    assert fingerprint(("a", "ü"), train.split(), test.split(), flips=False) == expected


def test_fingerprint_ignores_name_and_source() -> None:
    assert dataset().fingerprint == dataset(name="other", source="elsewhere").fingerprint


def _one_pixel() -> dict[str, Any]:
    train = arrays(4)
    train.images[3, 0, 7, 7] ^= 1
    return {"train": train}


def _one_label() -> dict[str, Any]:
    test = arrays(3)
    test.labels[2] = 1
    return {"test": test}


def _other_cut() -> dict[str, Any]:
    images = np.concatenate([arrays(4).images, arrays(3).images])
    labels = np.concatenate([arrays(4).labels, arrays(3).labels])
    return {"train": Arrays(images[:3], labels[:3]), "test": Arrays(images[3:], labels[3:])}


@pytest.mark.parametrize(
    "changes",
    [_one_pixel, _one_label, _other_cut, lambda: {"classes": ("a", "c")}, lambda: {"flips": False}],
)
def test_fingerprint_changes_with_what_training_sees(changes: Callable[[], dict[str, Any]]) -> None:
    assert dataset(**changes()).fingerprint != dataset().fingerprint


def test_fingerprint_does_not_depend_on_the_memory_layout() -> None:
    images = torch.from_numpy(arrays(4, 3).images)
    labels = torch.from_numpy(arrays(4).labels)
    plain, turned = Split(images, labels), Split(images.contiguous(memory_format=torch.channels_last), labels)
    assert not turned.images.is_contiguous()
    assert fingerprint("ab", plain, plain, True) == fingerprint("ab", turned, turned, True)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32)),
    ],
)
def test_a_split_refuses_other_types_and_shapes(images: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"must be (uint8|int64) \["):
        Split(images, labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a",)}, "two or more classes"),
        ({"classes": ("a", "a")}, "different names"),
        ({"classes": ("a", "")}, "empty or not printable"),
        ({"classes": ("a", "b\x1b[2J")}, r"'b\\x1b\[2J' is empty or not printable"),
        ({"classes": ("a", "b\udcff")}, "not printable"),
        ({"train": arrays(4, 2), "test": arrays(3, 2)}, "1 or 3 channels, got 2"),
        ({"test": arrays(3, 1, 9)}, "differ in shape"),
        ({"test": arrays(0)}, "test split holds no image"),
        ({"train": arrays(4, classes=3)}, "train labels run from 0 to 2, right would be 0..1"),
    ],
)
def test_an_inconsistent_dataset_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset(**changes)
