"""Networks that are audited: whatever they come as, they become a file that a run takes as a defence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from leakbench import registry
from leakbench.bench.grid import GridConfig, make_config
from leakbench.bench.plan import check_settings, plan, taking_part
from leakbench.bench.suites import check_used
from leakbench.contracts import ImageClassifier, InputRange, ModuleNetwork
from leakbench.data import load_dataset
from leakbench.defenses.given import title_of
from leakbench.errors import NotApplicable, PluginError, UsageError
from leakbench.foreign.confined import read_confined
from leakbench.foreign.modules import network_of_module
from leakbench.foreign.nir import network_of_tree, settings_beside
from leakbench.foreign.settings import NetworkSettings, read_settings
from leakbench.leakage import leakage_kinds
from leakbench.leakage.controls import UNPROTECTED, UNTRAINED
from leakbench.models.asked import Asking, module_of
from leakbench.models.catalogue import GRAPH
from leakbench.models.files import read_network
from leakbench.models.storage import build_ann
from leakbench.session.anns import OwnAnn, with_own_ann
from leakbench.session.kept import kept
from leakbench.snn import SpikingNetwork

Network = SpikingNetwork | ImageClassifier
Said = Path | NetworkSettings | None
"""settings of a network: their file, what it would hold, or none"""

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


def audited(
    snn: str | nn.Module, settings: Said, given: Mapping[str, Any], own: OwnAnn, data: Path | None, cache: Path | None
) -> tuple[Network, GridConfig]:
    """The network, at the longest T, and the run that audits it with the options ``given``. UsageError, one line, for
    what is wrong."""
    _check_options(given, title_of(Path(name_of(snn).rpartition(":")[0] if ".py:" in name_of(snn) else name_of(snn))))
    network = read_any(snn, settings, (given.get("dataset") or ["digits"])[0], data)
    if isinstance(network, ModuleNetwork) and "timesteps" in given:
        raise UsageError("--timesteps: how long a module is asked stands in its settings: leave it out")
    stem = Path(name_of(snn).partition(".py:")[0]).stem
    if stem in {name for kind in leakage_kinds() for name in kind.controls}:
        raise UsageError(
            f"--snn {name_of(snn)}: a network is named after its file, and {stem!r} is a control: rename it"
        )
    options = audit_options(network, deployed_as(network, name_of(snn), cache), given)
    if ".py:" in given.get("ann", "") and "model" not in given:  # the controls are made of its graph
        options.pop("model", None)
    grid = with_own_ann(make_config(options), own, data, cache)
    if isinstance(network, SpikingNetwork):
        network = network.configured(replace(network.config, timesteps=max(grid.timesteps)))
    return network, grid


def _check_options(given: Mapping[str, Any], name: str) -> None:
    """UsageError for what is wrong whatever the network is, before that is read, asked and tried.

    Third parties' attacks and metrics are not looked at here, where they would not be isolated.
    """
    options = {option: value for option, value in given.items() if option not in ("ann", "model")}
    grid = make_config({**options, "defense": [UNPROTECTED]})
    if any(_is_third_partys("attack", one) for one in grid.attack):
        return
    if any(_is_third_partys("metric", one) for one in grid.metric):
        return
    # of the network itself, which is named after its file, something may be set as well, and of its untrained control
    own = {name, UNTRAINED}
    check_settings(grid, taking_part(grid) | own)
    others = {key: values for key, values in grid.set.items() if key.partition(".")[0] not in own}
    check_used(grid, plan(grid.model_copy(update={"set": others})))


def _is_third_partys(kind: registry.Kind, name: str) -> bool:
    """Whether asking for the name loads a third party's code."""
    if name == "all":
        return any(not registry.is_built_in(kind, one) for one in registry.entries(kind))
    return not registry.is_built_in(kind, name) and (".py:" in name or name in registry.entries(kind))


def name_of(snn: str | nn.Module) -> str:
    """What stands for the network in messages and in the name of its file."""
    return snn if isinstance(snn, str) else type(snn).__name__


def read_any(snn: str | nn.Module, settings: Said, dataset: str, data: Path | None) -> Network:
    """The network that is named: a file of LeakBench's or of NIR, a function that builds a module, or a module itself.

    UsageError, one line, where it is none.
    """
    if not isinstance(snn, str) or ".py:" in snn:
        return _of_module(snn, settings, dataset, data)
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


def _settings(said: Path | NetworkSettings, guessed: bool, of: Path) -> NetworkSettings:
    if isinstance(said, NetworkSettings):
        return said
    if guessed and not said.is_file():
        raise UsageError(
            f"--snn {str(of)!r}: a NIR file says neither its time step nor how neurons reset nor what enters: put that "
            f"into {said.name!r} beside it, or name a file with --settings"
        )
    return read_settings(said, "--settings")


def _of_module(snn: str | nn.Module, settings: Said, dataset: str, data: Path | None) -> Network:
    name = name_of(snn)
    if settings is None:
        raise UsageError(
            f"--snn {name}: --settings FILE.json must say timesteps, and how images enter, as in "
            '{"format": 1, "framework": "snntorch", "timesteps": 16, "input": {"encoder": "direct"}}'
        )
    given = settings if isinstance(settings, NetworkSettings) else read_settings(settings, "--settings")
    module_of.cache_clear()
    try:
        module = module_of(registry.from_file(snn, anew=True)) if isinstance(snn, str) else snn
    except PluginError as error:
        raise PluginError(f"--snn {name}: {error}") from error
    private = load_dataset(dataset, data)
    if given.forward is not None:
        if not isinstance(snn, str):
            raise UsageError(
                f"--snn {name}: every process builds a module that is asked as it is: put the function that builds it "
                "into a file and give FILE.py:FUNCTION"
            )
        return _asked(snn, given, private.image_shape, len(private.classes))
    try:
        return network_of_module(module, private.image_shape, len(private.classes), given)
    except (UsageError, NotApplicable) as error:
        raise UsageError(
            f"--snn {name}: {error}. It was read for {'x'.join(map(str, private.image_shape))} images of {dataset}, as "
            '--dataset says. A module can also be asked as it is: put "forward": "images", "spikes" or "step" into the '
            "settings"
        ) from None


def _asked(snn: str, given: NetworkSettings, shape: tuple[int, int, int], classes: int) -> ModuleNetwork:
    """A module that answers as it is. UsageError or PluginError, one line, where it does not, or not twice alike: built
    anew, or asked with other images beside it."""
    entering, readout = given.input, given.readout
    entering.check(shape[0])
    asking = Asking(
        forward=given.forward or "images", timesteps=given.timesteps, encoder=entering.encoder, range=entering.range,
        mean=entering.mean, std=entering.std, over=readout.over, scale=readout.scale,
    )  # fmt: skip

    def built() -> ModuleNetwork:
        try:
            network = build_ann(asking.model_name(snn), shape, classes, InputRange(*asking.range))
        except PluginError as error:
            raise PluginError(f"--snn {error}") from error
        assert isinstance(network, ModuleNetwork)
        return network

    network = built()
    images, others = torch.rand(2, 8, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, again = (network(images, seed=0) for _ in range(2))
        beside = network(torch.cat([images[:4], 0.1 * others[4:]]), seed=0)[:4]  # others of another brightness
        module_of.cache_clear()
        anew = built()(images, seed=0)
    for answers, problem in (
        (
            again,
            "asked twice the same, it answers otherwise: a state that is kept outside of the module is no network's",
        ),
        (beside, "what it answers to an image depends on the images beside it: they must be independent"),
        (
            anew,
            "built twice, it answers otherwise: let it load its weights from a file, and draw from torch's, NumPy's or "
            "Python's global generators alone",
        ),
    ):
        if not torch.allclose(first[: len(answers)], answers, rtol=1e-3, atol=1e-5):
            raise UsageError(f"--snn {snn}: {problem}")
    return network


def deployed_as(network: Network, snn: str, cache: Path | None) -> str:
    """The network as the defence of a run: its file in the store, named as what it comes from, or the user's module."""
    if isinstance(network, ModuleNetwork):
        return Asking.parse(network.arch).model_name(snn)
    return f"network:{kept(network, snn, cache)}"


def _control_arch(arch: str) -> str:
    """Of the ANN that a network is compared with: where the last layer's outputs are spikes, they are its logits before
    the ReLU, behind which classes would die in training."""
    return arch.removesuffix("; relu") if arch.startswith(GRAPH) else arch


def audit_options(network: Network, deployed: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the run that audits a network: itself in the place of a defence, and its graph as the model.

    Of a module, whose graph nobody can read, the model for the controls is a built-in one.
    """
    options = {"dataset": ["digits"], **given, "defense": [deployed]}
    if not isinstance(network, ModuleNetwork):
        if "model" in given:
            raise UsageError("--model: controls are made of the network's own graph: leave it out")
        options["model"] = [_control_arch(network.arch)]
    if "timesteps" not in options and isinstance(network, SpikingNetwork):
        options["timesteps"] = [str(network.config.timesteps)]
    if len(cast("list[str]", options["dataset"])) > 1:
        raise UsageError("--dataset: a network is audited on the data set that it was trained on: name one")
    return options
