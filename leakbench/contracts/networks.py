"""Networks on images in [0, 1]."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from leakbench.contracts.precision import Precision, arithmetic
from leakbench.errors import NotApplicable


class InputRange(NamedTuple):
    """The interval that [0, 1] images are mapped to before a network (or its encoder) sees them."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Input units per image unit: a step of size s in the input range is s / scale in image units."""
        return self.high - self.low

    def __call__(self, images: Tensor) -> Tensor:
        return images if self == (0.0, 1.0) else images * self.scale + self.low


class ImageClassifier(nn.Module):
    """An ANN on images: ``body`` works on the input range, ``forward`` takes images in [0, 1].

    ``arch`` names how the body is built again when it is loaded from the store (see leakbench.models). ``precision`` is
    what it computes in, and so does whoever follows its gradients; logits are float32 in any case.
    """

    def __init__(
        self,
        body: nn.Module,
        image_shape: tuple[int, int, int],
        classes: int,
        input_range: tuple[float, float] = (0.0, 1.0),
        arch: str = "",
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.body = body
        self.image_shape = image_shape
        self.classes = classes
        self.input_range = InputRange(*input_range)
        self.arch = arch
        self.precision = precision

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes]."""
        with arithmetic(self.precision, images.device):
            logits: Tensor = self.body(self.input_range(images))
        return logits.to(images.dtype)


class ModuleNetwork(ImageClassifier):
    """A module whose layers can't be read: it answers, and hands back its own gradients, and nothing else is known.

    ``body`` takes images in the input range and a seed, from which all that it draws follows.
    """

    noise: torch.Generator
    """what the seeds of calls without one are drawn from"""

    def __init__(
        self,
        body: nn.Module,
        image_shape: tuple[int, int, int],
        classes: int,
        input_range: tuple[float, float] = (0.0, 1.0),
        arch: str = "",
    ) -> None:
        super().__init__(body, image_shape, classes, input_range, arch)
        self.noise = torch.Generator().manual_seed(0)

    def reseed(self, seed: int) -> None:
        """Start the noise of calls without a seed anew."""
        self.noise.manual_seed(seed)

    def forward(self, images: Tensor, seed: int | None = None) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes].

        Raises NotApplicable where a gradient is wanted and none passes through the module.
        """
        if seed is None:
            seed = int(torch.randint(2**62, (1,), generator=self.noise))
        logits: Tensor = self.body(self.input_range(images), seed)
        if images.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            raise NotApplicable("no gradient passes through the module: its answers alone can be attacked")
        return logits.to(images.dtype)
