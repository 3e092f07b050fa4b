"""A generative prior: a small GAN on public images, in whose latent space attacks search instead of among pixels.

What it can draw looks like the public images, so an attack can't win with noise that fools the victim alone. It is
made of public images only, so one generator serves all attacks on all victims of a data set.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from leakbench.attacks.search import LOSSES, Loss
from leakbench.contracts import AttackContext, Params
from leakbench.errors import NotApplicable, NumericalError

VERSION = 1

Shape = tuple[int, int, int]
"""(C, H, W)"""


class PriorParams(Params):
    """How the generator is made. Attacks with the same values share one."""

    latent: int = Field(64, ge=2, le=4096, description="numbers in a latent code z")
    width: int = Field(
        16, ge=1, le=1024, description="channels at full size, in both networks; twice as many at each half"
    )
    gan_steps: int = Field(2000, ge=1, description="steps of the generator, each after one of the discriminator")
    gan_batch: int = Field(32, ge=2, le=4096, description="images of each kind in a step")
    gan_lr: float = Field(4e-4, gt=0, description="Adam's learning rate, of both networks")


class LatentParams(PriorParams):
    """How the generator is searched."""

    pool: int = Field(
        2000, ge=1, le=100_000, description="random codes that are looked at first; searches start from the best"
    )
    truncation: float = Field(
        2.0, gt=0, description="every number of a code stays in [-truncation, truncation], where training was (BREP-MI)"
    )


# one generator for all attacks of a preset
PRESETS: Mapping[str, Mapping[str, Any]] = {"quick": {"gan_steps": 700, "pool": 1000}}


class GeneratorPrior:
    """The trained generator: codes [B, latent] -> images [B, C, H, W] in [0, 1], differentiable in the codes."""

    def __init__(self, params: LatentParams, context: AttackContext) -> None:
        """Takes the generator of these public images from what attacks share, or trains it."""
        chosen = {name: getattr(params, name) for name in PriorParams.model_fields}
        tensors = context.shared("generator", VERSION, chosen, lambda shared: _trained(params, shared))
        generator, _ = _networks(params, context, seed=0)
        generator.load_state_dict(tensors)
        self._generator = generator.eval().requires_grad_(False)
        self._latent, self._limit = params.latent, params.truncation

    def __call__(self, z: Tensor) -> Tensor:
        return cast(Tensor, self._generator(z))

    @torch.no_grad()
    def images(self, z: Tensor) -> Tensor:
        """The same without gradients, in batches."""
        return self.in_batches(lambda x: x, z)

    def in_batches(self, ask: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """What ``ask`` answers to the images of ``z`` [B, latent], of which only some are in memory at once."""
        return torch.cat([ask(self(part)) for part in z.split(500)])

    def codes(self, count: int, context: AttackContext) -> Tensor:
        """``count`` codes as in training, truncated."""
        z = torch.randn(count, self._latent, generator=context.generator)
        return self.truncated(z.to(context.device))

    def truncated(self, z: Tensor) -> Tensor:
        return z.clamp(-self._limit, self._limit)


def ranked_starts(logits: Tensor, loss: Loss, targets: Tensor, each: int) -> Tensor:
    """Which codes of a pool the searches start from: index [N, each] for ``targets`` [N], best first.

    ``logits`` [pool, classes] are the answers to the pool's images. The targets of a class take turns, so that no two
    of them get the same code unless the pool is smaller than what they ask for.
    """
    index = torch.empty(len(targets), each, dtype=torch.long, device=targets.device)
    for wanted in targets.unique():
        where = (targets == wanted).nonzero().squeeze(1)
        order = LOSSES[loss](logits, wanted.expand(len(logits))).argsort()
        ranks = torch.arange(len(where) * each, device=targets.device) % len(order)
        index[where] = order[ranks].view(each, len(where)).T
    return index


def _trained(params: PriorParams, context: AttackContext) -> dict[str, Tensor]:
    """The generator's tensors after training with the hinge loss (Miyato et al. 2018; as PLG-MI, AAAI 2023).

    They are running means over the steps, which look better than the last step's (Yazici et al., ICLR 2019).
    """
    public = _public(context)
    generator, discriminator = _networks(params, context, context.seed())
    averaged = copy.deepcopy(generator)
    # no momentum: the other network's answer to the last step is already another
    first, second = (
        torch.optim.Adam(network.parameters(), lr=params.gan_lr, betas=(0.0, 0.9))
        for network in (generator, discriminator)
    )
    what = "training a generator on public images"
    for step in context.loop(what).steps(
        params.gan_steps,
        generator=generator,
        discriminator=discriminator,
        averaged=averaged,
        first=first,
        second=second,
    ):
        context.progress(what, step, params.gan_steps)
        index = torch.randint(len(public), (params.gan_batch,), generator=context.generator)
        real = public[index].to(context.device).float() / 255
        z = torch.randn(params.gan_batch, params.latent, generator=context.generator).to(context.device)
        fake = generator(z)
        on_real, on_fake = discriminator(torch.cat([real, fake.detach()])).chunk(2)
        loss = functional.relu(1 - on_real).mean() + functional.relu(1 + on_fake).mean()
        second.zero_grad()
        loss.backward()
        second.step()
        if not math.isfinite(loss.item()):
            raise NumericalError(f"{what}: the loss is {loss.item()} at step {step + 1}")
        discriminator.requires_grad_(False)
        first.zero_grad()
        (-discriminator(fake).mean()).backward()
        first.step()
        discriminator.requires_grad_(True)
        _follow(averaged, generator, min(0.99, (1 + step) / (10 + step)))
    return {name: tensor.cpu().contiguous() for name, tensor in averaged.state_dict().items()}


@torch.no_grad()
def _follow(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves the running means, of batch norm's statistics too."""
    for mean, now in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - decay)


def _public(context: AttackContext) -> Tensor:
    if context.public is None:
        raise NotApplicable("a generative prior is made of public images: name some with --public")
    return context.public.images


def _networks(params: PriorParams, context: AttackContext, seed: int) -> tuple[Generator, Discriminator]:
    """Both networks, their weights drawn from ``seed``."""
    channels, height, width = _public(context).shape[1:]
    # torch's initialisers take no generator
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = (
            Generator((channels, height, width), params.latent, params.width),
            Discriminator((channels, height, width), params.width),
        )
    for network in networks:
        network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return networks


class Generator(nn.Sequential):
    """z [B, latent] -> images [B, C, H, W] in [0, 1], after DCGAN (Radford et al., ICLR 2016).

    Nearest upsampling and convolutions in place of transposed ones, which leave chequerboards (Odena et al. 2016).
    """

    def __init__(self, shape: Shape, latent: int, width: int) -> None:
        channels, *size = shape
        smallest, *larger = _sizes(size[0], size[1])
        widths = [width * 2**k for k in range(len(larger), -1, -1)]
        layers: list[nn.Module] = [
            nn.Linear(latent, widths[0] * smallest[0] * smallest[1], bias=False),
            nn.Unflatten(1, (widths[0], *smallest)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for (before, after), to in zip(itertools.pairwise(widths), larger, strict=True):
            layers += [
                nn.Upsample(to),
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        super().__init__(*layers, nn.Conv2d(width, channels, 3, padding=1), nn.Sigmoid())


class Discriminator(nn.Sequential):
    """Images [B, C, H, W] -> how public they look [B, 1], spectrally normalised (Miyato et al., ICLR 2018)."""

    def __init__(self, shape: Shape, width: int) -> None:
        channels, *size = shape
        sizes = _sizes(size[0], size[1])
        widths = [width * 2**k for k in range(len(sizes))]
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(channels, width, 3, padding=1)), nn.LeakyReLU(0.1)]
        for before, after in itertools.pairwise(widths):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)]
        # a strided convolution rounds down where the sizes of maps are rounded up
        area = math.prod(side // 2 ** (len(sizes) - 1) for side in size)
        super().__init__(*layers, nn.Flatten(), spectral_norm(nn.Linear(widths[-1] * area, 1)))


def _sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes of maps from the smallest to the whole: halves, as long as four pixels are left."""
    sizes = [(height, width)]
    while min(sizes[-1]) >= 8:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes[::-1]
