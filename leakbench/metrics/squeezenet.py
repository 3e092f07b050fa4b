"""SqueezeNet 1.1 trained on ImageNet: features that no private image had a part in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from leakbench.errors import UsageError
from leakbench.metrics.published_networks import PublishedFeatures, WeightsFile
from leakbench.metrics.reconstructions import SQUEEZENET

WEIGHTS_SHA256 = "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b"
"""of the file that torchvision releases"""
_NAME = "squeezenet1_1-b8a52dc0.pth"
SQUEEZENET_WEIGHTS = WeightsFile(
    "SqueezeNet",
    _NAME,
    f"torchvision's {_NAME} or a safetensors file of squeezenet1_1",
    "LEAKBENCH_FEATURES",
    most_bytes=2**24,
)
SIDE = 128
"""pixels: at 224, which the network was trained at, it takes three times as long"""


@dataclass(frozen=True)
class Normalization:
    """What a network was trained to expect of the channels of an image."""

    meaning: str
    highest: float
    """of a channel; the lowest is 0"""
    mean: Sequence[float]
    std: Sequence[float] = (1.0, 1.0, 1.0)
    """subtracted, then divided by, in the network's order of channels"""
    bgr: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """RGB [B, 3, H, W] in [0, 1] -> the network's input."""
        x = (images.flip(1) if self.bgr else images) * self.highest
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (x - mean) / std


NORMALIZATIONS = {
    "torch": Normalization(
        "RGB in [0, 1], less (.485, .456, .406), over (.229, .224, .225)",
        1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
    ),
    "caffe": Normalization(
        "BGR in [0, 255], less (103.939, 116.779, 123.68)", 255.0, (103.939, 116.779, 123.68), bgr=True
    ),
}  # fmt: skip
"""by the names that Keras has for them, which a safetensors file gives in its metadata"""


class SqueezeNetFeatures(PublishedFeatures):
    """The 512 features of torchvision's squeezenet1_1: its last convolutions, averaged over places.

    Images are resized to SIDE x SIDE, whatever their shape (bilinear, with antialiasing where they shrink), and
    normalised as the weights' training was.
    """

    width = 512

    def __init__(self, path: Path, device: torch.device | None = None) -> None:
        """Load the weights at ``path``, on ``device`` (the CPU by default): torchvision's own file, or safetensors with
        torchvision's names, with the classifier or without, whose metadata name one of the NORMALIZATIONS.

        ``digest`` is the file's sha256. Raises UsageError where the file is missing, or anything else.
        """
        content = SQUEEZENET_WEIGHTS.read(path)
        self.digest = hashlib.sha256(content).hexdigest()
        self.device = device if device is not None else torch.device("cpu")
        # by its digest: no pickle of anybody else is opened
        if self.released:
            tensors, self.normalization = SQUEEZENET_WEIGHTS.unpickled(content, path), "torch"
        else:
            tensors, self.normalization = _safetensors(content, path)
        network = _network(tensors, path)
        # twice as fast on the CPU
        self._network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def released(self) -> bool:
        """Whether these are the weights that torchvision releases, and not others of the same layout."""
        return self.digest == WEIGHTS_SHA256

    @property
    def name(self) -> str:
        """Part of a metric's name: that of the released weights is the network's, others have the first digits of their
        file's sha256 behind it."""
        return SQUEEZENET if self.released else f"{SQUEEZENET}_{self.digest[:8]}"

    def _of_rgb(self, images: Tensor) -> Tensor:
        x = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        x = NORMALIZATIONS[self.normalization](x).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self._network(x).mean((2, 3)))


def _safetensors(content: bytes, path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, and the name of its normalisation."""
    try:
        tensors = load(content)
    except (SafetensorError, KeyError):  # KeyError: numbers of a type that torch has not
        raise UsageError(
            f"{path} is not {SQUEEZENET_WEIGHTS.expected}: no pickle but torchvision's, by its sha256, is opened"
        ) from None
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    named = header.get("__metadata__", {}).get("normalization")
    if named not in NORMALIZATIONS:
        problem = "does not say" if named is None else f"says {named[:20]!r} of"
        choices = ", or ".join(f"{name!r} ({one.meaning})" for name, one in NORMALIZATIONS.items())
        raise UsageError(f"{path} {problem} how images are normalised: its metadata need normalization={choices}")
    return tensors, named


def _network(tensors: dict[str, Tensor], path: Path) -> nn.Module:
    from torchvision.models import squeezenet1_1  # takes as long to import as torch, and most runs have no weights file

    features = squeezenet1_1(weights=None).features
    layout = {f"features.{name}": value for name, value in features.state_dict().items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
    SQUEEZENET_WEIGHTS.check(tensors, layout, path)
    features.load_state_dict({name.removeprefix("features."): tensor for name, tensor in tensors.items()})
    return cast(nn.Module, features.eval().requires_grad_(False))
