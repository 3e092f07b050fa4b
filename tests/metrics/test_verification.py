"""The equal error rate of verification against a loop over the definition, and where it is known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics import verification
from leakbench.metrics.verification import VerificationError, verification_errors


def drawn(seed: int, apart: float, images: int = 12, real: int = 30) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features and classes of images, and of real ones, whose three classes are so far apart."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 8, generator=generator, dtype=torch.float64) * apart
    targets, labels = torch.arange(images) % 3, torch.arange(real) % 3
    x = centres[targets] + torch.randn(images, 8, generator=generator, dtype=torch.float64)
    return x, targets, centres[labels] + torch.randn(real, 8, generator=generator, dtype=torch.float64), labels


def by_loop(x: Tensor, targets: Tensor, y: Tensor, labels: Tensor) -> tuple[float, list[float]]:
    """The equal error rate, found by trying every threshold, and the errors of the images there."""
    centre = y.mean(0)
    alike = torch.nn.functional.cosine_similarity((x - centre)[:, None], (y - centre)[None], dim=2)
    best: tuple[float, float, list[float]] = (math.inf, 0.0, [])
    for threshold in [*alike.flatten().sort().values.tolist(), math.inf]:
        missed, passed = [], []
        for i, target in enumerate(targets.tolist()):
            own = [float(a) for a, label in zip(alike[i], labels.tolist(), strict=True) if label == target]
            other = [float(a) for a, label in zip(alike[i], labels.tolist(), strict=True) if label != target]
            missed.append(sum(a < threshold - 1e-12 for a in own) / len(own))
            passed.append(sum(a >= threshold - 1e-12 for a in other) / len(other))
        gap = abs(sum(missed) - sum(passed))
        if gap < best[0] - 1e-9:
            errors = [(m + p) / 2 for m, p in zip(missed, passed, strict=True)]
            best = gap, sum(errors) / len(errors), errors
    return best[1], best[2]


@pytest.mark.parametrize("apart", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_a_loop_finds(seed: int, apart: float) -> None:
    x, targets, y, labels = drawn(seed, apart, images=9, real=15)
    rate, errors = by_loop(x, targets, y, labels)
    found = verification_errors(x, targets, y, labels)
    assert found.shape == (9,)
    assert float(found.mean()) == pytest.approx(rate, abs=1e-9)
    assert found.tolist() == pytest.approx(errors, abs=1e-9)


def test_classes_that_are_apart_are_told_and_equal_ones_are_guessed() -> None:
    assert verification_errors(*drawn(0, 50.0)).tolist() == [0.0] * 12
    rates = [float(verification_errors(*drawn(seed, 0.0, 60, 90)).mean()) for seed in range(8)]
    assert 0.46 < sum(rates) / len(rates) < 0.54


def test_other_classes_pictures_are_worse_than_guessing() -> None:
    x, targets, y, labels = drawn(0, 50.0)
    assert float(verification_errors(x, (targets + 1) % 3, y, labels).mean()) > 0.6


def test_who_is_alike_to_all_has_an_error_of_a_half() -> None:
    x, targets, y, labels = drawn(0, 50.0)
    assert verification_errors(y.mean(0).expand_as(x), targets, y, labels).tolist() == [0.5] * 12


def test_scale_and_offset_of_the_features_change_nothing() -> None:
    x, targets, y, labels = drawn(1, 0.5)
    again = verification_errors(7 * x + 3, targets, 7 * y + 3, labels)
    assert again.tolist() == pytest.approx(verification_errors(x, targets, y, labels).tolist(), abs=1e-9)


@pytest.mark.parametrize(("classes", "each"), [(2, 20), (40, 20), (50, 20), (51, 19), (200, 5), (1500, 1)])
def test_many_classes_have_fewer_real_images_each(classes: int, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(classes).repeat(25)
    paired: list[Tensor] = []
    monkeypatch.setattr(verification, "verification_errors", lambda *given: paired.append(given[3]))
    features = SimpleNamespace(tensor=torch.rand(len(labels), 2))
    real = SimpleNamespace(labels=labels, features=features)
    VerificationError().scores(cast(Any, SimpleNamespace(real=real, features=features, targets=labels)))
    assert paired[0].bincount().tolist() == [each] * classes


def test_bad_input_is_refused() -> None:
    x, targets, y, labels = drawn(1, 0.5)
    with pytest.raises(UsageError, match="real images of each target class, and of another"):
        verification_errors(x, targets + 1, y, labels)
    with pytest.raises(UsageError, match="and of another"):
        verification_errors(x, targets * 0, y, labels * 0)
    with pytest.raises(NumericalError):
        verification_errors(x * math.nan, targets, y, labels)
