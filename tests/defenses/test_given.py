"""Networks that are given as files, and the control that is made of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from leakbench.bench.grid import make_config
from leakbench.bench.plan import plan
from leakbench.cells import UtilityCell
from leakbench.contracts import InputRange
from leakbench.defenses.given import shuffle_weights
from leakbench.models.files import network_bytes
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


def test_shuffled_weights_are_the_same_numbers_elsewhere_and_neurons_stay() -> None:
    before, after = _network().state_dict(), _network()
    shuffle_weights(after, torch.Generator().manual_seed(1))
    weights = {"body.n1.weight", "body.n4.weight"}
    assert weights < before.keys()
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in weights)
        assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
    again = _network()
    shuffle_weights(again, torch.Generator().manual_seed(2))
    assert not torch.equal(again.state_dict()["body.n4.weight"], after.state_dict()["body.n4.weight"])


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
