"""The networks that benchmarks/engine.py simulates, and who simulates them: LeakBench, its peers and a plain loop."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.models.storage import build_ann
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.encoders import poisson
from leakbench.snn.noise import image_keys

SEED = 1
CLASSES = 10


class Network(StrEnum):
    SMALL = "small"
    VGG16 = "vgg16"


@dataclass(frozen=True)
class Shape:
    """A network to be simulated, and how much of it by default."""

    arch: str
    image: tuple[int, int, int]
    input_range: InputRange
    batch: int
    timesteps: int


SHAPES = {
    Network.SMALL: Shape("vgg5", (1, 28, 28), InputRange(0, 1), 32, 32),
    Network.VGG16: Shape("vgg16", (3, 32, 32), InputRange(-1, 1), 8, 16),
}


@dataclass(frozen=True)
class Setting:
    """What is simulated."""

    network: Network
    batch: int
    timesteps: int
    rate: float
    """spikes a step and neuron that every layer's threshold is set for"""

    def images(self) -> Tensor:
        """[B, C, H, W] in [0, 1]."""
        return torch.rand(self.batch, *SHAPES[self.network].image, generator=torch.Generator().manual_seed(SEED))

    def spikes(self) -> Tensor:
        """[T, B, C, H, W], channels last: those that LeakBench draws for the images under the seed."""
        keys = image_keys(SEED, 0, self.batch, torch.device("cpu"))
        drawn = poisson(SHAPES[self.network].input_range(self.images()), keys, 0, self.timesteps)
        drawn = drawn.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, drawn.unflatten(0, (self.timesteps, self.batch)))

    def ann(self) -> ImageClassifier:
        shape = SHAPES[self.network]
        generator = torch.Generator().manual_seed(0)
        return build_ann(shape.arch, shape.image, CLASSES, shape.input_range, generator).eval()


# --- the network: weights and thresholds -----------------------------------------------------------------------------


def integrate_and_fire(current: Tensor, threshold: float) -> Tensor:
    """Spikes, 0 or 1, of currents [T, B, ...]."""
    membrane = torch.zeros_like(current[0])
    spikes = torch.empty_like(current)
    for now, fired in zip(current, spikes, strict=True):
        membrane += now
        fired.copy_(membrane > threshold)
        membrane -= threshold * fired
    return spikes


def threshold_for(current: Tensor, rate: float) -> float:
    """The threshold at which neurons under these currents spike at the rate, to within two per cent."""
    high = float(current.cumsum(0).max())
    low = high / 2**20
    for _ in range(12):
        middle = math.sqrt(low * high)
        if float(integrate_and_fire(current, middle).mean()) > rate:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def on_grid(weight: Tensor, timesteps: int) -> Tensor:
    """Weights rounded to multiples of p / 2^m with an odd p above T; about seven bits and a sign each.

    Spikes are worth powers of two, and so are thresholds. So all sums that come near a threshold are exact in float32,
    in any order. No membrane ever equals its threshold, where > and >= would differ: after n spikes that would take a
    multiple of p that is n + 1 <= T times a power of two.
    """
    odd = timesteps + 1 + timesteps % 2
    step = odd * 2.0 ** math.floor(math.log2(float(weight.std()) / (64 * odd)))
    return torch.round(weight / step) * step


@torch.no_grad()
def prepare(setting: Setting, path: Path) -> list[float]:
    """Find a network whose layers all spike at the rate, keep it at ``path``; gives the rates that were measured."""
    ann = setting.ann()
    *hidden, last = stages(ann.body)
    x = setting.spikes().flatten(0, 1)
    thresholds: list[float] = []
    rates: list[float] = []
    for stage in hidden:
        x, layer = stage[:-1](x), cast(nn.Linear, stage[-1])
        wanted = threshold_for(layer(x).unflatten(0, (setting.timesteps, setting.batch)), setting.rate)
        threshold = 2.0 ** round(math.log2(wanted))
        layer.weight.copy_(on_grid(layer.weight * (threshold / wanted), setting.timesteps))
        spikes = integrate_and_fire(layer(x).unflatten(0, (setting.timesteps, setting.batch)), threshold)
        thresholds.append(threshold)
        rates.append(float(spikes.mean()))
        x = spikes.flatten(0, 1) * threshold
    output = cast(nn.Linear, last[-1])
    output.weight.copy_(on_grid(output.weight, setting.timesteps))
    logits = last(x).unflatten(0, (setting.timesteps, setting.batch)).mean(0)
    kept = {"thresholds": torch.tensor(thresholds), "scale": 1 / logits.std()}
    save_file({**kept, **{key: value.contiguous() for key, value in ann.state_dict().items()}}, path)
    return rates


def stages(body: nn.Module) -> list[nn.Sequential]:
    """The stateless layers between one ReLU and the next, without dropout; each ends in a layer of weights."""
    stages = [nn.Sequential()]
    for module in body.children():
        if isinstance(module, nn.ReLU):
            stages.append(nn.Sequential())
        elif not isinstance(module, nn.Dropout):
            stages[-1].append(module)
    return stages


def weights(module: nn.Module) -> list[Tensor]:
    """In the order of execution."""
    return [m.weight for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


@dataclass(frozen=True)
class Case:
    """The network that everyone simulates."""

    setting: Setting
    ann: ImageClassifier
    thresholds: list[float]
    scale: float
    """what the logits are multiplied by in the loss, so that it is neither flat nor saturated"""

    @classmethod
    def load(cls, setting: Setting, path: Path) -> Case:
        tensors = load_file(path)
        thresholds, scale = tensors.pop("thresholds").tolist(), float(tensors.pop("scale"))
        ann = setting.ann()
        ann.load_state_dict(tensors)
        return cls(setting, ann, thresholds, scale)

    def unit(self) -> nn.Sequential:
        """The ReLU network for spikes worth 1 and thresholds of 1: W_l theta_(l-1) / theta_l, and no dropout."""
        body = nn.Sequential(*(m for m in copy.deepcopy(self.ann.body).children() if not isinstance(m, nn.Dropout)))
        worth, thresholds = [1.0, *self.thresholds], [*self.thresholds, 1.0]
        with torch.no_grad():
            for weight, entering, leaving in zip(weights(body), worth, thresholds, strict=True):
                weight.mul_(entering / leaving)
        return cast(nn.Sequential, body.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


# --- contenders ------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """A contender's form of the network."""

    module: nn.Module
    input: Tensor
    run: Callable[[Tensor], Tensor]
    """input -> logits [B, classes], summed over steps"""
    time_dim: int | None
    """of the input; None: images, in which there is no time"""
    neurons: Sequence[nn.Module] = ()
    """each gives spikes, or a tuple that begins with them: [B, ...] a step or [B * T, ...]"""
    time_first: bool = False
    """spikes are [T, B, ...]"""


class PlainSpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u > 1).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return grad * triangle(u - 1)


def triangle(z: Tensor) -> Tensor:
    """Surrogate derivative max(0, 1 - |u - theta| / theta) at z = (u - theta) / theta."""
    return (1 - z.abs()).clamp(min=0)


class PlainNeuron(nn.Module):
    membrane: Tensor | float = 0.0

    def forward(self, current: Tensor) -> Tensor:
        u = self.membrane + current
        spikes = cast(Tensor, PlainSpike.apply(u))  # type: ignore[no-untyped-call]
        self.membrane = u - spikes
        return spikes


def naive(case: Case) -> Model:
    """The whole network, step after step, in plain PyTorch."""
    body = case.unit()
    for index, module in enumerate(body):
        if isinstance(module, nn.ReLU):
            body[index] = PlainNeuron()
    neurons = [module for module in body if isinstance(module, PlainNeuron)]

    def run(spikes: Tensor) -> Tensor:
        for neuron in neurons:
            neuron.membrane = 0.0
        return torch.stack([body(step) for step in spikes.unbind(0)]).sum(0)

    return Model(body, case.setting.spikes(), run, 0, neurons)


def spikingjelly(case: Case) -> Model:
    """Multi-step mode, torch backend: the only one on a CPU. Its PiecewiseQuadratic is the triangle."""
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # says at each start that there is no Triton
    neuron, layer = (import_module(f"spikingjelly.activation_based.{name}") for name in ("neuron", "layer"))
    surrogate = import_module("spikingjelly.activation_based.surrogate")
    reset_net = import_module("spikingjelly.activation_based.functional").reset_net
    network = nn.Sequential()
    for stage in stages(case.unit()):
        if len(network):
            network.append(neuron.IFNode(1.0, None, surrogate.PiecewiseQuadratic(alpha=1.0), step_mode="m"))
        network.append(layer.SeqToANNContainer(*stage))

    def run(spikes: Tensor) -> Tensor:
        reset_net(network)
        return cast(Tensor, network(spikes).sum(0))

    return Model(network, case.setting.spikes(), run, 0, list(network)[1::2], time_first=True)


class Folded(nn.Module):
    """Stateless layers on [T, B, ...]: all steps as one batch."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.stage(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


def snntorch(case: Case) -> Model:
    """Leaky at beta 1, step after step: its parallel neurons have no reset.

    A reset of the step before, taken off before the threshold, is the same soft reset. It is never in the gradient.
    """
    surrogate = import_module("snntorch.surrogate")
    spike_grad = surrogate.custom_surrogate(lambda z, grad, _spikes: grad * triangle(z))
    leaky = import_module("snntorch").Leaky
    between = [Folded(stage) for stage in stages(case.unit())]
    neurons = [leaky(beta=1.0, threshold=1.0, spike_grad=spike_grad) for _ in between[1:]]

    def run(spikes: Tensor) -> Tensor:
        x = spikes
        for stage, neuron in zip(between, neurons, strict=False):
            membrane = neuron.reset_mem()
            steps = []
            for current in stage(x).unbind(0):
                fired, membrane = neuron(current, membrane)
                steps.append(fired)
            x = torch.stack(steps)
        return cast(Tensor, between[-1](x).sum(0))

    return Model(nn.ModuleList([*between, *neurons]), case.setting.spikes(), run, 0, neurons)


def norse(case: Case) -> Model:
    """Its IAF resets to a value: here its module over time steps with its threshold and its reset by subtraction."""
    iaf = import_module("norse.torch.functional.iaf")
    fire = import_module("norse.torch.functional.threshold").threshold
    reset_subtract = import_module("norse.torch.functional.reset").reset_subtract
    over_time = import_module("norse.torch.module.snn").SNN

    def step(current: Tensor, state: Any, p: Any, _dt: float) -> tuple[Tensor, Any]:
        u = state.v + current
        spikes = fire(u - p.v_th, p.method, p.alpha)
        return spikes, iaf.IAFFeedForwardState(reset_subtract(spikes, u, p.v_reset, p.v_th))

    def at_rest(currents: Tensor) -> Any:
        return iaf.IAFFeedForwardState(torch.zeros_like(currents[0]))

    modules: list[nn.Module] = []
    for stage in stages(case.unit()):
        if modules:
            modules.append(over_time(step, at_rest, iaf.IAFParameters(method="triangle", alpha=1.0)))
        modules.append(Folded(stage))
    network = import_module("norse.torch").SequentialState(*modules)

    def run(spikes: Tensor) -> Tensor:
        return cast(Tensor, network(spikes)[0].sum(0))

    return Model(network, case.setting.spikes(), run, 0, modules[1::2], time_first=True)


def sinabs(case: Case) -> Model:
    """Its own conversion of the ReLU network, at one spike a step and without a floor under the membrane.

    In the default memory format, in which it is faster: its currents are [B, T, ...].
    """
    activation = import_module("sinabs.activation")
    setting = case.setting
    network = import_module("sinabs.from_torch").from_model(
        case.unit(),
        batch_size=setting.batch,
        spike_fn=activation.SingleSpike,
        reset_fn=activation.MembraneSubtract(),
        surrogate_grad_fn=lambda u, theta: triangle(u - theta),
        min_v_mem=None,
    )
    module = network.spiking_model.to(memory_format=torch.contiguous_format)

    def run(spikes: Tensor) -> Tensor:
        network.reset_states()
        return cast(Tensor, module(spikes.flatten(0, 1)).unflatten(0, (setting.batch, setting.timesteps)).sum(1))

    neurons = [part for part in module if part.__class__.__name__ == "IAFSqueeze"]
    return Model(module, setting.spikes().transpose(0, 1).contiguous(), run, 1, neurons)


def ann(case: Case) -> Model:
    """The ReLU network on T * B images: what the stateless layers alone cost."""
    body = case.unit()
    return Model(body, case.setting.spikes(), lambda x: body(x.flatten(0, 1)).unflatten(0, x.shape[:2]).sum(0), 0)


def engine(case: Case) -> Model:
    """LeakBench's own, from images."""
    network = SpikingNetwork.from_ann(case.ann, SpikingConfig(case.setting.timesteps))
    for layer, threshold in zip(network.neurons, case.thresholds, strict=True):
        layer.set_threshold(threshold)
    return as_model(network, case)


def engine_plain(case: Case) -> Model:
    model = engine(case)
    cast(SpikingNetwork, model.module).fast = False
    return model


def engine_bfloat16(case: Case) -> Model:
    network = cast(SpikingNetwork, engine(case).module)
    return as_model(network.configured(dataclasses.replace(network.config, precision="bfloat16")), case)


def as_model(network: SpikingNetwork, case: Case) -> Model:
    timesteps = case.setting.timesteps
    return Model(network, case.setting.images(), lambda images: network(images, seed=SEED) * timesteps, None)


@dataclass(frozen=True)
class Contender:
    build: Callable[[Case], Model]
    package: str = ""
    """what has to be installed for it"""
    peer: bool = False
    """whether it stands for what else a user could take"""
    compared: bool = True
    """whether it simulates the network"""
    exact: bool = True
    """whether its logits should be the plain loop's; in another precision they are not"""


CONTENDERS = {
    "naive": Contender(naive, peer=True),
    "spikingjelly": Contender(spikingjelly, "spikingjelly", peer=True),
    "snntorch": Contender(snntorch, "snntorch", peer=True),
    "norse": Contender(norse, "norse", peer=True),
    "sinabs": Contender(sinabs, "sinabs", peer=True),
    "ann": Contender(ann, compared=False),
    "leakbench-plain": Contender(engine_plain),
    "leakbench": Contender(engine),
    "leakbench-bf16": Contender(engine_bfloat16, exact=False),
}
REFERENCE = "naive"
