"""The measurement of a set of images: the evaluation models' predictions, and every metric, an artifact each.

In batches of one size (and on one thread, as all that a cell computes), so that a number depends on the images and the
evaluation models alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leakbench.cells import Variant
from leakbench.contracts import Context
from leakbench.errors import UsageError
from leakbench.leakage.inversion.evaluation import (
    Evaluation,
    feature_network,
    inception_of,
    squeezenet_of,
)
from leakbench.leakage.kind import Measured
from leakbench.leakage.measured_metric import CellMetric, cell_metrics, measured_metric
from leakbench.leakage.seed_group import Declarations
from leakbench.metrics.class_votes import Answers, count_votes
from leakbench.metrics.estimate import Estimate, proportion
from leakbench.metrics.frechet import FdSqueezeNet, fd_squeezenet
from leakbench.metrics.judged import checked_judgements
from leakbench.metrics.metric import Measurement
from leakbench.metrics.reconstructions import Features, Memo, RealImages, ReconstructionMetric, Reconstructions
from leakbench.models.training import predict
from leakbench.records import BudgetPoint, ClassScore, Value, Votes, class_score, value
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, ArtifactRecord, Content
from leakbench.runtime.workspace import Stage, Workspace

PREDICTIONS = Stage("predictions", 2)
FEATURES = Stage("image-features", 1)
BUDGET = Stage("budget", 1)


class BudgetRecord(ArtifactRecord):
    """What is kept of the evaluation models' answers to an attack's snapshots."""

    points: list[BudgetPoint]


def metrics_of_files(workspace: Workspace) -> list[type[FdSqueezeNet]]:
    """The metrics that weights of the user's own bring along, named by them."""
    squeezenet = squeezenet_of(workspace)
    return [] if squeezenet is None or squeezenet.released else [fd_squeezenet(squeezenet.name)]


def measured(
    workspace: Workspace, evaluation: Evaluation, images: Artifact, added: Sequence[Variant], quick: bool
) -> Measured:
    """The metrics of a set of images (tensors "images" uint8 [N, C, H, W] and "targets" [N]), and the ``added`` ones.

    Of a ``quick`` check only those that read nothing but the evaluation models' predictions.
    """
    shown = predictions(workspace, evaluation, images)
    classes = images.tensors["targets"].unique()
    attacked = evaluation.fingerprint, str(classes.tolist())
    real = workspace.once(("real", *attacked), lambda: evaluation.real.of(classes))
    drawn = _drawn(workspace, evaluation, images, shown, real)
    total = Measured()
    # one seed for all: no metric's number depends on which others are measured
    seed = seed_of("compared", images=workspace.seed(images))
    inputs = {
        "images": images.key,
        "judges": list(evaluation.keys),
        **evaluation.lines,
        "features": evaluation.inception,
        **evaluation.part_of_key,
    }
    parents = [images, shown, *evaluation.artifacts]
    squeezenet = squeezenet_of(workspace)
    of_files = metrics_of_files(workspace)
    for one in cell_metrics(ReconstructionMetric, added, total, of_files):  # type: ignore[type-abstract]
        if quick and not one.metric.of_predictions:
            continue
        if one.third_party:
            measure = _theirs(one, drawn, workspace.once(("kept", *attacked, str(one.identity)), Memo))
        elif one.metric.applies(drawn):
            measure = _ours(one, drawn)
        else:
            continue
        weights = {"weights": squeezenet.digest} if squeezenet and isinstance(one.metric, FdSqueezeNet) else {}
        total.extend(measured_metric(workspace, one, measure, seed, inputs | weights, parents))
    return total


def votes(workspace: Workspace, evaluation: Evaluation, images: Artifact) -> Votes:
    """Which classes the evaluation models see in a set of images."""
    shown = predictions(workspace, evaluation, images)
    seen = shown.tensors["predictions"].argmax(1)
    accepted = seen.where(evaluation.accepts(shown.tensors), -1)
    targets = images.tensors["targets"].numpy()
    classes = sorted(set(targets.tolist()))

    def pairs(answers: Tensor) -> list[tuple[int, int]]:
        (attack,) = count_votes([[Answers(targets, answers.numpy())]], classes).accepted[0]
        return [(classes[meant], classes[at]) for meant, at in np.argwhere(attack)]

    known, among = shown.tensors["predictions"].shape[1], len(evaluation.classes)
    more = known if among < known else None
    return Votes(classes=classes, among=among, known=more, accepted=pairs(accepted), forced=pairs(seen))


def budget_points(workspace: Workspace, evaluation: Evaluation, attack: Artifact) -> list[BudgetPoint]:
    """What the evaluation models see in what an attack had on its way, and in its outcome (tensors "snapshots" and
    "budgets" of :meth:`Reconstruct.to_tensors`). None of an attack that was run before these were kept."""
    if "budgets" not in attack.tensors:
        return []
    shown = predictions(workspace, evaluation, attack)

    def build(_context: Context) -> Content:
        answers: list[Mapping[str, Tensor]] = [
            evaluation.named(predict(evaluation.ensemble.answers, one, workspace.device))
            for one in attack.tensors["snapshots"]
        ]
        points = [
            _point(float(cost), one["predictions"], evaluation.accepts(one), attack.tensors["targets"])
            for cost, one in zip(attack.tensors["budgets"], [*answers, shown.tensors], strict=True)
        ]
        return {}, BudgetRecord(points=points).model_dump()

    inputs = {
        "images": attack.key,
        "judges": list(evaluation.keys),
        **evaluation.lines,
        **evaluation.part_of_key,
    }
    seed = seed_of("budget", images=workspace.seed(attack))
    artifact = workspace.make(BUDGET, seed, inputs, build, [attack, shown, *evaluation.artifacts])
    return BudgetRecord.read(artifact).points


def _point(cost: float, probabilities: Tensor, accepted: Tensor, targets: Tensor) -> BudgetPoint:
    """Of the ensemble's probabilities [N, classes], and whether it accepts [N], to images of as many of each class."""
    right, classes = probabilities.argmax(1) == targets, targets.unique()

    def hits(which: Tensor) -> list[int]:
        return [int(which[targets == one].sum()) for one in classes]

    images = len(targets) // len(classes)
    return BudgetPoint(cost=cost, images=images, accepted=hits(right & accepted), forced=hits(right))


def _ours(one: CellMetric[ReconstructionMetric[Any]], drawn: Reconstructions) -> Callable[[Context], Measurement]:
    return lambda context: one.metric.measure(replace(drawn, context=context))


def _theirs(
    one: CellMetric[ReconstructionMetric[Any]], drawn: Reconstructions, memo: Memo
) -> Callable[[Context], Measurement]:
    """A third party's metric gets copies; what it keeps of the real images is its own, too."""

    def measure(context: Context) -> Measurement:
        copied = replace(drawn.copied(memo), context=context)
        if not one.metric.applies(copied):
            raise UsageError("it does not apply to these images")
        return one.metric.measure(copied)

    return measure


def predictions(workspace: Workspace, evaluation: Evaluation, images: Artifact) -> Artifact:
    """The evaluation models' answers to the images: tensors as of :func:`named`."""

    def build(_context: Context) -> Content:
        answers = evaluation.named(predict(evaluation.ensemble.answers, images.tensors["images"], workspace.device))
        checked_judgements(answers["predictions"], images.tensors["targets"])  # models that break down fail the cell
        return answers, {}

    seed = seed_of("judged", images=workspace.seed(images))
    inputs = {"images": images.key, "judges": list(evaluation.keys), **evaluation.part_of_key}
    return workspace.make(PREDICTIONS, seed, inputs, build, [images, *evaluation.artifacts])


def _drawn(
    workspace: Workspace, evaluation: Evaluation, images: Artifact, shown: Artifact, real: RealImages
) -> Reconstructions:
    judges, inception, squeezenet = evaluation.ensemble.judges, inception_of(workspace), squeezenet_of(workspace)

    def features(network: str, identity: Mapping[str, Any], compute: Callable[[Tensor], Tensor]) -> Features:
        def kept() -> Tensor:
            def build(_context: Context) -> Content:
                return {"features": predict(compute, images.tensors["images"], workspace.device)}, {}

            inputs = {"images": images.key, **identity}
            seed = seed_of("compared", images=workspace.seed(images))
            return workspace.make(FEATURES, seed, inputs, build, [images, *evaluation.artifacts]).tensors["features"]

        return Features(network, kept)

    first = features(judges[0].name, {"judge": evaluation.keys[0]}, judges[0].features)
    distance = first
    if inception is not None:
        name = feature_network(inception, list(judges))
        distance = features(name, {"inception": inception.digest}, inception.features)
    imagenet = None
    if squeezenet is not None:
        imagenet = features(squeezenet.name, {"squeezenet": squeezenet.digest}, squeezenet.features)
    return Reconstructions(
        images.tensors["images"],
        images.tensors["targets"],
        shown.tensors["predictions"],
        evaluation.accepts(shown.tensors),
        first,
        distance,
        real,
        Context(torch.Generator(), workspace.device, progress=workspace.progress),
        imagenet,
    )


def merged(draws: Sequence[Measured], declared: Declarations) -> Measured:
    """Several independent draws of an anchor as one: means, errors in quadrature, shares of images counted together."""
    values: list[Value] = []
    for name in dict.fromkeys(one.metric for draw in draws for one in draw.values):
        same = [one for draw in draws for one in draw.values if one.metric == name]
        if declared[name].leaks and len(same) == len(draws):
            values.append(value(name, _together([one.estimate for one in same], declared[name].counts == "images")))
    scores: list[ClassScore] = []
    for name, target in dict.fromkeys((score.metric, score.target) for draw in draws for score in draw.classes):
        each = [s.estimate for draw in draws for s in draw.classes if (s.metric, s.target) == (name, target)]
        scores.append(class_score(name, target, _together(each, declared[name].counts == "images")))
    return Measured(values, scores, list(dict.fromkeys(line for draw in draws for line in draw.refused)))


def _together(estimates: Sequence[Estimate], counted: bool) -> Estimate:
    count = len(estimates)
    if count == 1:
        return estimates[0]
    if counted:
        return proportion(round(sum(one.value * one.n for one in estimates)), sum(one.n for one in estimates))
    centre = sum(one.value for one in estimates) / count
    below = math.sqrt(sum((one.value - one.low) ** 2 for one in estimates)) / count
    above = math.sqrt(sum((one.high - one.value) ** 2 for one in estimates)) / count
    # a distance at n images stays one at n images, however many draws it is the mean of
    return Estimate(centre, centre - below, centre + above, min(one.n for one in estimates))
