"""Weight motion against numpy, at the edges where a ratio has no value, and over several layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.motion import LayerMotion, overall_cosine, weight_motion


def layers(seed: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {"conv": torch.randn(4, 3, 3, 3, generator=g), "fc": 5 * torch.randn(10, 7, generator=g)}


def test_against_numpy() -> None:
    before, after = layers(0), layers(1)
    motions = weight_motion(before, after)
    assert [m.layer for m in motions] == ["conv", "fc"]
    for motion in motions:
        a, b = (x[motion.layer].double().numpy().ravel() for x in (before, after))
        # 1e-12: float64 sums of a hundred products
        assert motion.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-12)
        assert motion.relative_norm == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-12)
    # all of them, each layer as long as it was
    lengths = {name: float(before[name].double().norm() / after[name].double().norm()) for name in before}
    a = np.concatenate([w.double().numpy().ravel() for w in before.values()])
    b = np.concatenate([lengths[name] * w.double().numpy().ravel() for name, w in after.items()])
    assert overall_cosine(before, after) == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-12)


@pytest.mark.slow
@given(st.floats(-1e30, 1e30).filter(lambda x: abs(x) > 1e-30), st.integers(0, 1000))
def test_scaling_changes_the_norm_and_not_the_direction(factor: float, seed: int) -> None:
    before = {"fc": torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)}
    after = {"fc": before["fc"] * factor}
    (motion,) = weight_motion(before, after)
    assert motion.cosine == pytest.approx(math.copysign(1, factor), abs=1e-12)
    assert -1 <= motion.cosine <= 1
    # absolute part: near factor = 1 the difference of the two is rounding
    assert motion.relative_norm == pytest.approx(abs(factor - 1), rel=1e-9, abs=1e-12)
    assert overall_cosine(before, after) == motion.cosine


def test_layers_that_are_scaled_each_by_itself_have_not_turned() -> None:
    """As thresholds and weights are balanced against each other."""
    before = layers(0)
    after = {"conv": 0.03 * before["conv"], "fc": 7 * before["fc"]}
    assert overall_cosine(before, after) == pytest.approx(1, abs=1e-6)


def test_a_small_step_is_seen_in_float64() -> None:
    before = {"fc": torch.ones(1000, dtype=torch.float64)}
    after = {"fc": torch.ones(1000, dtype=torch.float64) + 1e-9}
    assert weight_motion(before, after)[0].relative_norm == pytest.approx(1e-9, rel=1e-6)


def test_zero_layers_are_defined() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    before = {"both": zero, "filled": zero, "emptied": one}
    after = {"both": zero, "filled": one, "emptied": zero}
    assert weight_motion(before, after) == [
        LayerMotion("both", 1.0, 0.0),
        LayerMotion("filled", 0.0, 1.0),
        LayerMotion("emptied", 0.0, 1.0),
    ]
    assert overall_cosine({"both": zero}, {"both": zero}) == 1


def test_different_layers_are_refused() -> None:
    before = layers(0)
    with pytest.raises(UsageError, match="fc"):
        weight_motion(before, {"conv": before["conv"]})
    with pytest.raises(UsageError, match="conv"):
        overall_cosine(before, before | {"conv": torch.zeros(4, 3, 1, 1)})
    with pytest.raises(UsageError):
        weight_motion({}, {})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_weights_are_an_error(bad: float) -> None:
    before = layers(0)
    with pytest.raises(NumericalError, match="conv"):
        weight_motion(before, before | {"conv": torch.full((4, 3, 3, 3), bad)})
