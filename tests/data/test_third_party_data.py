"""Data sets that others wrote: functions, pairs in torchvision's manner, and everything they may get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import leakbench
from leakbench import registry
from leakbench.data import Dataset, dataset_label, dataset_names, from_torchvision, load_dataset
from leakbench.errors import DataError, LeakBenchError, PluginError, UnknownName

HEAD = """
import numpy as np, torch
from pathlib import Path
from PIL import Image
from leakbench.data import Arrays, Dataset, Split, from_torchvision, make_dataset

class Pairs:
    def __init__(self, count, classes=3, **more):
        self.count, self.kinds = count, classes
        self.__dict__.update(more)
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        return Image.fromarray(np.full((9, 8), index, np.uint8)), index % self.kinds
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_files", {})


def write(folder: Path, body: str, top: str = "") -> str:
    """A file with the function ``build``; the data set's name."""
    (folder / "mine.py").write_text(f'{HEAD}\n{top}\ndef build(folder):\n    """Mine."""\n    {body}\n')
    return f"{folder}/mine.py:build"


class Listed(list[Any]):
    """Images with labels as a list, which has all that is asked for."""


def pairs(images: Any, classes: int = 2) -> Listed:
    return Listed([(image, number % classes) for number, image in enumerate(images)])


# --- right ones --------------------------------------------------------------------------------------------------


def test_a_pair_of_data_sets(tmp_path: Path) -> None:
    name = write(tmp_path, "return Pairs(12, classes=3), Pairs(6)")
    data = load_dataset(name)
    assert data.image_shape == (1, 9, 8)
    assert data.train.images[:, 0, 0, 0].tolist() == list(range(12))
    assert data.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.classes == ("0", "1", "2")
    assert (data.name, dataset_label(name)) == (name, "mine.py:build")
    assert str(tmp_path) not in data.source


def test_train_and_test_of_other_classes_are_refused() -> None:
    """Each split of torchvision's ImageFolder numbers the classes that it has."""

    class Numbered(list[Any]):
        def __init__(self, classes: list[str]) -> None:
            super().__init__((np.zeros((8, 8), np.uint8), label) for label in (0, 0, 1, 1, 2, 2))
            self.classes = classes

    train = Numbered(["cat", "dog", "fox"])
    with pytest.raises(DataError, match=r"mine: .* 'dog' is a class of one of them alone"):
        from_torchvision(train, Numbered(["cat", "fox", "gnu"]), "mine")
    with pytest.raises(DataError, match="the same classes in another order"):
        from_torchvision(train, Numbered(["dog", "cat", "fox"]), "mine")
    assert from_torchvision(train, Numbered(["cat", "dog", "fox"]), "mine").classes == ("cat", "dog", "fox")


def test_a_data_set_of_ones_own_and_its_folder(tmp_path: Path) -> None:
    body = """images = np.fromfile(folder / "pixels", np.uint8).reshape(12, 3, 8, 8)
    split = Arrays(images, np.arange(12) % 4)
    return make_dataset("any", ["a", "b", "c", "d"], split, split, "pixels of mine", flips=False)"""
    pixels = np.random.RandomState(0).randint(0, 256, 12 * 192).astype(np.uint8)
    pixels.tofile(tmp_path / "pixels")
    name = write(tmp_path, body)
    data = load_dataset(name, tmp_path)
    copies = "12 of 12 test images are also training images"  # images are the same in both splits
    assert (data.name, data.source, data.flips) == (name, f"pixels of mine; {copies}", False)
    assert data.train.images.numpy().tobytes() == pixels.tobytes()
    half = load_dataset(f"{name}:half", tmp_path)
    assert half.classes == ("a", "c")
    assert dataset_label(half.name) == "mine.py:build:half"


def test_a_fingerprint_is_taken_and_not_believed(tmp_path: Path) -> None:
    body = """s = Split(torch.full((6, 1, 8, 8), {0}, dtype=torch.uint8), torch.arange(6) % 2)
    return Dataset("x", ["a", "b"], s, s, "mine", "made up", 1)"""
    one, two = (load_dataset(write(tmp_path, body.format(value))) for value in (1, 2))
    assert one.fingerprint != two.fingerprint
    assert len(one.fingerprint) == 64
    assert one.classes == ("a", "b")


def test_a_registered_data_set(tmp_path: Path) -> None:
    build = registry.load("dataset", write(tmp_path, "return Pairs(12), Pairs(6)"))
    leakbench.register("dataset", "dots", build)
    assert dataset_names()[-1] == "dots"
    assert len(load_dataset("dots").train) == 12
    with pytest.raises(UnknownName, match="unknown dataset 'dot': did you mean 'dots'"):
        load_dataset("dot")


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        (Image.new("L", (8, 9), 51), (1, 9, 8)),
        (Image.new("1", (8, 9), 1), (1, 9, 8)),
        (Image.new("RGB", (8, 9), (51, 51, 51)), (3, 9, 8)),
        (Image.new("P", (8, 9)), (3, 9, 8)),
        (np.full((9, 8), 51, np.uint8), (1, 9, 8)),
        (np.full((9, 8, 1), 51, np.uint8), (1, 9, 8)),
        (np.full((9, 8, 3), 51, np.uint8), (3, 9, 8)),
        (np.full((3, 9, 8), 0.2), (3, 9, 8)),
        (torch.full((1, 9, 8), 0.2, requires_grad=True), (1, 9, 8)),
        (torch.full((3, 9, 8), 51, dtype=torch.uint8), (3, 9, 8)),
    ],
)
def test_every_kind_of_image(image: Any, shape: tuple[int, int, int]) -> None:
    split = pairs([image] * 4)
    data = from_torchvision(split, split, "any")
    assert data.image_shape == shape
    if not isinstance(image, Image.Image) or image.mode in ("L", "RGB"):
        assert data.train.images.unique().tolist() == [51]


def test_grey_among_colours_becomes_colour() -> None:
    grey, red = np.full((8, 8), 7, np.uint8), np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    data = from_torchvision(pairs([grey, grey, red, red]), pairs([grey, grey]), "any")
    assert data.image_shape == (3, 8, 8)
    assert data.train.images[:, :, 0, 0].tolist() == [[7] * 3, [7] * 3, [200, 0, 0], [200, 0, 0]]
    assert data.test.images.unique().tolist() == [7]


@pytest.mark.parametrize("label", [1, np.int64(1), np.array([1]), np.array(1), torch.tensor(1)])
def test_every_kind_of_label(label: Any) -> None:
    image = np.zeros((8, 8), np.uint8)
    split = Listed([(image, 0), (image, label), (image, 0), (image, label)])
    assert from_torchvision(split, split, "any").train.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.slow
def test_torchvision_s_own_data_sets() -> None:
    from torchvision.datasets import FakeData
    from torchvision.transforms import ToTensor

    train = FakeData(40, (3, 16, 16), 2, transform=ToTensor())
    plain = FakeData(40, (3, 16, 16), 2)
    one, two = (from_torchvision(split, split, "fake") for split in (train, plain))
    assert one.fingerprint == two.fingerprint  # ToTensor's floats are the same pixels


def test_names_of_classes_and_flips() -> None:
    split = pairs([np.zeros((8, 8), np.uint8)] * 4)
    split.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    data = from_torchvision(split, split, "any", flips=True)
    assert (data.classes, data.flips) == (("cat", "dog"), True)
    assert not from_torchvision(
        split, split, "any"
    ).flips  # that a mirrored image keeps its class is for the user to say


# --- wrong ones --------------------------------------------------------------------------------------------------

BAD_IMAGES = {
    "normalised": (np.full((8, 8), -1.5), "must be within 0 and 1: leave out the normalisation"),
    "not a number": (np.full((8, 8), np.nan), "must be within 0 and 1"),
    "16 bits": (Image.new("I;16", (8, 8)), "has the pixel format I;16, right would be 8 bits a channel"),
    "other whole numbers": (np.zeros((8, 8), np.int64), r"must be uint8 or floats in \[0, 1\], and is int64"),
    "channels": (np.zeros((8, 8, 4), np.uint8), r"with C 1 or 3, and is \[8, 8, 4\]"),
    "flat": (np.zeros(64, np.uint8), r"and is \[64\]"),
    "small": (np.zeros((8, 7), np.uint8), "images are 7x8 pixels"),
    "other size": (np.zeros((8, 9), np.uint8), "is 9x8 pixels, and the first is 8x8: resize them to one size"),
    "text": ("cat.png", r"and is \[\]"),
    "nothing": (None, r"and is \[\]"),
}


@pytest.mark.parametrize("what", BAD_IMAGES)
def test_images_that_are_none(what: str) -> None:
    image, said = BAD_IMAGES[what]
    good = np.zeros((8, 8), np.uint8)
    with pytest.raises(DataError, match=said) as error:
        from_torchvision(pairs([good] * 4), pairs([good, image]), "mine")
    assert str(error.value).startswith("mine: test[1]")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", [-1, 2**40, "cat", None, 1.0, np.array([0, 1])])
def test_labels_that_are_none(label: Any) -> None:
    image = np.zeros((8, 8), np.uint8)
    with pytest.raises(DataError, match=r"mine: train\[1\] (must have a whole number as its label|has the label)"):
        from_torchvision(Listed([(image, 0), (image, label)]), pairs([image] * 2), "mine")


FLAWS = {
    "return None": (PluginError, "must return a leakbench.data.Dataset or a pair .* returns a NoneType"),
    "return Pairs(12), Pairs(6), Pairs(6)": (PluginError, "returns a tuple"),
    "raise ValueError('no\\nway')": (PluginError, "can't be built: ValueError: no$"),
    "raise SystemExit": (PluginError, "can't be built: SystemExit"),
    "return Pairs(12), iter([])": (DataError, "test must have a length: TypeError"),
    "return Pairs(12), Pairs(0)": (DataError, "test holds no image"),
    "return Pairs(12), [Image.new('L', (8, 9))] * 6": (DataError, r"test\[0\] must be \(image, label\)"),
    "return Pairs(12), Pairs(3, classes=1)": (DataError, "class 1 is in only one of train and test"),
    "return Pairs(12, classes=1), Pairs(6, classes=1)": (DataError, "name 1 class: two or more"),
    "return Pairs(12, ), Pairs(6).__class__(10**12)": (DataError, "choose fewer"),
}


@pytest.mark.parametrize("body", FLAWS)
def test_what_a_function_may_do_wrong_is_one_line_that_names_it(body: str, tmp_path: Path) -> None:
    kind, said = FLAWS[body]
    with pytest.raises(LeakBenchError, match=said) as error:
        load_dataset(write(tmp_path, body))
    assert type(error.value) is kind
    assert "mine.py:build" in str(error.value)
    assert "\n" not in str(error.value)


def test_names_without_images(tmp_path: Path) -> None:
    body = """s = Split(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.arange(6) % 2)
    return Dataset("x", ("a", "b", "c"), s, s, "mine", "", True)"""
    with pytest.raises(DataError, match="3 classes have names, and 2 have images"):
        load_dataset(write(tmp_path, body))


def test_what_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "none.py").write_text("text = 'x'\ndef model(image_shape, classes, generator): ...\n")
    for name in ("text", "model"):
        with pytest.raises(PluginError, match=r"is no dataset: it must be a function of \(folder\)"):
            load_dataset(f"{tmp_path}/none.py:{name}")


def test_a_dataset_is_what_a_built_in_returns() -> None:
    assert isinstance(registry.load("dataset", "digits")(Path("unused")), Dataset)
