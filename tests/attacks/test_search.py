"""The search that optimising attacks share: its losses by hand, its priors by effect, and what it says of dead ends."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from leakbench.attacks.inversion import Inversion
from leakbench.attacks.search import (
    Best,
    GradientWatch,
    SearchParams,
    answers_of,
    averaged_confidence,
    blurred,
    check_gradients,
    followed,
    margin_loss,
    poincare_loss,
    search,
    total_variation,
)
from leakbench.contracts import Access, AttackContext, ImageClassifier, ModuleNetwork, Victim
from leakbench.contracts.precision import Precision
from leakbench.errors import NoSignal
from leakbench.models.storage import build_ann
from leakbench.snn import SpikingNetwork, Surrogate

TEN = torch.arange(10)
PLAIN = {"lr": 0.05, "coarse": 0.0, "total_variation": 0.0, "jitter": 0, "flips": False, "restarts": 1}


def fresh(seed: int = 0, flips: bool = False) -> AttackContext:
    return AttackContext(torch.Generator().manual_seed(seed), flips=flips)


def found(network: ImageClassifier, seed: int = 0, **params: object) -> Tensor:
    given = SearchParams(**{**PLAIN, "iterations": 40, **params})
    return search(network, TEN, network.image_shape, fresh(seed), given, "searching")


def brightness_network(side: int = 2) -> ImageClassifier:
    """Class 0 wants bright images, class 1 dark ones."""
    linear = nn.Linear(side * side, 2, bias=False)
    nn.init.constant_(linear.weight[0], 1.0)
    nn.init.constant_(linear.weight[1], -1.0)
    body = nn.Sequential(nn.Flatten(), nn.ReLU(), linear)
    return ImageClassifier(body, (1, side, side), 2).eval().requires_grad_(False)


def test_the_margin_by_hand() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.5], [1.0, 4.0, 2.5], [-3.0, -3.0, -7.0]])
    assert margin_loss(logits, torch.tensor([1, 2, 0])).tolist() == [2.5 - 4.0, 4.0 - 2.5, 0.0]


def test_the_poincare_distance_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0], [-1.0, 4.0], [30.0, 10.0]])
    v = 1 - 1e-4

    def distance(u: tuple[float, float], corner: tuple[float, float]) -> float:
        apart = (u[0] - corner[0]) ** 2 + (u[1] - corner[1]) ** 2
        return math.acosh(1 + 2 * apart / ((1 - u[0] ** 2 - u[1] ** 2) * (1 - v**2)))

    expected = [distance((0.75, 0.25), (v, 0)), distance((-0.2, 0.8), (0, v)), distance((0.75, 0.25), (0, v))]
    assert poincare_loss(logits, torch.tensor([0, 1, 1])).tolist() == pytest.approx(expected, rel=1e-4)


def test_the_poincare_distance_is_finite_where_it_is_nearest() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    loss = poincare_loss(logits, torch.tensor([0, 0]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()


def test_total_variation_by_hand() -> None:
    x = torch.tensor([[[[0.0, 1.0], [3.0, 0.0]]]])
    # across: |1 - 0| + |0 - 3|; down: |3 - 0| + |0 - 1|
    assert total_variation(x).tolist() == [1 + 3 + 3 + 1]
    both = torch.cat([x, 2 * x])
    assert total_variation(both).tolist() == [8, 16]
    assert total_variation(x.expand(1, 3, 2, 2)).tolist() == [24]
    assert total_variation(torch.ones(2, 3, 5, 4)).tolist() == [0, 0]


@pytest.mark.slow
def test_total_variation_makes_images_smoother(digits_ann: ImageClassifier) -> None:
    rough = [float(total_variation(found(digits_ann, total_variation=weight)).mean()) for weight in (0.3, 0.02, 0.0)]
    assert rough[0] < rough[1] < rough[2]


@pytest.mark.slow
def test_l2_draws_images_towards_grey(digits_ann: ImageClassifier) -> None:
    far = [float((found(digits_ann, l2=weight) - 0.5).square().mean()) for weight in (1.0, 0.05, 0.0)]
    assert far[0] < far[1] < far[2]


def test_one_step_is_adams_on_the_loss_written_out(digits_ann: ImageClassifier) -> None:
    """Adam's first step is lr times the sign of the gradient: it must point down the loss, jitter included."""
    images = found(digits_ann, 4, iterations=1, total_variation=0.1, jitter=2)

    generator = torch.Generator().manual_seed(4)
    w = torch.randn(10, 1, 8, 8, generator=generator).requires_grad_()
    spread = digits_ann(torch.sigmoid(w)).std(1).mean().detach()
    dy, dx = (int(shift) for shift in torch.randint(-1, 2, (2,), generator=generator))  # 8x8 images: by one pixel
    x = torch.sigmoid(w)
    logits = digits_ann(x.roll((dy, dx), (2, 3))) / spread
    own = logits[range(10), TEN]
    others = torch.stack([logits[i, i != TEN].max() for i in range(10)])
    across, down = (x[..., 1:] - x[..., :-1]).abs(), (x[..., 1:, :] - x[..., :-1, :]).abs()
    loss = (others - own).sum() + 0.1 * (across.sum() + down.sum())
    (gradient,) = torch.autograd.grad(loss, w)
    stepped = torch.sigmoid(w - 0.05 * gradient.sign()).detach()
    clear = gradient.abs() > 1e-5  # where rounding can't turn the sign, and Adam's epsilon of 1e-8 is nothing
    assert clear.double().mean() > 0.9
    torch.testing.assert_close(images[clear], stepped[clear], rtol=0, atol=1e-4)


def test_scaled_logits_change_nothing(digits_ann: ImageClassifier) -> None:
    """A network that answers a thousand times more quietly is the same network, priors and all."""

    def quiet(images: Tensor) -> Tensor:
        return digits_ann(images) / 1024

    params = SearchParams(iterations=10, restarts=1)
    loud, hushed = (search(model, TEN, (1, 8, 8), fresh(), params, "") for model in (digits_ann, quiet))
    torch.testing.assert_close(loud, hushed, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_the_first_steps_are_at_half_the_resolution_on_images_that_bear_it() -> None:
    network = brightness_network(16)
    sizes: list[Tensor] = []

    def model(images: Tensor) -> Tensor:
        sizes.append(images.detach())
        return network(images)

    params = SearchParams(**{**PLAIN, "iterations": 4, "coarse": 0.5})
    search(model, torch.tensor([0, 1]), (1, 16, 16), fresh(), params, "")
    assert {tuple(x.shape) for x in sizes} == {(2, 1, 16, 16)}
    # enlarged from 8x8 by bilinear interpolation, neighbours are alike; a full image of noise varies
    full = search(network, torch.tensor([0, 1]), (1, 16, 16), fresh(), SearchParams(**{**PLAIN, "iterations": 4}), "")
    assert float(total_variation(sizes[0]).mean()) < 0.7 * float(total_variation(full).mean())

    small = brightness_network(8)
    same = [
        search(small, torch.tensor([0, 1]), (1, 8, 8), fresh(), SearchParams(**{**PLAIN, "coarse": share}), "")
        for share in (0.0, 0.5)
    ]
    assert torch.equal(*same)


def test_blur_fades_out() -> None:
    network = brightness_network(8)
    seen: list[float] = []

    def model(images: Tensor) -> Tensor:
        seen.append(float(total_variation(images.detach()).mean()))
        return network(images)

    params = SearchParams(**{**PLAIN, "iterations": 10, "blur": 2.0, "lr": 1e-4})
    search(model, torch.tensor([0, 1]), (1, 8, 8), fresh(), params, "")
    steps = seen[1:]  # the first call measures the spread of logits
    assert steps == sorted(steps)
    assert steps[0] < 0.5 * steps[-1]


def test_the_blur_is_gaussian_and_fits_small_images() -> None:
    x = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(blurred(x, 0.05), x)
    assert torch.equal(blurred(x, 1.0), gaussian_blur(x, [7, 7], [1.0, 1.0]))
    assert blurred(x[..., :3, :3], 20.0).shape == (2, 1, 3, 3)


def test_mirroring_needs_a_data_set_that_allows_it(digits_ann: ImageClassifier) -> None:
    straight = found(digits_ann, iterations=6)
    wanted = SearchParams(**{**PLAIN, "iterations": 6, "flips": True})
    forbidden, mirrored = (search(digits_ann, TEN, (1, 8, 8), fresh(flips=own), wanted, "") for own in (False, True))
    assert torch.equal(forbidden, straight)
    assert not torch.equal(mirrored, straight)


def test_batches_are_searched_one_after_the_other(digits_ann: ImageClassifier) -> None:
    context = fresh()
    params = SearchParams(**{**PLAIN, "iterations": 3})
    images = search(digits_ann, TEN, (1, 8, 8), context, params, "", size=4)
    assert images.shape == (10, 1, 8, 8)
    assert context.cost.gradient_steps == 3 * 3


def test_zero_gradients_are_named() -> None:
    def flat(images: Tensor) -> Tensor:
        return torch.eye(10)[:, :10] + 0 * images.sum((1, 2, 3))[:, None]

    with pytest.raises(NoSignal, match=r"^zero gradients: searching: "):
        search(flat, TEN, (1, 8, 8), fresh(), SearchParams(iterations=3), "searching")


def test_gradients_that_are_no_numbers_are_named(digits_ann: ImageClassifier) -> None:
    def broken(images: Tensor) -> Tensor:
        return digits_ann(images) * torch.nan

    with pytest.raises(NoSignal, match=r"^non-finite gradients: "):
        search(broken, TEN, (1, 8, 8), fresh(), SearchParams(iterations=3), "")


def hidden(network: ImageClassifier, times: float) -> Callable[[Tensor], Tensor]:
    """Answers as the network does: what a second branch adds is lost in rounding, and its gradients are not."""
    torch.manual_seed(3)
    junk = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10)).requires_grad_(False)

    def answer(images: Tensor) -> Tensor:
        small = junk(images) * 1e-6 + 1.5 * 2**23
        return network(images) + (small - 1.5 * 2**23) * 1e6 * times

    return answer


def test_gradients_that_are_not_those_of_the_answers_are_named(digits_ann: ImageClassifier) -> None:
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    phantom = hidden(digits_ann, 100.0)
    assert torch.equal(phantom(images), digits_ann(images))
    with pytest.raises(NoSignal, match=r"^misleading gradients: from noise, "):
        check_gradients(phantom, images, "noise")
    for network in (digits_ann, hidden(digits_ann, 0.0), lambda x: 1e-3 * digits_ann(x), lambda x: 0 * digits_ann(x)):
        check_gradients(network, images, "noise")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_networks_of_relus_are_followed(digits_ann: ImageClassifier, precision: Precision) -> None:
    """Untrained, too, and at a precision at which small steps are lost in rounding."""
    untrained = build_ann(
        "vgg5bn", digits_ann.image_shape, 10, digits_ann.input_range, torch.Generator().manual_seed(1)
    )
    for network in (copy.deepcopy(digits_ann), untrained.eval().requires_grad_(False)):
        network.precision = precision
        assert followed(Victim(network, Access.WEIGHTS), fresh()) is network


class Asked(nn.Module):
    """A network as a module with a gradient of any length, and with noise that follows from the seed of a call."""

    def __init__(self, network: ImageClassifier, times: float, noise: float) -> None:
        super().__init__()
        self.network, self.times, self.noise = network, times, noise

    def forward(self, images: Tensor, seed: int) -> Tensor:
        if images.requires_grad:
            images = images.view_as(images)
            images.register_hook(lambda gradient: gradient * self.times)
        logits: Tensor = self.network(images)
        drawn = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
        return logits + self.noise * drawn


@pytest.mark.parametrize("times", [1e-6, 1.0, 1e6])
def test_gradients_of_a_module_are_as_long_as_what_its_answers_change_by(
    digits_ann: ImageClassifier, times: float
) -> None:
    module = ModuleNetwork(Asked(digits_ann, times, 0.1), (1, 8, 8), 10)
    model = followed(Victim(module, Access.WEIGHTS), fresh())
    assert isinstance(model, ModuleNetwork) and model.noise is module.noise
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    assert torch.equal(model(images, seed=3), module(images, seed=3))
    lengths = []
    for one in (model, digits_ann):
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(one(x)[:, 0].sum(), x)
        lengths.append(gradient.norm())
    assert 0.6 < lengths[0] / lengths[1] < 1.2  # steps that can be seen are no longer small ones


def test_a_module_that_no_step_moves_keeps_its_gradients() -> None:
    class Flat(nn.Module):
        def forward(self, images: Tensor, seed: int) -> Tensor:  # noqa: ARG002
            said = images.flatten(1)[:, :2]
            return said - said.detach()

    model = followed(Victim(ModuleNetwork(Flat(), (1, 8, 8), 2), Access.WEIGHTS), fresh())
    x = torch.rand(3, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    assert gradient.sum() == 3


@pytest.mark.slow
def test_a_narrow_surrogate_does_not_protect_a_module(digits_snn: SpikingNetwork) -> None:
    """snnTorch's default, a fast sigmoid of slope 25: its short gradients lost to the priors, and images were flat."""
    neuron = dataclasses.replace(digits_snn.config.neuron, surrogate=Surrogate("fast_sigmoid", 0.04))
    narrow = digits_snn.configured(dataclasses.replace(digits_snn.config, neuron=neuron))

    class Spiking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = narrow

        def forward(self, images: Tensor, seed: int) -> Tensor:
            logits: Tensor = self.network(images, seed=seed)
            return logits

    module = ModuleNetwork(Spiking(), (1, 8, 8), 10)
    made = Inversion(iterations=150, restarts=1)(Victim(module, Access.WEIGHTS), TEN, fresh())
    assert digits_snn(made.images, seed=1).softmax(1).gather(1, TEN[:, None]).mean() > 0.6


def test_one_gradient_on_the_way_is_enough() -> None:
    watch = GradientWatch()
    watch.see(torch.zeros(3))
    with pytest.raises(NoSignal, match="zero gradients"):
        watch.check("here")
    watch.see(torch.tensor([0.0, 1e-30]))
    watch.see(torch.zeros(3))
    watch.check("here")


# --- the victim's confidence ---------------------------------------------------------------------------------------


def test_the_best_image_is_chosen_one_by_one_and_its_name_is_counted() -> None:
    network = brightness_network()
    targets = torch.tensor([0, 0, 1, 1])
    context = fresh()
    best = Best(Victim(network, Access.SCORES, context.cost), targets, context, draws=1)
    for name, bright in (("a", [0.1, 0.9, 0.5, 0.3]), ("b", [0.8, 0.2, 0.6, 0.2]), ("c", [0.4, 0.5, 0.1, 0.9])):
        reached = best.offer(torch.tensor(bright).view(4, 1, 1, 1).expand(4, 1, 2, 2), name)
        own = torch.tensor([8 * b for b in bright]) * torch.tensor([1, 1, -1, -1])
        torch.testing.assert_close(reached, torch.sigmoid(own))
    assert best.images[:, 0, 0, 0].tolist() == pytest.approx([0.8, 0.9, 0.1, 0.2])
    assert context.cost.queries == 3 * 4
    best.report()
    assert context.findings == {"images won by a": 1, "images won by b": 2, "images won by c": 1}


def test_images_may_be_offered_for_some_targets_only() -> None:
    context = fresh()
    best = Best(Victim(brightness_network(), Access.SCORES, context.cost), torch.tensor([0, 1, 0]), context, draws=1)
    best.offer(torch.full((3, 1, 2, 2), 0.5), "first")
    best.offer(torch.full((2, 1, 2, 2), 0.9), "second", torch.tensor([1, 2]))
    assert best.images[:, 0, 0, 0].tolist() == pytest.approx([0.5, 0.5, 0.9])


def test_confidence_is_averaged_over_draws_and_shifts(digits_snn: SpikingNetwork) -> None:
    context = fresh()
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    victim = Victim(digits_snn, Access.SCORES, context.cost)
    digits_snn.reseed(7)
    reached = averaged_confidence(victim, images, torch.tensor([1, 2, 3]), context, draws=5)
    assert context.cost.queries == 5 * 3
    digits_snn.reseed(7)
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(3)
    for draw in range(5):
        shift = torch.randint(-1, 2, (2,), generator=generator).tolist() if draw else [0, 0]
        answers = digits_snn(images.roll(shift, (2, 3))).softmax(1)
        total += answers[range(3), [1, 2, 3]] / 5
    torch.testing.assert_close(reached, total)


def test_an_answer_that_is_no_number_is_named() -> None:
    network = brightness_network()
    network.body[2].weight[0, 0] = torch.inf  # type: ignore[index,union-attr]
    victim = Victim(network, Access.SCORES)
    images = torch.zeros(2, 1, 2, 2)
    images[0] = 1
    with pytest.raises(NoSignal, match=r"^non-finite logits: "):
        answers_of(victim, images)


def two_colours() -> ImageClassifier:
    """Class 0 wants red, class 1 blue."""
    weights = torch.zeros(2, 3, 8, 8)
    weights[0, 0], weights[1, 2] = 1.0, 1.0
    linear = nn.Linear(3 * 8 * 8, 2, bias=False)
    linear.weight.data = weights.flatten(1)
    return ImageClassifier(nn.Sequential(nn.Flatten(), linear), (3, 8, 8), 2).eval().requires_grad_(False)


def found_in_colour(brightness: float | None = None, **params: object) -> Tensor:
    given = SearchParams(**{**PLAIN, "iterations": 40, **params})
    network = two_colours()
    return search(network, TEN[:2], network.image_shape, fresh(), given, "", brightness=brightness)


def test_one_step_on_rgb_is_adams_along_axes_of_colour() -> None:
    network, chroma = two_colours(), 0.25

    def image(z: Tensor) -> Tensor:
        bright, yellow, red = z.unbind(1)
        bright, yellow, red = bright / 3**0.5, chroma * yellow / 6**0.5, chroma * red / 2**0.5
        return torch.sigmoid(torch.stack([bright + yellow + red, bright + yellow - red, bright - 2 * yellow], 1))

    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    x = image(z)
    logits = network(x)
    own, other = logits[[0, 1], [0, 1]], logits[[0, 1], [1, 0]]
    # total variation weighs twice
    loss = (other - own).sum() / logits.std(1).mean().detach() + 2 * 0.1 * total_variation(x).sum()
    (gradient,) = torch.autograd.grad(loss, z)
    stepped = image(z - 0.05 * gradient.sign()).detach()
    images = found_in_colour(iterations=1, chroma=chroma, total_variation=0.1)
    torch.testing.assert_close(images, stepped, rtol=0, atol=1e-4)


def test_colours_move_less_than_brightness() -> None:
    images = [found_in_colour(chroma=length) for length in (0.1, 0.25, 1.0)]
    saturation = [float((x.amax(1) - x.amin(1)).mean()) for x in images]
    assert saturation[0] < saturation[1] < saturation[2]


@pytest.mark.parametrize("brightness", [0.05, 0.95])
def test_flat_images_to_start_from_are_grey_in_rgb_too(brightness: float) -> None:
    start = found_in_colour(brightness, iterations=1, lr=1e-9)
    assert float(start.mean()) == pytest.approx(brightness, abs=0.02)
    assert torch.allclose(start.mean((0, 2, 3)), start.mean(), atol=0.02)


def test_images_of_one_channel_have_no_colours(digits_ann: ImageClassifier) -> None:
    assert torch.equal(found(digits_ann, iterations=3, chroma=0.1), found(digits_ann, iterations=3, chroma=1.0))
