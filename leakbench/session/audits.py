"""Networks that are audited: whatever they come as, they become a file that a run takes as a defence."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from leakbench import registry
from leakbench.contracts import ImageClassifier, InputRange, ModuleNetwork
from leakbench.data import load_dataset
from leakbench.errors import PluginError, StoreError, UsageError
from leakbench.foreign.confined import read_confined
from leakbench.foreign.modules import network_of_module
from leakbench.foreign.nir import network_of_tree, settings_beside
from leakbench.foreign.settings import NetworkSettings, read_settings
from leakbench.models.asked import Asking, module_of
from leakbench.models.catalogue import GRAPH
from leakbench.models.files import network_bytes, read_network
from leakbench.models.storage import build_ann
from leakbench.paths import NETWORKS, default_cache
from leakbench.runtime.files import write_file
from leakbench.snn import SpikingNetwork

Network = SpikingNetwork | ImageClassifier

_WEIGHTS = (
    "a file of weights alone is no network: give mine.py:build, a function that builds it and loads this file, and "
    'settings such as {"format": 1, "forward": "step", "timesteps": 16} with --settings'
)
_NO_NETWORKS = {
    ".py": "which function builds the network? Give FILE.py:FUNCTION",
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), _WEIGHTS),
    **dict.fromkeys(
        (".onnx", ".h5", ".keras", ".tflite"),
        "give a .nir file, one that leakbench export wrote, or mine.py:build, a function that returns a torch module",
    ),
}
"""ending of a file -> what is to be given in its place"""


def read_any(snn: str, settings: Path | None, dataset: str, data: Path | None) -> Network:
    """The network that ``--snn`` names: a file of LeakBench's or of NIR, or a function that builds a module.

    UsageError, one line, where it is none.
    """
    if ".py:" in snn:
        return _of_function(snn, settings, dataset, data)
    path = Path(snn)
    if (what := _NO_NETWORKS.get(path.suffix.lower())) is not None:
        raise UsageError(f"--snn {snn!r}: {what}")
    if path.suffix != ".nir":
        if settings is not None:
            raise UsageError("--settings: a safetensors file says itself what its network is: leave it out")
        return read_network(path, "--snn")
    tree = read_confined(path, "--snn")
    given = _settings(settings or settings_beside(path), settings is None, path)
    try:
        return network_of_tree(tree, given)
    except UsageError as error:
        raise UsageError(f"--snn {snn!r}: {error}") from None


def _settings(path: Path, guessed: bool, of: Path) -> NetworkSettings:
    if guessed and not path.is_file():
        raise UsageError(
            f"--snn {str(of)!r}: a NIR file says neither its time step nor how neurons reset nor what enters: put that "
            f"into {path.name!r} beside it, or name a file with --settings"
        )
    return read_settings(path, "--settings")


def _of_function(snn: str, settings: Path | None, dataset: str, data: Path | None) -> Network:
    if settings is None:
        raise UsageError(
            f"--snn {snn}: --settings FILE.json must say timesteps, and how images enter, as in "
            '{"format": 1, "framework": "snntorch", "timesteps": 16, "input": {"encoder": "direct"}}'
        )
    given = read_settings(settings, "--settings")
    try:
        module = module_of(registry.from_file(snn))
    except PluginError as error:
        raise PluginError(f"--snn {snn}: {error}") from error
    private = load_dataset(dataset, data)
    if given.forward is not None:
        return _asked(snn, given, private.image_shape, len(private.classes))
    try:
        return network_of_module(module, private.image_shape, len(private.classes), given)
    except UsageError as error:
        raise UsageError(
            f'--snn {snn}: {error}; or have it asked as it is: put "forward": "images", "spikes" or "step" into the '
            "settings"
        ) from None


def _asked(snn: str, given: NetworkSettings, shape: tuple[int, int, int], classes: int) -> ModuleNetwork:
    """A module that answers as it is. UsageError or PluginError, one line, where it does not, or not twice alike."""
    entering, readout = given.input, given.readout
    entering.check(shape[0])
    asking = Asking(
        forward=given.forward or "images", timesteps=given.timesteps, encoder=entering.encoder, range=entering.range,
        mean=entering.mean, std=entering.std, over=readout.over, scale=readout.scale,
    )  # fmt: skip
    try:
        network = build_ann(asking.model_name(snn), shape, classes, InputRange(*asking.range))
    except PluginError as error:
        raise PluginError(f"--snn {error}") from error
    assert isinstance(network, ModuleNetwork)
    images = torch.rand(8, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, again = (network(images, seed=0) for _ in range(2))
    if not torch.allclose(first, again, rtol=1e-3, atol=1e-5):
        raise UsageError(
            f"--snn {snn}: asked twice the same, it answers otherwise: a state that is kept outside of the module is "
            "no network's"
        )
    return network


def deployed_as(network: Network, snn: str, cache: Path | None) -> str:
    """The network as the defence of a run: its file in the store, named as what it comes from, or the user's module."""
    if isinstance(network, ModuleNetwork):
        return Asking.parse(network.arch).model_name(snn)
    return f"network:{kept(network, snn, cache)}"


def kept(network: Network, snn: str, cache: Path | None) -> Path:
    """The file of the network in the store. StoreError where it can't be written."""
    content = network_bytes(network)
    name = snn.rpartition(":")[0] if ".py:" in snn else snn
    digest = hashlib.sha256(content).hexdigest()
    path = (cache or default_cache()) / NETWORKS / digest[:16] / f"{Path(name).stem}.safetensors"
    try:
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content)
        with contextlib.suppress(OSError):  # of a store that may only be read
            os.utime(path)  # used now
    except OSError as error:
        raise StoreError(f"can't write to the cache at {str(path.parent)!r}: {error.strerror}") from None
    return path


def _control_arch(arch: str) -> str:
    """Of the ANN that a network is compared with: where the last layer's outputs are spikes, they are its logits before
    the ReLU, behind which classes would die in training."""
    return arch.removesuffix("; relu") if arch.startswith(GRAPH) else arch


def audit_options(network: Network, deployed: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the run that audits a network: itself in the place of a defence, and its graph as the model.

    Of a module, whose graph nobody can read, the model for the controls is a built-in one.
    """
    usual = {"attack": ["auto"], "dataset": ["digits"]}
    options = {**usual, **given, "defense": [deployed]}
    if not isinstance(network, ModuleNetwork):
        if "model" in given:
            raise UsageError("--model: controls are made of the network's own graph: leave it out")
        options["model"] = [_control_arch(network.arch)]
    if "timesteps" not in options and isinstance(network, SpikingNetwork):
        options["timesteps"] = [str(network.config.timesteps)]
    if len(cast("list[str]", options["dataset"])) > 1:
        raise UsageError("--dataset: a network is audited on the data set that it was trained on: name one")
    return options
