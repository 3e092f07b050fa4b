"""A user's ANN, an nn.Module, read layer by layer into a graph (:mod:`leakbench.models.graph`) and compared with it.

What comes out needs no code of the user's: defences convert it as they do a built-in model. Batch norms are folded
into the layers before them.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import LeakBenchError, NotApplicable, UsageError, described, printable
from leakbench.foreign.assemble import IMAGE, Part, fill_in, laid_out
from leakbench.foreign.layers import layer_of
from leakbench.foreign.modules import PROBES, TOLERANCE
from leakbench.models.graph import Node
from leakbench.models.storage import build_ann
from leakbench.snn.folding import fold_batch_norms, has_batch_norm

ImageShape = tuple[int, int, int]

_BATCH = 10
"""images at once: large networks in float64 take gigabytes"""


@dataclass(frozen=True)
class Normalisation:
    """What a network takes in place of an image in [0, 1]: (image - mean) / std, one number or one of each channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def after(self, before: InputRange, channels: int) -> dict[str, Tensor]:
        """Scale and shift [channels] that make it of images mapped to the range ``before``."""
        mean, std = (
            torch.tensor(values * (channels if len(values) == 1 else 1), dtype=torch.float64)
            for values in (self.mean, self.std)
        )
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != channels:
                raise UsageError(f"--{name}: {len(values)} numbers, and the images have {channels} channels")
        scale = 1 / (before.scale * std)
        return {"scale": scale, "shift": -before.low * scale - mean / std}

    def __call__(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] as the network takes them."""
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std


def ann_of_module(
    module: nn.Module,
    image_shape: ImageShape,
    classes: int,
    input_range: InputRange,
    normalisation: Normalisation | None = None,
) -> ImageClassifier:
    """The classifier that a module is: one of a graph, whose logits are the module's within 1e-4 on 100 images.

    ``module`` takes images [B, C, H, W] as ``normalisation`` says, or mapped to ``input_range`` without one, and
    returns logits [B, classes]. UsageError, one line, names the layer that can't be taken, or says what it answers.
    """
    try:
        module = copy.deepcopy(module).to("cpu", torch.float64).eval().requires_grad_(False)
    except Exception as error:
        raise UsageError(f"it can't be copied in float64: {printable(described(error))}") from None
    normalised = None if normalisation is None else normalisation.after(input_range, image_shape[0])
    images = torch.rand(PROBES, *image_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    entering = input_range(images) if normalisation is None else normalisation(images)
    theirs = _answers(module, entering, classes)
    read = copy.deepcopy(module)
    try:
        if has_batch_norm(read):
            fold_batch_norms(read)
    except NotApplicable as error:
        raise UsageError(str(error)) from None
    graph, placed, tensors = laid_out(_parts(read, entering[:1]), normalised)
    ann = build_ann(str(graph), image_shape, classes, input_range).eval().requires_grad_(False)
    fill_in(dict(ann.body.named_parameters()) | dict(ann.body.named_buffers()), placed, tensors)
    off = float((_batched(copy.deepcopy(ann).double(), images) - theirs).abs().max())
    if not off <= TOLERANCE * max(1.0, float(theirs.abs().max())):
        raise UsageError(
            f"read layer by layer, its logits differ from its own by {off:.2g}: a layer does something that "
            "LeakBench does not know of"
        )
    return ann


@torch.no_grad()
def _batched(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(some) for some in images.split(_BATCH)])


def _answers(module: nn.Module, images: Tensor, classes: int) -> Tensor:
    shape = list(images.shape[1:])
    try:
        logits = _batched(module, images)
    except Exception as error:
        raise UsageError(f"images {shape} give no logits: {printable(described(error))}") from None
    if logits.shape != (len(images), classes):
        wanted, given = [len(images), classes], list(logits.shape)
        raise UsageError(f"{len(images)} images {shape} must give logits {wanted}, and give {given}")
    if not torch.isfinite(logits).all():
        raise UsageError("it answers NaN or infinity")
    return logits


# --- the module's graph ----------------------------------------------------------------------------------------------

_LAYERS: Mapping[Any, Callable[..., nn.Module]] = {
    functional.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    torch.relu_: nn.ReLU,
    "relu": nn.ReLU,
    "relu_": nn.ReLU,
    functional.max_pool2d: nn.MaxPool2d,
    functional.avg_pool2d: nn.AvgPool2d,
    functional.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    functional.dropout: lambda *_given, **_named: nn.Identity(),
    functional.dropout2d: lambda *_given, **_named: nn.Identity(),
}
"""functions and methods -> the layer that does the same, of the same arguments; whether something is dropped shows when
logits are compared"""
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_JOINS = (torch.cat, torch.concat)
_FLATTENED = (torch.flatten, "flatten")
_RESHAPED = (torch.reshape, "reshape", "view")
_SIZES = ("size", getattr, operator.getitem)
"""what tells a reshape how many images there are"""


def _parts(module: nn.Module, image: Tensor) -> list[Part]:
    """The layers in the order of execution, with what feeds them."""
    try:
        traced = fx.GraphModule(module, fx.Tracer().trace(module))
        traced.graph.eliminate_dead_code()
        ShapeProp(traced).propagate(image)
    except Exception as error:  # whatever a network's code does when it is handed symbols
        raise UsageError(f"its graph can't be read by torch.fx: {printable(described(error))}") from None
    parts: list[Part] = []
    names: dict[fx.Node, str] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            names[node] = IMAGE
        elif node.op == "output":
            (result,) = node.args
            if names.get(result) is None:
                raise UsageError("forward must return one tensor, the logits")
        elif node.op == "call_module":
            parts.append(_layer(module.get_submodule(str(node.target)), str(node.target), node, names))
            names[node] = node.name
        elif node.target not in _SIZES:
            parts.append(_called(node, names))
            names[node] = node.name
    return parts


def _layer(layer: nn.Module, title: str, node: fx.Node, names: Mapping[fx.Node, str]) -> Part:
    (before,) = inputs = _inputs(node, names, title)
    if isinstance(layer, nn.ReLU):
        return Part(node.name, Node("relu", ()), (before,))
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        layer = _adaptive(layer, title, node)
    try:
        operation, tensors = layer_of(layer, title)
    except LeakBenchError as error:
        hint = ": between activations, all ReLU, stand convolutions, linear layers, batch norm and pooling"
        raise UsageError(f"{error}{hint if str(error).endswith('is not known') else ''}") from None
    if operation.op == "spikemax":  # of an ANN, a maximum is one of activations
        operation = Node("maxpool", (), 0, operation.kernel, operation.stride, operation.padding)
    return Part(node.name, operation, inputs, tensors)


def _inputs(node: fx.Node, names: Mapping[fx.Node, str], title: str) -> tuple[str, ...]:
    """Of a layer or function of one tensor."""
    entered = [one for one in node.all_input_nodes if one in names]
    if len(entered) != 1:
        raise UsageError(f"{printable(title)!r} takes {len(entered)} inputs: only sums and torch.cat take several")
    return (names[entered[0]],)


def _adaptive(layer: nn.AdaptiveAvgPool2d, title: str, node: fx.Node) -> nn.Module:
    """The pooling that it is on maps of this size."""
    if layer.output_size in (1, (1, 1)):
        return layer
    height, width = (int(side) for side in node.all_input_nodes[0].meta["tensor_meta"].shape[-2:])
    wanted = layer.output_size if isinstance(layer.output_size, tuple) else (layer.output_size, layer.output_size)
    down, across = wanted[0] or height, wanted[1] or width  # None leaves a side as it is
    if height % down or width % across:
        raise UsageError(
            f"the layer {printable(title)!r} pools maps of {[height, width]} to {[down, across]}, which does not "
            "divide them"
        )
    return nn.AvgPool2d((height // down, width // across))


def _called(node: fx.Node, names: Mapping[fx.Node, str]) -> Part:
    """A function or method as a layer."""
    called = printable(str(getattr(node.target, "__name__", node.target)))
    if node.op not in ("call_function", "call_method"):
        raise UsageError(f"{called!r} is used outside of a layer: only layers may have parameters and buffers")
    if node.target in _LAYERS:
        try:
            layer = _LAYERS[node.target](*node.args[1:], **node.kwargs)
        except TypeError as error:
            raise UsageError(f"{called} is called in a way that is not known: {printable(described(error))}") from None
        return _layer(layer.eval(), called, node, names)
    given = list(node.args)
    if node.target in _SUMS and len(given) == 2 and not node.kwargs and all(one in names for one in given):
        return Part(node.name, Node("add", ()), tuple(names[one] for one in given))  # type: ignore[index]
    joined = given[0] if given else None
    if node.target in _JOINS and isinstance(joined, list | tuple) and (given[1:] or [*node.kwargs.values()]) == [1]:
        return Part(node.name, Node("cat", ()), tuple(names[one] for one in joined))
    start = given[1] if len(given) > 1 else node.kwargs.get("start_dim", 0)
    shape = given[1] if len(given) == 2 and isinstance(given[1], list | tuple) else given[1:]
    if (node.target in _FLATTENED and start == 1) or (node.target in _RESHAPED and len(shape) == 2):
        return Part(node.name, Node("flatten", ()), _inputs(node, names, called))
    raise UsageError(
        f"{called!r} is no layer: sums, torch.cat(..., 1), flatten(1) and the functions of ReLU and pooling may stand "
        "between layers"
    )
