"""Judges: independent classifiers that score reconstructions. No attack or defence can reach one.

Two for any images, other networks than any victim, trained on the private data from seeds of their own: what one of
them is blind to, or a reconstruction fools by accident, the other need not share. Together they can also answer "none
of these" (docs/method.md, Evaluation models).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import Loop, Precision, arithmetic
from leakbench.data.dataset import are_pictures
from leakbench.models.training import Augmentation, Loss, Progress, Recipe, steps_of, train

ImageShape = tuple[int, int, int]

VIEWS = 8
"""views of an image over which the judges' answers are averaged"""
LEAST_STEPS = 1000
"""optimiser steps that a judge's training needs, as far as that is not more than MOST_EPOCHS passes"""
LEAST_EPOCHS, MOST_EPOCHS = 5, 100
PICTURE_EPOCHS = 16
"""passes over many pictures"""
VEILED_PICTURES = 0.25
"""share of a batch of pictures that is mixed with outliers; what half would do to these models is not measured"""
ROUNDING = (2 / 255) ** 2 / 12
"""variance that rounding to 8 bits adds to a value on [-1, 1]: along directions with less, patches hold nothing else.
Grey images in three channels have 8 such directions of 12, photographs none (TinyImageNet's least has 6 times it)"""
PREPARED = 2000
"""training images, at most, from which a judge takes what it needs before its training"""
ACCEPTED = 0.95
"""share of real images, small ones blurred and noisy, in which the ensemble must see a class: its operating point"""


@dataclass(frozen=True)
class Exposure:
    """What a judge learns besides its classes: what shows none.

    Outlier exposure (Hendrycks et al. 2019) teaches it to be unsure of outliers. Real images under a veil of an
    outlier, of their own class all the same, teach it to look for the class and not for the style of a clean image.
    """

    veiled: float = 0.5
    """share of a batch that is mixed with outliers"""
    least: float = 0.3
    """least weight of the image in a mixture; uniform up to 1"""
    contrast: tuple[float, float] = (0.4, 1.2)
    brightness: float = 0.15
    """contrasts of a mixture, and how far it is lightened or darkened"""
    outliers: float = 1 / 3
    """outliers a step, as a share of the batch"""
    weight: float = 0.03
    """of the outliers' cross-entropy with equal probabilities of all classes"""


class Judge(nn.Module, ABC):
    """What judges have in common: ``trunk`` from images on [-1, 1] to features, ``head`` to logits."""

    name: str
    summary: str
    """architecture and training, one line"""
    coarse: ClassVar[float] = 0.0
    """share of its training in which images are smaller, see :func:`leakbench.models.training.train`"""
    trunk: nn.Module
    head: nn.Linear

    def __init__(self, image_shape: ImageShape, classes: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.classes = classes
        self.precision: Precision = "float32"
        """of its answers; what it says of reconstructions is exact"""

    def prepare(self, images: Tensor) -> None:
        """Takes what it can from training images uint8 [N, C, H, W] before it is trained; nothing by default."""

    @staticmethod
    @abstractmethod
    def recipe(images: int, shape: ImageShape, flips: bool) -> Recipe:
        """How it is trained on so many images of that shape."""

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes]."""
        with arithmetic(self.precision, images.device):
            logits: Tensor = self.head(self.trunk(images * 2 - 1))
        return logits.to(images.dtype)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> features [B, d] of the last layer but one."""
        return cast(Tensor, self.trunk(images * 2 - 1))


class BnConv(Judge):
    """Convolutions with batch norm and global pooling; strong augmentation.

    Small images are halved by strides. Of pictures, at about 32 pixels a side, it sees patches of 2x2 pixels in
    whitened directions first, which are not trained, and convolutions pass on what they read where they have room, so
    that fewer passes are enough (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498).
    """

    name = "bnconv"
    summary = "convolutions with batch norm; trained with shifts, blur and strong noise"

    def __init__(self, image_shape: ImageShape, classes: int) -> None:
        super().__init__(image_shape, classes)
        channels = image_shape[0]
        if are_pictures(image_shape):
            whitened = nn.Conv2d(channels, 8 * channels, 2, bias=False).requires_grad_(False)
            layers: list[nn.Module] = [_coarser(image_shape), whitened, nn.LeakyReLU(0.1)]
            channels *= 8
            for out in (64, 128, 128):
                first, second = (nn.Conv2d(c, out, 3, padding=1, bias=False) for c in (channels, out))
                for convolution in (first, second):
                    nn.init.dirac_(convolution.weight.data[: convolution.in_channels])
                layers += [first, nn.MaxPool2d(2, ceil_mode=True), *_normed(out), second, *_normed(out)]
                channels = out
            pool: nn.Module = nn.AdaptiveMaxPool2d(1)
        else:
            large, layers, pool = min(image_shape[1:]) >= 16, [], nn.AdaptiveAvgPool2d(1)
            for out, kernel, stride in ((32, 5, 2 if large else 1), (64, 3, 1), (96, 3, 2), (96, 3, 1)):
                layers.append(nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False))
                layers += _normed(out)
                channels = out
        self.trunk = nn.Sequential(*layers, pool, nn.Flatten())
        self.head = nn.Linear(channels, classes)

    def prepare(self, images: Tensor) -> None:
        """Its first directions are those in which patches vary, scaled to a variance of 1, and their opposites."""
        if are_pictures(self.image_shape):
            coarser = _coarser(self.image_shape)
            picked = images[:: -(-len(images) // PREPARED)]
            seen = torch.cat([coarser(part.float() / 127.5 - 1) for part in picked.split(100)])
            directions = whitening(seen, 2)
            first = next(module for module in self.trunk.modules() if isinstance(module, nn.Conv2d))
            first.weight.data.copy_(torch.cat([directions, -directions]))

    @staticmethod
    def recipe(images: int, shape: ImageShape, flips: bool) -> Recipe:
        side = min(shape[1:])
        pictures = are_pictures(shape)
        blur = side / (50 if pictures else 28)
        changes = Augmentation(crop=max(1, side // 14), flip=flips, noise=0.1 if pictures else 0.4, blur=blur)
        return Recipe(*_length(images, shape), lr=0.1, schedule="one-cycle", augmentation=changes)


class Residual(Judge):
    """Convolutions with batch norm, halved by max pooling, and two residual blocks: of pictures.

    The layout is ResNet-9's, which learns CIFAR-10 in few passes (Page, "How to train your ResNet", 2018), at half its
    width.
    """

    name = "residual"
    summary = "residual network; trained with shifts, a little blur and noise"
    coarse = 0.5

    def __init__(self, image_shape: ImageShape, classes: int, width: int = 32) -> None:
        super().__init__(image_shape, classes)
        layers: list[nn.Module] = [_coarser(image_shape), *_convolution(image_shape[0], width)]
        for stage in range(3):
            # halved before what takes as long as the convolution: norm and activation
            layers += [*_convolution(width, 2 * width, nn.MaxPool2d(2, ceil_mode=True))]
            width *= 2
            if stage != 1:
                layers.append(_ResidualBlock(width))
        self.trunk = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.head = nn.Linear(width, classes)

    @staticmethod
    def recipe(images: int, shape: ImageShape, flips: bool) -> Recipe:
        side = min(shape[1:])
        changes = Augmentation(crop=max(1, side // 10), flip=flips, noise=0.1, blur=side / 50)
        return Recipe(*_length(images, shape), lr=0.1, schedule="one-cycle", augmentation=changes)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_convolution(width, width), *_convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] -> the same."""
        return x + cast(Tensor, self.layers(x))


def _convolution(channels: int, out: int, *pool: nn.Module) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, 3, padding=1, bias=False), *pool, *_normed(out, nn.GELU())]


def _normed(channels: int, activation: nn.Module | None = None) -> list[nn.Module]:
    """Batch norm, and leaky ReLU where nothing else is named."""
    return [nn.BatchNorm2d(channels), activation or nn.LeakyReLU(0.1)]


def _coarser(image_shape: ImageShape) -> nn.Module:
    """Averages images down to about 32 pixels a side, even numbers of them: what larger ones show at that size is
    enough to tell classes, and costs no more."""
    height, width = image_shape[1:]
    factor = max(1, round(math.sqrt(height * width) / 32))
    size = [max(16, 2 * round(side / factor / 2)) for side in (height, width)]
    return nn.Identity() if size == [height, width] else nn.AdaptiveAvgPool2d((size[0], size[1]))


def whitening(images: Tensor, side: int) -> Tensor:
    """[C side^2, C, side, side]: the principal directions of patches of ``images`` [N, C, H, W], each over the standard
    deviation along it, and zeros for those along which 8-bit patches are alike."""
    channels = images.shape[1]
    patches = functional.unfold(images, side, stride=side).transpose(1, 2).flatten(0, 1).double()
    values, vectors = torch.linalg.eigh(torch.cov(patches.t()))
    scaled: Tensor = vectors / (values + 5e-4).sqrt() * (values > ROUNDING)
    return scaled.t().reshape(-1, channels, side, side).float()


class Mixer(Judge):
    """MLP-Mixer (Tolstikhin et al. 2021) on patches: no convolution looks across a patch's edge; light augmentation.

    Batch norm in the place of layer norm, so that the one recipe of all networks here trains it.
    """

    name = "mixer"
    summary = "MLP-Mixer on patches; trained with small shifts"

    def __init__(self, image_shape: ImageShape, classes: int, width: int = 64, depth: int = 2) -> None:
        super().__init__(image_shape, classes)
        channels, height, across = image_shape
        patch = max(2, min(height, across) // 7)
        pad_down, pad_right = -height % patch, -across % patch
        tokens = (height + pad_down) // patch * ((across + pad_right) // patch)
        self.trunk = nn.Sequential(
            nn.ZeroPad2d((0, pad_right, 0, pad_down)),
            nn.Conv2d(channels, width, patch, stride=patch),
            nn.Flatten(2),
            *(_MixerBlock(tokens, width) for _ in range(depth)),
            nn.BatchNorm1d(width),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(width, classes)

    @staticmethod
    def recipe(images: int, shape: ImageShape, flips: bool) -> Recipe:
        changes = Augmentation(crop=max(1, min(shape[1:]) // 28), flip=flips)
        return Recipe(*_length(images, shape), lr=0.05, schedule="one-cycle", augmentation=changes)


class _MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.across = nn.Sequential(
            nn.BatchNorm1d(width), nn.Linear(tokens, width), nn.GELU(), nn.Linear(width, tokens)
        )  # fmt: skip
        self.within = nn.Sequential(
            nn.BatchNorm1d(width), nn.Conv1d(width, 2 * width, 1), nn.GELU(), nn.Conv1d(2 * width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, tokens] -> the same."""
        x = x + self.across(x)
        return cast(Tensor, x + self.within(x))


JUDGES: tuple[type[Judge], ...] = (BnConv, Mixer, Residual)


def judges_of(image_shape: ImageShape) -> tuple[type[Judge], ...]:
    """The ensemble of such images, whose features the first one gives."""
    return (BnConv, Residual) if are_pictures(image_shape) else (BnConv, Mixer)


def _length(images: int, shape: ImageShape) -> tuple[int, int]:
    """Steps and batch size."""
    if are_pictures(shape) and images >= 10_000:
        return max(LEAST_STEPS, steps_of(PICTURE_EPOCHS, images, 128)), 128
    size = 32 if images < 10_000 else 64
    least, most = (steps_of(epochs, images, size) for epochs in (LEAST_EPOCHS, MOST_EPOCHS))
    return min(max(LEAST_STEPS, least), most), size


def train_judge(
    kind: type[Judge],
    images: Tensor,
    labels: Tensor,
    classes: int,
    outliers: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    device: torch.device,
    progress: Progress = lambda _what, _done, _total: None,
    loop: Loop | None = None,
    precision: Precision = "float32",
) -> Judge:
    """A judge trained on ``images`` and ``outliers`` uint8 [N, C, H, W] and ``labels`` [N], in a ``loop`` that may be
    resumed. ``precision`` is that of the training alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31 - 1, (1,), generator=generator)))
        judge = kind(cast(ImageShape, tuple(images.shape[1:])), classes)
        judge.prepare(images)
    exposure = Exposure(veiled=VEILED_PICTURES) if are_pictures(judge.image_shape) else Exposure()
    objective = exposed_loss(outliers, exposure, generator)
    what = f"training the judge {kind.name}"
    judge.precision = precision
    train(judge, images, labels, recipe, generator, device, what, progress, loop, objective, kind.coarse)
    judge.precision = "float32"
    return judge


def exposed_loss(outliers: Tensor, exposure: Exposure, generator: torch.Generator) -> Loss:
    """The loss of a batch under ``exposure`` to ``outliers`` uint8 [N, C, H, W], half of them mixed with others."""

    def drawn(count: int, device: torch.device) -> Tensor:
        index = torch.randint(len(outliers), (count,), generator=generator)
        return (outliers[index].float() / 255).to(device)

    def uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
        return (low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)).to(device)

    def mixed(one: Tensor, other: Tensor, least: float) -> Tensor:
        """[B, C, H, W]: ``least`` or more of the one and the rest of the other, in another contrast and brightness."""
        count, device = len(one), one.device
        share = uniform(count, least, 1, device)
        x = share * one + (1 - share) * other
        level = x.mean((1, 2, 3), keepdim=True)
        lighter = uniform(count, -exposure.brightness, exposure.brightness, device)
        mixture: Tensor = level + uniform(count, *exposure.contrast, device) * (x - level) + lighter
        return mixture.clamp(0, 1)

    def loss(network: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
        veiled, count = round(exposure.veiled * len(x)), max(1, round(exposure.outliers * len(x)))
        under = mixed(x[:veiled], drawn(veiled, x.device), exposure.least)
        none = drawn(count, x.device)
        none[: count // 2] = mixed(none[: count // 2], drawn(count // 2, x.device), 0)
        logits: Tensor = network(torch.cat([under, x[veiled:], none]))
        seen, unsure = logits[: len(x)], logits[len(x) :]
        right: Tensor = functional.cross_entropy(seen, labels)
        return right - exposure.weight * unsure.log_softmax(1).mean()

    return loss


class Ensemble:
    """Several judges that answer together: their mean over random shifts and blurs of an image.

    Pixel-level noise that fools one judge, or one alignment of an image to a network's strides, does not decide.
    """

    def __init__(self, judges: Sequence[Judge], among: Tensor | None = None) -> None:
        """``among`` int64 [C']: the classes that an answer may be, at least two; None: all."""
        self.judges = tuple(judges)
        self._among = among
        self._views = _views(self.judges[0].image_shape)

    @torch.no_grad()
    def answers(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> [B, classes + 1]: the class probabilities, and last how much of any class
        there is: the energy score logsumexp(logits) (Liu et al. 2020), mean over judges and views.

        Where an answer may be some classes alone, probabilities of the others are 0, and a column more is the logarithm
        of the odds that it is one of these: logsumexp of their logits less that of the others', mean as above.
        """
        logits = torch.stack([judge(view(images)) for view in self._views for judge in self.judges])
        evidence = logits.logsumexp(2).mean(0)
        if self._among is None:
            return torch.cat([logits.softmax(2).mean(0), evidence[:, None]], 1)
        among = self._among.to(logits.device)
        inside = logits[:, :, among]
        outside = logits.index_fill(2, among, -math.inf).logsumexp(2)
        odds = (inside.logsumexp(2) - outside).mean(0)
        probabilities = torch.zeros_like(logits[0]).index_copy(1, among, inside.softmax(2).mean(0))
        return torch.cat([probabilities, evidence[:, None], odds[:, None]], 1)

    def alone(self, judge: Judge) -> Ensemble:
        """One of the judges, asked in the same way."""
        return Ensemble([judge], self._among)


class _View:
    """A shift by whole pixels (edges repeated) and a blur: the same for every image, whatever its batch."""

    def __init__(self, down: int, right: int, sigma: float, side: int) -> None:
        self.down, self.right, self.sigma = down, right, sigma
        self._size = 2 * min(max(1, round(3 * sigma)), (side - 1) // 2) + 1

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        reach = max(abs(self.down), abs(self.right))
        if reach:
            padded = functional.pad(images, [reach] * 4, mode="replicate")
            top, left = reach - self.down, reach - self.right
            images = padded[:, :, top : top + height, left : left + width]
        if self.sigma:
            from torchvision.transforms.functional import gaussian_blur  # torchvision takes as long to load as torch

            images = gaussian_blur(images, [self._size] * 2, [self.sigma] * 2)
        return images


def _views(image_shape: ImageShape) -> tuple[_View, ...]:
    """The image as it is, and VIEWS - 1 drawn once and for all: shifts by up to a 14th, blurs of up to a 28th, and of
    pictures of up to a 50th: what these show is smaller."""
    side = min(image_shape[1:])
    generator = torch.Generator().manual_seed(0)
    reach = max(1, side // 14)
    shifts = torch.randint(-reach, reach + 1, (VIEWS - 1, 2), generator=generator).tolist()
    sigmas = (torch.rand(VIEWS - 1, generator=generator) * side / (50 if are_pictures(image_shape) else 28)).tolist()
    drawn = [_View(down, right, sigma, side) for (down, right), sigma in zip(shifts, sigmas, strict=True)]
    return (_View(0, 0, 0.0, side), *drawn)


def operating_point(evidence: Tensor) -> float:
    """The evidence from which on an image counts as one of some class: ``ACCEPTED`` of the real images whose evidence
    [N] is given reach it.

    Small ones are blurred and noisy, as reconstructions are. Pictures are clean: from a third of them that noise takes
    the class, and the line that they would draw lets shuffled patches pass.
    """
    return float(evidence.double().quantile(1 - ACCEPTED))


def corrupted(images: Tensor, generator: torch.Generator) -> Tensor:
    """``images`` uint8 [N, C, H, W] blurred by a 28th of a side and with noise of .2: floats in [0, 1].

    What reconstructions look like at their best: a judge that fails on these would call a leak noise.
    """
    side = min(images.shape[2:])
    blurred = _View(0, 0, side / 28, side)(images.float() / 255)
    return (blurred + 0.2 * torch.randn(blurred.shape, generator=generator)).clamp(0, 1)
