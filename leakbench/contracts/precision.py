"""What numbers a network's convolutions and products are computed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Convolutions and matrix products in ``precision``; neurons, sums over steps and losses stay in float32.

    float32 is exact and the reference. bfloat16 rounds what dense convolutions multiply to 8 bits (sums are float32):
    gradients, and weights and thresholds where a layer's spikes are not listed, so that some spikes change. tf32
    rounds to 10 bits, on CUDA alone, and answers alone: gradients and all else are float32. PyTorch lets convolutions
    on CUDA round to tf32 unasked: here they do so where it was asked for.
    """
    if precision == "bfloat16":
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield
    elif device.type == "cuda":
        allowed = precision == "tf32"
        matmul = torch.backends.cuda.matmul
        before = matmul.allow_tf32
        matmul.allow_tf32 = allowed
        try:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=allowed):
                yield
        finally:
            matmul.allow_tf32 = before
    else:
        yield
