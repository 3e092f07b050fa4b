"""What judges recognise: from probabilities only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.accuracy import accuracy
from leakbench.metrics.judged import top_k_hits


def test_scores_the_average_over_views_and_not_each_view() -> None:
    # two views of one image: the first is fooled a little, the second is sure
    views = torch.tensor([[[0.55, 0.45], [0.05, 0.95]]])
    assert top_k_hits(views[:, 0], torch.tensor([1]), 1).tolist() == [False]
    assert top_k_hits(views.mean(1), torch.tensor([1]), 1).tolist() == [True]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_softmax_outputs_of_every_precision_are_probabilities(dtype: torch.dtype) -> None:
    logits = torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    hits = top_k_hits(logits.softmax(1).to(dtype), logits.argmax(1), 1)
    # half precision may tie two classes that single precision tells apart
    assert hits.sum() >= 198


def test_logits_are_refused() -> None:
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(20, dtype=torch.long)
    with pytest.raises(UsageError, match="softmax"):
        top_k_hits(logits, targets, 1)
    with pytest.raises(UsageError, match="softmax"):
        # rows that sum to 1 are not enough
        top_k_hits(torch.tensor([[1.5, -0.5]]), torch.tensor([0]), 1)


@pytest.mark.slow
@given(st.integers(1, 30), st.integers(2, 25), st.data())
def test_top_k_against_sorting_each_row(n: int, classes: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, classes))
    g = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    # a few levels only, so that ties occur: then the lower class goes first
    p = torch.randint(1, 5, (n, classes), generator=g).double()
    p, targets = p / p.sum(1, keepdim=True), torch.randint(classes, (n,), generator=g)
    rows = zip(p.tolist(), targets.tolist(), strict=True)
    hits = [target in sorted(range(classes), key=lambda c: (-row[c], c))[:k] for row, target in rows]
    assert top_k_hits(p, targets, k).tolist() == hits
    assert accuracy(p, targets).value == top_k_hits(p, targets, 1).double().mean()


def test_top_5_of_a_judge_that_knows_nothing_is_chance() -> None:
    uniform = torch.full((20, 20), 0.05)
    assert top_k_hits(uniform, torch.arange(20), 5).sum() == 5


@pytest.mark.parametrize("k", [0, -1, 11])
def test_no_more_than_all_classes_are_on_top(k: int) -> None:
    with pytest.raises(UsageError, match=r"k must be within 1\.\.10"):
        top_k_hits(torch.full((3, 10), 0.1), torch.zeros(3, dtype=torch.long), k)


def test_other_shapes_labels_and_nan_are_refused() -> None:
    p, targets = torch.full((2, 10), 0.1), torch.tensor([0, 1])
    for bad in (torch.tensor([0, 1]), p.expand(3, 2, 10), p[:, :0], (10 * p).long()):
        with pytest.raises(UsageError):
            top_k_hits(bad, targets, 1)
    for labels in (targets[:1], targets[:, None], targets.double(), targets + 9, targets - 1):
        with pytest.raises(UsageError, match="targets"):
            top_k_hits(p, labels, 1)
    with pytest.raises(NumericalError):
        top_k_hits(torch.full((2, 10), float("nan")), targets, 1)
