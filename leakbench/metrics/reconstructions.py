"""Metrics of reconstructions, the pictures that an attack draws: what they are given and what they hand back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, TypeVar, cast, final

import torch
from torch import Tensor

from leakbench.contracts import Context
from leakbench.contracts.plugin import P
from leakbench.errors import NumericalError, PluginError, UsageError
from leakbench.metrics.estimate import Estimate, mean, proportion
from leakbench.metrics.intervals import clustered_mean
from leakbench.metrics.metric import IndexScale, Measurement, Metric

T = TypeVar("T")

RELEASED = "released inception"
"""pytorch-fid's network with the weights that published FIDs are of"""
INCEPTION = "inception"
"""the same network with other weights"""
SQUEEZENET = "squeezenet"
"""torchvision's network with the weights that it releases; others have a suffix"""


@dataclass(frozen=True)
class Features:
    """A network's inner activations of some images, computed when they are asked for."""

    network: str
    """lower case: part of a metric's name"""
    compute: Callable[[], Tensor]

    @cached_property
    def tensor(self) -> Tensor:
        """[N, d]"""
        return self.compute()

    def of(self, which: Tensor) -> Features:
        """Those of the images ``which`` [N]."""
        return Features(self.network, lambda: self.tensor[which])

    def copied(self) -> Features:
        """The same, in tensors of their own."""
        return Features(self.network, lambda: self.tensor.clone())


class Memo:
    """What was computed before, by name: each name always stands for the same."""

    def __init__(self) -> None:
        self._values: dict[str, object] = {}

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """What ``compute`` returned the first time that it was asked for under this name."""
        if name not in self._values:
            self._values[name] = compute()
        return cast(T, self._values[name])


@dataclass(frozen=True)
class RealImages:
    """The private images of the attacked classes, which reconstructions are compared with.

    No anchor's image is among the test images.
    """

    images: Tensor
    """uint8 [M, C, H, W], of the test set"""
    labels: Tensor
    """int64 [M]"""
    features: Features
    distance_features: Features
    training_images: Tensor
    """uint8 [K, C, H, W], what the network was trained on"""
    training_labels: Tensor
    """int64 [K]"""
    training_features: Features
    """of the same network as ``features``"""
    _memo: Memo = field(default_factory=Memo, repr=False)
    squeezenet_features: Features | None = None
    """of a network that was trained on ImageNet alone; None where its weights are not at hand, and in what metrics of
    third parties are handed"""

    def of(self, classes: Tensor) -> RealImages:
        """Those of the ``classes`` [C'] alone; these themselves where there are no others."""
        kept, trained = torch.isin(self.labels, classes), torch.isin(self.training_labels, classes)
        if kept.all() and trained.all():
            return self
        imagenet = self.squeezenet_features
        return RealImages(
            self.images[kept],
            self.labels[kept],
            self.features.of(kept),
            self.distance_features.of(kept),
            self.training_images[trained],
            self.training_labels[trained],
            self.training_features.of(trained),
            squeezenet_features=None if imagenet is None else imagenet.of(kept),
        )

    def copied(self, memo: Memo) -> RealImages:
        """The same, in tensors of their own; what is computed :meth:`once` is in ``memo``."""
        return RealImages(
            self.images.clone(),
            self.labels.clone(),
            self.features.copied(),
            self.distance_features.copied(),
            self.training_images.clone(),
            self.training_labels.clone(),
            self.training_features.copied(),
            memo,
        )

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """What a metric needs of these images alone, computed the first time that it is asked for."""
        return self._memo.once(name, compute)


@dataclass(frozen=True)
class Reconstructions:
    """The images of an attack (or an anchor), as metrics see them."""

    images: Tensor
    """uint8 [N, C, H, W]"""
    targets: Tensor
    """int64 [N]: the class that each was made for"""
    predictions: Tensor
    """[N, classes]: the evaluation models' mean probabilities among the attacked classes, 0 for others"""
    accepted: Tensor
    """bool [N]: whether they see any class in it; else their answer is "none of these" """
    features: Features
    """of the first evaluation model"""
    distance_features: Features
    """in which distances of distributions are taken: Inception's where its weights are at hand, else the same"""
    real: RealImages
    context: Context
    """a generator of this set of images' own, and where progress is told"""
    squeezenet_features: Features | None = None
    """as :attr:`RealImages.squeezenet_features`"""

    def copied(self, memo: Memo) -> Reconstructions:
        """The same, in tensors of their own, for a metric that may write to them; see :meth:`RealImages.copied`."""
        return Reconstructions(
            self.images.clone(),
            self.targets.clone(),
            self.predictions.clone(),
            self.accepted.clone(),
            self.features.copied(),
            self.distance_features.copied(),
            self.real.copied(memo),
            self.context,
        )


class ReconstructionMetric(Metric[P]):
    """Measures a set of reconstructions. A metric of one score an image is an :class:`ImageMetric`."""

    leakage = "inversion"
    scale: ClassVar[IndexScale] = "anchors"
    of_predictions: ClassVar[bool] = False
    """whether it reads the evaluation models' predictions alone: then it is measured of quick checks, too"""

    def applies(self, drawn: Reconstructions) -> bool:  # noqa: ARG002 - for metrics that ask
        """Whether it is measured here at all."""
        return True

    @abstractmethod
    def measure(self, drawn: Reconstructions) -> Measurement:
        """The value of all images. What can't be measured raises an error of leakbench.errors, with the reason."""


class ImageMetric(ReconstructionMetric[P]):
    """A metric of one score an image; the value is the mean over classes of the mean of a class's images."""

    per = "class"

    @abstractmethod
    def scores(self, drawn: Reconstructions) -> Tensor:
        """All that an author writes: one score for each image [N], floats, or bool for hits."""

    @final
    def measure(self, drawn: Reconstructions) -> Measurement:
        """Hits become shares of images with Wilson's interval, other scores a mean over classes with Student's t."""
        scores = self.scores(drawn)
        if not isinstance(scores, Tensor) or scores.shape != drawn.targets.shape:
            shown = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
            needed = tuple(drawn.targets.shape)
            raise PluginError(f"{self.name}.scores must return a tensor of shape {needed}, got {shown}")
        scores = scores.detach().cpu()
        by_class = {c: scores[drawn.targets == c] for c in drawn.targets.unique().tolist()}
        if scores.dtype == torch.bool:
            shares = {c: proportion(int(one.sum()), len(one)) for c, one in by_class.items()}
            return Measurement(proportion(int(scores.sum()), len(scores)), shares)
        wrong = (~scores.isfinite()).nonzero().flatten().tolist()
        if wrong:
            first = f"the first is image {wrong[0]}'s"
            raise NumericalError(f"{len(wrong)} of {len(scores)} scores are NaN or infinity; {first}")
        beyond = ((scores < 0) | (scores > 1)).nonzero().flatten().tolist()
        if self.unit == "share" and beyond:
            score = float(scores[beyond[0]])
            raise UsageError(f"its unit is share, which is from 0 to 1, and image {beyond[0]}'s score is {score:g}")
        classes = {c: self._bounded(mean(one.tolist())) for c, one in by_class.items()}
        return Measurement(self._bounded(clustered_mean([[one.value for one in classes.values()]])), classes)

    def _bounded(self, estimate: Estimate) -> Estimate:
        """Student's interval may reach beyond what a share can be."""
        if self.unit != "share":
            return estimate
        return replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 1.0))  # NaN stays


def some_of_each(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of ``count`` images of each class in random order (all, where a class has fewer), class after class."""
    order = torch.randperm(len(labels), generator=generator)
    return torch.cat([order[labels[order] == c][:count] for c in labels.unique().tolist()])
