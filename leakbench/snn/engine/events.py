"""The fast path of a simulation on CPU: layers that read spikes and not zeros, chosen layer by layer.

A converted network is silent most of the time: a convolution of listed spikes costs what its spikes cost, and fused
with the neurons behind it, it never writes its currents down. :mod:`leakbench.snn.engine.event_network` puts
these layers together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from leakbench.errors import UsageError
from leakbench.snn.engine import kernels
from leakbench.snn.engine.convolution import Convolution, pack, small_fan_in
from leakbench.snn.engine.gradients import input_gradient, weights_gradient
from leakbench.snn.engine.spikes import Spikes
from leakbench.snn.engine.threads import share
from leakbench.snn.engine.vectors import (
    ARCTAN,
    EVERY,
    FAST_SIGMOID,
    FIRED,
    LANES,
    ONES,
    RECTANGLE,
    TRIANGLE,
    VALUES,
)
from leakbench.snn.neurons import LIF, Neuron
from leakbench.snn.surrogates import Shape

DENSEST = 0.45
"""share of entries that are not 0 above which a dense convolution is faster (benchmarks/kernels.py)"""
_LISTED = 0.12
"""share of entries that are not 0 above which the gradient of 3x3 weights is faster without lists"""
_NO_LISTS = torch.empty(0, 0, 0, dtype=torch.int64), torch.empty(0, dtype=torch.int32), torch.empty(0)
_SHAPES: dict[Shape, int] = {
    "triangle": TRIANGLE,
    "rectangle": RECTANGLE,
    "fast_sigmoid": FAST_SIGMOID,
    "arctan": ARCTAN,
    "fired": FIRED,
}


@dataclass(frozen=True)
class _Neurons:
    """A layer of neurons as the kernels take it."""

    theta: Tensor
    """[C]"""
    neuron: Neuron
    pool: int
    """side of the average pooling behind it; 1: none"""
    keep: bool
    """whether there will be a backward pass"""

    def outputs(self, steps: int, membrane: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Membranes to go on from, spikes, counts, and room for the membranes before each reset."""
        batch, height, width, channels = membrane.shape
        maps = torch.zeros(steps, batch, height // self.pool, width // self.pool, channels, dtype=torch.int8)
        pre = torch.empty((steps, *membrane.shape) if self.keep else (0, 0, 0, 0, 0))
        return membrane.clone(), maps, torch.zeros(steps, batch, dtype=torch.int64), pre

    def settings(self) -> tuple[float, bool, int]:
        return self.neuron.leak, self.neuron.reset == "hard", self.pool

    def back(
        self, grad: Tensor | None, grad_last: Tensor | None, pre: Tensor, maps_shape: torch.Size, summed: bool
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the currents ([T, B, H, W, C], or their sum over steps) and of the membranes before.

        The former are written over ``pre``, the largest tensor that a simulation keeps.
        """
        steps, batch = pre.shape[:2]
        if grad is None:
            grad = pre.new_zeros(1).expand(maps_shape)
        alike = grad.stride(0) == 0 and steps > 1
        incoming = (grad[:1] if alike else grad).contiguous()
        g = torch.zeros_like(pre[0]) if grad_last is None else grad_last.clone(memory_format=torch.contiguous_format)
        out = torch.zeros_like(pre[:1]) if summed else pre
        surrogate = self.neuron.surrogate
        leak, hard, pool = self.settings()
        arrays = [incoming, alike, pool, g, pre, self.theta, leak, hard, self.neuron.detach_reset]
        arrays += [_SHAPES[surrogate.shape], surrogate.width, surrogate.height]
        share(batch, kernels.back_through_time, [*arrays, out, summed])
        return (out[0] if summed else out), g


def _walk_once(ctx: Any) -> None:
    """Gradients go where the membranes were: there is no second way back, with retain_graph or without."""
    if getattr(ctx, "walked", False):
        raise UsageError("the gradients of a simulation are taken once: simulate again for others")
    ctx.walked = True


class _FromCurrents(torch.autograd.Function):
    """Neurons on currents [T, B, H, W, C], or [B, H, W, C] that are the same at every step."""

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, membrane: Tensor, steps: int, neurons: _Neurons
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        constant = current.dim() == 4
        u, maps, counts, pre = neurons.outputs(steps, membrane)
        read = current.unsqueeze(0) if constant else current
        arrays = [read.contiguous(), constant, u, neurons.theta, *neurons.settings(), maps, pre, neurons.keep, counts]
        share(len(u), kernels.currents_to_neurons, arrays)
        ctx.save_for_backward(pre)
        ctx.neurons, ctx.maps_shape, ctx.constant = neurons, maps.shape, constant
        ctx.mark_non_differentiable(maps, counts)
        ctx.set_materialize_grads(False)
        return u.new_empty(1).expand(maps.shape), maps, counts, u

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor | None, _maps: None, _counts: None, grad_last: Tensor | None
    ) -> tuple[Tensor, Tensor, None, None]:
        _walk_once(ctx)
        (pre,) = ctx.saved_tensors
        current, g = ctx.neurons.back(grad, grad_last, pre, ctx.maps_shape, ctx.constant)
        return current, g, None, None


class _FromSpikes(torch.autograd.Function):
    """A convolution of spikes and the neurons that it feeds, in one."""

    @staticmethod
    def forward(
        ctx: Any, token: Tensor, weight: Tensor, bias: Tensor | None, membrane: Tensor,
        spikes: Spikes, packed: Tensor, conv: Convolution, neurons: _Neurons,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        u, maps, counts, pre = neurons.outputs(len(spikes.maps), membrane)
        _convolve(spikes, packed, bias, conv, u, neurons, neurons.neuron.leak, maps, pre, counts)
        read: tuple[Tensor, ...] = ()
        if ctx.needs_input_grad[1]:
            height, width, channels_in = spikes.maps.shape[2:]
            tiled = conv.tiled(channels_in, len(weight), height, width) and not spikes.no_denser_than(_LISTED)
            dense = tiled or small_fan_in(weight[0].numel())
            read = (spikes.unit, spikes.maps) if dense else (spikes.unit, *spikes.lists)
        ctx.save_for_backward(pre, weight, *read)
        ctx.neurons, ctx.conv, ctx.maps_shape = neurons, conv, maps.shape
        ctx.half = torch.is_autocast_enabled("cpu")
        ctx.binary, ctx.input_shape, ctx.encoded = spikes.binary, spikes.maps.shape, token.dim() == 4
        ctx.mark_non_differentiable(maps, counts)
        ctx.set_materialize_grads(False)
        return u.new_empty(1).expand(maps.shape), maps, counts, u

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor | None, _maps: None, _counts: None, grad_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        _walk_once(ctx)
        pre, weight, *read = ctx.saved_tensors
        to_token, to_weight, to_bias, _ = ctx.needs_input_grad[:4]
        # all that an image's gradient needs is a sum over steps
        summed = ctx.encoded and not to_weight
        current, g = ctx.neurons.back(grad, grad_last, pre, ctx.maps_shape, summed)
        token = weights = bias = None
        if to_bias:
            bias = current.flatten(0, -2).sum(0)
        with torch.autocast("cpu", enabled=False):  # what rounds says so itself
            if to_weight:
                weights = weights_gradient(read, ctx.binary, current, ctx.conv, ctx.input_shape)
            if to_token:
                if ctx.encoded and not summed:
                    current = current.sum(0)
                token = input_gradient(current, weight, ctx.conv, ctx.input_shape, ctx.half)
        return token, weights, bias, g, None, None, None, None


def _convolve(
    spikes: Spikes, packed: Tensor, bias: Tensor | None, conv: Convolution, u: Tensor, neurons: _Neurons, leak: float,
    maps: Tensor, pre: Tensor, counts: Tensor,
) -> None:  # fmt: skip
    """Runs the neurons with membranes ``u`` on a convolution of the spikes, into maps, pre and counts."""
    all_inputs = small_fan_in(packed.shape[1])
    read = EVERY if all_inputs else ONES if spikes.binary else VALUES
    arrays: list[Any] = [spikes.maps, conv.height, conv.width, conv.stride, conv.padding, read]
    arrays += [*(_NO_LISTS if all_inputs else spikes.lists), packed, packed.shape[2] // LANES]
    arrays += [torch.zeros(u.shape[3]) if bias is None else bias, u, neurons.theta, leak]
    arrays += [neurons.neuron.reset == "hard", neurons.pool, maps, pre, neurons.keep, counts]
    share(len(u), kernels.events_to_neurons, arrays)


@dataclass
class Layer:
    """Neurons, and the convolution or linear layer that feeds them alone, where there is one."""

    lif: LIF
    source: nn.Conv2d | nn.Linear | None
    pool: int = 1
    """side of the average pooling that they feed alone; 1: none"""
    _packed: tuple[Tensor, Tensor, Tensor] | None = None
    """weights, what a spike is worth, and the first packed with the second"""

    @property
    def ready(self) -> bool:
        """Whether the kernels know these neurons: a threshold for all or one a channel, a surrogate of one step.

        Kernels take memory for float32, whatever lies there: other types never get to them.
        """
        theta = self.lif.threshold
        if not theta.dtype == self.lif.initial.dtype == torch.float32:
            return False
        by_channel = theta.dim() == 3 or (theta.dim() == 1 and isinstance(self.source, nn.Linear))
        known = theta.dim() == 0 or (by_channel and theta.numel() == len(theta))
        return known and self.lif.neuron.surrogate.shape in _SHAPES

    def takes(self, spikes: Spikes) -> bool:
        """Whether a kernel reads these spikes faster than a dense layer their values."""
        source = self.source
        if isinstance(source, nn.Conv2d):
            padding = source.padding
            if isinstance(padding, str) or source.groups != 1 or source.padding_mode != "zeros" or spikes.flat:
                return False
            square = len({*source.stride}) == len({*padding}) == 1
            # the gradient of weights lists, for each offset of the kernel, the outputs that a spike met
            whole = source.stride[0] == 1 and padding[0] < min(source.kernel_size)
            if not square or {*source.dilation} != {1} or (source.weight.requires_grad and not whole):
                return False
        elif source is None:
            return False
        if source.weight.shape[0] % LANES:
            return False
        return small_fan_in(source.weight[0].numel()) or spikes.no_denser_than(DENSEST)

    def from_spikes(self, spikes: Spikes, membrane: Tensor | None, keep: bool) -> tuple[Spikes, Tensor]:
        """What the neurons put out, and their membranes [B, H, W, C] after the last step."""
        weight, conv, spikes = self._weight(spikes)
        packed = self._pack(weight, spikes.unit)
        batch, height, width = spikes.maps.shape[1:4]
        shape = (batch, *conv.output_size(height, width), weight.shape[0])
        assert self.source is not None
        args = (spikes.token, weight, self.source.bias, self._start(membrane, shape), spikes, packed, conv)
        out = _FromSpikes.apply(*args, self._neurons(shape[-1], keep))  # type: ignore[no-untyped-call]
        return self._spikes(*out, flat=isinstance(self.source, nn.Linear))

    def from_currents(
        self, current: Tensor, constant: bool, steps: int, membrane: Tensor | None, keep: bool
    ) -> tuple[Spikes, Tensor]:
        """The same from currents [T, B, C, H, W] or [T, B, C]; without T where they are the same at every step."""
        flat = current.dim() == (2 if constant else 3)
        if flat:
            current = current[..., None, None]
        current = current.movedim(-3, -1)
        shape = tuple(current.shape if constant else current.shape[1:])
        args = (current, self._start(membrane, shape), steps, self._neurons(shape[-1], keep))
        return self._spikes(*_FromCurrents.apply(*args), flat=flat)  # type: ignore[no-untyped-call]

    def currents(self, spikes: Spikes) -> Tensor:
        """What enters the neurons at each step, [T, B, H, W, C]; without gradient."""
        weight, conv, spikes = self._weight(spikes)
        steps, batch, height, width = spikes.maps.shape[:4]
        shape = (batch, *conv.output_size(height, width), weight.shape[0])
        # neurons that never fire and forget everything hold their current
        assert self.source is not None
        silent = _Neurons(torch.full((shape[-1],), torch.inf), Neuron(), 1, keep=True)
        u, maps, counts, pre = silent.outputs(steps, torch.zeros(shape))
        _convolve(spikes, self._pack(weight, spikes.unit), self.source.bias, conv, u, silent, 0.0, maps, pre, counts)
        return pre

    def _weight(self, spikes: Spikes) -> tuple[Tensor, Convolution, Spikes]:
        """The weights as [C_out, C_in, KH, KW] for the spikes that come with them."""
        source = self.source
        if isinstance(source, nn.Conv2d):
            height, width = source.kernel_size
            return source.weight, Convolution(height, width, source.stride[0], int(source.padding[0])), spikes
        assert isinstance(source, nn.Linear)
        weight, channels = source.weight, spikes.maps.shape[4]
        if spikes.flat and weight.shape[1] != channels:
            # features are listed map by map there, pixel by pixel here
            height, width = spikes.maps.shape[2:4]
            weight = weight.view(-1, channels, height, width).permute(0, 2, 3, 1).flatten(1)
        return weight[:, :, None, None], Convolution(1, 1, 1, 0), spikes.as_one_pixel()

    def _pack(self, weight: Tensor, unit: Tensor) -> Tensor:
        """Packed weights, kept while the values stay as they are: writing to ``.data`` leaves no other trace."""
        assert self.source is not None
        parameter = self.source.weight
        if parameter.requires_grad:
            return pack(weight, unit)
        if self._packed is not None:
            of, worth, packed = self._packed
            if torch.equal(of, parameter) and torch.equal(worth, unit):
                return packed
        packed = pack(weight, unit)
        self._packed = (parameter.clone(), unit.detach().clone(), packed)
        return packed

    def _start(self, membrane: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        if membrane is not None:
            return membrane
        initial = self.lif.initial
        maps = initial if initial.dim() == 3 else initial.reshape(*initial.shape, *[1] * (3 - initial.dim()))
        return maps.permute(1, 2, 0).expand(shape).contiguous()

    def _neurons(self, channels: int, keep: bool) -> _Neurons:
        theta = self.lif.threshold.flatten().expand(channels).contiguous()
        return _Neurons(theta, self.lif.neuron, self.pool, keep)

    def _spikes(
        self, token: Tensor, maps: Tensor, counts: Tensor, membrane: Tensor, *, flat: bool
    ) -> tuple[Spikes, Tensor]:
        unit = self.lif.threshold.flatten().expand(maps.shape[4]) / self.pool**2
        return Spikes(token, maps, counts, unit, binary=self.pool == 1, flat=flat), membrane
