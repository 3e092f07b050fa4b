"""Accuracy against a loop over the images."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.accuracy import accuracy
from leakbench.metrics.estimate import proportion


@pytest.mark.slow
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 10**6))
def test_counts_the_images_named_right(n: int, classes: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=g)
    labels = torch.randint(classes, (n,), generator=g)
    hits = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        hits += row.index(max(row)) == label
    assert accuracy(logits, labels) == proportion(hits, n)
    assert accuracy(logits.argmax(1), labels) == proportion(hits, n)


def test_all_wrong_still_has_an_interval() -> None:
    estimate = accuracy(torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1]))
    assert estimate.value == 0 and estimate.high > 0.3


@pytest.mark.parametrize(
    ("given_", "labels"),
    [
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.long)),
        (torch.zeros(3, 2), torch.zeros(3)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(3, 2, 1), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(3, 2), torch.tensor([0, 1, 2])),
        (torch.zeros(3, 2), torch.tensor([0, -1, 1])),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)),
        (torch.zeros(3, 0), torch.zeros(3, dtype=torch.long)),
    ],
)
def test_what_can_not_be_scored_is_refused(given_: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(UsageError):
        accuracy(given_, labels)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_logits_are_not_a_prediction(bad: float) -> None:
    logits = torch.zeros(3, 2)
    logits[1, 1] = bad
    with pytest.raises(NumericalError):
        accuracy(logits, torch.zeros(3, dtype=torch.long))
