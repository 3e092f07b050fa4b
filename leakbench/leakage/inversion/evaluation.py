"""The evaluation models of a data set (judges), and the real images that reconstructions are compared with.

No attack or defence can reach either. They are trained once a data set, from seeds of their own, so that every victim
is scored by the same models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from leakbench.contracts import Context
from leakbench.data import Dataset
from leakbench.leakage.halves import halves
from leakbench.metrics.accuracy import accuracy
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.inception import InceptionFeatures, find_inception_weights
from leakbench.metrics.reconstructions import INCEPTION, RELEASED, Features, RealImages
from leakbench.models.judges import JUDGES, Ensemble, Judge, corrupted, train_judge
from leakbench.models.training import predict
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, Content
from leakbench.runtime.workspace import Stage, Workspace

JUDGE = Stage("judge", 2)
FEATURES = Stage("features", 1)
TRAINING_FEATURES = Stage("training-features", 1)
SCORES = Stage("ensemble", 1)

TESTED_IMAGES = 1000
"""test images at most on which the models' own accuracy is measured"""


@dataclass(frozen=True)
class ModelScores:
    """Accuracy of an evaluation model, or of the ensemble."""

    accuracy: Estimate
    corrupted: Estimate
    """on the same images with noise and blur"""


@dataclass(frozen=True)
class Evaluation:
    """What scores the images of one data set."""

    ensemble: Ensemble
    keys: tuple[str, ...]
    """of the models' artifacts"""
    scores: Mapping[str, ModelScores]
    """by model, and of the "ensemble" """
    anchors: Tensor
    """indices of the test images that anchors draw from; the others are the reference"""
    real: RealImages
    inception: str
    """digest of the weights of pytorch-fid's network; empty where they are not at hand"""
    fingerprint: str
    """of the data set"""
    artifacts: tuple[Artifact, ...]
    """what it was made from"""


def evaluation_of(workspace: Workspace, dataset: str) -> Evaluation:
    """The evaluation models of a data set and its real images, loaded once a process."""
    evaluation = workspace.once(("evaluation", dataset), lambda: _evaluation(workspace, dataset))
    workspace.use(evaluation.artifacts)
    return evaluation


def inception_of(workspace: Workspace) -> InceptionFeatures | None:
    """pytorch-fid's network, where its weights are at hand."""

    def load() -> InceptionFeatures | None:
        given = workspace.settings.inception
        path = find_inception_weights(Path(given) if given else None)
        return InceptionFeatures(path, workspace.device) if path else None

    return workspace.once("inception", load)


def feature_network(inception: InceptionFeatures | None, judges: list[Judge]) -> str:
    """Name of the network in whose features distances between distributions are taken."""
    if inception is None:
        return judges[0].name
    return RELEASED if inception.released else INCEPTION


def _judge(workspace: Workspace, data: Dataset, kind: type[Judge]) -> tuple[Judge, Artifact]:
    recipe = kind.recipe(len(data.train), min(data.image_shape[1:]), data.flips)

    def build(context: Context) -> Content:
        judge = train_judge(
            kind, data.train.images, data.train.labels, len(data.classes), recipe, context.generator, workspace.device,
            workspace.progress, context.loop("training"),
        )  # fmt: skip
        return judge.state_dict(), {}

    inputs = {"data": data.fingerprint, "judge": kind.name, "recipe": asdict(recipe)}
    artifact = workspace.make(JUDGE, seed_of("judge", **inputs), inputs, build)
    judge = kind(data.image_shape, len(data.classes))
    judge.load_state_dict(artifact.tensors)
    judge.to(workspace.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return judge.eval(), artifact


def _evaluation(workspace: Workspace, dataset: str) -> Evaluation:
    data = workspace.dataset(dataset)
    pairs = [_judge(workspace, data, kind) for kind in JUDGES]
    judges = [judge for judge, _ in pairs]
    ensemble = Ensemble(judges)
    anchors, others = halves(data.test.labels)
    images, labels = data.test.images[others], data.test.labels[others]
    inception = inception_of(workspace)
    keys = tuple(artifact.key for _, artifact in pairs)

    def features(_context: Context) -> Content:
        workspace.progress("features of the real images", 0, 1)
        tensors = {"judge": predict(judges[0].features, images, workspace.device)}
        if inception is not None:
            tensors["distance"] = predict(inception.features, images, workspace.device)
        return tensors, {}

    def scores(context: Context) -> Content:
        picked = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:TESTED_IMAGES].sort().values
        clean = images[picked]
        sets = {"accuracy": clean, "corrupted": corrupted(clean, context.generator)}
        record: dict[str, dict[str, object]] = {}
        for name, x in sets.items():
            workspace.progress("testing the evaluation models", len(record), len(sets))
            answers = {
                judge.name: predict(ensemble.alone(judge).probabilities, x, workspace.device) for judge in judges
            }
            answers["ensemble"] = torch.stack(list(answers.values())).mean(0)
            for model, probabilities in answers.items():
                record.setdefault(model, {})[name] = asdict(accuracy(probabilities, labels[picked]))
        return {}, record

    def training_features() -> Tensor:
        def build(_context: Context) -> Content:
            workspace.progress("features of the training images", 0, 1)
            return {"features": predict(judges[0].features, data.train.images, workspace.device)}, {}

        given = {"judge": keys[0], "data": data.fingerprint}
        return workspace.make(TRAINING_FEATURES, seed, given, build, parents[:1]).tensors["features"]

    inputs = {"judges": list(keys), "data": data.fingerprint}
    parents = [artifact for _, artifact in pairs]
    seed = seed_of("jury", data=data.fingerprint)  # the stage's first name: other seeds, other numbers
    with_inception = inputs | ({"inception": inception.digest} if inception else {})
    featured = workspace.make(FEATURES, seed, with_inception, features, parents)
    scored = workspace.make(SCORES, seed, inputs, scores, parents)
    tensors = featured.tensors
    real = RealImages(
        images,
        labels,
        Features(judges[0].name, lambda: tensors["judge"]),
        Features(feature_network(inception, judges), lambda: tensors.get("distance", tensors["judge"])),
        data.train.images,
        data.train.labels,
        Features(judges[0].name, training_features),
    )
    by_model = {
        model: ModelScores(*(Estimate(**scores[name]) for name in ("accuracy", "corrupted")))
        for model, scores in scored.record.items()
    }
    digest = inception.digest if inception else ""
    return Evaluation(ensemble, keys, by_model, anchors, real, digest, data.fingerprint, (*parents, featured, scored))
