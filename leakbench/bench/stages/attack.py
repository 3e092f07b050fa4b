"""An attack on a deployed network, and what it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from leakbench.bench.stages.reference import built_references
from leakbench.bench.stages.shared import SharedArtifacts
from leakbench.bench.stages.victim import BuiltVictim
from leakbench.cells import AttackCell
from leakbench.contracts import Access, AttackContext, Cost, PublicImages, Victim
from leakbench.leakage.kind import LeakageKind
from leakbench.models.steadiness import Steadiness
from leakbench.registry import is_built_in
from leakbench.runtime.fence import fenced
from leakbench.runtime.plugins import isolation_inputs, made_plugin
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, ArtifactRecord, Content
from leakbench.runtime.workspace import Stage, Workspace

ATTACK = Stage("attack", 3)


class AttackRecord(ArtifactRecord):
    """What is kept beside what an attack got."""

    cost: Cost
    findings: Mapping[str, float]
    shared: Mapping[str, str]


class _Known(TypedDict):
    """What an attacker knows besides the network: part of the keys."""

    flips: bool
    public: NotRequired[str]
    """fingerprint of the public images"""


@dataclass(frozen=True)
class Attacked:
    """What an attack got out of a network."""

    artifact: Artifact
    cost: Cost
    findings: Mapping[str, float]
    """what it measured on its way"""
    public: str
    """where its public images come from, one line; empty without any"""
    shared: Mapping[str, str]
    """name -> key of what it was built on"""


def attacked(workspace: Workspace, cell: AttackCell, victim: BuiltVictim, kind: LeakageKind) -> Attacked:
    """Run the attack of a cell."""
    variant, deployed = cell.attack, victim.deployed
    isolated = isolation_inputs("attack", variant.target)
    known: _Known = {"flips": workspace.dataset(cell.dataset).flips}
    public: PublicImages | None = None
    if cell.public:
        public, known["public"] = workspace.public(cell.public, cell.dataset)
    # of each network its own: starts that all networks share would make their outcomes alike
    seed = seed_of(
        "attack", victim=workspace.seed(deployed.artifact), plugin=variant.name, params=dict(variant.changed),
        replicate=cell.seed,
    )  # fmt: skip

    def equip(context: AttackContext) -> None:
        context.flips = known["flips"]
        if public is not None:  # a copy of its own, as of the network
            context.public = public._replace(images=public.images.clone())

    shared = SharedArtifacts(
        workspace, {**known, **variant.source, **isolated}, {**known, "replicate": cell.seed}, AttackContext, equip
    )
    task = kind.task(workspace, cell, deployed)
    references = built_references(workspace, cell, victim)

    def build(context: AttackContext) -> Content:
        plugin = made_plugin("attack", variant.target, variant.params, variant.code)
        equip(context)
        if public is not None:
            context.shared_store = shared
        context.references = tuple(reference.handed(number) for number, reference in enumerate(references))
        # a copy of its own: what an attack does to the network must not reach what is measured on it
        handed = deployed.copy()
        steadiness = Steadiness(cell.defense.name, deployed.network, workspace.dataset(cell.dataset).test.images)
        with fenced(variant.name, seed):
            outcome = task.run(plugin, Victim(handed, Access.WEIGHTS), context)
        record = AttackRecord(cost=outcome.cost, findings=outcome.findings, shared=shared.keys)
        tensors = task.to_tensors(outcome, context)
        # built-in attacks leave the network as it was
        for asked in (deployed.network, *([handed] if is_built_in("attack", variant.target) else [])):
            steadiness.check(asked)
        return tensors, record.model_dump()

    inputs = {**variant.identity, **isolated, **known, "victim": deployed.identity, **task.inputs}
    if references:
        inputs["references"] = [reference.victim.deployed.identity for reference in references]
    behind = [deployed.artifact, *(reference.victim.deployed.artifact for reference in references)]
    artifact = workspace.make(ATTACK, seed, inputs, build, behind, context=AttackContext)
    record = AttackRecord.read(artifact)
    return Attacked(artifact, record.cost, record.findings, public.source if public else "", record.shared)
