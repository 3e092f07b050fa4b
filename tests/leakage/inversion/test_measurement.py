"""The measurement of a set of images: few and odd ones, draws put together, numbers that stay, what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from by_hand import declared
from tiny_runs import Warm
from torch import Tensor
from torch.nn import functional

from leakbench import registry
from leakbench.cells import Variant
from leakbench.errors import NumericalError, UsageError
from leakbench.leakage.inversion import measurement
from leakbench.leakage.inversion.evaluation import Evaluation, evaluation_of
from leakbench.leakage.inversion.measurement import merged, predictions, votes
from leakbench.leakage.kind import Measured
from leakbench.leakage.measured_metric import CellMetric, built_in_metrics
from leakbench.metrics.estimate import Estimate, proportion
from leakbench.metrics.kes import Kes
from leakbench.metrics.reconstructions import ReconstructionMetric
from leakbench.models.judges import Ensemble, Judge
from leakbench.models.training import predict
from leakbench.records import ClassScore, Value, value
from leakbench.runtime.store import Artifact
from leakbench.runtime.workspace import Settings, Stage, Workspace, digest

CPU = torch.device("cpu")


def quiet(_what: str, _done: int, _total: int) -> None:
    return None


def workspace_of(cache: Path) -> Workspace:
    return Workspace(Settings(cache=str(cache)), quiet)


@pytest.fixture(scope="module")
def workspace(warm: Warm) -> Workspace:
    """With the evaluation models of the tiny run and its real images: two of each of three classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(warm.out))  # no weights of the user's own
        for name in ("LEAKBENCH_INCEPTION", "LEAKBENCH_FEATURES"):
            patch.delenv(name, raising=False)
        made = workspace_of(warm.grown)
        evaluation_of(made, warm.tiny.dataset)
    return made


@pytest.fixture(scope="module")
def shapes(warm: Warm, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """Images and labels that the evaluation models were trained on, sixteen of each class in turn."""
    train = workspace.dataset(warm.tiny.dataset).train
    order = torch.cat([(train.labels == c).nonzero().flatten() for c in range(3)]).view(3, 16).T.flatten()
    return train.images[order], train.labels[order]


def artifact(workspace: Workspace, images: Tensor, targets: Tensor, batch: int = 500) -> Artifact:
    """Images as the stage of an attack leaves them."""
    inputs = {"digest": digest({"images": images, "targets": targets}), "batch": batch}
    return workspace.make(Stage("by-hand", 1), 0, inputs, lambda _context: ({"images": images, "targets": targets}, {}))


def measured(
    workspace: Workspace, images: Tensor, targets: Tensor, batch: int = 500, added: Sequence[Variant] = ()
) -> Measured:
    """Everything, as a cell of the grid gets it."""
    made = artifact(workspace, images.contiguous(), targets.contiguous(), batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurement, "predict", partial(predict, batch_size=batch))
        return measurement.measured(workspace, evaluation_of(workspace, _name(workspace)), made, added, quick=False)


def _name(workspace: Workspace) -> str:
    (name,) = workspace._datasets
    return name


def value_of(found: Measured, metric: str) -> Value:
    (one,) = [v for v in found.values if v.metric == metric]
    return one


def by_class(found: Measured, metric: str) -> dict[int, ClassScore]:
    return {score.target: score for score in found.classes if score.metric == metric}


def measures(one: Value | ClassScore) -> dict[str, float]:
    """Its numbers by name, those that it has."""
    found = {"low": one.low, "value": one.value, "high": one.high, "n": one.n}
    return {name: number for name, number in found.items() if number is not None}


# --- few images and odd ones -------------------------------------------------------------------------------------

ALL = {
    *("judge_accuracy", "open_set_accuracy", "pixel_neighbour_accuracy", "daa", "p_value", "kes", "knn_distance"),
    *("fd_bnconv", "kd_bnconv", "precision", "recall", "density", "coverage"),
    *("verification_eer", "train_ssim", "training_nearest", "training_nearest_ssim"),
}
OF_SETS = {"precision", "recall", "density", "coverage"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "missing"),
    [
        ("many", set()),
        ("six", set()),
        ("five", OF_SETS),  # k = 5 neighbours of five images
        ("one of each", OF_SETS),
        ("two", OF_SETS),
        ("one", OF_SETS | {"daa", "kes", "fd_bnconv", "kd_bnconv", "verification_eer"}),
        ("identical", set()),
        ("black", set()),
        ("one class", OF_SETS | {"daa", "verification_eer"}),  # of which there are two real images, and no others
    ],
)
def test_few_or_odd_images_give_a_number_or_a_reason(
    workspace: Workspace, shapes: tuple[Tensor, Tensor], what: str, missing: set[str]
) -> None:
    images, targets = (
        part[: {"six": 6, "five": 5, "one of each": 3, "two": 2, "one": 1}.get(what, 24)] for part in shapes
    )
    if what == "identical":
        images = images[:1].expand(len(images), -1, -1, -1)
    elif what == "black":
        images = torch.zeros_like(images)
    elif what == "one class":
        targets = torch.zeros_like(targets)
    found = measured(workspace, images, targets)
    assert {v.metric for v in found.values} == ALL - missing
    assert {line.partition(": not measured: ")[0] for line in found.refused} == missing
    assert all(len(line.splitlines()) == 1 for line in found.refused)
    for one in [*map(measures, found.values), *map(measures, found.classes)]:
        assert all(math.isfinite(number) for number in one.values())
        assert one.get("low", one["value"]) <= one["value"] <= one.get("high", one["value"])
    present = set(targets.tolist())
    assert set(by_class(found, "judge_accuracy")) == present
    if "kes" not in missing:
        assert set(by_class(found, "kes")) == present


@pytest.mark.slow
def test_metrics_of_real_images_tell_them_from_noise(workspace: Workspace, shapes: tuple[Tensor, Tensor]) -> None:
    images, targets = (part[:12] for part in shapes)
    real = measured(workspace, images, targets)
    noise = measured(
        workspace,
        torch.randint(0, 256, images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8),
        targets,
    )
    for metric in ("judge_accuracy", "daa", "kes"):
        assert value_of(real, metric).value > value_of(noise, metric).value
    for metric in ("knn_distance", "fd_bnconv", "kd_bnconv"):
        assert value_of(real, metric).value < value_of(noise, metric).value
    assert value_of(real, "p_value").value == pytest.approx(1 / 6)  # the least of three classes


# --- fewer classes than there are --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_two(warm: Warm, workspace: Workspace) -> Evaluation:
    """Where two of the three classes are attacked."""
    return evaluation_of(workspace, warm.tiny.dataset, 2)


def other(evaluation: Evaluation) -> int:
    (missing,) = {0, 1, 2} - set(evaluation.classes.tolist())
    return missing


def test_what_was_not_attacked_is_no_answer(
    workspace: Workspace, of_two: Evaluation, shapes: tuple[Tensor, Tensor]
) -> None:
    """Images of the class that was not attacked, made for the others: all evaluation models would say what it is."""
    images, labels = shapes
    shown, targets = images[labels == other(of_two)][:8].contiguous(), of_two.classes.repeat(4)
    alone = predict(evaluation_of(workspace, _name(workspace)).ensemble.answers, shown, CPU)[:, :-1]
    assert (alone.argmax(1) == other(of_two)).all()
    made = artifact(workspace, shown, targets)
    given = predictions(workspace, of_two, made).tensors
    assert (given["predictions"][:, other(of_two)] == 0).all()
    torch.testing.assert_close(given["predictions"].sum(1), torch.ones(8))
    assert not of_two.accepts(given).any()
    found = measurement.measured(workspace, of_two, made, (), quick=True)
    right = (given["predictions"].argmax(1) == targets).double().mean()
    assert (value_of(found, "judge_accuracy").value, value_of(found, "open_set_accuracy").value) == (right, 0)
    counted = votes(workspace, of_two, made)
    assert (counted.classes, counted.among, counted.known) == (of_two.classes.tolist(), 2, 3)
    assert counted.forced and not counted.accepted


def test_images_of_the_attacked_classes_are_seen(
    workspace: Workspace, of_two: Evaluation, shapes: tuple[Tensor, Tensor]
) -> None:
    images, labels = shapes
    mine = torch.isin(labels, of_two.classes)
    made = artifact(workspace, images[mine], labels[mine])
    counted = votes(workspace, of_two, made)
    pairs = [(c, c) for c in of_two.classes.tolist()]
    assert (counted.accepted, counted.forced) == (pairs, pairs)


def test_answers_among_fewer_classes_have_another_key_and_among_all_the_one_of_before(
    workspace: Workspace, of_two: Evaluation, shapes: tuple[Tensor, Tensor]
) -> None:
    made = artifact(workspace, *(part[torch.isin(shapes[1], of_two.classes)] for part in shapes))

    def given(evaluation: Evaluation) -> dict[str, dict[str, object]]:
        """What the keys of predictions and metrics are made of."""
        found: dict[str, dict[str, object]] = {"predictions": {"key": predictions(workspace, evaluation, made).key}}

        def kept(
            _workspace: object,
            one: CellMetric[Any],
            _measure: object,
            _seed: int,
            inputs: dict[str, object],
            *_: object,
        ) -> Measured:
            found[one.metric.name] = inputs
            return Measured()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(measurement, "measured_metric", kept)
            measurement.measured(workspace, evaluation, made, (), quick=False)
        return found

    few, of_all = given(of_two), given(evaluation_of(workspace, _name(workspace)))
    assert few.keys() == of_all.keys() >= {"judge_accuracy", "predictions"}
    assert not [name for name in few if few[name] == of_all[name]]
    assert given(evaluation_of(workspace, _name(workspace), 3)) == of_all
    assert few["kes"].keys() - of_all["kes"].keys() == {"attacked", "least_odds"}
    assert of_all["kes"].keys() == {"images", "judges", "least_evidence", "features"}


def test_models_that_break_down_fail_the_cell(
    workspace: Workspace, of_two: Evaluation, shapes: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, targets = shapes[0][:2] + 3, of_two.classes
    monkeypatch.setattr(Judge, "forward", lambda self, x: torch.full((len(x), self.classes), math.nan))
    with pytest.raises(NumericalError):
        predictions(workspace, of_two, artifact(workspace, images, targets))


# --- draws put together ------------------------------------------------------------------------------------------


def test_several_draws_are_counted_together_or_averaged() -> None:
    draws = [
        Measured(
            [
                value("judge_accuracy", proportion(hits, 20)),
                value("fd_bnconv", Estimate(distance, distance - 3, distance + 4, 20)),
                value("p_value", Estimate(0.01)),
                value("train_ssim", Estimate(distance / 40, n=20)),  # no scale, and a direction
                value("kd_bnconv", Estimate(distance / 10, n=20)),
                *([value("precision", proportion(3, 20))] if number else []),  # not of every draw
            ],
            [ClassScore(metric="judge_accuracy", target=4, value=hits / 20, n=20)],
            ["daa: not measured: mine"],
        )
        for number, (hits, distance) in enumerate(((3, 10.0), (5, 20.0)))
    ]
    found = merged(draws, declared())
    assert value_of(found, "judge_accuracy") == value("judge_accuracy", proportion(8, 40))
    # errors in quadrature over the number of draws; a distance at 20 images stays one at 20 images
    assert value_of(found, "fd_bnconv") == value("fd_bnconv", Estimate(15, 15 - 18**0.5 / 2, 15 + 32**0.5 / 2, 20))
    assert value_of(found, "kd_bnconv") == Value(metric="kd_bnconv", value=1.5, n=20)
    assert value_of(found, "train_ssim") == Value(metric="train_ssim", value=0.375, n=20)
    assert {v.metric for v in found.values} == {"judge_accuracy", "fd_bnconv", "kd_bnconv", "train_ssim"}
    (score,) = found.classes
    wilson = proportion(8, 40)
    assert (score.target, score.value, score.low, score.high, score.n) == (4, 0.2, wilson.low, wilson.high, 40)
    assert found.refused == ["daa: not measured: mine"]


@pytest.mark.slow
def test_one_draw_stays_as_it_is_but_for_its_p(workspace: Workspace, shapes: tuple[Tensor, Tensor]) -> None:
    images, targets = shapes
    draw = measured(workspace, images[:6], targets[:6])
    found = merged([draw], declared())
    assert found.values == [v for v in draw.values if v.metric != "p_value"]
    assert (found.classes, found.refused) == (draw.classes, draw.refused)


def test_what_was_measured_is_kept_with_what_was_refused(
    warm: Warm, workspace: Workspace, shapes: tuple[Tensor, Tensor]
) -> None:
    images, targets = shapes
    found = measured(workspace, images[:3], targets[:3])
    assert found.refused
    later = workspace_of(warm.grown)
    later.dataset(warm.tiny.dataset)
    assert measured(later, images[:3], targets[:3]) == found
    assert later.store.built == 0


def test_a_quick_check_reads_the_predictions_alone(workspace: Workspace, shapes: tuple[Tensor, Tensor]) -> None:
    images, targets = (part[:6] for part in shapes)
    made = artifact(workspace, images, targets)
    quick = measurement.measured(workspace, evaluation_of(workspace, _name(workspace)), made, (), quick=True)
    assert [one.metric for one in quick.values] == ["judge_accuracy", "open_set_accuracy", "daa", "p_value"]
    whole = measured(workspace, images, targets)
    assert quick.values == [one for one in whole.values if one.metric in {v.metric for v in quick.values}]
    assert [one.metric for one in whole.values] == [
        one.name for one in built_in_metrics(ReconstructionMetric) if one.name in ALL
    ]


@pytest.mark.slow
def test_the_open_set_counts_what_is_accepted(
    workspace: Workspace, shapes: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, targets = (part[:6] for part in shapes)
    least = evaluation_of(workspace, _name(workspace)).least_evidence
    sure, above = functional.one_hot(targets, 3).float(), torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, -1.0])
    answers = torch.cat([sure, (least + above)[:, None]], 1)
    monkeypatch.setattr(Ensemble, "answers", lambda _self, _images: answers)
    values = {one.metric: one.value for one in measured(workspace, images + 1, targets).values}
    # what is as sure as the line is accepted
    assert (values["judge_accuracy"], values["open_set_accuracy"]) == (1, pytest.approx(5 / 6))


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [[float("nan"), 0.5, 0.5], [3.0, -2.0, 0.0]])
def test_evaluation_models_that_break_down_are_an_error(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, row: list[float]
) -> None:
    monkeypatch.setattr(Ensemble, "answers", lambda _self, x: torch.tensor([[*row, 1.0]] * len(x)))
    with pytest.raises((NumericalError, UsageError)):
        measured(workspace, torch.full((3, 1, 8, 8), 7, dtype=torch.uint8), torch.arange(3))


OWN = '''
import math

import torch

from leakbench.contracts import Params
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.metric import Measurement
from leakbench.metrics.reconstructions import ImageMetric, ReconstructionMetric


class Bright(ImageMetric[Params]):
    """Mean brightness."""

    name = "bright"

    def scores(self, drawn):
        return drawn.images.flatten(1).double().mean(1)


class Infinite(ReconstructionMetric[Params]):
    """No number."""

    name = "infinite"

    def measure(self, drawn):
        return Measurement(Estimate(math.inf))


class Number(ReconstructionMetric[Params]):
    """Hands back a bare number."""

    name = "number"

    def measure(self, drawn):
        return 0.5


class Divides(ReconstructionMetric[Params]):
    """Divides by nothing."""

    name = "divides"

    def measure(self, drawn):
        return 1 / 0
'''


def own(path: Path, name: str) -> Variant:
    target = f"{path}:{name}"
    code = registry.source("metric", target)
    return Variant(
        target=target, name=name.lower(), label=name.lower(), version=1, params={}, code=code.digest, origin=code.origin
    )


@pytest.mark.slow
def test_what_an_added_metric_gets_wrong_is_a_reason_and_the_others_are_measured(
    workspace: Workspace, shapes: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    images, targets = (part[:6] for part in shapes)
    added = [own(path, name) for name in ("Infinite", "Number", "Divides", "Bright")]
    found, without = measured(workspace, images, targets, added=added), measured(workspace, images, targets)
    assert found.values[:-1] == without.values
    assert value_of(found, "bright").value == pytest.approx(float(images.double().mean()))
    assert set(by_class(found, "bright")) == {0, 1, 2}
    assert found.refused == [
        *without.refused,
        "infinite: not measured: infinite came out as inf",
        "number: not measured: number.measure must return a Measurement, got float",
        f"divides: not measured: ZeroDivisionError: division by zero (own.py, line {len(OWN.splitlines())})",
    ]


@pytest.mark.slow
def test_a_mistake_of_a_built_in_metric_is_not_swallowed(
    workspace: Workspace, shapes: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Kes, _drawn: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Kes, "measure", broken)
    with pytest.raises(ZeroDivisionError):
        measured(workspace, shapes[0][:9], shapes[1][:9])


# --- numbers that stay -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_images_in_another_order_give_the_same_numbers(workspace: Workspace, shapes: tuple[Tensor, Tensor]) -> None:
    """But for students, who meet them in their order, and contact sheets, which are the j-th images of all classes."""
    images, targets = (part[:24] for part in shapes)
    first = measured(workspace, images, targets)
    shuffled = torch.randperm(24, generator=torch.Generator().manual_seed(4))
    turned = torch.arange(24).view(8, 3).flip(1).flatten()  # other classes first, their images in the same order
    for order, left_out in ((shuffled, {"kes", "daa"}), (turned, {"kes"})):
        again = measured(workspace, images[order], targets[order])
        for one, other in zip(first.values, again.values, strict=True):
            if one.metric not in left_out:
                assert measures(other) == pytest.approx(measures(one), rel=1e-6, abs=1e-9)
        for metric in {"judge_accuracy", "daa", "knn_distance"} - left_out:
            for c, score in by_class(first, metric).items():
                assert measures(by_class(again, metric)[c]) == pytest.approx(measures(score), rel=1e-6, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 7])
def test_other_batches_give_the_same_answers_and_features(
    workspace: Workspace, shapes: tuple[Tensor, Tensor], batch: int
) -> None:
    images = shapes[0][:24]
    ensemble = evaluation_of(workspace, _name(workspace)).ensemble
    for ask in (ensemble.answers, ensemble.judges[0].features):
        whole = predict(ask, images, CPU)
        torch.testing.assert_close(predict(ask, images, CPU, batch), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_other_batches_give_the_same_numbers(workspace: Workspace, shapes: tuple[Tensor, Tensor]) -> None:
    images, targets = (part[:24] for part in shapes)
    whole, parts = (measured(workspace, images, targets, batch) for batch in (500, 5))
    for one, other in zip(whole.values, parts.values, strict=True):
        assert measures(other) == pytest.approx(measures(one), rel=1e-5, abs=1e-6)
