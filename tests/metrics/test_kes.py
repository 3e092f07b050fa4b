"""Knowledge extraction: real images teach, noise and wrong labels do not."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_by_hand import drawn
from interruption import Checkpoints, goes_on
from torch import Tensor

from leakbench.contracts import Context, Progress
from leakbench.data import Dataset
from leakbench.errors import UsageError
from leakbench.metrics import kes
from leakbench.metrics.kes import STUDENTS, Kes, knowledge_extraction
from leakbench.metrics.metric import Measurement


def halves(count: int, seed: int = 0, side: int = 8) -> tuple[Tensor, Tensor]:
    """Two classes that nobody can confuse: the left or the right half bright, on some noise."""
    labels = torch.arange(count) % 2
    images = torch.randint(0, 60, (count, 1, side, side), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[..., side // 2 * label : side // 2 * (label + 1)] += 180
    return images, labels


def taught(images: Tensor, targets: Tensor, test: tuple[Tensor, Tensor], classes: int, seed: int = 0) -> Tensor:
    return knowledge_extraction(images, targets, *test, classes, torch.Generator().manual_seed(seed))


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which it does not matter what students learn."""
    monkeypatch.setattr(kes, "STEPS", 20)


@pytest.fixture(scope="module")
def lessons(digits: Dataset) -> dict[str, float]:
    """Mean share of test digits named right, by what was taught: ten images of each class."""
    index = torch.cat([(digits.train.labels == c).nonzero().flatten()[:10] for c in range(10)])
    real, targets = digits.train.images[index], digits.train.labels[index]
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, real.shape, generator=generator, dtype=torch.uint8)
    test = digits.test.images, digits.test.labels
    wrong = targets[torch.randperm(100, generator=generator)]
    sets = {
        "real": (real, targets),
        "noise": (noise, targets),
        "shuffled": (real, wrong),
        "few": (real[::5], targets[::5]),
    }
    return {name: float(taught(*given, test, 10).mean()) for name, given in sets.items()}


@pytest.mark.long
@pytest.mark.slow
def test_real_digits_teach(lessons: dict[str, float]) -> None:
    assert lessons["real"] > 0.5  # chance is .1
    assert lessons["real"] > lessons["few"] > 0.3  # two of each class tell less than ten


@pytest.mark.slow
@pytest.mark.parametrize("what", ["noise", "shuffled"])
def test_noise_and_shuffled_targets_teach_nothing(lessons: dict[str, float], what: str) -> None:
    # chance is .1: which classes a student mixes up is one draw, whose spread over seeds is about .04
    assert lessons[what] < 0.25


@pytest.mark.slow
@pytest.mark.parametrize("side", [8, 20])
def test_what_anyone_can_tell_apart_is_learnt_whole(side: int) -> None:
    found = taught(*halves(12, side=side), halves(30, seed=1, side=side), 2)
    assert found.shape == (STUDENTS, 2)
    assert found.dtype == torch.float64
    assert torch.equal(found, torch.ones(STUDENTS, 2, dtype=torch.float64))


@pytest.mark.slow
def test_the_shares_are_of_each_class_s_own_images() -> None:
    """Taught one class alone a student knows no other, however many images of it there are to test on."""
    images, _ = halves(9)
    test = torch.cat([halves(40)[0], halves(2)[0]])
    labels = torch.tensor([0] * 40 + [1, 2])
    found = taught(images, torch.full((9,), 1), (test, labels), 3)
    assert torch.equal(found, torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64).expand(STUDENTS, 3))


@pytest.mark.slow
def test_swapped_targets_teach_the_swap() -> None:
    images, labels = halves(12)
    assert torch.equal(taught(images, 1 - labels, halves(30, seed=1), 2), torch.zeros(STUDENTS, 2, dtype=torch.float64))


@pytest.mark.slow
def test_colour_images_and_two_images_are_enough() -> None:
    images, labels = halves(2)
    test, test_labels = halves(10, seed=1)
    found = taught(images.expand(-1, 3, -1, -1), labels, (test.expand(-1, 3, -1, -1), test_labels), 2)
    assert torch.isfinite(found).all()
    assert found.mean() > 0.75


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
def test_the_same_seed_gives_the_same_shares_and_leaves_the_global_generator_alone(digits: Dataset) -> None:
    given = digits.train.images[:40], digits.train.labels[:40]
    test = digits.test.images[:200], digits.test.labels[:200]
    state = torch.get_rng_state()
    first, again, other = (taught(*given, test, 10, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])  # students have seeds of their own


@pytest.mark.parametrize(("count", "steps"), [(40, 100), (200, 100), (1000, 500)])
def test_of_many_images_each_is_passed_as_often(count: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(kes, "train", lambda _student, _images, _targets, recipe, *_: taken.append(recipe.steps))
    images, labels = torch.zeros(count, 1, 8, 8, dtype=torch.uint8), torch.arange(count) % 2
    knowledge_extraction(images, labels, images[:2], labels[:2], 2, torch.Generator())
    assert taken == [steps] * STUDENTS


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
def test_progress_counts_the_students() -> None:
    said: list[str] = []
    knowledge_extraction(
        *halves(4), *halves(4), 2, torch.Generator(), lambda what, _done, _total: said.append(what)
    )  # fmt: skip
    assert list(dict.fromkeys(said)) == [
        f"extracting knowledge: student {number} of {STUDENTS}" for number in range(1, STUDENTS + 1)
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_an_interrupted_measurement_ends_as_if_it_had_not_been(part: float, tmp_path: Path) -> None:
    """In each of the students."""
    targets = torch.arange(3).repeat_interleave(4)
    images = torch.randint(0, 256, (12, 1, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    given = drawn(torch.full((12, 3), 1 / 3), targets, images)

    def run(progress: Progress, checkpoints: Checkpoints | None) -> Any:
        generator = torch.Generator().manual_seed(1)
        context = Context(generator, progress=progress, checkpoints=checkpoints)
        measurement = Kes().measure(replace(given, context=context))
        return asdict(measurement), generator.get_state().tolist()

    goes_on(run, tmp_path, part)


@pytest.mark.parametrize(
    ("images", "targets", "tested", "classes", "words"),
    [
        (1, 1, 4, 2, "at least 2 images, each with a target, got 1, 1"),
        (0, 0, 4, 2, "at least 2 images, each with a target, got 0, 0"),
        (4, 3, 4, 2, "at least 2 images, each with a target, got 4, 3"),
        (4, 4, 1, 2, r"of the classes 0\.\.1, some of each"),  # none of class 1
        (4, 4, 4, 3, r"of the classes 0\.\.2, some of each"),
        (4, 4, 4, 1, r"of the classes 0\.\.0, some of each"),  # of a class that there is not
        (4, 4, 0, 2, r"of the classes 0\.\.1, some of each"),
    ],
)
def test_what_can_teach_or_test_nothing_is_refused(
    images: int, targets: int, tested: int, classes: int, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        taught(halves(images)[0], halves(targets)[1], halves(tested), classes)


def test_students_learn_the_attacked_classes_alone() -> None:
    """Of five classes two were attacked: the scores are theirs, and as if there were no others."""
    images, which = halves(40)
    targets = torch.tensor([1, 4])[which]
    test, test_which = halves(40, seed=1)
    others = torch.randint(0, 256, (30, 1, 8, 8), generator=torch.Generator().manual_seed(2)).to(torch.uint8)

    def measured(more: bool) -> Measurement:
        shown = drawn(torch.full((40, 5), 0.2), targets, images)
        real_images = torch.cat([test, others]) if more else test
        labels = torch.tensor([1, 4])[test_which]
        labels = torch.cat([labels, torch.tensor([0, 2, 3]).repeat(10)]) if more else labels
        real = replace(shown.real, images=real_images, labels=labels)
        real = replace(real, training_images=real_images, training_labels=labels)
        return Kes().measure(replace(shown, real=real))

    found = measured(more=True)
    assert set(found.classes) == {1, 4}
    assert found.estimate.value > 0.9
    assert found == measured(more=False)
