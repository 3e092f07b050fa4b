"""The ANN of a cell: trained, or a user's own weights, and its accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from leakbench.bench.grid import SIZES, standardizes, victim_recipe
from leakbench.cells import BaseCell
from leakbench.contracts import Context, ImageClassifier
from leakbench.data import Split
from leakbench.errors import NumericalError
from leakbench.leakage.kind import OtherTraining
from leakbench.metrics.accuracy import accuracy
from leakbench.metrics.estimate import Estimate
from leakbench.models import Architecture, model_identity
from leakbench.models.standardized import standardized
from leakbench.models.storage import build_ann, load_ann, save_network
from leakbench.models.training import Recipe, predict, train
from leakbench.models.weights import load_checkpoint
from leakbench.runtime.fence import unless_built_in
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, ArtifactRecord, Content
from leakbench.runtime.workspace import Stage, Workspace, digest

ANN = Stage("ann", 2)


class AnnRecord(ArtifactRecord):
    """What is kept beside an ANN's weights."""

    network: Mapping[str, Any]
    """as :func:`save_network` gives it"""
    accuracy: Estimate
    """on the test images"""


@dataclass(frozen=True)
class _Trained:
    """The origin of weights: a training."""

    recipe: Recipe
    replicate: int


@dataclass(frozen=True)
class _Given:
    """The origin of weights: the user's file."""

    weights: str
    """their digest"""


@dataclass(frozen=True)
class Training:
    """What a network is trained on in the place of the data set's training images."""

    split: Split
    fingerprint: str
    """of these images and labels, and of the data set that they are from"""

    @classmethod
    def of(cls, workspace: Workspace, cell: BaseCell, other: OtherTraining, whose: str) -> Self:
        """That of a network of this name in words, on the cell's data set."""
        split = Split(other.images, other.labels)
        of_images = digest({"images": split.images, "labels": split.labels})
        return cls(split, f"{workspace.dataset(cell.dataset).fingerprint} {whose} {of_images}")


@dataclass(frozen=True)
class TrainedAnn:
    """An ANN of the store."""

    artifact: Artifact
    record: AnnRecord

    @property
    def accuracy(self) -> Estimate:
        """On the test images."""
        return self.record.accuracy

    def network(self, device: torch.device) -> ImageClassifier:
        """A copy of it."""
        return load_ann(self.artifact.tensors, self.record.network, device)


def trained_ann(workspace: Workspace, cell: BaseCell, training: Training | None = None) -> TrainedAnn:
    """The trained ANN of a cell, or the user's checkpoint; with ``training`` the same recipe on other images.

    The accuracy of one that was trained on test images, as references are, is flattered by them.
    """
    data = workspace.dataset(cell.dataset)
    training = training or Training(data.train, data.fingerprint)
    split = training.split
    recipe = victim_recipe(cell.preset, cell.model, len(split), min(data.image_shape[1:]), data.flips)
    standard = cell.checkpoint is None and standardizes(cell.preset, cell.model, len(split))
    blank = untrained_ann(workspace, cell)
    if cell.checkpoint is not None:
        load_checkpoint(Path(cell.checkpoint), blank)
        origin: _Trained | _Given = _Given(digest(save_network(blank)[0]))
    else:
        origin = _Trained(recipe, cell.seed)

    def build(context: Context) -> Content:
        network = blank
        if cell.checkpoint is None:
            network = untrained_ann(workspace, cell, context.generator)
            with standardized(network) if standard else nullcontext():
                train(
                    network, split.images, split.labels, recipe, context.generator, workspace.device,
                    "training the ANN", workspace.progress, context.loop("training"),
                )  # fmt: skip
        network.to(workspace.device).eval()
        answers = finite(predict(network, data.test.images, workspace.device), "the ANN")
        tensors, record = save_network(network)
        return tensors, AnnRecord(network=record, accuracy=accuracy(answers, data.test.labels)).model_dump()

    inputs = {"data": training.fingerprint, "model": cell.model_label, **asdict(origin)}
    computed: dict[str, str] = {} if cell.precision == "float32" else {"precision": cell.precision}
    if standard:
        computed["weights"] = "standardized"
    threads = SIZES[cell.preset].training_threads if cell.checkpoint is None else 1
    seed = seed_of("ann", **inputs)
    artifact = workspace.make(ANN, seed, inputs | computed | model_identity(cell.model), build, threads=threads)
    return TrainedAnn(artifact, AnnRecord.read(artifact))


def untrained_ann(workspace: Workspace, cell: BaseCell, generator: torch.Generator | None = None) -> ImageClassifier:
    """The cell's model for its data, initialised from ``generator`` (with any values, if none is given)."""
    data = workspace.dataset(cell.dataset)
    with unless_built_in("model", Architecture.parse(cell.model).model):
        network = build_ann(cell.model, data.image_shape, len(data.classes), data.input_range, generator)
    network.precision = cell.precision
    return network


def finite(logits: torch.Tensor, name: str) -> torch.Tensor:
    """The logits. NumericalError where one is NaN or infinite."""
    if not torch.isfinite(logits).all():
        raise NumericalError(f"{name} puts out NaN or infinity")
    return logits
