"""Networks that LeakBench made, written as NIR and read again: the same answers to the same input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from leakbench.contracts import InputRange
from leakbench.errors import NotApplicable
from leakbench.foreign.confined import read_confined
from leakbench.foreign.nir import network_of_tree
from leakbench.foreign.settings import read_settings
from leakbench.models.storage import build_ann
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds
from leakbench.snn.adaptive import AdaptiveNeuron
from leakbench.snn.general import FIRES, GeneralNeuron
from leakbench.snn.neurons import Neuron
from leakbench.snn.readout import Readout

pytest.importorskip("h5py")

from leakbench.foreign.nir_files import nir_and_settings

IMAGES = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
STEPS = 10
ENCODED = (torch.rand(STEPS, 30, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < IMAGES).double()


def made(model: str = "vgg4", **config: Any) -> SpikingNetwork:
    ann = build_ann(model, (1, 8, 8), 10, InputRange(0.0, 1.0), torch.Generator().manual_seed(0)).eval()
    network = SpikingNetwork.from_ann(ann, SpikingConfig(STEPS, **config))
    if isinstance(network.config.neuron, GeneralNeuron):
        for layer in network.neurons:
            layer.set_threshold(0.75)
    else:
        balance_thresholds(network, IMAGES, seed=0)
    return network


def read_again(network: SpikingNetwork, folder: Path) -> SpikingNetwork:
    content, settings = nir_and_settings(network)
    (folder / "net.nir").write_bytes(content)
    (folder / "net.json").write_text(settings)
    return network_of_tree(read_confined(folder / "net.nir", "--snn"), read_settings(folder / "net.json", "--settings"))


def general(**constants: float | str) -> SpikingNetwork:
    network = made(neuron=GeneralNeuron())
    for layer in network.neurons:
        for name, value in constants.items():
            getattr(layer, name).fill_(FIRES.index(value) if name == "fires" else value)  # type: ignore[arg-type]
    return network


def shifted(*shifts: int) -> SpikingNetwork:
    network = general(taken=0.75)
    for layer, shift in zip(network.neurons, shifts, strict=False):
        layer.set_shift(shift)  # type: ignore[operator]
    return network


def per_channel() -> SpikingNetwork:
    network = made()
    layer = network.neurons[0]
    layer.set_threshold(layer.threshold * torch.linspace(0.5, 2, 32).view(32, 1, 1))
    layer.initial = torch.tensor(0.1)
    return network


SUMS = "graph: conv 4 k3x3; relu; sumpool k2x2; conv 4 k3x3 g2 b; relu; flatten; linear 10 b"
NETWORKS: dict[str, Callable[[], SpikingNetwork]] = {
    "a conversion": made,
    "one threshold a channel": per_channel,
    "leaks": lambda: made(neuron=Neuron(0.875)),
    "reset to zero": lambda: made(neuron=Neuron(0.75, "hard")),
    "residual": lambda: made("resnet8"),
    "a graph with sums": lambda: made(SUMS),
    "direct input, summed up": lambda: made(encoder="direct", readout=Readout(0.0, "sum", 2.0)),
    "general": lambda: general(leak=0.75, weight=2.0, taken=0.75, fires="at", floor=-0.5),
    "subtracted later": lambda: general(leak=0.5, taken=1.5),
    "many": lambda: general(taken=0.75, fires="many"),
    "to a value": lambda: general(subtracts=0, rest=-0.25),
    "leaks by a shift": lambda: shifted(2, 4),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_comes_back(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]()
    again = read_again(network, tmp_path)
    encoded = ENCODED if network.config.encoder == "poisson" else IMAGES.double().expand(STEPS, *IMAGES.shape)
    before, after = (one.double().respond(encoded) for one in (network.requires_grad_(False), again))
    spread = float(before.logits.detach().std())
    assert spread > 0 and float((before.logits - after.logits).abs().max()) <= 1e-4 * max(1.0, spread)
    assert [*before.spikes.values()] == [*after.spikes.values()]


@pytest.mark.slow
def test_nir_itself_reads_it(tmp_path: Path) -> None:
    nir = pytest.importorskip("nir")
    read_again(made(), tmp_path)
    graph = nir.read(tmp_path / "net.nir")
    assert {type(node).__name__ for node in graph.nodes.values()} >= {"Conv2d", "IF", "Scale", "Linear", "AvgPool2d"}


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        (lambda: made("vgg5max"), "NIR has no node for it: the layer '2'"),
        (lambda: made(neuron=AdaptiveNeuron(), encoder="direct"), "NIR has no adaptive neurons"),
        (lambda: general(synapse=0.5, taken=0.75), "have a synapse"),
        (lambda: general(taken=0.3), "take away another amount"),
        (lambda: shifted(torch.arange(32).view(32, 1, 1) % 2 + 3), "leak by different shifts"),  # type: ignore[arg-type]
        (lambda: made(readout=Readout(0.5, "last")), "a readout other than"),
        (lambda: made("graph: conv 4 k3x3; relu; cat <2 <2; flatten; linear 10"), "can't join channels"),
    ],
)
def test_what_nir_can_not_say_is_named(network: Callable[[], SpikingNetwork], problem: str) -> None:
    with pytest.raises(NotApplicable, match=problem):
        nir_and_settings(network())


def test_a_shift_is_in_the_settings(tmp_path: Path) -> None:
    _, text = nir_and_settings(shifted(2))
    layers = json.loads(text)["layers"]
    assert [layers[name].get("leak_shift") for name in sorted(layers, key=int)][:2] == [2, None]
    again = read_again(shifted(2), tmp_path)
    first, second = again.neurons[:2]
    assert (int(first.shift), float(first.leak), second.shift) == (2, 0.75, None)  # type: ignore[arg-type]


def test_settings_beside_are_json() -> None:
    _, text = nir_and_settings(made())
    assert json.loads(text)["layers"]["1"] == {"reset": "subtract", "fires": "above", "floor": "none", "initial": 0.0}
