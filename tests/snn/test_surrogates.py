"""Surrogate derivatives at points where they can be written down."""

from __future__ import annotations

import math

import pytest
import torch

from leakbench.errors import UsageError
from leakbench.snn import Surrogate

V = torch.tensor([-1.0, 0.0, 0.5, 1.0, 1.25, 2.0, 3.0], dtype=torch.float64)


def test_the_triangle_is_eq_5_of_the_paper() -> None:
    # max(0, 1 - |u - theta| / theta) at theta = 2, u = theta v
    theta = 2.0
    expected = [max(0.0, 1 - abs(theta * v - theta) / theta) for v in V.tolist()]
    torch.testing.assert_close(Surrogate()(V), torch.tensor(expected, dtype=torch.float64))
    assert expected == [0, 0, 0.5, 1, 0.75, 0, 0]
    # the authors' repository: .3 / theta times that, on spikes of 1, is height .3 on spikes of theta
    torch.testing.assert_close(Surrogate(height=0.3)(V), 0.3 * torch.tensor(expected, dtype=torch.float64))


def test_other_shapes_by_hand() -> None:
    assert Surrogate("rectangle")(V).tolist() == [0, 0, 0.5, 0.5, 0.5, 0, 0]
    fast = [1 / (1 + abs(v - 1)) ** 2 for v in V.tolist()]
    torch.testing.assert_close(Surrogate("fast_sigmoid")(V), torch.tensor(fast, dtype=torch.float64))
    arctan = [1 / (1 + (math.pi / 2 * (v - 1)) ** 2) for v in V.tolist()]
    torch.testing.assert_close(Surrogate("arctan")(V), torch.tensor(arctan, dtype=torch.float64))


@pytest.mark.parametrize("shape", ["triangle", "rectangle", "fast_sigmoid", "arctan"])
def test_width_stretches_and_height_scales(shape: str) -> None:
    narrow, wide = Surrogate(shape), Surrogate(shape, width=2.0, height=3.0)  # type: ignore[arg-type]
    torch.testing.assert_close(wide(1 + 2 * (V - 1)), 3 * narrow(V))
    assert narrow(V).argmax() == V.tolist().index(1.0) or shape == "rectangle"


@pytest.mark.parametrize("shape", ["triangle", "rectangle", "arctan", "fast_sigmoid"])
def test_the_input_is_left_alone(shape: str) -> None:
    v = V.clone()
    Surrogate(shape)(v)  # type: ignore[arg-type]
    assert torch.equal(v, V)


def test_what_is_no_surrogate_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown surrogate 'sigmoid': one of triangle, rectangle, fast_sigmoid"):
        Surrogate("sigmoid")  # type: ignore[arg-type]
    for width, height in ((0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)):
        with pytest.raises(UsageError, match="above 0"):
            Surrogate(width=width, height=height)
