"""SNN calibration against the same algorithm in a plain loop: one step and one layer at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from on_digits import protect, sampled
from torch import Tensor, nn

from leakbench.contracts import DefenseContext, ImageClassifier, InputRange, TrainingData
from leakbench.data import Dataset
from leakbench.defenses.calibrated import Li2021, least_error_thresholds
from leakbench.defenses.normalization import Rueckauer2017
from leakbench.errors import NumericalError
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.snn import Neuron, SpikingNetwork, mean_activations, mean_outputs
from leakbench.snn.folding import with_biases

MODES = ["light", "advanced"]


# --- the plain loop --------------------------------------------------------------------------------------------------


@torch.no_grad()
def relu_outputs(body: nn.Sequential, x: Tensor) -> list[Tensor]:
    found = []
    for module in body:
        x = module(x)
        if isinstance(module, nn.ReLU):
            found.append(x)
    return found


def thresholds_by_hand(body: nn.Sequential, x: Tensor, steps: int) -> list[float]:
    """For each layer the best of 95 candidates on all outputs, zeros too."""
    found = []
    for out in relu_outputs(body, x):
        a = out.double().numpy()
        candidates = [(1 - 0.01 * i) * a.max() for i in range(95)]
        errors = [((np.floor((a * steps / v).clip(0, steps)) * v / steps - a) ** 2).mean() for v in candidates]
        found.append(candidates[int(np.argmin(errors))])
    return found


@torch.no_grad()
def calibrated_by_hand(
    body: nn.Sequential, x: Tensor, steps: int, mode: str, thetas: list[float]
) -> tuple[list[Tensor], list[Tensor]]:
    """Biases and initial membranes of the layers that spike."""
    layers: list[nn.Module] = [m for m in body if isinstance(m, nn.Conv2d | nn.Linear)][:-1]
    between: list[list[nn.Module]] = [[]]
    for module in body:
        if isinstance(module, nn.ReLU):
            between.append([])
        elif not isinstance(module, nn.Conv2d | nn.Linear | nn.Dropout):
            between[-1].append(module)
    wanted = [out.mean(0) for out in relu_outputs(body, x)]
    extra = [torch.full((w.shape[0],), theta / (2 * steps)) for w, theta in zip(wanted, thetas, strict=True)]
    initial = [torch.zeros_like(w) for w in wanted]
    for depth in range(len(layers)):
        membranes = [v.expand(len(x), *v.shape).clone() for v in initial]
        total = torch.zeros_like(wanted[depth])
        for _ in range(steps):
            spikes = x
            for i in range(depth + 1):
                for module in between[i]:
                    spikes = module(spikes)
                current = layers[i](spikes)
                current = current + (extra[i][:, None, None] if current.dim() == 4 else extra[i])
                membranes[i] = membranes[i] + current
                spikes = (membranes[i] > thetas[i]).float() * thetas[i]
                membranes[i] = membranes[i] - spikes
            total += spikes.mean(0)
        missing = wanted[depth] - total / steps
        if mode == "advanced":
            initial[depth] = steps * missing
        else:
            extra[depth] = extra[depth] + (missing.mean((1, 2)) if missing.dim() == 3 else missing)
    biases = [layer.bias.detach() + more for layer, more in zip(layers, extra, strict=True)]  # type: ignore[union-attr, operator]
    return biases, initial


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_algorithm_of_the_paper(
    mode: str, digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    steps, count = 6, 20
    network = protect(Li2021(mode=mode, images=count), digits_ann, digits_data, steps)
    body, x = with_biases(digits_ann).body, sampled(digits, count)
    assert isinstance(body, nn.Sequential)
    thetas = [float(layer.threshold) for layer in network.neurons]
    assert thetas == pytest.approx(thresholds_by_hand(body, x, steps), rel=1e-5)
    biases, initial = calibrated_by_hand(body, x, steps, mode, thetas)
    for layer, bias, membrane in zip(network.neurons, biases, initial, strict=True):
        # float32 sums in another order: here and there a spike of one image may come at one step or not
        a_spike = float(layer.threshold) / count
        found = network.feeder(layer).bias
        assert found is not None
        for mine, theirs, spike in ((found, bias, a_spike / steps), (layer.initial, membrane, a_spike)):
            difference = (mine - theirs).abs()
            assert float(difference.max()) < 1.5 * spike
            assert float(difference.mean()) < 0.02 * spike
    for name, weight in network.weights().items():
        assert torch.equal(weight, digits_ann.body.get_parameter(f"{name}.weight"))
    assert (digits_data.images_read, digits_data.reads) == (count, count)


@pytest.mark.slow
def test_thresholds_are_lower_the_fewer_steps_there_are(digits: Dataset, digits_ann: ImageClassifier) -> None:
    """Few steps make steps of V / T wide: clipping the few large activations costs less."""
    x, folded = sampled(digits, 100), with_biases(digits_ann)
    found = [
        least_error_thresholds(folded, x, DefenseContext(torch.Generator(), timesteps=steps)) for steps in (4, 32, 1024)
    ]
    for name in found[0]:
        assert found[0][name] < found[1][name] <= found[2][name]


@pytest.mark.slow
def test_light_moves_biases_and_advanced_initial_membranes(
    digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    light, advanced = (protect(Li2021(mode=mode, images=30), digits_ann, digits_data) for mode in MODES)
    assert protect(Li2021(images=30), digits_ann, digits_data).state_dict().keys() == advanced.state_dict().keys()
    for network in (light, advanced):
        assert (network.config.encoder, network.config.neuron) == ("direct", Neuron(reset="soft"))
        assert network.arch == "vgg4+bias"
    shapes = [(32, 8, 8), (64, 4, 4), (128,)]
    for mine, theirs, shape in zip(light.neurons, advanced.neurons, shapes, strict=True):
        assert torch.equal(mine.initial, torch.tensor(0.0))
        assert theirs.initial.shape == shape
        assert theirs.initial.abs().max() > 0
        shift = theirs.threshold / (2 * 8)
        bias, moved = advanced.feeder(theirs).bias, light.feeder(mine).bias
        assert bias is not None
        assert moved is not None
        assert torch.equal(bias, shift.expand_as(bias))  # vgg4 has none of its own
        assert not torch.allclose(moved, shift.expand_as(moved))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_corrected_layers_put_out_what_the_ann_does_in_the_mean(
    mode: str, digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    steps = 8
    x = sampled(digits, 60)
    network = protect(Li2021(mode=mode, images=60), digits_ann, digits_data, steps)
    bare = SpikingNetwork.from_ann(with_biases(digits_ann), network.config)
    for layer, other in zip(bare.neurons, network.neurons, strict=True):
        layer.set_threshold(other.threshold)
        bare.add_current(layer, layer.threshold / (2 * steps))
    wanted = mean_activations(digits_ann, x)
    for layer, other in zip(bare.neurons, network.neurons, strict=True):
        before, after = (
            (mean_outputs(net, one, x, 0) - wanted[layer.layer]) for net, one in ((bare, layer), (network, other))
        )
        if mode == "light" and before.dim() == 3:
            before, after = before.mean((1, 2)), after.mean((1, 2))
        # neurons that are silent or saturated answer to no small correction, so that some of the error stays
        assert float(after.abs().mean()) < 0.8 * float(before.abs().mean())


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_at_few_steps_it_beats_what_is_not_calibrated(
    mode: str, digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    x, labels = digits.test.images.float() / 255, digits.test.labels

    def accuracy(logits: Tensor) -> float:
        return float((logits.argmax(1) == labels).double().mean())

    with torch.no_grad():
        mine = accuracy(protect(Li2021(mode=mode), digits_ann, digits_data, 4)(x))
        other = accuracy(protect(Rueckauer2017(), digits_ann, digits_data, 4)(x))
        whole = accuracy(digits_ann(x))
    assert mine > other
    assert mine > whole - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg4bn", "resnet8", "vgg5max"])
@pytest.mark.parametrize("mode", MODES)
def test_other_networks_convert_and_come_back_from_the_store(
    name: str, mode: str, digits: Dataset, digits_data: TrainingData
) -> None:
    ann = build_ann(name, (1, 8, 8), 10, InputRange(0.0, 1.0), torch.Generator().manual_seed(1)).eval()
    network = protect(Li2021(mode=mode, images=20), ann.requires_grad_(False), digits_data, 12)
    assert network.arch == name + "+bias"
    x = digits.test.images[:20].float() / 255
    tensors, record = save_network(network)
    back = load_network(tensors, record, torch.device("cpu"))
    assert isinstance(back, SpikingNetwork)
    for layer, kept in zip(network.neurons, back.neurons, strict=True):
        assert torch.equal(layer.initial, kept.initial)
    assert torch.equal(back(x, seed=1), network(x, seed=1))
    # untrained logits differ little between classes; to the ANN's they are closer than its own spread
    assert float((network(x) - ann(x)).square().mean()) < 0.3 * float(ann(x).var())


@pytest.mark.slow
def test_the_fast_path_starts_at_every_neurons_own_membrane(
    digits: Dataset, digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    network = protect(Li2021(images=30), digits_ann, digits_data, 16)
    x = digits.test.images[:50].float() / 255
    fast = network.simulate(x)
    network.fast = False
    plain = network.simulate(x)
    for name, count in plain.spikes.items():
        assert fast.spikes[name] == pytest.approx(count, rel=1e-3)
    # a spike at a float tie changes its image, and no other
    apart = (fast.logits - plain.logits).abs().amax(1) > 1e-4 * plain.logits.std()
    assert int(apart.sum()) <= 2


def test_a_layer_that_is_never_active_is_an_error_of_numbers(
    digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    dead = with_biases(digits_ann)
    with torch.no_grad():
        dead.body.get_parameter("3.weight").abs_().neg_()
    with pytest.raises(NumericalError, match="layer '4' has no positive finite activation"):
        protect(Li2021(images=9), dead, digits_data)


@pytest.mark.slow
def test_it_depends_on_t(digits_ann: ImageClassifier, digits_data: TrainingData) -> None:
    assert not Li2021().anytime
    short, long = (protect(Li2021(images=20), digits_ann, digits_data, steps) for steps in (4, 8))
    assert float(short.neurons[0].threshold) != float(long.neurons[0].threshold)
