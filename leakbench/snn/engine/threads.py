"""Compiled kernels on the threads that torch may use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "leakbench")


def as_array(value: Any) -> Any:
    """A tensor as the kernels take it; anything else as it is."""
    return value.detach().numpy() if isinstance(value, Tensor) else value


def share(batch: int, work: Callable[..., None], arguments: list[Any] | None = None) -> None:
    """Calls ``work(first, last, *arguments)`` on ranges of the batch, one a thread that torch may use."""
    arrays = [as_array(argument) for argument in arguments or ()]
    threads = min(torch.get_num_threads(), batch)
    if threads == 1:
        work(0, batch, *arrays)
        return
    cuts = [batch * part // threads for part in range(threads + 1)]
    for _ in _pool(threads).map(lambda i: work(cuts[i], cuts[i + 1], *arrays), range(threads)):
        pass
