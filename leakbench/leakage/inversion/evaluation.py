"""The evaluation models of a data set (judges), and the real images that reconstructions are compared with.

No attack or defence can reach either. They are trained once a data set, from seeds of their own, so that every victim
is scored by the same models.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from leakbench.contracts import Context
from leakbench.data import Dataset, dataset_label
from leakbench.data.dataset import are_pictures
from leakbench.data.public import PHOTOS, public_images
from leakbench.leakage.halves import halves
from leakbench.leakage.inversion.gates import below_floor
from leakbench.leakage.inversion.judge_files import read_judges, weights_digest
from leakbench.leakage.inversion.targets import attacked_classes, part_of_key
from leakbench.metrics.accuracy import accuracy
from leakbench.metrics.estimate import Estimate, proportion
from leakbench.metrics.inception import INCEPTION_WEIGHTS, InceptionFeatures
from leakbench.metrics.reconstructions import INCEPTION, RELEASED, Features, RealImages, some_of_each
from leakbench.metrics.squeezenet import SQUEEZENET_WEIGHTS, SqueezeNetFeatures
from leakbench.models.judges import Ensemble, Judge, corrupted, judges_of, operating_point, train_judge
from leakbench.models.outliers import outliers
from leakbench.models.training import SHRUNK, predict
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, ArtifactRecord, Content
from leakbench.runtime.workspace import Stage, Workspace

log = logging.getLogger("leakbench")

OUTLIERS = Stage("outliers", 1)
JUDGE = Stage("judge", 4)
FEATURES = Stage("features", 1)
TRAINING_FEATURES = Stage("training-features", 1)
SQUEEZENET_FEATURES = Stage("squeezenet-features", 1)
SCORES = Stage("ensemble", 3)

MODELS = ("model 1", "model 2")
"""the parts of the work that are the models of a data set, in their order"""
TESTED_IMAGES = 1000
"""test images at most on which the models' own accuracy is measured, and a student's agreement with its victim"""
OTHER_CLASSES = "other classes"
"""real images of classes that were not attacked"""
OUTLIERS_EACH = 1200
"""outliers of each kind; the models never see a sixth of them"""


@dataclass(frozen=True)
class ModelScores:
    """Accuracy of an evaluation model, or of the ensemble."""

    accuracy: Estimate
    corrupted: Estimate
    """on the same images with noise and blur"""


class ScoresRecord(ArtifactRecord):
    """What is kept of the models' tests."""

    models: dict[str, ModelScores]
    open_set: dict[str, Estimate]
    """images -> share that the ensemble sees a class in (of real images, as of "accuracy" and "corrupted": the right
    one)"""
    least_evidence: float
    least_odds: float | None = None
    """None where all classes are attacked"""


@dataclass(frozen=True)
class OpenSetScores:
    """What the ensemble makes of images where it may answer "none of these"."""

    accuracy: Estimate
    """share of real images in which it sees a class, and the right one"""
    corrupted: Estimate
    """the same with noise and blur"""
    outliers: Mapping[str, Estimate]
    """by kind: share of images without a class in which it sees one"""


@dataclass(frozen=True)
class Evaluation:
    """What scores images of the attacked classes of one data set."""

    ensemble: Ensemble
    keys: tuple[str, ...]
    """of the models' artifacts"""
    scores: Mapping[str, ModelScores]
    """by model, and of the "ensemble" """
    open_set: OpenSetScores
    least_evidence: float
    """the evidence (see :meth:`Ensemble.answers`) from which on the ensemble sees a class"""
    least_odds: float | None
    """the odds from which on that is an attacked one; None where all are"""
    classes: Tensor
    """int64 [C'], ascending: those that are attacked, one of which an answer is"""
    anchors: Tensor
    """indices of the test images that anchors draw from; the others are the reference"""
    real: RealImages
    inception: str
    """digest of the weights of pytorch-fid's network; empty where they are not at hand"""
    fingerprint: str
    """of the data set"""
    given: Mapping[str, str]
    """digests of the weights of models that a user's folder gave, by name"""
    artifacts: tuple[Artifact, ...]
    """what it was made from"""

    @property
    def part_of_key(self) -> Mapping[str, int]:
        """What a key says of the attacked classes: nothing where these are all."""
        return {} if self.least_odds is None else {"attacked": len(self.classes)}

    @property
    def lines(self) -> Mapping[str, float]:
        """What a key says of what is accepted."""
        line = {"least_evidence": self.least_evidence}
        return line if self.least_odds is None else {**line, "least_odds": self.least_odds}

    def named(self, answers: Tensor) -> dict[str, Tensor]:
        """See :func:`named`."""
        return named(answers, self.ensemble.judges[0].classes)

    def accepts(self, given: Mapping[str, Tensor]) -> Tensor:
        """See :func:`accepted`."""
        return accepted(given, self.least_evidence, self.least_odds)

    def some_anchors(self, labels: Tensor, classes: Tensor, each: int, generator: torch.Generator) -> Tensor:
        """Indices of ``each`` test images of these classes, of those that anchors draw from; ``labels``: of all."""
        of_classes = self.anchors[torch.isin(labels[self.anchors], classes)]
        return of_classes[some_of_each(labels[of_classes], each, generator)]


def named(answers: Tensor, classes: int) -> dict[str, Tensor]:
    """Answers of :meth:`Ensemble.answers` by name, of models that know so many classes: "predictions" [N, classes],
    "evidence" [N], and "odds" [N] where not all classes are attacked."""
    columns = zip(("evidence", "odds"), answers[:, classes:].unbind(1), strict=False)
    return {"predictions": answers[:, :classes].contiguous(), **{name: one.contiguous() for name, one in columns}}


def accepted(given: Mapping[str, Tensor], least_evidence: float, least_odds: float | None) -> Tensor:
    """Bool [N]: whether the ensemble sees an attacked class in an image, and does not answer "none of these"."""
    seen = given["evidence"] >= least_evidence
    return seen if least_odds is None else seen & (given["odds"] >= least_odds)


def evaluation_of(workspace: Workspace, dataset: str, attacked: int | None = None) -> Evaluation:
    """The evaluation models of a data set and its real images, loaded once a process.

    ``attacked``: how many classes are, at most; None: all.
    """
    evaluation = workspace.once(("evaluation", dataset, attacked), lambda: _evaluation(workspace, dataset, attacked))
    workspace.use(evaluation.artifacts)
    return evaluation


def inception_of(workspace: Workspace) -> InceptionFeatures | None:
    """pytorch-fid's network, where its weights are at hand."""

    def load() -> InceptionFeatures | None:
        given = workspace.settings.inception
        path = INCEPTION_WEIGHTS.find(Path(given) if given else None)
        return InceptionFeatures(path, workspace.device) if path else None

    return workspace.once("inception", load)


def squeezenet_of(workspace: Workspace) -> SqueezeNetFeatures | None:
    """torchvision's network, where weights of it are at hand."""

    def load() -> SqueezeNetFeatures | None:
        given = workspace.settings.features
        path = SQUEEZENET_WEIGHTS.find(Path(given) if given else None)
        return SqueezeNetFeatures(path, workspace.device) if path else None

    return workspace.once("squeezenet", load)


def feature_network(inception: InceptionFeatures | None, judges: list[Judge]) -> str:
    """Name of the network in whose features distances between distributions are taken."""
    if inception is None:
        return judges[0].name
    return RELEASED if inception.released else INCEPTION


def outliers_of(workspace: Workspace, data: Dataset) -> Artifact:
    """What shows none of a data set's classes: tensors by kind, see :func:`outliers`."""

    def build(context: Context) -> Content:
        photographs = public_images(PHOTOS, data).images
        return outliers(data.train.images, photographs, OUTLIERS_EACH, context.generator), {}

    inputs = {"data": data.fingerprint, "each": OUTLIERS_EACH}
    return workspace.make(OUTLIERS, seed_of("outliers", **inputs), inputs, build)


def tested(count: int) -> Tensor:
    """Which of so many test images answers are tested on: ascending indices, TESTED_IMAGES at most."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:TESTED_IMAGES].sort().values


def learnt_and_tested(images: Tensor) -> tuple[Tensor, Tensor]:
    """The outliers of a kind that the models learn from, and those that they are tested on."""
    tested = len(images) // 6
    return images[tested:], images[:tested]


def judge_work(
    kind: type[Judge], shape: tuple[int, int, int], classes: int, training: int, test: int, flips: bool
) -> tuple[float, float]:
    """Multiply-accumulates of a model's forward passes: of ``test`` images, and of all that it is trained on."""
    macs = 0

    def count(layer: nn.Module, _images: object, out: Tensor) -> None:
        nonlocal macs
        macs += out.numel() * layer.get_parameter("weight")[0].numel()

    with torch.device("meta"):  # no weights are drawn
        judge = kind(shape, classes).eval()
    # counting on meta would load torch's compiler, which takes as long as torch, and to_empty sympy
    judge.load_state_dict({name: torch.empty(one.shape) for name, one in judge.state_dict().items()}, assign=True)
    for layer in judge.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        judge(torch.empty(1, *shape))
    recipe = kind.recipe(training, shape, flips)
    smaller = 1 - kind.coarse * (1 - SHRUNK**2)
    return macs * test, macs * smaller * recipe.steps * min(recipe.batch_size, training)


def given_judges(workspace: Workspace, data: Dataset) -> Mapping[str, Judge]:
    """The evaluation models of a user's folder by name; empty where none is named. Errors of :func:`read_judges`."""
    folder = workspace.settings.judges
    if folder is None:
        return {}
    return workspace.once(("judges", data.fingerprint), lambda: read_judges(Path(folder), data))


def model_of(part: str, shape: tuple[int, int, int]) -> type[Judge] | None:
    """The evaluation model of such images that one of :data:`MODELS` is; None for another part."""
    return dict(zip(MODELS, judges_of(shape), strict=True)).get(part)


def prepare_part(workspace: Workspace, dataset: str, part: str) -> None:
    """The outliers of a data set, or one of its models, into the store."""
    data = workspace.dataset(dataset)
    none = outliers_of(workspace, data)
    if kind := model_of(part, data.image_shape):
        _made(workspace, data, kind, none)


def _made(workspace: Workspace, data: Dataset, kind: type[Judge], none: Artifact) -> Artifact:
    given = given_judges(workspace, data).get(kind.name)
    return _trained(workspace, data, kind, none) if given is None else _kept(workspace, data, given)


def _judge(workspace: Workspace, data: Dataset, kind: type[Judge], none: Artifact) -> tuple[Judge, Artifact]:
    artifact = _made(workspace, data, kind, none)
    judge = kind(data.image_shape, len(data.classes))
    judge.load_state_dict(artifact.tensors)
    judge.to(workspace.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return judge.eval(), artifact


def _kept(workspace: Workspace, data: Dataset, judge: Judge) -> Artifact:
    """A given model as an artifact."""
    inputs = {"data": data.fingerprint, "judge": judge.name, "given": weights_digest(judge)}
    return workspace.make(JUDGE, seed_of("judge", **inputs), inputs, lambda _context: (judge.state_dict(), {}))


def _trained(workspace: Workspace, data: Dataset, kind: type[Judge], none: Artifact) -> Artifact:
    recipe = kind.recipe(len(data.train), data.image_shape, data.flips)
    # small images are learnt in minutes
    precision = workspace.settings.precision if are_pictures(data.image_shape) else "float32"

    def build(context: Context) -> Content:
        learnt = torch.cat([learnt_and_tested(images)[0] for images in none.tensors.values()])
        judge = train_judge(
            kind, data.train.images, data.train.labels, len(data.classes), learnt, recipe, context.generator,
            workspace.device, workspace.progress, context.loop("training"), precision,
        )  # fmt: skip
        return judge.state_dict(), {}

    inputs: dict[str, object] = {"data": data.fingerprint, "judge": kind.name, "recipe": asdict(recipe)}
    if are_pictures(data.image_shape):
        inputs["network"] = "of pictures, 3"
    seed = seed_of("judge", **inputs)
    computed = {} if precision == "float32" else {"precision": precision}
    return workspace.make(JUDGE, seed, inputs | computed | {"outliers": none.key}, build, [none])


def _evaluation(workspace: Workspace, dataset: str, attacked: int | None) -> Evaluation:
    data = workspace.dataset(dataset)
    none = outliers_of(workspace, data)
    pairs = [_judge(workspace, data, kind, none) for kind in judges_of(data.image_shape)]
    judges = [judge for judge, _ in pairs]
    classes = attacked_classes(len(data.classes), attacked)
    some = len(classes) < len(data.classes)
    ensemble = Ensemble(judges, classes if some else None)
    known = len(data.classes)
    anchors, others = halves(data.test.labels)
    images, labels = data.test.images[others], data.test.labels[others]
    inception, squeezenet = inception_of(workspace), squeezenet_of(workspace)
    keys = tuple(artifact.key for _, artifact in pairs)

    def features(context: Context) -> Content:
        workspace.progress("features of the real images", 0, 1)
        loop = context.loop("judge")
        tensors = {"judge": predict(judges[0].features, images, workspace.device, loop=loop)}
        if inception is not None:
            loop = context.loop("inception")
            tensors["distance"] = predict(inception.features, images, workspace.device, loop=loop)
        return tensors, {}

    def scores(context: Context) -> Content:
        of_attacked = torch.isin(data.test.labels, classes)
        picked = others[of_attacked[others]]
        picked = picked[tested(len(picked))]
        clean, right = data.test.images[picked], data.test.labels[picked]
        sets = {"accuracy": clean, "corrupted": corrupted(clean, context.generator)}
        sets |= {kind: learnt_and_tested(tensor)[1] for kind, tensor in none.tensors.items()}
        if some:
            foreign = others[~of_attacked[others]]
            sets[OTHER_CLASSES] = data.test.images[foreign[tested(len(foreign))]]
        answers: dict[str, Tensor] = {}
        right_shares: dict[str, dict[str, Estimate]] = defaultdict(dict)
        for name, x in sets.items():
            workspace.progress("testing the evaluation models", len(answers), len(sets))
            each = {judge.name: predict(ensemble.alone(judge).answers, x, workspace.device) for judge in judges}
            each["ensemble"] = answers[name] = torch.stack(list(each.values())).mean(0)
            if name in ("accuracy", "corrupted"):
                for model, rows in each.items():
                    right_shares[model][name] = accuracy(named(rows, known)["predictions"], right)
        if why := below_floor(right_shares["ensemble"]["accuracy"].value, 1 / len(classes)):
            log.warning("%s: %s: verdicts on classes may be inconclusive", dataset_label(data.name), why)

        def line(column: int, indices: Tensor) -> float:
            """What real images reach in a column of the answers."""
            shown = data.test.images[indices[tested(len(indices))]]
            if not are_pictures(data.image_shape):
                # the line that 5 % are to fall short of needs many: of few images it was drawn by four of them
                repeats = math.ceil(TESTED_IMAGES / len(shown))
                shown = torch.cat([corrupted(shown, context.generator) for _ in range(repeats)])
            return operating_point(predict(ensemble.answers, shown, workspace.device)[:, column])

        drawing = anchors if are_pictures(data.image_shape) else others
        least = line(known, drawing)
        least_odds = line(known + 1, drawing[of_attacked[drawing]]) if some else None
        shares: dict[str, Tensor] = {}
        for name, rows in answers.items():
            given = named(rows, known)
            shares[name] = accepted(given, least, least_odds)
            if name in ("accuracy", "corrupted"):
                shares[name] &= given["predictions"].argmax(1) == right
        record = ScoresRecord(
            models={model: ModelScores(**each) for model, each in right_shares.items()},
            open_set={name: proportion(int(hits.sum()), len(hits)) for name, hits in shares.items()},
            least_evidence=least,
            least_odds=least_odds,
        )
        return {}, record.model_dump()

    def training_features() -> Tensor:
        def build(context: Context) -> Content:
            workspace.progress("features of the training images", 0, 1)
            loop = context.loop("judge")
            return {"features": predict(judges[0].features, data.train.images, workspace.device, loop=loop)}, {}

        given = {"judge": keys[0], "data": data.fingerprint}
        return workspace.make(TRAINING_FEATURES, seed, given, build, parents[:1]).tensors["features"]

    def in_squeezenet(network: SqueezeNetFeatures) -> Features:
        def build(context: Context) -> Content:
            workspace.progress("features of the real images", 0, 1)
            loop = context.loop("squeezenet")
            return {"features": predict(network.features, images, workspace.device, loop=loop)}, {}

        given = {"squeezenet": network.digest, "data": data.fingerprint}
        return Features(
            network.name, lambda: workspace.make(SQUEEZENET_FEATURES, seed, given, build).tensors["features"]
        )

    inputs = {"judges": list(keys), "data": data.fingerprint}
    parents = [artifact for _, artifact in pairs]
    seed = seed_of("jury", data=data.fingerprint)  # the stage's first name: other seeds, other numbers
    with_inception = inputs | ({"inception": inception.digest} if inception else {})
    featured = workspace.make(FEATURES, seed, with_inception, features, parents)
    drawn_by = {"line": "clean images"} if are_pictures(data.image_shape) else {}
    drawn_by |= {"outliers": none.key}
    tested_with = {**inputs, **drawn_by, **part_of_key(known, len(classes))}
    scored = workspace.make(SCORES, seed, tested_with, scores, [*parents, none])
    tensors = featured.tensors
    real = RealImages(
        images,
        labels,
        Features(judges[0].name, lambda: tensors["judge"]),
        Features(feature_network(inception, judges), lambda: tensors.get("distance", tensors["judge"])),
        data.train.images,
        data.train.labels,
        Features(judges[0].name, training_features),
        squeezenet_features=None if squeezenet is None else in_squeezenet(squeezenet),
    )
    record = ScoresRecord.read(scored)
    shares = dict(record.open_set)
    open_set = OpenSetScores(shares.pop("accuracy"), shares.pop("corrupted"), shares)
    return Evaluation(
        ensemble, keys, record.models, open_set, record.least_evidence, record.least_odds, classes, anchors, real,
        inception.digest if inception else "", data.fingerprint,
        {name: weights_digest(judge) for name, judge in given_judges(workspace, data).items()},
        (none, *parents, featured, scored),
    )  # fmt: skip
