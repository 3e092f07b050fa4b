"""Decrypting: a twin that was spoiled learns to answer as its network does, whose own weights stay as they are."""

from __future__ import annotations

import copy

import pytest
import torch

from leakbench.attacks.analog_twin import AnalogTwin
from leakbench.attacks.decrypt import Decrypt, DecryptParams, decrypted, lesson
from leakbench.attacks.distillation import smoothed_noise
from leakbench.contracts import Access, AttackContext, ImageClassifier, Victim
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, analog_twin, balance_thresholds

PARAMS = DecryptParams(images=300, steps=100, glance=20, encodings=2)


def context_of(seed: int = 0) -> AttackContext:
    return AttackContext(torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def spoiled(digits_ann: ImageClassifier) -> SpikingNetwork:
    """So leaky that neurons fire by what a single step brings, and mean currents say little of it."""
    network = SpikingNetwork.from_ann(digits_ann, SpikingConfig(8, "poisson", Neuron(0.3)))
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    balance_thresholds(network, images, seed=3)
    for layer in network.neurons:
        layer.set_threshold(layer.threshold / 2)
    return network.requires_grad_(False)


@pytest.mark.slow
def test_it_teaches_a_spoiled_twin_what_the_network_answers(spoiled: SpikingNetwork) -> None:
    before = {key: value.clone() for key, value in spoiled.state_dict().items()}
    context = context_of()
    student = decrypted(Victim(spoiled, Access.WEIGHTS), PARAMS, context)
    found = context.findings
    untaught, taught = (found[f"twin {when}: correlation of logits"] for when in ("before", "after"))
    assert untaught < 0.9 and taught > untaught + 0.03
    assert 0.001 < found["twin after: weights moved"] < 0.3
    assert all(torch.equal(value, before[key]) for key, value in spoiled.state_dict().items())
    assert not any(p.requires_grad for p in (*spoiled.parameters(), *student.parameters()))
    assert context.cost.gradient_steps == PARAMS.glance + PARAMS.steps


@pytest.mark.slow
def test_it_starts_at_the_victims_weights(digits_snn: SpikingNetwork) -> None:
    context = context_of()
    student = decrypted(
        Victim(digits_snn, Access.WEIGHTS), PARAMS.model_copy(update={"student_lr": 1e-9, "steps": 3}), context
    )
    twin = analog_twin(digits_snn).state_dict()
    for key, value in student.state_dict().items():
        torch.testing.assert_close(value, twin[key], rtol=0, atol=1e-6)
    found = context.findings
    assert found["twin after: weights moved"] < 1e-6
    before, after = (found[f"twin {when}: correlation of logits"] for when in ("before", "after"))
    assert before == pytest.approx(after, abs=1e-4)


@pytest.mark.slow
def test_a_network_written_in_other_units_is_taught_alike(spoiled: SpikingNetwork) -> None:
    """The first layer and its thresholds times 64, the weights that follow divided by it: the same network."""
    other = copy.deepcopy(spoiled)
    weights = list(other.weights().values())
    with torch.no_grad():
        weights[0] *= 64
        weights[1] /= 64
        other.neurons[0].threshold *= 64
    probes = smoothed_noise(50, (1, 8, 8), torch.Generator().manual_seed(5))
    assert torch.equal(other(probes, seed=0), spoiled(probes, seed=0))
    params = PARAMS.model_copy(update={"steps": 20})
    one, two = (
        decrypted(Victim(network, Access.WEIGHTS), params, context_of())(probes) for network in (spoiled, other)
    )
    untaught = analog_twin(spoiled)(probes)
    # slopes differ by segment, and Adam makes steps of rounding that puts a current into another one
    assert (one - two).abs().max() < 1e-2 * (one - untaught).abs().max()


@pytest.mark.slow
def test_the_lesson_is_of_noise_found_images_and_mixtures(digits_snn: SpikingNetwork) -> None:
    images = lesson(analog_twin(digits_snn), PARAMS.model_copy(update={"glance": 60}), context_of())
    assert images.shape == (300, 1, 8, 8)
    assert images.min() >= 0 and images.max() <= 1
    assert len(images.flatten(1).unique(dim=0)) == 300
    # a third was made for classes, and more were mixed of them: the twin is surer of them than of noise
    noise = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        sure, unsure = (analog_twin(digits_snn)(x).softmax(1).amax(1) for x in (images, noise))
    assert (sure > 0.9).double().mean() > (unsure > 0.9).double().mean() + 0.2


def test_what_does_not_spike_is_inverted_as_it_is(digits_ann: ImageClassifier) -> None:
    targets = torch.arange(10)
    one = Decrypt(iterations=10, restarts=1)(Victim(digits_ann, Access.WEIGHTS), targets, context_of())
    two = AnalogTwin(iterations=10, restarts=1)(Victim(digits_ann, Access.WEIGHTS), targets, context_of())
    assert torch.equal(one.images, two.images)
    assert one.cost.gradient_steps == 10 and not one.findings
