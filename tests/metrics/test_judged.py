"""Judge accuracy: from probabilities only."""

from __future__ import annotations

import pytest
import torch

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import proportion
from leakbench.metrics.judged import judge_accuracy


def test_scores_the_average_over_views_and_not_each_view() -> None:
    # two views of one image: the first is fooled a little, the second is sure
    views = torch.tensor([[[0.55, 0.45], [0.05, 0.95]]])
    assert judge_accuracy(views[:, 0], torch.tensor([1])).value == 0
    assert judge_accuracy(views.mean(1), torch.tensor([1])).value == 1


def test_is_a_proportion_with_wilsons_interval() -> None:
    probabilities = torch.eye(10)[torch.arange(50) % 10]
    targets = (torch.arange(50) % 10 + (torch.arange(50) < 20).long()) % 10
    assert judge_accuracy(probabilities, targets) == proportion(30, 50)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_softmax_outputs_of_every_precision_are_probabilities(dtype: torch.dtype) -> None:
    logits = torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    estimate = judge_accuracy(logits.softmax(1).to(dtype), logits.argmax(1))
    # half precision may tie two classes that single precision tells apart
    assert estimate.value >= 0.99


def test_logits_are_refused() -> None:
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(20, dtype=torch.long)
    with pytest.raises(UsageError, match="softmax"):
        judge_accuracy(logits, targets)
    with pytest.raises(UsageError, match="softmax"):
        # rows that sum to 1 are not enough
        judge_accuracy(torch.tensor([[1.5, -0.5]]), torch.tensor([0]))


def test_other_shapes_and_nan_are_refused() -> None:
    with pytest.raises(UsageError):
        judge_accuracy(torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.raises(UsageError):
        judge_accuracy(torch.zeros(0, 10), torch.zeros(0, dtype=torch.long))
    with pytest.raises(NumericalError):
        judge_accuracy(torch.full((2, 2), float("nan")), torch.tensor([0, 1]))
