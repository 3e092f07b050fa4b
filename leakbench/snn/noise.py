"""Counter-based noise: a number depends on (seed, image, time step, pixel) and on nothing else.

So spike trains are the same for every batch size, time chunk, thread count and device, and a chunk of time can be
computed again in the backward pass without keeping a generator's state.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B9


def _signed(value: int) -> int:
    """A 32-bit pattern as the int32 that torch holds."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _mix(x: Tensor) -> Tensor:
    """C. Wellons' lowbias32 integer hash, in place, on int32 (products wrap; shifts are made logical by the masks)."""
    x ^= (x >> 16) & 0xFFFF
    x *= 0x7FEB352D
    x ^= (x >> 15) & 0x1FFFF
    x *= _signed(0x846CA68B)
    x ^= (x >> 16) & 0xFFFF
    return x


def image_keys(seed: int, first_index: int, count: int, device: torch.device) -> Tensor:
    """One key an image, int32 [count, 2], for the images first_index ... first_index + count - 1 under a seed."""
    index = torch.arange(first_index, first_index + count, device=device).to(torch.int32)
    first = _mix(_mix(index * _signed(_GOLDEN) + _signed(seed)) + _signed(seed >> 32))
    second = _mix(first ^ _signed(0x5BD1E995))
    return torch.stack([first, second], 1)


def salted(keys: Tensor, salt: int) -> Tensor:
    """Keys of another family of streams, for another use of noise on the same images; int32 [B, 2]."""
    return _mix(keys ^ _signed(0x68E31DA4 + salt * _GOLDEN))


def uniform(keys: Tensor, start: int, stop: int, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [0, 1) of shape [stop - start, B, *shape] for the time steps start ... stop - 1.

    ``keys`` int32 [B, 2] from :func:`image_keys`. Two rounds of mixing keep the streams of two images apart even
    where their counters meet. A stream repeats after 2**32 numbers an image.
    """
    size = 1
    for side in shape:
        size *= side
    counter = torch.arange(start * size, stop * size, device=keys.device).to(torch.int32) * _signed(_GOLDEN)
    x = counter.view(stop - start, 1, size) + keys[:, 0].view(1, -1, 1)
    x = _mix(x)
    x ^= keys[:, 1].view(1, -1, 1)
    x = _mix(x)
    return (((x >> 8) & 0xFFFFFF).float() * 2.0**-24).view(stop - start, len(keys), *shape)
