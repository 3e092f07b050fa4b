"""The spiking network: an ANN whose ReLUs have become LIF neurons, simulated over T steps.

Time is folded into the batch for all stateless layers ([T*B, ...]), the neurons scan over it, and long simulations
run in chunks of time whose activations are computed again in the backward pass, so that memory does not grow with T.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from leakbench.contracts import PRECISIONS, ImageClassifier, InputRange, ModuleNetwork, Precision, arithmetic
from leakbench.errors import NotApplicable, UsageError
from leakbench.snn.adaptive import AdaptiveNeuron
from leakbench.snn.encoders import ENCODERS, Encoding
from leakbench.snn.folding import has_batch_norm, replace, with_biases
from leakbench.snn.general import GeneralNeuron
from leakbench.snn.graph import INPUT, Topology, trace
from leakbench.snn.neurons import LIF, GatedMaxPool, Neuron, Run, TimeFixedDropout, Watch
from leakbench.snn.noise import image_keys
from leakbench.snn.readout import Readout
from leakbench.snn.surrogates import Surrogate
from leakbench.snn.switch import SwitchNeuron

if TYPE_CHECKING:
    from leakbench.snn.engine.event_network import EventNetwork, Walks


NEURONS: dict[str, type[Neuron]] = {kind.model: kind for kind in (Neuron, SwitchNeuron, AdaptiveNeuron, GeneralNeuron)}


@dataclass(frozen=True)
class SpikingConfig:
    """How a network spikes: what is kept beside its weights and thresholds."""

    timesteps: int
    encoder: Encoding = "poisson"
    neuron: Neuron = field(default_factory=Neuron)
    precision: Precision = "float32"
    """of convolutions and products, see :func:`leakbench.contracts.arithmetic`"""
    readout: Readout = field(default_factory=Readout)

    def __post_init__(self) -> None:
        if self.timesteps < 1:
            raise UsageError(f"timesteps must be at least 1, got {self.timesteps}")
        if self.encoder not in ENCODERS:
            raise UsageError(f"unknown encoder {self.encoder!r}: one of {', '.join(ENCODERS)}")
        if self.encoder not in self.neuron.encoders:
            raise UsageError(
                f"{self.neuron.model} neurons take the encoder {' or '.join(self.neuron.encoders)}, not {self.encoder}"
            )
        if self.precision not in PRECISIONS:
            raise UsageError(f"unknown precision {self.precision!r}: one of {', '.join(PRECISIONS)}")
        if self.neuron.windows and self.readout != Readout():
            raise UsageError(f"{self.neuron.model} neurons have windows of their own: only means can be read out")

    def to_json(self) -> dict[str, Any]:
        record = dataclasses.asdict(self)
        record["neuron"]["model"] = self.neuron.model
        if self.readout == Readout():
            del record["readout"]
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> SpikingConfig:
        neuron = dict(record["neuron"])
        neuron["surrogate"] = Surrogate(**neuron["surrogate"])
        model = neuron.pop("model", "lif")  # records from before there were others
        if model not in NEURONS:
            raise UsageError(f"unknown neuron model {model!r}: one of {', '.join(NEURONS)}")
        kind = NEURONS[model]
        readout = Readout(**record.get("readout", {}))
        precision = record.get("precision", "float32")
        timesteps = record["timesteps"]
        if type(timesteps) is not int:  # another number may be too large for what looks at whole ones
            raise UsageError(f"timesteps must be a whole number, got {timesteps!r}"[:200])
        return cls(timesteps, record["encoder"], kind(**neuron), precision, readout)


@dataclass(frozen=True)
class Simulation:
    """One simulation: logits [B, classes] in the ANN's scale and the spikes that were made."""

    logits: Tensor
    spikes: dict[str, int]
    """layer (or "input") -> spikes made over all steps and images, counted where they are made; of max pooling, those
    that pass"""


class _Reached(Exception):
    pass


class SpikingNetwork(nn.Module):
    """A converted network. Build it with :meth:`from_ann`; thresholds are infinite until they are set.

    ``forward`` takes images [B, C, H, W] in [0, 1] and gives logits [B, classes]: the output layer accumulates its
    input without threshold or leak, u_L(T) / T, which in the ANN's units is the ANN's scale
    (docs/method.md, Networks and encoders). Imported networks may have another :class:`~.readout.Readout`.
    """

    fast = True
    """take the kernels that read spikes alone where they can; False: the plain path, which is the reference"""
    memory_budget = 1 << 30
    """bytes of activations that one chunk of time may take; sets how many steps run at once, and with it the order of
    sums: the same on every machine"""

    def __init__(
        self,
        body: nn.Module,
        classifier: ImageClassifier | SpikingNetwork,
        topology: Topology,
        config: SpikingConfig,
    ) -> None:
        super().__init__()
        self.body = body
        self.image_shape: tuple[int, int, int] = classifier.image_shape
        self.classes: int = classifier.classes
        self.input_range: InputRange = classifier.input_range
        self.arch: str = classifier.arch
        self.topology = topology
        self.config = config
        self.noise = torch.Generator().manual_seed(0)
        """of the seeds of simulations that are given none"""
        self._fast_path: tuple[list[int], EventNetwork | None] | None = None

    @classmethod
    def from_ann(cls, ann: ImageClassifier, config: SpikingConfig, fold: bool = True) -> SpikingNetwork:
        """A spiking copy of ``ann`` with the same weights: each nn.ReLU becomes a layer of ``config``'s neurons.

        Batch norms are folded first (without ``fold`` they stay, for training with spikes), and max pooling is gated
        by rates. Raises NotApplicable where the network has other activations, or shares one ReLU between places.
        """
        if fold and has_batch_norm(ann.body):
            ann = with_biases(ann)
        topology = trace(ann.body, ann.image_shape)
        body = copy.deepcopy(ann.body)
        parts = dict(body.named_modules(remove_duplicate=False))
        spiking: dict[nn.Module, nn.Module] = {parts[name]: config.neuron.layer(name) for name in topology.activations}
        for name in topology.max_pools:
            spiking[parts[name]] = GatedMaxPool(cast(nn.MaxPool2d, parts[name]), name)
        for salt, (name, module) in enumerate(parts.items()):
            if isinstance(module, nn.Dropout | nn.Dropout2d):
                channels = isinstance(module, nn.Dropout2d)
                replace(body, name, TimeFixedDropout(module.p, name, salt, channels))
            elif module in spiking:  # under whatever names it has
                replace(body, name, spiking[module])
        device = next(ann.body.parameters()).device
        return cls(body, ann, topology, config).to(device).eval()

    def configured(self, config: SpikingConfig) -> SpikingNetwork:
        """The same weights and thresholds, simulated in another way; the tensors are shared, so don't train it.

        UsageError for neurons of another model: these are other layers.
        """
        if config.neuron.model != self.config.neuron.model:
            raise UsageError(f"a network of {self.config.neuron.model} neurons can't be one of {config.neuron.model}")
        body = sharing_copy(self.body)
        for module in body.modules():
            if isinstance(module, LIF):
                module.neuron = config.neuron
        return SpikingNetwork(body, self, self.topology, config).eval()

    def __getstate__(self) -> dict[str, Any]:
        """For copies: they find their own fast path."""
        return {**self.__dict__, "_fast_path": None}

    # --- parts ---------------------------------------------------------------------------------------------------

    @property
    def neurons(self) -> list[LIF]:
        """The spiking layers in the order of execution."""
        parts = dict(self.body.named_modules())
        return [cast(LIF, parts[name]) for name in self.topology.activations]

    @property
    def max_pools(self) -> list[str]:
        """The layers of max pooling of which passing spikes are counted: what neurons but LIF put out are values."""
        if any(type(layer) is not LIF for layer in self.neurons):
            return []
        return [module.layer for module in self.body.modules() if isinstance(module, GatedMaxPool)]

    def weights(self) -> dict[str, Tensor]:
        """Weight layer -> its weight, in the order of execution."""
        parts = dict(self.body.named_modules())
        return {layer.name: cast(Tensor, parts[layer.name].weight) for layer in self.topology.weights}

    def feeder(self, layer: LIF) -> nn.Conv2d | nn.Linear:
        """A weight layer whose output enters ``layer`` directly. Raises NotApplicable where there is none."""
        feeders = self.topology.feeders[layer.layer]
        if not feeders:
            raise NotApplicable(f"no convolution or linear layer feeds the neurons {layer.layer!r} directly")
        return cast("nn.Conv2d | nn.Linear", self.body.get_submodule(feeders[0]))

    @torch.no_grad()
    def add_current(self, layer: LIF, current: float | Tensor) -> None:
        """Adds a constant current [] or [C] to what enters ``layer`` at each step: the bias of a layer that feeds no
        other neurons directly.

        Raises NotApplicable where there is none, or it has no bias: build the network from :func:`with_biases`.
        """
        feeders = self.topology.feeders
        alone = [name for name in feeders[layer.layer] if sum(name in fed for fed in feeders.values()) == 1]
        if not alone:
            raise NotApplicable(f"no convolution or linear layer feeds the neurons {layer.layer!r} alone")
        bias = cast("nn.Conv2d | nn.Linear", self.body.get_submodule(alone[0])).bias
        if bias is None:
            raise NotApplicable(f"the layer that feeds {layer.layer!r} has no bias to add a current to")
        bias += torch.as_tensor(current, dtype=bias.dtype, device=bias.device)

    def reconvert(self) -> ImageClassifier:
        """The ANN behind the network: every LIF layer becomes a ReLU (Algorithm 1's first step, attack scenario 1)."""
        body = copy.deepcopy(self.body)
        for name, module in list(body.named_modules()):
            if isinstance(module, LIF):
                # spikes that are the logits: a ReLU would hide what is below zero, gradients first
                replace(body, name, nn.Identity() if name in self.topology.read_out else module.activation())
            elif isinstance(module, TimeFixedDropout):
                replace(body, name, module.plain())
        return ImageClassifier(
            body, self.image_shape, self.classes, self.input_range, self.arch, self.config.precision
        ).eval()

    # --- simulation ----------------------------------------------------------------------------------------------

    @property
    def passes(self) -> int:
        """Steps that are computed one by one: T, or 1 where a layer's T steps are a window of its own."""
        return 1 if self.config.neuron.windows else self.config.timesteps

    def reseed(self, seed: int) -> None:
        """Start the noise of calls without a seed anew."""
        self.noise.manual_seed(seed)

    def forward(self, images: Tensor, seed: int | None = None, first_index: int = 0) -> Tensor:
        """Logits [B, classes] for images [B, C, H, W] in [0, 1]; see :meth:`simulate`."""
        return self.simulate(images, seed, first_index).logits

    @torch.no_grad()
    def observe(self, images: Tensor, watch: Watch, seed: int | None = None) -> Tensor:
        """Logits [B, classes] of a simulation in which ``watch`` is shown what each layer does.

        The encoder is the layer "input": its currents, membranes and output are all what enters the network.
        """
        return self._simulate(images, seed, 0, watch).logits

    def simulate(self, images: Tensor, seed: int | None = None, first_index: int = 0) -> Simulation:
        """Run T steps.

        With a ``seed`` the noise of image i depends on (seed, first_index + i) alone, so splitting a set into
        batches changes nothing; without one, each call draws fresh noise.
        """
        return self._simulate(images, seed, first_index, None)

    def respond(self, encoded: Tensor) -> Simulation:
        """What the network does with given input [T, B, C, H, W], as spikes that another framework drew."""
        if encoded.dim() != 5 or len(encoded) != self.config.timesteps or tuple(encoded.shape[2:]) != self.image_shape:
            wanted = f"[{self.config.timesteps}, B, {', '.join(map(str, self.image_shape))}]"
            raise UsageError(f"input over steps must be {wanted}, got {list(encoded.shape)}")
        (whole,) = self._stopping(encoded[0], 0, 0, None, [self.config.timesteps], encoded)
        return whole

    def simulate_at(
        self, images: Tensor, stops: Sequence[int], seed: int | None = None, first_index: int = 0
    ) -> dict[int, Simulation]:
        """What simulations of each of ``stops`` steps would give, from one of T steps: steps -> :meth:`simulate` then.

        (From one each, where layers have windows of their own.)
        UsageError for steps outside of 1..T.
        """
        if not stops or not 1 <= min(stops) <= max(stops) <= self.config.timesteps:
            raise UsageError(f"steps to look at must be in 1..{self.config.timesteps}, got {list(stops)}")
        rising = sorted(set(stops))
        return dict(zip(rising, self._stopping(images, seed, first_index, None, rising), strict=True))

    def _simulate(self, images: Tensor, seed: int | None, first_index: int, watch: Watch | None) -> Simulation:
        (whole,) = self._stopping(images, seed, first_index, watch, [self.config.timesteps])
        return whole

    def _stopping(
        self,
        images: Tensor,
        seed: int | None,
        first_index: int,
        watch: Watch | None,
        stops: Sequence[int],
        given: Tensor | None = None,
    ) -> Iterator[Simulation]:
        """One simulation, looked at after each of ``stops`` steps, in rising order; one each, if they are windows."""
        if not len(images):
            raise UsageError("there is no image to simulate: at least one is needed")
        for layer in self.neurons:
            if not torch.isfinite(layer.threshold).all():
                raise UsageError(f"the layer {layer.layer!r} has no threshold yet: balance_thresholds finds them")
        keys = self._keys(images, seed, first_index)
        x = self.input_range(images)
        windows = self.config.neuron.windows
        parts = [(0, stop) for stop in stops] if windows else list(_parts(stops, self.chunk_steps(len(x))))
        recompute = len(parts) > 1 and not windows and torch.is_grad_enabled() and self._needs_gradient(x)
        names = (*self.topology.activations, *self.max_pools)
        kept = [module.layer for module in self.body.modules() if isinstance(module, LIF | GatedMaxPool)]
        readout = self.config.readout
        held = readout.tensors
        counts: Tensor | None = None
        state: tuple[Tensor, ...] = ()

        quick = watch is None and given is None and readout.sums
        events = self._events(x.device, x.dtype) if quick else None

        def advance(x: Tensor, start: int, stop: int, *state: Tensor) -> tuple[Tensor, ...]:
            run = Run(len(x), keys, start, stop, dict(zip(kept, state[held:], strict=False)))
            if events is not None:
                out, entered = events.run(x, self.config.encoder, run)
                so_far = readout.with_sum(out, state[:held])
            else:
                run.watch = watch
                encoded = self._encoded(x, run) if given is None else given[start:stop]
                if watch is not None:
                    watch(INPUT, encoded, encoded, encoded)
                out = self._through(encoded, run).view(len(encoded), len(x), -1)
                so_far = readout.with_outputs(out, state[:held])
                entered = torch.count_nonzero(encoded.detach()) * (2 if self.config.encoder == "switch" else 1)
            spiked = torch.stack([entered, *(run.counts[name] for name in names)])
            return (spiked, *so_far, *(run.membranes[name] for name in kept))

        for start, stop in parts:
            if start == 0:
                counts, state = None, ()
            with arithmetic(self.config.precision, x.device):
                if recompute:
                    spiked, *rest = checkpoint(
                        advance, x, start, stop, *state, use_reentrant=False, preserve_rng_state=False,
                        context_fn=lambda: (nullcontext(), arithmetic(self.config.precision, x.device)),
                    )  # fmt: skip
                else:
                    spiked, *rest = advance(x, start, stop, *state)
            state = tuple(rest)
            counts = spiked if counts is None else counts + spiked
            if stop in stops:
                logits = readout.logits(state[:held], 1 if windows else stop)
                yield Simulation(logits, dict(zip((INPUT, *names), counts.tolist(), strict=True)))

    def currents(
        self,
        layer: LIF,
        images: Tensor,
        seed: int | None = None,
        first_index: int = 0,
        steps: int | None = None,
        walks: Walks | None = None,
    ) -> Iterator[Tensor]:
        """The input current of one layer, [t*B, ...] a chunk of time, with only the layers before it simulated.

        Over ``steps``, or the network's T. With ``walks`` only layers behind those that earlier calls asked for are, of
        the same images and seed: thresholds of layers before these must not have changed.
        """
        steps = steps or self.config.timesteps
        keys = self._keys(images, seed, first_index)
        x = self.input_range(images)
        chunk = steps if self.config.neuron.windows else self.chunk_steps(len(x))
        events = self._events(x.device, x.dtype)
        caught: list[Tensor] = []

        def catch(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            caught.append(args[0])
            raise _Reached

        membranes: dict[str, Tensor] = {}
        handle = layer.register_forward_pre_hook(catch)
        try:
            for start in range(0, steps, chunk):
                run = Run(len(x), keys, start, min(start + chunk, steps), membranes)
                if events is not None:
                    with arithmetic(self.config.precision, x.device):
                        current = events.currents(layer, x, self.config.encoder, run, walks, first_index)
                    yield current
                    continue
                try:
                    with arithmetic(self.config.precision, x.device):
                        self._through(self._encoded(x, run), run)
                except _Reached:
                    yield caught.pop().to(x.dtype)
        finally:
            handle.remove()

    def walks(self, samples: int) -> Walks:
        """What :meth:`currents` of one layer after the other on so many images times steps share."""
        from leakbench.snn.engine.event_network import Walks

        return Walks(samples, self.memory_budget)

    def chunk_steps(self, batch: int) -> int:
        """How many steps run at once for a batch of this size, so that activations fit the memory budget.

        All of them, where there is a gradient whose surrogate looks back over the steps so far.
        """
        if torch.is_grad_enabled() and self.config.neuron.surrogate.looks_back:
            return self.config.timesteps
        a_step = self._bytes_a_step(torch.is_grad_enabled()) * batch
        return max(1, min(self.config.timesteps, self.memory_budget // max(a_step, 1)))

    def batch_in_memory(self) -> int:
        """How many images the graph of all T steps fits the memory budget of, so that nothing is recomputed."""
        an_image = self._bytes_a_step(True) * self.passes
        return max(1, self.memory_budget // max(an_image, 1))

    def _bytes_a_step(self, gradient: bool) -> int:
        """What one step of one image takes in memory."""
        device, dtype = next((p.device, p.dtype) for p in self.parameters())
        if (events := self._events(device, dtype)) is not None:
            return events.bytes_a_step(self.topology.neurons, gradient)
        # float32 outputs of every module; kept for the backward pass, with as much again for gradients on the way
        return self.topology.elements * 4 * (2 if gradient else 1)

    def _keys(self, images: Tensor, seed: int | None, first_index: int) -> Tensor:
        if seed is None:
            seed = int(torch.randint(2**62, (1,), generator=self.noise))
        return image_keys(seed, first_index, len(images), images.device)

    def _events(self, device: torch.device, dtype: torch.dtype) -> EventNetwork | None:
        """The fast path, where there is one for this network and for numbers like these; it calls no hooks."""
        if not (self.fast and device.type == "cpu" and dtype == torch.float32):
            return None
        modules = list(self.body.modules())
        if any(getattr(module, hooks) for module in modules for hooks in _HOOKS):
            return None
        layers = [id(module) for module in modules]
        if self._fast_path is None or self._fast_path[0] != layers:
            # Numba is loaded by what simulates, not by what lists plugins
            from leakbench.snn.engine.event_network import event_network

            self._fast_path = (layers, event_network(self.body))
        return self._fast_path[1]

    def _needs_gradient(self, x: Tensor) -> bool:
        return x.requires_grad or any(p.requires_grad for p in self.parameters())

    def _encoded(self, x: Tensor, run: Run) -> Tensor:
        """What enters the network at the run's steps [t, B, ...]; in their one pass, if they are a window."""
        encoded = ENCODERS[self.config.encoder](x, run.keys, run.start, run.stop)
        return encoded[:1] if self.config.neuron.windows else encoded

    def _through(self, encoded: Tensor, run: Run) -> Tensor:
        """One pass of [t, B, ...] through the body with time folded into the batch."""
        timed = [m for m in self.body.modules() if isinstance(m, LIF | GatedMaxPool | TimeFixedDropout)]
        for module in timed:
            module.run = run
        try:
            return cast(Tensor, self.body(encoded.flatten(0, 1))).to(encoded.dtype)
        finally:
            for module in timed:
                module.run = None


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _parts(stops: Sequence[int], chunk: int) -> Iterator[tuple[int, int]]:
    """(first step, step after the last) of each part of a simulation: at most ``chunk`` steps, cut at ``stops``."""
    for first, last in itertools.pairwise((0, *stops)):
        for start in range(first, last, chunk):
            yield start, min(start + chunk, last)


def relu_network(network: SpikingNetwork | ImageClassifier) -> ImageClassifier:
    """What an attacker with the weights takes for the ANN: the reconverted network, or the ANN itself.

    Raises NotApplicable for a module, whose neurons nobody can find.
    """
    if isinstance(network, ModuleNetwork):
        raise NotApplicable("the network is a module whose layers can't be read: no ReLU can take its neurons' places")
    return network.reconvert() if isinstance(network, SpikingNetwork) else network


def sharing_copy(body: nn.Module) -> nn.Module:
    """The same layers around the same tensors, so that layers can be exchanged without copying weights."""
    return copy.deepcopy(body, {id(tensor): tensor for tensor in (*body.parameters(), *body.buffers())})
