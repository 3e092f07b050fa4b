"""pytorch-fid's Inception network for the FID, from a weights file already at hand: nothing is downloaded."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakbench.errors import NumericalError, UsageError
from leakbench.paths import checked_path

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""of the file that pytorch-fid releases: a FID is comparable only where it comes from these weights"""
PATH_VARIABLE = "LEAKBENCH_INCEPTION"
FEATURES = 2048
BATCH = 32
"""images at once: about 1 GiB of activations at 299 x 299"""


def find_inception_weights(path: Path | None) -> Path | None:
    """The weights file: ``path``, else what LEAKBENCH_INCEPTION names, else torch hub's cache, else None.

    Raises UsageError where ``path`` or the variable names no file: what was asked for is not left out.
    """
    if path is not None:
        return _existing(path, "the Inception weights file")
    named = os.environ.get(PATH_VARIABLE)
    if named:
        return _existing(Path(named), f"the file that {PATH_VARIABLE} names")
    cached = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    return cached if cached.is_file() else None


def _existing(path: Path, what: str) -> Path:
    if not checked_path(path, what).is_file():
        raise UsageError(f"{what} does not exist: {path} (expected pytorch-fid's {WEIGHTS_FILE})")
    return path


class InceptionFeatures:
    """The 2048 features of pytorch-fid's Inception (its last average pooling)."""

    name = "inception"

    def __init__(self, path: Path, device: torch.device | None = None) -> None:
        """Load the weights at ``path``, on ``device`` (the CPU by default).

        ``digest`` is the file's sha256. Raises UsageError where the file is missing, no plain tensor file, or
        holds other tensors.
        """
        self._device = device if device is not None else torch.device("cpu")
        self._network = _load(_existing(path, "the Inception weights file")).to(self._device)
        with path.open("rb") as file:
            self.digest = hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def released(self) -> bool:
        """Whether these are the weights that pytorch-fid releases, and not others of the same layout."""
        return self.digest == WEIGHTS_SHA256

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] with C = 1 (made RGB) or 3 -> float32 [N, 2048] on the CPU.

        As in pytorch-fid: bilinear to 299 x 299, then to [-1, 1].
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
            raise UsageError(f"images must be floats [N, 1 or 3, H, W], got {images.dtype} {tuple(images.shape)}")
        if not torch.isfinite(images).all():
            raise NumericalError("the images hold NaN or infinity")
        if images.numel() and (float(images.min()) < 0 or float(images.max()) > 1):
            raise UsageError("images must be in [0, 1]")
        parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return torch.cat([torch.empty(0, FEATURES), *map(self._batch, parts)])

    def _batch(self, images: Tensor) -> Tensor:
        x = images.to(self._device, torch.float32).expand(-1, 3, -1, -1)
        x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        return cast(Tensor, self._network(2 * x - 1)).cpu()


def _load(path: Path) -> nn.Module:
    network = _fid_inception()
    state = _read(path)
    expected = network.state_dict()
    # batch norm's step counters play no part in evaluation, and not every version of torch saved them
    state = {key: value for key, value in expected.items() if key.endswith("num_batches_tracked")} | state
    for key, tensor in expected.items():
        if key not in state:
            raise UsageError(f"{path} is not pytorch-fid's {WEIGHTS_FILE}: it lacks {key}")
        if state[key].shape != tensor.shape:
            raise UsageError(
                f"{path} is not pytorch-fid's {WEIGHTS_FILE}: {key} should be {tuple(tensor.shape)}, "
                f"is {tuple(state[key].shape)}"
            )
        if not torch.isfinite(state[key]).all():
            raise UsageError(f"{path} is damaged: {key} holds NaN or infinity")
    unknown = sorted(state.keys() - expected.keys())
    if unknown:
        raise UsageError(f"{path} is not pytorch-fid's {WEIGHTS_FILE}: it should not hold {unknown[0]}")
    network.load_state_dict(state)
    network.fc = nn.Identity()  # the features are what the classifier would get
    return network.eval().requires_grad_(False)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises a dozen kinds, by where the file breaks
        raise UsageError(
            f"{path} is no weights file: it can't be read, or holds more than tensors (code is never run)"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{path} is not pytorch-fid's {WEIGHTS_FILE}: it should map names to tensors")
    return {str(key): value for key, value in state.items()}


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
