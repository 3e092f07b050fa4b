"""Universal perturbations from reconstructions: the harm that the paper names (docs/method.md, Metrics).

Class impressions can take the place of real images when one perturbation is sought that fools a network on most
images (Mopuri et al., "Ask, Acquire and Attack", ECCV 2018; Moosavi-Dezfooli et al. 2017). Read the fooling rate
between its brackets: that of a perturbation from real images, and those of random signs and of a perturbation from
noise images, which no leak is needed for. With the weights at hand noise often does as well as real images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from leakbench.contracts import Params
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import Estimate, proportion
from leakbench.metrics.metric import Metric

STEPS = 40
_TOGETHER = 250
"""images that are in memory at once with what their gradients need"""


def default_epsilon(channels: int) -> float:
    """Largest change of a pixel in [0, 1]: Mopuri's 10/255 for colour, a larger .2 for grey images of few pixels."""
    return 10 / 255 if channels == 3 else 0.2


def universal_perturbation(
    network: Callable[[Tensor], Tensor], images: Tensor, epsilon: float, steps: int = STEPS
) -> Tensor:
    """One perturbation [C, H, W], within +-epsilon, that moves ``network`` away from what it says of the images.

    ``network`` is differentiable and maps images [N, C, H, W] in [0, 1] to logits. Projected sign ascent on the
    summed cross-entropy to the predictions on the unperturbed images, from zero, with steps of epsilon / 8.
    Deterministic. NumericalError where a gradient is NaN or infinite.
    """
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise UsageError(f"images must be floats [N, C, H, W], at least one, got {images.dtype} {tuple(images.shape)}")
    if not epsilon > 0 or steps < 1:
        raise UsageError(f"epsilon must be above 0 and steps at least 1, got {epsilon} and {steps}")
    with torch.no_grad():
        labels = [network(part).argmax(1) for part in images.split(_TOGETHER)]

    def uphill(moved: Tensor, wanted: Tensor) -> Tensor:
        moved.requires_grad_(True)
        loss = functional.cross_entropy(network(moved.clamp(0, 1)), wanted, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        return gradient

    delta = torch.zeros_like(images[0])
    for _ in range(steps):
        parts = zip(images.split(_TOGETHER), labels, strict=True)
        # of each image first, so that their sum is taken in one order, whatever the parts
        gradient = torch.cat([uphill(part + delta, wanted) for part, wanted in parts]).sum(0)
        if not torch.isfinite(gradient).all():
            raise NumericalError("universal perturbation: the gradient holds NaN or infinity")
        delta = (delta + epsilon / 8 * gradient.sign()).clamp(-epsilon, epsilon)
    return delta


def random_signs(image_shape: tuple[int, int, int], epsilon: float, generator: torch.Generator) -> Tensor:
    """The lower bracket: +-epsilon in every pixel [C, H, W], by the toss of a coin."""
    return epsilon * (2.0 * torch.randint(0, 2, image_shape, generator=generator) - 1)


def fooling_rate(before: Tensor, after: Tensor) -> Estimate:
    """Share of images whose predicted class, integers [M], the perturbation changed, with its Wilson interval."""
    if before.shape != after.shape or before.ndim != 1 or before.is_floating_point() or after.is_floating_point():
        raise UsageError(f"predictions must be integers [M], got {tuple(before.shape)} and {tuple(after.shape)}")
    return proportion(int((before != after).sum()), len(before))


class UapFooling(Metric[Params]):
    """Share of real test images whose predicted class changes under one universal perturbation that was built from the
    attack's images.
    """

    name = "uap_fooling"
    title = "Fooling rate of a perturbation from these images"
    version = 2
    unit, leaks, scale, leakage = "share", "more", "brackets", "inversion"


class UapFoolingReal(Metric[Params]):
    """Upper bracket of the fooling rate: a perturbation of the same size built from real images."""

    name = "uap_fooling_real"
    title = "Fooling rate of a perturbation from real images"
    version = 2
    unit, leakage = "share", "inversion"


class UapFoolingNoise(Metric[Params]):
    """Lower bracket of the fooling rate: a perturbation built from noise images, which needs no leak."""

    name = "uap_fooling_noise"
    title = "Fooling rate of a perturbation from noise images"
    version = 2
    unit, leakage = "share", "inversion"


class UapFoolingRandom(Metric[Params]):
    """Lower bracket of the fooling rate: random signs of the same size."""

    name = "uap_fooling_random"
    title = "Fooling rate of random signs"
    version = 2
    unit, leakage = "share", "inversion"
