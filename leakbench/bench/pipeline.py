"""The way of a run: data set -> ANN -> (synthetic set) -> victim -> outcome -> values, an artifact each.

A :class:`Pipeline` computes cells one at a time and needs nothing but the cell and the store, so that it runs in this
process or in any other. Seeds are told from keys: see :mod:`leakbench.runtime.seeds`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from leakbench.bench.stages.ann import trained_ann
from leakbench.bench.stages.attack import attacked
from leakbench.bench.stages.reference import built_reference, reference_ann
from leakbench.bench.stages.utility import utility
from leakbench.bench.stages.victim import built_victim
from leakbench.cells import AnchorCell, AttackCell, BaseCell, PreparationCell, ReferenceCell, UtilityCell
from leakbench.contracts import Progress
from leakbench.leakage import leakage_kind
from leakbench.leakage.kind import Measured, counted
from leakbench.metrics.energy import LayerOperations
from leakbench.metrics.motion import LayerMotion
from leakbench.records import BudgetPoint, ClassScore, RocPoint, Value, Votes
from leakbench.runtime.workspace import Settings, Workspace

log = logging.getLogger("leakbench")

Task = Literal["ann", "prepare", "reference", "compute"]
"""train the cell's ANN, or that of the reference; prepare (a part of) what a kind of leak needs of the data set; make a
reference network; compute the cell"""


@dataclass
class CellOutcome:
    """What a computed cell gives the record: values, and keys of what is in the store."""

    values: list[Value] = field(default_factory=list)
    classes: list[ClassScore] = field(default_factory=list)
    votes: Votes | None = None
    budget: list[BudgetPoint] = field(default_factory=list)
    roc: list[RocPoint] = field(default_factory=list)
    question: str = ""
    timesteps: int | None = None
    weights: str = ""
    trained_on_part: bool = False
    motion: list[LayerMotion] = field(default_factory=list)
    energy: list[LayerOperations] = field(default_factory=list)
    findings: Mapping[str, float] = field(default_factory=dict)
    public: str = ""
    artifacts: dict[str, str] = field(default_factory=dict)
    """role -> key"""
    environments: dict[str, tuple[Mapping[str, str], ...]] = field(default_factory=dict)
    """of every artifact behind the values, by its key: what it was made with, and what it builds on"""


class Pipeline:
    """Computes cells. What many cells need is loaded once and kept."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.workspace = Workspace(settings, progress)

    def perform(self, task: Task, cell: BaseCell) -> CellOutcome:
        """The values of a cell, or ("ann", "prepare") what many cells build on.

        What was computed before comes from the store.
        """
        with self.workspace.usage() as usage:
            outcome = self._performed(task, cell)
        outcome.environments = usage.environments
        return outcome

    def _performed(self, task: Task, cell: BaseCell) -> CellOutcome:
        match task, cell:
            case "ann", ReferenceCell():
                return CellOutcome(artifacts={"ann": reference_ann(self.workspace, cell).artifact.key})
            case "ann", _:
                return CellOutcome(artifacts={"ann": trained_ann(self.workspace, cell).artifact.key})
            case "prepare", PreparationCell():
                leakage_kind(cell.leakage).prepare(self.workspace, cell)
                return CellOutcome()
            case "reference", ReferenceCell():
                reference = built_reference(self.workspace, cell).victim
                return CellOutcome(artifacts={"victim": reference.deployed.artifact.key})
            case "compute", AnchorCell():
                return self._anchor(cell)
            case "compute", AttackCell():
                return self._leakage(cell)
            case "compute", UtilityCell():
                return self._utility(cell)
        raise AssertionError(f"{task} of a {type(cell).__name__}")

    def _anchor(self, cell: AnchorCell) -> CellOutcome:
        kind = leakage_kind(cell.leakage)
        measured, shown = kind.anchor(self.workspace, cell)
        _warn(measured)
        return CellOutcome(measured.values, measured.classes, artifacts=kind.artifacts(self.workspace, cell, shown))

    def _utility(self, cell: UtilityCell) -> CellOutcome:
        victim = built_victim(self.workspace, cell)
        outcome = utility(self.workspace, cell, victim)
        for line in outcome.warnings:
            log.warning("%s", line)
        return CellOutcome(
            outcome.values,
            timesteps=outcome.timesteps,
            weights=outcome.weights,
            trained_on_part=outcome.trained_on_part,
            motion=outcome.motion,
            energy=outcome.energy,
            findings=victim.findings,
            artifacts={
                **victim.shared,  # first: no plugin's name for what it shares takes the place of these
                "ann": victim.ann.artifact.key,
                "victim": victim.deployed.artifact.key,
                "utility": outcome.artifact.key,
            },
        )

    def _leakage(self, cell: AttackCell) -> CellOutcome:
        kind = leakage_kind(cell.leakage)
        victim = built_victim(self.workspace, cell)
        attack = attacked(self.workspace, cell, victim, kind)
        measured = kind.measure(self.workspace, cell, attack.artifact, victim.deployed)
        _warn(measured)
        costs = {
            "seconds": attack.cost.seconds,
            "queries": attack.cost.queries,
            "gradient_steps": attack.cost.gradient_steps,
        }
        return CellOutcome(
            [*measured.values, *(counted(name, amount) for name, amount in costs.items())],
            measured.classes,
            measured.votes,
            measured.budget,
            measured.roc,
            measured.question,
            findings=attack.findings,
            public=attack.public,
            artifacts={
                **attack.shared,
                **kind.artifacts(self.workspace, cell, attack.artifact),
                "victim": victim.deployed.artifact.key,
            },
        )


def _warn(measured: Measured) -> None:
    for line in measured.refused:
        log.warning("%s", line)
