"""Rewritten networks compute what they did: batch norms folded, biases, pools that spike; and what can't be folded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import NotApplicable, UnknownName
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.folding import has_batch_norm, with_biases, with_spiking_pools

SHAPE = (1, 8, 8)
NORMED = ["vgg4bn", "vgg5bn", "resnet8", "resnet20"]


def network(name: str, shape: tuple[int, int, int] = SHAPE) -> ImageClassifier:
    """In doubles, with batch norms as training leaves them: other statistics and factors than 0 and 1."""
    generator = torch.Generator().manual_seed(3)
    ann = build_ann(name, shape, 10, InputRange(-1.0, 1.0), generator)
    for module in ann.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor, low, high in (
                (module.running_mean, -1.0, 1.0), (module.running_var, 0.2, 3.0),
                (module.weight.data, 0.5, 1.5), (module.bias.data, -0.5, 0.5),
            ):  # fmt: skip
                tensor.uniform_(low, high, generator=generator)
    return ann.double().eval().requires_grad_(False)


def images(shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.rand(5, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def same(mine: Tensor, theirs: Tensor) -> None:
    """In doubles, some layers deep: nothing but rounding."""
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", NORMED)
def test_a_folded_network_computes_what_its_batch_norms_did(name: str) -> None:
    ann = network(name)
    before = {key: value.clone() for key, value in ann.state_dict().items()}
    folded = with_biases(ann)
    same(folded(images()), ann(images()))
    assert has_batch_norm(ann.body)
    assert not has_batch_norm(folded.body)
    assert all(m.bias is not None for m in folded.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert (folded.arch, folded.image_shape, folded.classes, folded.input_range) == (name + "+bias", SHAPE, 10, (-1, 1))
    # the ANN is as it was, and shares nothing
    assert all(torch.equal(value, before[key]) for key, value in ann.state_dict().items())
    for parameter in folded.parameters():
        parameter.data.fill_(7)
    assert all(torch.equal(value, before[key]) for key, value in ann.state_dict().items())


@pytest.mark.parametrize("name", NORMED)
def test_float32_folds_as_well(name: str) -> None:
    ann = network(name).float()
    folded, wanted = with_biases(ann)(images().float()), ann(images().float())
    torch.testing.assert_close(folded, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_one_convolution_by_hand() -> None:
    """W <- g / sqrt(v + eps) W, b <- g / sqrt(v + eps) (b - m) + beta (Rueckauer 2017), in NumPy."""
    conv, norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=0.5)
    values = {"weight": [2.0, -1.0], "bias": [0.3, 0.4], "running_mean": [1.0, -2.0], "running_var": [3.5, 0.0]}
    for key, value in values.items():
        getattr(norm, key).data.copy_(torch.tensor(value))
    body = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    folded = with_biases(ImageClassifier(body, SHAPE, 3))
    g, beta, mean, var = (np.array(value) for value in values.values())
    factor = g / np.sqrt(var + 0.5)
    weight, bias = (p.detach().double().numpy() for p in (conv.weight, conv.bias))
    assert folded.body.get_parameter("0.weight").detach().numpy().ravel() == pytest.approx(weight.ravel() * factor)
    assert folded.body.get_parameter("0.bias").detach().numpy() == pytest.approx(factor * (bias - mean) + beta)
    assert [type(m) for m in folded.body] == [nn.Conv2d, nn.Identity, nn.ReLU, nn.Flatten, nn.Linear]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["vgg4", "vgg5max"])
def test_without_batch_norm_biases_are_all_that_is_new(name: str) -> None:
    ann = network(name)
    biased = with_biases(ann)
    assert torch.equal(biased(images()), ann(images()))
    layers = [m for m in biased.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert all(torch.equal(layer.bias, torch.zeros_like(layer.bias)) for layer in layers)


@pytest.mark.parametrize(("name", "pools"), [("vgg4", 2), ("vgg5", 3), ("vgg4bn", 2), ("resnet8", 1)])
def test_pools_that_spike_change_nothing_in_the_ann(name: str, pools: int) -> None:
    ann = network(name)
    pooled = with_spiking_pools(ann)
    assert torch.equal(pooled(images()), ann(images()))
    relus = [sum(isinstance(m, nn.ReLU) for m in one.modules()) for one in (ann, pooled)]
    assert relus[1] == relus[0] + pools
    assert pooled.arch == name + "+pools"
    spiking = SpikingNetwork.from_ann(pooled, SpikingConfig(3))
    assert len(spiking.neurons) == relus[1]


def test_rewriting_twice_changes_no_more() -> None:
    once = with_spiking_pools(with_biases(network("vgg4bn")))
    twice = with_biases(with_spiking_pools(once))
    assert once.arch == twice.arch == "vgg4bn+bias+pools"
    assert repr(once) == repr(twice)
    assert torch.equal(once(images()), twice(images()))


@pytest.mark.parametrize("name", NORMED)
def test_a_conversion_folds_by_itself(name: str) -> None:
    ann = network(name)
    spiking = SpikingNetwork.from_ann(ann, SpikingConfig(3)).double()
    assert spiking.arch == name + "+bias"
    same(spiking.reconvert()(images()), ann(images()))
    kept = SpikingNetwork.from_ann(ann, SpikingConfig(3), fold=False)
    assert kept.arch == name
    assert has_batch_norm(kept.body)


# --- kept and built again --------------------------------------------------------------------------------------------

REWRITES: dict[str, Callable[[ImageClassifier], ImageClassifier]] = {
    "+bias": with_biases,
    "+pools": with_spiking_pools,
    "+bias+pools": lambda ann: with_spiking_pools(with_biases(ann)),
    "+pools+bias": lambda ann: with_biases(with_spiking_pools(ann)),
}


@pytest.mark.parametrize("rewrite", list(REWRITES))
@pytest.mark.parametrize("name", ["vgg4", "vgg4bn", "resnet8"])
@pytest.mark.parametrize("spiking", [False, True])
def test_rewritten_networks_come_back_from_files(name: str, rewrite: str, spiking: bool, tmp_path: Path) -> None:
    ann: Any = REWRITES[rewrite](network(name).float())
    assert ann.arch == name + rewrite
    if spiking:
        ann = SpikingNetwork.from_ann(ann, SpikingConfig(6))
        for layer in ann.neurons:
            layer.set_threshold(0.7)
    tensors, record = save_network(ann)
    save_file(tensors, tmp_path / "tensors.safetensors")
    back = load_network(
        load_file(tmp_path / "tensors.safetensors"), json.loads(json.dumps(record)), torch.device("cpu")
    )
    assert type(back) is type(ann)
    assert back.arch == ann.arch
    # a spiking network folds what is left: its own name says so
    assert has_batch_norm(back) == has_batch_norm(ann)
    x = images().float()
    if isinstance(back, SpikingNetwork):
        assert back.simulate(x, seed=1).spikes == ann.simulate(x, seed=1).spikes
        assert torch.equal(back(x, seed=1), ann(x, seed=1))
    else:
        assert torch.equal(back(x), ann(x))


def test_an_unknown_rewriting_is_named() -> None:
    with pytest.raises(UnknownName, match=r"'biases'.*bias"):
        build_ann("vgg4+biases", SHAPE, 10, InputRange(0.0, 1.0))


# --- what can't be folded --------------------------------------------------------------------------------------------


class Shared(nn.Module):
    """A convolution whose output a batch norm and a sum take."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu, self.out = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        logits: Tensor = self.out(self.relu(self.norm(x) + x).flatten(1))
        return logits


class Twice(nn.Module):
    """One convolution and batch norm, used at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)
        self.relu1, self.relu2, self.out = nn.ReLU(), nn.ReLU(), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm(self.conv(x)))
        logits: Tensor = self.out(self.relu2(self.norm(self.conv(x))).flatten(1))
        return logits


class Twisted(nn.Sequential):
    """Its way depends on its input: there is no graph to be had."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def rest(maps: int) -> list[nn.Module]:
    return [nn.ReLU(), nn.Flatten(), nn.Linear(maps * 64, 3)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1), *rest(2)), "'0' can't be folded: it needs"),
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.BatchNorm2d(2), *rest(2)), "'2' can't be folded: it needs"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, track_running_stats=False), *rest(2)),
            "needs running statistics",
        ),
        (Shared(), "'norm' can't be folded: it needs"),
        (Twice(), "'norm' can't be folded: it needs"),
        (Twisted(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), *rest(2)), "the network can't be traced"),
    ],
    ids=["first", "behind a ReLU", "no statistics", "shared", "twice", "no graph"],
)
def test_what_cannot_be_folded_is_refused_in_one_line(body: nn.Module, reason: str) -> None:
    ann = ImageClassifier(body.eval(), SHAPE, 3)
    for fold in (with_biases, lambda ann: SpikingNetwork.from_ann(ann, SpikingConfig(3))):
        with pytest.raises(NotApplicable, match=reason) as error:
            fold(ann)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(4)])
def test_no_neuron_takes_a_maximum(pool: nn.Module) -> None:
    ann = ImageClassifier(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(32, 3)), SHAPE, 3)
    with pytest.raises(NotApplicable, match="no neuron takes the maximum of '2'") as error:
        with_spiking_pools(ann)
    assert "\n" not in str(error.value)
