"""Networks on images in [0, 1]."""

from __future__ import annotations

import torch

from leakbench.contracts import InputRange


def test_input_ranges() -> None:
    images = torch.tensor([0.0, 0.25, 1.0])
    assert InputRange(-1.0, 1.0)(images).tolist() == [-1, -0.5, 1]
    assert InputRange(-1.0, 1.0).scale == 2
    assert InputRange(0.0, 1.0)(images) is images
    assert InputRange(0.5, 0.75)(images).tolist() == [0.5, 0.5625, 0.75]
