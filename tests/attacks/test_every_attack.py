"""What holds for every built-in attack, one row each; a new attack is one row more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, get_origin

import pytest
import torch
from torch import Tensor, nn

from leakbench import registry
from leakbench.contracts import (
    Access,
    Attack,
    AttackContext,
    ImageClassifier,
    PublicImages,
    Reconstruction,
    SharedBuild,
    Victim,
)
from leakbench.errors import NotApplicable, UsageError
from leakbench.models.storage import build_ann
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds

TARGETS = torch.arange(10)


@dataclass(frozen=True)
class Row:
    """How an attack is kept fast, and what it must then have cost and reached on the ten digits."""

    gradient_steps: int
    params: dict[str, Any] = field(default_factory=dict)
    ann_queries: int = 0
    snn_queries: int = 0
    confidence: float = 0.0
    """mean probability of the target that it reaches on the unprotected ANN at least (noise: .1)"""
    snn_gradient_steps: int | None = None
    """on a spiking victim, where that is not the same"""
    needs: Access = Access.WEIGHTS
    climbs: float = 0.02
    """what it adds at least to the mean probability on the spiking network"""
    fixed_steps: int = 0
    """of the gradient steps on the ANN, those that are the same whatever its effort"""


# a generator that was trained for a moment, and few of its images
PRIOR = {"gan_steps": 150, "pool": 400}
ATTACKS = {
    "reconversion": Row(20, {"iterations": 20}, confidence=0.5),
    # the paper's steps are small: it climbs, and no more is asked of it
    "direct": Row(15, {"iterations": 15}, confidence=0.2),
    # the victim is asked confidence_draws times an image and restart
    "inversion": Row(80, {"iterations": 40, "restarts": 2}, ann_queries=80, snn_queries=80, confidence=0.8),
    "analog_twin": Row(80, {"iterations": 40, "restarts": 2}, ann_queries=80, snn_queries=80, confidence=0.8),
    "surrogate_zoo": Row(
        20,
        {"iterations": 20, "trial": 3, "finalists": 1, "estimators": "own+rga+hart-1"},
        ann_queries=40,
        snn_queries=3 * 4 * 10 + 40,
        confidence=0.5,
        snn_gradient_steps=3 * 3 + 20,
    ),
    "spsa": Row(
        20,
        {"iterations": 20, "directions": 4},
        ann_queries=(8 * 20 + 4) * 10,
        snn_queries=(8 * 20 + 4) * 10,
        confidence=0.5,
        needs=Access.SCORES,
    ),
    # two rounds: in each the student learns, and is inverted once
    "extraction": Row(
        2 * (30 + 30),
        {"iterations": 30, "restarts": 1, "queries": 300, "steps": 30, "student_lr": 0.01, "width": 8},
        ann_queries=300 + 2 * 40,
        snn_queries=300 + 2 * 40,
        confidence=0.5,
        needs=Access.SCORES,
        fixed_steps=2 * 30,
    ),
    "decrypt": Row(
        80,
        {"iterations": 40, "restarts": 2, "images": 90, "glance": 5, "steps": 10, "encodings": 2},
        ann_queries=80,
        snn_queries=2 * 90 + 80,
        confidence=0.8,
        snn_gradient_steps=5 + 10 + 80,
    ),
    # asked about the pool's best and each start's end
    "generative_prior": Row(
        2 * 20,
        {**PRIOR, "iterations": 20, "starts": 2},
        ann_queries=3 * 40,
        snn_queries=3 * 40,
        confidence=0.5,
    ),
    "evolution": Row(
        6,
        {**PRIOR, "iterations": 6, "population": 8},
        ann_queries=400 + 10 * (6 * 8 + 2 * 4),
        snn_queries=400 + 10 * (6 * 8 + 2 * 4),
        confidence=0.3,
        needs=Access.SCORES,
    ),
    "label_only": Row(
        6,
        {**PRIOR, "iterations": 6, "points": 7},
        ann_queries=400 + 10 * 6 * 8,
        snn_queries=400 + 10 * 6 * 8,
        confidence=0.3,
        needs=Access.LABELS,
    ),
}
every = pytest.mark.parametrize("name", list(ATTACKS))
ENSEMBLES = ["auto-v1", "auto-v2", "repaired", "pruned", "distilled"]
# smooth blobs: like the private images in kind, and of no class of theirs
PUBLIC = PublicImages(
    (
        torch.rand(200, 1, 3, 3, generator=torch.Generator().manual_seed(8))
        .repeat_interleave(3, 2)
        .repeat_interleave(3, 3)[:, :, :8, :8]
        * 255
    ).to(torch.uint8),
    "blobs of the tests",
)


GENERATORS: dict[str, dict[str, Tensor]] = {}


def context_of(seed: int = 0, public: PublicImages = PUBLIC) -> AttackContext:
    def shared(name: str, version: int, params: Mapping[str, Any], build: SharedBuild) -> dict[str, Tensor]:
        key = repr((name, version, sorted(params.items()), public.images.shape))
        if key not in GENERATORS:
            GENERATORS[key] = build(AttackContext(torch.Generator().manual_seed(5), public=public))
        return GENERATORS[key]

    return AttackContext(torch.Generator().manual_seed(seed), public=public, shared_store=shared)


def attack(name: str, network: SpikingNetwork | ImageClassifier, seed: int = 0, **more: Any) -> Reconstruction:
    plugin: Attack[Any] = registry.load("attack", name)(**{**ATTACKS[name].params, **more})
    channels, height, width = network.image_shape
    public = PUBLIC._replace(images=PUBLIC.images.expand(-1, channels, -1, -1)[..., :height, :width])
    victim = Victim(network, Access.WEIGHTS)
    if isinstance(network, SpikingNetwork):
        network.reseed(seed)  # the framework hands out a fresh network
    return plugin(victim, TARGETS, context_of(seed, public))


@cache
def once(name: str, network: SpikingNetwork | ImageClassifier) -> Reconstruction:
    """What several tests look at."""
    return attack(name, network)


def own(answers: Tensor) -> Tensor:
    return answers.gather(1, TARGETS[:, None]).squeeze(1)


def test_the_table_is_complete() -> None:
    built_in = [entry.name for entry in registry.entries("attack").values() if entry.origin == "built-in"]
    on_classes = [name for name in built_in if registry.load("attack", name).leakage == "inversion"]
    assert on_classes == [*ATTACKS, *ENSEMBLES]


@pytest.mark.slow
@every
@pytest.mark.parametrize("spiking", [False, True], ids=["ann", "snn"])
def test_it_gives_images_and_counts_what_it_took(
    name: str, spiking: bool, digits_ann: ImageClassifier, digits_snn: SpikingNetwork
) -> None:
    row = ATTACKS[name]
    made = once(name, digits_snn if spiking else digits_ann)
    assert made.images.shape == (10, 1, 8, 8)
    assert made.images.dtype == torch.float32
    assert made.images.min() >= 0 and made.images.max() <= 1
    assert not made.images.requires_grad
    assert torch.equal(made.targets, TARGETS)
    steps = row.snn_gradient_steps if spiking and row.snn_gradient_steps else row.gradient_steps
    assert made.cost.gradient_steps == steps
    assert made.cost.queries == (row.snn_queries if spiking else row.ann_queries)
    assert made.cost.seconds > 0


@pytest.mark.slow
@every
def test_it_raises_its_targets_above_noise_on_the_ann(name: str, digits_ann: ImageClassifier) -> None:
    noise = torch.rand(500, 1, 8, 8, generator=torch.Generator().manual_seed(6))
    logits = digits_ann(once(name, digits_ann).images)
    assert (own(logits) > digits_ann(noise).mean(0)).all()
    assert own(logits.softmax(1)).mean() > ATTACKS[name].confidence


@pytest.mark.slow
@every
def test_it_raises_its_targets_above_noise_on_the_spiking_network(name: str, digits_snn: SpikingNetwork) -> None:
    noise = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(6))
    made = once(name, digits_snn)
    with torch.no_grad():
        before, after = (
            torch.stack([digits_snn(images, seed=seed).softmax(1) for seed in range(8)]).mean(0)
            for images in (noise, made.images)
        )
    # surrogate gradients climb slowly and through noise: on the mean of ten targets
    assert own(after).mean() > own(before).mean() + ATTACKS[name].climbs


@pytest.mark.slow
@every
def test_the_same_seed_gives_the_same_images_and_leaves_the_global_generator_alone(
    name: str, digits_ann: ImageClassifier, digits_snn: SpikingNetwork
) -> None:
    for network in (digits_ann, digits_snn):
        first, state = once(name, network).images, torch.get_rng_state()
        again, other = (attack(name, network, seed).images for seed in (0, 1))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@pytest.mark.slow
@every
def test_its_effort_is_a_whole_number_and_half_of_it_is_half_the_work(name: str, digits_ann: ImageClassifier) -> None:
    plugin = registry.load("attack", name)
    effort, row = plugin.effort, ATTACKS[name]
    assert plugin.Params.model_fields[effort].annotation is int
    for given in ({}, *plugin.presets.values()):
        assert getattr(plugin(**given).params, effort) >= 2  # else there is no half to compare with
    half = attack(name, digits_ann, **{effort: row.params[effort] // 2})
    assert half.cost.gradient_steps == (row.gradient_steps + row.fixed_steps) // 2


@pytest.mark.long
@pytest.mark.slow
@every
def test_the_victim_is_left_as_it_was(name: str, digits_snn: SpikingNetwork) -> None:
    before = {key: value.clone() for key, value in digits_snn.state_dict().items()}
    attack(name, digits_snn)
    assert all(torch.equal(value, before[key]) for key, value in digits_snn.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in digits_snn.parameters())
    assert not digits_snn.training


@pytest.mark.slow
@every
def test_it_works_on_colour_networks(name: str, generator: torch.Generator) -> None:
    ann = build_ann("vgg4", (3, 8, 8), 10, (-1.0, 1.0), generator).eval().requires_grad_(False)  # type: ignore[arg-type]
    network = SpikingNetwork.from_ann(ann, SpikingConfig(8))
    balance_thresholds(network, torch.rand(8, 3, 8, 8, generator=generator), seed=0)
    network.requires_grad_(False)
    for victim in (ann, network):
        images = attack(name, victim).images
        assert images.shape == (10, 3, 8, 8)
        # both halves of the range are used: nothing was clamped to the networks' own zero
        assert (images < 0.45).any() and (images > 0.55).any()


@every
@pytest.mark.parametrize("granted", [Access.LABELS, Access.SCORES])
def test_less_access_than_it_needs_is_refused(name: str, granted: Access, digits_ann: ImageClassifier) -> None:
    plugin: Attack[Any] = registry.load("attack", name)()
    assert plugin.needs == ATTACKS[name].needs
    if granted >= plugin.needs:
        return
    with pytest.raises(NotApplicable, match=f"{name} needs {plugin.needs.name}, the victim grants {granted.name}"):
        plugin(Victim(digits_ann, granted), TARGETS, context_of())


@every
@pytest.mark.parametrize("targets", [[0, 10], [-1, 3]])
def test_targets_that_are_no_classes_are_refused(name: str, targets: list[int], digits_ann: ImageClassifier) -> None:
    plugin: Attack[Any] = registry.load("attack", name)()
    with pytest.raises(UsageError, match=r"targets must be classes 0\.\.9"):
        plugin(Victim(digits_ann, Access.WEIGHTS), torch.tensor(targets), context_of())


@pytest.mark.slow
@every
def test_each_target_has_an_image_of_its_own(name: str, digits_ann: ImageClassifier) -> None:
    plugin: Attack[Any] = registry.load("attack", name)(**ATTACKS[name].params)
    targets = torch.tensor([7, 2, 7])
    made = plugin(Victim(digits_ann, Access.WEIGHTS), targets, context_of())
    assert made.targets.tolist() == [7, 2, 7]
    assert not torch.equal(made.images[0], made.images[2])
    noise = torch.rand(500, 1, 8, 8, generator=torch.Generator().manual_seed(6))
    rises = digits_ann(made.images)[range(3), targets] - digits_ann(noise).mean(0)[targets]
    assert rises.mean() > 1


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("reconversion", {"iteration": 3}, "unknown parameter reconversion.iteration: did you mean 'iterations'?"),
        ("reconversion", {"eta": 0}, "reconversion.eta: input should be greater than 0 (got 0)"),
        ("reconversion", {"blur_every": -1}, "reconversion.blur_every: input should be greater than or equal to 0"),
        ("direct", {"zetta": 1}, "unknown parameter direct.zetta: did you mean 'zeta'?"),
        ("direct", {"iterations": 0.5}, "direct.iterations: input should be a valid integer"),
        ("inversion", {"restarts": 0}, "inversion.restarts: input should be greater than or equal to 1 (got 0)"),
        ("inversion", {"jiter": 1}, "unknown parameter inversion.jiter: did you mean 'jitter'?"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        registry.load("attack", name)(**params)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@every
def test_every_parameter_is_described_and_bounded_and_presets_fit(name: str) -> None:
    plugin = registry.load("attack", name)
    assert plugin.cites
    for parameter, info in plugin.Params.model_fields.items():
        assert info.description, parameter
        # a choice or a flag is bounded by its type
        bounded = info.metadata or get_origin(info.annotation) is Literal or info.annotation is bool
        assert bounded, f"{parameter} has no bounds"
    for given in plugin.presets.values():
        plugin(**given)


@pytest.mark.slow
def test_small_images_and_wide_blurs_fit() -> None:
    """The blur's kernel and the jitter are cut to what the image can take."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 10))
    ann = ImageClassifier(body, (1, 3, 3), 10).eval().requires_grad_(False)
    assert attack("reconversion", ann, sigma=20.0).images.shape == (10, 1, 3, 3)
    assert attack("reconversion", ann, sigma=0.05).images.shape == (10, 1, 3, 3)
    assert attack("inversion", ann, jitter=9, blur=20.0, coarse=0.5).images.shape == (10, 1, 3, 3)
