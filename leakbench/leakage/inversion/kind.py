"""Leakage of classes: an attack hands back pictures of the classes, and evaluation models say what they show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from leakbench import registry
from leakbench.cells import AnchorCell, AttackCell, BaseCell, CheckCell, PreparationCell
from leakbench.contracts import Attack
from leakbench.data import dataset_label
from leakbench.data.dataset import are_pictures
from leakbench.errors import NotApplicable, NumericalError
from leakbench.leakage.controls import ANN, SHUFFLED, UNPROTECTED, UNTRAINED
from leakbench.leakage.inversion.anchors import ANCHOR, NOISE, REAL, anchor
from leakbench.leakage.inversion.class_evidence import OPEN_SET
from leakbench.leakage.inversion.evaluation import (
    JUDGE,
    MODELS,
    OUTLIERS,
    SCORES,
    evaluation_of,
    given_judges,
    inception_of,
    judge_work,
    model_of,
    prepare_part,
    squeezenet_of,
    tested,
)
from leakbench.leakage.inversion.fooling import fooled
from leakbench.leakage.inversion.gates import AGREEMENT, CHANCE, GATES
from leakbench.leakage.inversion.measurement import (
    BUDGET,
    PREDICTIONS,
    budget_points,
    measured,
    metrics_of_files,
    predictions,
    votes,
)
from leakbench.leakage.inversion.nearest import nearest
from leakbench.leakage.inversion.targets import attacked_classes
from leakbench.leakage.inversion.task import Reconstruct
from leakbench.leakage.inversion.verdict import GridGroup, conclude
from leakbench.leakage.inversion.verdict_text import headline
from leakbench.leakage.kind import Deployed, Evidence, LeakageKind, Measured
from leakbench.leakage.measured_metric import built_in_metrics
from leakbench.leakage.pictures import beside, write_pictures
from leakbench.leakage.seed_group import Declarations
from leakbench.metrics.class_leaks import NETWORKS
from leakbench.metrics.estimate import mean, proportion
from leakbench.metrics.metric import Measurement, Metric
from leakbench.metrics.reconstructions import ReconstructionMetric
from leakbench.models.judges import JUDGES, judges_of
from leakbench.records import AttackRow, CellRecord, Index, JudgeInfo, OpenSet, Picture, Value, fields, value
from leakbench.runtime.store import Artifact
from leakbench.runtime.workspace import Workspace

MODEL = "judge "
"""before an evaluation model's name: its artifact's role"""


class Inversion(LeakageKind):
    """Class inversion."""

    name = Attack.leakage
    title = "classes"
    by_default = True
    comparable = True
    headline = OPEN_SET
    chance = CHANCE
    controls: ClassVar = {
        ANN: "what the attacks get out of a network without protection",
        UNPROTECTED: "",
        UNTRAINED: "whether the attacks' images come from the training data at all",
    }
    nulls = (UNTRAINED, UNTRAINED, SHUFFLED)
    nulls_from = NETWORKS
    halves_effort = True
    anchors = (NOISE, REAL)
    parts: ClassVar = {OUTLIERS.name: (), **dict.fromkeys(MODELS, (OUTLIERS.name,))}
    stages = (OUTLIERS, JUDGE, SCORES, ANCHOR, PREDICTIONS, BUDGET)
    gates = GATES
    sections = ("verdicts", "suite", "controls", "grid", "wall", "classes", "tradeoff", "budget", "index")

    def check(self, workspace: Workspace, datasets: Iterable[str]) -> None:
        # a weights file may be a wrong one
        inception_of(workspace)
        squeezenet_of(workspace)
        for name in datasets if workspace.settings.judges else ():
            given_judges(workspace, workspace.dataset(name))

    def metrics_of_files(self, workspace: Workspace) -> Sequence[type[Metric[Any]]]:
        return metrics_of_files(workspace)

    def prepare(self, workspace: Workspace, cell: PreparationCell) -> None:
        if cell.part:
            prepare_part(workspace, cell.dataset, cell.part)
        else:
            evaluation_of(workspace, cell.dataset, cell.classes)

    def preparation(
        self, part: str, shape: tuple[int, int, int], classes: int, training: int, test: int, flips: bool
    ) -> tuple[float, float]:
        kind = model_of(part, shape)
        once, each = (0.0, 0.0) if kind is None else judge_work(kind, shape, classes, training, test, flips)
        return (0.0 if are_pictures(shape) else once), each  # beside the training on pictures, answers are nothing

    def preparation_stage(self, part: str, shape: tuple[int, int, int]) -> str:
        # other networks, whose training takes less time for as much work
        pictures = model_of(part, shape) is not None and are_pictures(shape)
        return f"{super().preparation_stage(part, shape)}{' on pictures' if pictures else ''}"

    def task(self, workspace: Workspace, cell: AttackCell, deployed: Deployed) -> Reconstruct:
        data = workspace.dataset(cell.dataset)
        classes, test = attacked_classes(len(data.classes), cell.classes), data.test.images
        return Reconstruct(deployed, classes, cell.images_per_class, test[tested(len(test))], workspace.device)

    def measure(self, workspace: Workspace, cell: AttackCell, attack: Artifact, deployed: Deployed) -> Measured:
        quick, evaluation = isinstance(cell, CheckCell), evaluation_of(workspace, cell.dataset, cell.classes)
        total = measured(workspace, evaluation, attack, cell.metrics, quick)
        total.votes = votes(workspace, evaluation, attack)
        if not quick:
            total.budget = budget_points(workspace, evaluation, attack)
            try:
                total.extend(fooled(workspace, evaluation, cell.dataset, cell.images_per_class, attack, deployed))
            except (
                NotApplicable,
                NumericalError,
            ) as error:  # perturbations follow gradients, which the attack need not
                total.refuse("uap_fooling", str(error))
        hits = attack.tensors["predicted"] == attack.tensors["targets"]
        total.add("victim_accuracy", Measurement(proportion(int(hits.sum()), len(hits))))
        total.add("victim_confidence", Measurement(mean(attack.tensors["confidence"].double().tolist())))
        if (agrees := attack.tensors.get("agrees")) is not None:
            total.add(AGREEMENT, Measurement(proportion(int(agrees.sum()), len(agrees))))
        return total

    def anchor(self, workspace: Workspace, cell: AnchorCell) -> tuple[Measured, Artifact]:
        metrics = [
            *built_in_metrics(ReconstructionMetric),  # type: ignore[type-abstract]
            *metrics_of_files(workspace),
            *(registry.load("metric", added.target) for added in cell.metrics),
        ]
        declared = {metric.name: metric.declaration() for metric in metrics}
        return anchor(workspace, cell, declared)

    def artifacts(self, workspace: Workspace, cell: AttackCell | AnchorCell, shown: Artifact) -> dict[str, str]:
        evaluation = evaluation_of(workspace, cell.dataset, cell.classes)
        names = (f"{MODEL}{judge.name}" for judge in judges_of(workspace.dataset(cell.dataset).image_shape))
        models = zip(names, evaluation.keys, strict=True)
        roles = {"images": shown.key, "predictions": predictions(workspace, evaluation, shown).key, **dict(models)}
        is_check = isinstance(cell, CheckCell) or (
            isinstance(cell, AnchorCell) and (cell.fresh or cell.anchor == NOISE)
        )
        return roles if is_check else {**roles, "nearest": nearest(workspace, evaluation, shown).key}

    def is_evaluation_model(self, role: str) -> bool:
        return role.startswith(MODEL)

    def pictures(
        self, workspace: Workspace, cell: BaseCell, artifacts: Mapping[str, str], out: Path, folder: Path
    ) -> list[Picture]:
        if "images" not in artifacts:
            return []
        images, predicted = (workspace.store.read(artifacts[role]) for role in ("images", "predictions"))
        if images is None:
            return []
        judged: tuple[Tensor, ...] = ()
        if predicted:
            evaluation = evaluation_of(workspace, cell.dataset, cell.classes)
            judged = predicted.tensors["predictions"], evaluation.accepts(predicted.tensors)
        pictures = write_pictures(images.tensors["images"], images.tensors["targets"], out, folder, *judged)
        private = workspace.store.read(artifacts["nearest"]) if "nearest" in artifacts else None
        return beside(pictures, private.tensors, out, folder) if private else pictures

    def evaluation_models(self, workspace: Workspace, dataset: str, attacked: int | None) -> list[JudgeInfo]:
        summaries = {kind.name: kind.summary for kind in JUDGES}
        summaries["ensemble"] = "mean of all over random shifts and blurs of an image: what judge accuracy is of"
        evaluation = evaluation_of(workspace, dataset, attacked)
        open_set = evaluation.open_set
        shares = {"real": open_set.accuracy, "corrupted": open_set.corrupted, **open_set.outliers}
        accepted = [OpenSet(images=images, share=value("open_set_accuracy", one)) for images, one in shares.items()]
        return [
            JudgeInfo(
                name=name,
                dataset=dataset_label(dataset),
                summary=summaries[name],
                accuracy=Value(metric="accuracy", **fields(scores.accuracy)),
                corrupted=Value(metric="accuracy", **fields(scores.corrupted)),
                open_set=accepted if name == "ensemble" else [],
                given=evaluation.given.get(name, ""),
            )
            for name, scores in evaluation.scores.items()
        ]

    def scored(self, cells: Sequence[CellRecord], needs: Mapping[str, str], declared: Declarations) -> GridGroup:
        return GridGroup(cells, needs, declared)

    def conclude(self, cells: Sequence[CellRecord], needs: Mapping[str, str], declared: Declarations) -> Evidence:
        return conclude(cells, needs, declared)

    def headline_of(self, row: AttackRow) -> Index:
        return headline(row)
