"""Synthetic images from an ANN's own weights: what data-free defences use in place of private data.

Data impressions: PrivateSNN, Algorithm 2, step 1, after Nayak et al. 2019. Images by batch-norm statistics: Haroush et
al. 2020. docs/method.md, Data-free conversion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import Context, ImageClassifier, Params, Part
from leakbench.errors import NotApplicable, UsageError
from leakbench.models.fast_convolutions import fast_convolutions
from leakbench.models.training import Augmentation

VERSION = 2
"""of the sets of data impressions; 2: as many images as asked for, where classes don't divide them"""
STATISTICS_VERSION = 3
"""of the set by batch-norm statistics; 2: the divergence goes from the batch to the running statistics; 3: as above"""


class SynthesisParams(Params):
    """How the synthetic set is made. Defences with the same values share one set."""

    samples: int = Field(2000, ge=1, description="synthetic images in all, spread evenly over the classes")
    beta: float = Field(10.0, gt=0, description="sharpness of the Dirichlet labels: alpha = beta * similarity + 1e-4")
    synthesis_steps: int = Field(250, ge=1, description="optimiser steps an image (the authors: 2499)")
    synthesis_lr: float = Field(5e-2, gt=0, description="Adam's learning rate on pixels (the authors: 1e-3)")
    synthesis_range: Literal["images", "authors"] = Field(
        "images",
        description="images: steps in [0, 1], clamped at each; authors: steps in the network's input range along the "
        "sum of all gradients so far, clamped once at the end",
    )
    synthesis_temperature: float = Field(
        1.0,
        gt=0,
        description="temperature of the soft cross-entropy (the authors: 20, with their small steps)",
    )


# one set for all data-free defences of a preset
PRESETS = {
    "quick": {"samples": 500},
    "standard": {"samples": 2000},
    "paper-cpu": {"samples": 1000},
    "paper": {"samples": 5000},
}


class StatisticsParams(Params):
    """How images are made that a network's batch norms take for its training images (BNS + Inception)."""

    samples: int = Field(2000, ge=1, description="synthetic images in all, spread evenly over the classes")
    synthesis_steps: int = Field(250, ge=1, description="optimiser steps an image")
    synthesis_lr: float = Field(5e-2, gt=0, description="Adam's learning rate on pixels")
    synthesis_batch: int = Field(250, ge=2, description="images whose statistics are taken together, of all classes")
    statistics: float = Field(10.0, ge=0, description="weight of the batch norms' divergence against cross-entropy")
    total_variation: float = Field(0.1, ge=0, description="weight of the squared differences of neighbouring pixels")
    l2: float = Field(0.0, ge=0, description="weight of the mean square of the pixels")
    jitter: int = Field(1, ge=0, description="pixels by which images are rolled at random at each step")


def class_similarity(ann: ImageClassifier) -> Tensor:
    """Cosine of the last layer's weight rows, each row min-max scaled to [0, 1]; [classes, classes].

    Eq. 2 of the paper prints squared norms, its code divides by the norms: the cosine.
    """
    last = [module for module in ann.body.modules() if isinstance(module, nn.Linear)]
    if not last or last[-1].out_features != ann.classes:
        raise NotApplicable("data-free synthesis reads class similarities off a last linear layer: there is none")
    rows = functional.normalize(last[-1].weight.detach().double().cpu(), dim=1)
    similarity = rows @ rows.T
    similarity = similarity - similarity.amin(1, keepdim=True)
    return similarity / similarity.amax(1, keepdim=True).clamp(min=1e-12)


def synthetic_set(ann: ImageClassifier, params: SynthesisParams, context: Context) -> dict[str, Tensor]:
    """The synthetic set of a network: built once, then shared through ``context``.

    ``images`` uint8 [N, C, H, W], ``soft_labels`` [N, classes] (the drawn y), ``intended`` [N] (the class c whose
    concentration alpha_c it was drawn with).
    """
    _check_samples(params.samples, ann.classes)
    chosen = {name: getattr(params, name) for name in SynthesisParams.model_fields}
    return context.shared("synthetic", VERSION, chosen, lambda shared: _impressions(ann, params, [params.beta], shared))


def two_betas_set(ann: ImageClassifier, params: SynthesisParams, context: Context) -> dict[str, Tensor]:
    """As :func:`synthetic_set`, but half of the labels are drawn with ``beta`` and half with a tenth of it.

    Nayak et al. 2019 take 1 and 0.1: answers that are shared between classes, and answers that are nearly sure.
    """
    _check_samples(params.samples // 2, ann.classes)
    chosen = {name: getattr(params, name) for name in SynthesisParams.model_fields}
    betas = [params.beta, params.beta / 10]
    return context.shared("two-betas", VERSION, chosen, lambda shared: _impressions(ann, params, betas, shared))


def statistics_set(ann: ImageClassifier, params: StatisticsParams, context: Context) -> dict[str, Tensor]:
    """Images with which the batch norms see their running statistics (Haroush et al. 2020, BNS + Inception).

    The loss is the mean cross-entropy (Inception) + ``statistics`` times :class:`Divergence` of the batch (BNS) + the
    smoothness of the images; images are rolled by a few pixels at each step. Built once, then shared.

    ``images`` uint8 [N, C, H, W] and ``intended`` [N], their classes. Raises NotApplicable without batch norm.
    """
    _check_samples(params.samples, ann.classes)
    chosen = {name: getattr(params, name) for name in StatisticsParams.model_fields}
    return context.shared("statistics", STATISTICS_VERSION, chosen, lambda shared: _by_statistics(ann, params, shared))


def crop_and_flip(ann: ImageClassifier, context: Context) -> Augmentation:
    """Augmentation of training images: shifts by up to an eighth of the side (4 pixels of 32), flips where allowed.

    Flips where a mirrored image keeps its class (``context.flips``).
    """
    return Augmentation(crop=max(1, min(ann.image_shape[1:]) // 8), flip=context.flips)


def _check_samples(samples: int, classes: int) -> None:
    if samples < classes:
        raise UsageError(f"samples must be at least the number of classes, {classes}, got {samples}")


def _intended(samples: int, classes: int, parts: int = 1) -> list[Tensor]:
    """The classes of ``samples`` images in so many parts, in order within each.

    What does not divide evenly is spread: no part, and no class in all of them, has more than one image above another.
    """
    return [(part % classes).sort().values for part in torch.arange(samples).tensor_split(parts)]


def _impressions(
    ann: ImageClassifier, params: SynthesisParams, betas: Sequence[float], context: Context
) -> dict[str, Tensor]:
    similarity = class_similarity(ann)
    intended = _intended(params.samples, ann.classes, len(betas))
    alpha = torch.cat([(beta * similarity + 1e-4)[part] for beta, part in zip(betas, intended, strict=True)])
    # a Dirichlet draw is normalised gammas; torch's Dirichlet takes no generator
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed())
        soft = torch.distributions.Dirichlet(alpha).sample().float()

    def loss(x: Tensor, index: Tensor) -> Tensor:
        y = soft[index].to(context.device)
        return functional.cross_entropy(ann(x) / params.synthesis_temperature, y, reduction="sum")

    lr, bounds, theirs = params.synthesis_lr, (0.0, 1.0), params.synthesis_range == "authors"
    if theirs:
        lr, bounds = lr / ann.input_range.scale, (-math.inf, math.inf)
    parts = torch.arange(len(soft)).split(500)
    images = _optimised(ann, parts, loss, params.synthesis_steps, lr, bounds, context, summed=theirs)
    return {"images": images, "soft_labels": soft, "intended": torch.cat(intended)}


def _by_statistics(ann: ImageClassifier, params: StatisticsParams, context: Context) -> dict[str, Tensor]:
    (intended,) = _intended(params.samples, ann.classes)
    # statistics are those of all classes: so are the images whose statistics are taken together
    parts = torch.randperm(len(intended), generator=context.generator).split(params.synthesis_batch)
    divergence = Divergence(ann)

    def loss(x: Tensor, index: Tensor) -> Tensor:
        shift = torch.randint(-params.jitter, params.jitter + 1, (2,), generator=context.generator).tolist()
        logits = ann(x.roll(shift, (2, 3)))
        value = functional.cross_entropy(logits, intended[index].to(context.device))
        value = value + params.statistics * divergence() + params.total_variation * total_variation(x)
        # an image's gradient does not shrink with the number of images beside it
        return (value + params.l2 * x.square().mean()) * len(x)

    try:
        images = _optimised(ann, parts, loss, params.synthesis_steps, params.synthesis_lr, (0.0, 1.0), context)
    finally:
        divergence.close()
    return {"images": images, "intended": intended}


def _optimised(
    ann: ImageClassifier,
    parts: Sequence[Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    lr: float,
    bounds: tuple[float, float],
    context: Context,
    summed: bool = False,
) -> Tensor:
    """Images uint8 [N, C, H, W] from uniform noise, each of ``parts`` of their indices on its own.

    ``loss`` takes images of a part and their indices. Images start in [0, 1], are clamped to ``bounds`` at each step
    and to [0, 1] at the end; ``lr`` is in these units. Where ``summed``, Adam gets the sum of all gradients so far: the
    PrivateSNN code (image_gen_function.py) clears the model's gradients at each step, and never the image's.
    """
    images = torch.rand(sum(map(len, parts)), *ann.image_shape, generator=context.generator)
    synthetic = torch.empty(images.shape, dtype=torch.uint8)
    with fast_convolutions(ann):
        for number, index in enumerate(parts):
            x = images[index].to(context.device).requires_grad_()
            x.grad = torch.zeros_like(x)
            optimizer = torch.optim.Adam([x], lr=lr)
            kept: dict[str, Part] = {"x": x, "optimizer": optimizer, **({"gradient": x.grad} if summed else {})}
            for step in context.loop("synthesising images").steps(steps, **kept):
                context.progress("synthesising images", number * steps + step, len(parts) * steps)
                if not summed:
                    x.grad.zero_()
                x.grad += torch.autograd.grad(loss(x, index), x)[0]
                optimizer.step()
                with torch.no_grad():
                    x.clamp_(*bounds)
            # the authors' images leave [0, 1] on the way only: they are cut to it, rounded and kept as bytes, as here
            synthetic[index] = (x.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return synthetic


class Divergence:
    """How far what enters a network's batch norms, in its last call, is from their running statistics.

    Sum over layers of the mean over maps of KL(N(m, v) || N(mu, s^2)), where m, v are the statistics of the call and
    mu, s^2 the running ones: (v + (m - mu)^2) / (2 s^2) - log(v / s^2) / 2 - 1 / 2 (the public code of Haroush et al.
    2020, BNS, which takes the mean over layers and counts the normalised images as one more).
    """

    def __init__(self, ann: ImageClassifier) -> None:
        self._layers = [module for module in ann.modules() if isinstance(module, nn.BatchNorm2d)]
        if not self._layers:
            raise NotApplicable("the network has no batch norm whose statistics could be read")
        self._seen: dict[nn.Module, Tensor] = {}
        self._hooks = [layer.register_forward_pre_hook(self._see) for layer in self._layers]

    def __call__(self) -> Tensor:
        return torch.stack([self._of(layer) for layer in self._layers]).sum()

    def close(self) -> None:
        """Stops looking."""
        for hook in self._hooks:
            hook.remove()

    def _see(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._seen[layer] = args[0].float()

    def _of(self, layer: nn.BatchNorm2d) -> Tensor:
        assert layer.running_mean is not None and layer.running_var is not None
        variance, mean = torch.var_mean(self._seen[layer], (0, 2, 3), correction=0)
        # maps that are always the same have no variance: eps as in the layer itself
        usual, variance = layer.running_var + layer.eps, variance + layer.eps
        off = (variance + (mean - layer.running_mean).square()) / usual
        return (off - (variance / usual).log() - 1).mean() / 2


def total_variation(images: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of images [B, C, H, W], down and across."""
    down, across = images.diff(dim=2), images.diff(dim=3)
    return down.square().mean() + across.square().mean()
