"""Judges: independent classifiers that score reconstructions. No attack or defence can reach one."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from leakbench.models.training import Recipe, train
from leakbench.snn.network import memory_format


class Judge(nn.Module):
    """``bnconv``: convolutions with batch norm, strides instead of pooling, global average pooling.

    Another architecture than any victim of the VGG family, trained from another seed with shifts and noise.
    """

    name = "bnconv"

    def __init__(self, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels = image_shape[0]
        large = min(image_shape[1:]) >= 16
        layers: list[nn.Module] = []
        for out, kernel, stride in ((32, 5, 2 if large else 1), (64, 3, 1), (96, 3, 2), (96, 3, 1)):
            layers += [
                nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(out),
                nn.LeakyReLU(0.1),
            ]
            channels = out
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(channels, classes)
        self.classes = classes
        self.image_shape = image_shape

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes]."""
        return cast(Tensor, self.head(self.trunk(images * 2 - 1)))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> features [B, d] of the last layer but one."""
        return cast(Tensor, self.trunk(images * 2 - 1))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities [B, classes], averaged over the image and its shifts by one pixel each way.

        Averaging over shifts keeps single pixels of adversarial noise from deciding.
        """
        total = torch.zeros(len(images), self.classes, device=images.device)
        shifts = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
        for shift in shifts:
            total += self(torch.roll(images, shift, (2, 3))).softmax(1)
        return total / len(shifts)


def train_judge(
    images: Tensor,
    labels: Tensor,
    classes: int,
    recipe: Recipe,
    generator: torch.Generator,
    device: torch.device,
    progress: object = None,
) -> Judge:
    """A judge trained on ``images`` uint8 [N, C, H, W] and ``labels`` [N]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31 - 1, (1,), generator=generator)))
        judge = Judge(cast(tuple[int, int, int], tuple(images.shape[1:])), classes)
    train(judge, images, labels, recipe, generator, device, "training the judge", progress or _silent)  # type: ignore[arg-type]
    return judge.to(memory_format=memory_format(judge.image_shape))  # type: ignore[call-overload,no-any-return]


def _silent(_what: str, _done: int, _total: int) -> None:
    return None
