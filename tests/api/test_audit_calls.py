"""``leakbench.audit``: networks of files and modules of the caller's own, as the command takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from api_samples import Computed, two
from safetensors.torch import load_file
from tiny_runs import OURS, OURS_LABEL, Warm, cell_of, user_network
from torch import nn

import leakbench
from leakbench.cli.audit import audit as command
from leakbench.contracts import InputRange
from leakbench.errors import LeakBenchError, UsageError
from leakbench.models.files import network_bytes, read_network
from leakbench.models.storage import build_ann
from leakbench.session.networks import deployed_network
from leakbench.snn import SpikingNetwork

Fake = Callable[..., list[Computed]]

SAID = {"format": 1, "timesteps": 16, "input": {"encoder": "direct"}}


def spiking(warm: Warm) -> nn.Sequential:
    """The user's network with SpikingJelly's neurons in the place of its ReLUs."""
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    network = user_network()
    network.load_state_dict(load_file(warm.tiny.checkpoint))
    layers = [neuron.IFNode(v_reset=None) if isinstance(layer, nn.ReLU) else layer for layer in network]
    return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Dropout)))


def test_its_parameters_are_the_options_of_the_command() -> None:
    options = set(inspect.signature(command).parameters) - {"context", "dry_run", "fail_if", "as_json"}
    renamed = {"settings": "set", "network_settings": "settings"}
    assert set(inspect.signature(leakbench.audit).parameters) == {renamed.get(name, name) for name in options}


@pytest.mark.slow
def test_a_network_of_a_file_is_audited_as_it_is(warm: Warm, tmp_path: Path) -> None:
    path = tmp_path / "deployed.safetensors"
    path.write_bytes(network_bytes(deployed_network(warm.record, OURS_LABEL, 0, warm.cache)))
    result = leakbench.audit(
        path, attack="none", controls=False, dataset=warm.tiny.dataset, preset="quick", ann=warm.tiny.checkpoint,
        cache=warm.grown, out=tmp_path / "run", quiet=True,
    )  # fmt: skip
    (cell,) = result.record.cells
    assert (cell.status, cell.defense, cell.timesteps) == ("ok", "deployed", 4)
    assert cell.weights == cell_of(warm.record, OURS).weights != ""
    assert result.record.command.startswith("leakbench.audit(snn='")
    assert result.report.is_file() and result == leakbench.load(tmp_path / "run")


@pytest.mark.slow
def test_a_module_is_audited_and_stays_as_it_was(computed: Fake, warm: Warm, tmp_path: Path) -> None:
    module = spiking(warm)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    asked = computed(two())
    given = {"dataset": warm.tiny.dataset, "cache": tmp_path / "cache", "images_per_class": 2, "quiet": True}
    leakbench.audit(module, SAID, set={"direct.iterations": 2}, attack="direct", out=tmp_path / "run", **given)
    (one,) = asked
    (network,) = one.grid.defense
    kept = read_network(Path(network.removeprefix("network:")), "--snn")
    assert isinstance(kept, SpikingNetwork) and Path(network).stem == "Sequential"
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = sum(module(images) for _ in range(16))
    torch.testing.assert_close(kept(images), steps, rtol=1e-4, atol=1e-4)
    assert one.grid.timesteps == (16,) and one.grid.model[0].startswith("graph: conv 32 k3x3 p1x1; relu")
    assert one.grid.images_per_class == 2 and one.folder == tmp_path / "run"
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    # what it does is in a file as well, and no other network
    (tmp_path / "said.json").write_text('{"format": 1, "timesteps": 16, "input": {"encoder": "direct"}}')
    leakbench.audit(spiking(warm), tmp_path / "said.json", **given)
    assert asked[1].grid.defense == one.grid.defense and asked[1].grid.attack != one.grid.attack


@pytest.mark.parametrize(
    ("snn", "settings", "line"),
    [
        ("none.safetensors", None, "--snn: no such file 'none.safetensors'"),
        ("net.pt", None, "a file of weights alone is no network"),
        (nn.Flatten(), None, "--snn Flatten: --settings FILE.json must say timesteps"),
        (nn.Flatten(), {"format": 1, "timestep": 3}, "settings: timestep: extra inputs are not permitted (known: "),
        (
            nn.Flatten(),
            {"format": 1, "forward": "images"},
            "--snn Flatten: every process builds a module that is asked",
        ),
        (nn.Flatten(), "none.json", "--settings: no such file 'none.json'"),
        (3, None, "--snn must be a path, FILE.py:FUNCTION or a torch module, got int"),
    ],
)
def test_errors_are_one_line_and_write_nothing(snn: Any, settings: Any, line: str) -> None:
    with pytest.raises(LeakBenchError) as raised:
        leakbench.audit(snn, settings, attack="direct")
    assert line in str(raised.value) and "\n" not in str(raised.value)
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_network_that_guesses_is_refused(tmp_path: Path) -> None:
    guesses = build_ann("vgg4", (1, 8, 8), 10, InputRange(0, 1), torch.Generator().manual_seed(0))
    path = tmp_path / "guesses.safetensors"
    path.write_bytes(network_bytes(guesses))
    with pytest.raises(UsageError, match=r"--snn .*guesses\.safetensors: it classifies .* of 300 test images"):
        leakbench.audit(path, attack="direct", cache=tmp_path / "cache")
