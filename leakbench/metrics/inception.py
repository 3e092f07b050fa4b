"""pytorch-fid's Inception network for the FID."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakbench.metrics.published_networks import PublishedFeatures, WeightsFile

WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""of the file that pytorch-fid releases: a FID is comparable only where it comes from these weights"""
_NAME = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_WEIGHTS = WeightsFile("Inception", _NAME, f"pytorch-fid's {_NAME}", "LEAKBENCH_INCEPTION", most_bytes=2**28)


class InceptionFeatures(PublishedFeatures):
    """The 2048 features of pytorch-fid's Inception (its last average pooling).

    As in pytorch-fid: images are resized to 299 x 299 (bilinear), then to [-1, 1].
    """

    width = 2048

    def __init__(self, path: Path, device: torch.device | None = None) -> None:
        """Load the weights at ``path``, on ``device`` (the CPU by default).

        ``digest`` is the file's sha256. Raises UsageError where the file is missing, no plain tensor file, or
        holds other tensors.
        """
        content = INCEPTION_WEIGHTS.read(path)
        self.digest = hashlib.sha256(content).hexdigest()
        self.device = device if device is not None else torch.device("cpu")
        self._network = _load(content, path).to(self.device)

    @property
    def released(self) -> bool:
        """Whether these are the weights that pytorch-fid releases, and not others of the same layout."""
        return self.digest == WEIGHTS_SHA256

    def _of_rgb(self, images: Tensor) -> Tensor:
        x = F.interpolate(images, size=(299, 299), mode="bilinear", align_corners=False)
        return cast(Tensor, self._network(2 * x - 1))


def _load(content: bytes, path: Path) -> nn.Module:
    network = _fid_inception()
    layout = network.state_dict()
    # batch norm's step counters play no part in evaluation, and not every version of torch saved them
    counters = {key: value for key, value in layout.items() if key.endswith("num_batches_tracked")}
    state = counters | INCEPTION_WEIGHTS.unpickled(content, path)
    INCEPTION_WEIGHTS.check(state, layout, path)
    network.load_state_dict(state)
    network.fc = nn.Identity()  # the features are what the classifier would get
    return network.eval().requires_grad_(False)


def _fid_inception() -> nn.Module:
    """pytorch-fid's fid_inception_v3 without the download: torchvision's network, pytorch-fid's blocks."""
    # both take a second to import, and most runs have no weights file
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    network.Mixed_5b = FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = FIDInceptionC(768, channels_7x7=128)
    network.Mixed_6c = FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6d = FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6e = FIDInceptionC(768, channels_7x7=192)
    network.Mixed_7b = FIDInceptionE_1(1280)
    network.Mixed_7c = FIDInceptionE_2(2048)
    return cast(nn.Module, network)
