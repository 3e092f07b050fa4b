"""DP-SGD: the guarantee's arithmetic, and that nothing private reaches the network but through its noise."""

from __future__ import annotations

import importlib.util
import math
from typing import Any, NoReturn

import pytest
import torch
from scipy.optimize import minimize_scalar

from leakbench.contracts import DefenseContext, ImageClassifier, TrainingData
from leakbench.data import Dataset
from leakbench.defenses import dpsgd
from leakbench.defenses.dpsgd import DpSgd, epsilon_of, noise_for
from leakbench.errors import NotApplicable, UsageError
from leakbench.models.storage import build_ann

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"samples": 20, "synthesis_steps": 3, "images": 10, "noise_multiplier": 1.0, "epochs": 1}
found = importlib.util.find_spec("opacus")
with_opacus = pytest.mark.skipif(found is None, reason="dpsgd not tested: pip install opacus")


def context(**given: Any) -> DefenseContext:
    return DefenseContext(torch.Generator().manual_seed(3), timesteps=4, **given)


def data(digits: Dataset, count: int = 100) -> TrainingData:
    return TrainingData(digits.train.images[:count].clone(), digits.train.labels[:count])


def gaussian_epsilon(noise: float, delta: float, steps: int) -> float:
    """Of the Gaussian mechanism on all images, by Renyi divergences alone (Canonne et al. 2020, Proposition 12)."""

    def at(order: float) -> float:
        divergence = steps * order / (2 * noise**2)
        return divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)

    return float(minimize_scalar(at, bounds=(1.01, 200), method="bounded").fun)


@with_opacus
@pytest.mark.parametrize(("noise", "steps"), [(2.0, 1), (5.0, 10), (20.0, 100)])
def test_epsilon_of_steps_on_all_images_is_the_gaussian_mechanisms(noise: float, steps: int) -> None:
    expected = gaussian_epsilon(noise, 1e-5, steps)
    assert expected <= epsilon_of(noise, 1e-5, 1.0, steps) <= 1.02 * expected + 0.01  # orders are on a grid
    assert epsilon_of(noise, 1e-5, 0.1, steps) < expected / 2  # sampling helps


@with_opacus
def test_the_noise_is_the_least_that_has_the_epsilon() -> None:
    noise = noise_for(4.0, 1e-5, 0.1, 200)
    assert epsilon_of(noise, 1e-5, 0.1, 200) <= 4.0 < epsilon_of(0.999 * noise, 1e-5, 0.1, 200)
    with pytest.raises(UsageError, match=r"dpsgd.epsilon: 1e-06 needs more noise"):
        noise_for(1e-6, 1e-5, 1.0, 10**6)


@with_opacus
def test_one_image_moves_a_step_by_no_more_than_it_is_cut_to(digits: Dataset, digits_ann: ImageClassifier) -> None:
    given = SMALL | {"noise_multiplier": 1e-3, "max_grad_norm": 0.1, "momentum": 0.0, "lr": 1.0, "batch_size": 100}

    def trained(handle: TrainingData) -> torch.Tensor:
        private = DpSgd(**given)._trained(digits_ann, handle, context())
        return torch.cat([parameter.flatten() for parameter in private.parameters()])

    usual, other = data(digits), data(digits)
    other._images[7] = 255 - other._images[7]
    other._labels = other._labels.clone()
    other._labels[7] = (other._labels[7] + 1) % 10
    moved = float((trained(usual) - trained(other)).norm())
    assert 0 < moved <= 2 * 0.1 / 100 * 1.001


@with_opacus
def test_how_many_gradients_are_held_at_once_changes_nothing(
    digits: Dataset, digits_ann: ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> list[torch.Tensor]:
        return list(DpSgd(**SMALL, batch_size=30)._trained(digits_ann, data(digits), context()).parameters())

    whole = trained()
    monkeypatch.setattr(dpsgd, "_GRADIENTS", 7 * sum(parameter.numel() for parameter in whole))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(whole, trained(), strict=True))


@with_opacus
def test_thresholds_are_a_share_of_the_maxima(digits: Dataset, digits_ann: ImageClassifier) -> None:
    whole, half = (DpSgd(**SMALL, scale=scale)(digits_ann, data(digits), context()) for scale in (1.0, 0.5))
    first, *_ = (name for name in whole.state_dict() if name.endswith("threshold"))
    assert torch.allclose(half.state_dict()[first], whole.state_dict()[first] / 2)


@with_opacus
def test_steps_that_draw_no_image_are_steps(digits: Dataset, digits_ann: ImageClassifier) -> None:
    # one image a step on average: of a hundred steps a third draws none
    private = DpSgd(**SMALL, batch_size=1, lr=1e-3)._trained(digits_ann, data(digits), context())
    assert all(torch.isfinite(parameter).all() for parameter in private.parameters())


@pytest.mark.long
@with_opacus
def test_it_learns_and_says_what_it_claims(digits: Dataset, digits_ann: ImageClassifier) -> None:
    here = context()
    handle = TrainingData(digits.train.images, digits.train.labels)
    private = DpSgd(epsilon=50.0, epochs=12)._trained(digits_ann, handle, here)
    right = (private(digits.test.images.float() / 255).argmax(1) == digits.test.labels).float().mean()
    assert right > 0.6
    assert here.findings["epsilon, claimed"] == pytest.approx(50, abs=0.01)
    steps = math.ceil(12 * len(handle) / 512)
    assert here.findings["noise multiplier"] == noise_for(50.0, 1e-5, 512 / len(handle), steps)


@with_opacus
@pytest.mark.parametrize(("asked", "given"), [(0.009, 0.009), (0.01, 0.005), (0.5, 0.005)])
def test_of_many_images_delta_is_less(digits: Dataset, digits_ann: ImageClassifier, asked: float, given: float) -> None:
    here = context()
    DpSgd(**SMALL, delta=asked)._trained(digits_ann, data(digits), here)
    assert here.findings["delta"] == given


@with_opacus
def test_nothing_of_the_ann_that_was_trained_without_privacy_is_left(
    digits: Dataset, digits_ann: ImageClassifier
) -> None:
    def shared(*_: Any) -> NoReturn:
        raise AssertionError("images that were made from the other ANN")

    blank = build_ann(digits_ann.arch, digits.image_shape, 10, digits.input_range, torch.Generator().manual_seed(9))
    one, other = (
        DpSgd(**SMALL)(ann, data(digits), context(shared_store=shared)).state_dict() for ann in (digits_ann, blank)
    )
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@with_opacus
def test_what_it_does_not_take_is_refused_in_words(digits: Dataset) -> None:
    normed = build_ann("vgg4bn", digits.image_shape, 10, digits.input_range, torch.Generator().manual_seed(1))
    with pytest.raises(NotApplicable, match="batch norms of vgg4bn mix those of a batch: take a model without"):
        DpSgd(**SMALL)(normed, data(digits), context())


def test_without_opacus_one_line_says_what_to_install(
    digits: Dataset, digits_ann: ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(NotApplicable, match=r"^dpsgd needs opacus: pip install opacus$"):
        DpSgd(**SMALL)(digits_ann, data(digits), context())
