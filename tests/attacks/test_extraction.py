"""Extraction: what is asked, what the student learns from answers alone, and its statistics in what is drawn of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakbench.attacks.extraction import (
    Extraction,
    ExtractionParams,
    Lesson,
    StatisticsDistance,
    deep_inversion,
    first_questions,
    student_network,
)
from leakbench.contracts import Access, AttackContext, ImageClassifier, PublicImages, Victim
from leakbench.errors import NotApplicable
from leakbench.snn import SpikingNetwork

TARGETS = torch.arange(10).repeat_interleave(3)
PUBLIC = PublicImages(
    torch.nn.functional.interpolate(torch.rand(300, 1, 3, 3, generator=torch.Generator().manual_seed(8)), (8, 8))
    .mul(255)
    .to(torch.uint8),
    "blobs of the tests",
)


def context_of(seed: int = 0) -> AttackContext:
    return AttackContext(torch.Generator().manual_seed(seed), public=PUBLIC)


@pytest.fixture(scope="module")
def taught(digits_snn: SpikingNetwork) -> tuple[ImageClassifier, dict[str, float], dict[str, float]]:
    """A student of the spiking digits network, and what its examination found before and after."""
    context, params = context_of(), ExtractionParams(steps=150)
    student = student_network((1, 8, 8), 10, 16, context).eval()
    lesson = Lesson(Victim(copy.deepcopy(digits_snn), Access.SCORES), context)
    lesson.ask(first_questions(1200, PUBLIC.images, context))
    lesson.examine(student)
    before = dict(context.findings)
    lesson.teach(student, params, "teaching")
    lesson.examine(student)
    return student, before, dict(context.findings)


Taught = tuple[ImageClassifier, dict[str, float], dict[str, float]]


@pytest.mark.slow
def test_the_student_answers_as_the_victim_does_what_it_has_not_learnt(taught: Taught) -> None:
    _, before, after = taught
    assert abs(before["student: correlation of logits"]) < 0.5
    assert after["student: correlation of logits"] > 0.9
    assert after["student: same class as the victim"] > before["student: same class as the victim"] + 0.3


@pytest.mark.slow
def test_the_student_was_told_nothing_of_its_examination(digits_ann: ImageClassifier) -> None:
    """Answers to the questions that are kept change nothing of what is learnt."""

    class Liar(Victim):
        def scores(self, images: Tensor) -> Tensor:
            answers = super().scores(images)
            answers[9::10] = answers[9::10].flip(1)
            return answers

    students = []
    for kind in (Victim, Liar):
        context = context_of()
        student = student_network((1, 8, 8), 10, 4, context)
        lesson = Lesson(kind(digits_ann, Access.SCORES), context)
        lesson.ask(first_questions(100, PUBLIC.images, context))
        lesson.teach(student, ExtractionParams(steps=10), "teaching")
        students.append((student, context.findings, lesson))
    for student, _, lesson in students:
        lesson.examine(student)
    (one, honest, _), (other, lied, _) = students
    # their spread, the unit of the lesson, is what is left of them
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert honest != lied


@pytest.mark.slow
def test_every_image_is_asked_once_and_counted(digits_ann: ImageClassifier) -> None:
    victim, asked = copy.deepcopy(digits_ann), []
    victim.register_forward_pre_hook(lambda _module, args: asked.append(args[0].clone()))
    attack = Extraction(queries=300, rounds=3, steps=2, iterations=2, restarts=2, confidence_draws=2, width=4)
    made = attack(Victim(victim, Access.SCORES), TARGETS, context_of())
    images = torch.cat(asked[1:])  # the first call is the framework's own
    confidence = (1 + 1 + 2) * 2 * len(TARGETS)
    assert made.cost.queries == len(images) == 300 + confidence
    # half, a quarter and a quarter, and each inversion's confidence between them
    questions = torch.cat([images[:150], images[210:285], images[345:420]])
    assert len(questions.flatten(1).unique(dim=0)) == 300
    assert made.cost.gradient_steps == 3 * 2 + (1 + 1 + 2) * 2
    won = [value for name, value in made.findings.items() if name.startswith("images won by round")]
    assert len(won) == 3 and sum(won) == len(TARGETS)


def test_a_third_of_the_first_questions_are_public_images() -> None:
    questions = first_questions(90, PUBLIC.images, context_of())
    known = {tuple(image.flatten().tolist()) for image in PUBLIC.images}
    public = [tuple((image * 255).round().int().flatten().tolist()) in known for image in questions]
    assert public == [True] * 30 + [False] * 60
    # as many as there are, where they are few
    few = first_questions(90, PUBLIC.images[:5], context_of())
    assert len(few) == 90 and sum(tuple((i * 255).round().int().flatten().tolist()) in known for i in few) == 5


def test_the_statistics_by_hand() -> None:
    norm = nn.BatchNorm2d(2, eps=0.0)
    norm.running_mean, norm.running_var = torch.tensor([1.0, 0.0]), torch.tensor([4.0, 9.0])
    norm.eval()
    statistics = StatisticsDistance(nn.Sequential(norm))
    x = torch.tensor([[[[0.0, 2.0]], [[1.0, 1.0]]], [[[4.0, 6.0]], [[3.0, 3.0]]], [[[3.0, 3.0]], [[2.0, 2.0]]]])
    norm(x)
    first, second = [0, 2, 4, 6, 3, 3], [1, 1, 3, 3, 2, 2]
    means = [sum(values) / 6 for values in (first, second)]
    variances = [sum((v - mean) ** 2 for v in values) / 6 for values, mean in zip((first, second), means, strict=True)]
    off = ((means[0] - 1) ** 2 + means[1] ** 2) ** 0.5 / (4 + 9) ** 0.5
    off += ((variances[0] - 4) ** 2 + (variances[1] - 9) ** 2) ** 0.5 / (16 + 81) ** 0.5
    assert float(statistics()) == pytest.approx(3 * off)
    # in units of the layer: scaled alike, it is as far
    norm.running_mean, norm.running_var = 10 * norm.running_mean, 100 * norm.running_var
    norm(10 * x)
    assert float(statistics()) == pytest.approx(3 * off)
    statistics.close()
    norm(x)
    assert float(statistics()) == pytest.approx(3 * off)


@pytest.mark.slow
def test_the_term_brings_a_batch_nearer_to_the_running_statistics(taught: Taught) -> None:
    student = taught[0]

    def distance(bn: float) -> float:
        params = ExtractionParams(iterations=60, bn=bn)
        images = deep_inversion(student, TARGETS, context_of(), params, "drawing")
        statistics = StatisticsDistance(student)
        student(images)
        statistics.close()
        return float(statistics()) / len(images)

    without, some, much = (distance(bn) for bn in (0.0, 1.0, 10.0))
    assert much < some < without
    assert much < 0.7 * without


@pytest.mark.slow
@pytest.mark.parametrize("targets", [TARGETS, torch.tensor([7, 2, 7, 0])])
def test_batches_are_mixed_and_put_in_order_again(taught: Taught, targets: Tensor) -> None:
    student, seen = taught[0], []

    def watch(_module: nn.Module, args: Any, _out: Tensor) -> None:
        seen.append(args[0].detach())

    handle = student.register_forward_hook(watch)
    images = deep_inversion(student, targets, context_of(), ExtractionParams(iterations=80), "drawing")
    handle.remove()
    assert (student(images).argmax(1) == targets).all()
    # no hook is left behind
    assert not any(module._forward_pre_hooks for module in student.modules())
    order = student(seen[-1]).argmax(1)
    assert len(targets) == 4 or not torch.equal(order, targets)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 9, 31), (1, 3, 3)])
def test_the_student_takes_images_of_any_size(shape: tuple[int, int, int], generator: torch.Generator) -> None:
    state = torch.get_rng_state()
    student = student_network(shape, 7, 4, AttackContext(generator)).eval()
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        assert student(torch.rand(3, *shape, generator=generator)).shape == (3, 7)
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) >= 2
    assert sum(p.numel() for p in student.parameters()) < 50_000


@pytest.mark.slow
def test_scores_are_all_it_needs(digits_snn: SpikingNetwork) -> None:
    attack = Extraction(queries=200, steps=20, iterations=10, restarts=1, width=4)
    victim = Victim(copy.deepcopy(digits_snn), Access.SCORES)
    with pytest.raises(NotApplicable):
        _ = victim.network
    assert attack(victim, TARGETS, context_of()).images.shape == (30, 1, 8, 8)
    with pytest.raises(NotApplicable, match="extraction needs public images"):
        attack(victim, TARGETS, AttackContext(torch.Generator()))
