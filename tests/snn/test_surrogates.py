"""Surrogate derivatives at points where they can be written down."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

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
    # a neuron at its threshold has not fired
    assert Surrogate("fired")(V).tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert Surrogate("fired", width=3.0, height=2.0)(V).tolist() == [0, 0, 0, 0, 2, 2, 2]
    assert not Surrogate("fired").looks_back


@pytest.mark.parametrize("shape", ["triangle", "rectangle", "fast_sigmoid", "arctan"])
def test_width_stretches_and_height_scales(shape: str) -> None:
    narrow, wide = Surrogate(shape), Surrogate(shape, width=2.0, height=3.0)  # type: ignore[arg-type]
    torch.testing.assert_close(wide(1 + 2 * (V - 1)), 3 * narrow(V))
    assert narrow(V).argmax() == V.tolist().index(1.0) or shape == "rectangle"


@pytest.mark.parametrize("shape", ["triangle", "rectangle", "arctan", "fast_sigmoid", "potential", "fired"])
def test_the_input_is_left_alone(shape: str) -> None:
    v = V.clone().view(7, 1, 1)
    Surrogate(shape)(v)  # type: ignore[arg-type]
    assert torch.equal(v.flatten(), V)


# --- the potential-dependent one -------------------------------------------------------------------------------------


def potential(v: Tensor, first: int = 0) -> Tensor:
    """PDSG step by step from the step ``first``, as its authors write it: v [T, B, C, H, W] or [T, B, N]."""
    slopes = []
    for t in range(first, len(v)):
        so_far = v[: t + 1]
        # a channel's own deviation, or that of all neurons where there are no maps
        sigma = so_far.std((0, 1, 3, 4), keepdim=True)[0] if v.dim() == 5 else so_far.std()
        sigma = torch.where(sigma == 0, torch.ones_like(sigma), sigma)
        x = v[t] - 1
        slopes.append(
            torch.exp(-(((x - 0.5 * sigma) / (math.sqrt(2) * sigma)) ** 2)) / (math.sqrt(2 * math.pi) * sigma)
        )
    return torch.stack(slopes)


@pytest.mark.parametrize("shape", [(6, 3, 4, 2, 5), (6, 3, 7)], ids=["maps", "vectors"])
@pytest.mark.parametrize("middle", [0.5, -40.0])
def test_potentials_set_the_width_of_their_own_surrogate(
    shape: tuple[int, ...], middle: float, generator: torch.Generator
) -> None:
    v = torch.randn(*shape, generator=generator, dtype=torch.float64)
    # channels, and steps, of different spread
    v = v * torch.linspace(0.2, 2, shape[2], dtype=torch.float64).view(-1, *[1] * (len(shape) - 3))
    v = v * torch.linspace(0.5, 2, shape[0], dtype=torch.float64).view(-1, *[1] * (len(shape) - 1)) + middle
    wanted = potential(v)
    assert middle < 0 or wanted.max() > 0.1
    torch.testing.assert_close(Surrogate("potential")(v), wanted, rtol=1e-9, atol=1e-300)
    torch.testing.assert_close(Surrogate("potential", height=0.3)(v), 0.3 * wanted, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4, 3, 2, 2, 2), (4, 3, 5)], ids=["maps", "vectors"])
def test_potentials_that_are_all_alike_have_a_width_of_1(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for level in (0.0, 0.3, 1.7):
        v = torch.full(shape, level, dtype=dtype)
        density = math.exp(-0.5 * (level - 1 - 0.5) ** 2) / math.sqrt(2 * math.pi)
        torch.testing.assert_close(Surrogate("potential")(v), torch.full_like(v, density))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_single_potential_has_no_spread(dtype: torch.dtype) -> None:
    # one image and maps of one pixel: at the first step there is nothing to take a deviation of
    v = torch.rand(5, 1, 8, 1, 1, generator=torch.Generator().manual_seed(4), dtype=dtype)
    slopes = Surrogate("potential")(v)
    torch.testing.assert_close(slopes[0], torch.exp(-0.5 * (v[0] - 1.5) ** 2) / math.sqrt(2 * math.pi))
    torch.testing.assert_close(slopes[1:], potential(v, first=1))
    assert Surrogate("potential").looks_back
    assert not Surrogate().looks_back


def test_what_is_no_surrogate_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown surrogate 'sigmoid': one of triangle, rectangle, fast_sigmoid"):
        Surrogate("sigmoid")  # type: ignore[arg-type]
    for width, height in ((0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)):
        with pytest.raises(UsageError, match="above 0"):
            Surrogate(width=width, height=height)
