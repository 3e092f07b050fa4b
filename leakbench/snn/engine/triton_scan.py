"""The neuron equations over T steps as one Triton kernel each way, for tensors on a GPU.

The loop over time of :mod:`leakbench.snn.neurons` launches several kernels a step, which hand the membranes on through
memory. Here a thread keeps its neuron's membrane in a register over all steps, and each tensor goes through memory
once. Same equations, same rounding of what is kept: membranes are rounded to the tensors' type after every step.

Wants Triton: import this module where it is at hand and not before. Under TRITON_INTERPRET=1 its kernels run on CPU
tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from leakbench.snn.neurons import Neuron

_BLOCK = 512
"""neurons a program; over Triton's 128 threads that is 16 bytes of float32 a load"""

# Triton has no types of its own. The number of steps is left general: a kernel a T would be compiled otherwise.
_jit: Callable[[Callable[..., Any]], Any] = triton.jit
_kernel: Callable[[Callable[..., Any]], Any] = triton.jit(do_not_specialize=["steps"])


def supported(neuron: Neuron) -> bool:
    """Whether :func:`backward` knows the neuron's surrogate: those that look back over the steps it does not."""
    return not neuron.surrogate.looks_back


def forward(
    current: Tensor, membrane: Tensor, threshold: Tensor, neuron: Neuron, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes [T, ...], membranes before each reset [T, ...] (empty, unless they are kept), that after the last [...].

    ``current`` [T, ...], T from 1, float16, bfloat16, float32 or float64; ``membrane`` and ``threshold`` broadcastable
    to one step of it. Where a step is dense in memory (contiguous, channels last), or the same at all times (expanded),
    nothing is copied and the outcome has its layout.
    """
    last = torch.empty_like(current[0])
    spikes = _steps_like(last, len(current))
    pre = _steps_like(last, len(current) if keep else 0)
    current, current_stride = _over_time(current, last)
    membrane, membrane_stride = _laid_out(membrane.to(last.dtype), last)
    threshold, threshold_stride = _laid_out(_comparable(threshold, last), last)
    if last.numel():
        with torch.cuda.device_of(last):
            _forward[(triton.cdiv(last.numel(), _BLOCK),)](
                current,
                membrane,
                threshold,
                spikes,
                pre,
                last,
                len(spikes),
                last.numel(),
                current_stride,
                membrane_stride,
                threshold_stride,
                leak=float(neuron.leak),
                soft=neuron.reset == "soft",
                keep=keep,
                real=_precision(last, threshold),
                block=_BLOCK,
                enable_fp_fusion=False,
            )
    return spikes, pre, last


def backward(
    grad_spikes: Tensor, grad_final: Tensor, pre: Tensor, threshold: Tensor, neuron: Neuron
) -> tuple[Tensor, Tensor]:
    """Gradients by the current [T, ...] and by the first membrane [...].

    ``grad_spikes`` [T, ...] by the spikes, ``grad_final`` [...] by the last membrane, ``pre`` [T, ...] as kept by
    :func:`forward`, whose layout the outcome has.
    """
    grad_membrane = torch.empty_like(pre[0])
    grad_current = _steps_like(grad_membrane, len(pre))
    grad_spikes, spikes_stride = _over_time(grad_spikes, grad_membrane)
    grad_final, final_stride = _laid_out(grad_final, grad_membrane)
    pre, pre_stride = _over_time(pre, grad_membrane)
    threshold, threshold_stride = _laid_out(_comparable(threshold, grad_membrane), grad_membrane)
    surrogate = neuron.surrogate
    if grad_membrane.numel():
        with torch.cuda.device_of(grad_membrane):
            _backward[(triton.cdiv(grad_membrane.numel(), _BLOCK),)](
                grad_spikes,
                grad_final,
                pre,
                threshold,
                grad_current,
                grad_membrane,
                len(grad_current),
                grad_membrane.numel(),
                spikes_stride,
                final_stride,
                pre_stride,
                threshold_stride,
                leak=float(neuron.leak),
                soft=neuron.reset == "soft",
                detach=neuron.detach_reset,
                shape=surrogate.shape,
                width=float(surrogate.width),
                height=float(surrogate.height),
                real=_precision(grad_membrane, threshold),
                block=_BLOCK,
                enable_fp_fusion=False,
            )
    return grad_current, grad_membrane


def _comparable(threshold: Tensor, step: Tensor) -> Tensor:
    """The threshold in the type in which torch compares a step with it: that of the step, where it is a scalar."""
    return threshold.to(step.device, torch.result_type(step, threshold))


def _precision(step: Tensor, threshold: Tensor) -> Any:
    """Triton's type for what is in registers."""
    return tl.float64 if torch.float64 in (step.dtype, threshold.dtype) else tl.float32


def _steps_like(step: Tensor, steps: int) -> Tensor:
    """An uninitialised [T, ...], each step laid out as ``step`` [...], which is dense."""
    return step.new_empty_strided((steps, *step.shape), (step.numel(), *step.stride()))


def _strides(x: Tensor) -> list[int]:
    """Strides where they matter: those of sides of length 1 are arbitrary."""
    return [stride for stride, side in zip(x.stride(), x.shape, strict=True) if side > 1]


def _laid_out(x: Tensor, like: Tensor) -> tuple[Tensor, int]:
    """``x``, expanded to ``like``, at its places in memory, and the elements from one neuron to the next.

    0 where all neurons share one value, else 1; only what lies otherwise is copied.
    """
    x = x.expand(like.shape)
    if not any(_strides(x)):
        return x, 0
    return (x if _strides(x) == _strides(like) else torch.empty_like(like, dtype=x.dtype).copy_(x)), 1


def _over_time(x: Tensor, like: Tensor) -> tuple[Tensor, int]:
    """``x`` [T, ...] with each step at the places of ``like`` [...], and the elements from one step to the next."""
    if _strides(x[0]) == _strides(like):
        return x, x.stride(0)
    if x.stride(0) == 0:  # one step is the copy of them all
        return torch.empty_like(like).copy_(x[0]), 0
    return _steps_like(like, len(x)).copy_(x), like.numel()


# The kernels see flat storage: a program has ``block`` neurons, at the same places in each step. Places are int64, and
# pointers go on from step to step, so that T times the neurons may pass 2^31. Constants are made in the type that is
# reckoned in: left to itself, Triton takes a Python float for a float32. tl.fma rounds once; what is not written with
# it is not fused (enable_fp_fusion=False), so that outcomes do not depend on Triton's version.


@_kernel
def _forward(
    current: tl.tensor,
    membrane: tl.tensor,
    threshold: tl.tensor,
    spikes: tl.tensor,
    pre: tl.tensor,
    last: tl.tensor,
    steps: tl.tensor,
    neurons: tl.tensor,
    current_stride: tl.tensor,
    membrane_stride: tl.tensor,
    threshold_stride: tl.tensor,
    leak: tl.constexpr,
    soft: tl.constexpr,
    keep: tl.constexpr,
    real: tl.constexpr,
    block: tl.constexpr,
) -> None:
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < neurons
    theta = tl.load(threshold + at * threshold_stride, mask=inside).to(real)
    u = tl.load(membrane + at * membrane_stride, mask=inside).to(real)
    decay = tl.full((block,), leak, real)
    kind = last.dtype.element_ty
    current += at
    spikes += at
    pre += at
    for _ in range(steps):
        rounded = tl.fma(decay, u, tl.load(current, mask=inside).to(real)).to(kind)
        u = rounded.to(real)
        fired = u > theta
        spike = (fired.to(real) * theta).to(kind)
        tl.store(spikes, spike, mask=inside)
        if keep:
            tl.store(pre, rounded, mask=inside)
            pre += neurons
        u = (u - (spike.to(real) if soft else tl.where(fired, u, 0.0))).to(kind).to(real)
        current += current_stride
        spikes += neurons
    tl.store(last + at, u.to(kind), mask=inside)


@_kernel
def _backward(
    grad_spikes: tl.tensor,
    grad_final: tl.tensor,
    pre: tl.tensor,
    threshold: tl.tensor,
    grad_current: tl.tensor,
    grad_membrane: tl.tensor,
    steps: tl.tensor,
    neurons: tl.tensor,
    spikes_stride: tl.tensor,
    final_stride: tl.tensor,
    pre_stride: tl.tensor,
    threshold_stride: tl.tensor,
    leak: tl.constexpr,
    soft: tl.constexpr,
    detach: tl.constexpr,
    shape: tl.constexpr,
    width: tl.constexpr,
    height: tl.constexpr,
    real: tl.constexpr,
    block: tl.constexpr,
) -> None:
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < neurons
    theta = tl.load(threshold + at * threshold_stride, mask=inside, other=1.0).to(real)
    g = tl.load(grad_final + at * final_stride, mask=inside).to(real)
    decay = tl.full((block,), leak, real)
    before = steps.to(tl.int64) - 1
    grad_spikes += at + before * spikes_stride
    pre += at + before * pre_stride
    grad_current += at + before * neurons
    for _ in range(steps):
        u = tl.load(pre, mask=inside).to(real)
        through = tl.load(grad_spikes, mask=inside).to(real)
        v = _ratio(u, theta, real)
        kept = g
        if soft:
            if not detach:
                through -= g
        else:
            kept = tl.where(u > theta, 0.0, g)
            if not detach:
                through -= v * g
        g = tl.fma(_slope(v, shape, width, height, real, block), through, kept)
        tl.store(grad_current, g.to(grad_current.dtype.element_ty), mask=inside)
        g = g * decay
        grad_spikes -= spikes_stride
        pre -= pre_stride
        grad_current -= neurons
    tl.store(grad_membrane + at, g.to(grad_membrane.dtype.element_ty), mask=inside)


@_jit
def _slope(
    v: tl.tensor,
    shape: tl.constexpr,
    width: tl.constexpr,
    height: tl.constexpr,
    real: tl.constexpr,
    block: tl.constexpr,
) -> tl.tensor:
    """The surrogates of :mod:`leakbench.snn.surrogates` at v = u / theta."""
    z = tl.abs(v - 1)
    if width != 1:
        z = _ratio(z, tl.full((block,), width, real), real)
    one = tl.full((block,), 1, real)
    if shape == "triangle":
        slope = tl.where(z >= 1, 0.0, 1 - z)
    elif shape == "rectangle":
        slope = tl.where(z < 1, 0.5 * one, 0.0)
    elif shape == "fast_sigmoid":
        slope = _ratio(one, (1 + z) * (1 + z), real)
    elif shape == "fired":
        slope = tl.where(v > 1, one, 0.0)
    else:
        tl.static_assert(shape == "arctan")
        z = tl.full((block,), 1.5707963267948966, real) * z  # pi / 2
        slope = _ratio(one, 1 + z * z, real)
    return slope * tl.full((block,), height, real)


@_jit
def _ratio(x: tl.tensor, y: tl.tensor, real: tl.constexpr) -> tl.tensor:
    """x / y to the nearest, as torch has it; Triton's own division of float32 is an approximate one."""
    return tl.div_rn(x, y) if real == tl.float32 else x / y
