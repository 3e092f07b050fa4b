"""Leakage of data: an attack scores images by how likely the network was trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from leakbench.cells import AnchorCell, AttackCell, ReferenceCell, UtilityCell
from leakbench.contracts import AttackContext, Context, LabeledImages, MembershipAttack, MembershipScores, Victim
from leakbench.contracts.membership import Question
from leakbench.leakage.controls import ANN, OVERFITTED, UNPROTECTED, UNSEEN, UNTRAINED
from leakbench.leakage.kind import Deployed, Evidence, LeakageKind, Measured, OtherTraining, ReferenceTraining
from leakbench.leakage.measured_metric import cell_metrics, measured_metric
from leakbench.leakage.membership.candidates import (
    Candidates,
    Read,
    Synthetic,
    candidates_of,
    population_of,
    question_of,
    reference_training,
    synthetic_of,
    unseen_training,
)
from leakbench.leakage.membership.verdict import CHANCE, GATES, HEADLINE, conclude
from leakbench.leakage.seed_group import Declarations
from leakbench.metrics.membership import MembershipMetric, ScoredCandidates, roc
from leakbench.metrics.metric import Measurement
from leakbench.records import AttackRow, CellRecord, Index, RocPoint
from leakbench.runtime.plugins import load_plugin
from leakbench.runtime.store import Artifact
from leakbench.runtime.workspace import Workspace


@dataclass(frozen=True)
class Score:
    """A score of every candidate."""

    candidates: Candidates
    question: Question = "training"
    population: LabeledImages | None = None
    synthetic: Synthetic | None = None

    @property
    def inputs(self) -> Mapping[str, Any]:
        inputs: dict[str, Any] = {"candidates": len(self.candidates.labels)}
        if self.candidates.left_out:
            inputs["left_out"] = self.candidates.left_out
        if self.question != "training":
            inputs["asks_of"] = self.question
        if self.population is not None:
            inputs["population"] = len(self.population.labels)
        if self.synthetic is not None:
            inputs["synthetic"] = self.synthetic.keys
        return inputs

    def run(self, attack: MembershipAttack[Any], victim: Victim, context: AttackContext) -> MembershipScores:
        context.population = self.population
        context.synthetic = None if self.synthetic is None else self.synthetic.images.float() / 255
        return attack(victim, self.candidates.images.float() / 255, self.candidates.labels.clone(), context)

    def to_tensors(self, outcome: MembershipScores, _context: Context) -> dict[str, Tensor]:
        """The scores, and which candidates are members."""
        return {"scores": outcome.scores, "members": self.candidates.members, "labels": self.candidates.labels}


class Membership(LeakageKind):
    """Membership inference."""

    name = MembershipAttack.leakage
    title = "members"
    headline = HEADLINE
    chance = f"{CHANCE:g}"
    controls: ClassVar = {
        ANN: "",
        UNPROTECTED: "",
        UNTRAINED: "whether the attacks find members of a network that has none",
        OVERFITTED: "whether the attacks find members where there is much to find",
        UNSEEN: "whether what the attacks find is membership or another difference of training and test images",
    }
    gates = GATES
    sections = ("membership",)

    def asked(self, cell: AttackCell, classes: int, training: int, test: int) -> int:
        return 2 * min(cell.candidates, training, test // 2)

    def task(self, workspace: Workspace, cell: AttackCell, deployed: Deployed) -> Score:
        attack: type[MembershipAttack[Any]] = load_plugin("attack", cell.attack.target)
        candidates = candidates_of(workspace, cell, lambda: deployed.read_images, attack.asks_of)
        return Score(
            candidates,
            attack.asks_of,
            population_of(workspace, cell) if attack.uses_population else None,
            synthetic_of(workspace, deployed) if attack.uses_synthetic else None,
        )

    def reference_training(self, workspace: Workspace, cell: ReferenceCell, read: Read) -> ReferenceTraining:
        return reference_training(workspace, cell, read)

    def control_training(self, workspace: Workspace, cell: UtilityCell) -> OtherTraining | None:
        return unseen_training(workspace, cell) if cell.defense.name == UNSEEN else None

    def measure(self, workspace: Workspace, cell: AttackCell, attack: Artifact, deployed: Deployed) -> Measured:
        plugin: type[MembershipAttack[Any]] = load_plugin("attack", cell.attack.target)
        question = question_of(cell, deployed.read_images, plugin.asks_of)
        scored = ScoredCandidates(attack.tensors["scores"], attack.tensors["members"], question)
        total = Measured(question=question)
        inputs = {"scores": attack.key, **({"question": question} if question != plugin.asks_of else {})}
        for one in cell_metrics(MembershipMetric, cell.metrics, total):  # type: ignore[type-abstract]
            given = scored.copied() if one.third_party else scored
            measure = partial(_measurement, one.metric, given)
            total.extend(measured_metric(workspace, one, measure, workspace.seed(attack), inputs, [attack]))
        total.roc = [RocPoint(fpr=fpr, tpr=tpr) for fpr, tpr in roc(scored.scores, scored.members)]
        return total

    def artifacts(self, workspace: Workspace, cell: AttackCell | AnchorCell, shown: Artifact) -> dict[str, str]:
        return {"scores": shown.key}

    def limited_of(self, row: AttackRow) -> list[Index]:
        """That of single images, too: few that are given away for certain hardly show on average."""
        return row.indices

    def conclude(self, cells: Sequence[CellRecord], needs: Mapping[str, str], declared: Declarations) -> Evidence:
        return conclude(cells, declared)


def _measurement(metric: MembershipMetric[Any], scored: ScoredCandidates, _context: Context) -> Measurement:
    return metric.measure(scored)
