"""States of random generators: those that torch wrote are taken, and none that reads behind its words."""

from __future__ import annotations

import struct

import pytest
import torch

from leakbench.contracts.generators import set_state


def test_a_generator_goes_on_from_any_state_of_its_own() -> None:
    written, read = torch.Generator().manual_seed(3), torch.Generator()
    for _ in range(1300):  # words are made anew every 624 draws
        set_state(read, written.get_state())
        assert torch.equal(torch.rand(2, generator=read), torch.rand(2, generator=written))
    torch.randn(17, generator=written)  # keeps a number for the next draw
    set_state(read, written.get_state())
    assert torch.equal(read.get_state(), written.get_state())


@pytest.mark.parametrize(("left", "following"), [(624, 624), (2, 624), (624, 2)])
def test_no_state_has_more_words_left_than_there_are(left: int, following: int) -> None:
    state = bytearray(torch.Generator().get_state().numpy().tobytes())
    struct.pack_into("<i", state, 8, left)
    struct.pack_into("<Q", state, 16, following)
    generator = torch.Generator()
    before = generator.get_state()
    with pytest.raises(RuntimeError, match="more words left"):
        set_state(generator, torch.frombuffer(state, dtype=torch.uint8))
    assert torch.equal(generator.get_state(), before)


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(RuntimeError):
        set_state(torch.Generator(), torch.zeros(16, dtype=torch.uint8))
