"""Networks that a text describes: what an imported network's topology is kept as, without any code.

    graph: conv 16 k3x3 p1x1; relu; avgpool k2x2 s2x2; conv 16 k3x3 p1x1; relu; add <5 <3; flatten; linear 10 b

Nodes stand in the order in which they are computed, the first is number 1. A node takes what the node before it puts
out, or what it names: ``<3`` is the output of node 3, ``<0`` the image. The last node's output are the logits.
Weights of node 4 are the tensors ``n4.weight`` and ``n4.bias``.

    conv OUT kHxW [sHxW] [pHxW] [dHxW] [gN] [b]    convolution: kernel, stride, padding, dilation, groups, with a bias
    linear OUT [b]                                 of flat inputs
    relu                                           neurons, where the network spikes
    avgpool kHxW [sHxW] [pHxW]                     average pooling, padding counted
    sumpool kHxW [sHxW] [pHxW]                     sums, as pooling adds spikes up in some frameworks
    maxpool kHxW [sHxW] [pHxW]                     in a spiking network, of the neurons that fired most so far
    spikemax kHxW [sHxW] [pHxW]                    in a spiking network, of the spikes of each step
    mean                                           over each channel's map
    flatten                                        [C, H, W] to one axis
    add, cat                                       sum of inputs of one shape; their channels one after the other
    affine                                         scale * x + shift, one of each a channel

What is left out: stride 1x1, or for pooling as the kernel; padding 0x0; dilation 1x1; groups 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakbench.errors import UsageError
from leakbench.models.catalogue import GRAPH
from leakbench.snn.blocks import Affine, Pair, SpikeMax, SumPool

Shape = tuple[int, int, int]

_MOST_NODES = 2000
_MOST_ELEMENTS = 1 << 28
"""of all nodes' outputs for one image, as all are kept for gradients, and of all weights together"""
_MOST_MACS = 10**11
"""multiply-accumulates for one image: seven times those of VGG16 on images of 224 x 224"""
_SIDES = re.compile(r"(?P<name>[kspd])(?P<height>\d{1,5})x(?P<width>\d{1,5})")
_COUNTS = re.compile(r"g(?P<groups>\d{1,6})")
_POOLS = ("avgpool", "sumpool", "maxpool", "spikemax")
_ONE_INPUT = ("conv", "linear", "relu", *_POOLS, "mean", "flatten", "affine")
_SEVERAL = ("add", "cat")


@dataclass(frozen=True)
class Node:
    """One operation of a graph."""

    op: str
    inputs: tuple[int, ...]
    """numbers of nodes, 0 for the image"""
    out: int = 0
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False

    def text(self, number: int) -> str:
        """As node ``number``."""
        words = [self.op]
        if self.op in ("conv", "linear"):
            words.append(str(self.out))
        if self.op in ("conv", *_POOLS):
            usual = {"k": None, "s": self.kernel if self.op in _POOLS else (1, 1), "p": (0, 0), "d": (1, 1)}
            given = {"k": self.kernel, "s": self.stride, "p": self.padding, "d": self.dilation}
            words += [f"{name}{pair[0]}x{pair[1]}" for name, pair in given.items() if pair != usual[name]]
        if self.groups != 1:
            words.append(f"g{self.groups}")
        if self.bias:
            words.append("b")
        if self.inputs != (number - 1,):
            words += [f"<{one}" for one in self.inputs]
        return " ".join(words)


@dataclass(frozen=True)
class Graph:
    """A network's operations in the order of execution; its text is the network's architecture."""

    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return f"{GRAPH} {'; '.join(node.text(number) for number, node in enumerate(self.nodes, 1))}"

    @classmethod
    def parse(cls, text: str) -> Graph:
        """The graph that a text is; UsageError names what is wrong in it, or how it is written."""
        body = text.removeprefix(GRAPH).strip()
        parts = body.split(";")
        if len(parts) > _MOST_NODES:
            raise UsageError(f"a graph of {len(parts)} nodes is too large: {_MOST_NODES} at most")
        graph = cls(tuple(_node(part.split(), number) for number, part in enumerate(parts, 1)))
        if str(graph) != text:
            raise UsageError(f"a graph has one text: write {str(graph)[:200]!r} instead of {text[:200]!r}")
        return graph


def _node(words: Sequence[str], number: int) -> Node:
    if not words:
        raise UsageError(f"graph, node {number}: it says nothing")
    op, *rest = words
    if op not in (*_ONE_INPUT, *_SEVERAL):
        raise UsageError(f"graph, node {number}: {op[:40]!r} is none of {', '.join((*_ONE_INPUT, *_SEVERAL))}")
    out = 0
    if op in ("conv", "linear"):
        if not (rest and re.fullmatch(r"\d{1,7}", rest[0])):
            raise UsageError(f"graph, node {number}: {op} is followed by its number of outputs, as in '{op} 16'")
        out = int(rest.pop(0))
    sides: dict[str, Pair] = {}
    inputs: list[int] = []
    groups, bias = 1, False
    for word in rest:
        pair, grouped = _SIDES.fullmatch(word), _COUNTS.fullmatch(word)
        if pair and op in ("conv", *_POOLS) and not (op in _POOLS and pair["name"] == "d"):
            sides[pair["name"]] = (int(pair["height"]), int(pair["width"]))
        elif grouped and op == "conv":
            groups = int(grouped["groups"])
        elif word == "b" and op in ("conv", "linear"):
            bias = True
        elif re.fullmatch(r"<\d{1,5}", word) and int(word[1:]) < number:
            inputs.append(int(word[1:]))
        else:
            raise UsageError(f"graph, node {number}: {op} has no {word[:40]!r}")
    if op in ("conv", *_POOLS) and "k" not in sides:
        raise UsageError(f"graph, node {number}: {op} needs a kernel, as in 'k3x3'")
    kernel = sides.get("k", (1, 1))
    node = Node(
        op, tuple(inputs) or (number - 1,), out, kernel, sides.get("s", kernel if op in _POOLS else (1, 1)),
        sides.get("p", (0, 0)), sides.get("d", (1, 1)), groups, bias,
    )  # fmt: skip
    if (len(node.inputs) != 1) != (op in _SEVERAL):
        raise UsageError(f"graph, node {number}: {op} takes {'several inputs' if op in _SEVERAL else 'one input'}")
    if 0 in (*node.kernel, *node.stride, *node.dilation, groups) or (op in ("conv", "linear") and out == 0):
        raise UsageError(f"graph, node {number}: a size of 0")
    return node


class GraphBody(nn.Module):
    """A graph's operations as a module: images [B, C, H, W] -> logits [B, classes]."""

    def __init__(self, graph: Graph, image_shape: Shape) -> None:
        super().__init__()
        self.graph = graph
        shapes: list[tuple[int, ...]] = [image_shape]
        weights, macs, elements = 0, 0, 0
        for number, node in enumerate(graph.nodes, 1):
            given = [shapes[one] for one in node.inputs]
            weights += _weights(node, given[0])
            if weights > _MOST_ELEMENTS:
                raise UsageError(f"graph, node {number}: {weights} weights are too many: {_MOST_ELEMENTS} at most")
            shapes.append(_shape_behind(node, number, given))
            elements += math.prod(shapes[-1])
            if elements > _MOST_ELEMENTS:
                raise UsageError(f"graph, node {number}: {elements} outputs are too many: {_MOST_ELEMENTS} at most")
            macs += _macs(node, given[0], shapes[-1])
            if macs > _MOST_MACS:
                raise UsageError(f"graph, node {number}: {macs} multiplications are too many: {_MOST_MACS} at most")
            module = _module(node, given[0])
            if module is not None:
                self.add_module(f"n{number}", module)
        self.shapes = tuple(shapes)
        """of the image and of what each node puts out for one"""

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for number, node in enumerate(self.graph.nodes, 1):
            given = [values[one] for one in node.inputs]
            if node.op == "add":
                out = given[0]
                for other in given[1:]:
                    out = out + other
            elif node.op == "cat":
                out = torch.cat(given, 1)
            else:
                out = self.get_submodule(f"n{number}")(given[0])
            values.append(out)
        return values[-1]


def _module(node: Node, shape: tuple[int, ...]) -> nn.Module | None:
    sides = node.kernel, node.stride, node.padding
    make: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: nn.Conv2d(shape[0], node.out, *sides, node.dilation, node.groups, node.bias),
        "linear": lambda: nn.Linear(shape[0], node.out, node.bias),
        "relu": nn.ReLU,
        "avgpool": lambda: nn.AvgPool2d(*sides),
        "sumpool": lambda: SumPool(*sides),
        "maxpool": lambda: nn.MaxPool2d(*sides),
        "spikemax": lambda: SpikeMax(*sides),
        "mean": lambda: nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten,
        "affine": lambda: Affine(shape),
    }
    return make[node.op]() if node.op in make else None


def _weights(node: Node, shape: tuple[int, ...]) -> int:
    if node.op == "conv":
        return node.out * (shape[0] // node.groups) * math.prod(node.kernel) + node.out * node.bias
    return node.out * (shape[0] + node.bias) if node.op == "linear" else 0


def _macs(node: Node, shape: tuple[int, ...], out: tuple[int, ...]) -> int:
    """Of one image; of pooling, what is read."""
    side = math.prod(node.kernel)
    return math.prod(out) * (shape[0] // node.groups * side if node.op in ("conv", "linear") else side)


def _shape_behind(node: Node, number: int, given: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What comes out for one image; UsageError where the node does not take what goes in."""
    shape = given[0]

    def wrong(why: str) -> UsageError:
        shapes = ", ".join(str(list(one)) for one in given)
        return UsageError(f"graph, node {number}: {node.op} takes {why}, and gets {shapes}")

    if node.op in ("conv", *_POOLS, "mean") and len(shape) != 3:
        raise wrong("maps [C, H, W]")
    out: tuple[int, ...] = shape
    match node.op:
        case "conv":
            if shape[0] % node.groups or node.out % node.groups:
                raise wrong(f"channels that {node.groups} groups divide, and puts out such")
            out = (node.out, *_slid(node, shape))
        case "avgpool" | "sumpool" | "maxpool" | "spikemax":
            if any(2 * pad > side for pad, side in zip(node.padding, node.kernel, strict=True)):
                raise wrong("a padding of half its kernel at most")
            out = (shape[0], *_slid(node, shape))
        case "linear":
            if len(shape) != 1:
                raise wrong("one axis: put 'flatten' before it")
            out = (node.out,)
        case "mean":
            out = (shape[0], 1, 1)
        case "flatten":
            out = (math.prod(shape),)
        case "add":
            if len(set(given)) > 1:
                raise wrong("inputs of one shape")
        case "cat":
            if len({one[1:] for one in given}) > 1:
                raise wrong("inputs that differ in channels alone")
            out = (sum(one[0] for one in given), *shape[1:])
    if min(out) < 1:
        raise wrong("larger maps")
    if math.prod(out) > _MOST_ELEMENTS:
        raise UsageError(f"graph, node {number}: it puts out {math.prod(out)} numbers: {_MOST_ELEMENTS} at most")
    return out


def _slid(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    sides = zip(shape[1:], node.kernel, node.stride, node.padding, node.dilation, strict=True)
    return tuple((side + 2 * pad - gap * (kernel - 1) - 1) // step + 1 for side, kernel, step, pad, gap in sides)


def of_text(text: str) -> Callable[[Shape, int, torch.Generator], nn.Module]:
    """What builds the networks of a graph's text. UsageError where it is none."""
    graph = Graph.parse(text)

    def build(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
        """Untrained, Kaiming-normal from ``generator``."""
        body = GraphBody(graph, image_shape)
        if body.shapes[-1] != (classes,):
            raise UsageError(
                f"the graph puts out {list(body.shapes[-1])} for images {list(image_shape)}, not [{classes}]"
            )
        for module in body.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return body

    return build
