"""Networks that others published, as sources of features: their weights come from files that are at hand.

Nothing is downloaded. Whoever wrote a file, no code in it is run, and what does not fit the network is refused in one
line.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from leakbench.errors import NumericalError, UsageError
from leakbench.paths import checked_path

BATCH = 32
"""images at once: about 1 GiB of activations of Inception at 299 x 299"""
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class WeightsFile:
    """A published file of weights, and where it may lie."""

    network: str
    """as users know it"""
    name: str
    """of the file, in torch hub's cache"""
    expected: str
    """what a user may give, in words"""
    variable: str
    """of the environment, which may name a file"""
    most_bytes: int
    """no file of this layout is larger: what is larger is not read"""

    @property
    def cached(self) -> Path:
        """Where torch hub keeps it, whether it is there or not."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.name

    def find(self, path: Path | None) -> Path | None:
        """The file: ``path``, else what the variable names, else torch hub's cache, else None.

        Raises UsageError where ``path`` or the variable names no file: what was asked for is not left out.
        """
        if path is not None:
            return self._existing(path, f"the {self.network} weights file")
        named = os.environ.get(self.variable)
        if named:
            return self._existing(Path(named), f"the file that {self.variable} names")
        return self.cached if self.cached.is_file() else None

    def read(self, path: Path) -> bytes:
        """The bytes of a file. Raises UsageError where it is missing, unreadable or too large for such weights."""
        size = self._existing(path, f"the {self.network} weights file").stat().st_size
        if size > self.most_bytes:
            raise UsageError(f"{path} has {size} bytes, and no {self.network} weights have: expected {self.expected}")
        try:
            with path.open("rb") as file:
                return file.read(self.most_bytes)
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}") from None

    def unpickled(self, content: bytes, path: Path) -> dict[str, Tensor]:
        """The tensors in a file that torch saved. Raises UsageError where it holds anything else."""
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception:  # torch raises a dozen kinds, by where the file breaks
            raise UsageError(
                f"{path} is no weights file: it can't be read, or holds more than tensors (code is never run)"
            ) from None
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise UsageError(f"{path} is not {self.expected}: it should map names to tensors")
        return {str(key): value for key, value in state.items()}

    def check(self, tensors: Mapping[str, Tensor], layout: Mapping[str, Tensor], path: Path) -> None:
        """Raises UsageError unless the ``tensors`` have the names and shapes of ``layout``, and finite floats where it
        has floats."""
        for key, like in layout.items():
            if key not in tensors:
                raise UsageError(f"{path} is not {self.expected}: it lacks {key}")
            tensor = tensors[key]
            if tensor.shape != like.shape:
                shapes = f"{key} should be {tuple(like.shape)}, is {tuple(tensor.shape)}"
                raise UsageError(f"{path} is not {self.expected}: {shapes}")
            if like.is_floating_point() and tensor.dtype not in _FLOATS:
                raise UsageError(f"{path} is not {self.expected}: {key} holds {tensor.dtype}: save it as {like.dtype}")
            if not torch.isfinite(tensor.to(like.dtype)).all():
                raise UsageError(f"{path} is damaged: {key} holds NaN or infinity")
        unknown = sorted(tensors.keys() - layout.keys())
        if unknown:
            raise UsageError(f"{path} is not {self.expected}: it should not hold {unknown[0][:60]}")

    def _existing(self, path: Path, what: str) -> Path:
        if not checked_path(path, what).is_file():
            raise UsageError(f"{what} does not exist: {path} (expected {self.expected})")
        return path


class PublishedFeatures(ABC):
    """Features of images by a published network."""

    width: ClassVar[int]
    """how many an image has"""
    device: torch.device

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] with C = 1 (made RGB) or 3 -> float32 [N, width] on the CPU.

        Raises UsageError for other images, NumericalError for NaN or infinity.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
            raise UsageError(f"images must be floats [N, 1 or 3, H, W], got {images.dtype} {tuple(images.shape)}")
        if not torch.isfinite(images).all():
            raise NumericalError("the images hold NaN or infinity")
        if images.numel() and (float(images.min()) < 0 or float(images.max()) > 1):
            raise UsageError("images must be in [0, 1]")
        parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        rgb = (part.to(self.device, torch.float32).expand(-1, 3, -1, -1) for part in parts)
        return torch.cat([torch.empty(0, self.width), *(self._of_rgb(part).cpu() for part in rgb)])

    @abstractmethod
    def _of_rgb(self, images: Tensor) -> Tensor:
        """float32 [B, 3, H, W] in [0, 1] -> [B, width], both on the device."""
