"""What a plugin says of itself is bounded and printable before anybody reads it."""

from __future__ import annotations

from typing import Any

import pytest

from leakbench.errors import PluginError
from leakbench.models.untrusted import NetworkRecord
from leakbench.runtime.isolation.messages import Broken, Message
from leakbench.runtime.isolation.said import AttackSaid, Description, raise_as_said, read

DESCRIPTION: dict[str, Any] = {
    "name": "mine", "version": 1, "cites": "", "doc": "", "presets": {}, "parameters": [], "leakage": "inversion",
    "needs": 1, "effort": "", "ensemble": False, "uses_public": False, "uses_references": False,
    "uses_population": False, "uses_synthetic": False, "asks_of": "", "spiking": True, "members": [],
}  # fmt: skip
OUTCOME: dict[str, Any] = {"queries": 1, "gradient_steps": 0, "findings": {"a": "1.0"}, "returned": "Tensor"}
RECORD: dict[str, Any] = {"arch": "vgg4", "image_shape": [1, 8, 8], "classes": 3, "input_range": [0.0, 1.0]}


def test_what_is_right_is_read() -> None:
    for kind, head in ((Description, DESCRIPTION), (AttackSaid, OUTCOME), (NetworkRecord, RECORD)):
        assert read(kind, head).model_dump().items() >= head.items()  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (Description, DESCRIPTION | {"name": "\x1b[31mred"}),
        (Description, DESCRIPTION | {"name": "two\nlines"}),
        (Description, DESCRIPTION | {"name": "x" * 1001}),
        (Description, DESCRIPTION | {"effort": "\x07"}),
        (Description, DESCRIPTION | {"members": [{"name": "\x1b", "version": 1, "params": {}}]}),
        (Description, DESCRIPTION | {"parameters": [{"name": "\x1b", "described": True}]}),
        (AttackSaid, OUTCOME | {"findings": {"\x1b": "1.0"}}),
        (AttackSaid, OUTCOME | {"returned": "a\0b"}),
        (AttackSaid, OUTCOME | {"queries": -1}),
        (NetworkRecord, RECORD | {"arch": "vgg4\n"}),
        (NetworkRecord, RECORD | {"classes": 2**63}),
    ],
)
def test_what_is_not_is_refused(kind: Any, head: dict[str, Any]) -> None:
    with pytest.raises(Broken, match="something else than was asked for"):
        read(kind, head)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("PermissionError: [Errno 13] '/w.pt'", True),
        ("FileNotFoundError: [Errno 2] '/w.pt'", True),
        ("ValueError: no", False),
    ],
)
def test_what_isolation_forbids_says_so(text: str, hint: bool) -> None:
    head = {"error": "PluginError", "text": text, "at": "f.py, line 8", "traceback": ""}
    with pytest.raises(PluginError) as error:
        raise_as_said(Message(head, {}))
    assert str(error.value).startswith(text) and ("isolated, a plugin has" in str(error.value)) == hint
