"""Universal perturbations: closed forms on linear networks, and what they do to a trained one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.data import Dataset
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics import uap
from leakbench.metrics.estimate import proportion
from leakbench.metrics.uap import default_epsilon, fooling_rate, random_signs, universal_perturbation

EPSILON = 0.1
SHAPE = (1, 4, 4)


def linear(weights: Tensor) -> nn.Sequential:
    """Logits of ``weights`` [classes, C, H, W] on images of that shape."""
    layer = nn.Linear(weights[0].numel(), len(weights), bias=False)
    layer.weight.data = weights.flatten(1).clone()
    return nn.Sequential(nn.Flatten(), layer).requires_grad_(False)


def weights(classes: int = 2) -> Tensor:
    return torch.randn(classes, *SHAPE, generator=torch.Generator().manual_seed(0))


def grey(count: int = 5) -> Tensor:
    """Images that no perturbation within epsilon takes out of [0, 1]."""
    return 0.5 + 0.3 * (torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)) - 0.5)


# --- the perturbation --------------------------------------------------------------------------------------------


def test_on_a_linear_network_it_is_the_sign_of_the_difference_of_the_weights() -> None:
    """The gradient of every image's loss is (1 - p) (w_other - w_own): one sign, whatever the image."""
    w = weights()
    w -= w.mean((1, 2, 3), keepdim=True)
    w[0] += 0.3  # all images are of class 0, without float32 taking its probability for 1
    w[:, 0, 0, 0] = 0  # a pixel that tells nothing
    images = grey()
    assert (linear(w)(images).argmax(1) == 0).all()
    sign = (w[1] - w[0]).sign()
    assert sign[0, 0, 0] == 0
    torch.testing.assert_close(universal_perturbation(linear(w), images, EPSILON), EPSILON * sign)
    # steps of an eighth
    for steps in (1, 3, 8):
        delta = universal_perturbation(linear(w), images, EPSILON, steps)
        torch.testing.assert_close(delta, EPSILON * steps / 8 * sign)


def test_many_images_outvote_few() -> None:
    w = weights()
    w -= w.mean((1, 2, 3), keepdim=True)  # no class is ahead on even grey
    images = grey(40)
    labels = linear(w)(images).argmax(1)
    first, second = images[labels == 0], images[labels == 1]
    assert len(first) >= 3 and len(second) >= 3
    delta = {
        most: universal_perturbation(linear(0.01 * w), given, EPSILON, steps=1)  # small weights: every p is about 1/2
        for most, given in ((0, torch.cat([first[:3], second[:1]])), (1, torch.cat([first[:1], second[:3]])))
    }
    for most in (0, 1):
        torch.testing.assert_close(delta[most], EPSILON / 8 * (w[1 - most] - w[most]).sign())


def test_many_images_are_taken_in_parts_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, sizes = linear(weights(5)), grey(600), []
    network.register_forward_hook(lambda _module, args, _out: sizes.append(len(args[0])))
    delta = universal_perturbation(network, images, EPSILON)
    assert max(sizes) == 250
    monkeypatch.setattr(uap, "_TOGETHER", 1000)
    assert torch.equal(universal_perturbation(network, images, EPSILON), delta)
    assert max(sizes) == 600


@pytest.mark.slow
def test_it_is_bounded_and_the_same_again_and_leaves_the_network_alone(
    digits: Dataset, digits_ann: ImageClassifier
) -> None:
    images = digits.train.images[:50].float() / 255
    before, state = {key: value.clone() for key, value in digits_ann.state_dict().items()}, torch.get_rng_state()
    for epsilon in (0.02, 0.3):
        delta = universal_perturbation(digits_ann, images, epsilon)
        assert delta.shape == (1, 8, 8) and not delta.requires_grad
        assert 0.9 * epsilon < delta.abs().max() <= epsilon
        assert torch.equal(universal_perturbation(digits_ann, images, epsilon), delta)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in digits_ann.state_dict().items())
    assert all(parameter.grad is None for parameter in digits_ann.parameters())


@pytest.mark.slow
def test_it_fools_a_trained_network_more_often_than_random_signs(
    digits: Dataset, digits_ann: ImageClassifier, generator: torch.Generator
) -> None:
    """Found on training digits, tried on test digits: one perturbation for images that it has never seen."""
    train, test = (split.images.float() / 255 for split in (digits.train, digits.test))

    def fooled(delta: Tensor) -> float:
        names = [digits_ann(x.clamp(0, 1)).argmax(1) for x in (test, test + delta)]
        return fooling_rate(names[0], names[1]).value

    signs = [fooled(random_signs((1, 8, 8), 0.2, generator)) for _ in range(10)]
    found = fooled(universal_perturbation(digits_ann, train[:100], 0.2))
    assert found > max(signs) + 0.1


@pytest.mark.parametrize(
    ("images", "epsilon", "steps", "words"),
    [
        (torch.zeros(0, *SHAPE), 0.1, 40, r"at least one, got torch.float32 \(0, 1, 4, 4\)"),
        (torch.zeros(SHAPE), 0.1, 40, r"images must be floats \[N, C, H, W\].*\(1, 4, 4\)"),
        (torch.zeros(2, *SHAPE, dtype=torch.uint8), 0.1, 40, "images must be floats.*uint8"),
        (torch.zeros(2, *SHAPE), 0.0, 40, "epsilon must be above 0 .*, got 0.0 and 40"),
        (torch.zeros(2, *SHAPE), float("nan"), 40, "epsilon must be above 0 .*, got nan and 40"),
        (torch.zeros(2, *SHAPE), 0.1, 0, "steps at least 1, got 0.1 and 0"),
    ],
)
def test_what_gives_no_perturbation_is_refused(images: Tensor, epsilon: float, steps: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        universal_perturbation(linear(weights()), images, epsilon, steps)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_is_an_error(value: float) -> None:
    w = weights()
    w[0, 0, 0, 0] = value
    with pytest.raises(NumericalError, match="NaN or infinity"):
        universal_perturbation(linear(w), grey(), EPSILON)


# --- its brackets and its measure --------------------------------------------------------------------------------


def test_random_signs_are_plus_or_minus_epsilon_evenly(generator: torch.Generator) -> None:
    signs = random_signs((3, 100, 100), EPSILON, generator)
    assert signs.shape == (3, 100, 100)
    assert torch.equal(signs.abs(), torch.full_like(signs, EPSILON))
    assert abs(float((signs > 0).double().mean()) - 0.5) < 5 * 0.5 / 30_000**0.5
    assert not torch.equal(signs, random_signs((3, 100, 100), EPSILON, generator))


def test_the_size_is_mopuri_s_for_colour_and_more_for_grey() -> None:
    assert default_epsilon(3) == pytest.approx(10 / 255)
    assert default_epsilon(1) == 0.2


@pytest.mark.parametrize(
    ("before", "after", "changed"), [([1, 2, 3, 0], [1, 0, 3, 2], 2), ([1], [1], 0), ([0], [5], 1)]
)
def test_the_fooling_rate_is_the_share_of_changed_answers(before: list[int], after: list[int], changed: int) -> None:
    found = fooling_rate(torch.tensor(before), torch.tensor(after))
    assert found == proportion(changed, len(before))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (torch.zeros(3, dtype=torch.long), torch.zeros(2, dtype=torch.long)),
        (torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 2, dtype=torch.long)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.long)),  # logits, say
        (torch.zeros(3, dtype=torch.long), torch.zeros(3)),
    ],
)
def test_predictions_that_do_not_fit_are_refused(before: Tensor, after: Tensor) -> None:
    with pytest.raises(UsageError, match=r"predictions must be integers \[M\]"):
        fooling_rate(before, after)
