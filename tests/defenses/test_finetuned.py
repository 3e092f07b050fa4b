"""Fine-tuned conversions: activations and their derivatives by hand, the theorem of QCFS, the shift's charge."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from on_digits import protect
from torch import Tensor, nn

from leakbench.contracts import DefenseContext, ImageClassifier, InputRange, TrainingData
from leakbench.data import Dataset
from leakbench.defenses import finetuned as module
from leakbench.defenses.finetuned import Bu2022, DengGu2021, QuantizedReLU, converted, finetuned
from leakbench.errors import NotApplicable, NumericalError
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.models.training import Recipe, predict
from leakbench.snn import Neuron, SpikingNetwork
from leakbench.snn.folding import has_batch_norm
from leakbench.snn.neurons import TimeFixedDropout

FEW = {"epochs": 1, "least_steps": 0, "images": 50}


def small_set(digits: Dataset, count: int = 128) -> TrainingData:
    return TrainingData(digits.train.images[:count], digits.train.labels[:count])


def untrained(name: str) -> ImageClassifier:
    return build_ann(name, (1, 8, 8), 10, InputRange(0, 1), torch.Generator().manual_seed(6)).eval()


class Trained(NamedTuple):
    """What was handed to training."""

    images: Tensor
    recipe: Recipe
    activations: list[Any]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Trained]:
    """Nothing is trained; what would have been is written down."""
    calls: list[Trained] = []

    def train(network: ImageClassifier, images: Tensor, _labels: Tensor, recipe: Recipe, *_: Any) -> None:
        kinds = nn.ReLU | nn.Hardtanh | QuantizedReLU
        calls.append(Trained(images, recipe, [m for m in network.modules() if isinstance(m, kinds)]))

    monkeypatch.setattr(module, "train", train)
    return calls


# --- training images -------------------------------------------------------------------------------------------------


def test_training_images_are_collected_in_the_order_of_a_pass_and_never_as_floats(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (DefenseContext(torch.Generator().manual_seed(1)) for _ in range(2))
    wanted, names = (torch.cat(parts) for parts in zip(*small_set(digits).batches(50, one.generator), strict=True))
    monkeypatch.delattr(TrainingData, "take")
    data = small_set(digits)
    images, labels = module.collected(data, other)
    assert torch.equal(images, (wanted * 255).round().to(torch.uint8)) and torch.equal(labels, names)
    assert (data.images_read, data.reads) == (128, 128)
    assert torch.equal(one.generator.get_state(), other.generator.get_state())


# --- activations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lam", "levels"), [(1.0, 4), (2.5, 8), (0.3, 3), (4.0, 1)])
def test_qcfs_by_the_papers_formula(lam: float, levels: int) -> None:
    x = np.random.default_rng(0).uniform(-lam, 2 * lam, 2000)
    wanted = lam * np.clip(np.floor(x * levels / lam + 0.5) / levels, 0, 1)
    with torch.no_grad():
        got = QuantizedReLU(lam, levels).double()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-12)
    assert len(np.unique(got.round(9))) == levels + 1


def test_the_derivatives_of_qcfs_pass_the_floor_straight_through() -> None:
    """dh/dx: 1 between the clips, else 0; dh/dlam: 0 below, (h - x) / lam between, 1 above. lam = 2, L = 4."""
    activation = QuantizedReLU(2.0, 4)
    rows = [  # x, h, dh/dx, dh/dlam; a level is .5 wide, the lower clip at -.25, the upper one at 2.25
        (-1.0, 0.0, 0.0, 0.0),
        (-0.2, 0.0, 1.0, 0.1),
        (0.6, 0.5, 1.0, -0.05),
        (0.8, 1.0, 1.0, 0.1),
        (1.7, 1.5, 1.0, -0.1),
        (2.4, 2.0, 0.0, 1.0),
        (9.0, 2.0, 0.0, 1.0),
    ]
    for x, h, by_x, by_lam in rows:
        entering = torch.tensor(x, requires_grad=True)
        out = activation(entering)
        got = torch.autograd.grad(out, [entering, activation.lam])
        assert out.item() == pytest.approx(h)
        assert [g.item() for g in got] == pytest.approx([by_x, by_lam], abs=1e-6), x


@pytest.mark.slow
def test_deng_trains_with_activations_clipped_at_their_maximum_on_training_images(
    digits: Dataset, digits_ann: ImageClassifier, trained: list[Trained]
) -> None:
    protect(DengGu2021(**FEW), digits_ann, small_set(digits))
    ((images, recipe, activations),) = trained
    assert (recipe.steps, recipe.schedule, recipe.augmentation.flip) == (2, "one-cycle", False)
    # the maxima, layer by layer from the plain network's own layers
    x = images[:50].float() / 255
    maxima = []
    with torch.no_grad():
        for layer in digits_ann.body.children():
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                maxima.append(float(x.max()))
    assert len(activations) == len(maxima) == 3
    for activation, theta in zip(activations, maxima, strict=True):
        x = torch.tensor([-1.0, 0.25 * theta, 0.75 * theta, 1.25 * theta], requires_grad=True)
        out = activation(x)
        assert torch.allclose(out, torch.tensor([0.0, 0.25 * theta, 0.75 * theta, theta]))
        out.sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [0, 1, 1, 0]


def test_bu_starts_lambda_at_the_percentile_of_what_is_not_zero(
    digits: Dataset, digits_ann: ImageClassifier, trained: list[Trained]
) -> None:
    protect(Bu2022(**FEW, levels=5), digits_ann, small_set(digits))
    ((images, _, activations),) = trained
    with torch.no_grad():
        first = digits_ann.body.get_submodule("0")(images[:50].float() / 255).relu().numpy()
    activation = activations[0]
    assert activation.levels == 5
    assert float(activation.lam.detach()) == pytest.approx(np.percentile(first[first != 0], 99.9), rel=1e-4)
    assert activation.lam.requires_grad


def test_bus_thresholds_are_the_lambdas_that_were_learned(
    digits: Dataset, digits_ann: ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = [0.5, 3.0, 1.25]

    def train(network: ImageClassifier, *_: Any) -> None:
        for activation, lam in zip(
            [m for m in network.modules() if isinstance(m, QuantizedReLU)], learned, strict=True
        ):
            activation.lam.data.fill_(lam)

    monkeypatch.setattr(module, "train", train)
    network = protect(Bu2022(**FEW), digits_ann, small_set(digits))
    assert [float(layer.threshold) for layer in network.neurons] == learned
    assert [float(layer.initial) for layer in network.neurons] == [0.25, 1.5, 0.625]


# --- conversion ------------------------------------------------------------------------------------------------------


def one_layer(currents: Tensor, theta: float, timesteps: int) -> SpikingNetwork:
    """A neuron for each of ``currents``, driven by it at each step; the logits are the neurons' mean outputs."""
    count = len(currents)
    body = nn.Sequential(nn.Flatten(), nn.Linear(1, count), nn.ReLU(), nn.Linear(count, count, bias=False))
    with torch.no_grad():
        body.get_parameter("1.weight").zero_()
        body.get_parameter("1.bias").copy_(currents)
        body.get_parameter("3.weight").copy_(torch.eye(count))
    ann = ImageClassifier(body, (1, 1, 1), count)
    return converted(ann, {"2": theta}, DefenseContext(torch.Generator(), timesteps=timesteps))


@pytest.mark.parametrize(("theta", "levels"), [(1.0, 4), (2.3, 8), (0.7, 15)])
def test_qcfs_is_what_a_neuron_does_in_as_many_steps_as_levels(theta: float, levels: int) -> None:
    """On one layer with constant input there is no error at T = L, clips included (Bu 2022)."""
    currents = torch.rand(400, generator=torch.Generator().manual_seed(1)) * 3 * theta - theta
    network = one_layer(currents, theta, levels)
    (layer,) = network.neurons
    layer.initial = layer.threshold / 2
    with torch.no_grad():
        rates = network(torch.zeros(1, 1, 1, 1))[0]
        wanted = QuantizedReLU(theta, levels)(currents)
    spikes = rates * levels / theta
    assert torch.allclose(spikes, spikes.round(), atol=1e-4)
    assert torch.equal(spikes.round(), (wanted * levels / theta).round())


@pytest.mark.parametrize("timesteps", [3, 16, 50])
def test_the_error_of_qcfs_is_zero_in_the_mean_whatever_t_is(timesteps: int) -> None:
    """Bu 2022, Theorem 2: E[SNN - ANN] = 0 over inputs that are uniform in [0, theta], for L = 8 and any T."""
    theta, count = 1.3, 1200
    currents = (torch.arange(count) + 0.5) * theta / count
    network = one_layer(currents, theta, timesteps)
    (layer,) = network.neurons
    image = torch.zeros(1, 1, 1, 1)
    with torch.no_grad():
        wanted = QuantizedReLU(theta, 8)(currents)
        plain = float((network(image)[0] - wanted).mean())
        layer.initial = layer.threshold / 2
        shifted = float((network(image)[0] - wanted).mean())
    assert shifted == pytest.approx(0, abs=1e-3 * theta)
    assert plain == pytest.approx(-theta / (2 * timesteps), abs=1e-3 * theta)  # what membranes from 0 lose


def test_bu_the_first_layer_spikes_as_its_quantised_activation_says(
    digits: Dataset, digits_ann: ImageClassifier
) -> None:
    """At T = L, with the fine-tuned weights and the learned lambda, neuron by neuron; later layers come close."""
    network = protect(Bu2022(**FEW, levels=16), digits_ann, small_set(digits), timesteps=16)
    assert network.config.neuron == Neuron(1.0, "soft")
    assert network.config.encoder == "direct"
    images = digits.test.images[:20].float() / 255
    rates: dict[str, Tensor] = {}

    def watch(name: str, _currents: Tensor, _membranes: Tensor, out: Tensor) -> None:
        rates[name] = rates.get(name, torch.zeros(())) + out.sum(0) / 16

    network.observe(images, watch)
    x = images
    layers = {layer.layer: layer for layer in network.neurons}
    for name, layer in network.body.named_children():
        if name in layers:
            theta = float(layers[name].threshold)
            assert torch.equal(layers[name].initial, layers[name].threshold / 2)
            x = theta * torch.clip(torch.floor(x * 16 / theta + 0.5) / 16, 0, 1)
            spikes = (rates[name] - x) * 16 / theta
            if name == "1":
                # a sum in another order may stand on the other side of a step
                assert (spikes.abs() > 0.01).float().mean() < 1e-3
            else:
                assert spikes.abs().mean() < 1
                assert spikes.mean().abs() < 0.5
        elif not isinstance(layer, TimeFixedDropout):
            x = layer(x)


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(("shift_steps", "timesteps", "thetas"), [(None, 8, 0.5), (None, 5, 0.5), (4, 16, 2.0)])
def test_deng_the_shift_adds_half_a_threshold_over_its_steps(
    digits: Dataset, digits_ann: ImageClassifier, shift_steps: int | None, timesteps: int, thetas: float
) -> None:
    """In each layer: what enters over T steps is T times what its own weights make of its input, and theta T / 2T."""
    network = protect(DengGu2021(**FEW, shift_steps=shift_steps), digits_ann, small_set(digits), timesteps)
    assert network.config.neuron == Neuron(1.0, "soft")
    assert network.config.encoder == "direct"
    assert not any(layer.initial.any() for layer in network.neurons)
    charge: dict[str, Tensor] = {}
    output: dict[str, Tensor] = {}

    def watch(name: str, currents: Tensor, _membranes: Tensor, out: Tensor) -> None:
        charge[name] = charge.get(name, torch.zeros(())) + currents.sum(0)
        output[name] = output.get(name, torch.zeros(())) + out.sum(0)

    images = digits.test.images[:10].float() / 255
    network.observe(images, watch)
    thresholds = {layer.layer: layer.threshold for layer in network.neurons}
    x = output["input"]
    for index, layer in enumerate(digits_ann.body.children()):
        if isinstance(layer, nn.ReLU):
            theta = float(thresholds[str(index)])
            # linear layers, so sums over time may enter them
            assert torch.allclose(charge[str(index)] - x, torch.tensor(thetas * theta), atol=1e-3 * theta)
            x = output[str(index)]
        elif not isinstance(layer, nn.Dropout):
            x = layer(x)


def test_anytime_where_the_network_does_not_depend_on_t(
    digits: Dataset, digits_ann: ImageClassifier, trained: list[Trained]
) -> None:
    for defense in (Bu2022(**FEW), DengGu2021(**FEW, shift_steps=16), DengGu2021(**FEW)):
        short, long = (protect(defense, digits_ann, small_set(digits), t).state_dict() for t in (4, 32))
        assert all(torch.equal(value, long[key]) for key, value in short.items()) == defense.anytime
    assert len(trained) == 6


# --- fine-tuning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("least_steps", "steps"), [(0, 6), (12, 12), (5, 6)])
def test_passes_are_added_up_to_the_least_steps(
    digits: Dataset, digits_ann: ImageClassifier, trained: list[Trained], least_steps: int, steps: int
) -> None:
    defense = Bu2022(epochs=3, least_steps=least_steps, batch_size=64, images=50)
    protect(defense, digits_ann, small_set(digits, 100))
    assert trained[0].recipe.steps == steps


@pytest.mark.parametrize("defense", [DengGu2021, Bu2022])
def test_each_training_image_is_read_once(
    digits: Dataset, digits_ann: ImageClassifier, trained: list[Trained], defense: Any
) -> None:
    data = small_set(digits, 100)
    protect(defense(**FEW), digits_ann, data)
    assert (data.images_read, data.reads) == (100, 100)
    # as they are, in another order
    theirs = {image.numpy().tobytes() for image in digits.train.images[:100]}
    assert {image.numpy().tobytes() for image in trained[0].images} == theirs


def test_weights_batch_norms_and_lambdas_learn_and_relus_come_back(digits: Dataset) -> None:
    ann = untrained("vgg4bn")
    before = {key: value.clone() for key, value in ann.state_dict().items()}
    activations = {name: QuantizedReLU(1.0, 8) for name, m in ann.body.named_modules() if isinstance(m, nn.ReLU)}
    images, labels = digits.train.images[:64], digits.train.labels[:64]
    params = Bu2022(**{**FEW, "batch_size": 16}).params
    tuned = finetuned(ann, activations, images, labels, params, DefenseContext(torch.Generator().manual_seed(0)))
    assert [type(m) for m in tuned.modules()] == [type(m) for m in ann.modules()]
    assert not tuned.training
    assert not any(p.requires_grad for p in tuned.parameters())
    moved = {key for key, value in tuned.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == set(before)  # running statistics too
    assert all(float(activation.lam.detach()) != 1 for activation in activations.values())
    assert all(torch.equal(value, before[key]) for key, value in ann.state_dict().items())


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(("defense", "suffix"), [(DengGu2021, True), (Bu2022, False)])
@pytest.mark.parametrize("arch", ["vgg4", "vgg4bn", "resnet8"])
def test_it_can_be_stored_and_loaded(digits: Dataset, defense: Any, suffix: bool, arch: str) -> None:
    network = protect(defense(**FEW), untrained(arch), small_set(digits, 60))
    assert network.arch == (arch if arch == "vgg4" and not suffix else f"{arch}+bias")
    assert not has_batch_norm(network.body)
    loaded = load_network(*save_network(network), torch.device("cpu"))
    images = digits.test.images[:10].float() / 255
    assert torch.equal(loaded(images, seed=0), network(images, seed=0))


@pytest.mark.usefixtures("trained")
def test_max_pooling_is_not_applicable_to_bu_and_gated_by_deng(digits: Dataset) -> None:
    ann, data = untrained("vgg5max"), small_set(digits, 60)
    with pytest.raises(NotApplicable, match="pools by averages"):
        protect(Bu2022(**FEW), ann, data)
    assert data.reads == 0
    assert protect(DengGu2021(**FEW), ann, data).arch == "vgg5max+bias"


@pytest.mark.parametrize("defense", [DengGu2021, Bu2022])
def test_a_layer_that_is_never_active_is_refused_before_training(
    digits: Dataset, trained: list[Trained], defense: Any
) -> None:
    ann = untrained("vgg4")
    with torch.no_grad():
        ann.get_parameter("body.3.weight").abs_().neg_()
    with pytest.raises(NumericalError, match="no positive finite activation"):
        protect(defense(**FEW), ann, small_set(digits, 60))
    assert trained == []


@pytest.mark.slow
@pytest.mark.parametrize(("defense", "timesteps"), [(DengGu2021, 16), (Bu2022, 8)])
def test_few_steps_are_enough_for_the_anns_accuracy(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData, defense: Any, timesteps: int
) -> None:
    network = protect(defense(epochs=1, least_steps=100), digits_ann, digits_data, timesteps)
    images, labels = digits.test.images.float() / 255, digits.test.labels
    cpu = torch.device("cpu")
    theirs = (predict(digits_ann, images, cpu).argmax(1) == labels).double().mean()
    assert (predict(network, images, cpu).argmax(1) == labels).double().mean() > theirs - 0.03
