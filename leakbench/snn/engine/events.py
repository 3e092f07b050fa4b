"""The fast path of a simulation on CPU: layers that read spikes and not zeros, chosen layer by layer.

A converted network is silent most of the time: a convolution of listed spikes costs what its spikes cost, and fused
with the neurons behind it, it never writes its currents down. :mod:`leakbench.snn.engine.event_network` puts
these layers together.

Inside, maps lie as [T, B, H, W, C]. Gradients pass along a ``token``: a tensor of the spikes' shape without memory.
"""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from leakbench.errors import UsageError
from leakbench.snn.engine import kernels, winograd
from leakbench.snn.engine.threads import as_array, share
from leakbench.snn.engine.vectors import (
    ARCTAN,
    EVERY,
    FAST_SIGMOID,
    FIRED,
    LANES,
    ONES,
    OUTPUT,
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
_FEW = 32
"""inputs of a neuron up to which all are read, zeros as well: nothing can foresee so short lists"""
_NO_LISTS = torch.empty(0, 0, 0, dtype=torch.int64), torch.empty(0, dtype=torch.int32), torch.empty(0)
_CACHE = 700_000
"""bytes of weights that stay in a core's second cache"""
_IN_TURN = 4_000_000
"""bytes of gradients that a product of matrices has at a time, so that what enters it is still in a cache"""
_SHAPES: dict[Shape, int] = {
    "triangle": TRIANGLE,
    "rectangle": RECTANGLE,
    "fast_sigmoid": FAST_SIGMOID,
    "arctan": ARCTAN,
    "fired": FIRED,
}


@dataclass(frozen=True)
class Constant:
    """What is the same at every step, [B, ...]: direct code, and what linear layers make of it."""

    value: Tensor


@dataclass(frozen=True)
class Spikes:
    """What neurons put out over T steps, or the encoder."""

    token: Tensor
    """float32 [T, B, H, W, C]; the encoder's is the image, [B, H, W, C], as its gradient is a sum over steps"""
    made: Tensor
    """int8 [T, B, H, W, C]: spikes, summed over the neurons that are pooled together"""
    counts: Tensor
    """int64 [T, B]: no fewer than the entries of ``made`` that are not 0"""
    unit: Tensor
    """float32 [C]: what a spike is worth"""
    binary: bool
    """entries are 0 or 1"""
    flat: bool = False
    """stands for [T * B, C * H * W] and not for maps"""

    @cached_property
    def lists(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ends, index and value, as :func:`leakbench.snn.engine.kernels.list_spikes` writes them."""
        steps, batch, height, width = self.made.shape[:4]
        begin = torch.zeros(steps * batch + 1, dtype=torch.int64)
        torch.cumsum(self.counts.flatten(), 0, out=begin[1:])
        size = max(1, int(begin[-1]))
        ends = torch.empty(steps, batch, height * width + 1, dtype=torch.int64)
        index, value = torch.empty(size, dtype=torch.int32), torch.empty(size)
        share(batch, kernels.list_spikes, [self.made, begin, ends, index, value])
        return ends, index, value

    def at_most(self, share: float) -> bool:
        """Whether no more than this share of the entries is not 0."""
        most = share * self.made.numel()
        if self.binary or float(self.counts.sum()) <= most:
            return float(self.counts.sum()) <= most
        # where neurons are pooled, several spikes make one entry
        ends, _, _ = self.lists
        return float((ends[..., -1] - ends[..., 0]).sum()) <= most

    def dense(self) -> Tensor:
        """The values as the plain path has them: [T * B, C, H, W], or [T * B, features] where flat."""
        values = cast(Tensor, _Dense.apply(self.token, self.made, self.unit))  # type: ignore[no-untyped-call]
        return values.flatten(1) if self.flat else values

    def mean(self) -> Tensor:
        """The mean over steps, [B, C, H, W], or [B, features] where flat."""
        values = cast(Tensor, _Mean.apply(self.token, self.made, self.unit))  # type: ignore[no-untyped-call]
        return values.flatten(1) if self.flat else values

    def flattened(self) -> Spikes:
        """The same as features."""
        return replace(self, flat=True)

    def as_one_pixel(self) -> Spikes:
        """The same spikes as maps of one pixel with H * W * C channels: what a linear layer reads."""
        height, width, channels = self.made.shape[2:]
        if height * width == 1:
            return replace(self, flat=False)
        shape = (*self.made.shape[:2], 1, 1, height * width * channels)
        token = self.token.reshape(shape if self.token.dim() == 5 else shape[1:])
        return replace(self, token=token, made=self.made.view(shape), unit=self.unit.repeat(height * width), flat=False)


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, made: Tensor, unit: Tensor) -> Tensor:
        ctx.steps, ctx.encoded = len(made), token.dim() == 4
        return (made.to(unit.dtype) * unit).flatten(0, 1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        grad = grad.permute(0, 2, 3, 1).unflatten(0, (ctx.steps, -1))
        return grad.sum(0) if ctx.encoded else grad, None, None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, made: Tensor, unit: Tensor) -> Tensor:
        ctx.steps, ctx.encoded = len(made), token.dim() == 4
        return (made.sum(0, dtype=torch.int32) * (unit / len(made))).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        grad = grad.permute(0, 2, 3, 1)
        if not ctx.encoded:
            grad = (grad / ctx.steps).expand(ctx.steps, *grad.shape)
        return grad, None, None


def encode(x: Tensor, keys: Tensor, start: int, stop: int) -> Spikes:
    """Signed Poisson spikes of x [B, C, H, W] in [-1, 1]: what :func:`leakbench.snn.encoders.poisson` puts out."""
    batch, channels, height, width = x.shape
    made = torch.empty(stop - start, batch, height, width, channels, dtype=torch.int8)
    counts = torch.empty(stop - start, batch, dtype=torch.int64)
    arrays = [x.detach().contiguous().numpy(), keys.contiguous().numpy().view("uint32"), made.numpy(), counts.numpy()]
    share(batch, lambda first, last: kernels.poisson(first, last, start, *arrays))
    return Spikes(x.permute(0, 2, 3, 1), made, counts, torch.ones(channels), binary=False)


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
        made = torch.zeros(steps, batch, height // self.pool, width // self.pool, channels, dtype=torch.int8)
        pre = torch.empty((steps, *membrane.shape) if self.keep else (0, 0, 0, 0, 0))
        return membrane.clone(), made, torch.zeros(steps, batch, dtype=torch.int64), pre

    def settings(self) -> tuple[float, bool, int]:
        return self.neuron.leak, self.neuron.reset == "hard", self.pool

    def back(
        self, grad: Tensor | None, grad_last: Tensor | None, pre: Tensor, made_shape: torch.Size, summed: bool
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the currents ([T, B, H, W, C], or their sum over steps) and of the membranes before.

        The former are written over ``pre``, the largest tensor that a simulation keeps.
        """
        steps, batch = pre.shape[:2]
        if grad is None:
            grad = pre.new_zeros(1).expand(made_shape)
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
        u, made, counts, pre = neurons.outputs(steps, membrane)
        read = current.unsqueeze(0) if constant else current
        arrays = [read.contiguous(), constant, u, neurons.theta, *neurons.settings(), made, pre, neurons.keep, counts]
        share(len(u), kernels.currents_to_neurons, arrays)
        ctx.save_for_backward(pre)
        ctx.neurons, ctx.made_shape, ctx.constant = neurons, made.shape, constant
        ctx.mark_non_differentiable(made, counts)
        ctx.set_materialize_grads(False)
        return u.new_empty(1).expand(made.shape), made, counts, u

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor | None, _made: None, _counts: None, grad_last: Tensor | None
    ) -> tuple[Tensor, Tensor, None, None]:
        _walk_once(ctx)
        (pre,) = ctx.saved_tensors
        current, g = ctx.neurons.back(grad, grad_last, pre, ctx.made_shape, ctx.constant)
        return current, g, None, None


@dataclass(frozen=True)
class _Kernel:
    """The shape of a convolution; a linear layer is one of a single pixel."""

    height: int
    width: int
    stride: int
    padding: int

    def out(self, height: int, width: int) -> tuple[int, int]:
        return (
            (height + 2 * self.padding - self.height) // self.stride + 1,
            (width + 2 * self.padding - self.width) // self.stride + 1,
        )

    def tiled(self, channels_in: int, channels: int, height: int, width: int) -> bool:
        """Whether a quarter of the multiplications is enough (:mod:`~leakbench.snn.engine.winograd`), and pays."""
        size = self.height, self.width, self.stride
        whole = channels_in % LANES == channels % LANES == 0
        return size == (3, 3, 1) and self.padding <= 2 and whole and min(height, width) >= OUTPUT


class _FromSpikes(torch.autograd.Function):
    """A convolution of spikes and the neurons that it feeds, in one."""

    @staticmethod
    def forward(
        ctx: Any, token: Tensor, weight: Tensor, bias: Tensor | None, membrane: Tensor,
        spikes: Spikes, packed: Tensor, kernel: _Kernel, neurons: _Neurons,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        u, made, counts, pre = neurons.outputs(len(spikes.made), membrane)
        _convolve(spikes, packed, bias, kernel, u, neurons, neurons.neuron.leak, made, pre, counts)
        read: tuple[Tensor, ...] = ()
        if ctx.needs_input_grad[1]:
            height, width, channels_in = spikes.made.shape[2:]
            tiled = kernel.tiled(channels_in, len(weight), height, width) and not spikes.at_most(_LISTED)
            dense = tiled or weight[0].numel() <= _FEW
            read = (spikes.unit, spikes.made) if dense else (spikes.unit, *spikes.lists)
        ctx.save_for_backward(pre, weight, *read)
        ctx.neurons, ctx.kernel, ctx.made_shape = neurons, kernel, made.shape
        ctx.half = torch.is_autocast_enabled("cpu")
        ctx.binary, ctx.input_shape, ctx.encoded = spikes.binary, spikes.made.shape, token.dim() == 4
        ctx.mark_non_differentiable(made, counts)
        ctx.set_materialize_grads(False)
        return u.new_empty(1).expand(made.shape), made, counts, u

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor | None, _made: None, _counts: None, grad_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        _walk_once(ctx)
        pre, weight, *read = ctx.saved_tensors
        to_token, to_weight, to_bias, _ = ctx.needs_input_grad[:4]
        # all that an image's gradient needs is a sum over steps
        summed = ctx.encoded and not to_weight
        current, g = ctx.neurons.back(grad, grad_last, pre, ctx.made_shape, summed)
        token = weights = bias = None
        if to_bias:
            bias = current.flatten(0, -2).sum(0)
        with torch.autocast("cpu", enabled=False):  # what rounds says so itself
            if to_weight:
                weights = _weights_gradient(read, ctx.binary, current, ctx.kernel, ctx.input_shape)
            if to_token:
                if ctx.encoded and not summed:
                    current = current.sum(0)
                token = _input_gradient(current, weight, ctx.kernel, ctx.input_shape, ctx.half)
        return token, weights, bias, g, None, None, None, None


def _convolve(
    spikes: Spikes, packed: Tensor, bias: Tensor | None, kernel: _Kernel, u: Tensor, neurons: _Neurons, leak: float,
    made: Tensor, pre: Tensor, counts: Tensor,
) -> None:  # fmt: skip
    """Runs the neurons with membranes ``u`` on a convolution of the spikes, into made, pre and counts."""
    few = packed.shape[1] <= _FEW
    read = EVERY if few else ONES if spikes.binary else VALUES
    arrays: list[Any] = [spikes.made, kernel.height, kernel.width, kernel.stride, kernel.padding, read]
    arrays += [*(_NO_LISTS if few else spikes.lists), packed, packed.shape[2] // LANES]
    arrays += [torch.zeros(u.shape[3]) if bias is None else bias, u, neurons.theta, leak]
    arrays += [neurons.neuron.reset == "hard", neurons.pool, made, pre, neurons.keep, counts]
    share(len(u), kernels.events_to_neurons, arrays)


def _input_gradient(grad: Tensor, weight: Tensor, kernel: _Kernel, shape: torch.Size, half: bool) -> Tensor:
    """From the gradient of a convolution's output, [..., H, W, C], to that of its input, [..., H, W, C].

    ``half``: oneDNN's convolutions multiply in bfloat16. Those by tiles and by places are as fast in float32.
    """
    height, width, channels = shape[2:]
    if kernel.height == kernel.width == height == width == 1:
        return grad @ weight[:, :, 0, 0]
    if kernel.tiled(channels, grad.shape[-1], height, width):
        found = winograd.input_gradient(grad.flatten(0, -4), weight, kernel.padding, height, width)
        return found.view(*grad.shape[:-3], height, width, channels)
    if kernel.stride == 1 and max(height, width) < OUTPUT:
        return _by_places(grad, weight, kernel, height, width)
    maps = grad.flatten(0, -4).permute(0, 3, 1, 2)
    if kernel.stride == 1 and kernel.padding < min(kernel.height, kernel.width):
        # oneDNN is faster at a convolution by the turned kernel than at its backward pass
        turned = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
        padding = (kernel.height - 1 - kernel.padding, kernel.width - 1 - kernel.padding)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            found = functional.conv2d(maps, turned, padding=padding).float()
    else:
        like = maps.new_empty(1).expand(len(maps), channels, height, width)
        sides = [kernel.stride] * 2, [kernel.padding] * 2
        found, _, _ = torch.ops.aten.convolution_backward(
            maps, like, weight, None, *sides, [1, 1], False, [0, 0], 1, [True, False, False]
        )
    return found.permute(0, 2, 3, 1).reshape(*grad.shape[:-3], height, width, channels)


def _by_places(grad: Tensor, weight: Tensor, kernel: _Kernel, height: int, width: int) -> Tensor:
    """The same, one place of the kernel after the other: on few pixels a convolution mostly multiplies its padding."""
    found = grad.new_zeros(*grad.shape[:-3], height, width, weight.shape[1])
    places = weight.permute(2, 3, 0, 1).contiguous()
    for a in range(kernel.height):
        top, low = a - kernel.padding, min(grad.shape[-3], height + kernel.padding - a)
        for b in range(kernel.width):
            left, right = b - kernel.padding, min(grad.shape[-2], width + kernel.padding - b)
            first_i, first_j = max(0, -top), max(0, -left)
            if first_i < low and first_j < right:
                part = grad[..., first_i:low, first_j:right, :] @ places[a, b]
                found[..., first_i + top : low + top, first_j + left : right + left, :] += part
    return found


def _weights_gradient(read: list[Tensor], binary: bool, grad: Tensor, kernel: _Kernel, shape: torch.Size) -> Tensor:
    """From spikes and the gradient [T, B, H, W, C] of a convolution's output to that of its weights.

    ``read`` has what a spike is worth and then the spikes, or, where they are few, their lists.
    """
    unit, *spikes = read
    channels_in, channels = shape[4], grad.shape[4]
    if len(spikes) > 1:
        total = _listed_weights_gradient(spikes, binary, grad, kernel, shape)
    elif kernel.height * kernel.width * channels_in <= _FEW:
        total = _few_weights_gradient(spikes[0].flatten(0, 1), grad.flatten(0, 1), kernel)
    else:
        total = winograd.weights_gradient(spikes[0].flatten(0, 1), grad.flatten(0, 1), kernel.padding)
    # a transpose of two axes, which torch does in blocks, to where a parameter in channels last has its gradient
    by_output = total.mul_(unit[:, None]).flatten(0, -2).t().contiguous()
    return by_output.view(channels, kernel.height, kernel.width, channels_in).permute(0, 3, 1, 2)


def _few_weights_gradient(made: Tensor, grad: Tensor, kernel: _Kernel) -> Tensor:
    """[KH * KW, C_in, C] of a layer of few inputs: what its neurons read, zeros as well, as rows of a matrix."""
    height, width, channels = grad.shape[1:]
    channels_in, side = made.shape[3], 2 * [kernel.padding]
    total = grad.new_zeros(kernel.height * kernel.width * channels_in, channels)
    at_once = max(1, _IN_TURN // (height * width * channels * 4))
    for maps, to in zip(made.split(at_once), grad.split(at_once), strict=True):
        read = functional.pad(maps.permute(3, 0, 1, 2).float(), side + side)
        places = itertools.product(range(kernel.height), range(kernel.width))
        rows = torch.stack([read[..., a : a + height, b : b + width] for a, b in places])
        total.addmm_(rows.view(len(total), -1), to.reshape(-1, channels))
    return total.view(-1, channels_in, channels)


def _listed_weights_gradient(
    lists: list[Tensor], binary: bool, grad: Tensor, kernel: _Kernel, shape: torch.Size
) -> Tensor:
    """[KH * KW, C_in, C], for spikes that are worth 1."""
    ends, index, value = lists
    batch, width, channels_in = shape[1], shape[3], shape[4]
    channels = grad.shape[4]
    vectors = _vectors(channels, 0)
    frame_h = grad.shape[2] + 2 * (kernel.height - 1 - kernel.padding)
    frame_w = grad.shape[3] + 2 * (kernel.width - 1 - kernel.padding)
    group = max(1, _CACHE // (frame_h * frame_w * vectors * LANES * 4))
    grad = grad.contiguous()
    parts: list[Tensor] = []

    def work(first: int, last: int) -> None:
        out = torch.zeros(kernel.height * kernel.width, channels_in, channels)
        parts.append(out)
        arrays = [group, width, channels_in, kernel.height, kernel.width, kernel.padding, ends, index, value]
        arrays += [not binary, grad, vectors, out]
        kernels.events_to_weights(first, last, *(as_array(a) for a in arrays))

    share(batch, work)
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def _vectors(channels: int, rows: int) -> int:
    """How many vectors of output channels a block of weights has: as many as let its rows stay in the cache."""
    lanes = LANES
    return next(v for v in (4, 2, 1) if channels % (v * lanes) == 0 and (v == 1 or rows * v * lanes * 4 <= _CACHE))


def _pack(weight: Tensor, unit: Tensor) -> Tensor:
    """Weights [C_out, C_in, KH, KW] times what a spike is worth, as the kernels read them."""
    channels, channels_in, height, width = weight.shape
    rows = height * width * channels_in
    block = _vectors(channels, rows) * LANES
    # without a copy where the weights are in channels last
    by_output = weight.detach().permute(0, 2, 3, 1).reshape(channels // block, block, rows)
    packed = torch.empty(channels // block, rows, block)
    for to, part in zip(packed, by_output, strict=True):
        to.copy_(part.t())  # two axes at a time: torch does these in blocks
    return packed.mul_(unit.repeat(height * width)[:, None])


@dataclass
class Layer:
    """Neurons, and the convolution or linear layer that feeds them alone, where there is one."""

    lif: LIF
    source: nn.Conv2d | nn.Linear | None
    pool: int = 1
    """side of the average pooling that they feed alone; 1: none"""
    _key: tuple[Any, ...] = ()
    _packed: Tensor | None = None

    @property
    def ready(self) -> bool:
        """Whether the kernels know these neurons: a threshold for all or one a channel, a surrogate of one step."""
        theta = self.lif.threshold
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
            # the gradient of weights lists, for each place of the kernel, the outputs that a spike met
            whole = source.stride[0] == 1 and padding[0] < min(source.kernel_size)
            if not square or {*source.dilation} != {1} or (source.weight.requires_grad and not whole):
                return False
        elif source is None:
            return False
        if source.weight.shape[0] % LANES:
            return False
        return source.weight[0].numel() <= _FEW or spikes.at_most(DENSEST)

    def from_spikes(self, spikes: Spikes, membrane: Tensor | None, keep: bool) -> tuple[Spikes, Tensor]:
        """What the neurons put out, and their membranes [B, H, W, C] after the last step."""
        weight, kernel, spikes = self._weight(spikes)
        packed = self._pack(weight, spikes.unit)
        batch, height, width = spikes.made.shape[1:4]
        shape = (batch, *kernel.out(height, width), weight.shape[0])
        assert self.source is not None
        args = (spikes.token, weight, self.source.bias, self._start(membrane, shape), spikes, packed, kernel)
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
        weight, kernel, spikes = self._weight(spikes)
        steps, batch, height, width = spikes.made.shape[:4]
        shape = (batch, *kernel.out(height, width), weight.shape[0])
        # neurons that never fire and forget everything hold their current
        assert self.source is not None
        silent = _Neurons(torch.full((shape[-1],), torch.inf), Neuron(), 1, keep=True)
        u, made, counts, pre = silent.outputs(steps, torch.zeros(shape))
        _convolve(spikes, self._pack(weight, spikes.unit), self.source.bias, kernel, u, silent, 0.0, made, pre, counts)
        return pre

    def _weight(self, spikes: Spikes) -> tuple[Tensor, _Kernel, Spikes]:
        """The weights as [C_out, C_in, KH, KW] for the spikes that come with them."""
        source = self.source
        if isinstance(source, nn.Conv2d):
            height, width = source.kernel_size
            return source.weight, _Kernel(height, width, source.stride[0], int(source.padding[0])), spikes
        assert isinstance(source, nn.Linear)
        weight, channels = source.weight, spikes.made.shape[4]
        if spikes.flat and weight.shape[1] != channels:
            # features are listed map by map there, pixel by pixel here
            height, width = spikes.made.shape[2:4]
            weight = weight.view(-1, channels, height, width).permute(0, 2, 3, 1).flatten(1)
        return weight[:, :, None, None], _Kernel(1, 1, 1, 0), spikes.as_one_pixel()

    def _pack(self, weight: Tensor, unit: Tensor) -> Tensor:
        """Packed weights, kept while the parameter is the same tensor and nobody wrote to it."""
        assert self.source is not None
        own = self.source.weight
        if own.requires_grad:
            return _pack(weight, unit)
        key = (weakref.ref(own), own._version, unit.tolist())
        if self._packed is None or key != self._key:
            self._key, self._packed = key, _pack(weight, unit)
        return self._packed

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
        self, token: Tensor, made: Tensor, counts: Tensor, membrane: Tensor, *, flat: bool
    ) -> tuple[Spikes, Tensor]:
        unit = self.lif.threshold.flatten().expand(made.shape[4]) / self.pool**2
        return Spikes(token, made, counts, unit, binary=self.pool == 1, flat=flat), membrane
