"""Metrics of sets of reconstructions: one score an image, and those that read the evaluation models' predictions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from drawn_by_hand import drawn

from leakbench.contracts import Params
from leakbench.errors import NumericalError, PluginError, UsageError
from leakbench.metrics.daa import Daa
from leakbench.metrics.estimate import mean, proportion
from leakbench.metrics.intervals import clustered_mean
from leakbench.metrics.judged import JudgeAccuracy, JudgeTop5
from leakbench.metrics.metric import Measurement
from leakbench.metrics.permutation import PValue
from leakbench.metrics.reconstructions import ImageMetric, ReconstructionMetric, some_of_each

TARGETS = torch.tensor([0, 2, 0, 2, 2, 0])
EVEN = torch.full((6, 3), 1 / 3)


def scoring(given: Any) -> ImageMetric[Params]:
    """A metric of these scores."""

    class Own(ImageMetric[Params]):
        """Given scores."""

        name = "own"

        def scores(self, drawn: Any) -> Any:  # noqa: ARG002
            return given

    return Own()


# --- one score an image ------------------------------------------------------------------------------------------


def test_hits_are_shares_of_images_with_wilson_s_interval() -> None:
    found = scoring(torch.tensor([True, False, True, True, False, False])).measure(drawn(EVEN, TARGETS))
    assert found == Measurement(proportion(3, 6), {0: proportion(2, 3), 2: proportion(1, 3)})


def test_other_scores_are_a_mean_over_classes_with_student_s_interval() -> None:
    found = scoring(torch.tensor([1.0, 5.0, 2.0, 7.0, 9.0, 6.0])).measure(drawn(EVEN, TARGETS))
    assert found.classes == {0: mean([1.0, 2.0, 6.0]), 2: mean([5.0, 7.0, 9.0])}
    assert found.estimate == clustered_mean([[3.0, 7.0]])
    assert (found.estimate.value, found.estimate.n) == (5.0, 2)


def test_classes_of_few_images_weigh_as_much_as_others() -> None:
    found = scoring(torch.tensor([4.0, 1.0, 1.0, 1.0])).measure(drawn(EVEN[:4], torch.tensor([1, 0, 0, 0])))
    assert found.estimate.value == 2.5


def test_scores_that_depend_on_weights_are_read_all_the_same() -> None:
    score = torch.ones(6, requires_grad=True) * 2
    assert scoring(score).measure(drawn(EVEN, TARGETS)).estimate.value == 2


@pytest.mark.parametrize(
    ("given", "shown"),
    [(torch.ones(5), r"shape \(5,\)"), (torch.ones(6, 1), r"shape \(6, 1\)"), (torch.tensor(1.0), r"shape \(\)"),
     ([1.0] * 6, "a list"), (None, "a NoneType"), (0.5, "a float")],
)  # fmt: skip
def test_scores_of_another_shape_are_refused_in_one_line(given: Any, shown: str) -> None:
    with pytest.raises(PluginError, match=rf"^own.scores must return a tensor of shape \(6,\), got {shown}$"):
        scoring(given).measure(drawn(EVEN, TARGETS))


@pytest.mark.parametrize("given", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_counted_and_the_first_is_named(given: float) -> None:
    scores = torch.tensor([0.1, 0.2, given, 0.4, given, 0.6])
    with pytest.raises(NumericalError, match=r"^2 of 6 scores are NaN or infinity; the first is image 2's$"):
        scoring(scores).measure(drawn(EVEN, TARGETS))


def test_intervals_of_shares_stay_in_their_range() -> None:
    scores = torch.tensor([1.0, 0.9, 0.8, 0.0, 0.1, 0.0])
    wide = scoring(scores).measure(drawn(EVEN, TARGETS))
    metric = scoring(scores)
    type(metric).unit = "share"
    share = metric.measure(drawn(EVEN, TARGETS))
    assert {one.value for one in share.classes.values()} == {one.value for one in wide.classes.values()}
    assert max(one.high for one in wide.classes.values()) > 1 and min(one.low for one in wide.classes.values()) < 0
    for one in (share.estimate, *share.classes.values()):
        assert 0 <= one.low <= one.value <= one.high <= 1
    beyond = scoring(scores * 1.5)
    type(beyond).unit = "share"
    with pytest.raises(UsageError, match=r"^its unit is share, which is from 0 to 1, and image 0's score is 1\.5$"):
        beyond.measure(drawn(EVEN, TARGETS))


def test_a_metric_of_sets_says_itself_how_it_measures() -> None:
    class Count(ReconstructionMetric[Params]):
        """How many there are."""

        name = "count"

        def measure(self, drawn: Any) -> Measurement:
            return Measurement(mean([float(len(drawn.images))] * 2))

    assert Count().applies(drawn(EVEN, TARGETS))
    assert Count().measure(drawn(EVEN, TARGETS)).estimate.value == 6
    assert (Count.declaration().leakage, Count.declaration().per, Count.declaration().scale) == (
        *("inversion", "set", ""),
    )
    with pytest.raises(TypeError, match="abstract"):
        type("Nothing", (ReconstructionMetric,), {"name": "nothing"})()


# --- what the evaluation models predict --------------------------------------------------------------------------


def test_the_evaluation_models_predict_by_hand() -> None:
    rows = [[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.5, 0.1, 0.4]]
    images = drawn(torch.tensor(rows), torch.tensor([0, 0, 1, 1, 2, 2]))
    accuracy = JudgeAccuracy().measure(images)
    assert accuracy == Measurement(proportion(4, 6), {0: proportion(1, 2), 1: proportion(2, 2), 2: proportion(1, 2)})
    # first sheet: images 0, 2, 4, each rated highest for its own class; second: 1, 3, 5, of which 5 rates higher for 0
    sheets = Daa().measure(images)
    assert sheets.estimate == proportion(5, 6)
    assert {c: one.value for c, one in sheets.classes.items()} == {0: 0.5, 1: 1.0, 2: 1.0}
    # class means .55 .25 .2, .15 .55 .3, .35 .15 .5: no other of the six ways to deal them sums higher than 1.6
    assert PValue().measure(images).estimate.value == pytest.approx(1 / 6)


@pytest.mark.parametrize(("classes", "reported"), [(19, False), (20, True)])
def test_the_top_five_are_reported_from_twenty_classes_on(classes: int, reported: bool) -> None:
    """The k-th class's image has its own class in the k-th place of what is predicted."""
    p = torch.full((classes, classes), 1e-3)
    for k in range(classes):
        better = [c for c in range(classes) if c != k][:k]
        p[k, better] = torch.linspace(0.9, 0.6, max(1, k))[:k]
        p[k, k] = 0.5
    images = drawn(p / p.sum(1, keepdim=True), torch.arange(classes))
    assert JudgeTop5().applies(images) == reported
    top = JudgeTop5().measure(images)
    assert top.estimate == proportion(5, classes)
    assert {c for c, one in top.classes.items() if one.value == 1} == set(range(5))
    assert JudgeAccuracy().measure(images).estimate.value == pytest.approx(1 / classes)


def test_images_of_one_class_are_classified_and_not_compared_with_each_other() -> None:
    images = drawn(torch.tensor([[0.8, 0.2], [0.3, 0.7]]), torch.tensor([0, 0]))
    assert JudgeAccuracy().measure(images).estimate.value == 0.5
    assert PValue().measure(images).estimate.value == 1
    with pytest.raises(UsageError, match="at least 2 classes"):
        Daa().measure(images)


# --- some images of each class -----------------------------------------------------------------------------------


def test_some_of_each_takes_that_many_or_all_there_are(generator: torch.Generator) -> None:
    labels = torch.tensor([2, 0, 0, 2, 0, 7, 0, 2])
    for count, sizes in ((1, [1, 1, 1]), (3, [3, 3, 1]), (9, [4, 3, 1])):
        index = some_of_each(labels, count, generator)
        assert len(set(index.tolist())) == len(index)
        assert labels[index].tolist() == [0] * sizes[0] + [2] * sizes[1] + [7] * sizes[2]


def test_some_of_each_is_a_fair_draw(generator: torch.Generator) -> None:
    labels = torch.tensor([0] * 5 + [1] * 5)
    counts = torch.zeros(10)
    for _ in range(500):
        counts[some_of_each(labels, 2, generator)] += 1
    assert counts.sum() == 2000
    assert ((counts - 200).abs() < 5 * (500 * 0.4 * 0.6) ** 0.5).all()
