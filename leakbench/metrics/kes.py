"""Knowledge extraction score: what a classifier learns from the reconstructions alone (docs/method.md, Metrics).

Struppek et al. (PPA, ICML 2022) train a classifier on reconstructions and test it on real images; as a score of
generated images this is Ravuri & Vinyals' classification accuracy score (2019). The number that is hardest to fool:
noise on single images that a judge falls for teaches a new classifier nothing. Chance is 1/C.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from leakbench.contracts import Loop, Params
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import proportion
from leakbench.metrics.intervals import clustered_mean
from leakbench.metrics.metric import Measurement
from leakbench.metrics.reconstructions import ReconstructionMetric, Reconstructions, some_of_each
from leakbench.models.training import Augmentation, Progress, Recipe, predict, train

STUDENTS = 3
"""fresh classifiers, from other seeds; their mean counts"""
STEPS, PASSES = 100, 16
"""optimiser steps of each, and passes over the images, at least: of more than two hundred images it takes more steps"""
BATCH = 32
TEST_IMAGES = 2000
"""real images at most that students are tested on"""


def knowledge_extraction(
    images: Tensor,
    targets: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    classes: int,
    generator: torch.Generator,
    progress: Progress = lambda _what, _done, _total: None,
    loop: Callable[[str], Loop] = lambda _name: Loop(),
) -> Tensor:
    """Share of each class's real images that students of the reconstructions name right: float64 [STUDENTS, classes].

    ``images`` uint8 [N, C, H, W] with the classes ``targets`` [N] that they were made for; ``test_images`` uint8
    [M, C, H, W] with ``test_labels`` [M]: every class needs at least one, else UsageError. A student is a small
    network of two convolutions without any normalisation (its statistics would be those of reconstructions),
    trained for STEPS steps or more on shifted and noisy copies. One that diverges has learnt nothing: NumericalError.
    ``loop`` gives the loops of that name that go on where an interrupted run stopped.
    """
    counts = torch.bincount(test_labels, minlength=classes)
    if len(images) < 2 or len(images) != len(targets):
        raise UsageError(f"a classifier needs at least 2 images, each with a target, got {len(images)}, {len(targets)}")
    if len(counts) != classes or not bool(counts.all()):
        raise UsageError(f"the real images to test on must be of the classes 0..{classes - 1}, some of each")
    device = torch.device("cpu")  # a few seconds' work, and the same numbers everywhere
    side = min(images.shape[2:])
    size = min(BATCH, len(images))
    recipe = Recipe(
        steps=max(STEPS, PASSES * len(images) // size),
        batch_size=size,
        lr=0.05,
        schedule="one-cycle",
        augmentation=Augmentation(crop=max(1, side // 14), flip=False, noise=0.1),
    )
    scores = []
    for number in range(STUDENTS):
        what = f"extracting knowledge: student {number + 1} of {STUDENTS}"
        student = _student(images.shape[1:], classes, generator)
        train(student, images, targets, recipe, generator, device, what, progress, loop("student"))
        logits = predict(student, test_images, device)
        if not torch.isfinite(logits).all():
            raise NumericalError("knowledge extraction: a student's answers hold NaN or infinity")
        hits = (logits.argmax(1) == test_labels).double()
        scores.append(torch.zeros(classes, dtype=torch.float64).index_add_(0, test_labels, hits) / counts)
    return torch.stack(scores)


def _student(image_shape: torch.Size, classes: int, generator: torch.Generator) -> nn.Module:
    channels = image_shape[0]
    stride = 2 if min(image_shape[1:]) >= 16 else 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31 - 1, (1,), generator=generator)))
        return nn.Sequential(
            nn.Conv2d(channels, 16, 5, stride=stride, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * 16, classes),
        )


class Kes(ReconstructionMetric[Params]):
    """Accuracy on real test images of a small classifier trained from scratch on nothing but the attack's images.
    Chance is one over the number of attacked classes. The metric that is hardest to fool.
    """

    name = "kes"
    version = 2
    title = "Knowledge extraction (KES)"
    unit, leaks, per, counts = "share", "more", "class", "test images"

    def measure(self, drawn: Reconstructions) -> Measurement:
        context, classes = drawn.context, drawn.targets.unique()
        real = drawn.real.of(classes)
        picked = some_of_each(real.labels, TEST_IMAGES // len(classes) or 1, torch.Generator().manual_seed(0))
        test_labels = torch.searchsorted(classes, real.labels[picked])
        scores = knowledge_extraction(
            drawn.images, torch.searchsorted(classes, drawn.targets), real.images[picked], test_labels, len(classes),
            context.generator, context.progress, context.loop,
        )  # fmt: skip
        tested = torch.bincount(test_labels, minlength=len(classes)).tolist()
        by_class = {
            c: replace(proportion(round(score * count), count), value=score)
            for c, score, count in zip(classes.tolist(), scores.mean(0).tolist(), tested, strict=True)
        }
        return Measurement(clustered_mean(scores.numpy(), images=min(tested)), by_class)
