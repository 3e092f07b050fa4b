"""The generator that is trained on public images, and where searches start in its latent space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakbench.attacks.evolution import Evolution
from leakbench.attacks.generative_prior import GenerativePrior
from leakbench.attacks.label_only import LabelOnly
from leakbench.attacks.prior import GeneratorPrior, LatentParams, _follow, ranked_starts
from leakbench.attacks.search import margin_loss
from leakbench.contracts import Access, Attack, AttackContext, ImageClassifier, PublicImages, SharedBuild, Victim
from leakbench.data import Dataset
from leakbench.errors import NotApplicable, NumericalError


def context_of(images: Tensor, seed: int = 0) -> AttackContext:
    return AttackContext(torch.Generator().manual_seed(seed), public=PublicImages(images, "the tests'"))


def noise(*shape: int) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(4)) * 255).to(torch.uint8)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| of two samples (Szekely & Rizzo 2013): 0 for one distribution."""
    x, y = x.flatten(1), y.flatten(1)
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())


@pytest.mark.long
@pytest.mark.slow
def test_what_it_draws_is_like_the_public_images_and_more_so_after_more_steps(digits: Dataset) -> None:
    public = digits.train.images

    def distance(steps: int) -> float:
        context = context_of(public)
        prior = GeneratorPrior(LatentParams(gan_steps=steps), context)
        return energy_distance(prior.images(prior.codes(500, context)), public[:500].float() / 255)

    of_noise = energy_distance(noise(500, 1, 8, 8).float() / 255, public[:500].float() / 255)
    early, late = distance(20), distance(300)
    assert late < early / 2
    assert late < of_noise / 4


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 9, 13), (1, 3, 3), (3, 64, 64)])
def test_it_draws_images_of_any_size(shape: tuple[int, int, int]) -> None:
    context = context_of(noise(20, *shape))
    prior = GeneratorPrior(LatentParams(gan_steps=2, gan_batch=4, width=4), context)
    z = prior.codes(3, context).requires_grad_()
    images = prior(z)
    assert images.shape == (3, *shape)
    assert images.min() >= 0 and images.max() <= 1
    (gradient,) = torch.autograd.grad(images.sum(), z)
    assert (gradient.abs().sum(1) > 0).all()


@pytest.mark.slow
def test_an_image_does_not_hang_on_what_else_is_drawn() -> None:
    context = context_of(noise(50, 1, 8, 8))
    prior = GeneratorPrior(LatentParams(gan_steps=5), context)
    codes = prior.codes(1200, context)  # more than a batch
    torch.testing.assert_close(prior.images(codes)[[0, 700]], prior(codes[[0, 700]]), rtol=0, atol=1e-5)


def test_codes_stay_where_training_was() -> None:
    context = context_of(noise(50, 1, 8, 8))
    prior = GeneratorPrior(LatentParams(gan_steps=1, truncation=0.7), context)
    codes = prior.codes(500, context)
    # P(|z| > .7) = .484 of a normal's numbers are cut to the edge
    assert float((codes.abs() == 0.7).double().mean()) == pytest.approx(0.484, abs=0.01)
    assert prior.truncated(torch.tensor([-3.0, 0.2, 3.0])).tolist() == pytest.approx([-0.7, 0.2, 0.7])


@pytest.mark.slow
def test_the_seed_alone_decides_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    codes = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    first, again, other = (
        GeneratorPrior(LatentParams(gan_steps=5), context_of(noise(50, 1, 8, 8), seed)).images(codes)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_one_generator_serves_all_attacks_whatever_they_do_with_it(digits_ann: ImageClassifier) -> None:
    kept: dict[str, dict[str, Tensor]] = {}
    built = []

    def shared(name: str, version: int, params: Mapping[str, Any], build: SharedBuild) -> dict[str, Tensor]:
        key = repr((name, version, sorted(params.items())))
        if key not in kept:
            built.append(name)
            kept[key] = build(context_of(noise(50, 1, 8, 8), seed=9))
        return kept[key]

    prior = {"gan_steps": 2, "pool": 30}
    attacks: list[Attack[Any]] = [
        GenerativePrior(**prior, iterations=1),
        Evolution(**prior, iterations=1, truncation=1.0),
        LabelOnly(**prior, iterations=1),
    ]
    for attack in attacks:
        context = context_of(noise(50, 1, 8, 8))
        context.shared_store = shared
        attack(Victim(digits_ann, Access.WEIGHTS), torch.arange(10), context)
    assert built == ["generator"]
    (tensors,) = kept.values()
    # what is kept can be stored: contiguous tensors without gradients
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in tensors.values())


def test_training_that_runs_away_is_an_error() -> None:
    context = context_of(noise(50, 1, 8, 8))
    with pytest.raises(NumericalError, match="training a generator on public images: the loss is nan at step"):
        GeneratorPrior(LatentParams(gan_steps=20, gan_lr=1e30), context)


def test_without_public_images_there_is_none() -> None:
    with pytest.raises(NotApplicable, match="made of public images"):
        GeneratorPrior(LatentParams(), AttackContext(torch.Generator()))


def test_running_means_take_statistics_along() -> None:
    averaged, network = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        network.weight.fill_(3.0)
    network.running_var = torch.tensor([5.0, 9.0])
    for _ in range(3):
        _follow(averaged, network, 0.8)
    # what is left of the beginning after three steps: .8^3
    left = 0.8**3
    torch.testing.assert_close(averaged.weight, torch.full((2,), left + (1 - left) * 3))
    torch.testing.assert_close(averaged.running_var, torch.tensor([left + (1 - left) * 5, left + (1 - left) * 9]))


def test_starts_are_the_best_of_their_class_and_no_two_targets_share_one() -> None:
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([3, 0, 3, 3, 1])
    starts = ranked_starts(logits, "margin", targets, 2)
    assert starts.shape == (5, 2)
    for wanted, count in ((3, 3), (0, 1), (1, 1)):
        losses = margin_loss(logits, torch.full((40,), wanted)).tolist()
        best = sorted(range(40), key=losses.__getitem__)
        given = starts[targets == wanted]
        assert given[:, 0].tolist() == best[:count]
        assert given[:, 1].tolist() == best[count : 2 * count]


def test_a_pool_that_is_too_small_is_gone_through_again() -> None:
    starts = ranked_starts(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), "margin", torch.tensor([0, 0, 0]), 1)
    assert starts.tolist() == [[1], [0], [1]]
