"""Networks in files: they come back as they were, and what is none is refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from leakbench.contracts import InputRange
from leakbench.errors import UsageError
from leakbench.models.files import network_bytes, read_network
from leakbench.models.storage import build_ann, save_network
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.general import GeneralNeuron
from leakbench.snn.readout import Readout

GRAPH = "graph: conv 4 k3x3 p1x1 b; relu; avgpool k2x2; flatten; linear 3"
IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> SpikingNetwork:
    ann = build_ann(GRAPH, (1, 8, 8), 3, InputRange(0.0, 1.0), torch.Generator().manual_seed(0))
    made = SpikingNetwork.from_ann(ann, SpikingConfig(8, neuron=GeneralNeuron(), readout=Readout(0.9, "last")))
    made.neurons[0].set_threshold(0.3)
    made.neurons[0].leak.fill_(0.9)  # type: ignore[operator, union-attr]
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "network.safetensors"
    file.write_bytes(network_bytes(network()))
    return file


def test_a_network_comes_back(path: Path) -> None:
    again = read_network(path, "--snn")
    assert isinstance(again, SpikingNetwork)
    assert (again.arch, again.config.readout) == (GRAPH, Readout(0.9, "last"))
    assert torch.equal(again(IMAGES, seed=1), network()(IMAGES, seed=1))
    assert network_bytes(again) == path.read_bytes()


def test_an_ann_and_a_built_in_model_come_back(tmp_path: Path) -> None:
    ann = build_ann("vgg4", (1, 8, 8), 3, InputRange(0.0, 1.0), torch.Generator().manual_seed(0)).eval()
    (tmp_path / "ann.safetensors").write_bytes(network_bytes(ann))
    assert torch.equal(read_network(tmp_path / "ann.safetensors", "--snn")(IMAGES), ann(IMAGES))


def changed(path: Path, **changes: Any) -> None:
    """The file with another record."""
    tensors, record = save_network(network())
    record = {**record, **changes}
    path.write_bytes(save(tensors, {"leakbench": json.dumps({"format": 1, "network": record})}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"arch": "vgg4"}, "does not fit the model 'vgg4'"),
        ({"arch": "graph: eval"}, "'eval' is none of"),
        ({"arch": "mine.py:build@" + "0" * 64}, "which is not built in"),
        ({"arch": "no-such-model"}, "which is not built in"),
        ({"arch": "\x1b[31m"}, "characters that can't be printed"),
        ({"arch": f"{GRAPH}+bias+bias"}, "rewritten twice"),
        ({"image_shape": [1, 8]}, "network.image_shape"),
        ({"image_shape": [1, 8, -8]}, "network.image_shape"),
        ({"image_shape": [1, 16, 16]}, "does not fit"),
        ({"image_shape": [60000, 60000, 60000]}, "it puts out 14400000000 numbers"),
        ({"classes": 4}, "puts out [3]"),
        ({"classes": 10**9}, "network.classes"),
        ({"input_range": [0.0]}, "network.input_range"),
        ({"spiking": {}}, "can't be built (KeyError)"),
        ({"spiking": None}, "has also n2."),
        ({"spiking": SpikingConfig(10**7).to_json()}, "one of its settings is 10000000"),
        ({"spiking": {**SpikingConfig(4).to_json(), "encoder": "magic"}}, "unknown encoder"),
    ],
)
def test_what_is_no_network_is_refused(path: Path, changes: dict[str, Any], problem: str) -> None:
    changed(path, **changes)
    with pytest.raises(UsageError) as caught:
        read_network(path, "--snn")
    line = str(caught.value)
    assert line.startswith(f"--snn {str(path)!r}") and problem in line and "\n" not in line


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no readable safetensors file"),
        (b"\x80\x04pickle", "is no readable safetensors file"),
        (save({"x": torch.zeros(1)}), 'has no "leakbench"'),
        (save({"x": torch.zeros(1)}, {"leakbench": "{"}), "says nothing that is a network"),
        (save({"x": torch.zeros(1)}, {"leakbench": "[" * 100_000}), "says nothing that is a network"),
        (save({"x": torch.zeros(1)}, {"leakbench": '{"format": 1}'}), "network: Field required"),
    ],
)
def test_other_files_are_refused(path: Path, content: bytes, problem: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_network(path, "--snn")
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_a_later_format_and_numbers_that_are_none(path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_network(path.with_name("other"), "--snn")
    tensors, record = save_network(network())
    path.write_bytes(save(tensors, {"leakbench": json.dumps({"format": 2, "network": record})}))
    with pytest.raises(UsageError, match="of format 2, and this LeakBench reads format 1"):
        read_network(path, "--snn")
    tensors = load(network_bytes(network()))
    tensors["body.n1.weight"][0, 0, 0, 0] = torch.nan
    path.write_bytes(save(tensors, {"leakbench": json.dumps({"format": 1, "network": record})}))
    with pytest.raises(UsageError, match=r"NaN or infinity in 'n1\.weight'"):
        read_network(path, "--snn")


def test_a_third_partys_model_is_not_written() -> None:
    made = network()
    made.arch = "mine.py:build@" + "0" * 64
    with pytest.raises(UsageError, match="built by a third party's code"):
        network_bytes(made)
    assert replace(made.config) == made.config
