"""Similarity to private images: SSIM pixel by pixel and in closed forms, shortlists, chance and copies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_by_hand import drawn
from torch import Tensor

from leakbench.errors import UsageError
from leakbench.metrics.intervals import clustered_mean
from leakbench.metrics.reconstructions import Features, Reconstructions
from leakbench.metrics.similarity import (
    SHORTLIST,
    TrainingNearest,
    TrainingNearestFeatures,
    TrainingNearestSsim,
    TrainSsim,
    at_equal_numbers,
    nearest_by_pixels,
    shortlisted_ssim,
    ssim,
)

BY_NEAREST = (TrainingNearestFeatures, TrainingNearestSsim)


def some(n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)


def constant(level: int, side: int = 9) -> Tensor:
    return torch.full((1, 1, side, side), level, dtype=torch.uint8)


# --- SSIM --------------------------------------------------------------------------------------------------------


def ssim_by_windows(x: Tensor, y: Tensor) -> float:
    """Of one pair, window by window: the product of luminance, contrast and structure (Wang et al. 2004, eq. 6, 9, 10
    with C3 = C2 / 2), with pixels of 0 to 255."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    a, b = x.double().numpy(), y.double().numpy()
    height, width = (min(7, side) for side in a.shape[1:])
    scores = []
    for channel in range(len(a)):
        for top in range(a.shape[1] - height + 1):
            for left in range(a.shape[2] - width + 1):
                p, q = (one[channel, top : top + height, left : left + width] for one in (a, b))
                luminance = (2 * p.mean() * q.mean() + c1) / (p.mean() ** 2 + q.mean() ** 2 + c1)
                contrast = (2 * p.std() * q.std() + c2) / (p.std() ** 2 + q.std() ** 2 + c2)
                structure = (((p - p.mean()) * (q - q.mean())).mean() + c2 / 2) / (p.std() * q.std() + c2 / 2)
                scores.append(luminance * contrast * structure)
    return float(np.mean(scores))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 10), (1, 4, 4), (2, 3, 9)])
def test_ssim_against_all_windows(shape: tuple[int, ...], generator: torch.Generator) -> None:
    x = some(6, shape, generator)
    y = (x.float() * torch.linspace(0, 1, 6).view(-1, 1, 1, 1) + 60).clamp(max=255).to(torch.uint8)
    y[0] = 255 - x[0]
    expected = [ssim_by_windows(a, b) for a, b in zip(x, y, strict=True)]
    assert min(expected) < 0 and max(expected) > 0.5
    # float32 variances are wrong by some 1e-7, and the least denominator is C2, 9e-4
    assert ssim(x, y).tolist() == pytest.approx(expected, abs=2e-4)


def test_ssim_in_closed_forms(generator: torch.Generator) -> None:
    x, y = some(5, (3, 11, 11), generator), some(5, (3, 11, 11), generator)
    assert ssim(x, x).tolist() == [1] * 5
    assert torch.equal(ssim(x, y), ssim(y, x))
    assert (ssim(x, y) < 0.5).all()
    c1 = (0.01 * 255) ** 2
    for a, b in ((0, 255), (100, 200), (7, 7)):
        expected = (2 * a * b + c1) / (a * a + b * b + c1)
        assert ssim(constant(a), constant(b)).item() == pytest.approx(expected, abs=1e-3)


def test_ssim_of_other_shapes_and_types_is_refused() -> None:
    for x, y in (
        (constant(1), constant(1, 8)),
        (constant(1)[0], constant(1)[0]),
        (constant(1).float(), constant(1)),
        (constant(1), constant(1).expand(2, -1, -1, -1)),
    ):
        with pytest.raises(UsageError, match="SSIM needs two sets of uint8 images"):
            ssim(x, y)


# --- shortlists --------------------------------------------------------------------------------------------------


def test_the_nearest_by_pixels_against_all_pairs(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = some(7, (1, 6, 6), generator), some(50, (1, 6, 6), generator)
    pairs = (x[:, None].double() - y.double()).square().sum((2, 3, 4))
    expected = pairs.argsort(1)[:, :5]
    assert torch.equal(nearest_by_pixels(x, y, 5), expected)
    monkeypatch.setattr("leakbench.metrics.similarity._BATCH", 36 * 8)  # eight images at a time
    assert torch.equal(nearest_by_pixels(x, y, 5), expected)
    assert nearest_by_pixels(x, y[:3], 5).shape == (7, 3)


def test_scores_belong_to_the_rows_beside_them(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = some(3, (1, 8, 8), generator), some(40, (1, 8, 8), generator)
    rows, scores = shortlisted_ssim(x, y)
    assert rows.shape == scores.shape == (3, SHORTLIST)
    for i in range(3):
        torch.testing.assert_close(scores[i], ssim(x[i].expand(SHORTLIST, -1, -1, -1), y[rows[i]]))
    monkeypatch.setattr("leakbench.metrics.similarity._BATCH", 64 * 5)
    in_batches = shortlisted_ssim(x, y)
    assert torch.equal(in_batches[0], rows)
    torch.testing.assert_close(in_batches[1], scores)


# --- the metrics -------------------------------------------------------------------------------------------------


def compared(images: Tensor, private: Tensor, held_out: Tensor, classes: int = 3) -> Reconstructions:
    """Images of the classes in turn, as all real ones are; features are the pixels."""

    def pixels(x: Tensor) -> Features:
        return Features("pixels", lambda: x.flatten(1).double())

    def labels(x: Tensor) -> Tensor:
        return torch.arange(len(x)) % classes

    count = len(images)
    one = drawn(torch.full((count, classes), 1 / classes), labels(images), images)
    real = replace(
        one.real,
        images=held_out,
        labels=labels(held_out),
        features=pixels(held_out),
        training_images=private,
        training_labels=labels(private),
        training_features=pixels(private),
    )
    return replace(one, features=pixels(images), real=real)


SHAPE = (1, 8, 8)


def test_copies_of_training_images_are_told_from_copies_of_held_out_ones(generator: torch.Generator) -> None:
    private, held_out = some(120, SHAPE, generator), some(30, SHAPE, generator)
    copies, others = compared(private[60:90], private, held_out), compared(held_out, private, held_out)
    assert (TrainSsim().scores(copies) == 1).all()
    assert (TrainSsim().scores(others) < 0.6).all()
    for metric in BY_NEAREST:
        found = metric().measure(copies).estimate
        assert (found.value, found.high, found.n) == (1, 1, 30) and 0 < found.low < 0.8
        assert metric().measure(others).estimate.value == 0


def test_only_images_of_the_target_class_count(generator: torch.Generator) -> None:
    private, held_out = some(120, SHAPE, generator), some(30, SHAPE, generator)
    of_others = compared(private[61:91], private, held_out)  # copies of the next class's images
    assert (TrainSsim().scores(of_others) < 0.6).all()
    for metric in BY_NEAREST:
        assert metric().measure(of_others).estimate.value < 1


@pytest.mark.parametrize("metric", BY_NEAREST)
@pytest.mark.parametrize("training", [300, 1200])
def test_images_of_the_same_kind_are_at_chance_however_many_training_images_there_are(
    metric: type[TrainingNearest], training: int, generator: torch.Generator
) -> None:
    images = some(900, SHAPE, generator)
    found = metric().measure(compared(images, some(training, SHAPE, generator), some(300, SHAPE, generator)))
    # four standard errors: of a share p of 900 images, and d value / d p = .25 / (p (1 - p)) at chance
    chance = training / (training + 300)
    error = 0.25 / math.sqrt(chance * (1 - chance) * 900)
    assert found.estimate.value == pytest.approx(0.5, abs=4 * error)
    assert not found.classes


def test_the_share_at_equal_numbers() -> None:
    for training, held_out in ((12, 1), (1, 1), (3, 7)):
        chance = training / (training + held_out)
        assert at_equal_numbers(chance, chance) == pytest.approx(0.5)
        assert at_equal_numbers(0, chance) == 0 and at_equal_numbers(1, chance) == 1
        # of training images each three times as often the nearest as a held-out one
        assert at_equal_numbers(3 * training / (3 * training + held_out), chance) == pytest.approx(0.75)
    assert at_equal_numbers(0.3, 0.5) == pytest.approx(0.3)


def test_the_interval_is_that_of_the_share_by_class() -> None:
    class Given(TrainingNearest):
        """Given hits."""

        name = "given"

        def nearer(self, drawn: Reconstructions) -> Tensor:  # noqa: ARG002
            return torch.tensor([True, False, True] * 3 + [True] * 3)

    zeros = torch.zeros(60, *SHAPE, dtype=torch.uint8)
    found = Given().measure(compared(zeros[:12], zeros[:45], zeros[:15])).estimate
    share = clustered_mean([[1, 0.25, 1]], images=4)
    expected = [p / (p + 3 * (1 - p)) for p in (share.value, share.low, share.high)]
    assert [found.value, found.low, found.high] == pytest.approx(expected)
    assert found.n == 12


def test_as_near_to_both_is_not_nearer_to_training_images(generator: torch.Generator) -> None:
    same = some(30, SHAPE, generator)
    for metric in BY_NEAREST:
        assert metric().measure(compared(same, same, same)).estimate.value == 0


def test_the_similarity_to_training_images_has_values_by_class(generator: torch.Generator) -> None:
    private = some(60, SHAPE, generator)
    images = some(30, SHAPE, generator)
    images[::3] = private[30::3][:10]
    found = TrainSsim().measure(compared(images, private, private))
    assert found.classes.keys() == {0, 1, 2}
    assert found.classes[0].value == 1 > max(found.classes[1].value, found.classes[2].value)


def test_a_class_without_real_images_is_named(generator: torch.Generator) -> None:
    images, few = some(3, SHAPE, generator), some(2, SHAPE, generator)
    for metric in (TrainSsim(), *(one() for one in BY_NEAREST)):
        with pytest.raises(UsageError, match="class 2 "):
            metric.measure(compared(images, few, few))
