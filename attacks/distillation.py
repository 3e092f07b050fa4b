"""Teaching a network of the attacker's own to answer as the victim does: images to ask about, the lesson, the marks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import AttackContext, ShuffledPasses
from leakbench.errors import NumericalError
from leakbench.models.training import Augmentation, augment

BATCH = 100
"""images a step"""


def smoothed_noise(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Images [count, *shape] in [0, 1]: uniform noise of every coarseness, enlarged, in every contrast."""
    images = torch.empty(count, *shape)
    for part in images.split(BATCH):
        sides = [int(torch.randint(2, max(3, side + 1), (), generator=generator)) for side in shape[1:]]
        coarse = torch.rand(len(part), shape[0], *sides, generator=generator)
        part.copy_(functional.interpolate(coarse, shape[1:], mode="bilinear", align_corners=False))
    return contrasted(images, generator)


def mixtures(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` convex combinations of two of ``images`` [N, C, H, W], shifted, in another contrast, with some noise.

    The weight of the first is between a half and one: what is made is a neighbour of one of them.
    """
    one, other = (torch.randint(len(images), (count,), generator=generator) for _ in range(2))
    weight = 1 - torch.rand(count, 1, 1, 1, generator=generator) / 2
    mixed = weight * images[one] + (1 - weight) * images[other]
    most = max(1, min(images.shape[2:]) // 8)
    for part in mixed.split(BATCH // 10):
        shift = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
        part.copy_(part.roll(shift, (2, 3)))
    sigma = 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    mixed += sigma * torch.randn(mixed.shape, generator=generator)
    return contrasted(mixed, generator)


def contrasted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image [B, C, H, W] stretched about the middle grey by 0.5 to 2, made brighter by up to .2, and clipped."""
    stretch, brighter = (torch.rand(len(images), 1, 1, 1, generator=generator) for _ in range(2))
    return ((images - 0.5) * (2 * stretch - 1).exp2() + 0.5 + 0.4 * (brighter - 0.5)).clamp(0, 1)


def centred(logits: Tensor) -> Tensor:
    """Logits [N, classes] without each image's mean, which softmax does not see."""
    return logits - logits.mean(1, keepdim=True)


def spread(logits: Tensor) -> float:
    """Standard deviation of centred logits [N, classes]: the unit in which a lesson is given."""
    return max(float(centred(logits).std()), 1e-12)


def distil(
    student: nn.Module,
    images: Tensor,
    wanted: Tensor,
    optimizer: torch.optim.Optimizer,
    steps: int,
    temperature: float,
    context: AttackContext,
    what: str,
    read: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> None:
    """Teaches ``student``, whose parameters ``optimizer`` moves, to answer with logits that ``read`` as ``wanted``.

    ``wanted`` is [N, classes], and so is what ``read`` makes of the student's logits.
    ``images`` [N, C, H, W] in [0, 1] are seen with small shifts and noise; the learning rates fall to zero along a
    cosine. Raises NumericalError where the loss is no number.
    """
    # shifts by more than a pixel in 14 change what the victim says
    views = Augmentation(crop=min(images.shape[2:]) // 14, flip=False, noise=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches = ShuffledPasses(len(images), BATCH, context.generator)
    for step in context.steps(steps, what, student=student, optimizer=optimizer, schedule=schedule, batches=batches):
        index = batches.batch(step)
        x = augment(images[index], views, context.generator).to(context.device)
        loss = distance(read(student(x)), wanted[index].to(context.device), temperature)
        if not math.isfinite(loss.item()):
            raise NumericalError(f"{what}: the student's loss is {loss.item()}: lower its learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()


def distance(given: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """tau^2 KL(softmax(wanted / tau) || softmax(given / tau)) + the mean squared error; mean over images."""
    soft = functional.kl_div(
        (given / temperature).log_softmax(1),
        (wanted / temperature).log_softmax(1),
        log_target=True,
        reduction="batchmean",
    )
    return temperature**2 * soft + functional.mse_loss(given, wanted)


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's r over images and classes of logits [N, classes] without each image's mean; 0 where one is constant."""
    pair = torch.stack([centred(x).flatten() for x in (one, other)]).double()
    return 0.0 if bool((pair.std(1) == 0).any()) else float(torch.corrcoef(pair)[0, 1])
