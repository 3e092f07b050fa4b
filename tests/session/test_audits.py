"""The run that audits a network."""

from __future__ import annotations

import pytest
import torch

from leakbench.contracts import InputRange
from leakbench.models.storage import build_ann
from leakbench.session.audits import audit_options


@pytest.mark.parametrize(
    ("arch", "model"),
    [
        ("graph: conv 2 k3x3; relu; flatten; linear 10; relu", "graph: conv 2 k3x3; relu; flatten; linear 10"),
        ("graph: conv 2 k3x3; relu; flatten; linear 10", "graph: conv 2 k3x3; relu; flatten; linear 10"),
        ("vgg4", "vgg4"),
    ],
)
def test_the_control_ann_has_logits_and_no_relu_behind_them(arch: str, model: str) -> None:
    network = build_ann(arch, (1, 8, 8), 10, InputRange(0, 1), torch.Generator())
    assert audit_options(network, "network:net.safetensors", {})["model"] == [model]
