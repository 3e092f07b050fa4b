"""Public images: where they come from, that they fit the private ones, and that they are never these."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from test_dataset import arrays, dataset

from leakbench.data import Arrays, Dataset, load_dataset, public, public_images, public_source
from leakbench.data.public import Shape
from leakbench.errors import LeakBenchError, UnknownName, UsageError


def private(shape: Shape, name: str = "small", **changes: Any) -> Dataset:
    """A data set of noise with images of this shape."""
    channels, height, width = shape
    train = arrays(4, channels, max(height, width))
    cut = train._replace(images=np.ascontiguousarray(train.images[:, :, :height, :width]))
    return dataset(name=name, train=cut, test=cut, **changes)


def write_folder(root: Path, images: NDArray[np.uint8], classes: tuple[str, ...] = ("x", "y")) -> str:
    """Half of the images [N, C, H, W] in each class, as PNGs; the data set's name."""
    for number, image in enumerate(images):
        path = root / classes[number * len(classes) // len(images)] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(path)
    return f"folder:{root}"


def smooth(count: int, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    """Noise that was blown up: images with edges at several scales."""
    coarse = torch.rand(count, channels, height // 2, width // 2, generator=torch.Generator().manual_seed(5))
    return (torch.nn.functional.interpolate(coarse, (height, width)) * 255).round().to(torch.uint8).numpy()


# --- which source ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name", "source"),
    [
        (None, "digits", "photos"),
        (None, "folder:mine", "photos"),
        (None, "digits:half", "half"),
        ("photos", "digits:half", "photos"),
        ("half", "cifar100:half", "half"),
        ("cifar100", "cifar10", "cifar100"),
        ("cifar100:half", "cifar10:half", "cifar100:half"),
        ("folder:other", "digits", "folder:other"),
    ],
)
def test_the_source_that_goes_with_a_data_set(given: str | None, name: str, source: str) -> None:
    assert public_source(given, name) == source


@pytest.mark.parametrize(
    ("given", "name"), [("digits", "digits"), ("digits:half", "digits"), ("digits", "digits:half"),
                        ("digits:half", "digits:half"), ("folder:mine", "folder:mine")],
)  # fmt: skip
def test_the_private_images_are_no_public_ones(given: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"^public images '{given}' would be the private ones of '{name}'.*photos$"):
        public_source(given, name)


@pytest.mark.parametrize(("given", "near"), [("photo", "photos"), ("halv", "half"), ("digts:half", "digits:half")])
def test_an_unknown_source_gets_the_nearest_one(given: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"^unknown public images '{given}': did you mean '{near}'"):
        public_source(given, "mnist")


def test_only_a_half_has_another_half() -> None:
    for name in ("digits", "folder:mine", "folder:mine:half"):
        with pytest.raises(UsageError, match=f"'half' go with a data set like digits:half, not with '{name}'"):
            public_source("half", name)


def test_the_private_images_under_another_path_are_recognised(tmp_path: Path) -> None:
    name = write_folder(tmp_path / "mine", smooth(8, 1, 8, 8))
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for private_name, source in ((name, "link"), (f"{name}:flips", "link"), (name, "link:flips"), (name, "mine:flips")):
        with pytest.raises(LeakBenchError, match="would be the private ones"):
            public_images(f"folder:{tmp_path / source}", load_dataset(private_name))


def test_private_images_in_another_order_are_recognised_and_few_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (500, 1, 8, 8), generator=torch.Generator().manual_seed(5)).to(torch.uint8).numpy()

    def made(name: str, *parts: NDArray[np.uint8]) -> Dataset:
        train = Arrays(np.concatenate(parts), np.arange(sum(map(len, parts))) % 2)
        return dataset(name=name, train=train, test=arrays(4, 1, 8))

    mine = made("mine", images[:200])
    for parts, left in (([images[200:], images[:3]], 0), ([images[:1]], 0), ([images[200:], images[:2]], 2)):
        monkeypatch.setattr(public, "read_dataset", lambda _name, _folder, parts=parts: made("other", *parts))
        if not left:
            with pytest.raises(UsageError, match="would be the private ones"):
                public_images("folder:other", mine)
        else:
            few = public_images("folder:other", mine)
            assert torch.equal(few.images, torch.from_numpy(images[200:]))
            names = "(2 of its 2 classes have names of private ones)"
            mark = made("other", *parts).fingerprint[:12]
            assert few.source == f"300 training images of other ({mark}) {names}, without 2 that are private"


# --- data sets and halves ----------------------------------------------------------------------------------------


def test_the_other_half_as_it_is(digits: Dataset) -> None:
    half = load_dataset("digits:half")
    found = public_images("half", half)
    assert torch.equal(found.images, digits.train.images[digits.train.labels % 2 == 1])
    assert found.source == f"{len(found.images)} training images of the other 5 classes of digits"
    mine = {image.numpy().tobytes() for image in (*half.train.images, *half.test.images)}
    assert not mine & {image.numpy().tobytes() for image in found.images}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (11, 24), (16, 24), (30, 40)])
def test_images_are_resized_with_antialiasing(channels: int, height: int, width: int, tmp_path: Path) -> None:
    """Against torch's triangle filter. Pillow rounds after each of two passes, and its weights are whole numbers."""
    name = write_folder(tmp_path / "other", smooth(10, channels, 16, 24))
    found = public_images(name, private((channels, height, width))).images
    given = load_dataset(name).train.images
    expected = torch.nn.functional.interpolate(given.float(), (height, width), mode="bilinear", antialias=True)
    assert found.dtype == torch.uint8
    assert found.shape == expected.shape
    assert (found.float() - expected).abs().max() <= 1.1


def test_colour_becomes_luma_and_grey_three_equal_channels(tmp_path: Path) -> None:
    colour = write_folder(tmp_path / "colour", smooth(10, 3, 8, 8))
    given = load_dataset(colour).train.images.float()
    luma = 0.299 * given[:, 0] + 0.587 * given[:, 1] + 0.114 * given[:, 2]  # ITU-R 601
    found = public_images(colour, private((1, 8, 8))).images
    assert (found[:, 0].float() - luma).abs().max() <= 1
    grey = write_folder(tmp_path / "grey", smooth(10, 1, 8, 8))
    found = public_images(grey, private((3, 8, 8))).images
    assert torch.equal(found, load_dataset(grey).train.images.expand(-1, 3, -1, -1))


def test_the_source_line_tells_of_classes_that_have_names_of_private_ones(tmp_path: Path) -> None:
    name = write_folder(tmp_path / "other", smooth(10, 1, 8, 8), ("a", "y"))
    mark = load_dataset(name).fingerprint[:12]
    assert public_images(name, private((1, 8, 8))).source == (
        f"8 training images of {name} ({mark}) (1 of its 2 classes have names of private ones)"
    )
    found = public_images(name, private((1, 8, 8), classes=("c", "d"))).source
    assert found == f"8 training images of {name} ({mark})"


def test_files_of_one_name_with_other_images_have_other_source_lines(tmp_path: Path) -> None:
    """A comparison takes attacks for the same by these lines."""
    lines = []
    for seed in (0, 1):
        write_folder(tmp_path / "other", smooth(10, 1, 8, 8) + np.uint8(seed))
        lines.append(public_images(f"folder:{tmp_path / 'other'}", private((1, 8, 8))).source)
    assert lines[0] != lines[1] and len({line.partition(" (")[0] for line in lines}) == 1


def test_what_is_too_much_for_the_memory_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write_folder(tmp_path / "other", smooth(40, 1, 8, 8))
    monkeypatch.setattr(public, "_MOST_BYTES", 10 * 64 + 5)
    found = public_images(name, private((1, 8, 8)))
    assert found.source.startswith("10 training images")
    kept = {image.numpy().tobytes() for image in found.images}
    assert len(kept) == 10 and kept < {image.numpy().tobytes() for image in load_dataset(name).train.images}
    assert torch.equal(found.images, public_images(name, private((1, 8, 8))).images)
    assert len(public_images("photos", private((1, 8, 8))).images) == 10


# --- photographs -------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 20)])
def test_photos_are_always_there_always_the_same_and_all_different(shape: Shape) -> None:
    found, again = public_images("photos", private(shape)), public_images("photos", private(shape))
    assert torch.equal(found.images, again.images)
    assert found.images.dtype == torch.uint8
    assert found.images.shape == (10_000, *shape)
    assert found.source == "10,000 random crops of the two photographs that come with scikit-learn"
    # patches of bare sky and of black background may be alike
    assert len({image.numpy().tobytes() for image in found.images}) > 9_500


@pytest.mark.slow
def test_grey_crops_are_the_luma_of_the_coloured_ones() -> None:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    colour, grey = (public_images("photos", private((channels, 8, 8))).images for channels in (3, 1))
    # before or after resizing: each rounds a few times
    assert ((colour * weights).sum(1, keepdim=True) - grey.float()).abs().max() <= 2


@pytest.mark.slow
def test_crops_are_of_both_photographs_from_everywhere_and_at_many_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs that say where one is: red and green grow by one a pixel to the right and down, blue tells which."""
    down, right = np.mgrid[0:240, 0:250].astype(np.uint8)
    photographs = [np.stack([right, down, np.full_like(down, blue)], -1) for blue in (0, 255)]
    monkeypatch.setattr(public, "_photographs", lambda: photographs)
    crops = public_images("photos", private((3, 10, 10))).images.float()
    red, green, blue = crops.unbind(1)
    assert set(blue.unique().tolist()) == {0, 255}
    assert 0.48 < float((blue[:, 0, 0] == 0).float().mean()) < 0.52  # of 10,000: four standard deviations of .005
    # seven tenths of a crop lie between the centres of its second and its ninth pixel; the filter of the outermost
    # ones would lack a half
    sides = (red[:, :, 8] - red[:, :, 1]).mean(1) / 7 * 10
    assert 19 <= sides.min() < 22 and 230 < sides.max() <= 241
    assert torch.allclose(sides, (green[:, 8, :] - green[:, 1, :]).mean(1) / 7 * 10, atol=1.5)  # squares
    quarters = torch.histc((sides / 20).log2(), 4, 0, float(np.log2(12)))
    assert quarters.min() > 0.23 * len(crops)  # as many of every scale: a quarter in each quarter of the logarithm
    # small crops lie anywhere
    left = red[sides < 24].mean((1, 2))
    assert left.min() < 25 and left.max() > 224
    assert abs(float(left.mean()) - 124.5) < 5


def test_images_larger_than_the_photographs_are_enlarged() -> None:
    found = public._crops(public._photographs(), 3, (1, 500, 1))
    assert found.shape == (3, 1, 500, 1)
    assert found.std() > 0


@pytest.mark.slow
def test_public_images_are_checked_and_listed_without_torch() -> None:
    code = (
        "import sys; from leakbench.data import public_source; public_source(None, 'digits'); "
        "print([name for name in ('torch', 'torchvision', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
