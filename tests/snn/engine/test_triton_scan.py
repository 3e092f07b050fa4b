"""Fused kernels: the loop over steps and autograd through it, on a GPU where there is one, else in the interpreter."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from plain_loop import straight_through
from torch import Tensor

from leakbench.snn import Neuron, Surrogate
from leakbench.snn.neurons import Reset, _scan

pytestmark = pytest.mark.slow

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

MINIMUM = None if DEVICE.type == "cuda" else "3.7"  # interpreters before trip over NumPy 2.4
pytest.importorskip("triton", MINIMUM, reason="fused neuron kernels not tested: no Triton that would run them")

# Read where a kernel is decorated: so these kernels are interpreted, and Triton's own and everybody else's are not.
with pytest.MonkeyPatch.context() as patch:
    if DEVICE.type == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")
    from leakbench.snn.engine import triton_scan

SURROGATES = [
    Surrogate("triangle"),
    Surrogate("triangle", width=1.7, height=0.3),
    Surrogate("rectangle", width=0.6),
    Surrogate("fast_sigmoid", width=0.4, height=2.0),
    Surrogate("arctan", width=0.5, height=0.3),
    Surrogate("fired"),
]
RESETS = ("soft", "hard")
# the interpreter cuts floats off at bfloat16's last place, a GPU rounds them
HALVES = [torch.float16] if DEVICE.type == "cpu" else [torch.float16, torch.bfloat16]
SHAPE = (3, 4, 5, 11)
"""one step; 660 neurons: a whole block and a part of one"""
THRESHOLDS = {"scalar": (), "channel": (4, 1, 1), "neuron": SHAPE[1:], "image and neuron": SHAPE}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def normal(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=dtype)


def thresholds(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=dtype) + 0.5


def laid_out(x: Tensor, layout: torch.memory_format) -> Tensor:
    """[T, B, C, H, W] as the layers hand it on: time folded into the batch."""
    return x.flatten(0, 1).contiguous(memory_format=layout).view(x.shape)


def forward(current: Tensor, membrane: Tensor, theta: Tensor, neuron: Neuron, keep: bool = True) -> tuple[Tensor, ...]:
    outcome = triton_scan.forward(*(x.to(DEVICE) for x in (current, membrane, theta)), neuron, keep)
    return tuple(x.cpu() for x in outcome)


def backward(grad_spikes: Tensor, grad_last: Tensor, pre: Tensor, theta: Tensor, neuron: Neuron) -> tuple[Tensor, ...]:
    outcome = triton_scan.backward(*(x.to(DEVICE) for x in (grad_spikes, grad_last, pre, theta)), neuron)
    return tuple(x.cpu() for x in outcome)


def assert_same(mine: Tensor, theirs: Tensor) -> None:
    """In doubles: as in test_neurons.py."""
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def assert_scans_as_the_loop(current: Tensor, membrane: Tensor, theta: Tensor, neuron: Neuron) -> None:
    """Spikes and membranes of :func:`_scan` on the CPU, leaving out neurons where rounding decides on a spike.

    With a leak the loop may round leak * u before it adds, which the kernel does not: half a unit in the last place
    a step. Without one nothing is left out and all is equal to the bit.
    """
    wanted_spikes, wanted_pre, wanted_last = _scan(current, membrane, theta, neuron, keep=True)
    spikes, pre, last = forward(current, membrane, theta, neuron)
    assert 0.05 < (wanted_spikes > 0).double().mean() < 0.7  # neither silent nor saturated
    tolerance = 0.0 if neuron.leak == 1 else torch.finfo(current.dtype).eps * len(current) * 4
    # the widest that a membrane gets to be is what its rounding is measured by
    clear = ((wanted_pre - theta).abs() >= tolerance * wanted_pre.abs().max()).all(0)
    assert clear.double().mean() > 0.99
    assert torch.equal(spikes[:, clear], wanted_spikes[:, clear])
    scale = float(wanted_pre.abs().max())
    for mine, theirs in ((pre[:, clear], wanted_pre[:, clear]), (last[clear], wanted_last[clear])):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance * scale)


def assert_trains_as_the_loop(
    current: Tensor, membrane: Tensor, theta: Tensor, neuron: Neuron, generator: torch.Generator
) -> None:
    """Spikes, last membranes and gradients of autograd through a plain loop, in doubles."""
    grads = normal(generator, *current.shape), normal(generator, *current.shape[1:])
    inputs = current.clone().requires_grad_(), membrane.clone().requires_grad_()
    how = (theta, neuron.leak, neuron.reset, neuron.detach_reset, neuron.surrogate)
    wanted = straight_through(*inputs, *how)
    wanted_grads = torch.autograd.grad(wanted, inputs, grads)

    spikes, pre, last = forward(current, membrane, theta, neuron)
    assert_same(spikes, wanted[0].detach())
    assert_same(last, wanted[1].detach())
    for mine, theirs in zip(backward(*grads, pre, theta, neuron), wanted_grads, strict=True):
        assert_same(mine, theirs)


@pytest.mark.parametrize("leak", [1.0, 0.99, 0.7])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spikes_and_membranes_are_the_loops(
    leak: float, reset: Reset, dtype: torch.dtype, generator: torch.Generator
) -> None:
    for shape in THRESHOLDS.values():
        current = normal(generator, 12, *SHAPE, dtype=dtype)
        membrane = normal(generator, *SHAPE, dtype=dtype) / 2
        assert_scans_as_the_loop(current, membrane, thresholds(generator, shape, dtype), Neuron(leak, reset))


@pytest.mark.long
@pytest.mark.parametrize(("reset", "detach", "leak"), list(itertools.product(RESETS, (False, True), (1.0, 0.99, 0.7))))
def test_gradients_are_autograds_through_a_plain_loop(
    reset: Reset, detach: bool, leak: float, generator: torch.Generator
) -> None:
    for surrogate, shape in zip(SURROGATES, itertools.cycle(THRESHOLDS.values()), strict=False):
        current, membrane = normal(generator, 5, *SHAPE), normal(generator, *SHAPE) / 2
        theta = thresholds(generator, shape)
        assert_trains_as_the_loop(current, membrane, theta, Neuron(leak, reset, detach, surrogate), generator)


@pytest.mark.parametrize("steps", [1, 2, 16, 40])
@pytest.mark.parametrize("shape", [(1,), (7, 1), (511,), (2, 256), (1, 1, 27, 19), (5, 3, 9, 10)], ids=str)
def test_any_number_of_steps_and_neurons(steps: int, shape: tuple[int, ...], generator: torch.Generator) -> None:
    current, membrane, theta = normal(generator, steps, *shape), normal(generator, *shape), torch.tensor(0.8).double()
    assert_trains_as_the_loop(current, membrane, theta, Neuron(0.95), generator)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("reset", RESETS)
def test_a_membrane_that_just_reaches_its_threshold_does_not_fire(
    reset: Reset, dtype: torch.dtype, generator: torch.Generator
) -> None:
    # eighths: every sum is exact in every type, and a threshold is hit exactly time and again
    current = (torch.randint(-4, 9, (20, *SHAPE), generator=generator) / 8).to(dtype)
    neuron = Neuron(1.0, reset)
    for shape in THRESHOLDS.values():
        theta = (torch.randint(4, 12, shape, generator=generator) / 8).to(dtype)
        wanted = _scan(current, torch.zeros(SHAPE, dtype=dtype), theta, neuron, keep=True)
        assert (wanted[1] == theta).double().mean() > 0.02
        for mine, theirs in zip(forward(current, torch.tensor(0.0), theta, neuron), wanted, strict=True):
            assert mine.dtype == dtype
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", THRESHOLDS.values(), ids=THRESHOLDS)
def test_half_precision_is_rounded_where_the_loop_rounds(
    dtype: torch.dtype, shape: tuple[int, ...], generator: torch.Generator
) -> None:
    """With thresholds in float32, as a layer has them: a scalar is rounded to the currents' type, others are not."""
    current, membrane = normal(generator, 12, *SHAPE).to(dtype), (normal(generator, *SHAPE) / 2).to(dtype)
    theta = thresholds(generator, shape, torch.float32)
    assert_scans_as_the_loop(current, membrane, theta, Neuron())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
def test_gradients_in_lower_precision_are_those_in_doubles(
    surrogate: Surrogate, dtype: torch.dtype, generator: torch.Generator
) -> None:
    """Of the same membranes: in registers they are float32, and rounded where they are handed out alone."""
    for reset in RESETS:
        neuron = Neuron(0.9, reset, surrogate=surrogate)
        pre, grad_spikes = normal(generator, 5, *SHAPE).to(dtype), normal(generator, 5, *SHAPE).to(dtype)
        grad_last = normal(generator, *SHAPE).to(dtype)
        theta = thresholds(generator, (4, 1, 1), torch.float32)
        wanted = backward(grad_spikes.double(), grad_last.double(), pre.double(), theta.double(), neuron)
        for mine, theirs in zip(backward(grad_spikes, grad_last, pre, theta, neuron), wanted, strict=True):
            assert mine.dtype == dtype
            # hard resets multiply a gradient by up to 1 + |v| a step, and its error with it
            error = (mine.double() - theirs).abs().max() / theirs.abs().max()
            assert error < max(torch.finfo(dtype).eps, 4e-6)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_are_kept_and_nothing_is_copied(layout: torch.memory_format, generator: torch.Generator) -> None:
    neuron, theta = Neuron(0.9), thresholds(generator, (4, 1, 1))
    current, membrane = normal(generator, 5, *SHAPE), normal(generator, *SHAPE)
    grads = normal(generator, 5, *SHAPE), normal(generator, *SHAPE)
    spikes, pre, last = forward(current, membrane, theta, neuron)
    by_current, by_membrane = backward(*grads, pre, theta, neuron)

    x = laid_out(current, layout)
    outcome = forward(x, membrane, theta, neuron)
    gradients = backward(laid_out(grads[0], layout), grads[1], outcome[1], theta, neuron)
    wanted = (spikes, pre, last, by_current, by_membrane)
    for mine, theirs in zip((*outcome, *gradients), wanted, strict=True):
        assert torch.equal(mine, theirs)
        assert mine.stride() == (x.stride() if mine.dim() == 5 else x[0].stride())
    assert triton_scan._over_time(x, outcome[2]) == (x, x[0].numel())
    # nor is one threshold for all neurons spread over them
    assert triton_scan._laid_out(torch.tensor(0.5), outcome[2])[1] == 0


def test_currents_and_gradients_in_any_layout(generator: torch.Generator) -> None:
    """Expanded over time or over everything, every other step or channel, time last."""
    neuron = Neuron(0.9, "hard")
    theta, membrane = thresholds(generator, (4, 1, 1)), normal(generator, *SHAPE)
    grad_last = torch.tensor(0.5, dtype=torch.float64, device=DEVICE).expand(SHAPE)

    def there(*shape: int) -> Tensor:
        return normal(generator, *shape).to(DEVICE)

    views = [
        there(*SHAPE).expand(6, *SHAPE),
        there(*SHAPE).contiguous(memory_format=torch.channels_last).expand(6, *SHAPE),
        torch.tensor(0.7, dtype=torch.float64, device=DEVICE).expand(6, *SHAPE),
        there(4, 1, 1).expand(6, *SHAPE),
        there(12, *SHAPE)[::2],
        there(6, 3, 8, 5, 11)[:, :, ::2],
        there(*SHAPE, 6).movedim(-1, 0),
        there(6, *reversed(SHAPE)).permute(0, 4, 3, 2, 1),
    ]
    for current, grad_spikes in itertools.pairwise([*views, views[0]]):
        wanted = forward(current.contiguous(), membrane, theta, neuron)
        outcome = forward(current, membrane, theta, neuron)
        for mine, theirs in zip(outcome, wanted, strict=True):
            assert torch.equal(mine, theirs)
        wanted = backward(grad_spikes.contiguous(), grad_last.contiguous(), wanted[1], theta, neuron)
        for mine, theirs in zip(backward(grad_spikes, grad_last, outcome[1], theta, neuron), wanted, strict=True):
            assert torch.equal(mine, theirs)
    # the same at all times: read again and again from where it lies
    assert triton_scan._over_time(views[0], torch.empty(SHAPE)) == (views[0], 0)


def test_membranes_are_kept_for_the_backward_pass_alone(generator: torch.Generator) -> None:
    current, membrane, theta = normal(generator, 6, *SHAPE), normal(generator, *SHAPE), torch.tensor(0.8)
    kept, without = (forward(current, membrane, theta, Neuron(0.9), keep) for keep in (True, False))
    assert kept[1].shape == current.shape
    assert without[1].numel() == 0
    assert torch.equal(kept[0], without[0])
    assert torch.equal(kept[2], without[2])


def test_no_neurons_at_all() -> None:
    current, theta = torch.empty(3, 0, 4), torch.tensor(1.0)
    spikes, pre, last = forward(current, torch.tensor(0.0), theta, Neuron())
    assert (spikes.shape, pre.shape, last.shape) == ((3, 0, 4), (3, 0, 4), (0, 4))
    by_current, by_membrane = backward(spikes, last, pre, theta, Neuron())
    assert (by_current.shape, by_membrane.shape) == ((3, 0, 4), (0, 4))


def test_surrogates_that_look_back_are_not_supported() -> None:
    assert all(triton_scan.supported(Neuron(surrogate=surrogate)) for surrogate in SURROGATES)
    assert not triton_scan.supported(Neuron(surrogate=Surrogate("potential")))


COMPILE = r"""
import itertools
import re
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from leakbench.snn.engine import triton_scan

def ptx(kernel, element, **constants):
    constants |= {"real": tl.float64 if element == "fp64" else tl.float32, "block": 512}
    signature = {
        name: "constexpr" if name in constants
        else "i32" if name in ("steps", "neurons") or name.endswith("_stride")
        else "*" + element
        for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constants)
    return compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": False}).asm["ptx"]

shapes = itertools.cycle(("triangle", "rectangle", "fast_sigmoid", "arctan"))
for element, soft in itertools.product(("fp16", "bf16", "fp32", "fp64"), (True, False)):
    kind = "f64" if element == "fp64" else "f32"
    steps = ptx(triton_scan._forward, element, leak=0.9, soft=soft, keep=True)
    back = ptx(triton_scan._backward, element, leak=0.9, soft=soft, detach=element == "fp16", shape=next(shapes),
               width=0.5, height=0.3)
    for code, rounded_once in ((steps, "fma.rn"), (back, "div.rn")):
        assert re.search(rf"{rounded_once}(\.ftz)?\.{kind}", code), (element, soft, code)
        assert "div.full" not in code and "div.approx" not in code, (element, soft, code)
        assert (".f64" in code) == (kind == "f64"), (element, soft, code)
    assert element != "bf16" or "cvt.rn.bf16" in steps
print("compiled")
"""


@pytest.mark.long
@pytest.mark.slow
def test_kernels_compile_for_a_gpu_whether_or_not_there_is_one(tmp_path: Path) -> None:
    """What the interpreter lets pass, the compiler may not; and divisions and leaks are rounded once."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "compiled\n", run.stderr
