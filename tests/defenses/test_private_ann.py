"""Private ANNs: the lesson step by step, the views by hand, and students that do learn from synthetic images alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from leakbench.contracts import DefenseContext, ImageClassifier, TrainingData
from leakbench.data import Dataset
from leakbench.defenses.private_ann import KnowledgeWithin, StudentParams, Zskd, affine, affine_views, taught
from leakbench.defenses.synthesis import Divergence, StatisticsParams, statistics_set
from leakbench.errors import NotApplicable, NumericalError
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.models.training import UNCHANGED, Recipe, predict, train

CPU = torch.device("cpu")
FAST = {"samples": 40, "synthesis_steps": 3, "epochs": 1}


@pytest.fixture(scope="session")
def normed_ann(digits: Dataset) -> ImageClassifier:
    """vgg4bn trained for a few epochs. Frozen."""
    generator = torch.Generator().manual_seed(1)
    ann = build_ann("vgg4bn", digits.image_shape, 10, digits.input_range, generator)
    recipe = Recipe(steps=135, batch_size=32, lr=0.1, schedule="one-cycle", augmentation=UNCHANGED)
    train(ann, digits.train.images, digits.train.labels, recipe, generator, CPU, "training")
    return ann.requires_grad_(False)


def context(seed: int = 0) -> DefenseContext:
    return DefenseContext(torch.Generator().manual_seed(seed), timesteps=1)


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001 - a view
    return images


def accuracy(network: ImageClassifier, digits: Dataset) -> float:
    return float((predict(network, digits.test.images, CPU).argmax(1) == digits.test.labels).double().mean())


def test_the_first_steps_of_the_lesson_by_hand() -> None:
    generator = torch.Generator().manual_seed(7)
    # no layer between the images and the logits draws or normalises: vgg4 but for its dropout
    teacher = build_ann("vgg4", (1, 8, 8), 10, (0.0, 1.0), generator).eval().requires_grad_(False)  # type: ignore[arg-type]
    images = torch.randint(256, (12, 1, 8, 8), dtype=torch.uint8, generator=generator)
    params = StudentParams(epochs=2, batch_size=12, lr=0.01, tau=3.0)
    student = taught(teacher, images, unchanged, params, context(5))

    drawn = torch.Generator().manual_seed(5)
    blank = build_ann("vgg4", (1, 8, 8), 10, (0.0, 1.0), drawn)  # type: ignore[arg-type]
    w = [parameter.detach().clone().double().requires_grad_() for parameter in blank.parameters()]
    first, second, hidden, last = w
    p = (teacher(images / 255).double() / 3).softmax(1)
    moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in w]
    seed = int(torch.randint(2**31 - 1, (1,), generator=drawn))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in (1, 2):
            order = torch.randperm(12, generator=drawn)
            x = (images[order] / 255).double()
            for kernel in (first, second):
                x = torch.conv2d(x, kernel, padding=1).clamp(min=0)
                x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
            x = (x.flatten(1) @ hidden.T).clamp(min=0)
            logits = torch.dropout(x.float(), 0.5, True).double() @ last.T
            loss = -9 * (p[order] * (logits / 3).log_softmax(1)).sum(1).mean()
            gradients = torch.autograd.grad(loss, w)
            # the cosine of two steps: the full rate, then half of it
            rate = 0.01 * (1 + math.cos(math.pi * (step - 1) / 2)) / 2
            with torch.no_grad():
                for one, (mean, square), gradient in zip(w, moments, gradients, strict=True):
                    mean += 0.1 * (gradient - mean)
                    square += 0.001 * (gradient**2 - square)
                    one -= rate * mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    for found, expected, start in zip(student.parameters(), w, blank.parameters(), strict=True):
        torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-3, atol=1e-4)
        assert (found - start).abs().max() > 1e-2


def test_the_teacher_is_asked_about_the_view_itself(digits_ann: ImageClassifier, digits: Dataset) -> None:
    asked: list[Tensor] = []
    handle = digits_ann.register_forward_pre_hook(lambda _module, args: asked.append(args[0]))
    shown: list[Tensor] = []

    def inverted(images: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001 - a view
        shown.append(1 - images)
        return shown[-1]

    taught(digits_ann, digits.train.images[:30], inverted, StudentParams(epochs=1, batch_size=16), context())
    handle.remove()
    assert [len(x) for x in asked] == [16, 14]
    assert all(torch.equal(a, b) for a, b in zip(asked, shown, strict=True))
    everything = {tuple(x.flatten().tolist()) for x in (1 - digits.train.images[:30].float() / 255)}
    assert {tuple(x.flatten().tolist()) for x in torch.cat(asked)} == everything


def test_a_lesson_that_leaves_the_numbers_is_refused(digits_ann: ImageClassifier, digits: Dataset) -> None:
    with pytest.raises(NumericalError, match=r"the student's loss is (nan|inf) at step \d+: lower the learning rate"):
        params = StudentParams(epochs=3, batch_size=8, lr=1e30)
        taught(digits_ann, digits.train.images[:32], unchanged, params, context())


def test_turns_mirrors_and_shifts_are_those_of_numpy(generator: torch.Generator) -> None:
    images = torch.rand(4, 3, 10, 10, generator=generator)
    found = affine(
        images,
        zoom=torch.ones(4),
        shift=torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.2, 0.0], [0.0, -0.1]]),
        angle=torch.tensor([math.pi / 2, 0.0, 0.0, 0.0]),
        mirrored=torch.tensor([False, True, False, False]),
    ).numpy()
    given = images.numpy()
    np.testing.assert_allclose(found[0], np.rot90(given[0], axes=(1, 2)), atol=1e-5)
    np.testing.assert_allclose(found[1], given[1, :, :, ::-1], atol=1e-5)
    # the frame goes to the right, what it shows to the left
    np.testing.assert_allclose(found[2], np.pad(given[2, :, :, 2:], ((0, 0), (0, 0), (0, 2))), atol=1e-5)
    np.testing.assert_allclose(found[3], np.pad(given[3, :, :-1], ((0, 0), (1, 0), (0, 0))), atol=1e-5)


def test_zooming_enlarges_the_middle() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    (found,) = affine(ramp, torch.tensor([0.5]), torch.zeros(1, 2), torch.zeros(1), torch.tensor([False]))
    # pixels 2 to 5 fill the frame: positions a half apart about the middle, 3.5
    np.testing.assert_allclose(found[0].numpy(), np.tile(3.5 + 0.5 * (np.arange(8) - 3.5), (8, 1)), atol=1e-5)


def test_views_are_drawn_for_each_image_and_mirror_only_where_they_may() -> None:
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(1, 1, 10, 10, generator=generator)
    views = {
        flips: affine_views(image.expand(4000, -1, -1, -1), flips, torch.Generator().manual_seed(4))
        for flips in (False, True)
    }

    def share(of: Tensor, among: Tensor) -> float:
        return float(((among - of).abs().amax((1, 2, 3)) < 1e-4).double().mean())

    spread = 5 * math.sqrt(1 / 8 / 4000)
    # neither zoomed, shifted nor turned: one in eight, half of them mirrored
    assert share(image, views[False]) == pytest.approx(1 / 8, abs=spread)
    assert share(image.flip(3), views[False]) == 0
    assert share(image, views[True]) == pytest.approx(1 / 16, abs=spread)
    assert share(image.flip(3), views[True]) == pytest.approx(1 / 16, abs=spread)
    # shifted alone: one in eight, in four directions
    left = torch.nn.functional.pad(image[..., 2:], (0, 2))
    up = torch.nn.functional.pad(image[..., 2:, :], (0, 0, 0, 2))
    for shifted in (left, up, left.flip(3), up.flip(2)):
        original = shifted is left or shifted is up
        assert share(shifted, views[False]) == pytest.approx(1 / 32 if original else 0, abs=spread if original else 0)
    assert views[True].min() >= 0
    assert views[True].max() <= 1 + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("defense", [Zskd(**FAST), KnowledgeWithin(**FAST, synthesis_batch=20)])
def test_a_student_is_a_fresh_network_of_the_same_architecture_that_reads_nothing_private(
    defense: Zskd | KnowledgeWithin, normed_ann: ImageClassifier, digits: Dataset
) -> None:
    data = TrainingData(digits.train.images, digits.train.labels)
    state = torch.get_rng_state()
    student = defense(normed_ann, data, context(1))
    assert isinstance(student, ImageClassifier)
    assert torch.equal(torch.get_rng_state(), state)
    assert data.reads == 0
    assert not any(module.training for module in student.modules())
    assert [type(module) for module in student.modules()] == [type(module) for module in normed_ann.modules()]
    for own, teachers in zip(student.parameters(), normed_ann.parameters(), strict=True):
        if own.dim() > 1:  # fresh weights know nothing of the teacher's: no cosine
            cosine = torch.cosine_similarity(own.flatten(), teachers.flatten(), dim=0)
            assert cosine.abs() < 6 / own.numel() ** 0.5
    tensors, record = save_network(student)
    kept = load_network(tensors, record, CPU)
    x = digits.test.images[:20].float() / 255
    assert torch.equal(kept(x), student(x))
    again, other = (defense(normed_ann, data, context(seed)).state_dict() for seed in (1, 2))
    assert all(torch.equal(value, again[key]) for key, value in student.state_dict().items())
    assert not torch.equal(other["body.0.weight"], again["body.0.weight"])


@pytest.mark.long
@pytest.mark.slow
def test_zskd_teaches_digits_without_any_digit(digits_ann: ImageClassifier, digits: Dataset) -> None:
    data = TrainingData(digits.train.images, digits.train.labels)
    student = Zskd(samples=300, synthesis_steps=40, epochs=40, lr=3e-3)(digits_ann, data, context())
    assert isinstance(student, ImageClassifier)
    assert accuracy(student, digits) > 0.5
    # the same lesson with noise in place of the impressions
    noise = torch.randint(256, (300, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    by_noise = taught(
        digits_ann,
        noise,
        lambda x, generator: affine_views(x, False, generator),
        StudentParams(epochs=40, lr=3e-3),
        context(),
    )
    assert accuracy(by_noise, digits) < 0.4


@pytest.mark.slow
def test_the_knowledge_within_teaches_digits_without_any_digit(normed_ann: ImageClassifier, digits: Dataset) -> None:
    data = TrainingData(digits.train.images, digits.train.labels)
    student = KnowledgeWithin(samples=300, synthesis_steps=40, epochs=15)(normed_ann, data, context())
    assert isinstance(student, ImageClassifier)
    assert accuracy(student, digits) > 0.5


@pytest.mark.slow
def test_images_by_statistics_are_of_their_classes_and_usual_to_the_batch_norms(normed_ann: ImageClassifier) -> None:
    def made(weight: float) -> tuple[float, float]:
        params = StatisticsParams(samples=60, synthesis_steps=50, synthesis_batch=30, statistics=weight, jitter=0)
        found = statistics_set(normed_ann, params, context())
        assert found["images"].dtype == torch.uint8
        assert found["images"].shape == (60, 1, 8, 8)
        assert found["intended"].tolist() == [c for c in range(10) for _ in range(6)]
        divergence = Divergence(normed_ann)
        answers = normed_ann(found["images"].float() / 255).argmax(1)
        off = float(divergence())
        divergence.close()
        return off, float((answers == found["intended"]).double().mean())

    (usual, right), (unusual, right_without) = made(1.0), made(0.0)
    assert usual < unusual / 2
    # chance is .1
    assert min(right, right_without) > 0.9


@pytest.mark.parametrize(
    ("arch", "instead"), [("vgg4", "vgg4bn"), ("vgg5", "vgg5bn"), ("vgg5max", "vgg5bn"), ("resnet20+bias", "resnet20")]
)
def test_the_knowledge_within_needs_batch_norm(arch: str, instead: str, digits: Dataset) -> None:
    ann = build_ann(arch, digits.image_shape, 10, digits.input_range, torch.Generator())
    with pytest.raises(NotApplicable) as refusal:
        KnowledgeWithin()(ann, TrainingData(digits.train.images, digits.train.labels), context())
    assert str(refusal.value) == (
        f"knowledge_within reads batch-norm statistics: {arch} has none; take --model {instead}"
    )
