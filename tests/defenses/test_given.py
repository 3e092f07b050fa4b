"""Networks that are given as files, and the control that is made of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from on_digits import protect

from leakbench.bench.grid import make_config
from leakbench.bench.plan import plan
from leakbench.cells import UtilityCell
from leakbench.contracts import ImageClassifier, InputRange, TrainingData
from leakbench.defenses.given import of_module, raise_rates, shuffle_weights, untrained_of_file
from leakbench.errors import PluginError, UsageError
from leakbench.models.files import network_bytes
from leakbench.models.simulation import simulated
from leakbench.models.storage import build_ann
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.general import General, GeneralNeuron


def _network() -> SpikingNetwork:
    generator = torch.Generator().manual_seed(0)
    ann = build_ann("graph: conv 4 k3x3 b; relu; flatten; linear 10", (1, 8, 8), 10, InputRange(0, 1), generator)
    network = SpikingNetwork.from_ann(ann, SpikingConfig(7, neuron=GeneralNeuron()))
    (layer,) = network.neurons
    assert isinstance(layer, General)
    layer.leak, layer.threshold = torch.tensor(0.5), torch.tensor(0.3)
    return network.requires_grad_(False)


def test_shuffled_weights_have_the_same_sizes_elsewhere_and_neurons_stay() -> None:
    before, after = _network().state_dict(), _network()
    shuffle_weights(after, torch.Generator().manual_seed(1))
    weights = {"body.n1.weight", "body.n4.weight"}
    assert weights < before.keys()
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in weights)
        assert torch.equal(tensor.abs().flatten().sort().values, before[name].abs().flatten().sort().values)
    assert 0.3 < float((after.state_dict()["body.n4.weight"] < 0).float().mean()) < 0.7
    again = _network()
    shuffle_weights(again, torch.Generator().manual_seed(2))
    assert not torch.equal(again.state_dict()["body.n4.weight"], after.state_dict()["body.n4.weight"])


def test_each_layer_is_made_to_fire_as_often() -> None:
    network = _network()
    before = network.state_dict()["body.n1.weight"].clone()
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def count() -> dict[str, int]:
        return simulated(network, images, 0, (7,), torch.device("cpu"), lambda *_: None)[7][1]

    wanted = {"n2": 6 * count()["n2"] // 5}
    raise_rates(network, wanted, count)
    assert wanted["n2"] <= count()["n2"] < 2 * wanted["n2"]
    gain = network.state_dict()["body.n1.weight"] / before
    assert torch.allclose(gain, gain.flatten()[0].expand_as(gain)) and float(gain.flatten()[0]) >= 1.5
    raise_rates(network, {"n2": 10**9}, count)  # ends all the same


def test_the_untrained_network_is_alive_and_has_the_neurons_of_the_given_one(
    digits_ann: ImageClassifier, digits_data: TrainingData, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(network_bytes(_network()))
    plugin = untrained_of_file(f"untrained:{path}")
    made = protect(plugin(), digits_ann, digits_data)
    assert digits_data.images_read == 32
    before, after = _network().state_dict(), made.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed <= {"body.n1.weight", "body.n1.bias", "body.n4.weight", "body.n4.bias"} and len(changed) >= 2
    assert plugin.name == "random" and made.config == _network().config
    again = protect(plugin(), digits_ann, digits_data)
    assert all(torch.equal(tensor, after[name]) for name, tensor in again.state_dict().items())
    ann = build_ann("graph: flatten; linear 10", (1, 8, 8), 10, InputRange(0, 1), torch.Generator())
    path.write_bytes(network_bytes(ann))
    with pytest.raises(PluginError, match="was edited while the run was under way"):
        protect(plugin(), digits_ann, digits_data)
    with pytest.raises(UsageError, match="holds no spiking network"):
        protect(untrained_of_file(f"untrained:{path}")(), digits_ann, digits_data)
    with pytest.raises(UsageError, match="no such file"):
        untrained_of_file("untrained:nothing.safetensors")


@pytest.mark.slow
def test_the_untrained_network_of_an_audit_is_that_network(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").write_bytes(network_bytes(_network()))

    def untrained(*names: str) -> UtilityCell:
        defenses = [f"network:{tmp_path / name}.safetensors" for name in names]
        cells = plan(make_config({"defense": defenses, "attack": ["none"], "preset": "quick"}))
        (cell,) = (one for one in cells if isinstance(one, UtilityCell) and one.defense.name == "random")
        return cell

    cell = untrained("one")
    assert cell.control and cell.defense.target == f"untrained:{tmp_path / 'one'}.safetensors"
    assert untrained("one", "two").defense.target == "random"  # shared by both


def test_one_network_does_not_count_as_several() -> None:
    """Four copies of a network would otherwise show what takes four networks of a recipe: that it resists."""
    for name in ("network:net.safetensors", 'module: {"forward":"images"} of mine.py:build'):
        with pytest.raises(UsageError, match="is the same network with every seed"):
            plan(make_config({"defense": [name], "attack": ["auto"], "dataset": ["digits"], "seeds": 4}))


MODULES = """
from torch import nn

def one():
    return nn.Flatten()

def other():
    return nn.Sequential(nn.Flatten(), nn.Tanh())
"""


def test_functions_of_one_file_and_ways_to_ask_them_are_different_networks(tmp_path: Path) -> None:
    """Around the same tensors; one that was asked before would be found in the store for the next."""
    (tmp_path / "mine.py").write_text(MODULES)

    def identity(function: str, settings: str) -> str:
        said = of_module(f"module: {settings} of {tmp_path}/mine.py:{function}")
        return str(said.Params().sha256)

    asked = '{"forward":"images"}', '{"forward":"step","timesteps":3}', '{"forward":"step","timesteps":4}'
    found = [identity(function, settings) for function in ("one", "other") for settings in asked]
    assert len(set(found)) == len(found) and found[0] == identity("one", asked[0])
