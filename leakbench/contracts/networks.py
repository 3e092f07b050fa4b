"""Networks on images in [0, 1]."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from leakbench.contracts.precision import Precision, arithmetic


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
