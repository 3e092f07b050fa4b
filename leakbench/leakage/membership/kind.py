"""Leakage of data: an attack scores images by how likely the network was trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from leakbench.cells import AnchorCell, AttackCell, CheckCell
from leakbench.contracts import Context, MembershipAttack, MembershipScores, Victim
from leakbench.leakage.controls import ANN, OVERFITTED, UNPROTECTED, UNTRAINED
from leakbench.leakage.kind import Deployed, Evidence, LeakageKind, Measured
from leakbench.leakage.measured_metric import cell_metrics, measured_metric
from leakbench.leakage.membership.candidates import candidates_of
from leakbench.leakage.membership.verdict import CHANCE, GATES, HEADLINE, conclude
from leakbench.leakage.seed_group import Declarations
from leakbench.metrics.membership import MembershipMetric, ScoredCandidates
from leakbench.metrics.metric import Measurement
from leakbench.records import CellRecord
from leakbench.runtime.store import Artifact
from leakbench.runtime.workspace import Workspace


@dataclass(frozen=True)
class Score:
    """A score of every candidate."""

    images: Tensor
    labels: Tensor
    members: Tensor

    @property
    def inputs(self) -> Mapping[str, Any]:
        return {"candidates": len(self.labels)}

    def run(self, attack: MembershipAttack[Any], victim: Victim, context: Any) -> MembershipScores:
        return attack(victim, self.images.float() / 255, self.labels, context)

    def to_tensors(self, outcome: MembershipScores, _context: Context) -> dict[str, Tensor]:
        """The scores, and which candidates are members."""
        return {"scores": outcome.scores, "members": self.members, "labels": self.labels}


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
    }
    gates = GATES
    sections = ("membership",)

    def task(self, workspace: Workspace, cell: AttackCell, deployed: Deployed) -> Score:
        return Score(*candidates_of(workspace, cell, deployed))

    def measure(self, workspace: Workspace, cell: AttackCell, attack: Artifact, deployed: Deployed) -> Measured:
        scored = ScoredCandidates(attack.tensors["scores"], attack.tensors["members"])
        added = () if isinstance(cell, CheckCell) else cell.metrics
        total = Measured()
        for one in cell_metrics(MembershipMetric, added, total):  # type: ignore[type-abstract]
            given = scored.copied() if one.third_party else scored
            measure = partial(_measurement, one.metric, given)
            seed, inputs = workspace.seed(attack), {"scores": attack.key}
            total.extend(measured_metric(workspace, one, measure, seed, inputs, [attack]))
        return total

    def artifacts(self, workspace: Workspace, cell: AttackCell | AnchorCell, shown: Artifact) -> dict[str, str]:
        return {"scores": shown.key}

    def conclude(self, cells: Sequence[CellRecord], needs: Mapping[str, str], declared: Declarations) -> Evidence:
        return conclude(cells, declared)


def _measurement(metric: MembershipMetric[Any], scored: ScoredCandidates, _context: Context) -> Measurement:
    return metric.measure(scored)
