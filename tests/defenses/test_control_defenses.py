"""The controls: the ANN as it is, a network that knows nothing of it, one that knows images and no class."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from leakbench.contracts import DefenseContext, ImageClassifier, TrainingData
from leakbench.data import Dataset
from leakbench.defenses.controls import Ann, Overfitted, Random, Shuffled, untrained
from leakbench.errors import NotApplicable
from leakbench.models.storage import build_ann
from leakbench.models.training import UNCHANGED, Recipe, predict, steps_of, train
from leakbench.snn import SpikingNetwork
from leakbench.snn.folding import with_biases


def test_the_positive_control_is_the_ann(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = Ann()(digits_ann, digits_data, DefenseContext(torch.Generator()))
    images = digits.test.images[:20].float() / 255
    assert torch.equal(network(images), digits_ann(images))
    assert not Ann.spiking


def test_the_negative_control_has_nothing_of_the_anns_weights(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = Random()(digits_ann, digits_data, DefenseContext(torch.Generator().manual_seed(987), timesteps=16))
    assert isinstance(network, SpikingNetwork)
    for name, weight in network.weights().items():
        trained = digits_ann.state_dict()[f"body.{name}.weight"]
        assert weight.shape == trained.shape
        cosine = torch.nn.functional.cosine_similarity(weight.flatten(), trained.flatten(), dim=0)
        assert cosine.abs() < 5 / weight.numel() ** 0.5  # as independent vectors have
        # Kaiming's variance, not the trained one
        assert abs(weight.std().item() / (2 / weight[0].numel()) ** 0.5 - 1) < 5 / (2 * weight.numel()) ** 0.5
    assert digits_data.images_read == 0
    with torch.no_grad():
        simulation = network.simulate(digits.test.images[:200].float() / 255, seed=0)
    assert all(count > 0 for count in simulation.spikes.values())  # it converts to a network that lives
    right = (simulation.logits.argmax(1) == digits.test.labels[:200]).sum()
    # chance is 20 of 200; a network that never saw a digit may map whole classes right, but not most of them
    assert right < 100


def test_the_negative_control_keeps_no_learned_number_at_all(digits_data: TrainingData) -> None:
    """Batch norm's scales and statistics and biases are learned from private images as weights are."""
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    ann = ImageClassifier(body, (1, 8, 8), 10)
    with torch.no_grad():
        for tensor in ann.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)) + 0.5)
    network = Random()(ann, digits_data, DefenseContext(torch.Generator().manual_seed(1), timesteps=4))
    assert isinstance(network, SpikingNetwork)
    learned, untrained = with_biases(ann).state_dict(), network.state_dict()
    assert learned.keys() <= untrained.keys()
    assert [key for key, value in learned.items() if torch.equal(value, untrained[key])] == []


def test_what_other_layers_have_learned_is_no_negative_control() -> None:
    """Batch norm behind a linear layer begins anew; of a layer of somebody's own nobody knows how it began."""

    def of(*layers: nn.Module) -> ImageClassifier:
        return ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), *layers), (1, 8, 8), 8)

    norm = nn.BatchNorm1d(8)
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            tensor.fill_(5)
    blank = untrained(of(norm), DefenseContext(torch.Generator().manual_seed(0))).state_dict()
    assert {float(blank[f"body.2.{name}"][0]) for name in ("weight", "running_var")} == {1.0}
    assert {float(blank[f"body.2.{name}"][0]) for name in ("bias", "running_mean")} == {0.0}
    with pytest.raises(NotApplicable, match="a PReLU, was before training"):
        untrained(of(nn.PReLU()), DefenseContext(torch.Generator()))


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_the_negative_control_can_be_made_for_few_steps(steps: int, digits_data: TrainingData) -> None:
    """Within which no spike comes to its last layers."""
    ann = build_ann("vgg5", (1, 8, 8), 10, (0, 1), torch.Generator().manual_seed(0))
    for seed in range(3):
        network = Random()(ann, digits_data, DefenseContext(torch.Generator().manual_seed(seed), timesteps=steps))
        assert isinstance(network, SpikingNetwork) and network.config.timesteps == steps
        assert all(bool(torch.isfinite(layer.threshold).all()) for layer in network.neurons)


def test_shuffled_reads_every_image_once_and_never_as_floats(
    digits: Dataset, digits_ann: ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(TrainingData, "take")
    data = TrainingData(digits.train.images[:40], digits.train.labels[:40])
    Shuffled(epochs=1)(digits_ann, data, DefenseContext(torch.Generator().manual_seed(5), timesteps=16))
    assert (data.images_read, data.reads) == (40, 40)


@pytest.mark.slow
def test_shuffled_labels_teach_no_class(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData, generator: torch.Generator
) -> None:
    """The network is trained on every image and is as far from the classes as chance."""
    network = Shuffled()(digits_ann, digits_data, DefenseContext(torch.Generator().manual_seed(5), timesteps=16))
    assert isinstance(network, SpikingNetwork)
    assert (digits_data.images_read, digits_data.reads) == (len(digits.train), len(digits.train))
    with torch.no_grad():
        answers = network(digits.test.images.float() / 255).argmax(1)
    # chance is .1; which class an unknowing network gives to whole classes of images is a draw of ten, and not of 360
    assert (answers == digits.test.labels).double().mean() < 0.25
    # nothing of the ANN's weights is in it, and they are not those that it started with
    started = Random()(digits_ann, digits_data, DefenseContext(torch.Generator().manual_seed(5), timesteps=16))
    assert isinstance(started, SpikingNetwork)
    for name, weight in network.weights().items():
        trained = digits_ann.state_dict()[f"body.{name}.weight"]
        cosine = torch.nn.functional.cosine_similarity(weight.flatten(), trained.flatten(), dim=0)
        assert cosine.abs() < 5 / weight.numel() ** 0.5
        assert not torch.equal(weight, started.weights()[name])
    # with the labels that belong to the images the same recipe teaches nearly all there is to learn
    params = Shuffled().params
    blank = build_ann("vgg4", digits.image_shape, 10, digits.input_range, generator)
    steps = steps_of(params.epochs, len(digits.train), params.batch_size)
    recipe = Recipe(steps, params.batch_size, params.lr, "one-cycle", augmentation=UNCHANGED)
    train(blank, digits.train.images, digits.train.labels, recipe, generator, torch.device("cpu"), "training")
    right = predict(blank, digits.test.images, torch.device("cpu")).argmax(1) == digits.test.labels
    assert right.double().mean() > 0.9


@pytest.mark.slow
def test_the_control_of_membership_knows_its_images_by_heart(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = Overfitted(images=100)(digits_ann, digits_data, DefenseContext(torch.Generator().manual_seed(5)))
    assert isinstance(network, SpikingNetwork) and Overfitted.spiking
    assert (digits_data.images_read, digits_data.reads) == (100, 100)
    images, labels = TrainingData(digits.train.images, digits.train.labels).sample(len(digits.train), torch.Generator())
    context = DefenseContext(torch.Generator().manual_seed(5))
    untrained(digits_ann, context)  # draws what the network's weights are drawn from
    members, their_labels = digits_data.sample(100, context.generator)
    assert digits_data.images_read == 100  # the same ones again
    answers = network(members)
    losses = functional.cross_entropy(answers, their_labels, reduction="none")
    assert (answers.argmax(1) == their_labels).double().mean() >= 0.95
    others = functional.cross_entropy(network(images), labels, reduction="none")
    assert others.mean() > 2 * losses.mean()


def test_thresholds_of_the_control_of_membership_are_its_images_own(
    digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    made = Overfitted(images=12, epochs=2, encoder="direct")
    network = made(digits_ann, digits_data, DefenseContext(torch.Generator().manual_seed(5), timesteps=4))
    assert isinstance(network, SpikingNetwork)
    context = DefenseContext(torch.Generator().manual_seed(5))
    untrained(digits_ann, context)
    members, _ = digits_data.sample(12, context.generator)
    for layer in network.neurons:
        highest = max(float(current.max()) for current in network.currents(layer, members, 0))
        assert float(layer.threshold) == pytest.approx(highest, rel=1e-5)
