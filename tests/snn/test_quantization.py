"""Weights of eight bits: as near as they can be, found again bit for bit, and nothing else changed."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import NotApplicable
from leakbench.models.storage import build_ann
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.quantization import integers_of, product, quantized, weight_layers

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def ann(model: str = "vgg4") -> ImageClassifier:
    return build_ann(model, (1, 8, 8), 3, InputRange(0.0, 1.0), torch.Generator().manual_seed(0)).eval()


def spiking() -> SpikingNetwork:
    network = SpikingNetwork.from_ann(ann(), SpikingConfig(6))
    for layer in network.neurons:
        layer.set_threshold(0.3)
    return network.eval()


@pytest.mark.parametrize("make", [ann, lambda: ann("vgg4bn"), lambda: ann("resnet8"), spiking])
def test_weights_are_the_nearest_of_255_steps_and_all_else_is_as_it_was(make: object) -> None:
    network = make()  # type: ignore[operator]
    before = copy.deepcopy(network.state_dict())
    made = quantized(network)
    after = made.state_dict()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert type(made) is type(network) and made.arch == network.arch
    weights = {f"body.{name}.weight" for name in weight_layers(network)}
    assert len(weights) >= 4 and weights <= after.keys() == before.keys()
    for name, value in after.items():
        if name not in weights:
            assert torch.equal(value, before[name])
            continue
        rows, whole = before[name].flatten(1), value.flatten(1)
        step = rows.abs().amax(1, keepdim=True) / 127
        assert ((whole - rows).abs() <= step * (0.5 + 1e-4)).all()
        assert not torch.equal(whole, rows)
        form = integers_of(value)
        assert form is not None and form[1].shape == (len(rows),)
        assert (form[0].flatten(1).abs().amax(1) == 127).all()
        assert torch.equal(form[0].double() * form[1].double().view(-1, *[1] * (value.dim() - 1)), value.double())
    again = quantized(made).state_dict()
    assert all(torch.equal(again[name], value) for name, value in after.items())


def test_the_quantised_network_answers_and_has_gradients() -> None:
    network, made = spiking(), quantized(spiking())
    near, far = made(IMAGES), network(IMAGES, seed=0)
    assert near.shape == far.shape
    images = IMAGES.clone().requires_grad_()
    made(images).sum().backward()
    assert images.grad is not None and images.grad.abs().max() > 0


@settings(max_examples=60, deadline=None)
@given(scale=st.floats(2**-20, 2**20, width=32), most=st.integers(1, 127), seed=st.integers(0, 999))
def test_any_scale_is_found_again(scale: float, most: int, seed: int) -> None:
    """Also one that rounds each product, as of files that others wrote."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(-most - 1, most + 1, (3, 20), generator=generator).to(torch.int8)
    weight = product(numbers, torch.tensor(scale))
    form = integers_of(weight)
    assert form is not None and form[0].dtype == torch.int8
    assert torch.equal(product(*form), weight)


def test_whole_numbers_keep_the_scale_1_and_other_weights_have_no_such_form() -> None:
    weight = torch.tensor([[2.0, -100.0, 4.0], [0.0, 0.0, 0.0], [-128.0, 64.0, 0.0]])
    form = integers_of(weight)
    assert form is not None and form[1].tolist() == [1.0, 1.0, 1.0] and torch.equal(form[0].float(), weight)
    torch.manual_seed(0)
    for other in (torch.randn(4, 9), torch.randn(4, 300), weight + 0.3, torch.tensor([[1.0, 129.0]]), weight.double()):
        assert integers_of(other) is None


def test_a_channel_of_zeros_stays_one() -> None:
    network = ann()
    layer = next(iter(weight_layers(network).values()))
    layer.weight.data[0] = 0
    made = next(iter(weight_layers(quantized(network)).values())).weight
    assert torch.isfinite(made).all() and not made[0].any() and made[1].any()


def test_networks_without_such_weights_are_refused() -> None:
    body = nn.Sequential(nn.Flatten(), nn.ReLU())
    with pytest.raises(NotApplicable, match="it has no convolution and no linear layer"):
        quantized(ImageClassifier(body, (1, 2, 2), 4))
    body = nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(NotApplicable, match="the weight of '1' is computed of other tensors"):
        quantized(ImageClassifier(body, (1, 2, 2), 4))
