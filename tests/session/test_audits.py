"""The run that audits a network."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from leakbench.contracts import InputRange
from leakbench.defenses.given import of_module
from leakbench.errors import StoreError, UsageError
from leakbench.foreign.settings import NetworkSettings
from leakbench.models.storage import build_ann
from leakbench.session.anns import OwnAnn
from leakbench.session.audits import audit_options, audited, deployed_as, read_any
from leakbench.session.kept import kept
from leakbench.snn import SpikingConfig, SpikingNetwork


@pytest.mark.parametrize(
    ("arch", "model"),
    [
        ("graph: conv 2 k3x3; relu; flatten; linear 10; relu", "graph: conv 2 k3x3; relu; flatten; linear 10"),
        ("graph: conv 2 k3x3; relu; flatten; linear 10", "graph: conv 2 k3x3; relu; flatten; linear 10"),
        ("vgg4", "vgg4"),
    ],
)
def test_the_control_ann_has_logits_and_no_relu_behind_them(arch: str, model: str) -> None:
    network = build_ann(arch, (1, 8, 8), 10, InputRange(0, 1), torch.Generator())
    assert audit_options(network, "network:net.safetensors", {})["model"] == [model]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net.pt", "a file of weights alone is no network: give mine.py:build"),
        ("NET.PTH", "a file of weights alone is no network: give mine.py:build"),
        ("net.onnx", "give a .nir file, one that leakbench export wrote, or mine.py:build"),
        ("mine.py", "which function builds the network"),
    ],
)
def test_what_is_no_network_says_what_to_give(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02 anything")
    with pytest.raises(UsageError, match=words) as caught:
        read_any(str(tmp_path / name), None, "digits", None)
    assert "\n" not in str(caught.value)


def test_images_of_another_shape_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))\n"
    )
    (tmp_path / "mine.json").write_text('{"format": 1, "framework": "snntorch", "timesteps": 4}')
    with pytest.raises(UsageError, match=r"for 1x8x8 images of digits, as --dataset says"):
        read_any(f"{tmp_path}/mine.py:build", tmp_path / "mine.json", "digits", None)


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            "[0.5, 0.5, 0.5]",
            " is of 3 channels, and the images have 1",
        ),  # else a grey image would have three
        ("0.5", r": .*a number for each channel, as in \[0\.5\]"),
    ],
)
def test_of_a_module_that_is_asked_each_channel_has_a_mean(value: str, words: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\n\ndef build():\n    return torch.nn.Flatten()\n")
    (tmp_path / "mine.json").write_text(f'{{"format": 1, "forward": "images", "input": {{"{name}": {value}}}}}')
    with pytest.raises(UsageError, match=rf"input\.{name}{words}"):
        read_any(f"{tmp_path}/mine.py:build", tmp_path / "mine.json", "digits", None)


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ("torch.zeros(1)", None),
        ("0.1 * torch.randn(len(x), 10)", None),
        ("torch.from_numpy(self.own.randn(len(x), 10)).float()", "built twice, it answers otherwise"),
        ("-x.flatten(1)[:, :10].mean(0)", "depends on the images beside it"),
        ("-float((x.mean((1, 2, 3)) < 0.2).any())", "depends on the images beside it"),
    ],
)
def test_a_module_answers_the_same_built_anew_and_whatever_lies_beside(
    drawn: str, words: str | None, tmp_path: Path
) -> None:
    text = f"""
import numpy as np
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.own = np.random.RandomState()  # from the system's entropy
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x.flatten(1)) + {drawn}

build = Net
"""
    (tmp_path / "mine.py").write_text(text)
    settings = NetworkSettings(format=1, forward="images")
    if words is None:
        read_any(f"{tmp_path}/mine.py:build", settings, "digits", None)
        return
    with pytest.raises(UsageError, match=words):
        read_any(f"{tmp_path}/mine.py:build", settings, "digits", None)


def test_a_network_is_read_anew_wherever_it_lies_and_whenever_its_weights_were_written(tmp_path: Path) -> None:
    """In one process, as in a notebook: files of one name and content load what lies beside them."""
    text = """
from pathlib import Path
from typing import Any

import torch

def build():
    layer = torch.nn.Linear(64, 10)
    layer.load_state_dict(torch.load(Path(__file__).with_name("w.pt"), weights_only=True))
    return torch.nn.Sequential(torch.nn.Flatten(), layer)
"""
    settings = NetworkSettings(format=1, forward="images")

    def written(folder: str, bias: float) -> None:
        torch.save({"weight": torch.zeros(10, 64), "bias": torch.full((10,), bias)}, tmp_path / folder / "w.pt")

    def answer(folder: str) -> float:
        snn = f"{tmp_path}/{folder}/net.py:build"
        network = read_any(snn, settings, "digits", None)
        sha256 = of_module(deployed_as(network, snn, None)).Params().sha256  # type: ignore[attr-defined]
        known[sha256] = float(network(torch.zeros(1, 1, 8, 8))[0, 0])
        return known[sha256]

    known: dict[str, float] = {}
    for folder, bias in (("one", 1.0), ("other", 2.0)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(text)
        written(folder, bias)
    assert (answer("one"), answer("other")) == (1.0, 2.0)
    written("one", 3.0)
    assert answer("one") == 3.0
    assert sorted(known.values()) == [1.0, 2.0, 3.0]  # each under a digest of its own


def test_no_network_is_kept_behind_a_link(tmp_path: Path) -> None:
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    elsewhere.mkdir()
    network = build_ann("vgg4", (1, 8, 8), 10, InputRange(0, 1), torch.Generator())
    place = kept(network, "net.safetensors", cache).parent
    shutil.rmtree(place)
    place.symlink_to(elsewhere)
    with pytest.raises(StoreError, match="leads through a link"):
        kept(network, "net.safetensors", cache)
    assert not any(elsewhere.iterdir())


def deployed(folder: Path, name: str) -> str:
    """An own network as others have it, in a file of that name."""
    network = build_ann("vgg4", (1, 8, 8), 10, InputRange(0, 1), torch.Generator())
    spiking = SpikingNetwork.from_ann(network, SpikingConfig(timesteps=8))
    for layer in spiking.neurons:
        layer.set_threshold(1.0)
    (folder / name).write_bytes(kept(spiking, "net.safetensors", folder / "cache").read_bytes())
    return str(folder / name)


def test_no_network_has_the_name_of_a_control(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="named after its file, and 'han2020' is a control: rename it"):
        audited(deployed(tmp_path, "han2020.safetensors"), None, {}, OwnAnn(), None, tmp_path)


@pytest.mark.parametrize(("given", "longest"), [({}, 8), ({"timesteps": ["2", "24"]}, 24)])
def test_a_network_is_checked_at_the_time_steps_of_the_audit(
    tmp_path: Path, given: dict[str, list[str]], longest: int
) -> None:
    network, grid = audited(deployed(tmp_path, "net.safetensors"), None, given, OwnAnn(), None, tmp_path)
    assert isinstance(network, SpikingNetwork) and network.config.timesteps == longest == max(grid.timesteps)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"attack": ["autoo"]}, "did you mean 'auto'"),
        ({"metric": ["accuracyy"]}, "did you mean 'accuracy'"),
        ({"preset": "quik"}, "'quick', 'standard', 'paper-cpu' or 'paper'"),
        ({"set": {"autoo.steps": ["3"]}}, "unknown plugin in --set 'autoo'"),
        ({"dataset": ["digit"]}, "did you mean 'digits'"),
    ],
)
def test_wrong_options_are_told_before_a_module_is_built(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text('raise AssertionError("it was run")\n')
    settings = NetworkSettings.model_validate({"format": 1, "forward": "images"})
    with pytest.raises(UsageError, match=re.escape(words)):
        audited(f"{tmp_path}/mine.py:build", settings, given, OwnAnn(), None, tmp_path)


def test_a_third_party_s_attack_is_not_run_where_options_are_checked(tmp_path: Path) -> None:
    """Only where it is isolated: here it would see all that the user may."""
    (tmp_path / "spy.py").write_text(f'open({str(tmp_path / "was run")!r}, "w")\n')
    given = {"attack": [f"{tmp_path}/spy.py:Grey"], "metric": [f"{tmp_path}/spy.py:Grey"]}
    network = deployed(tmp_path, "net.safetensors")
    audited(network, None, given, OwnAnn(), None, tmp_path)
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize(("file", "name"), [("net.safetensors", "net"), ("net[2].safetensors", "net2")])
def test_something_may_be_set_of_the_network_itself(file: str, name: str, tmp_path: Path) -> None:
    given = {"set": {f"{name}.quantize": ["int8"]}}
    _, grid = audited(deployed(tmp_path, file), None, given, OwnAnn(), None, tmp_path)
    assert dict(grid.set) == {f"{name}.quantize": ("int8",)}


def test_time_steps_of_a_module_that_is_asked_stand_in_its_settings(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    asked = NetworkSettings.model_validate({"format": 1, "forward": "step", "timesteps": 4})
    module = f"{tmp_path}/mine.py:build"
    audited(module, asked, {}, OwnAnn(), None, tmp_path)
    with pytest.raises(UsageError, match="--timesteps: how long a module is asked stands in its settings"):
        audited(module, asked, {"timesteps": ["2"]}, OwnAnn(), None, tmp_path)


def test_a_model_is_not_named_beside_the_function_of_an_ann(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    asked = NetworkSettings.model_validate({"format": 1, "forward": "images"})
    module = f"{tmp_path}/mine.py:build"
    _, grid = audited(module, asked, {"ann": module}, OwnAnn(), None, tmp_path)
    assert grid.model and grid.model != ("vgg4",)
    with pytest.raises(UsageError, match="says itself what the network is: leave out --model"):
        audited(module, asked, {"ann": module, "model": ["vgg4"]}, OwnAnn(), None, tmp_path)
