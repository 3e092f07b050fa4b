"""Networks by name, and networks to and from tensors and JSON: no code is ever loaded with a network.

What is kept of a network's code is a name and, of a third party's, the hash of its source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leakbench import registry
from leakbench.contracts import ImageClassifier, InputRange, ModuleNetwork
from leakbench.errors import PluginError, UnknownName, UsageError
from leakbench.models.catalogue import Architecture, model_names
from leakbench.models.third_party import Build, Shape, built, check_rebuilds
from leakbench.models.weights import fill
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.folding import rewrite_biases, rewrite_pools
from leakbench.snn.general import General

_REWRITES = {"bias": rewrite_biases, "pools": rewrite_pools}


def build_ann(
    model: str,
    image_shape: Shape,
    classes: int,
    input_range: InputRange,
    generator: torch.Generator | None = None,
) -> ImageClassifier:
    """An untrained network, initialised from ``generator`` (any values, if none is given).

    ``model`` is a registered name, ``path/to/file.py:function``, or another network's ``arch``: what that was rewritten
    to stands behind it, as in "resnet20+bias". Raises UnknownName with the nearest name; PluginError where a third
    party's function can't be had, is other code than ``model`` says, or builds no classifier of such images.
    """
    named = Architecture.parse(model)
    if registry.is_built_in("model", named.model):
        build: Build = registry.load("model", named.model)
        return _assembled(build, named, image_shape, classes, input_range, generator or torch.Generator())
    build, architecture = _of_third_party(named)
    ann = _assembled(build, architecture, image_shape, classes, input_range, generator or torch.Generator())
    if generator is not None and not architecture.rewrites:
        check_rebuilds(architecture.label, build, ann.body, image_shape, classes)
    return ann


def _of_third_party(named: Architecture) -> tuple[Build, Architecture]:
    """A third party's function, and how it is known from now on."""
    name = registry.label(named.model)
    with contextlib.suppress(PluginError):
        if named.code:
            return registry.at_hand("model", name, named.code), replace(named, model=name)
    build: Build = registry.load("model", named.model)
    code = registry.source("model", named.model).digest
    if named.code not in ("", code):
        raise PluginError(f"the model {name!r} was edited while the run was under way: start it again")
    return build, replace(named, model=name, code=code)


def _assembled(
    build: Build,
    architecture: Architecture,
    image_shape: Shape,
    classes: int,
    input_range: InputRange,
    generator: torch.Generator,
) -> ImageClassifier:
    if architecture.code:
        body = built(architecture.label, build, image_shape, classes, generator)
    else:
        body = build(image_shape, classes, generator)
    for rewrite in architecture.rewrites:
        if rewrite not in _REWRITES:
            raise UnknownName("rewriting of a model", rewrite, _REWRITES)
        _REWRITES[rewrite](body.eval())
    if architecture.model.startswith(registry.MODULE):
        return ModuleNetwork(body, image_shape, classes, input_range, arch=str(architecture))
    # on CPU, from 8x8 maps up: 1.0 to 1.8 times as fast forwards, 1.2 to 1.4 with gradients
    body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ImageClassifier(body, image_shape, classes, input_range, arch=str(architecture))


def save_network(network: ImageClassifier | SpikingNetwork) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and a JSON record from which :func:`load_network` builds the same network.

    Raises UsageError where the network's ``arch`` names no model that can be built again.
    """
    architecture = Architecture.parse(network.arch)
    if not (architecture.code or registry.is_built_in("model", architecture.model)):
        raise UsageError(
            f"a network of architecture {network.arch!r} can't be kept: nothing says how it is built again; "
            "make it with leakbench.models.storage.build_ann, or pass the arch of one that was"
        )
    record: dict[str, Any] = {
        "arch": network.arch,
        "image_shape": list(network.image_shape),
        "classes": network.classes,
        "input_range": list(network.input_range),
    }
    if isinstance(network, ImageClassifier) and network.precision != "float32":
        record["precision"] = network.precision
    if isinstance(network, SpikingNetwork):
        record["spiking"] = network.config.to_json()
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    if architecture.code:  # theirs may share a weight between layers, which safetensors does not keep
        tensors = {key: value.clone() for key, value in tensors.items()}
    return tensors, record


def load_network(
    tensors: Mapping[str, Tensor], record: Mapping[str, Any], device: torch.device
) -> ImageClassifier | SpikingNetwork:
    """The network that :func:`save_network` took apart, in eval mode on ``device``.

    A record names no file: of a third party's model the function must be at hand, and the same code that built it.
    Raises PluginError otherwise (see :func:`leakbench.registry.at_hand`).
    """
    shape = (int(record["image_shape"][0]), int(record["image_shape"][1]), int(record["image_shape"][2]))
    architecture = Architecture.parse(record["arch"])
    model, code = architecture.model, architecture.code
    if not code and not registry.is_built_in("model", model):
        raise UnknownName("model", model, model_names())
    build = registry.at_hand("model", model, code) if code else registry.load("model", model)
    ranges = InputRange(*record["input_range"])
    ann = _assembled(build, architecture, shape, int(record["classes"]), ranges, torch.Generator())
    ann.precision = record.get("precision", "float32")
    network: ImageClassifier | SpikingNetwork = ann
    if record.get("spiking") is not None:
        network = SpikingNetwork.from_ann(ann, SpikingConfig.from_json(record["spiking"]))
        for layer in network.neurons:
            # thresholds and other constants may be per network, channel or neuron: take the stored shape, and no type
            prefix = next(name for name, module in network.named_modules() if module is layer)
            for constant, usual in layer.named_buffers():
                stored = tensors.get(f"{prefix}.{constant}", usual)
                setattr(layer, constant, torch.empty(stored.shape, dtype=usual.dtype))
            if isinstance(layer, General) and f"{prefix}.shift" in tensors:
                layer.shift = torch.empty(tensors[f"{prefix}.shift"].shape, dtype=torch.int64)
    fill(network, tensors, "the stored network", Architecture.parse(network.arch).label)
    for general in (module for module in network.modules() if isinstance(module, General)):
        general.check_shift()
    return network.to(device).eval().requires_grad_(False)


def load_ann(tensors: Mapping[str, Tensor], record: Mapping[str, Any], device: torch.device) -> ImageClassifier:
    """An ANN from the store."""
    network = load_network(tensors, record, device)
    assert isinstance(network, ImageClassifier)
    return network


@torch.no_grad()
def check_kept(
    plugin_name: str, victim: ImageClassifier | SpikingNetwork, kept: ImageClassifier | SpikingNetwork
) -> None:
    """Raises PluginError where a network answers otherwise after it went through the store.

    Weights and thresholds are kept, and no code: a forward of its own, hooks and layers without weights are lost, and
    another network than the defence's would be measured. Spikes may differ at ties, answers as a whole may not.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(8, *victim.image_shape, generator=generator)
    # networks of few steps are silent on noise
    coarse = torch.rand(8, victim.image_shape[0], 4, 4, generator=generator).round()
    patterns = torch.nn.functional.interpolate(coarse, victim.image_shape[1:])
    probes = torch.cat([noise, patterns]).to(next(kept.parameters()).device)
    before, after = (
        network(probes, seed=0) if isinstance(network, SpikingNetwork | ModuleNetwork) else network(probes)
        for network in (victim, kept)
    )
    if float((before - after).abs().mean()) > 0.1 * float(before.std()) + 1e-6:
        raise PluginError(
            f"{plugin_name}: the network answers otherwise after it was stored and loaded: of a SpikingNetwork or "
            "ImageClassifier only weights, thresholds and settings are kept, no code of its own"
        )
