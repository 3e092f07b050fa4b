"""Messages come out as they went in, and whatever is none is refused."""

from __future__ import annotations

import json
import logging
import os

import pytest
import torch
from safetensors.torch import save

from leakbench.runtime.isolation import messages
from leakbench.runtime.isolation.messages import HEADER, Broken, decode, encode
from leakbench.runtime.isolation.serving import _Call


def there_and_back(tensor: torch.Tensor) -> torch.Tensor:
    content = encode({"type": "x"}, {"one": tensor})
    text, body = HEADER.unpack(content[: HEADER.size])
    start = HEADER.size
    assert len(content) == start + text + body
    return decode(content[start : start + text], content[start + text :]).tensors["one"]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(2, 3, 4, 5),
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.rand(4, 1, 8, 8).to(memory_format=torch.channels_last),
        torch.rand(5, 3).t(),
        torch.arange(3),
        torch.tensor(True),
        torch.empty(0, 2),
        torch.rand(3, dtype=torch.float64),
    ],
)
def test_values_and_layout_are_kept(tensor: torch.Tensor) -> None:
    back = there_and_back(tensor)
    assert torch.equal(back, tensor) and back.dtype == tensor.dtype and back.stride() == tensor.stride()


def test_views_of_one_memory_are_kept_apart() -> None:
    whole = torch.rand(4)
    content = encode({"type": "x"}, {"a": whole, "b": whole})
    text, _ = HEADER.unpack(content[: HEADER.size])
    message = decode(content[HEADER.size : HEADER.size + text], content[HEADER.size + text :])
    message.tensors["a"].zero_()
    assert torch.equal(message.tensors["b"], whole)


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (b"", b""),
        (b"[]", b""),
        (b'{"type": NaN}', b""),
        (b"{" * 10, b""),
        (b"[" * 100_000, b""),
        (b'{"x": ' + b"[" * 60 + b"]" * 60 + b"}", b""),
        (b'{"x": [1e999]}', b""),
        (b'{"x": {"y": "\\ud800"}}', b""),
        (b'{"x": {"\\ud800": 1}}', b""),
        (b'{"x": 1' + b"0" * 30 + b"}", b""),
        (b"{}", b"rubbish"),
        (b"{}", (1 << 60).to_bytes(8, "little") + b"{}"),
        (b'{"layouts": {"x": [1]}}', b""),
        (b'{"layouts": 3}', b""),
    ],
)
def test_rubbish_is_no_message(text: bytes, body: bytes) -> None:
    with pytest.raises(Broken):
        decode(text, body)


@pytest.mark.parametrize("strides", [[0, 0], [1, 1], [-3, 1], [10**12, 1], [3], [3, 1, 1], ["3", 1], [3.0, 1]])
def test_a_layout_that_is_none_is_refused(strides: list[object]) -> None:
    text = json.dumps({"type": "x", "layouts": {"one": strides}}).encode()
    with pytest.raises(Broken):
        decode(text, save({"one": torch.rand(2, 3)}))


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(Broken, match="too large"):
        messages.check_sizes(2**63, 0)


def test_what_a_plugin_sends_has_a_limit_and_what_it_is_sent_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_TENSORS", 100)
    assert there_and_back(torch.rand(100)).shape == (100,)
    reading, writing = os.pipe()
    call = _Call(os.open(os.devnull, os.O_RDONLY), writing)
    try:
        with pytest.raises(Broken, match="too large"):
            call.tell({"type": "x"}, {"one": torch.rand(100)})
        call.tell({"type": "x"}, {"one": torch.rand(1)})
        assert HEADER.unpack(os.read(reading, HEADER.size))[1] <= 100
    finally:
        logging.getLogger("leakbench").removeHandler(call)
        os.close(reading)


def test_what_others_can_write_again_is_a_message() -> None:
    head = {"type": "x", "deep": [[[[{"a": [None, True, -1.5, 2**64 - 1, "\u00e9"]}]]]]}
    content = encode(head)
    assert decode(content[HEADER.size :], b"").head == head
