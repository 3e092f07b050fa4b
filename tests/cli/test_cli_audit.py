"""``leakbench audit`` and ``leakbench export --snn``: networks out of runs, into runs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from cli_said import Leakbench, record_in
from tiny_runs import OURS, OURS_LABEL, Warm, cell_of, value_of

from leakbench.models.files import read_network
from leakbench.snn import SpikingNetwork


@pytest.fixture
def network(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> Path:
    """The network of a defence of the tiny run."""
    said = leakbench("export", warm.out, "--snn", OURS_LABEL, "--cache", warm.cache, "--out", "deployed.safetensors")
    assert (said.status, said.out, said.err) == (0, "", "")
    return tmp_path / "deployed.safetensors"


@pytest.mark.slow
def test_a_network_that_serves_every_t_is_exported_with_that_of_its_row(
    leakbench: Leakbench, warm: Warm, tmp_path: Path
) -> None:
    """It is built once, with the longest T or that of an earlier run."""
    grid = (
        "run", "-d", "rueckauer2017", "-a", "none", "--no-controls", "--dataset", warm.tiny.dataset,
        "--preset", "quick", "--model", "vgg4", "--ann", warm.tiny.checkpoint, "--cache", warm.grown, "-q",
    )  # fmt: skip
    assert leakbench(*grid, "-T", "3,5", "--out", "both").status == 0
    assert leakbench(*grid, "-T", "4", "--out", "later").status == 0
    rows = {"rueckauer2017[T=3]": ("both", 3), "rueckauer2017[T=5]": ("both", 5), "rueckauer2017": ("later", 4)}
    for label, (run, timesteps) in rows.items():
        out = tmp_path / f"{run}{timesteps}.safetensors"
        said = leakbench("export", run, "--snn", label, "--cache", warm.grown, "--out", out)
        assert (said.status, said.err) == (0, "")
        network = read_network(out, "--snn")
        assert isinstance(network, SpikingNetwork) and network.config.timesteps == timesteps


@pytest.mark.slow
def test_a_network_that_a_run_made_is_audited_as_it_is(
    leakbench: Leakbench, warm: Warm, network: Path, tmp_path: Path
) -> None:
    made = read_network(network, "--snn")
    assert isinstance(made, SpikingNetwork) and made.config.timesteps == 4
    said = leakbench(
        "audit", "--snn", network.name, "-a", "none", "--no-controls", "--dataset", warm.tiny.dataset,
        "--preset", "quick", "--ann", warm.tiny.checkpoint, "--cache", warm.grown, "--out", "audited", "-q", "--json",
    )  # fmt: skip
    assert said.status == 0, said.err
    record = record_in(tmp_path / "audited")
    (cell,) = record.cells
    assert (cell.defense, cell.timesteps, cell.model) == ("deployed", 4, "vgg4")
    before = cell_of(warm.record, OURS)
    assert cell.weights == before.weights != ""
    assert cell.motion  # against the ANN that it was made of; one that is trained for the audit would say nothing
    accuracy, ann = (value_of(cell, metric) for metric in ("accuracy", "ann_accuracy"))
    assert ann == value_of(before, "ann_accuracy")  # that of a spiking network depends on its noise
    assert record.grid["model"] == ["vgg4"]
    warned = any("less than half of what the control ANN has" in warning for warning in cell.warnings)
    assert warned == (accuracy < ann / 2)
    (kept,) = (warm.grown / "networks").rglob(network.name)
    os.utime(kept, (0, 0))
    assert leakbench("run", "--out", "audited", "--resume", "--cache", warm.grown, "-q").status == 0
    assert time.time() - kept.stat().st_mtime < 3600  # a run that goes on uses it
    assert record_in(tmp_path / "audited").command == record.command  # which says what it is


@pytest.mark.slow
def test_a_network_goes_through_nir(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    export = ("export", warm.out, "--snn", OURS_LABEL, "--cache", warm.cache)
    assert leakbench(*export, "--out", "net.nir").status == 0
    assert json.loads((tmp_path / "net.json").read_text())["timesteps"] == 4
    assert leakbench(*export, "--format", "nir", "--out", "other").status == 0
    assert (tmp_path / "other").read_bytes()[:4] == b"\x89HDF" and (tmp_path / "other.json").is_file()
    arguments = ("--dataset", warm.tiny.dataset, "--dry-run", "--cache", tmp_path / "cache")
    assert leakbench("audit", "--snn", "net.nir", *arguments).status == 0
    (kept,) = (tmp_path / "cache" / "networks").rglob("net.safetensors")
    assert read_network(kept, "--snn").arch.startswith("graph: conv 32 k3x3 p1x1; relu; affine; avgpool k2x2; conv 64")


@pytest.mark.slow
def test_a_nir_file_becomes_a_graph(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    from nir_files import FLATTEN, POOL, chain, conv, lif, linear

    chain(tmp_path / "net.nir", conv(4, 1), lif((4, 8, 8)), POOL, FLATTEN, linear(3, 64))
    arguments = (
        "audit",
        "--snn",
        "net.nir",
        "--dataset",
        warm.tiny.dataset,
        "--dry-run",
        "--cache",
        tmp_path / "cache",
    )
    assert "a NIR file says neither its time step" in leakbench(*arguments).line
    settings = {"format": 1, "framework": "snntorch", "timesteps": 5}
    (tmp_path / "net.json").write_text(json.dumps(settings))
    assert (
        """node '1' (LIF): a file of snntorch does not say this: put "neurons": {"reset": """
        in leakbench(*arguments).line
    )
    (tmp_path / "said.json").write_text(json.dumps({**settings, "neurons": {"reset": "value"}}))
    said = leakbench(*arguments, "--settings", "said.json")
    assert said.status == 0 and "net" in said.out, said.err
    (kept,) = (tmp_path / "cache" / "networks").rglob("net.safetensors")
    made = read_network(kept, "--snn")
    assert made.arch == "graph: conv 4 k3x3 p1x1 b; relu; avgpool k2x2; flatten; linear 3"


OWN = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 3)
        self.v = 0
    def forward(self, x):
        self.v = 0.5 * self.v + self.layer(x.flatten(1))
        return torch.sigmoid(4 * self.v)

def build(kind=Own):
    module = kind()
    with torch.no_grad():
        module.layer.weight.copy_(torch.linspace(-1, 1, 192).view(3, 64))
    return module

class Hard(Own):
    def forward(self, x):
        return (super().forward(x) > 0.5).float()

def hard():
    return build(Hard)

calls = []

class Drifting(Own):
    def forward(self, x):
        calls.append(x)
        return super().forward(x) + len(calls)

def drifting():
    return Drifting()

def random():
    return Own()
"""


@pytest.mark.long
@pytest.mark.slow
def test_a_module_of_no_framework_is_asked_as_it_is(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "mine.json").write_text('{"format": 1, "forward": "step", "timesteps": 3}')
    (tmp_path / "read.json").write_text('{"format": 1, "timesteps": 3}')
    arguments = ("--dataset", warm.tiny.dataset, "--cache", warm.grown, "--preset", "quick", "--no-controls")

    def audited(function: str, *more: object) -> object:
        return leakbench("audit", "--snn", f"mine.py:{function}", *arguments, *more)

    attacks = ("-a", "inversion,reconversion,label_only", "--set", "inversion.iterations=2")
    less = ("--set", "label_only.iterations=1", "--set", "label_only.gan_steps=2", "--set", "label_only.pool=50")
    more = (*less, "--model", "vgg4", "--ann", warm.tiny.checkpoint)
    said = audited("build", "--settings", "mine.json", *attacks, *more, "--out", "own", "-q", "--json")
    record = record_in(tmp_path / "own")
    reasons = {cell.attack: cell.reason for cell in record.cells if cell.status == "not-applicable" and not cell.of}
    assert reasons == {
        "reconversion": "the network is a module whose layers can't be read: no ReLU can take its neurons' places"
    }, said
    ran = {cell.attack.partition("[")[0] for cell in record.cells if cell.status == "ok" and cell.defense == "mine"}
    assert ran == {"", "inversion", "label_only"}
    (alone,) = (cell for cell in record.cells if cell.defense == "mine" and not cell.attack)
    assert (alone.defense, alone.model, alone.timesteps) == ("mine", "vgg4", None)
    assert "reconverted_accuracy" not in {one.metric for one in alone.values}
    assert value_of(alone, "timesteps") == 3
    # no gradient passes: what needs one is not measured, and everything else is
    audited("hard", "--settings", "mine.json", *attacks, *more, "--out", "hard", "-q")
    (answered,) = (c for c in record_in(tmp_path / "hard").cells if c.attack.startswith("label_only") and not c.of)
    assert answered.status == "ok" and {"judge_accuracy"} <= {one.metric for one in answered.values}
    assert "uap_fooling: not measured: no gradient passes through the module" in " ".join(answered.warnings)
    exported = leakbench("export", "own", "--snn", "mine", "--cache", warm.grown, "--out", "mine.safetensors")
    assert "a module that is asked as it is can't be exported" in exported.line
    assert str(tmp_path) not in (tmp_path / "own" / "report.html").read_text()
    line = audited("build", "--settings", "read.json", "-a", "none", "--dry-run").line  # type: ignore[attr-defined]
    assert 'asked as it is: put "forward"' in line and "as --dataset says" in line
    line = audited("drifting", "--settings", "mine.json", "-a", "none", "--dry-run").line  # type: ignore[attr-defined]
    assert "asked twice the same, it answers otherwise" in line
    assert audited("random", "--settings", "mine.json", "-a", "none", "--dry-run").status == 0  # type: ignore[attr-defined]


BUILD = """
from torch import nn
from spikingjelly.activation_based import neuron

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), neuron.IFNode(v_reset=None), nn.Flatten(), nn.Linear(144, 3))

def wrong():
    return 3

def fails():
    raise RuntimeError("no weights")
"""


@pytest.mark.slow
def test_a_module_of_a_framework_is_taken(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    pytest.importorskip("spikingjelly")
    (tmp_path / "mine.py").write_text(BUILD)
    (tmp_path / "mine.json").write_text('{"format": 1, "timesteps": 4}')

    def audited(function: str, *more: object) -> object:
        arguments = ("--dataset", warm.tiny.dataset, "--dry-run", "--cache", tmp_path / "cache", *more)
        return leakbench("audit", "--snn", f"mine.py:{function}", *arguments)

    said = audited("build", "--settings", "mine.json")
    assert said.status == 0 and "mine" in said.out  # type: ignore[attr-defined]
    for function, more, problem in (
        ("build", (), "--settings FILE.json must say timesteps"),
        ("wrong", ("--settings", "mine.json"), "it must return a torch.nn.Module, and returned int"),
        ("fails", ("--settings", "mine.json"), "RuntimeError: no weights"),
        ("other", ("--settings", "mine.json"), "has no class or function 'other'"),
    ):
        assert problem in audited(function, *more).line  # type: ignore[attr-defined]


@pytest.mark.slow
def test_what_is_no_network_and_what_a_run_has_not(
    leakbench: Leakbench, warm: Warm, network: Path, tmp_path: Path
) -> None:
    (tmp_path / "rubbish.safetensors").write_bytes(b"rubbish")
    for arguments, problem in (
        (("audit", "--snn", "rubbish.safetensors"), "is no readable safetensors file"),
        (("audit", "--snn", "nothing.nir"), "no such file"),
        (("audit", "--snn", network, "--settings", "x.json"), "a safetensors file says itself what its network is"),
        (("audit", "--snn", network, "--dataset", "digits,mnist"), "name one"),
        (("audit", "--snn", network, "--dry-run"), "those of digits are [1, 8, 8] of 10 classes: --dataset must be"),
        (("audit", "--snn", network, "--out", "x"), "those of digits are [1, 8, 8] of 10 classes: --dataset must be"),
        (
            ("audit", "--snn", network, "--dataset", warm.tiny.dataset, "--cache", network, "--dry-run"),
            "can't write to the cache at",
        ),
        (("export", warm.out, "--snn", OURS_LABEL), "--snn writes a file: give --out"),
        (("export", warm.out, "--snn", "other", "--out", "x"), "unknown defence of this run 'other'"),
        (("export", warm.out, "--snn", OURS_LABEL, "--seed", "3", "--out", "x"), "--seed 3 names 0: its seeds are 0"),
        (
            ("export", warm.out, "--snn", OURS_LABEL, "--cache", tmp_path / "empty", "--out", "x"),
            "has this network no more: run the grid again",
        ),
    ):
        assert problem in leakbench(*arguments).line
    assert not (tmp_path / "x").exists()
