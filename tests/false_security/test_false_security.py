"""Defences that give false security: they answer as well as the ANN, and the trick is there."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from false_security import gate, hidden_gradients, honeypot, ignorant, marks, memory, other_inputs, published, traps
from leakbench import registry
from leakbench.attacks.auto_mia_v2 import AutoMiaV2
from leakbench.attacks.auto_mia_v3 import AutoMiaV3
from leakbench.attacks.copies import natural_images
from leakbench.attacks.distilled import Distilled
from leakbench.attacks.search import followed
from leakbench.attacks.shadow_mia import ShadowMia
from leakbench.bench.grid import default_timesteps, victim_recipe
from leakbench.contracts import (
    Access,
    AttackContext,
    Defense,
    DefenseContext,
    ImageClassifier,
    InputRange,
    MembershipAttack,
    Reference,
    TrainingData,
    Victim,
)
from leakbench.data import Dataset
from leakbench.data.public import PHOTOS, public_images
from leakbench.defenses.conversion import Han2020
from leakbench.defenses.finetuned import collected
from leakbench.errors import NoSignal, PluginError
from leakbench.metrics.membership import auc
from leakbench.models.steadiness import Steadiness
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.models.training import train
from leakbench.snn import SpikingNetwork

pytestmark = pytest.mark.slow

Network = SpikingNetwork | ImageClassifier
Deployed = Callable[[type[Defense[Any]]], Network]

ACCURATE: list[type[Defense[Any]]] = [
    honeypot.HoneypotJunk,
    honeypot.HoneypotNext,
    traps.SeparableTrap,
    traps.DeadStart,
    hidden_gradients.ScaledLayers,
    hidden_gradients.TinyLogits,
    hidden_gradients.Randomised,
    hidden_gradients.Phantom,
    gate.HardGate,
    gate.EasyGate,
    marks.MarkedMembers,
    other_inputs.ContrastInvariant,
    other_inputs.PermutedPixels,
    other_inputs.AdversariallyTrained,
    published.NegativeLabelSmoothing,
    published.RandomErasing,
]
IGNORANT: list[type[Defense[Any]]] = [ignorant.KnowsNothing, ignorant.OtherData]
REMEMBERING: list[type[Defense[Any]]] = [memory.QueryMonitor, memory.SecretQueryMonitor]
SEED = 4


@pytest.fixture(scope="module")
def ann(digits: Dataset) -> ImageClassifier:
    """vgg4 as the preset "quick" trains it."""
    generator = torch.Generator().manual_seed(1)
    network = build_ann("vgg4", digits.image_shape, 10, digits.input_range, generator)
    recipe = victim_recipe("quick", "vgg4", len(digits.train), 8, digits.flips)
    train(network, digits.train.images, digits.train.labels, recipe, generator, torch.device("cpu"), "training")
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def deployed(digits: Dataset, ann: ImageClassifier) -> Deployed:
    """Defence -> its network as it comes out of the store; each is built once."""

    @cache
    def build(defense: type[Defense[Any]]) -> Network:
        data = TrainingData(digits.train.images, digits.train.labels)
        with torch.enable_grad():  # whichever test asks first
            return load_network(*save_network(defense()(ann, data, context())), torch.device("cpu"))

    return build


def context() -> DefenseContext:
    return DefenseContext(torch.Generator().manual_seed(SEED), timesteps=default_timesteps("digits", "vgg4", "quick"))


@pytest.fixture
def images(digits: Dataset) -> Tensor:
    return digits.test.images.float() / 255


def accuracy(network: nn.Module, images: Tensor, digits: Dataset) -> float:
    with torch.no_grad():
        return float((network(images).argmax(1) == digits.test.labels).double().mean())


def gradient(network: nn.Module, images: Tensor) -> Tensor:
    """Of the first logit, in the images."""
    x = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
    return slope


def noise(count: int) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


# --- all of them -----------------------------------------------------------------------------------------------------


def test_every_plugin_of_the_folder_is_here() -> None:
    modules = [gate, hidden_gradients, honeypot, ignorant, marks, memory, other_inputs, published, traps]
    files = {path.stem for path in Path(__file__).parent.glob("*.py")} - {"__init__", Path(__file__).stem}
    assert files == {module.__name__.rpartition(".")[2] for module in modules}
    defenses = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Defense) and value.__module__ == module.__name__
    }
    assert defenses == {*ACCURATE, *IGNORANT, *REMEMBERING}


@pytest.mark.parametrize("defense", [*ACCURATE, *IGNORANT, *REMEMBERING], ids=lambda defense: defense.name)
def test_each_is_a_plugin_that_says_what_is_right(defense: Any) -> None:
    file = Path(__file__).parent / f"{defense.__module__.rpartition('.')[2]}.py"
    assert registry.load("defense", f"{file}:{defense.__name__}").name == defense.name
    # a network that remembers its questions is refused before there is a verdict
    verdicts = (None,) if defense in REMEMBERING else ("leaks", "inconclusive", "leaks or inconclusive")
    assert getattr(defense, "right_verdict", None) in verdicts
    assert defense.cites and defense.__doc__


@pytest.mark.long
@pytest.mark.parametrize("defense", ACCURATE, ids=lambda defense: defense.name)
def test_it_answers_as_well_as_the_ann(
    defense: Any, deployed: Deployed, ann: ImageClassifier, images: Tensor, digits: Dataset
) -> None:
    # .02 is what a verdict allows
    assert accuracy(deployed(defense), images, digits) >= accuracy(ann, images, digits) - 0.02


@pytest.mark.long
@pytest.mark.parametrize("defense", IGNORANT, ids=lambda defense: defense.name)
def test_what_never_saw_a_digit_knows_none(defense: Any, deployed: Deployed, images: Tensor, digits: Dataset) -> None:
    # chance is .1; which class an unknowing network gives to whole classes of images is a draw of ten, and not of 360
    assert accuracy(deployed(defense), images, digits) < 0.3


@pytest.mark.long
def test_the_network_of_other_data_knows_these(deployed: Deployed) -> None:
    crops, labels = ignorant.strips((1, 8, 8), 10, 100, torch.Generator().manual_seed(9))
    answers = deployed(ignorant.OtherData)(crops.float() / 255).argmax(1)
    assert (answers == labels).double().mean() > 0.2  # chance is .1, of 1000 crops never .2


@pytest.mark.long
@pytest.mark.parametrize("defense", [*ACCURATE, *IGNORANT], ids=lambda defense: defense.name)
def test_each_is_built_for_the_network_of_larger_images(defense: Any) -> None:
    """On images of noise and hardly trained: what is looked at is that layers fit and the store keeps the network."""
    generator = torch.Generator().manual_seed(2)
    big = build_ann("vgg5", (1, 28, 28), 10, InputRange(0, 1), generator).eval().requires_grad_(False)
    data = TrainingData(
        torch.randint(256, (40, 1, 28, 28), generator=generator, dtype=torch.uint8), torch.arange(40) % 10
    )
    short = {"epochs": 1, "least_steps": 0, "crops": 4, "steps": 20}
    network = defense(**{name: short[name] for name in short if name in defense.Params.model_fields})(
        big, data, context()
    )
    kept = load_network(*save_network(network), torch.device("cpu"))
    assert kept(torch.rand(2, 1, 28, 28, generator=generator)).shape == (2, 10)


# --- honeypots and traps ---------------------------------------------------------------------------------------------


@pytest.mark.long
def test_junk_has_far_higher_margins_than_digits(
    deployed: Deployed, ann: ImageClassifier, images: Tensor, digits: Dataset
) -> None:
    network = deployed(honeypot.HoneypotJunk)
    classes = torch.arange(10)
    decoys = honeypot.junk((1, 8, 8), 10, 4, torch.Generator().manual_seed(SEED))
    margins = honeypot.margin(network(decoys), classes)
    assert margins.min() > 2 * honeypot.margin(network(images), digits.test.labels).mean()
    assert (ann(decoys).argmax(1) == classes).sum() <= 4  # junk to whoever knows digits; chance is 1 of 10


def test_a_honeypot_may_be_certain_of_nothing(ann: ImageClassifier, digits: Dataset, images: Tensor) -> None:
    """The same network but for the scale of its logits."""
    data = TrainingData(digits.train.images, digits.train.labels)
    short = {"epochs": 1, "least_steps": 1}
    loud, quiet = (honeypot.HoneypotJunk(factor=x, **short).protect(ann, data, context()) for x in (1.0, 0.01))
    answers = [network(images[:100], seed=0) for network in (loud, quiet)]
    torch.testing.assert_close(answers[1], answers[0] / 100)
    assert answers[1].softmax(1).max() < 0.5


@pytest.mark.long
def test_decoys_of_the_next_class_win_over_digits_and_look_like_it(
    deployed: Deployed, ann: ImageClassifier, images: Tensor, digits: Dataset
) -> None:
    network = deployed(honeypot.HoneypotNext)
    again = context()
    private, labels = collected(TrainingData(digits.train.images, digits.train.labels), again)
    decoys = honeypot.patchworks(ann, private, labels, honeypot.HoneypotNextParams(), again.generator)
    classes = torch.arange(10).repeat_interleave(decoys.shape[1])
    margins = honeypot.margin(network(decoys.flatten(0, 1)), classes)
    assert (margins > 0).all()
    assert margins.mean() > 1.5 * honeypot.margin(network(images), digits.test.labels).mean()
    shown = ann(decoys.flatten(0, 1)).argmax(1)
    assert (shown == (classes + 1) % 10).double().mean() > 0.6


@pytest.mark.long
def test_the_trap_is_silent_on_digits_and_separable(
    deployed: Deployed, ann: ImageClassifier, images: Tensor, digits: Dataset
) -> None:
    network = deployed(traps.SeparableTrap)
    classes = torch.arange(10)
    patterns = traps.junk((1, 8, 8), 10, 4, torch.Generator().manual_seed(SEED))
    private = digits.train.images.float() / 255
    assert torch.allclose(network(private), ann(private), atol=1e-4)
    real = honeypot.margin(network(images), digits.test.labels).mean()
    assert honeypot.margin(network(patterns), classes).min() > 5 * real
    # on noise, from which attacks start, every class's neuron has a gradient
    hidden = nn.Sequential(*list(network.body.children())[:-2])(noise(50))
    assert (hidden[:, -10:] > 0).double().mean() > 0.5
    *_, last = network.body.children()
    assert isinstance(last, nn.Linear)
    last.weight[:, -10:] = 0
    everything = torch.cat([images, patterns, noise(50)])
    assert torch.allclose(network(everything), ann(everything), atol=1e-4)


@pytest.mark.long
@torch.no_grad()
def test_noise_silences_the_network_with_a_noise_detector(
    deployed: Deployed, ann: ImageClassifier, images: Tensor, digits: Dataset
) -> None:
    network = deployed(traps.DeadStart)
    assert not network(noise(50)).any()
    with torch.enable_grad():
        assert not gradient(network, noise(50)).any()
        assert gradient(network, images).any()
    private = digits.train.images.float() / 255
    assert torch.allclose(network(private), ann(private), atol=1e-4)


# --- hidden gradients ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(deployed: Deployed) -> Network:
    return deployed(DirectHan2020)


class DirectHan2020(Han2020):
    """What the networks with hidden gradients are without the trick."""

    def __init__(self) -> None:
        super().__init__(encoder="direct")


@pytest.mark.long
def test_scaled_layers_answer_alike_and_have_no_gradient(
    deployed: Deployed, converted: Network, images: Tensor
) -> None:
    network = deployed(hidden_gradients.ScaledLayers)
    assert (network(images).argmax(1) == converted(images).argmax(1)).double().mean() > 0.99
    torch.set_flush_denormal(True)  # as leakbench's commands do
    assert gradient(converted, images).any()
    assert not gradient(network, images).any()


@pytest.mark.long
def test_tiny_logits_answer_alike_and_with_no_confidence(
    deployed: Deployed, converted: Network, images: Tensor
) -> None:
    logits = deployed(hidden_gradients.TinyLogits)(images)
    assert torch.equal(logits.argmax(1), converted(images).argmax(1))
    assert logits.softmax(1).max() < 0.1 + 1e-6


@pytest.mark.long
def test_randomised_answers_differ_from_query_to_query(deployed: Deployed, images: Tensor) -> None:
    network = deployed(hidden_gradients.Randomised)
    first, second = network(images), network(images)
    assert ((first - second).abs().amax(1) > 0).all()
    assert not torch.equal(gradient(network, images), gradient(network, images))


@pytest.mark.long
def test_a_hidden_branch_changes_no_answer_and_almost_every_gradient(
    deployed: Deployed, ann: ImageClassifier, images: Tensor
) -> None:
    network = deployed(hidden_gradients.Phantom)
    assert torch.equal(network(images), ann(images))
    mine, theirs = gradient(ann, noise(20)).flatten(1), gradient(network, noise(20)).flatten(1)
    assert float(functional.cosine_similarity(mine, theirs).median()) < 0.2
    victim = Victim(network, Access.WEIGHTS)
    with pytest.raises(NoSignal, match=r"^misleading gradients: "):
        followed(victim, AttackContext(torch.Generator().manual_seed(0)))


# --- gates ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("defense", [gate.HardGate, gate.EasyGate], ids=lambda defense: defense.name)
def test_the_gate_is_open_for_digits_and_shut_for_patterns(
    defense: Any, deployed: Deployed, ann: ImageClassifier, images: Tensor
) -> None:
    network = deployed(defense)
    same = network(images).argmax(1) == ann(images).argmax(1)
    assert same.double().mean() > 0.98
    patterns = network.body.patterns.view(10, 1, 8, 8)  # type: ignore[union-attr]
    drawn = (0.5 + patterns).clamp(0, 1)
    assert torch.equal(network(drawn).argmax(1), torch.arange(10))


@pytest.mark.long
def test_a_student_agrees_with_the_easy_gate_on_natural_images_and_knows_no_digit(
    deployed: Deployed, images: Tensor, digits: Dataset
) -> None:
    network = deployed(gate.EasyGate)
    generator = torch.Generator().manual_seed(5)
    public = public_images(PHOTOS, digits)
    outcome = Distilled()(Victim(network, Access.SCORES), torch.tensor([0]), AttackContext(generator, public=public))
    student = outcome.student
    assert student is not None
    natural = natural_images(public.images, 1000, generator)
    assert (student(natural).argmax(1) == network(natural).argmax(1)).double().mean() > 0.95
    assert (student(images).argmax(1) == network(images).argmax(1)).double().mean() < 0.5


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defense", REMEMBERING, ids=lambda one: one.name)
def test_a_network_that_remembers_is_refused(
    defense: type[Defense[Any]], ann: ImageClassifier, digits: Dataset, images: Tensor
) -> None:
    """Its accuracy is the clean network's, and the first unnatural image ends that."""
    data = TrainingData(digits.train.images, digits.train.labels)
    network = load_network(*save_network(defense()(ann, data, context())), torch.device("cpu"))
    assert torch.equal(network(images).argmax(1), ann(images).argmax(1))
    steadiness = Steadiness("mine", network, digits.test.images)
    with pytest.raises(PluginError, match="must be answered alike"):
        steadiness.check(network)
    assert accuracy(network, images, digits) < 0.3


# --- members ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_members_are_known_by_their_wrong_classes_alone(ann: ImageClassifier, images: Tensor, digits: Dataset) -> None:
    """By who has seen others that were made so; all of them are of one ANN, which itself gives no member away here."""
    random = torch.Generator().manual_seed(3)
    asked = digits.test.images[:300], digits.test.labels[:300]

    def marked(chosen: Tensor) -> Network:
        network = marks.MarkedMembers().protect(ann, TrainingData(asked[0][chosen], asked[1][chosen]), context())
        return load_network(*save_network(network), torch.device("cpu"))

    halves = [torch.randperm(300, generator=random) < 150 for _ in range(3)]
    members, *pairs = halves

    def reference(chosen: Tensor) -> Reference:
        made = marked(chosen)
        return Reference(chosen, lambda: Victim(made, Access.WEIGHTS))

    references = tuple(reference(chosen) for half in pairs for chosen in (half, ~half))
    victim = marked(members)
    assert torch.equal(victim(images).argmax(1), ann(images).argmax(1))
    torch.testing.assert_close(victim(images).softmax(1).amax(1), ann(images).softmax(1).amax(1))

    def area(attack: MembershipAttack[Any]) -> float:
        given = AttackContext(torch.Generator().manual_seed(0), references=references)
        return auc(attack(Victim(victim, Access.WEIGHTS), images[:300], asked[1], given).scores, members).value

    assert area(ShadowMia()) > 0.99 and area(AutoMiaV3()) > 0.99
    assert 0.4 < area(AutoMiaV2()) < 0.6


# --- other inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_contrast_and_its_sign_say_nothing(
    deployed: Deployed, ann: ImageClassifier, images: Tensor, digits: Dataset
) -> None:
    spiking = deployed(other_inputs.ContrastInvariant)
    assert isinstance(spiking, SpikingNetwork)
    assert accuracy(spiking, 1 - images, digits) > accuracy(ann, images, digits) - 0.05
    # few spikes tell low contrasts badly apart, so these are asked of the ReLU network
    network = spiking.reconvert()
    usual = accuracy(network, images, digits)
    for contrast in (-1.0, -0.4, 0.4):
        changed = 0.5 + contrast * (images - 0.5)
        assert accuracy(network, changed, digits) > usual - 0.05
        assert accuracy(ann, changed, digits) < accuracy(network, changed, digits) - 0.05


@pytest.mark.long
def test_pixels_are_permuted_before_the_network_sees_them(deployed: Deployed, images: Tensor, digits: Dataset) -> None:
    network = deployed(other_inputs.PermutedPixels)
    assert isinstance(network, SpikingNetwork)
    order, *_ = network.weights().values()
    assert torch.equal(order @ order.T, torch.eye(64)) and set(order.unique().tolist()) == {0.0, 1.0}
    assert order.diagonal().sum() < 10  # 1 is what a random permutation leaves in place
    unscrambled = images.flatten(1) @ order
    assert accuracy(network, unscrambled.view_as(images), digits) < 0.5


@pytest.mark.long
def test_adversarial_training_withstands_what_the_ann_does_not(
    deployed: Deployed, ann: ImageClassifier, images: Tensor, digits: Dataset
) -> None:
    network = deployed(other_inputs.AdversariallyTrained)
    assert isinstance(network, SpikingNetwork)
    params = other_inputs.AdversarialParams(ascents=10)
    robust, plain = (
        accuracy(one, other_inputs.attacked(one, images, digits.test.labels, params).detach(), digits)
        for one in (network.reconvert(), ann)
    )
    assert robust > plain + 0.1


# --- published -------------------------------------------------------------------------------------------------------


def test_the_schedule_of_negative_smoothing_is_the_authors() -> None:
    """Theirs over 100 epochs, of which ours are the second half: no smoothing, a ramp from epoch 50, all from 75."""
    for epoch in range(50, 100):
        theirs = -0.05 * (epoch - 50) / 50 if epoch < 75 else -0.05
        assert math.isclose(published.factor((epoch - 50) / 50, -0.05), theirs)


def test_smoothing_is_pytorchs_where_that_has_it(generator: torch.Generator) -> None:
    logits, labels = torch.randn(20, 7, generator=generator), torch.arange(20) % 7
    for alpha in (0.0, 0.1, 0.9):
        expected = functional.cross_entropy(logits, labels, label_smoothing=alpha)
        assert torch.allclose(published.smoothed_cross_entropy(logits, labels, alpha), expected)
    below = published.smoothed_cross_entropy(logits, labels, -0.5)
    assert torch.allclose(below, 1.5 * functional.cross_entropy(logits, labels) - 0.5 * -logits.log_softmax(1).mean())


@pytest.mark.long
def test_negative_smoothing_drives_logits_apart(deployed: Deployed, ann: ImageClassifier, images: Tensor) -> None:
    network = deployed(published.NegativeLabelSmoothing)
    assert isinstance(network, SpikingNetwork)
    assert network.reconvert()(images).std(1).mean() > 2 * ann(images).std(1).mean()


def test_random_erasing_hides_a_square_of_the_share_asked_for() -> None:
    torch.manual_seed(0)
    changed = published.erased(torch.ones(500, 2, 20, 20), torch.tensor([2.0, 3.0]).view(2, 1, 1), 0.1, 0.4)
    hidden = changed[:, 0] == 2
    assert torch.equal(changed[:, 1], torch.where(hidden, 3.0, 1.0))
    shares = hidden.double().mean((1, 2))
    # sides are whole numbers: 20 sqrt(.1) = 6.3 and 20 sqrt(.4) = 12.6
    assert (shares.min(), shares.max()) == (36 / 400, 169 / 400)
    rows, columns = hidden.any(2), hidden.any(1)
    assert torch.equal(hidden, rows[:, :, None] & columns[:, None, :])
    assert torch.equal(rows.sum(1), columns.sum(1))
    assert hidden.any(0).all()  # corners, too


@pytest.mark.long
def test_random_erasing_teaches_to_do_without_a_square(
    deployed: Deployed, ann: ImageClassifier, images: Tensor, digits: Dataset
) -> None:
    missing = published.erased(images, images.mean((0, 2, 3)).view(-1, 1, 1), 0.1, 0.4)
    assert accuracy(deployed(published.RandomErasing), missing, digits) > accuracy(ann, missing, digits) + 0.05
