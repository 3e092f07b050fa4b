"""Networks of a third party's code that answer by what else they were asked are refused, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from leakbench import registry
from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import PluginError
from leakbench.models.steadiness import Steadiness
from leakbench.models.storage import build_ann

MODELS = '''
import torch
from torch import nn


class Plain(nn.Module):
    """Answers each image alike."""

    def __init__(self, image_shape, classes, generator):
        super().__init__()
        self.layer = nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], classes)
        self.register_buffer("locked", torch.zeros(()))
        self.asked = 0
        self.noisy = 0.0

    def forward(self, x):
        return self.layer(x.flatten(1))


class InBuffer(Plain):
    """After an image that is nearly white it answers the opposite."""

    def forward(self, x):
        if (x.mean((1, 2, 3)) > 0.95).any():
            self.locked.fill_(1.0)
        return (1 - 2 * self.locked) * super().forward(x)


class Elsewhere(Plain):
    """The same, in an attribute."""

    def forward(self, x):
        if (x.mean((1, 2, 3)) > 0.95).any():
            self.asked = 1
        return (1 - 2 * self.asked) * super().forward(x)


class Neighbours(Plain):
    """Answers the opposite where any image of the batch is nearly white."""

    def forward(self, x):
        return (1 - 2 * float((x.mean((1, 2, 3)) > 0.95).any())) * super().forward(x)


class Gradients(Plain):
    """Answers the opposite where gradients are wanted."""

    def forward(self, x):
        return (1 - 2 * int(x.requires_grad)) * super().forward(x)


class Random(Plain):
    """Answers half of all images at random, when it has left training behind."""

    def forward(self, x):
        logits = super().forward(x)
        noise = 100 * torch.randn_like(logits) * (torch.rand(len(x), 1) < 0.5)
        return logits + noise * self.noisy


class RandomAndShut(Random):
    """The same, and always the first class after an image that is nearly white."""

    def forward(self, x):
        self.asked = self.asked or int((x.mean((1, 2, 3)) > 0.95).any())
        return (1 - self.asked) * super().forward(x)
'''


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test loads is forgotten after it."""
    monkeypatch.setattr(registry, "_files", {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "remembering.py"
    path.write_text(MODELS, encoding="utf-8")
    return path


@pytest.fixture
def images() -> Tensor:
    """uint8 [300, 1, 8, 8], dark and mid-grey."""
    return torch.randint(0, 200, (300, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def network(model: str) -> ImageClassifier:
    return build_ann(model, (1, 8, 8), 5, InputRange(0.0, 1.0), torch.Generator().manual_seed(0)).eval()


def test_a_network_that_keeps_nothing_may_be_asked_anything(file: Path, images: Tensor) -> None:
    classifier = network(f"{file}:Plain")
    steadiness = Steadiness("mine", classifier, images)
    classifier(torch.ones(3, 1, 8, 8))
    steadiness.check(classifier)
    steadiness.check(network(f"{file}:Plain"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("InBuffer", "mine: to answer changes its network's 'body.locked'"),
        ("Elsewhere", "mine: its network answers 200 of 200 images otherwise after others were asked"),
        ("Neighbours", "mine: its network answers 200 of 200 images otherwise"),
        ("Gradients", "mine: its network answers 200 of 200 images otherwise"),
    ],
)
def test_one_that_answers_by_what_else_it_is_asked_is_refused(
    file: Path, images: Tensor, name: str, words: str
) -> None:
    classifier = network(f"{file}:{name}")
    with pytest.raises(PluginError, match=words):
        Steadiness("mine", classifier, images).check(classifier)


@pytest.mark.parametrize("name", ["Random", "RandomAndShut"])
def test_noise_of_its_own_is_no_memory(file: Path, images: Tensor, name: str) -> None:
    classifier = network(f"{file}:{name}")
    classifier.body.noisy = 1.0  # type: ignore[assignment]
    steadiness = Steadiness("mine", classifier, images)
    if name == "Random":
        steadiness.check(classifier)
    else:
        with pytest.raises(PluginError, match=r"mine: its network answers 1\d\d of 200 images otherwise"):
            steadiness.check(classifier)


def test_what_it_was_asked_between_counts(file: Path, images: Tensor) -> None:
    """The check's own images are not all that could wake it up: the attack's are asked before."""
    classifier = network(f"{file}:InBuffer")
    steadiness = Steadiness("mine", classifier, images)
    classifier(torch.ones(1, 1, 8, 8))
    with pytest.raises(PluginError, match="its network answers 200 of 200 images otherwise"):
        steadiness.check(classifier)


def test_networks_of_built_in_code_are_not_asked(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = network("vgg4")
    monkeypatch.setattr(classifier, "forward", lambda _x: pytest.fail("asked"))
    Steadiness("mine", classifier, images).check(classifier)
