"""What feeds what in a network: found by one forward pass and a walk over its autograd graph.

Works for any module whose activations are nn.ReLU modules, each used once: chains, residual sums, branches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from leakbench.errors import NotApplicable
from leakbench.snn.blocks import SpikeMax

INPUT = "input"
# What may stand between activations: operations that are linear in the activations, or act on each step alone as they
# do on an image (max pooling). Anything else would be applied to single spikes and mean something else there.
_ALLOWED = frozenset(
    {
        "AccumulateGrad", "AdaptiveAvgPool2D", "Add", "Addmm", "AsStrided", "AvgPool2D", "Cat", "Clone", "Constant",
        "ConstantPadNd", "Convolution", "CudnnBatchNorm", "Div", "Expand", "Flatten", "MaxPool2DWithIndices",
        "Mean", "MkldnnConvolution", "Mm", "Mul", "NativeBatchNorm", "Neg", "Permute", "ReshapeAlias",
        "Select", "Slice", "Split", "Squeeze", "Stack", "Sub", "Sum", "T", "ToCopy", "Transpose", "UnsafeView",
        "Unsqueeze", "UpsampleNearest2D", "View",
    }
)  # fmt: skip


_PRODUCTS = ("Mul", "Div", "Mm", "Addmm", "Convolution")
# behind these a value is one spike, or none, as it was before them; averages and sums are of several
_MOVES = frozenset(
    {
        "AsStrided", "Cat", "Clone", "ConstantPadNd", "Flatten", "MaxPool2DWithIndices", "Permute", "ReshapeAlias",
        "Select", "Slice", "Split", "Squeeze", "Stack", "ToCopy", "Transpose", "UnsafeView", "Unsqueeze", "View",
    }
)  # fmt: skip


@dataclass(frozen=True)
class WeightLayer:
    """A convolution or linear layer."""

    name: str
    macs: int
    """multiply-accumulates of one pass over one image, F_l"""
    input_neurons: int
    output_neurons: int
    producers: tuple[str, ...]
    """the activations (or "input") whose output reaches it through linear operations only"""
    entered_by: tuple[str, ...]
    """where the spikes that reach it are counted: its producers, or max pooling of spikes (nn.MaxPool2d) between them
    and it"""


@dataclass(frozen=True)
class Topology:
    """Activations and weight layers in the order of execution."""

    activations: tuple[str, ...]
    neurons: dict[str, int]
    """activation -> neurons"""
    weights: tuple[WeightLayer, ...]
    feeders: dict[str, tuple[str, ...]]
    """activation -> the weight layers whose output reaches it directly: what its current is made of"""
    read_out: tuple[str, ...]
    """activations whose output is the network's, with no weight layer in between"""
    elements: int
    """float elements that all modules put out in one pass of one image: the measure for memory planning"""
    max_pools: tuple[str, ...]
    """the nn.MaxPool2d modules that are called"""


@dataclass(frozen=True)
class _Call:
    """A convolution or linear layer in the pass, with the nodes before and behind it as they were then: whatever works
    in place puts others there."""

    name: str
    module: nn.Module
    entering: int
    before: Any
    shape: torch.Size
    after: Any


def trace(body: nn.Module, input_shape: tuple[int, ...]) -> Topology:
    """One pass of a zero image through ``body`` (eval mode). Raises NotApplicable where spikes can't replace it."""
    for name, module in body.named_modules():
        if type(module).__module__ == nn.ReLU.__module__ and not isinstance(module, nn.ReLU):
            raise NotApplicable(
                f"activations must be nn.ReLU modules to become spiking neurons, "
                f"found {type(module).__name__} in {name!r}"
            )
        if isinstance(module, _ConvNd) and not isinstance(module, nn.Conv2d):
            raise NotApplicable(
                f"convolutions must be nn.Conv2d modules to take spikes, found {type(module).__name__} in {name!r}"
            )
    owner: dict[Any, str] = {}
    pools: dict[Any, str] = {}
    maxima: set[Any] = set()
    neurons: dict[str, int] = {}
    entering: dict[str, Any] = {}
    calls: list[_Call] = []
    elements = 0

    def before(name: str) -> Any:
        # a module that works in place takes its input's node away
        def enters(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            entering.setdefault(name, args[0].grad_fn)

        return enters

    def hook(name: str) -> Any:
        def after(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            nonlocal elements
            elements += out.numel()
            if isinstance(module, nn.ReLU):
                if name in neurons:
                    raise NotApplicable(
                        f"the ReLU module {name!r} is used more than once: give each place its own nn.ReLU"
                    )
                neurons[name] = out.numel()
                owner[out.grad_fn] = name
            elif isinstance(module, nn.MaxPool2d):
                if name in pools.values():
                    raise NotApplicable(
                        f"the max pooling {name!r} is used more than once: give each place its own nn.MaxPool2d"
                    )
                pools[out.grad_fn] = name
            elif isinstance(module, SpikeMax):
                maxima.add(out.grad_fn)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                calls.append(_Call(name, module, args[0].numel(), args[0].grad_fn, out.shape, out.grad_fn))

        return after

    parameter = next(body.parameters())
    probe = torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype, requires_grad=True)
    leaves = [module for module in body.named_modules() if not any(module[1].children())]
    handles = [module.register_forward_hook(hook(name)) for name, module in leaves]
    handles += [
        module.register_forward_pre_hook(before(name)) for name, module in leaves if isinstance(module, nn.ReLU)
    ]
    was_training = body.training
    wanted = [p.requires_grad for p in body.parameters()]
    try:
        body.eval()
        body.requires_grad_(True)
        with torch.enable_grad():
            # a leaf's own grad_fn is None: one linear operation gives the walk a node to recognise
            entry = probe * 1
            owner[entry.grad_fn] = INPUT
            out = body(entry)
    finally:
        for handle in handles:
            handle.remove()
        body.train(was_training)
        for p, flag in zip(body.parameters(), wanted, strict=True):
            p.requires_grad_(flag)
    if not neurons:
        raise NotApplicable("the network has no nn.ReLU module: nothing in it can spike")
    for node in _walk(out.grad_fn, stop=set()):
        operation = _operation(node)
        fed = [n for n, _ in node.next_functions if any(behind in owner for behind in _walk(n, stop=set(owner)))]
        product = operation in _PRODUCTS and len(fed) > 1  # of two activations: not linear in them
        if node not in owner and (product or operation not in _ALLOWED):
            raise NotApplicable(
                f"the network applies {operation!r} outside of a module that can spike: "
                "activations must be nn.ReLU modules, and what stands between them linear"
            )
        if operation == "MaxPool2DWithIndices" and node not in pools and node not in maxima:
            raise NotApplicable("max pooling must be an nn.MaxPool2d module, of which spikes pass by their rates")
    # a pool counts the spikes that pass it, if it is spikes that come to it
    passing = {
        node: name
        for node, name in pools.items()
        if all(behind in owner or _operation(behind) in _MOVES for behind in _walk(node, stop=set(owner)))
    }
    counted = owner | passing
    weights = tuple(
        WeightLayer(
            call.name,
            _macs(call.module, call.shape),
            call.entering,
            call.shape.numel(),
            tuple(dict.fromkeys(owner[n] for n in _walk(call.before, stop=set(owner)) if n in owner)),
            tuple(dict.fromkeys(counted[n] for n in _walk(call.before, stop=set(counted)) if n in counted)),
        )
        for call in calls
    )
    made_by = {call.after: call.name for call in calls}
    ends = {*owner, *made_by}
    feeders = {
        name: tuple(dict.fromkeys(made_by[n] for n in _walk(node, stop=ends) if n in made_by))
        for name, node in entering.items()
    }
    read_out = tuple(dict.fromkeys(owner[n] for n in _walk(out.grad_fn, stop=ends) if n in owner))
    return Topology(tuple(neurons), neurons, weights, feeders, read_out, elements, tuple(pools.values()))


def _walk(node: Any, stop: set[Any]) -> list[Any]:
    """Nodes of the autograd graph at and behind ``node``; nodes in ``stop`` are listed but not passed."""
    seen: dict[Any, None] = {}
    stack = [node]
    while stack:
        current = stack.pop()
        if current is None or current in seen:
            continue
        seen[current] = None
        if current not in stop:
            stack.extend(following for following, _ in current.next_functions)
    return list(seen)


def _operation(node: Any) -> str:
    """As autograd calls it, without "Backward" and its number."""
    return re.sub(r"Backward\d*$|\d*$", "", type(node).__name__)


def _macs(module: nn.Module, out: torch.Size) -> int:
    if isinstance(module, nn.Conv2d):
        height, width = out[2:]
        kernel = module.kernel_size[0] * module.kernel_size[1]
        return int(height * width * module.in_channels // module.groups * kernel * module.out_channels)
    assert isinstance(module, nn.Linear)
    return out.numel() // out[-1] * module.in_features * module.out_features
