"""Networks that are given as they are deployed: nothing is built, and nobody's training is repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from leakbench import registry
from leakbench.built_ins import NETWORK, UNTRAINED_NETWORK
from leakbench.code_digest import code_digest
from leakbench.contracts import Defense, DefenseContext, ImageClassifier, InputRange, Params, TrainingData
from leakbench.errors import PluginError, UsageError
from leakbench.models.asked import Asking, module_of
from leakbench.models.files import file_digest, read_network
from leakbench.models.simulation import simulated
from leakbench.models.storage import build_ann
from leakbench.snn import SpikingNetwork
from leakbench.snn.general import General


def of_file(name: str) -> type[Defense[Params]]:
    """The defence that deploys the network of a file, ``network:PATH``. UsageError where there is none."""
    path = _path(name, NETWORK)
    return _given(path, file_digest(path))


def untrained_of_file(name: str) -> type[Defense[Params]]:
    """The control of such a network, ``untrained:PATH``. UsageError where there is no file."""
    path = _path(name, UNTRAINED_NETWORK)
    return _untrained(path, file_digest(path))


def _path(name: str, prefix: str) -> Path:
    path = Path(name.removeprefix(prefix)).absolute()
    if not path.is_file():
        raise UsageError(f"{prefix}: no such file {str(path)!r}")
    return path


def of_module(target: str) -> type[Defense[Params]]:
    """The defence that deploys a module, ``module: ... of path/to/file.py:function``.

    UsageError or PluginError, one line, where there is none.
    """
    file = registry.in_file(target)
    module = module_of(registry.from_file(file))
    # a file may hold several functions, and one may be asked in several ways, around the same tensors
    said = f"{registry.label(target)} {registry.source('model', file).digest} {code_digest(module)}"
    return _given_module(target, hashlib.sha256(said.encode()).hexdigest())


@lru_cache(maxsize=16)
def _given_module(target: str, digest: str) -> type[Defense[Params]]:
    asking, file = Asking.parse(target), registry.in_file(target)

    class GivenParams(Params):
        """Which module it is."""

        sha256: str = Field(
            digest, description="of the function, its file, how the module is asked, its tensors and attributes"
        )

    class Given(Defense[GivenParams]):
        """A module as it is deployed."""

        name = title_of(Path(file.rpartition(":")[0]))
        version = 3  # 2: attacks follow its gradients at the scale of its answers; 3: and draw its noise by their seeds
        cites = "given as a module"
        spiking = False

        def protect(
            self,
            ann: ImageClassifier,
            data: TrainingData,  # noqa: ARG002
            context: DefenseContext,
        ) -> ImageClassifier:
            if digest != self.params.sha256:
                raise PluginError(
                    f"{file!r} builds another module each time: let it load its weights from "
                    "a file, and keep times and the like out of its attributes"
                )
            ranges = InputRange(*asking.range)
            return build_ann(target, ann.image_shape, ann.classes, ranges).to(context.device)

    return Given  # type: ignore[return-value]


def title_of(path: Path) -> str:
    """What a network in a file is called in a run."""
    return "".join(char for char in path.stem if char.isprintable() and char not in "[]=,") or "network"


@lru_cache(maxsize=16)
def _given(path: Path, digest: str) -> type[Defense[Params]]:
    network = read_network(path, NETWORK)

    class GivenParams(Params):
        """Which network it is."""

        sha256: str = Field(digest, description="of the file")

    class Given(Defense[GivenParams]):
        """A network as it is deployed."""

        name = title_of(path)
        cites = "given as a file"
        spiking = isinstance(network, SpikingNetwork)
        anytime = True

        def protect(
            self,
            ann: ImageClassifier,  # noqa: ARG002 - another network of the same shape
            data: TrainingData,  # noqa: ARG002
            context: DefenseContext,
        ) -> SpikingNetwork | ImageClassifier:
            return _unchanged(path, self.params.sha256).to(context.device)

    Given.__doc__ = f"As it is deployed: {_described(network)}."
    return Given  # type: ignore[return-value]


@lru_cache(maxsize=16)
def _untrained(path: Path, digest: str) -> type[Defense[Params]]:
    class UntrainedParams(Params):
        """Whose control it is."""

        sha256: str = Field(digest, description="of the network's file")
        images: int = Field(32, ge=1, description="training images on which neurons fire as often as the network's")

    class Untrained(Defense[UntrainedParams]):
        """Control: the audited network with each layer's weights in random order, firing as often; it knows nothing."""

        name = "random"
        cites = "negative control: LeakBench, docs/verdicts.md, Gates and verdicts"
        anytime = True

        def protect(
            self,
            ann: ImageClassifier,  # noqa: ARG002
            data: TrainingData,
            context: DefenseContext,
        ) -> SpikingNetwork:
            network = _unchanged(path, self.params.sha256)
            if not isinstance(network, SpikingNetwork):
                raise UsageError(f"{UNTRAINED_NETWORK}: {str(path)!r} holds no spiking network")
            images, _ = data.sample(self.params.images, context.generator)
            seed, steps = context.seed(), network.config.timesteps

            def count() -> dict[str, int]:
                answers = simulated(network.to(context.device), images, seed, (steps,), context.device, lambda *_: None)
                return answers[steps][1]

            wanted = count()
            shuffle_weights(network.to("cpu"), context.generator)
            raise_rates(network, wanted, count)
            return network.to(context.device)

    return Untrained  # type: ignore[return-value]


@torch.no_grad()
def shuffle_weights(network: SpikingNetwork, generator: torch.Generator) -> None:
    """Puts the weights, and the biases, of each layer of a network on the CPU into random order, with random signs.

    Their sizes stay; what the network was trained for goes (Adebayo et al., NeurIPS 2018). Signs are drawn because
    those of trained weights keep most outputs silent, and an attack needs an answer to work on. Neurons, readout, and
    scales of single channels stay as they are.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            for tensor in (module.weight, module.bias):
                if tensor is not None:
                    order = torch.randperm(tensor.numel(), generator=generator)
                    signs = torch.randint(0, 2, order.shape, generator=generator) * 2 - 1
                    tensor.copy_((tensor.flatten()[order] * signs).view(tensor.shape))


@torch.no_grad()
def raise_rates(network: SpikingNetwork, wanted: Mapping[str, int], count: Callable[[], Mapping[str, int]]) -> None:
    """Scales what feeds each layer up, first to last, until it fires as often as ``wanted``, spikes by layer; ``count``
    simulates. A layer that does not at 1.5^8 of its weights, or that no weights feed directly, is left there."""
    for layer in network.neurons:
        feeders = [network.body.get_submodule(name) for name in network.topology.feeders[layer.layer]]
        for _ in range(8 if feeders else 0):
            if count()[layer.layer] >= wanted[layer.layer]:
                break
            for feeder in feeders:
                for tensor in feeder.parameters(recurse=False):
                    tensor.mul_(1.5)


def _described(network: SpikingNetwork | ImageClassifier) -> str:
    """What it consists of, as in "2 layers of spiking neurons, leak 0.5 to 0.75, reset by subtraction, ..."."""
    if not isinstance(network, SpikingNetwork):
        return "a network without spiking neurons"
    leaks = torch.cat([torch.as_tensor(layer.leaks()).float().flatten() for layer in network.neurons])
    low, high = (f"{float(end):.4g}" for end in (leaks.min(), leaks.max()))
    subtract = {
        bool(layer.subtracts) if isinstance(layer, General) else network.config.neuron.reset == "soft"
        for layer in network.neurons
    }
    resets = " or ".join("by subtraction" if one else "to a value" for one in sorted(subtract))
    count = f"{len(network.neurons)} layer{'s' * (len(network.neurons) > 1)} of spiking neurons"
    leak = low if low == high else f"{low} to {high}"
    steps = network.config.timesteps
    return f"{count}, leak {leak}, reset {resets}, input {network.config.encoder}, T = {steps}"


def _unchanged(path: Path, digest: str) -> SpikingNetwork | ImageClassifier:
    if file_digest(path) != digest:
        raise PluginError(f"{str(path)!r} was edited while the run was under way: start it again")
    return read_network(path, NETWORK)
