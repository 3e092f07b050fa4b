"""Networks that are audited: whatever they come as, they become a file that a run takes as a defence."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from leakbench import registry
from leakbench.contracts import ImageClassifier
from leakbench.data import load_dataset
from leakbench.errors import LeakBenchError, PluginError, UsageError, printable
from leakbench.foreign.confined import read_confined
from leakbench.foreign.modules import network_of_module
from leakbench.foreign.nir import network_of_tree, settings_beside
from leakbench.foreign.settings import NetworkSettings, read_settings
from leakbench.models.files import network_bytes, read_network
from leakbench.paths import default_cache
from leakbench.runtime.files import write_file
from leakbench.snn import SpikingNetwork

Network = SpikingNetwork | ImageClassifier
NETWORKS = "networks"
"""folder of the store that audited networks are in"""


def read_any(snn: str, settings: Path | None, dataset: str, data: Path | None) -> Network:
    """The network that ``--snn`` names: a file of LeakBench's or of NIR, or a function that builds a module.

    UsageError, one line, where it is none.
    """
    if ".py:" in snn:
        return _of_function(snn, settings, dataset, data)
    path = Path(snn)
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
        raise UsageError(f"--snn {snn}: --settings FILE.json must say timesteps, and how images enter")
    given = read_settings(settings, "--settings")
    build = registry.from_file(snn)
    try:
        module = build()
    except LeakBenchError:
        raise
    except Exception as error:
        raise PluginError(f"--snn {snn}: {type(error).__name__}: {printable(str(error))[:300]}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"--snn {snn}: it must return a torch.nn.Module, and returned {type(module).__name__}")
    private = load_dataset(dataset, data)
    try:
        return network_of_module(module, private.image_shape, len(private.classes), given)
    except UsageError as error:
        raise UsageError(f"--snn {snn}: {error}") from None


def kept(network: Network, snn: str, cache: Path | None) -> Path:
    """The file of the network in the store, named as what it comes from."""
    content = network_bytes(network)
    name = snn.rpartition(":")[0] if ".py:" in snn else snn
    digest = hashlib.sha256(content).hexdigest()
    path = (cache or default_cache()) / NETWORKS / digest[:16] / f"{Path(name).stem}.safetensors"
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    return path


def audit_options(network: Network, path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the run that audits a network: itself in the place of a defence, and its graph as the model."""
    usual = {"attack": ["auto"], "dataset": ["digits"]}
    options = {**usual, **given, "defense": [f"network:{path}"], "model": [network.arch]}
    if "timesteps" not in options and isinstance(network, SpikingNetwork):
        options["timesteps"] = [str(network.config.timesteps)]
    if len(cast("list[str]", options["dataset"])) > 1:
        raise UsageError("--dataset: a network is audited on the data set that it was trained on: name one")
    return options
