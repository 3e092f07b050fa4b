"""The panel: every metric of a set of images, beside the real images that it is compared with.

In batches of one size (and on one thread, as all that a cell computes), so that its numbers depend on the images and
the judges alone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from leakbench.contracts import Context
from leakbench.errors import LeakBenchError, NumericalError
from leakbench.metrics.daa import daa_hits
from leakbench.metrics.estimate import Estimate, exact, mean, proportion
from leakbench.metrics.frechet import FeatureNetwork, FeatureStatistics, frechet_estimate, statistics
from leakbench.metrics.inception import metric_name
from leakbench.metrics.intervals import clustered_mean
from leakbench.metrics.judged import judge_accuracy, top_k_accuracy
from leakbench.metrics.kernel import KernelReference, kernel_estimate, kernel_reference
from leakbench.metrics.kes import knowledge_extraction
from leakbench.metrics.neighbours import class_knn_distance
from leakbench.metrics.permutation import label_permutation_p
from leakbench.metrics.prdc import prdc
from leakbench.records import ClassScore, Value, fields

TOP_K = 5
TOP_K_FROM = 20
"""classes from which on the top five are reported"""
TEST_IMAGES = 2000
"""real images at most that students of the reconstructions are tested on"""


@dataclass
class Measured:
    """Metrics of one set of images: for the store as JSON, and back."""

    values: list[Value] = field(default_factory=list)
    classes: list[ClassScore] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """why a metric has no value, one line each"""

    def to_json(self) -> dict[str, Any]:
        return {
            "values": [row.model_dump() for row in self.values],
            "classes": [row.model_dump() for row in self.classes],
            "refused": self.refused,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Measured:
        return cls(
            [Value(**row) for row in record["values"]],
            [ClassScore(**row) for row in record["classes"]],
            list(record["refused"]),
        )

    def add(self, other: Measured) -> None:
        """Take in what else was measured of the same images."""
        self.values += other.values
        self.classes += other.classes
        self.refused += other.refused

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """A metric that can't be computed of these images leaves the others standing, and says why."""
        try:
            yield
        except LeakBenchError as error:
            self.refused.append(f"{what}: not measured: {error}")


@dataclass(frozen=True)
class Reference:
    """The real images that all images of a data set are compared with: no anchor's image is among them."""

    images: Tensor
    """uint8 [M, C, H, W]"""
    labels: Tensor
    judge_features: Tensor
    """[M, d] of the first judge, for neighbours"""
    network: FeatureNetwork
    """in whose features distances are taken: the first judge, or Inception"""
    statistics: FeatureStatistics
    kernel: KernelReference


def split(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of two halves of a test set, class by class: what anchors draw from, what metrics compare with."""
    generator = torch.Generator().manual_seed(0)
    anchors, reference = [], []
    for c in labels.unique().tolist():
        own = (labels == c).nonzero().squeeze(1)
        own = own[torch.randperm(len(own), generator=generator)]
        # of a single image both get it: better than a class that can't be compared with
        half = max(1, len(own) // 2)
        anchors.append(own[:half])
        reference.append(own[half:] if len(own) > 1 else own)
    return torch.cat(anchors), torch.cat(reference)


def some_of_each(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of ``count`` images of each class in random order (all, where a class has fewer), class after class."""
    order = torch.randperm(len(labels), generator=generator)
    return torch.cat([order[labels[order] == c][:count] for c in labels.unique().tolist()])


def reference(
    images: Tensor, labels: Tensor, judge_features: Tensor, network: FeatureNetwork, features: Tensor
) -> Reference:
    """Statistics of the real images, computed once a data set; ``features`` are theirs in ``network``."""
    return Reference(images, labels, judge_features, network, statistics(features), kernel_reference(features))


def judged(opinions: Tensor, targets: Tensor) -> Measured:
    """What the judges say: ``opinions`` [N, C] are their probabilities, ``targets`` [N] what was intended."""
    found = Measured()
    hits = opinions.argmax(1) == targets
    found.values.append(value("judge_accuracy", judge_accuracy(opinions, targets)))
    found.classes += _shares("judge_accuracy", hits, targets)
    if opinions.shape[1] >= TOP_K_FROM:
        found.values.append(value("judge_top5", top_k_accuracy(opinions, targets, TOP_K)))
        found.classes += _shares("judge_top5", _among_top(opinions, targets), targets)
    with found.attempt("daa"):
        own = daa_hits(opinions, targets)
        found.values.append(value("daa", proportion(int(own.sum()), len(own))))
        found.classes += _shares("daa", own, targets)
    with found.attempt("p_value"):
        present = targets.unique()
        table = torch.stack([opinions[targets == c].double().mean(0) for c in present.tolist()])
        found.values.append(value("p_value", exact(label_permutation_p([table.numpy()], present.numpy()))))
    return found


def compared(
    images: Tensor, targets: Tensor, judge_features: Tensor, features: Tensor, real: Reference, context: Context
) -> Measured:
    """Distances to real images and what can be learnt from these: ``images`` uint8 [N, C, H, W], features [N, d]."""
    found = Measured()
    classes = int(real.labels.max()) + 1
    with found.attempt("kes"):
        picked = some_of_each(real.labels, TEST_IMAGES // classes or 1, torch.Generator().manual_seed(0))
        test_images, test_labels = real.images[picked], real.labels[picked]
        scores = knowledge_extraction(
            images, targets, test_images, test_labels, classes, context.generator, context.progress
        )
        tested = torch.bincount(test_labels, minlength=classes).tolist()
        found.values.append(value("kes", clustered_mean(scores.numpy(), images=min(tested))))
        for c, score in enumerate(scores.mean(0).tolist()):
            found.classes.append(_class_score("kes", c, proportion(round(score * tested[c]), tested[c]), score))
    with found.attempt("knn_distance"):
        distances = class_knn_distance(judge_features, targets, real.judge_features, real.labels)
        each = {c: mean(distances[targets == c].tolist()) for c in targets.unique().tolist()}
        found.values.append(value("knn_distance", clustered_mean([[one.value for one in each.values()]])))
        found.classes += [_class_score("knn_distance", c, one) for c, one in each.items()]
    distance = metric_name(real.network)
    with found.attempt(distance):
        found.values.append(value(distance, frechet_estimate(features, real.statistics)))
    kernel = "kid" if distance == "fid" else f"kd_{real.network.name}"
    with found.attempt(kernel):
        found.values.append(value(kernel, kernel_estimate(features, real.kernel)))
    with found.attempt("precision, recall, density, coverage"):
        same = _matched(real.labels, len(images))
        for name, estimate in prdc(judge_features, real.judge_features[same])._asdict().items():
            found.values.append(value(name, estimate))
    return found


def merged(draws: Sequence[Measured]) -> Measured:
    """Several independent draws of an anchor as one: means, errors in quadrature, shares counted together."""
    values = [
        value(name, _together([v.estimate for v in found], name))
        for name in dict.fromkeys(v.metric for draw in draws for v in draw.values)
        if name != "p_value" and len(found := [v for d in draws for v in d.values if v.metric == name]) == len(draws)
    ]
    scores = []
    for metric, target in dict.fromkeys((s.metric, s.target) for draw in draws for s in draw.classes):
        same = [s for d in draws for s in d.classes if (s.metric, s.target) == (metric, target)]
        together = _together([s.estimate for s in same], metric)
        scores.append(_class_score(metric, target, together))
    return Measured(values, scores, list(dict.fromkeys(line for draw in draws for line in draw.refused)))


_COUNTED = ("judge_accuracy", "judge_top5", "daa")
"""shares of images: those of several draws are one share of all of them"""


def _together(estimates: Sequence[Estimate], metric: str) -> Estimate:
    count = len(estimates)
    if count == 1:
        return estimates[0]
    if metric in _COUNTED:
        return proportion(round(sum(one.value * one.n for one in estimates)), sum(one.n for one in estimates))
    centre = sum(one.value for one in estimates) / count
    below = math.sqrt(sum((one.value - one.low) ** 2 for one in estimates)) / count
    above = math.sqrt(sum((one.high - one.value) ** 2 for one in estimates)) / count
    # a distance at n images stays one at n images, however many draws it is the mean of
    return Estimate(centre, centre - below, centre + above, min(one.n for one in estimates))


def _matched(labels: Tensor, count: int) -> Tensor:
    """As many real images as there are others, spread over the classes: these four are biased by their numbers."""
    classes = len(labels.unique())
    picked = some_of_each(labels, -(-count // classes), torch.Generator().manual_seed(1))
    keep = torch.randperm(len(picked), generator=torch.Generator().manual_seed(2))[:count]
    return picked[keep]


def _among_top(opinions: Tensor, targets: Tensor) -> Tensor:
    order = torch.sort(opinions, dim=1, descending=True, stable=True).indices
    return torch.eq(order[:, :TOP_K], targets[:, None]).any(1)


def _shares(metric: str, hits: Tensor, targets: Tensor) -> list[ClassScore]:
    scores = []
    for c in targets.unique().tolist():
        own = hits[targets == c]
        scores.append(_class_score(metric, c, proportion(int(own.sum()), len(own))))
    return scores


def _class_score(metric: str, target: int, estimate: Estimate, score: float | None = None) -> ClassScore:
    given = fields(estimate) | ({} if score is None else {"value": score})
    return ClassScore(metric=metric, target=target, **given)


def value(metric: str, estimate: Estimate) -> Value:
    """An estimate for the record; NumericalError where it is no number."""
    if not math.isfinite(estimate.value):
        raise NumericalError(f"{metric} came out as {estimate.value}")
    return Value(metric=metric, **fields(estimate))
