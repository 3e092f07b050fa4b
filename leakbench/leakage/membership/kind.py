"""Leakage of data: an attack scores images by how likely the network was trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from leakbench import registry
from leakbench.cells import AnchorCell, AttackCell, CheckCell
from leakbench.contracts import Context, MembershipAttack, MembershipScores, Victim
from leakbench.errors import LeakBenchError, PluginError
from leakbench.leakage.kind import Deployed, Evidence, LeakageKind, Measured
from leakbench.leakage.membership.candidates import candidates_of
from leakbench.leakage.membership.verdict import HEADLINE, P, conclude
from leakbench.leakage.seed_group import Declarations
from leakbench.metrics.membership import MembershipMetric, ScoredCandidates
from leakbench.metrics.metric import Measurement
from leakbench.records import CONTROLS, OVERFITTED, CellRecord
from leakbench.runtime.fence import described, fenced, made_plugin
from leakbench.runtime.store import Artifact
from leakbench.runtime.workspace import Workspace

METRICS = (HEADLINE, P)


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

    def kept(self, outcome: MembershipScores, _context: Context) -> dict[str, Tensor]:
        """The scores, and which candidates are members."""
        return {"scores": outcome.scores, "members": self.members, "labels": self.labels}


class Membership(LeakageKind):
    """Membership inference."""

    name = "membership"
    title = "members"
    headline = HEADLINE
    controls = (*CONTROLS, OVERFITTED)

    def task(self, workspace: Workspace, cell: AttackCell, deployed: Deployed) -> Score:
        return Score(*candidates_of(workspace, cell, deployed))

    def measure(self, workspace: Workspace, cell: AttackCell, attack: Artifact, deployed: Deployed) -> Measured:
        scored = ScoredCandidates(attack.tensors["scores"], attack.tensors["members"])
        measured = Measured()
        for metric in (registry.load("metric", name)() for name in METRICS):
            try:
                measured.add(metric.name, metric.measure(scored))
            except LeakBenchError as error:
                measured.refused.append(f"{metric.name}: not measured: {error}")
        if not isinstance(cell, CheckCell):
            for variant in cell.metrics:
                metric = made_plugin("metric", variant.target, variant.params)
                if metric.leakage == self.name:
                    measured.extend(_by_third_party(metric, scored, workspace.seed(attack)))
        return measured

    def artifacts(self, workspace: Workspace, cell: AttackCell | AnchorCell, shown: Artifact) -> dict[str, str]:
        return {"scores": shown.key}

    def conclude(self, cells: Sequence[CellRecord], needs: Mapping[str, str], declared: Declarations) -> Evidence:
        return conclude(cells, declared)


def _by_third_party(metric: MembershipMetric[Any], scored: ScoredCandidates, seed: int) -> Measured:
    """A metric that is not ours: whatever it raises is the reason why it has no value."""
    measured = Measured()
    try:
        with fenced(metric.name, seed):
            measurement = metric.measure(ScoredCandidates(scored.scores.clone(), scored.members.clone()))
        if not isinstance(measurement, Measurement):
            raise PluginError(f"{metric.name}.measure must return a Measurement, got {type(measurement).__name__}")
        measured.add(metric.name, measurement)
    except Exception as error:
        return Measured(refused=[f"{metric.name}: not measured: {described(error)}"])
    return measured
