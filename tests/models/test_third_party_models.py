"""Models that others wrote: built alike from a seed, refused in one line, stored and loaded, known by their code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import leakbench
from leakbench import registry
from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import LeakBenchError, PluginError, UnknownName, UsageError
from leakbench.models import Architecture, model_identity, model_label, pinned_model
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.folding import with_biases

SHAPE = (1, 8, 8)
GREY = InputRange(0.0, 1.0)
CPU = torch.device("cpu")
MODEL = '''
import torch
from torch import nn

def build(image_shape, classes, generator):
    """A convolution with PyTorch's own initialisation."""
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(4 * (height // 2) * (width // 2), classes),
    )
'''


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers or loads is forgotten after it."""
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_files", {})


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MODEL)
    return f"{tmp_path}/mine.py:build"


def built(model: str, seed: int = 0) -> ImageClassifier:
    return build_ann(model, SHAPE, 5, GREY, torch.Generator().manual_seed(seed)).eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def through_json(network: ImageClassifier | SpikingNetwork) -> ImageClassifier | SpikingNetwork:
    tensors, record = save_network(network)
    return load_network(tensors, json.loads(json.dumps(record)), CPU)


# --- building ----------------------------------------------------------------------------------------------------


def test_global_draws_follow_from_the_generator_and_leave_no_trace(mine: str) -> None:
    first = built(mine)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert same(built(mine), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not same(built(mine, seed=1), first)
    assert first(torch.rand(3, *SHAPE)).shape == (3, 5)


@pytest.mark.parametrize(
    "draw", ["torch.randn(3)", "torch.tensor(np.random.randn(3)).float()", "torch.tensor([random.random()] * 3)"]
)
def test_every_global_generator_is_seeded(draw: str, tmp_path: Path) -> None:
    (tmp_path / "drawn.py").write_text(
        f"import random, numpy as np\n{MODEL}\ndef drawn(image_shape, classes, generator):\n"
        f"    body = build(image_shape, classes, generator)\n    body[0].bias.data[:3] = {draw}\n    return body\n"
    )
    before = np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    biases = [built(f"{tmp_path}/drawn.py:drawn", seed).body[0].bias[:3] for seed in (0, 0, 1)]  # type: ignore[index]
    assert torch.equal(biases[0], biases[1])
    assert not torch.equal(biases[0], biases[2])
    assert np.random.get_state()[1].tolist() == before  # type: ignore[union-attr]


def test_a_class_of_modules_is_a_function_too(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self, image_shape, classes, generator):\n        super().__init__()\n"
        "        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))\n"
        "    def forward(self, x):\n        return self.layers(x)\n"
    )
    network = built(f"{tmp_path}/net.py:Net")
    assert same(through_json(network), network)  # lazy layers have their shapes by then


FLAWS = {
    "return None": "it must return an nn.Module, and returns nothing",
    "return 3": "it must return an nn.Module, and returns a int",
    "return nn.Flatten()": r"two images \[1, 8, 8\] must give logits \[2, 5\], and give \[2, 64\]",
    "return nn.Sequential(nn.Flatten(), nn.Linear(64, classes + 1))": r"logits \[2, 5\], and give \[2, 6\]",
    "return Twice(classes)": "and give a tuple",
    "return nn.Sequential(nn.Flatten(), nn.Linear(9, classes))": r"can't be built for images \[1, 8, 8\] of 5 classes",
    "raise ValueError('too small\\nfor me')": "of 5 classes: ValueError: too small$",
    "raise SystemExit(3)": "SystemExit: 3",
    "return Nan(classes)": "its network answers NaN or infinity",
    "return nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(classes))": "has no parameters",
    "return Hidden(classes)": "its answers must follow from parameters and buffers alone",
    "return Fickle(classes)": "it can't be built a second time from what is kept of it: RuntimeError",
    "return Double(classes)": "its 'scale' must be float32, and is torch.float64",
    "return Packed(classes)": r"its '_extra_state' is no plain tensor \(write layers that torch quantised as float32",
}
PARTS = """
import torch
from torch import nn

class Twice(nn.Linear):
    def __init__(self, classes):
        super().__init__(64, classes)
    def forward(self, x):
        return (super().forward(x.flatten(1)),) * 2

class Nan(Twice):
    def forward(self, x):
        return super().forward(x)[0] * float("nan")

class Hidden(Twice):
    def __init__(self, classes):
        super().__init__(classes)
        self.hidden = torch.randn(classes)
    def forward(self, x):
        return super().forward(x)[0] * self.hidden

class Packed(Twice):
    def forward(self, x):
        return super().forward(x)[0]
    def get_extra_state(self):
        return torch.qint8
    def set_extra_state(self, state):
        pass

class Double(Twice):
    def __init__(self, classes):
        super().__init__(classes)
        self.register_buffer("scale", torch.ones(classes, dtype=torch.float64))
    def forward(self, x):
        return super().forward(x)[0] * self.scale

class Fickle(Twice):
    count = 0
    def __init__(self, classes):
        super().__init__(classes)
        Fickle.count += 1
        self.register_parameter(f"extra{Fickle.count}", nn.Parameter(torch.zeros(1)))
    def forward(self, x):
        return super().forward(x)[0]

"""


@pytest.mark.parametrize("body", FLAWS)
def test_what_a_function_may_do_wrong_is_one_line_that_names_it(body: str, tmp_path: Path) -> None:
    (tmp_path / "flawed.py").write_text(f"{PARTS}def build(image_shape, classes, generator):\n    {body}\n")
    with pytest.raises(PluginError, match=FLAWS[body]) as error:
        built(f"{tmp_path}/flawed.py:build")
    assert "'flawed.py:build'" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "none.py").write_text("text = 'x'\ndef few(image_shape): ...\nclass A:\n    kind = 'attack'\n")
    for name in ("text", "few", "A"):
        with pytest.raises(
            PluginError, match=r"is no model: it must be a function of \(image_shape, classes, generator"
        ):
            built(f"{tmp_path}/none.py:{name}")
    with pytest.raises(UsageError, match="no such plugin file"):
        built("missing.py:build")
    with pytest.raises(UnknownName, match="unknown model 'vgg-5': did you mean 'vgg5'"):
        built("vgg-5")


# --- keeping -----------------------------------------------------------------------------------------------------


def test_a_network_is_kept_with_the_hash_of_its_code_and_without_a_path(mine: str, tmp_path: Path) -> None:
    network = built(mine)
    record = json.dumps(save_network(network)[1])
    digest = registry.source("model", mine).digest
    assert json.loads(record)["arch"] == f"mine.py:build@{digest}"
    assert str(tmp_path) not in record
    back = through_json(network)
    assert same(back, network)
    assert back.arch == network.arch
    spiking = SpikingNetwork.from_ann(with_biases(network), SpikingConfig(4))
    assert spiking.arch == f"mine.py:build@{digest}+bias"
    again = through_json(spiking)
    assert same(again, spiking) and again.arch == spiking.arch


def test_a_moved_file_builds_what_was_kept_and_an_edited_one_does_not(mine: str, tmp_path: Path) -> None:
    tensors, record = save_network(built(mine))
    registry._files.clear()  # as in another process
    with pytest.raises(PluginError, match=r"the model 'mine.py:build' is not available: name its file"):
        load_network(tensors, record, CPU)
    moved = tmp_path / "elsewhere" / "mine.py"
    moved.parent.mkdir()
    Path(mine.partition(":")[0]).rename(moved)
    built(f"{moved}:build")
    assert isinstance(load_network(tensors, record, CPU), ImageClassifier)
    registry._files.clear()
    moved.write_text(MODEL.replace("A convolution", "One convolution"))
    built(f"{moved}:build")
    with pytest.raises(PluginError, match=r"the model 'mine.py:build' was edited since something was made with it"):
        load_network(tensors, record, CPU)


def test_a_store_s_record_runs_no_file(mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it names: that the user does."""
    tensors, record = save_network(built(mine))
    registry._files.clear()
    monkeypatch.chdir(Path(mine).parent)
    digest = registry.source("model", mine).digest
    for arch in (mine, f"{mine}@{digest}", "mine.py:build", f"mine.py:build@{digest}"):
        with pytest.raises(LeakBenchError, match=r"unknown model|not available"):
            load_network(tensors, {**record, "arch": arch}, CPU)
    assert not registry._files


def test_a_student_of_the_same_architecture(mine: str) -> None:
    """Defences build a network anew by another's arch."""
    teacher = built(mine)
    student = build_ann(teacher.arch, SHAPE, 5, GREY, torch.Generator().manual_seed(8))
    assert student.arch == teacher.arch
    assert not same(student, teacher)


def registered_build(image_shape: tuple[int, int, int], classes: int, generator: torch.Generator) -> nn.Module:
    """For the test below."""
    linear = nn.Linear(image_shape[1] * image_shape[2], classes)
    nn.init.normal_(linear.weight, generator=generator)
    return nn.Sequential(nn.Flatten(), linear)


def test_a_registered_function_is_kept_too() -> None:
    leakbench.register("model", "flat", registered_build)
    network = built("flat")
    assert network.arch.startswith("flat@")
    assert same(through_json(network), network)
    leakbench.register("model", "flat", "leakbench.models.vgg:vgg4")
    with pytest.raises(PluginError, match="the model 'flat' was edited"):
        through_json(network)


def test_weights_that_layers_share_are_kept(tmp_path: Path) -> None:
    (tmp_path / "tied.py").write_text(
        "from torch import nn\ndef build(image_shape, classes, generator):\n"
        "    a, b = nn.Linear(64, 64), nn.Linear(64, 64)\n    b.weight = a.weight\n"
        "    return nn.Sequential(nn.Flatten(), a, nn.ReLU(), b, nn.ReLU(), nn.Linear(64, classes))\n"
    )
    tensors, _ = save_network(built(f"{tmp_path}/tied.py:build"))
    assert len({value.data_ptr() for value in tensors.values()}) == len(tensors)


# --- names and keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("vgg4", ("vgg4", "", ())),
        ("vgg4+bias+pools", ("vgg4", "", ("bias", "pools"))),
        ("c++/a+b.py:build", ("c++/a+b.py:build", "", ())),
        (f"c++.py:build@{'0' * 64}+bias", ("c++.py:build", "0" * 64, ("bias",))),
        ("a@b", ("a@b", "", ())),
        ("+a+b", ("+a", "", ("b",))),
        ("x" + "+a" * 40_000 + "!", ("x" + "+a" * 40_000 + "!", "", ())),  # in a time that is no one's loss
        ("", ("", "", ())),
    ],
)
def test_an_architecture_and_its_text(text: str, parts: Any) -> None:
    architecture = Architecture.parse(text)
    assert (architecture.model, architecture.code, architecture.rewrites) == parts
    assert str(architecture) == text


def test_a_key_names_a_built_in_alone_and_a_third_party_with_its_code(mine: str) -> None:
    assert model_identity("vgg5") == {"model": "vgg5"}
    digest = registry.source("model", mine).digest
    assert model_identity(mine) == {"model": "mine.py:build", "code": digest, "origin": "file"}
    pinned = pinned_model(mine)
    assert pinned == f"{mine}@{digest}"
    assert model_identity(pinned) == model_identity(mine)
    assert model_label(pinned) == "mine.py:build"
    assert (pinned_model("vgg5"), model_label("vgg5")) == ("vgg5", "vgg5")


def test_a_file_that_is_edited_under_a_plan_is_refused(mine: str) -> None:
    pinned = pinned_model(mine)
    Path(mine.partition(":")[0]).write_text(MODEL + "\n")
    assert built(pinned).arch.startswith("mine.py:build@")  # this process has the planned code
    registry._files.clear()
    with pytest.raises(PluginError, match=r"'mine.py:build' was edited while the run was under way"):
        built(pinned)


@pytest.mark.slow
def test_models_are_listed_without_torch() -> None:
    code = "import sys; from leakbench.models import model_names; print(model_names()[0], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.split() == ["vgg4", "False"]


def test_images_beyond_zero_and_one(mine: str, generator: torch.Generator) -> None:
    """The body works on the data set's input range."""
    network = build_ann(mine, SHAPE, 5, InputRange(-1.0, 1.0), generator).eval()
    images: Tensor = torch.rand(2, *SHAPE, generator=generator)
    assert torch.equal(network(images), network.body(images * 2 - 1))
