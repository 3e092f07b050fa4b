"""Training a classifier on images (docs/method.md, Networks and encoders)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import Loop, Part, Rows, ShuffledPasses, global_generators
from leakbench.errors import NumericalError
from leakbench.models.fast_convolutions import fast_convolutions

Progress = Callable[[str, int, int], None]
Loss = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]
"""(network, images [B, C, H, W] in [0, 1], labels [B]) -> what is to be lowered"""


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed, each time they are seen."""

    crop: int = 4
    """random crop after zero padding by so many pixels, i.e. shifts by up to +-crop"""
    flip: bool = True
    noise: float = 0.0
    """standard deviation, up to which Gaussian noise is added to an image (for judges)"""
    blur: float = 0.0
    """standard deviation in pixels, up to which a batch is blurred (for judges)"""


SHRUNK = 0.75
"""of the sides of images in the first steps of a training that has coarse ones"""
UNCHANGED = Augmentation(crop=0, flip=False)


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum; the defaults are the paper's, whose training takes 90 passes over the images."""

    steps: int
    """of the optimiser, a batch each: few images are seen as often as it takes"""
    batch_size: int = 256
    lr: float = 1e-2
    """the highest of the schedule"""
    schedule: Literal["tenths", "one-cycle"] = "tenths"
    """tenths: a tenth at 40, 60 and 80 % of the steps (the paper); one-cycle: Smith & Topin 2018, for few passes"""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    smoothing: float = 0.0
    """share of a label that all classes have alike (Szegedy et al. 2016)"""
    longest: float | None = None
    """norm that gradients are cut to where they are longer; None: never"""
    augmentation: Augmentation = Augmentation()


def steps_of(epochs: int, images: int, batch_size: int) -> int:
    """The optimiser's steps in so many passes over the images."""
    return epochs * math.ceil(images / batch_size)


def cross_entropy(
    network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, smoothing: float = 0.0
) -> Tensor:
    """What a classifier is trained on by default."""
    return functional.cross_entropy(network(images), labels, label_smoothing=smoothing)


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    device: torch.device,
    what: str,
    progress: Progress = lambda _what, _done, _total: None,
    loop: Loop | None = None,
    objective: Loss | None = None,
    coarse: float = 0.0,
) -> None:
    """Train ``network`` in place on ``images`` uint8 [N, C, H, W] and ``labels`` [N]; leaves it in eval mode.

    ``network`` takes images in [0, 1]. With a ``loop`` it goes on where an interrupted run stopped. ``objective`` is
    the loss of a batch, in the place of cross-entropy with smoothed labels; what it draws, it draws from ``generator``.
    In the first steps, a share of ``coarse``, the network sees images of three quarters of their sides: half the work,
    and the coarse is learnt first (progressive resizing; fastai's entry to DAWNBench, 2018).
    Raises NumericalError when the loss is no number any more.
    """
    loss_of = objective or partial(cross_entropy, smoothing=recipe.smoothing)
    network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=False,
    )
    batches, total = ShuffledPasses(len(images), recipe.batch_size, generator), recipe.steps
    schedule: torch.optim.lr_scheduler.LRScheduler
    if recipe.schedule == "tenths":
        milestones = [max(1, round(total * part)) for part in (0.4, 0.6, 0.8)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    else:
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total, cycle_momentum=False)
    parts: dict[str, Part] = {"network": network, "optimizer": optimizer, "schedule": schedule, "batches": batches}
    parts |= {"draws": generator, **global_generators(device)}

    def shrunk(x: Tensor) -> Tensor:
        sides = [max(1, round(SHRUNK * side)) for side in x.shape[2:]]
        answers: Tensor = network(functional.interpolate(x, sides, mode="bilinear", antialias=True))
        return answers

    with torch.random.fork_rng(devices=[]), fast_convolutions(network):
        # dropout draws from the global generator: seeded here, given back afterwards
        torch.manual_seed(int(torch.randint(2**31 - 1, (1,), generator=generator)))
        for step in (loop or Loop()).steps(total, **parts):
            index = batches.batch(step)
            x = augment(images[index].float() / 255, recipe.augmentation, generator).to(device)
            loss = loss_of(network if step >= coarse * total else shrunk, x, labels[index].to(device))
            if not math.isfinite(loss.item()):
                raise NumericalError(f"{what}: the loss is {loss.item()} at step {step}: lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.longest is not None:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.longest)
            optimizer.step()
            schedule.step()
            progress(what, step + 1, total)
    network.eval()


def augment(images: Tensor, changes: Augmentation, generator: torch.Generator) -> Tensor:
    """Random crop, flip and noise, drawn for each image [B, C, H, W] on its own; one blur a batch."""
    batch, _, height, width = images.shape
    if changes.crop:
        shift = torch.randint(0, 2 * changes.crop + 1, (2, batch), generator=generator)
        padded = functional.pad(images, [changes.crop] * 4)
        rows = (shift[0][:, None] + torch.arange(height))[:, None, :, None]
        columns = (shift[1][:, None] + torch.arange(width))[:, None, None, :]
        picked = torch.arange(batch)[:, None, None, None]
        channels = torch.arange(images.shape[1])[None, :, None, None]
        images = padded[picked, channels, rows, columns]
    if changes.flip:
        flipped = torch.rand(batch, generator=generator) < 0.5
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    if changes.blur:
        from torchvision.transforms.functional import gaussian_blur  # torchvision takes as long to load as torch

        spread = changes.blur * float(torch.rand((), generator=generator)) + 1e-3
        size = 2 * min(max(1, round(3 * spread)), (min(height, width) - 1) // 2) + 1
        images = gaussian_blur(images, [size, size], [spread, spread])
    if changes.noise:
        sigma = torch.rand(batch, 1, 1, 1, generator=generator) * changes.noise
        images = (images + sigma * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    return images


@torch.no_grad()
def predict(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    device: torch.device,
    batch_size: int = 500,
    loop: Loop | None = None,
) -> Tensor:
    """Outputs [N, ...] on the CPU for ``images`` uint8 or float [N, C, H, W], in batches.

    With a ``loop`` it goes on where an interrupted run stopped.
    """
    batches, outputs = images.split(batch_size), Rows()
    for step in (loop or Loop()).steps(len(batches), outputs=outputs):
        x = batches[step]
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        outputs.add(network(x.to(device)))
    return outputs.tensor
