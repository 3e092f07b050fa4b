"""Accuracy: the share of images that a network names right."""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.contracts import Params
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import Estimate, proportion
from leakbench.metrics.metric import Metric


def accuracy(logits_or_predictions: Tensor, labels: Tensor) -> Estimate:
    """Top-1 accuracy in [0, 1] with its Wilson interval.

    Takes logits (or probabilities) [N, C] of floats, or predicted classes [N] of integers; ``labels`` are
    integers [N]. A tie goes to the lower class index, as in torch.argmax. Raises UsageError for other shapes,
    types, labels out of range or N = 0, NumericalError for NaN or infinite logits.
    """
    predictions = _predictions(logits_or_predictions)
    if labels.ndim != 1 or labels.is_floating_point() or len(labels) != len(predictions):
        raise UsageError(f"labels must be {len(predictions)} integers [N], got {labels.dtype} {tuple(labels.shape)}")
    if logits_or_predictions.ndim == 2 and len(labels):
        classes = logits_or_predictions.shape[1]
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise UsageError(f"labels must be classes 0..{classes - 1}")
    hits = int((predictions.cpu() == labels.cpu()).sum())
    return proportion(hits, len(labels))


def _predictions(given: Tensor) -> Tensor:
    if given.ndim == 2 and given.is_floating_point() and given.shape[1]:
        if not torch.isfinite(given).all():
            raise NumericalError("accuracy: the logits hold NaN or infinity")
        return given.argmax(1)
    if given.ndim == 1 and not given.is_floating_point():
        return given
    raise UsageError(
        f"accuracy needs float logits [N, C] or integer predictions [N], got {given.dtype} {tuple(given.shape)}"
    )


class Accuracy(Metric[Params]):
    """Share of test images that the deployed network classifies correctly."""

    name = "accuracy"
    title = "Accuracy"
    unit = "share"


class AnnAccuracy(Metric[Params]):
    """Share of test images that the ANN which the defence started from classifies correctly."""

    name = "ann_accuracy"
    title = "ANN accuracy"
    unit = "share"


MOST_LOST = 0.02
"""of its ANN's accuracy, beyond which a defence neither resists nor has a rank: a network that knows less leaks less"""


def lost_too_much(drop: float) -> bool:
    """Whether an accuracy lies more than MOST_LOST below its ANN's; .92 - .90 is .02, whatever floats make of it."""
    return not drop <= MOST_LOST + 1e-6


class AccuracyDrop(Metric[Params]):
    """Accuracy of the ANN less that of the deployed network."""

    name = "accuracy_drop"
    title = "Accuracy lost"
    unit = "share"


class ReconvertedAccuracy(Metric[Params]):
    """Accuracy of the ReLU network that the deployed weights are reconverted to."""

    name = "reconverted_accuracy"
    title = "Reconverted accuracy"
    unit = "share"


class VictimAccuracy(Metric[Params]):
    """Share of the attack's images that the attacked network itself classifies as the target class. Low means that the
    optimisation failed, which is no protection.
    """

    name = "victim_accuracy"
    title = "Victim's own accuracy"
    unit, leakage = "share", "inversion"


class VictimConfidence(Metric[Params]):
    """Mean probability that the attacked network itself gives to the target class of the attack's images."""

    name = "victim_confidence"
    title = "Victim's confidence"
    unit, leakage = "share", "inversion"


class StudentAgreement(Metric[Params]):
    """Share of real test images that the attack's own model of the victim classifies as the victim does; of attacks
    that hand one over.
    """

    name = "student_agreement"
    title = "Student's agreement with the victim"
    unit, leakage = "share", "inversion"
