"""Images that show no class: what evaluation models learn to be unsure of, and are tested on.

None is drawn by an attack: what attacks draw from networks that know nothing is the null of the leakage index, and a
model that has learnt its null says nothing about it (docs/method.md, Evaluation models).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def outliers(private: Tensor, photographs: Tensor, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """By kind, ``count`` images each, uint8 [count, C, H, W].

    ``private`` and ``photographs``: uint8 [N, C, H, W], from which scrambled images and crops are drawn with
    replacement.
    """
    shape = (int(private.shape[1]), int(private.shape[2]), int(private.shape[3]))

    def drawn(images: Tensor) -> Tensor:
        return images[torch.randint(len(images), (count,), generator=generator)].float() / 255

    kinds: dict[str, Callable[[], Tensor]] = {
        "noise": lambda: spectral_noise(count, shape, generator),
        "phases": lambda: phase_scrambled(drawn(private), generator),
        "patches": lambda: patch_shuffled(drawn(private), generator),
        "photographs": lambda: drawn(photographs),
    }
    return {name: (images() * 255).round().to(torch.uint8) for name, images in kinds.items()}


def spectral_noise(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Noise [count, *shape] in [0, 1] with amplitudes f^-a, a uniform in [0, 2.5]: from white to smooth blobs.

    Natural images have a near 1 (Field 1987). Mean and contrast are random, too.
    """
    height, width = shape[1:]
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    frequency = (down.square() + across.square()).sqrt().clamp(min=1 / max(height, width))
    exponent = 2.5 * torch.rand(count, 1, 1, 1, generator=generator)
    spectrum = torch.fft.rfft2(torch.randn(count, *shape, generator=generator)) * frequency**-exponent
    noise: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    noise -= noise.mean((1, 2, 3), keepdim=True)
    noise /= noise.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
    level, contrast = torch.rand(2, count, 1, 1, 1, generator=generator).unbind()
    return (level + (0.05 + 0.45 * contrast) * noise).clamp(0, 1)


def phase_scrambled(images: Tensor, generator: torch.Generator) -> Tensor:
    """``images`` [N, C, H, W] in [0, 1] with their amplitude spectra and random phases, the same in all channels."""
    size = images.shape[2:]
    phases = torch.fft.rfft2(torch.randn(len(images), 1, *size, generator=generator)).angle()
    phases[..., 0, 0] = 0  # the mean stays
    amplitudes = torch.fft.rfft2(images).abs()
    scrambled: Tensor = torch.fft.irfft2(torch.polar(amplitudes, phases.expand_as(amplitudes)), s=tuple(size))
    return scrambled.clamp(0, 1)


def patch_shuffled(images: Tensor, generator: torch.Generator) -> Tensor:
    """``images`` [N, C, H, W] cut into 2x2, 3x3 or 4x4 patches that are put together in random order."""
    height, width = images.shape[2:]
    out = torch.empty_like(images)
    for number, image in enumerate(images):
        parts = int(torch.randint(2, 5, (), generator=generator))
        patch = (math.ceil(height / parts), math.ceil(width / parts))
        rest = (0, patch[1] * parts - width, 0, patch[0] * parts - height)
        padded = functional.pad(image[None], rest, mode="replicate")
        pieces = functional.unfold(padded, patch, stride=patch)
        pieces = pieces[:, :, torch.randperm(parts**2, generator=generator)]
        whole = functional.fold(pieces, (patch[0] * parts, patch[1] * parts), patch, stride=patch)
        out[number] = whole[0, :, :height, :width]
    return out
