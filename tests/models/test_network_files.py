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
from leakbench.snn.quantization import quantized
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


def test_int8_weights_are_written_and_come_back(path: Path) -> None:
    made = quantized(network())
    content = network_bytes(made)
    tensors = load(content)
    assert {name: str(tensor.dtype) for name, tensor in tensors.items() if ".n1." in name or ".n5." in name} == {
        "body.n1.weight": "torch.int8", "body.n1.weight_scale": "torch.float32", "body.n1.bias": "torch.float32",
        "body.n5.weight": "torch.int8", "body.n5.weight_scale": "torch.float32",
    }  # fmt: skip
    path.write_bytes(content)
    again = read_network(path, "--snn")
    kept, wanted = again.state_dict(), made.state_dict()
    assert kept.keys() == wanted.keys() and all(torch.equal(kept[name], wanted[name]) for name in wanted)
    assert network_bytes(again) == content
    assert torch.equal(again(IMAGES, seed=1), made(IMAGES, seed=1))  # type: ignore[call-arg]
    assert not torch.equal(made(IMAGES, seed=1), network()(IMAGES, seed=1))  # type: ignore[call-arg]
    whole = build_ann("vgg4", (1, 8, 8), 3, InputRange(0.0, 1.0), torch.Generator().manual_seed(0))
    assert len(network_bytes(quantized(whole))) < 0.27 * len(network_bytes(whole))


def integers(path: Path, **tensors: torch.Tensor | None) -> None:
    """The file with int8 and int32 in its convolution, with these scales, or others or none in their place."""
    kept, record = save_network(network())
    kept["body.n1.weight"] = torch.arange(36, dtype=torch.int8).view(4, 1, 3, 3) - 18
    kept["body.n1.bias"] = torch.tensor([-70000, 0, 3, 70000], dtype=torch.int32)
    given = {"weight_scale": BIAS, "bias_scale": BIAS, **tensors}
    kept |= {f"body.n1.{name}": tensor.clone() for name, tensor in given.items() if tensor is not None}
    path.write_bytes(save(kept, {"leakbench": json.dumps({"format": 1, "network": record})}))


BIAS = torch.tensor(0.25)


@pytest.mark.parametrize("scale", [torch.tensor(0.5), torch.tensor([0.5, 1.0, 2.0, 0.25])])
def test_whole_numbers_of_others_are_read_by_their_scales(path: Path, scale: torch.Tensor) -> None:
    integers(path, weight_scale=scale)
    layer = read_network(path, "--snn").body.get_submodule("n1")
    each = scale.expand(4)
    assert [float(layer.weight[c, 0, 2, 2]) for c in range(4)] == [  # type: ignore[index]
        float(each[c]) * (9 * c - 10) for c in range(4)
    ]
    assert layer.bias.tolist() == [-17500.0, 0.0, 0.75, 17500.0]  # type: ignore[operator, union-attr]


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"weight_scale": None}, "'n1.weight' holds int8 and lacks 'n1.weight_scale' beside it: float32, [] or [4]"),
        ({"bias_scale": None}, "'n1.bias' holds int32 and lacks 'n1.bias_scale' beside it: float32, [] or [4]"),
        ({"weight_scale": torch.ones(3)}, "'n1.weight_scale' is float32 [3] and must be float32, [] or [4]"),
        ({"weight_scale": torch.ones(4, 1)}, "'n1.weight_scale' is float32 [4, 1] and must be float32, [] or [4]"),
        ({"weight_scale": BIAS.half()}, "'n1.weight_scale' is float16 [] and must be float32, [] or [4]"),
        ({"weight_scale": torch.tensor(0.0)}, "'n1.weight_scale' holds a number that is not finite and above 0"),
        ({"weight_scale": -torch.ones(4)}, "'n1.weight_scale' holds a number that is not finite and above 0"),
        ({"weight_scale": torch.tensor(torch.nan)}, "'n1.weight_scale' holds a number that is not finite and above 0"),
        ({"weight_scale": torch.tensor(3e38)}, "holds NaN or infinity in 'n1.weight'"),
        ({"weight": torch.ones(4, 1, 3, 3)}, "has also n1.weight_scale"),
        ({"weight": torch.ones(4, 1, 3, 3, dtype=torch.int16), "weight_scale": None}, "holds torch.int16"),
        ({"weight": torch.ones(5, dtype=torch.int8)}, "is [5] instead of"),
    ],
)
def test_scales_that_are_none_are_refused(path: Path, tensors: dict[str, torch.Tensor | None], problem: str) -> None:
    integers(path, **tensors)
    with pytest.raises(UsageError) as caught:
        read_network(path, "--snn")
    line = str(caught.value)
    assert line.startswith(f"--snn {str(path)!r}") and problem in line and "\n" not in line


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("threshold", torch.tensor(0.0), "a threshold that none has"),
        ("threshold", torch.full((4, 1, 1), -1.0), "a threshold that none has"),
        ("threshold", torch.ones(7), "can't be built (RuntimeError)"),
        ("leak", torch.tensor(5.0), "a leak that none has"),
        ("synapse", torch.tensor(-0.1), "a synapse that none has"),
        ("worth", torch.tensor(0.0), "a worth that none has"),
        ("fires", torch.tensor(5), "a fires that none has"),
        ("subtracts", torch.ones(4, dtype=torch.int64), "can't be built (RuntimeError)"),
    ],
)
def test_neurons_that_are_none_are_refused(path: Path, name: str, value: torch.Tensor, problem: str) -> None:
    tensors, record = save_network(network())
    tensors[next(key for key in tensors if key.endswith(f".{name}"))] = value
    path.write_bytes(save(tensors, {"leakbench": json.dumps({"format": 1, "network": record})}))
    with pytest.raises(UsageError) as caught:
        read_network(path, "--snn")
    assert problem in str(caught.value) and "\n" not in str(caught.value)


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
        ({"image_shape": [1, 1600, 1600]}, "images of more than 262,144 values"),
        ({"classes": 4}, "puts out [3]"),
        ({"classes": 10**9}, "network.classes"),
        ({"input_range": [0.0]}, "network.input_range"),
        ({"spiking": {}}, "can't be built (KeyError)"),
        ({"spiking": None}, "has also n2."),
        ({"spiking": SpikingConfig(10**7).to_json()}, "one of its settings is 10000000"),
        ({"spiking": {**SpikingConfig(4).to_json(), "timesteps": 1e12}}, "timesteps must be a whole number, got 1"),
        (
            {"spiking": {**SpikingConfig(4).to_json(), "timesteps": "9" * 12}},
            "must be a whole number, got '9",
        ),
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
    "changes",
    [
        {"classes": 1 << 20},
        {"image_shape": [4, 256, 256]},
        {"arch": "graph: conv 8192 k1x1; relu; avgpool k8x8; flatten; linear 16384; linear 3"},
    ],
)
def test_a_few_bytes_that_say_a_huge_network_are_refused_before_it_is_built(
    path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, record = save_network(build_ann("vgg4", (1, 8, 8), 3, InputRange(0.0, 1.0)))
    said = json.dumps({"format": 1, "network": record | changes})
    path.write_bytes(save({"body.weight": torch.zeros(1)}, {"leakbench": said}))

    def built(*_: object) -> None:
        raise AssertionError("it was built")

    monkeypatch.setattr("leakbench.models.untrusted.load_network", built)
    with pytest.raises(UsageError, match=r"holds no network: its architecture has [\d,]+ weights, and 1 numbers"):
        read_network(path, "--snn")


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
    with pytest.raises(UsageError, match="is a folder: give the network's file"):
        read_network(path.parent, "--snn")
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
