"""The panel: halves of the real images, metrics of few and odd images, draws put together, numbers that stay."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import OURS, Warm, copied, forget, numbers, plain, run_here
from torch import Tensor

from leakbench.bench.executors import run_task
from leakbench.bench.grid import make_config, plan
from leakbench.bench.pipeline import Jury, Settings, Workshop
from leakbench.contracts import Context
from leakbench.errors import NumericalError, UsageError
from leakbench.leakage.inversion.panel import Measured, compared, judged, merged, some_of_each, split, value
from leakbench.metrics.estimate import Estimate, proportion
from leakbench.models.training import predict
from leakbench.records import ClassScore, Value
from leakbench.runtime.process import fixed_threads

CPU = torch.device("cpu")


def quiet(_what: str, _done: int, _total: int) -> None:
    return None


@pytest.fixture(scope="module")
def jury(warm: Warm) -> Jury:
    """The judges of the tiny run and its real images: two of each of three classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(warm.out))  # no weights of the user's own
        patch.delenv("LEAKBENCH_INCEPTION", raising=False)
        return Workshop(Settings(cache=str(warm.cache)), quiet).jury(warm.tiny.dataset)


@pytest.fixture(scope="module")
def shapes(warm: Warm) -> tuple[Tensor, Tensor]:
    """Images and labels that the judges were trained on, sixteen of each class in turn."""
    train = Workshop(Settings(cache=str(warm.cache)), quiet).dataset(warm.tiny.dataset).train
    order = torch.cat([(train.labels == c).nonzero().flatten() for c in range(3)]).view(3, 16).T.flatten()
    return train.images[order], train.labels[order]


def measured(jury: Jury, images: Tensor, targets: Tensor, batch: int = 500) -> Measured:
    """Everything, as a cell of the grid gets it."""
    with fixed_threads(1):
        found = judged(predict(jury.ensemble.probabilities, images, CPU, batch), targets)
        features = predict(jury.ensemble.judges[0].features, images, CPU, batch)
        context = Context(torch.Generator().manual_seed(0))
        found.add(compared(images, targets, features, features, jury.real, context))
    return found


def value_of(found: Measured, metric: str) -> Value:
    (one,) = [v for v in found.values if v.metric == metric]
    return one


def by_class(found: Measured, metric: str) -> dict[int, ClassScore]:
    return {score.target: score for score in found.classes if score.metric == metric}


def measures(one: Value | ClassScore) -> dict[str, float]:
    """Its numbers by name, those that it has."""
    found = {"low": one.low, "value": one.value, "high": one.high, "n": one.n}
    return {name: number for name, number in found.items() if number is not None}


# --- halves and choices ------------------------------------------------------------------------------------------


def test_the_two_halves_share_no_image_and_have_every_class() -> None:
    labels = torch.tensor([0] * 10 + [1] * 7 + [2] * 2 + [5] * 3)[torch.randperm(22, generator=torch.Generator())]
    anchors, others = split(labels)
    assert sorted(torch.cat([anchors, others]).tolist()) == list(range(22))
    for part, counts in ((anchors, {0: 5, 1: 3, 2: 1, 5: 1}), (others, {0: 5, 1: 4, 2: 1, 5: 2})):
        assert {c: int((labels[part] == c).sum()) for c in (0, 1, 2, 5)} == counts
    again = split(labels)
    assert torch.equal(again[0], anchors) and torch.equal(again[1], others)


def test_an_only_image_of_a_class_is_in_both_halves() -> None:
    anchors, others = split(torch.tensor([0, 0, 0, 0, 3]))
    assert 4 in anchors.tolist() and 4 in others.tolist()
    assert set(anchors.tolist()) & set(others.tolist()) == {4}


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


# --- what the judges say -----------------------------------------------------------------------------------------


def opinions(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_the_judges_say_by_hand() -> None:
    p = opinions([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.5, 0.1, 0.4]])
    found = judged(p, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert found.refused == []
    accuracy = proportion(4, 6)
    assert value_of(found, "judge_accuracy") == value("judge_accuracy", accuracy)
    assert {c: (score.value, score.n) for c, score in by_class(found, "judge_accuracy").items()} == {
        0: (0.5, 2),
        1: (1.0, 2),
        2: (0.5, 2),
    }
    half = proportion(1, 2)
    assert (by_class(found, "judge_accuracy")[0].low, by_class(found, "judge_accuracy")[0].high) == (
        half.low,
        half.high,
    )
    # first sheet: images 0, 2, 4, each rated highest for its own class; second: 1, 3, 5, of which 5 rates higher for 0
    assert {c: score.value for c, score in by_class(found, "daa").items()} == {0: 0.5, 1: 1.0, 2: 1.0}
    assert value_of(found, "daa") == value("daa", proportion(5, 6))
    # class means .55 .25 .2, .15 .55 .3, .35 .15 .5: no other of the six ways to deal them sums higher than 1.6
    assert value_of(found, "p_value").value == pytest.approx(1 / 6)
    assert [v.metric for v in found.values] == ["judge_accuracy", "daa", "p_value"]


@pytest.mark.parametrize(("classes", "reported"), [(19, False), (20, True)])
def test_the_top_five_are_reported_from_twenty_classes_on(classes: int, reported: bool) -> None:
    """The k-th class's image has its own class in the k-th place of what the judges say."""
    p = torch.full((classes, classes), 1e-3)
    for k in range(classes):
        better = [c for c in range(classes) if c != k][:k]
        p[k, better] = torch.linspace(0.9, 0.6, max(1, k))[:k]
        p[k, k] = 0.5
    p /= p.sum(1, keepdim=True)
    found = judged(p, torch.arange(classes))
    assert ("judge_top5" in [v.metric for v in found.values]) == reported
    if reported:
        assert value_of(found, "judge_top5") == value("judge_top5", proportion(5, classes))
        assert {c for c, score in by_class(found, "judge_top5").items() if score.value == 1} == set(range(5))
    assert value_of(found, "judge_accuracy").value == pytest.approx(1 / classes)


def test_images_of_one_class_are_judged_and_not_compared_with_each_other() -> None:
    found = judged(opinions([[0.8, 0.2], [0.3, 0.7]]), torch.tensor([0, 0]))
    assert value_of(found, "judge_accuracy").value == 0.5
    assert value_of(found, "p_value").value == 1
    assert [line for line in found.refused if line.startswith("daa: not measured: ")] == found.refused != []


@pytest.mark.parametrize("rows", [[[float("nan"), 0.5]], [[3.0, -2.0]]])
def test_judges_that_break_down_are_an_error(rows: list[list[float]]) -> None:
    with pytest.raises((NumericalError, UsageError)):
        judged(opinions(rows), torch.tensor([0]))


# --- few images and odd ones -------------------------------------------------------------------------------------

ALL = {
    *("judge_accuracy", "daa", "p_value", "kes", "knn_distance", "fd_bnconv", "kd_bnconv"),
    *("precision", "recall", "density", "coverage"),
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
        ("one", OF_SETS | {"daa", "kes", "fd_bnconv", "kd_bnconv"}),
        ("identical", set()),
        ("black", set()),
        ("one class", {"daa"}),
    ],
)
def test_few_or_odd_images_give_a_number_or_a_reason(
    jury: Jury, shapes: tuple[Tensor, Tensor], what: str, missing: set[str]
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
    found = measured(jury, images, targets)
    assert {v.metric for v in found.values} == ALL - missing
    refused = " ".join(line.partition(":")[0] for line in found.refused).replace(",", "").split()
    assert set(refused) == missing
    assert all(len(line.splitlines()) == 1 for line in found.refused)
    for one in [*map(measures, found.values), *map(measures, found.classes)]:
        assert all(math.isfinite(number) for number in one.values())
        assert one.get("low", one["value"]) <= one["value"] <= one.get("high", one["value"])
    present = set(targets.tolist())
    assert set(by_class(found, "judge_accuracy")) == present
    if "kes" not in missing:
        assert set(by_class(found, "kes")) == {0, 1, 2}  # all that it is tested on, whatever it was taught


@pytest.mark.slow
def test_metrics_of_real_images_tell_them_from_noise(jury: Jury, shapes: tuple[Tensor, Tensor]) -> None:
    images, targets = (part[:12] for part in shapes)
    real = measured(jury, images, targets)
    noise = measured(
        jury,
        torch.randint(0, 256, images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8),
        targets,
    )
    for metric in ("judge_accuracy", "daa", "kes"):
        assert value_of(real, metric).value > value_of(noise, metric).value
    for metric in ("knn_distance", "fd_bnconv", "kd_bnconv"):
        assert value_of(real, metric).value < value_of(noise, metric).value
    assert value_of(real, "p_value").value == pytest.approx(1 / 6)  # the least of three classes


# --- draws put together ------------------------------------------------------------------------------------------


def test_several_draws_are_counted_together_or_averaged() -> None:
    draws = [
        Measured(
            [
                value("judge_accuracy", proportion(hits, 20)),
                value("fd_bnconv", Estimate(distance, distance - 3, distance + 4, 20)),
                value("p_value", Estimate(0.01)),
                value("kd_bnconv", Estimate(distance / 10, n=20)),
                *([value("precision", proportion(3, 20))] if number else []),  # not of every draw
            ],
            [ClassScore(metric="judge_accuracy", target=4, value=hits / 20, n=20)],
            ["daa: not measured: mine"],
        )
        for number, (hits, distance) in enumerate(((3, 10.0), (5, 20.0)))
    ]
    found = merged(draws)
    assert value_of(found, "judge_accuracy") == value("judge_accuracy", proportion(8, 40))
    # errors in quadrature over the number of draws; a distance at 20 images stays one at 20 images
    assert value_of(found, "fd_bnconv") == value("fd_bnconv", Estimate(15, 15 - 18**0.5 / 2, 15 + 32**0.5 / 2, 20))
    assert value_of(found, "kd_bnconv") == Value(metric="kd_bnconv", value=1.5, n=20)
    assert {v.metric for v in found.values} == {"judge_accuracy", "fd_bnconv", "kd_bnconv"}
    (score,) = found.classes
    wilson = proportion(8, 40)
    assert (score.target, score.value, score.low, score.high, score.n) == (4, 0.2, wilson.low, wilson.high, 40)
    assert found.refused == ["daa: not measured: mine"]


@pytest.mark.slow
def test_one_draw_stays_as_it_is_but_for_its_p(jury: Jury, shapes: tuple[Tensor, Tensor]) -> None:
    images, targets = shapes
    draw = measured(jury, images[:6], targets[:6])
    found = merged([draw])
    assert found.values == [v for v in draw.values if v.metric != "p_value"]
    assert (found.classes, found.refused) == (draw.classes, draw.refused)


def test_what_was_measured_survives_json(jury: Jury, shapes: tuple[Tensor, Tensor]) -> None:
    images, targets = shapes
    found = measured(jury, images[:3], targets[:3])
    assert found.refused
    assert Measured.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_a_reason_is_kept_and_other_errors_are_not_swallowed() -> None:
    found = Measured()
    with found.attempt("mine"):
        found.values.append(value("mine", Estimate(math.inf)))
    assert (found.values, found.refused) == ([], ["mine: not measured: mine came out as inf"])
    with pytest.raises(ZeroDivisionError), found.attempt("mine"):
        raise ZeroDivisionError


# --- numbers that stay -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_images_in_another_order_give_the_same_numbers(jury: Jury, shapes: tuple[Tensor, Tensor]) -> None:
    """But for students, who meet them in their order, and contact sheets, which are the j-th images of all classes."""
    images, targets = (part[:24] for part in shapes)
    first = measured(jury, images, targets)
    shuffled = torch.randperm(24, generator=torch.Generator().manual_seed(4))
    turned = torch.arange(24).view(8, 3).flip(1).flatten()  # other classes first, their images in the same order
    for order, left_out in ((shuffled, {"kes", "daa"}), (turned, {"kes"})):
        again = measured(jury, images[order], targets[order])
        for one, other in zip(first.values, again.values, strict=True):
            if one.metric not in left_out:
                assert measures(other) == pytest.approx(measures(one), rel=1e-6, abs=1e-9)
        for metric in {"judge_accuracy", "daa", "knn_distance"} - left_out:
            for c, score in by_class(first, metric).items():
                assert measures(by_class(again, metric)[c]) == pytest.approx(measures(score), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("batch", [1, 7])
def test_other_batches_give_the_same_answers_and_features(
    jury: Jury, shapes: tuple[Tensor, Tensor], batch: int
) -> None:
    images = shapes[0][:24]
    for ask in (jury.ensemble.probabilities, jury.ensemble.judges[0].features):
        whole = predict(ask, images, CPU)
        torch.testing.assert_close(predict(ask, images, CPU, batch), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_other_batches_give_the_same_numbers(jury: Jury, shapes: tuple[Tensor, Tensor]) -> None:
    images, targets = (part[:24] for part in shapes)
    whole, parts = (measured(jury, images, targets, batch) for batch in (500, 5))
    for one, other in zip(whole.values, parts.values, strict=True):
        assert measures(other) == pytest.approx(measures(one), rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit(warm: Warm, tmp_path: Path) -> None:
    """What judges say, what real images are compared by and what perturbations do, all of it computed again."""
    cache = copied(warm.cache, tmp_path / "cache")
    forget(cache, "features", "jury", "judged", "compared", "uap-brackets")
    config = make_config(warm.tiny.options())
    of_one_thread = numbers(warm.record)
    torch.set_num_threads(2)
    try:
        workshop = Workshop(Settings(cache=str(cache)), quiet)
        cells = [
            cell
            for cell in plan(config)
            if (cell.anchor, cell.of) == ("real", "real")
            or (
                cell.attack
                and cell.attack.name == "direct"
                and cell.defense
                and cell.defense.name == OURS
                and not cell.of
            )
        ]
        results = [run_task(workshop, "compute", cell) for cell in cells]
        outcomes = [result.outcome for result in results]
    finally:
        torch.set_num_threads(1)
    assert len(outcomes) == 2
    for (defense, attack), outcome in zip((("", "real (fresh draw)"), (OURS, "direct")), outcomes, strict=True):
        found = {v.metric: (v.value, v.low, v.high, v.n) for v in outcome.values if v.metric != "seconds"}
        assert found == {key[5]: of_one_thread[key] for key in of_one_thread if key[2:4] == (defense, attack)}
        assert len(found) >= 10


@pytest.mark.slow
def test_the_order_of_defences_and_attacks_changes_no_bit(warm: Warm, tmp_path: Path) -> None:
    """Seeds are of what is computed and not of when: from the networks on, all is computed again in another order."""
    cache = copied(warm.cache, tmp_path / "cache")
    forget(cache, "victim")
    options: dict[str, Any] = warm.tiny.options(
        defense=[OURS, "random"], attack=[f"{warm.tiny.gated}:Gated", "direct"], controls=False
    )
    record = run_here(options, cache, tmp_path / "run")
    order = [
        (plain(cell.defense), plain(cell.attack))
        for cell in record.cells
        if cell.defense and cell.attack and not cell.of
    ]
    assert order == [(OURS, "gated"), (OURS, "direct"), ("random", "gated"), ("random", "direct")]
    before = [
        (plain(cell.defense), plain(cell.attack))
        for cell in warm.record.cells
        if plain(cell.defense) in (OURS, "random") and cell.attack
    ]
    assert [pair for pair in before if pair in order] == order[::-1]
    assert numbers(record) == numbers(warm.record, OURS, "random")
