"""States of random generators, as somebody else may have written them."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

_TWISTER = struct.Struct("<8xi4xQ")
"""of a state on the CPU (Mersenne Twister), after its seed: how many words are left, and the next one"""
_WORDS = 624


def set_state(generator: torch.Generator, state: Tensor) -> None:
    """Go on from a state. RuntimeError, as of torch, where it is none.

    torch checks each of the two numbers alone, and together they could have it draw from the memory behind the words.
    """
    if generator.device.type == "cpu" and len(state) == len(generator.get_state()):
        left, following = _TWISTER.unpack_from(state.numpy().tobytes())
        if left + following > _WORDS + 1:
            raise RuntimeError("a generator's state with more words left than there are")
    generator.set_state(state)
