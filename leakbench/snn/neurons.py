"""Leaky integrate-and-fire neurons over many time steps at once.

    u_pre(t) = leak * u(t-1) + I(t)         (Eq. 1)
    o(t)     = 1[u_pre(t) > theta]
    u(t)     = u_pre(t) - theta * o(t)      soft reset;   u_pre(t) * (1 - o(t))   hard reset

Thresholds are in the ANN's units and a spike is worth theta downstream. This is the same network as one of unit
spikes whose thresholds are theta_l / theta_(l-1) and whose output is scaled by the product of those thresholds
(threshold scaling), but it holds for any topology: sums of branches, biases and thresholds
per channel stay in one unit, and the logits come out in the ANN's scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import ModuleType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from leakbench.errors import UsageError
from leakbench.snn.noise import salted, uniform
from leakbench.snn.surrogates import Surrogate

Reset = Literal["soft", "hard"]


@dataclass(frozen=True)
class Neuron:
    """The neuron model of a network: this one LIF, others by subclasses with a layer of their own."""

    model: ClassVar[str] = "lif"
    """the name in records"""
    windows: ClassVar[bool] = False
    """whether each layer has a window of T steps to itself, which is computed in one pass on values"""
    encoders: ClassVar[tuple[str, ...]] = ("poisson", "direct")
    """the codes that they can be driven by"""

    leak: float = 1.0
    """lambda in (0, 1]; 1 is IF"""
    reset: Reset = "soft"
    detach_reset: bool = False
    """leave the reset out of the gradient (the authors' repository); unstable at leak < 1 over many steps"""
    surrogate: Surrogate = field(default_factory=Surrogate)

    def __post_init__(self) -> None:
        if not 0 < self.leak <= 1:
            raise UsageError(f"leak must be in (0, 1], got {self.leak}")
        if self.reset not in ("soft", "hard"):
            raise UsageError(f"reset must be 'soft' or 'hard', got {self.reset!r}")

    def layer(self, name: str) -> LIF:
        """A layer of such neurons."""
        return LIF(name, self)


def _scan(
    current: Tensor, membrane: Tensor, threshold: Tensor, neuron: Neuron, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes [T, B, ...], membranes before each reset (the last alone, unless they are kept), that after the last."""
    spikes = torch.empty_like(current)
    u = torch.empty_like(current[0])
    pre = torch.empty_like(current) if keep else torch.empty_like(current[0]).expand_as(current)
    last = membrane
    # unbind once: indexing x[t] inside the loop costs more than the arithmetic on small maps
    for i_t, pre_t, s_t in zip(current.unbind(0), pre.unbind(0), spikes.unbind(0), strict=True):
        torch.add(i_t, last, alpha=neuron.leak, out=pre_t)
        fired = pre_t > threshold
        torch.mul(fired, threshold, out=s_t)
        last = torch.sub(pre_t, s_t, out=u) if neuron.reset == "soft" else torch.mul(pre_t, ~fired, out=u)
    return spikes, pre, u


def _fused(x: Tensor, neuron: Neuron) -> ModuleType | None:
    """The scan as a kernel, for tensors on a GPU where Triton is at hand (PyTorch's CUDA builds bring it)."""
    if not x.is_cuda or find_spec("triton") is None:
        return None
    from leakbench.snn.engine import triton_scan

    return triton_scan if triton_scan.supported(neuron) else None


class _Scan(torch.autograd.Function):
    """The neuron equations over T steps with the surrogate derivative, one pass each way.

    Keeps the membrane before the reset and nothing else: spikes are read off it again.
    """

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, membrane: Tensor, threshold: Tensor, neuron: Neuron
    ) -> tuple[Tensor, Tensor]:
        keep = any(ctx.needs_input_grad)
        fused = _fused(current, neuron)
        scan = _scan if fused is None else fused.forward
        spikes, pre, u = scan(current, membrane, threshold, neuron, keep)
        ctx.save_for_backward(pre, threshold)
        ctx.neuron = neuron
        return spikes, u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor, grad_final: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        pre, threshold = ctx.saved_tensors
        neuron: Neuron = ctx.neuron
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            return None, None, None, None
        fused = _fused(pre, neuron)
        if fused is not None:
            return (*fused.backward(grad_spikes, grad_final, pre, threshold, neuron), None, None)
        # dL/du_pre(t) = g du(t)/du_pre(t) + slope (dL/ds(t) - g, if the reset is in the gradient), written over slope
        grad = neuron.surrogate(pre / threshold)
        g = grad_final
        for gs_t, pre_t, out in zip(*(reversed(x.unbind(0)) for x in (grad_spikes, pre, grad)), strict=True):
            if neuron.reset == "soft":
                torch.addcmul(g, out, gs_t if neuron.detach_reset else gs_t - g, out=out)
            else:
                through = gs_t if neuron.detach_reset else torch.addcmul(gs_t, pre_t / threshold, g, value=-1)
                torch.addcmul(g * (pre_t <= threshold), out, through, out=out)
            g = out if neuron.leak == 1 else out * neuron.leak
        return grad, g, None, None


Watch = Callable[[str, Tensor, Tensor, Tensor], None]
"""(layer, currents, membranes before the reset over thresholds, output), each [t, B, ...], a chunk of time at once"""


@dataclass
class Run:
    """The state of one forward pass, shared by the network's time-dependent layers."""

    batch: int
    keys: Tensor
    """noise keys, int32 [B, 2]"""
    start: int = 0
    stop: int = 0
    membranes: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)
    watch: Watch | None = None
    """shown what each layer does, where somebody looks on; such a pass has no gradient"""


class LIF(nn.Module):
    """A layer of neurons in place of a ReLU: currents [T*B, ...] in, theta-valued spikes of the same shape out."""

    threshold: Tensor
    """[] or broadcastable to the neurons' shape, e.g. [C, 1, 1]; infinite until it is set"""
    initial: Tensor
    """membrane at t = 0, broadcastable to the neurons' shape"""

    def __init__(self, name: str, neuron: Neuron) -> None:
        super().__init__()
        self.layer = name
        self.neuron = neuron
        self.run: Run | None = None
        self.register_buffer("threshold", torch.tensor(torch.inf))
        self.register_buffer("initial", torch.tensor(0.0))

    def set_threshold(self, threshold: float | Tensor) -> None:
        """One threshold, or one a channel/neuron. Must be finite and above 0."""
        value = torch.as_tensor(threshold, dtype=self.threshold.dtype, device=self.threshold.device)
        if not (torch.isfinite(value).all() and (value > 0).all()):
            raise UsageError(f"thresholds must be finite and above 0, got {value.min().item()} in {self.layer!r}")
        self.threshold = value

    def forward(self, current: Tensor) -> Tensor:
        run = self.run
        assert run is not None, "spiking layers run inside a SpikingNetwork only"
        x = current.view(-1, run.batch, *current.shape[1:])
        if x.dtype == torch.bfloat16:
            x = x.float()  # a convolution's; membranes have to add up
        u = run.membranes.get(self.layer)
        if u is None:
            u = self.start(x)
        out, run.membranes[self.layer], fired = self.fire(x, u, run)
        run.counts[self.layer] = run.counts[self.layer] + fired if self.layer in run.counts else fired
        return out.view(current.shape)

    @property
    def unit(self) -> Tensor:
        """What a spike is worth downstream."""
        return self.threshold

    @property
    def adds_up(self) -> bool:
        """Whether what is in a membrane at first counts as if it had come in over all steps."""
        return self.neuron.leak == 1 and self.neuron.reset == "soft"

    def lift(self, _steps: int) -> float | Tensor:
        """By how much a unit of constant current lifts a membrane a step, mean over so many steps."""
        return 1.0

    def leaks(self) -> float | Tensor:
        """The factor that is left of a membrane after a step."""
        return self.neuron.leak

    def response(self) -> float | Tensor:
        """What comes out in the mean for each unit of a small current, where nothing leaks."""
        return 1.0

    def activation(self) -> nn.Module:
        """What stands in its place in an ANN."""
        return nn.ReLU()

    def start(self, x: Tensor) -> Tensor:
        """The state before the first of the steps ``x`` [T, B, ...]."""
        return self.initial.expand(x.shape[1:]).to(x.dtype)

    def fire(self, x: Tensor, u: Tensor, run: Run) -> tuple[Tensor, Tensor, Tensor]:
        """Output [T, B, ...] for currents ``x`` after the state ``u`` of the step before; last state; spikes made."""
        if run.watch is None:
            spikes, u = _Scan.apply(x, u, self.threshold, self.neuron)  # type: ignore[no-untyped-call]
        else:
            spikes, pre, u = _scan(x, u, self.threshold, self.neuron, keep=True)
            run.watch(self.layer, x, pre / self.threshold, spikes)
        return spikes, u, torch.count_nonzero(spikes.detach())


class GatedMaxPool(nn.MaxPool2d):
    """Max pooling of spikes: of each window, the spikes of the neuron that has fired most so far pass.

    Rueckauer 2017, section 2.2.7 (fir_max): the maximum of single spikes would be any spike, and its rate that of
    several neurons together. Outside of a simulation it pools values, as rates and the ANN's activations want it.
    """

    def __init__(self, pool: nn.MaxPool2d, name: str) -> None:
        super().__init__(pool.kernel_size, pool.stride, pool.padding, pool.dilation, ceil_mode=pool.ceil_mode)
        self.layer = name
        self.run: Run | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Spikes [T * B, C, H, W] -> the same of the windows, or values without a simulation."""
        return super().forward(x) if self.run is None else self.gated(x, self.run)

    def gated(self, x: Tensor, run: Run, each: int = 1) -> Tensor:
        """``x`` [T * B, C, H, W], each of whose maps stands for ``each`` steps, under the counts that are kept in the
        run."""
        spikes = x.detach().view(-1, run.batch, *x.shape[1:])
        # exact for any threshold: neurons that fired as often tie, wherever the steps are cut into chunks
        fired = spikes.cumsum(0, dtype=torch.float64)
        if self.layer in run.membranes:
            fired = fired + run.membranes[self.layer]
        run.membranes[self.layer] = fired[-1]
        _, most = functional.max_pool2d(
            fired.flatten(0, 1), self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
            return_indices=True,
        )  # fmt: skip
        passed = x.flatten(2).gather(2, most.flatten(2)).view(most.shape)
        spikes_out = torch.count_nonzero(passed.detach()) * each
        run.counts[self.layer] = run.counts[self.layer] + spikes_out if self.layer in run.counts else spikes_out
        return passed


class TimeFixedDropout(nn.Module):
    """Dropout whose mask is fixed over the T steps of a sample."""

    def __init__(self, p: float, name: str, salt: int, channels: bool = False) -> None:
        super().__init__()
        self.p = p
        self.channels = channels
        """whether channels are dropped as a whole, as by nn.Dropout2d"""
        self.layer = name
        self.salt = salt
        """sets the masks of two dropout layers apart"""
        self.run: Run | None = None

    @property
    def acts(self) -> bool:
        """Whether anything is dropped now."""
        return self.training and self.p > 0

    def plain(self) -> nn.Module:
        """As an ANN has it."""
        return nn.Dropout2d(self.p) if self.channels else nn.Dropout(self.p)

    def forward(self, x: Tensor) -> Tensor:
        if not self.acts:
            return x
        run = self.run
        assert run is not None, "spiking layers run inside a SpikingNetwork only"
        return self.dropped(x, run)

    def dropped(self, x: Tensor, run: Run) -> Tensor:
        """``x`` [T * B, ...] under the masks of the run's images."""
        if not self.acts:
            return x
        shape = tuple(x.shape[1:])
        each = (shape[0], *[1] * (len(shape) - 1)) if self.channels else shape
        keep = uniform(salted(run.keys, self.salt), 0, 1, each) >= self.p
        return (x.view(-1, run.batch, *x.shape[1:]) * keep / (1 - self.p)).view_as(x)
