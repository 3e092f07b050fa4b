"""Half of a data set: which classes and images are in it, and what tells it from the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_dataset import arrays, dataset

from leakbench.data import base_name, half_names, load_dataset
from leakbench.data.dataset import Dataset, fingerprint
from leakbench.data.half import private_half, public_half
from leakbench.errors import DataError, UnknownName, UsageError


def test_every_second_class_is_private_and_no_image_is_on_both_sides(digits: Dataset) -> None:
    half = load_dataset("digits:half")
    assert (half.name, half.classes, half.flips) == ("digits:half", ("0", "2", "4", "6", "8"), digits.flips)
    assert half.source.startswith(digits.source) and "half" in half.source
    for whole, part in ((digits.train, half.train), (digits.test, half.test)):
        wanted = [(int(label) // 2, image) for image, label in zip(whole.images, whole.labels, strict=True)
                  if int(label) in (0, 2, 4, 6, 8)]  # fmt: skip
        assert part.labels.tolist() == [label for label, _ in wanted]
        assert torch.equal(part.images, torch.stack([image for _, image in wanted]))
    others = [image for image, label in zip(digits.train.images, digits.train.labels, strict=True) if int(label) % 2]
    assert torch.equal(public_half(digits), torch.stack(others))
    assert len(half.train) + len(others) == len(digits.train)


def test_the_fingerprint_is_of_what_is_left(digits: Dataset) -> None:
    half = private_half(digits)
    assert half.fingerprint == fingerprint(half.classes, half.train, half.test, half.flips) != digits.fingerprint


@pytest.mark.parametrize("classes", [3, 4, 5])
def test_halves_have_two_classes_or_more_on_either_side(classes: int) -> None:
    names = tuple("abcde"[:classes])
    data = dataset(classes=names, train=arrays(20, classes=classes), test=arrays(10, classes=classes))
    if classes < 4:
        with pytest.raises(DataError, match="small:half: small has 3 classes, and halves need 4 or more"):
            private_half(data)
    else:
        assert private_half(data).classes == names[::2]


def test_names_of_halves() -> None:
    assert "digits:half" in half_names()
    assert (base_name("digits:half"), base_name("digits"), base_name("folder:a:half")) == (
        *("digits", "digits"),
        "folder:a:half",  # a folder of that name
    )


@pytest.mark.parametrize(
    ("given", "near"), [("digts:half", "digits:half"), ("digits:halb", "digits:half"), ("digit", "digits")]
)
def test_an_unknown_half_gets_the_nearest_one(given: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"unknown dataset '{given}': did you mean '{near}'"):
        load_dataset(given)


def test_a_folder_has_no_half(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_dataset(f"folder:{tmp_path}:half")
