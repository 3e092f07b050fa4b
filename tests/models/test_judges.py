"""Judges: shapes, answers by hand, views that leave a batch's images apart, and what they learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, shift
from torch import Tensor, nn

from leakbench.contracts import Precision
from leakbench.data import Dataset
from leakbench.models.judges import (
    JUDGES,
    VIEWS,
    BnConv,
    Ensemble,
    Exposure,
    Judge,
    Mixer,
    Residual,
    corrupted,
    exposed_loss,
    judges_of,
    operating_point,
    train_judge,
    whitening,
)
from leakbench.models.outliers import spectral_noise
from leakbench.models.training import UNCHANGED, Augmentation, Recipe, predict

CPU = torch.device("cpu")
FEATURES: dict[type[Judge], int] = {BnConv: 96, Mixer: 64, Residual: 256}
every = pytest.mark.parametrize("kind", JUDGES, ids=[kind.name for kind in JUDGES])


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return Ensemble([untrained(kind) for kind in judges_of((3, 20, 20))])


def untrained(kind: type[Judge]) -> Judge:
    """With running statistics and scales that are not the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind((3, 20, 20), 6).train()
        for _ in range(3):
            network(torch.rand(16, 3, 20, 20))
    return network.eval().requires_grad_(False)


def images(batch: int = 9) -> Tensor:
    return torch.rand(batch, 3, 20, 20, generator=torch.Generator().manual_seed(1))


def test_the_table_is_complete() -> None:
    assert tuple(FEATURES) == JUDGES
    assert len({kind.name for kind in JUDGES}) == len({kind.summary for kind in JUDGES}) == len(JUDGES) >= 2


@every
def test_shapes(kind: type[Judge]) -> None:
    judge = untrained(kind)
    assert judge(images()).shape == (9, 6)
    features = judge.features(images())
    assert features.shape == (9, FEATURES[kind])
    # the last layer but one: the head is all that follows
    torch.testing.assert_close(judge.head(features), judge(images()))
    # sides that no patch or stride divides among them
    for shape in ((1, 8, 8), (1, 28, 28), (3, 9, 13), (1, 30, 17)):
        assert kind(shape, 4).eval().features(torch.rand(2, *shape)).shape == (2, FEATURES[kind])
    for shape in ((3, 32, 32), (3, 64, 64), (3, 24, 37)):
        features = kind(shape, 4).eval().features(torch.rand(2, *shape))
        assert features.shape == (2, 128 if kind is BnConv else FEATURES[kind])


def test_judges_differ_from_the_victims_and_from_each_other() -> None:
    bnconv, mixer, residual = (list(untrained(kind).modules()) for kind in JUDGES)
    for modules in (bnconv, mixer, residual):
        assert any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in modules)
        assert not any(isinstance(module, nn.ReLU | nn.AvgPool2d) for module in modules)
    # no convolution of the mixer looks across a patch's edge
    patches = [module for module in mixer if isinstance(module, nn.Conv2d)]
    assert [module.kernel_size for module in patches] == [module.stride for module in patches] == [(2, 2)]
    assert not any(isinstance(module, nn.GELU) for module in bnconv)


def test_pictures_have_larger_judges_and_see_more() -> None:
    assert judges_of((3, 32, 32)) == judges_of((3, 64, 48)) == (BnConv, Residual)
    assert judges_of((1, 92, 112)) == judges_of((3, 20, 20)) == (BnConv, Mixer)
    small, large = (sum(p.numel() for p in BnConv(shape, 10).parameters()) for shape in ((3, 20, 20), (3, 32, 32)))
    assert large > 2 * small
    for kind in judges_of((3, 32, 32)):
        many, few = (kind.recipe(images, (3, 32, 32), flips=True) for images in (50_000, 280))
        assert (many.steps, many.batch_size) == (16 * 391, 128)
        assert (few.steps, few.batch_size) == (900, 32)
        assert kind.recipe(10_000, (3, 32, 32), flips=True).steps == 16 * 79


@pytest.mark.parametrize("kind", judges_of((3, 32, 32)))
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 27, 50), (3, 64, 64), (3, 96, 130), (3, 24, 300)])
def test_all_of_a_picture_counts(kind: type[Judge], shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    pictures = torch.rand(20, *shape, requires_grad=True)
    kind(shape, 4).eval()(pictures).sum().backward()
    assert pictures.grad is not None
    assert bool((pictures.grad.abs().sum((0, 1)) > 0).all())  # where maxima hide a pixel of one, others show it


def test_whitened_patches_vary_alike_and_apart() -> None:
    images = torch.rand(50, 3, 32, 32).cumsum(3) / 16 - 1  # neighbours are alike
    found = nn.functional.conv2d(images, whitening(images, 2), stride=2).transpose(0, 1).flatten(1)
    covariance = torch.cov(found)
    off = covariance - torch.diag(covariance.diag())
    assert float(off.abs().max()) < 0.02 and float(covariance.diag().max()) < 1.01
    assert float(covariance.diag()[-1]) == pytest.approx(1, abs=0.01)  # directions of little variance are left small


def test_directions_without_variance_are_left_out() -> None:
    """Grey images in three channels have none between these: only noise would be read there, 45 times as much."""
    grey = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    directions = whitening(grey.expand(-1, 3, -1, -1).contiguous(), 2)
    read = directions.flatten(1).norm(dim=1) > 0
    assert read.tolist() == [False] * 8 + [True] * 4
    assert float(directions[read].sum(1).abs().amax((1, 2)).min()) > 0


@pytest.mark.long
def test_grey_pictures_in_three_channels_are_learnt(digits: Dataset) -> None:
    """With directions in which nothing varies as large as the others, `bnconv` is right on .10 of these."""
    train, test = (_enlarged(split.images) for split in (digits.train, digits.test))
    noise = (spectral_noise(600, (3, 32, 32), torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    recipe = BnConv.recipe(len(train), (3, 32, 32), flips=False)
    generator = torch.Generator().manual_seed(0)
    judge = train_judge(BnConv, train, digits.train.labels, 10, noise, recipe, generator, CPU).eval()
    with torch.no_grad():
        right = predict(judge, test, CPU).argmax(1) == digits.test.labels
    assert float(right.double().mean()) > 0.9


def _enlarged(images: Tensor) -> Tensor:
    """Grey images [N, 1, 8, 8] as pictures [N, 3, 32, 32]."""
    larger = nn.functional.interpolate(images.float(), (32, 32), mode="bilinear")
    return larger.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def test_the_first_convolution_of_pictures_is_found_and_not_trained() -> None:
    images = torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(300) % 4
    recipe = Recipe(3, 32, lr=0.1, schedule="one-cycle")
    judge = train_judge(BnConv, images, labels, 4, images[:20], recipe, torch.Generator().manual_seed(0), CPU)
    first = next(module for module in judge.modules() if isinstance(module, nn.Conv2d)).weight
    directions = whitening(images.float() / 127.5 - 1, 2)
    torch.testing.assert_close(first, torch.cat([directions, -directions]))


def test_recipes_differ_and_grow_with_the_images() -> None:
    strong, light = (kind.recipe(1000, (1, 28, 28), flips=True) for kind in judges_of((1, 28, 28)))
    assert strong.augmentation == Augmentation(crop=2, flip=True, noise=0.4, blur=1.0)
    assert light.augmentation == Augmentation(crop=1, flip=True)
    for kind in JUDGES:
        few, small, large = (kind.recipe(images, (1, 8, 8), flips=False) for images in (280, 1000, 50_000))
        assert (few.steps, small.steps, large.steps) == (900, 1000, 3910)  # 100 passes, 1000 steps, or five passes
        assert few.batch_size == small.batch_size < large.batch_size
        assert small.augmentation.crop == 1 and not small.augmentation.flip  # of eight pixels, one at least


# --- the ensemble ------------------------------------------------------------------------------------------------


def test_the_views_are_the_image_and_its_shifts_and_blurs(ensemble: Ensemble) -> None:
    """Against SciPy's, which repeat the edges and cut the kernel off at three standard deviations, too."""
    side = 20
    # twice the reach from the edges, where both handle the border in their own order
    x, inner = images(1).double(), slice(4, -4)
    views = ensemble._views
    assert len(views) == VIEWS
    assert torch.equal(views[0](x), x)
    for view in views[1:]:
        assert max(abs(view.down), abs(view.right)) <= side // 14
        assert 0 < view.sigma < side / 28
        moved = shift(x[0].numpy(), (0, view.down, view.right), order=0, mode="nearest")
        radius = max(1, round(3 * view.sigma))
        blurred = gaussian_filter(moved, (0, view.sigma, view.sigma), mode="mirror", radius=(0, radius, radius))
        np.testing.assert_allclose(view(x)[0].numpy()[:, inner, inner], blurred[:, inner, inner], atol=1e-6)
    assert len({(view.down, view.right, view.sigma) for view in views}) == VIEWS


@pytest.mark.parametrize("side", [5, 8, 20, 33])
def test_a_view_keeps_size_and_range_and_what_has_one_color(side: int) -> None:
    for view in Ensemble([BnConv((1, side, side), 2)])._views:
        x = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
        assert view(x).shape == x.shape
        assert view(x).min() >= 0 and view(x).max() <= 1
        # float32 weights of a blur sum to 1 within rounding; nothing is shifted in from outside
        torch.testing.assert_close(view(torch.full_like(x, 0.7)), torch.full_like(x, 0.7))


@pytest.mark.slow
def test_probabilities_are_the_mean_over_judges_and_views(ensemble: Ensemble) -> None:
    x = images()
    answers = ensemble.answers(x)
    found = answers[:, :-1]
    torch.testing.assert_close(found.sum(1), torch.ones(9))
    each = [judge(view(x)).softmax(1) for judge in ensemble.judges for view in ensemble._views]
    torch.testing.assert_close(found, torch.stack(each).mean(0))
    logits = torch.stack([judge(view(x)) for judge in ensemble.judges for view in ensemble._views])
    torch.testing.assert_close(answers[:, -1], logits.exp().sum(2).log().mean(0))
    # every judge has one voice
    alone = [ensemble.alone(judge).answers(x)[:, :-1] for judge in ensemble.judges]
    torch.testing.assert_close(found, torch.stack(alone).mean(0))
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)


@pytest.mark.slow
def test_answers_do_not_depend_on_the_rest_of_the_batch(ensemble: Ensemble) -> None:
    x = images()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    asked: list[Callable[[Tensor], Tensor]] = [
        ensemble.answers,
        *ensemble.judges,
        *(judge.features for judge in ensemble.judges),
    ]
    for ask in asked:
        whole = ask(x)
        # float32: only the order of the sums inside a convolution may differ with the batch size
        torch.testing.assert_close(torch.cat([ask(x[i : i + 1]) for i in range(9)]), whole, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ask(x[order]), whole[order], rtol=1e-4, atol=1e-5)


def test_views_are_the_same_whenever_and_for_whatever_judges() -> None:
    x, state = images(), torch.get_rng_state()
    first, again = Ensemble([untrained(BnConv)]), Ensemble([untrained(Mixer), untrained(BnConv)])
    assert all(torch.equal(a(x), b(x)) for a, b in zip(first._views, again._views, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


# --- corrupted images --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_corrupted_images_are_blurred_and_noisy(generator: torch.Generator) -> None:
    grey = torch.full((200, 1, 28, 28), 128, dtype=torch.uint8)
    noise = corrupted(grey, generator) - 128 / 255
    count = noise.numel()
    # five standard errors of mean and deviation; .5 is 2.5 deviations from both ends, so that clamping takes 1 %
    assert noise.mean().abs() < 5 * 0.2 / count**0.5 + 0.001
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    point = torch.zeros(4000, 1, 28, 28, dtype=torch.uint8)
    point[..., 14, 14] = 255
    bright = corrupted(point, generator).mean((0, 1))
    # clamping lifts black to .2 / sqrt(2 pi); above it stands the blur of one pixel by one pixel, 1 / (2 pi) high
    assert bright[0, 0].item() == pytest.approx(0.2 / (2 * torch.pi) ** 0.5, rel=0.1)
    assert bright[14, 14] > bright[14, 15] > bright[14, 16] > bright[0, 0]
    assert bright[14, 15].item() == pytest.approx(bright[13, 14].item(), abs=0.02)
    assert corrupted(point[:9], generator).min() >= 0
    assert corrupted(255 - point[:9], generator).max() <= 1


def test_corruption_is_the_generator_s() -> None:
    x = (images(3) * 255).to(torch.uint8)
    state = torch.get_rng_state()
    first, again, other = (corrupted(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_operating_point_accepts_95_percent() -> None:
    evidence = torch.randperm(1000, generator=torch.Generator().manual_seed(0)).float()
    assert (evidence >= operating_point(evidence)).float().mean().item() == pytest.approx(0.95, abs=0.001)


# --- training ----------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("kind", judges_of((1, 8, 8)))
def test_half_of_its_recipe_teaches_a_judge_the_digits_blurred_and_noisy_too(
    kind: type[Judge], digits: Dataset, generator: torch.Generator
) -> None:
    train, test = digits.train, digits.test
    recipe = kind.recipe(len(train), (1, 8, 8), digits.flips)
    recipe = replace(recipe, steps=recipe.steps // 2)
    noise = (spectral_noise(400, digits.image_shape, generator) * 255).to(torch.uint8)
    judge = train_judge(kind, train.images, train.labels, 10, noise[:200], recipe, generator, CPU)
    assert not judge.training
    evidence = []
    for shown, wanted in ((test.images, 0.9), (corrupted(test.images, generator), 0.75)):
        answers = predict(Ensemble([judge]).answers, shown, CPU)
        assert (answers[:, :-1].argmax(1) == test.labels).double().mean() > wanted
        evidence.append(answers[:, -1])
    # it accepts what it knows, noisy as it may be, and little of what shows nothing
    least = operating_point(evidence[1])
    assert (evidence[0] >= least).double().mean() > 0.95
    assert (predict(Ensemble([judge]).answers, noise[200:], CPU)[:, -1] >= least).double().mean() < 0.25


def test_the_loss_is_that_of_veiled_and_clean_images_and_of_unsure_outliers() -> None:
    """With one outlier, all of one grey, that weighs nothing in a mixture: what remains can be written down."""
    exposure = Exposure(veiled=0.5, least=1.0, contrast=(1.0, 1.0), brightness=0.0, outliers=0.5, weight=0.25)
    grey = torch.full((1, 1, 2, 2), 51, dtype=torch.uint8)
    loss = exposed_loss(grey, exposure, torch.Generator().manual_seed(0))
    x, labels = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0])
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    seen, none = network(x), network(grey.float() / 255)
    wanted = nn.functional.cross_entropy(seen, labels) - 0.25 * none.log_softmax(1).mean()
    torch.testing.assert_close(loss(network, x, labels), wanted)
    # where the outlier has weight, the first half of the batch is another one
    veiled = exposed_loss(grey, Exposure(least=0.0), torch.Generator().manual_seed(0))
    assert not torch.isclose(veiled(network, x, labels), wanted)


@pytest.mark.long
@pytest.mark.slow
@every
def test_the_same_seed_gives_the_same_judge(kind: type[Judge], digits: Dataset) -> None:
    changes = Augmentation(crop=1, noise=0.1, blur=0.3)
    recipe = Recipe(steps=5, batch_size=64, lr=0.05, schedule="one-cycle", augmentation=changes)
    images, labels = digits.train.images[:300], digits.train.labels[:300]

    def trained(seed: int) -> dict[str, Tensor]:
        return train_judge(
            kind, images, labels, 10, images[:9], recipe, torch.Generator().manual_seed(seed), CPU
        ).state_dict()  # fmt: skip

    state = torch.get_rng_state()
    first, again, other = trained(1), trained(1), trained(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.slow
def test_a_training_in_bfloat16_rounds_and_answers_stay_exact() -> None:
    images = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(steps=2, batch_size=20, augmentation=UNCHANGED)

    def trained(precision: Precision) -> Judge:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(40) % 4
        return train_judge(
            BnConv, images, labels, 4, images[:9], recipe, generator, CPU, precision=precision
        )  # fmt: skip

    exact, rounded = trained("float32"), trained("bfloat16")
    assert not torch.equal(exact.head.weight, rounded.head.weight)
    assert torch.allclose(exact.head.weight, rounded.head.weight, atol=0.02)
    answers = rounded(images.float() / 255)
    assert answers.dtype == torch.float32 and not torch.equal(answers, answers.bfloat16().float())


def test_progress_names_the_judge() -> None:
    said: list[tuple[str, int, int]] = []
    data = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4)
    recipe = Recipe(steps=2, batch_size=2)
    train_judge(Mixer, *data, 4, data[0], recipe, torch.Generator(), CPU, lambda *args: said.append(args))
    assert said == [("training the judge mixer", 1, 2), ("training the judge mixer", 2, 2)]
