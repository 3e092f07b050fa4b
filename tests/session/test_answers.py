"""A network that does not know its data set is not attacked."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from leakbench.bench.grid import GridConfig
from leakbench.contracts import ImageClassifier, InputRange
from leakbench.data import Dataset, load_dataset
from leakbench.data.dataset import Split
from leakbench.errors import UsageError
from leakbench.models.storage import build_ann
from leakbench.session import answers
from leakbench.session.answers import _exchanged, check_ann, check_answers
from leakbench.snn import SpikingConfig, SpikingNetwork

CPU = torch.device("cpu")


def _nearest_mean(order: list[int], scale: float = 1.0) -> ImageClassifier:
    """Answers the class, in that order, whose mean image is nearest."""
    data = load_dataset("digits")
    images = data.train.images.flatten(1).float() / 255
    means = torch.stack([images[data.train.labels == label].mean(0) for label in order])
    ann = build_ann("graph: conv 1 k1x1; relu; flatten; linear 10 b", (1, 8, 8), 10, InputRange(0, 1))
    same, weight, bias = ann.body.parameters()
    with torch.no_grad():
        same.fill_(1)
        weight.copy_(scale * means)
        bias.copy_(-scale * (means**2).sum(1) / 2)
    return ann.requires_grad_(False)


def _checked(network: SpikingNetwork | ImageClassifier, dataset: str = "digits") -> str:
    """What is wrong; empty where nothing is."""
    try:
        check_answers(network, "net.nir", dataset, None, CPU)
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("spiking", [False, True])
def test_only_a_network_that_knows_its_classes_passes(spiking: bool) -> None:
    def made(ann: ImageClassifier) -> SpikingNetwork | ImageClassifier:
        if not spiking:
            return ann
        network = SpikingNetwork.from_ann(ann, SpikingConfig(16))
        network.neurons[0].threshold.fill_(1.0)
        return network

    digits = list(range(10))
    assert _checked(made(_nearest_mean(digits))) == ""
    renamed = _checked(made(_nearest_mean([*digits[1:], 0])))
    assert renamed.startswith("--snn net.nir: it calls classes by each other's names (0 is called 9, 9 is called 8, ")
    assert "in the order of the data set's classes, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in renamed
    guess = _checked(made(_nearest_mean(digits, scale=0.0)))
    assert guess.startswith("--snn net.nir: it classifies ") and "a guess 10%" in guess
    assert "check its settings (input, neurons, readout)" in guess


def test_two_classes_that_are_exchanged_are_named() -> None:
    """Though the network is right on four images of five."""
    said = _checked(_nearest_mean([0, 1, 2, 3, 4, 5, 9, 7, 8, 6]))
    assert "(6 is called 9, 9 is called 6)" in said


@pytest.mark.parametrize(
    ("shown", "renamed"),
    [
        ([[20, 0, 0], [0, 20, 0], [0, 0, 20]], {}),
        ([[0, 20, 0], [20, 0, 0], [0, 0, 20]], {0: 1, 1: 0}),
        ([[0, 20, 0], [0, 0, 20], [20, 0, 0]], {0: 1, 1: 2, 2: 0}),
        ([[9, 11, 0], [11, 9, 0], [0, 0, 20]], {}),  # mistaken for each other about as often as not
        ([[0, 20, 0], [0, 20, 0], [0, 0, 20]], {}),  # one class is not known
        ([[0, 20, 0], [0, 0, 20], [0, 20, 0]], {1: 2, 2: 1}),  # one that is not known leads into a circle
        ([[0, 3, 0], [3, 0, 0], [0, 0, 3]], {}),  # too few to tell
        ([[0, 0, 0], [0, 20, 0], [0, 0, 20]], {}),  # no image of a class
    ],
)
def test_only_closed_circles_of_names_are_exchanged(shown: list[list[int]], renamed: dict[int, int]) -> None:
    assert _exchanged(torch.tensor(shown)) == renamed


@pytest.mark.parametrize("classes", [40, 100, 200])
def test_a_guess_among_many_classes_does_not_pass(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers drawn at random; half of them right pass."""
    generator = torch.Generator().manual_seed(1)
    count = 3 * classes
    images = torch.randint(256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(count) % classes)
    names = tuple(f"c{number}" for number in range(classes))
    data = Dataset("many", names, split, split, "", "", flips=False)
    monkeypatch.setattr(answers, "load_dataset", lambda *_: data)
    ann = build_ann(f"graph: conv 1 k1x1; relu; flatten; linear {classes} b", (1, 8, 8), classes, InputRange(0, 1))
    drawn = torch.randint(classes, (count,), generator=generator)
    known = torch.where(torch.arange(count) < count // 2, split.labels, drawn)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    for said, passes in ((drawn, False), (known, True)):
        logits = 9.0 * torch.nn.functional.one_hot(said[order], classes)
        monkeypatch.setattr(answers, "predict", lambda *_, logits=logits: logits[: max(300, 5 * classes)])
        assert (_checked(ann) == "") == passes


def test_who_is_certain_of_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert _checked(_nearest_mean(list(range(10)), scale=0.01)) == ""
    assert "its mean confidence in test images that it classifies correctly is 0.1" in caplog.text
    caplog.clear()
    assert _checked(_nearest_mean(list(range(10)), scale=10.0)) == "" and not caplog.text


@pytest.mark.parametrize(
    ("order", "scale", "refused", "warned"),
    [
        (range(10), 1.0, "", False),
        (
            [*range(1, 10), 0],
            1.0,
            "--ann mine.safetensors: it calls classes by each other's names (0 is called 9",
            False,
        ),
        (range(10), 0.0, "", True),
    ],
)
def test_an_ann_of_ones_own_has_its_classes_in_the_data_sets_order(
    order: list[int], scale: float, refused: str, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ann = _nearest_mean(list(order), scale)
    file = tmp_path / "mine.safetensors"
    save_file(ann.state_dict(), file)
    grid = GridConfig(dataset=("digits",), model=(ann.arch,), ann=str(file), defense=("ann",), attack=("none",))
    said = ""
    with caplog.at_level(logging.WARNING, logger="leakbench"):
        try:
            check_ann(grid, None, "cpu")
        except UsageError as error:
            said = str(error)
    assert said.startswith(refused) and bool(said) == bool(refused)
    assert bool(caplog.records) == warned


def test_only_what_takes_the_data_sets_images_passes() -> None:
    assert "those of digits:half are [1, 8, 8] of 5 classes" in _checked(_nearest_mean(list(range(10))), "digits:half")
