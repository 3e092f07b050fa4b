"""The examples of audits: networks of SpikingJelly, snnTorch, Norse and sinabs, read as modules and as NIR files.

Each is run as the guide says. Wanted: logits of both readings equal to the framework's within 1e-4 on the digits' test
images with the same input spikes, and the same classes. Frameworks that are not installed are skipped;
`make test-frameworks` installs them all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from leakbench import registry
from leakbench.contracts import ModuleNetwork
from leakbench.data import load_dataset
from leakbench.errors import UsageError
from leakbench.session.audits import read_any
from leakbench.snn import SpikingNetwork

EXAMPLES = Path(__file__).parents[2] / "examples" / "audit"
FRAMEWORKS = ("spikingjelly", "snntorch", "norse", "sinabs")


def run_example(script: Path) -> subprocess.CompletedProcess[str]:
    """On one thread: more are slower on networks this small, and other tests have the other cores."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, script], capture_output=True, text=True, env=alone)


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_trained_network_is_what_its_framework_says(
    framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in (framework, "nir", "h5py"):
        pytest.importorskip(package)
    script, name = EXAMPLES / f"{framework}_digits.py", f"{framework}_digits"
    monkeypatch.chdir(tmp_path)
    done = run_example(script)
    assert done.returncode == 0, done.stderr

    def example(attribute: str) -> Any:
        return registry.from_file(f"{script}:{attribute}")

    data, module = load_dataset("digits"), example("build")().eval()
    images, generator = data.test.images / 255, torch.Generator().manual_seed(1)
    encoded = (torch.rand(example("STEPS"), *images.shape, generator=generator) < images).float()
    with torch.no_grad():
        theirs = example("run")(module, encoded)
    right = float((theirs.argmax(1) == data.test.labels).float().mean())
    assert right >= 0.93 and "accuracy on 360 test images: 0.9" in done.stdout
    folder = Path("runs/audit")
    for snn, settings in (
        (f"{script}:build", folder / "module.json"),
        (str(folder / f"{name}.nir"), None),
    ):
        network = read_any(snn, settings, "digits", None)
        assert isinstance(network, SpikingNetwork)
        ours = network.respond(encoded).logits
        assert float((ours - theirs).abs().max()) <= 1e-4
        assert torch.equal(ours.argmax(1), theirs.argmax(1))
    assert json.loads((folder / f"{name}.json").read_text())["framework"] == framework


@pytest.mark.long
@pytest.mark.slow
def test_a_network_of_own_neurons_answers_as_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = EXAMPLES / "own_neurons_digits.py"
    monkeypatch.chdir(tmp_path)
    done = run_example(script)
    assert done.returncode == 0, done.stderr
    data, module = load_dataset("digits"), registry.from_file(f"{script}:build")().eval()
    snn, settings = f"{script}:build", Path("runs/audit/own_neurons.json")
    network = read_any(snn, settings, "digits", None)
    assert isinstance(network, ModuleNetwork)
    images, run = data.test.images / 255, registry.from_file(f"{script}:run")
    torch.manual_seed(0)
    with torch.no_grad():
        theirs, ours = run(module, images).argmax(1), network(images, seed=0).argmax(1)
    # other spikes of the same rates
    assert float((ours == theirs).float().mean()) > 0.93
    assert float((ours == data.test.labels).float().mean()) > 0.93
    with pytest.raises(UsageError, match="Adaptive"):
        settings.write_text('{"format": 1, "timesteps": 12}')
        read_any(snn, settings, "digits", None)
