"""The measurement of a set of images: the evaluation models' predictions, and every metric, an artifact each.

In batches of one size (and on one thread, as all that a cell computes), so that a number depends on the images and the
evaluation models alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from leakbench import registry
from leakbench.cells import Variant
from leakbench.contracts import Context
from leakbench.errors import LeakBenchError, PluginError
from leakbench.leakage.inversion.evaluation import Evaluation, evaluation_of, feature_network, inception_of
from leakbench.leakage.kind import Measured
from leakbench.leakage.seed_group import Declarations
from leakbench.metrics.estimate import Estimate, proportion
from leakbench.metrics.judged import checked_judgements
from leakbench.metrics.metric import Measurement
from leakbench.metrics.reconstructions import Features, ReconstructionMetric, Reconstructions
from leakbench.models.training import predict
from leakbench.records import ClassScore, Value, class_score, value
from leakbench.runtime.fence import described, fenced, made_plugin
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, Content
from leakbench.runtime.workspace import Stage, Workspace

PREDICTIONS = Stage("predictions", 1)
FEATURES = Stage("image-features", 1)
METRIC = Stage("metric", 1)
"""a metric's own version stands in its declaration"""

METRICS = (
    "judge_accuracy", "judge_top5", "daa", "p_value", "kes", "knn_distance", "fid", "fd_bnconv", "fd_inception", "kid",
    "kd_bnconv", "kd_inception", "precision", "recall", "density", "coverage",
)  # fmt: skip
"""what is measured of every set of images, in the order of the record"""


def measured(workspace: Workspace, dataset: str, images: Artifact, added: Sequence[Variant], quick: bool) -> Measured:
    """The metrics of a set of images (tensors "images" uint8 [N, C, H, W] and "targets" [N]), and the ``added`` ones.

    Of a ``quick`` check only those that read nothing but the evaluation models' predictions.
    """
    evaluation = evaluation_of(workspace, dataset)
    shown = predictions(workspace, evaluation, images)
    drawn = _drawn(workspace, evaluation, images, shown)
    total = Measured()
    for metric, identity in _metrics(added):
        if (metric.of_predictions or not quick) and metric.applies(drawn):
            _measure(workspace, evaluation, images, shown, drawn, metric, identity, total)
    return total


def predictions(workspace: Workspace, evaluation: Evaluation, images: Artifact) -> Artifact:
    """The evaluation models' mean class probabilities of the images: tensor "predictions" [N, classes]."""

    def build(_context: Context) -> Content:
        probabilities = predict(evaluation.ensemble.probabilities, images.tensors["images"], workspace.device)
        checked_judgements(probabilities, images.tensors["targets"])  # models that break down fail the cell
        return {"predictions": probabilities}, {}

    seed = seed_of("judged", images=workspace.seed(images))
    inputs = {"images": images.key, "judges": list(evaluation.keys)}
    return workspace.make(PREDICTIONS, seed, inputs, build, [images, *evaluation.artifacts])


def _drawn(workspace: Workspace, evaluation: Evaluation, images: Artifact, shown: Artifact) -> Reconstructions:
    judges, inception = evaluation.ensemble.judges, inception_of(workspace)

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
    return Reconstructions(
        images.tensors["images"],
        images.tensors["targets"],
        shown.tensors["predictions"],
        first,
        distance,
        evaluation.real,
        Context(torch.Generator(), workspace.device, progress=workspace.progress),
    )


def _metrics(added: Sequence[Variant]) -> list[tuple[ReconstructionMetric[Any], dict[str, Any]]]:
    """Every metric with what its key says of it."""
    metrics: list[tuple[ReconstructionMetric[Any], dict[str, Any]]] = []
    for name in METRICS:
        metric = registry.load("metric", name)()
        metrics.append((metric, {"metric": name, "version": metric.version}))
    for variant in added:
        metric = made_plugin("metric", variant.target, variant.params)
        if metric.leakage == "inversion":
            metrics.append((metric, variant.identity))
    return metrics


def _measure(
    workspace: Workspace,
    evaluation: Evaluation,
    images: Artifact,
    shown: Artifact,
    drawn: Reconstructions,
    metric: ReconstructionMetric[Any],
    identity: Mapping[str, Any],
    total: Measured,
) -> None:
    # one seed for all: no metric's number depends on which others are measured
    seed = seed_of("compared", images=workspace.seed(images))
    third_party = "code" in identity

    def build(context: Context) -> Content:
        fence: AbstractContextManager[None] = fenced(metric.name, seed) if third_party else nullcontext()
        try:
            with fence:
                one = metric.measure(replace(drawn, context=context))
            if not isinstance(one, Measurement):
                raise PluginError(f"{metric.name}.measure must return a Measurement, got {type(one).__name__}")
            checked = Measured()
            checked.add(metric.name, one)
        except LeakBenchError as error:
            return {}, {"refused": str(error)}
        except Exception as error:
            if not third_party:
                raise
            return {}, {"refused": described(error)}
        return {}, {"estimate": asdict(one.estimate), "classes": {str(c): asdict(e) for c, e in one.classes.items()}}

    inputs = {
        **identity,
        "images": images.key,
        "judges": list(evaluation.keys),
        "features": evaluation.inception,
    }
    artifact = workspace.make(METRIC, seed, inputs, build, [images, shown, *evaluation.artifacts])
    if "refused" in artifact.record:
        total.refused.append(f"{metric.name}: not measured: {artifact.record['refused']}")
        return
    classes = {int(c): Estimate(**one) for c, one in artifact.record["classes"].items()}
    total.add(metric.name, Measurement(Estimate(**artifact.record["estimate"]), classes))


def merged(draws: Sequence[Measured], declared: Declarations) -> Measured:
    """Several independent draws of an anchor as one: means, errors in quadrature, shares of images counted together."""
    values: list[Value] = []
    for name in dict.fromkeys(one.metric for draw in draws for one in draw.values):
        same = [one for draw in draws for one in draw.values if one.metric == name]
        if declared[name].scale and len(same) == len(draws):
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
