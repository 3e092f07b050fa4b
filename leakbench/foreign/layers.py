"""Layers of other frameworks that remember nothing, as operations of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from leakbench.errors import UsageError, printable
from leakbench.foreign.assemble import SAME
from leakbench.models.graph import Node
from leakbench.snn.blocks import Pair

CHAINS: Sequence[str] = ("torch.nn.modules.container.Sequential", "norse.torch.module.sequential.SequentialState")
"""classes that run their children one after the other"""


def name_of(module: nn.Module) -> str:
    """Of its class, in full."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


_PLAIN = ("torch.nn.modules.", "spikingjelly.activation_based.layer", "sinabs.layers.pool2d.SumPool2d")


def layer_of(module: nn.Module, name: str) -> tuple[Node, dict[str, Tensor]]:
    """What a layer does that remembers nothing, and its tensors in float64. UsageError for one that is not known."""
    full, title = name_of(module), f"the layer {printable(name)!r} ({type(module).__name__})"
    if not full.startswith(_PLAIN):
        raise UsageError(f"{title} of {printable(type(module).__module__)} is not known")
    if type(module).__name__ in ("Dropout", "Dropout2d"):  # nothing is dropped now
        return Node(SAME, ()), {}
    for known, make in _LAYERS.items():
        if isinstance(module, known):
            node, tensors = make(module, title)
            return node, {key: value.detach().double() for key, value in tensors.items()}
    raise UsageError(f"{title} is not known")


def _conv(module: Any, title: str) -> tuple[Node, dict[str, Tensor]]:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        if module.padding != "valid" or module.padding_mode != "zeros":
            raise UsageError(f"{title}: its padding must be zeros, by a number")
        padding: Pair = (0, 0)
    else:
        padding = module.padding
    node = Node(
        "conv", (), module.out_channels, module.kernel_size, module.stride, padding, module.dilation, module.groups,
        module.bias is not None,
    )  # fmt: skip
    return node, _weights(module)


def _linear(module: Any, _title: str) -> tuple[Node, dict[str, Tensor]]:
    return Node("linear", (), module.out_features, bias=module.bias is not None), _weights(module)


def _weights(module: Any) -> dict[str, Tensor]:
    return {"weight": module.weight} | ({"bias": module.bias} if module.bias is not None else {})


def _norm(module: Any, title: str) -> tuple[Node, dict[str, Tensor]]:
    if module.running_var is None:
        raise UsageError(f"{title}: it normalises by each batch: track_running_stats must be on")
    scale = (module.running_var + module.eps).rsqrt()
    scale = scale if module.weight is None else scale * module.weight
    shift = -module.running_mean * scale
    return Node("affine", ()), {"scale": scale, "shift": shift if module.bias is None else shift + module.bias}


def _pool(op: str) -> Callable[[Any, str], tuple[Node, dict[str, Tensor]]]:
    def make(module: Any, title: str) -> tuple[Node, dict[str, Tensor]]:
        def pair(value: Any) -> Pair:
            return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))

        padding = pair(getattr(module, "padding", 0))
        plain = not module.ceil_mode and getattr(module, "dilation", 1) in (1, (1, 1))
        counted = getattr(module, "count_include_pad", True) or padding == (0, 0)
        if not (plain and counted and getattr(module, "divisor_override", None) is None):
            raise UsageError(f"{title}: pooling must be without ceil_mode, dilation and divisors of its own")
        kernel = pair(module.kernel_size)
        stride = kernel if module.stride is None else pair(module.stride)
        return Node(op, (), 0, kernel, stride, padding), {}

    return make


def _mean(module: Any, title: str) -> tuple[Node, dict[str, Tensor]]:
    if module.output_size not in (1, (1, 1)):
        raise UsageError(f"{title}: adaptive pooling must be to 1")
    return Node("mean", ()), {}


def _flatten(module: Any, title: str) -> tuple[Node, dict[str, Tensor]]:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise UsageError(f"{title}: it must flatten all but the first axis")
    return Node("flatten", ()), {}


def _nothing(_module: Any, _title: str) -> tuple[Node, dict[str, Tensor]]:
    return Node(SAME, ()), {}


_LAYERS: Mapping[type[nn.Module], Callable[[Any, str], tuple[Node, dict[str, Tensor]]]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm2d: _norm,
    nn.BatchNorm1d: _norm,
    nn.LPPool2d: _pool("sumpool"),  # sinabs' SumPool2d, of norm 1
    nn.AvgPool2d: _pool("avgpool"),
    nn.MaxPool2d: _pool("spikemax"),
    nn.AdaptiveAvgPool2d: _mean,
    nn.Flatten: _flatten,
    nn.Identity: _nothing,
}
