"""From the cells that have ended to the record of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import leakbench
from leakbench import registry
from leakbench.bench.departures import protocol_of
from leakbench.bench.executors import Result
from leakbench.bench.grid import SIZES, GridConfig
from leakbench.bench.run_folder import IMAGES, remove_unnamed_pictures, slug
from leakbench.bench.stages.ann import trained_ann
from leakbench.cells import AnchorCell, AttackCell, Cell, CheckCell, NullCell, UtilityCell, Variant
from leakbench.data import base_name, dataset_label
from leakbench.data.folder import PREFIX
from leakbench.leakage import conclude, leakage_kind
from leakbench.leakage.pictures import write_pictures
from leakbench.metrics.accuracy import AccuracyDrop
from leakbench.metrics.metric import Declaration
from leakbench.models import Architecture
from leakbench.models.files import file_digest
from leakbench.models.training import predict
from leakbench.records import (
    CellRecord,
    DatasetInfo,
    Environment,
    Finding,
    JudgeInfo,
    PluginInfo,
    RunRecord,
    SyntheticSet,
)
from leakbench.runtime.plugins import how_it_runs, load_plugin
from leakbench.runtime.process import available_cores, environment
from leakbench.runtime.workspace import Workspace

_Row = tuple[str, str, int, str]
"""data set, model, seed and defence, as of UtilityCell.row"""


@dataclass
class Done:
    """A cell and how it ended."""

    cell: Cell
    result: Result


@dataclass(frozen=True)
class Participants:
    """What a record says of the plugins that took part (of data sets and models those that aren't built in), of every
    metric that there is, and of the ANN's weights."""

    plugins: list[PluginInfo]
    declared: dict[str, Declaration]
    weights: str
    """sha256 of a user's file; empty where ANNs are trained"""

    @classmethod
    def from_cells(cls, cells: Sequence[Cell], workspace: Workspace) -> Participants:
        """Those of the cells of a run."""
        variants: dict[tuple[registry.Kind, str], Variant] = {}
        for cell in cells:
            for kind, variant in cell.variants:
                variants.setdefault((kind, variant.name), variant)
        plugins = [_plugin_info(kind, variant) for (kind, _), variant in variants.items()]
        plugins += [_function_info(kind, target) for kind, target in _functions(cells)]
        targets = {name: name for name in registry.built_in("metric")}
        targets |= {metric.name: metric.target for cell in cells for metric in cell.metrics}
        declared = {name: load_plugin("metric", target).declaration() for name, target in targets.items()}
        kinds = dict.fromkeys(cell.leakage for cell in cells if isinstance(cell, AttackCell))
        of_files = (metric for kind in kinds for metric in leakage_kind(kind).metrics_of_files(workspace))
        declared |= {metric.name: metric.declaration() for metric in of_files}
        checkpoint = cells[0].checkpoint if cells else None
        return cls(plugins, declared, file_digest(Path(checkpoint)) if checkpoint else "")


def record_of(
    config: GridConfig,
    cells: Sequence[Cell],
    participants: Participants,
    ended: Sequence[Done],
    workspace: Workspace,
    out: Path,
    command: str,
    complete: bool,
    seconds: float,
) -> RunRecord:
    """The record of a run; pictures are written below ``out``."""
    names = list(dict.fromkeys(cell.dataset for cell in cells))
    try:
        timesteps = _own_timesteps(ended)
        records = [_cell_record(one, timesteps, workspace, out) for one in ended]
        synthetic = _synthetic(ended, workspace, out)
    except BaseException:
        remove_unnamed_pictures(out)
        raise
    needs = {plugin.name: plugin.needs for plugin in participants.plugins if plugin.kind == "attack"}
    evidence = conclude(records, needs, participants.declared)
    datasets = [_dataset_info(workspace, name) for name in names]
    measured = {value.metric for cell in records for value in cell.values} | {AccuracyDrop.name}
    return RunRecord(
        leakbench=leakbench.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        command=command,
        complete=complete,
        grid=config.model_dump(mode="json"),
        weights=participants.weights,
        protocol=protocol_of(config, {one.name: one.fingerprint for one in datasets}),
        environment={
            **environment(workspace.device),
            "cores": str(available_cores()),
            "precision": config.precision or SIZES[config.preset].precision,
        },
        environments=_environments(ended),
        datasets=datasets,
        judges=_evaluation_models(ended, workspace),
        plugins=participants.plugins,
        metrics=[one for one in participants.declared.values() if one.name in measured],
        synthetic=synthetic,
        cells=records,
        scales=evidence.scales,
        rows=evidence.rows,
        verdicts=evidence.verdicts,
    )


def _environments(ended: Sequence[Done]) -> list[Environment]:
    """What made the artifacts that the numbers come from; the one that made most comes first.

    An artifact counts where it was made and where what it builds on was made.
    """
    behind = {key: origins for one in ended for key, origins in one.result.outcome.environments.items()}
    kept = set(Environment.model_fields) - {"artifacts"}
    counts = Counter(
        origin
        for origins in behind.values()
        for origin in {tuple(sorted((k, v) for k, v in one.items() if k in kept)) for one in origins}
    )
    return [Environment(**dict(origin), artifacts=count) for origin, count in counts.most_common()]


def _evaluation_models(ended: Sequence[Done], workspace: Workspace) -> list[JudgeInfo]:
    """Those that scored something, by data set."""
    scored = dict.fromkeys(
        (one.cell.dataset, one.cell.classes, one.cell.leakage)
        for one in ended
        if isinstance(one.cell, AnchorCell | AttackCell) and one.result.outcome.values
    )
    return [
        info
        for name, attacked, kind in scored
        for info in leakage_kind(kind).evaluation_models(workspace, name, attacked)
    ]


def _own_timesteps(ended: Sequence[Done]) -> dict[_Row, int]:
    """T of each row's network, as it was measured: a defence may choose another one than the grid's."""
    measured = ((one.cell, one.result.outcome.timesteps) for one in ended)
    return {cell.row: steps for cell, steps in measured if isinstance(cell, UtilityCell) and steps is not None}


def _cell_record(done: Done, timesteps: Mapping[_Row, int], workspace: Workspace, out: Path) -> CellRecord:
    cell, outcome = done.cell, done.result.outcome
    common: dict[str, Any] = {
        "dataset": cell.dataset_label,
        "model": cell.model_label,
        "seed": cell.seed,
        "preset": cell.preset,
        "control": cell.control,
        "status": done.result.status,
        "reason": done.result.reason,
        "traceback": done.result.traceback,
        "warnings": list(done.result.warnings),
        "public": outcome.public,
        "values": outcome.values,
        "classes": outcome.classes,
        "votes": outcome.votes,
        "budget": outcome.budget,
        "roc": outcome.roc,
        "question": outcome.question,
        "findings": [Finding(name=name, value=number) for name, number in outcome.findings.items()],
        "motion": outcome.motion,
        "energy": outcome.energy,
        "weights": outcome.weights,
        "trained_on_part": outcome.trained_on_part,
        "artifacts": outcome.artifacts,
    }
    common |= _labels(cell)
    if isinstance(cell, UtilityCell):
        common["timesteps"] = timesteps.get(cell.row, cell.timesteps)
        common |= {
            f"{kind}_{field}": value
            for kind, variant in cell.variants
            if kind != "metric"  # of which a cell may have several: the run's plugins name them
            for field, value in (
                ("name", variant.name),
                ("params", variant.all_params),
                ("version", variant.version),
                ("source", variant.code),
                ("ran", how_it_runs(kind, variant.target)),
            )
        }
    if isinstance(cell, AnchorCell | AttackCell) and not common["of"]:
        folder = _folder(cell) / slug(common["defense"] or "anchors") / slug(common["attack"])
        common["pictures"] = leakage_kind(cell.leakage).pictures(workspace, cell, outcome.artifacts, out, folder)
    return CellRecord(**common)


def _labels(cell: Cell) -> dict[str, str]:
    """What a record calls the cell."""
    match cell:
        case AnchorCell():
            drawn = f"{cell.anchor} (fresh draw)" if cell.fresh else cell.anchor
            return {"defense": "", "attack": drawn, "of": cell.anchor if cell.fresh else "", "leakage": cell.leakage}
        case AttackCell():
            checks = cell.checks if isinstance(cell, CheckCell) else ""
            defense = cell.row[-1] if isinstance(cell, NullCell) else cell.defense.label
            labels = {"defense": defense, "attack": cell.attack.label}
            return {**labels, "of": checks, "leakage": cell.leakage}
        case UtilityCell():
            return {"defense": cell.defense.label, "attack": "", "of": ""}


def _folder(cell: Cell) -> Path:
    return Path(IMAGES) / slug(f"{cell.dataset_label}-{cell.model_label}-s{cell.seed}")


def _synthetic(ended: Sequence[Done], workspace: Workspace, out: Path) -> list[SyntheticSet]:
    """The synthetic sets that defences were built on, each once."""
    sets: dict[str, SyntheticSet] = {}
    for one in ended:
        key = one.result.outcome.artifacts.get("synthetic", "")
        if isinstance(one.cell, AttackCell) or not key or key in sets:
            continue
        artifact = workspace.store.read(key)
        if artifact is None or not {"images", "soft_labels", "intended"} <= artifact.tensors.keys():
            continue
        images, soft = artifact.tensors["images"], artifact.tensors["soft_labels"]
        network = trained_ann(workspace, one.cell).network(workspace.device)
        agree = predict(network, images, workspace.device).argmax(1) == soft.argmax(1)
        sets[key] = SyntheticSet(
            key=key,
            dataset=one.cell.dataset_label,
            model=one.cell.model_label,
            seed=one.cell.seed,
            params=artifact.record["params"],
            count=len(images),
            teacher_agreement=float(agree.float().mean()),
            pictures=write_pictures(
                images, artifact.tensors["intended"], out, _folder(one.cell) / f"synthetic-{key[:8]}"
            ),
        )
    return list(sets.values())


def _dataset_info(workspace: Workspace, name: str) -> DatasetInfo:
    data = workspace.dataset(name)
    channels, height, width = data.image_shape
    return DatasetInfo(
        name=dataset_label(data.name),
        classes=list(data.classes),
        train_images=len(data.train),
        test_images=len(data.test),
        channels=channels,
        height=height,
        width=width,
        source=data.source,
        fingerprint=data.fingerprint,
    )


def _plugin_info(kind: registry.Kind, variant: Variant) -> PluginInfo:
    plugin = load_plugin(kind, variant.target)
    entry = registry.entries(kind).get(variant.target)
    return PluginInfo(
        kind=kind,
        name=variant.name,
        version=variant.version,
        summary=registry.first_sentence(plugin.__doc__),
        cites=plugin.cites,
        needs=plugin.needs.name if kind == "attack" else "",
        uses_public=kind == "attack" and plugin.uses_public,
        origin=entry.origin if entry else variant.target,
        params=dict(variant.params) if kind == "metric" else {},
        source=variant.code,
        ran=how_it_runs(kind, variant.target),
    )


def _functions(cells: Sequence[Cell]) -> list[tuple[registry.Kind, str]]:
    """The third parties' functions that build a data set, public images among them, or a model."""
    datasets = [name for cell in cells for name in (cell.dataset, getattr(cell, "public", ""))]
    named: list[tuple[registry.Kind, str]] = [("dataset", base_name(name)) for name in datasets]
    named += [("model", Architecture.parse(cell.model).model) for cell in cells]
    known = {kind: registry.entries(kind) for kind in ("dataset", "model")}
    return [
        (kind, name)
        for kind, name in dict.fromkeys(named)
        if not (registry.is_built_in(kind, name) or name.startswith(PREFIX))
        if ".py:" in name or name in known[kind]
    ]


def _function_info(kind: registry.Kind, target: str) -> PluginInfo:
    entry = registry.entries(kind).get(target)
    return PluginInfo(
        kind=kind,
        name=registry.label(target),
        summary=registry.first_sentence(load_plugin(kind, target).__doc__),
        origin=entry.origin if entry else target,
        source=registry.source(kind, target).digest,
        ran=how_it_runs(kind, target),
    )
