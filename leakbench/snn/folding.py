"""Networks as conversions take them: batch norm folded away, biases as currents, pooling that spikes.

Each of these rewrites a network without changing what it computes. What was done stands in the network's ``arch``, as
in "resnet20+bias", by which leakbench.models builds the same layers again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from leakbench.contracts import ImageClassifier
from leakbench.errors import NotApplicable

_BatchNorm = nn.modules.batchnorm._BatchNorm


def has_batch_norm(body: nn.Module) -> bool:
    """Whether anything is left to fold."""
    return any(isinstance(module, _BatchNorm) for module in body.modules())


def with_biases(ann: ImageClassifier) -> ImageClassifier:
    """The same network with batch norms folded into the layers before them and a bias in every layer ("+bias").

    W <- g / sqrt(v + eps) W, b <- g / sqrt(v + eps) (b - m) + beta (Rueckauer 2017, section 2.2.2). A spiking layer's
    bias is a current at each step. Raises NotApplicable where a batch norm does not follow one layer alone.
    """
    return _rewritten(ann, "+bias", rewrite_biases)


def with_spiking_pools(ann: ImageClassifier) -> ImageClassifier:
    """The same network with an nn.ReLU behind each average pooling, so that pooling layers spike ("+pools").

    Means of what is not negative are not negative: the ReLU changes nothing in the ANN (Diehl 2015 pools by neurons).
    Raises NotApplicable for max pooling, which no neuron can do.
    """
    return _rewritten(ann, "+pools", rewrite_pools)


def _rewritten(ann: ImageClassifier, suffix: str, rewrite: Callable[[nn.Module], None]) -> ImageClassifier:
    body = copy.deepcopy(ann.body).eval()
    rewrite(body)
    arch = ann.arch if suffix in ann.arch else ann.arch + suffix
    return ImageClassifier(body, ann.image_shape, ann.classes, ann.input_range, arch, ann.precision).eval()


@torch.no_grad()
def rewrite_biases(body: nn.Module) -> None:
    """In place, see :func:`with_biases`."""
    if has_batch_norm(body):
        fold_batch_norms(body)
    for module in body.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is None:
            module.bias = nn.Parameter(module.weight.new_zeros(module.weight.shape[0]))


def rewrite_pools(body: nn.Module) -> None:
    """In place, see :func:`with_spiking_pools`."""
    spiking = {id(m[0]) for m in body.modules() if isinstance(m, _SpikingPool)}
    for name, module in list(body.named_modules()):
        if isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d):
            raise NotApplicable(f"pooling neurons average: no neuron takes the maximum of {name!r}")
        if isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d) and id(module) not in spiking:
            replace(body, name, _SpikingPool(module, nn.ReLU()))


class _SpikingPool(nn.Sequential):
    """Average pooling and the activation that will spike."""


def replace(body: nn.Module, name: str, module: nn.Module) -> None:
    """Puts ``module`` in the place of the layer ``name``."""
    parent, _, child = name.rpartition(".")
    setattr(body.get_submodule(parent), child, module)


@torch.no_grad()
def fold_batch_norms(body: nn.Module) -> None:
    """In place, in eval mode: W <- g / sqrt(v + eps) W, b <- g / sqrt(v + eps) (b - m) + beta.

    Raises NotApplicable where a batch norm does not follow one layer alone.
    """
    parts = dict(body.named_modules())
    try:
        nodes = [node for node in fx.Tracer().trace(body).nodes if node.op == "call_module"]
    except Exception as error:  # whatever a network's code does when it is handed symbols
        raise NotApplicable(f"the batch norms can't be folded: the network can't be traced ({error})") from None
    targets = [str(node.target) for node in nodes]
    for node in nodes:
        name = str(node.target)
        norm = parts[name]
        if not isinstance(norm, _BatchNorm):
            continue
        (before,) = node.all_input_nodes
        source = str(before.target)
        layer = parts.get(source) if before.op == "call_module" else None
        alone = len(before.users) == 1 and targets.count(source) == targets.count(name) == 1
        if norm.running_mean is None or not (isinstance(layer, nn.Conv2d | nn.Linear) and alone):
            raise NotApplicable(
                f"the batch norm {name!r} can't be folded: it needs running statistics and a convolution or linear "
                "layer of its own right before it"
            )
        if isinstance(layer, nn.Conv2d):
            replace(body, source, fuse_conv_bn_eval(layer, norm))
        else:
            replace(body, source, fuse_linear_bn_eval(layer, norm))
        replace(body, name, nn.Identity())
