"""The synthetic set: class similarities, Dirichlet labels and images against what can be written down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from leakbench.contracts import DefenseContext, ImageClassifier, InputRange, SharedBuild
from leakbench.defenses.synthesis import (
    Divergence,
    StatisticsParams,
    SynthesisParams,
    class_similarity,
    statistics_set,
    synthetic_set,
    total_variation,
    two_betas_set,
)
from leakbench.errors import NotApplicable, UsageError
from leakbench.models.storage import build_ann


def linear_ann(classes: int = 5) -> ImageClassifier:
    body = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, classes))
    generator = torch.Generator().manual_seed(3)
    for parameter in body.parameters():
        nn.init.normal_(parameter, generator=generator)
    return ImageClassifier(body, (3, 2, 2), classes, (-1.0, 1.0)).eval().requires_grad_(False)


def context(seed: int = 0) -> DefenseContext:
    return DefenseContext(torch.Generator().manual_seed(seed))


def test_class_similarity_is_the_cosine_between_0_and_1() -> None:
    ann = linear_ann()
    found = class_similarity(ann)
    rows = ann.body[3].weight.tolist()  # type: ignore[index]

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    for i, row in enumerate(rows):
        cosines = [cosine(row, other) for other in rows]
        low, high = min(cosines), max(cosines)
        assert found[i].tolist() == pytest.approx([(c - low) / (high - low) for c in cosines], abs=1e-9)
    assert found.diagonal().tolist() == pytest.approx([1.0] * 5, abs=1e-12)
    assert found.amin(1).tolist() == [0.0] * 5


def test_the_similarity_does_not_depend_on_the_lengths_of_the_rows() -> None:
    ann, scaled = linear_ann(), linear_ann()
    scaled.body[3].weight *= torch.tensor([1.0, 2.0, 0.1, 5.0, 3.0])[:, None]  # type: ignore[index]
    torch.testing.assert_close(class_similarity(scaled), class_similarity(ann), rtol=1e-5, atol=1e-6)


def test_a_network_without_a_last_linear_layer_is_refused() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten())
    with pytest.raises(NotApplicable, match="last linear layer"):
        class_similarity(ImageClassifier(body, (3, 2, 2), 5))


def test_labels_are_dirichlet_draws_of_the_similarities() -> None:
    ann = linear_ann()
    params = SynthesisParams(samples=10_000, beta=3.0, synthesis_steps=1)
    made = synthetic_set(ann, params, context())
    soft, intended = made["soft_labels"].double(), made["intended"]
    assert intended.bincount().tolist() == [2000] * 5
    torch.testing.assert_close(soft.sum(1), torch.ones(10_000).double(), rtol=0, atol=1e-5)
    assert soft.min() >= 0
    alpha = 3.0 * class_similarity(ann) + 1e-4
    for c in range(5):
        total = alpha[c].sum()
        mean = alpha[c] / total
        variance = mean * (1 - mean) / (total + 1)
        draws = soft[intended == c]
        assert ((draws.mean(0) - mean).abs() <= 5 * (variance / 2000).sqrt() + 1e-4).all()
        # the variance tells beta: 2000 draws of a bounded variable, some 10 %
        assert draws.var(0).sum().item() == pytest.approx(variance.sum().item(), rel=0.1)


@pytest.mark.slow
def test_images_are_bytes_of_the_networks_shape_and_their_loss_falls(digits_ann: ImageClassifier) -> None:
    def loss(steps: int, lr: float) -> float:
        params = SynthesisParams(samples=40, synthesis_steps=steps, synthesis_lr=lr)
        made = synthetic_set(digits_ann, params, context())
        images, soft = made["images"], made["soft_labels"]
        assert images.dtype == torch.uint8
        assert images.shape == (40, 1, 8, 8)
        logits = digits_ann(images.float() / 255)
        # soft cross-entropy minus the labels' own entropy, i.e. the divergence that is left: 0 is the best
        return float((soft * (soft.clamp(min=1e-30).log() - logits.log_softmax(1))).sum(1).mean())

    start, end = loss(1, 1e-9), loss(60, 0.05)
    assert end < start / 5
    # the authors' small steps go the same way: 60 steps of .001 move a pixel by .06 at most
    assert loss(60, 1e-3) < start


def seen_while_synthesising(ann: ImageClassifier, **params: Any) -> tuple[Tensor, Tensor]:
    """What entered the body at each step, [steps, N, C, H, W] in the input range, and the images that were kept."""
    seen: list[Tensor] = []
    handle = ann.body.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach().clone()))
    images = synthetic_set(ann, SynthesisParams(samples=10, **params), context())["images"]
    handle.remove()
    return torch.stack(seen), images


def test_images_are_clamped_at_each_step_and_steps_are_those_of_images() -> None:
    inputs, _ = seen_while_synthesising(linear_ann(), synthesis_steps=30, synthesis_lr=0.05)
    assert inputs.abs().max() == 1  # of [-1, 1]
    # Adam's first step is its rate; in [-1, 1] it is twice as long
    assert (inputs[1] - inputs[0]).abs().max().item() == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 1.0)])
def test_in_the_input_range_steps_are_its_own_and_only_what_is_kept_is_cut(bounds: tuple[float, float]) -> None:
    ann = linear_ann()
    ann.input_range = InputRange(*bounds)
    inputs, images = seen_while_synthesising(ann, synthesis_steps=60, synthesis_lr=0.02, synthesis_range="authors")
    assert (inputs[1] - inputs[0]).abs().max().item() == pytest.approx(0.02, rel=1e-3)
    low, high = bounds
    assert inputs.min() < low - 0.1
    assert inputs.max() > high + 0.1
    # the last step is not seen any more: along gradients that grow Adam's is up to .1 / sqrt(.001) times its rate
    last = ((inputs[-1] - low) / (high - low)).clamp(0, 1) * 255
    assert (images - last).abs().max() <= 0.064 * 255 / (high - low)
    # outside of [0, 1], bytes are those of its ends and not the ones that a cast would wrap to
    assert set(images[last == 0].tolist()) <= set(range(17))
    assert set(images[last == 255].tolist()) <= set(range(239, 256))


def test_the_network_gets_no_gradients_and_the_seed_decides() -> None:
    ann = linear_ann()
    params = SynthesisParams(samples=15, synthesis_steps=4)
    state = torch.get_rng_state()
    first, again, other = (synthetic_set(ann, params, context(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in ann.parameters())
    for key in ("images", "soft_labels"):
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])


def test_steps_are_shown_as_they_are_done() -> None:
    seen: list[tuple[int, int]] = []
    shown = DefenseContext(torch.Generator(), progress=lambda _what, done, total: seen.append((done, total)))
    synthetic_set(linear_ann(), SynthesisParams(samples=1000, synthesis_steps=2), shown)
    # two batches of 500 images and two steps each
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_fewer_samples_than_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="samples must be at least the number of classes, 5, got 4"):
        synthetic_set(linear_ann(), SynthesisParams(samples=4), context())


@pytest.mark.parametrize("samples", [10, 11, 13, 14])
@pytest.mark.parametrize("maker", [synthetic_set, two_betas_set, statistics_set])
def test_there_are_as_many_images_as_asked_for_spread_over_the_classes(maker: Any, samples: int) -> None:
    if maker is statistics_set:
        ann, params = normed_ann("vgg4bn"), StatisticsParams(samples=samples, synthesis_steps=1)
    else:
        ann, params = linear_ann(), SynthesisParams(samples=samples, synthesis_steps=1)  # type: ignore[assignment]
    made = maker(ann, params, context())
    assert {len(tensor) for tensor in made.values()} == {samples}
    counts = made["intended"].bincount(minlength=ann.classes)
    assert counts.max() - counts.min() <= 1
    halves = made["intended"].tensor_split(2 if maker is two_betas_set else 1)
    assert all(half.equal(half.sort().values) and len(half.unique()) == ann.classes for half in halves)


def test_the_set_is_asked_for_by_its_own_parameters_alone() -> None:
    asked: list[tuple[str, int, Mapping[str, Any]]] = []

    def store(name: str, version: int, params: Mapping[str, Any], build: SharedBuild) -> dict[str, Tensor]:
        asked.append((name, version, params))
        return build(context(99))

    def made(seed: int) -> dict[str, Tensor]:
        ours = DefenseContext(torch.Generator().manual_seed(seed), shared_store=store)
        return synthetic_set(linear_ann(), SynthesisParams(samples=10, synthesis_steps=2), ours)

    first, second = made(1), made(2)
    # whoever asks, the set is built under the shared artifact's seed
    assert torch.equal(first["images"], second["images"])
    expected = {
        "samples": 10, "beta": 10.0, "synthesis_steps": 2, "synthesis_lr": 0.05, "synthesis_range": "images",
        "synthesis_temperature": 1.0,
    }  # fmt: skip
    assert [(name, params) for name, _, params in asked] == [("synthetic", expected)] * 2


def normed_ann(arch: str = "resnet8", seed: int = 5) -> ImageClassifier:
    """An untrained network whose batch norms hold statistics of their own, as after training."""
    generator = torch.Generator().manual_seed(seed)
    ann = build_ann(arch, (1, 8, 8), 10, (0.0, 1.0), generator)  # type: ignore[arg-type]
    for module in ann.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -1.0, 1.0), (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5), (module.bias.data, -0.5, 0.5),
            ):  # fmt: skip
                assert tensor is not None
                tensor.uniform_(low, high, generator=generator)
    return ann.eval().requires_grad_(False)


def test_half_of_the_labels_are_drawn_with_a_tenth_of_beta() -> None:
    ann = linear_ann()
    made = two_betas_set(ann, SynthesisParams(samples=10_000, beta=2.0, synthesis_steps=1), context())
    assert {key: len(value) for key, value in made.items()} == dict.fromkeys(
        ("images", "soft_labels", "intended"), 10_000
    )
    assert made["intended"].bincount().tolist() == [2000] * 5
    for half, beta in ((slice(0, 5000), 2.0), (slice(5000, 10_000), 0.2)):
        soft, intended = made["soft_labels"][half].double(), made["intended"][half]
        assert intended.bincount().tolist() == [1000] * 5
        alpha = beta * class_similarity(ann) + 1e-4
        for c in range(5):
            total = alpha[c].sum()
            mean = alpha[c] / total
            expected = (mean * (1 - mean) / (total + 1)).sum().item()
            assert soft[intended == c].var(0).sum().item() == pytest.approx(expected, rel=0.1)


def test_the_two_halves_need_an_image_of_each_class() -> None:
    with pytest.raises(UsageError, match="samples must be at least the number of classes, 5, got 4"):
        two_betas_set(linear_ann(), SynthesisParams(samples=9), context())


def test_the_divergence_is_that_of_gaussians(generator: torch.Generator) -> None:
    ann = normed_ann()
    x = torch.rand(20, 1, 8, 8, generator=generator)
    # what enters each batch norm, written another way: the convolution before it, asked on its own
    entering: dict[nn.Module, Tensor] = {}
    convolutions = [module for module in ann.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in ann.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [
        convolution.register_forward_hook(lambda _m, _x, out, norm=norm: entering.__setitem__(norm, out))
        for convolution, norm in zip(convolutions, norms, strict=True)
    ]
    divergence = Divergence(ann)
    ann(x)
    found = float(divergence())
    divergence.close()
    for hook in hooks:
        hook.remove()
    assert len(entering) == len(norms) == 9
    expected = 0.0
    for norm, out in entering.items():
        values = out.double().numpy().transpose(1, 0, 2, 3).reshape(out.shape[1], -1)
        now = Normal(torch.tensor(values.mean(1)), torch.tensor((values.var(1) + norm.eps) ** 0.5))
        assert norm.running_mean is not None and norm.running_var is not None
        usual = Normal(norm.running_mean.double(), (norm.running_var.double() + norm.eps).sqrt())
        expected += float(kl_divergence(now, usual).mean())
    assert found == pytest.approx(expected, rel=1e-4)


def test_training_images_have_no_divergence_and_others_do(generator: torch.Generator) -> None:
    ann = normed_ann("vgg4bn")
    x = torch.rand(300, 1, 8, 8, generator=generator)
    for module in ann.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    # twice: what enters the second norm changes with the first
    for _ in range(2):
        ann.train()(x)
    ann.eval()
    divergence = Divergence(ann)
    ann(x)
    own = float(divergence())
    ann(x * 0.5)
    darker = float(divergence())
    divergence.close()
    # torch's running variance is the unbiased one
    assert 0 <= own < 1e-3
    assert darker > 0.1


def test_closing_takes_the_hooks_away() -> None:
    ann = normed_ann()
    Divergence(ann).close()
    assert not any(module._forward_pre_hooks for module in ann.modules())


def test_total_variation_by_hand(generator: torch.Generator) -> None:
    images = torch.rand(3, 2, 4, 5, generator=generator)
    x = images.numpy()
    down, across = x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]
    assert float(total_variation(images)) == pytest.approx(np.mean(down**2) + np.mean(across**2), rel=1e-5)


def test_statistics_are_taken_over_all_classes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []
    real = nn.functional.cross_entropy

    def noted(logits: Tensor, labels: Tensor) -> Tensor:
        asked.append(labels)
        return real(logits, labels)

    monkeypatch.setattr(nn.functional, "cross_entropy", noted)
    statistics_set(
        normed_ann("vgg4bn"), StatisticsParams(samples=200, synthesis_steps=1, synthesis_batch=100), context()
    )
    assert [len(labels) for labels in asked] == [100, 100]
    assert torch.cat(asked).bincount().tolist() == [20] * 10
    # half of each class on average: one is left out of a batch with about one seed in 100 000
    assert all(labels.bincount(minlength=10).min() > 0 for labels in asked)


@pytest.mark.slow
def test_images_by_statistics_depend_on_the_seed_and_leave_nothing_behind() -> None:
    ann = normed_ann()
    params = StatisticsParams(samples=20, synthesis_steps=3, synthesis_batch=8)
    state = torch.get_rng_state()
    first, again, other = (statistics_set(ann, params, context(seed))["images"] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not any(module._forward_pre_hooks for module in ann.modules())
    assert all(p.grad is None for p in ann.parameters())


def test_statistics_need_batch_norm_and_an_image_of_each_class() -> None:
    with pytest.raises(NotApplicable, match="no batch norm whose statistics"):
        statistics_set(linear_ann(), StatisticsParams(samples=10), context())
    with pytest.raises(UsageError, match="samples must be at least the number of classes, 10, got 9"):
        statistics_set(normed_ann(), StatisticsParams(samples=9), context())


def test_sets_are_shared_under_names_of_their_own() -> None:
    asked: list[tuple[str, Mapping[str, Any]]] = []

    def store(name: str, _version: int, params: Mapping[str, Any], _build: SharedBuild) -> dict[str, Tensor]:
        asked.append((name, params))
        return {}

    ours = DefenseContext(torch.Generator(), shared_store=store)
    ann, impressions, statistics = normed_ann(), SynthesisParams(), StatisticsParams()
    synthetic_set(ann, impressions, ours)
    two_betas_set(ann, impressions, ours)
    statistics_set(ann, statistics, ours)
    expected = [impressions.model_dump(), impressions.model_dump(), statistics.model_dump()]
    assert asked == list(zip(("synthetic", "two-betas", "statistics"), expected, strict=True))
