"""A run: the cells of a grid computed wave by wave, and the record that the report is made from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import leakbench
from leakbench import registry
from leakbench.bench.executors import Executor, Result, Task, executor_for
from leakbench.bench.grid import Cell, GridConfig
from leakbench.bench.pipeline import Outcome, Settings, Workshop
from leakbench.bench.run_folder import IMAGES, open_run, remove_unnamed_pictures, save_record, slug, write_pictures
from leakbench.bench.suites import cells_of
from leakbench.data import dataset_label
from leakbench.leakage.inversion.verdict import conclude
from leakbench.models import Architecture, model_label
from leakbench.models.judges import JUDGES
from leakbench.models.storage import build_ann, load_ann, load_checkpoint
from leakbench.models.training import predict
from leakbench.records import (
    CellRecord,
    DatasetInfo,
    Environment,
    Finding,
    JudgeInfo,
    Picture,
    PluginInfo,
    RunRecord,
    SyntheticSet,
    Value,
)
from leakbench.runtime.fence import load_plugin, unless_built_in
from leakbench.runtime.process import available_cores, environment


class Reporter(Protocol):
    """Where a run says what it is doing: its jobs by their number in the plan."""

    def plan(self, jobs: Sequence[Job], /) -> None: ...

    def started(self, number: int, /) -> None: ...

    def ended(self, number: int, result: Result, /) -> None: ...

    def stage(self, what: str, done: int, total: int, /) -> None: ...


@dataclass
class _Done:
    cell: Cell
    result: Result


def run_grid(
    config: GridConfig, settings: Settings, out: Path, jobs: int | None, command: str, reporter: Reporter
) -> RunRecord:
    """Compute a grid and write its record (:func:`save_record`) and pictures into ``out``; what was computed before is
    not again.

    ``jobs`` worker processes take the cells, as many as pay where it is None; no number depends on how many.

    An interrupt (KeyboardInterrupt) writes what is there, marked as incomplete, and is raised again.
    """
    start = time.perf_counter()
    cells = cells_of(config)
    executor = executor_for(cells, settings, jobs, reporter.stage)
    workshop = Workshop(settings, reporter.stage)
    for cell in {(c.dataset, c.model): c for c in cells}.values():
        # what is wrong with the data or the checkpoint is wrong with the whole run: say it before computing anything
        data = workshop.dataset(cell.dataset)
        with unless_built_in("model", Architecture.parse(cell.model).model):
            blank = build_ann(cell.model, data.image_shape, len(data.classes), data.input_range)
        if cell.checkpoint is not None:
            load_checkpoint(Path(cell.checkpoint), blank)
    for cell in {(c.dataset, c.public): c for c in cells if c.public}.values():
        workshop.public(cell)
    _ = workshop.inception  # a wrong weights file, too
    plugins = _plugins(cells)  # now: at the end of the run their files may have been edited or be gone
    open_run(out, config)
    done: dict[int, _Done] = {}
    complete = False
    try:
        _compute(executor, cells, done, reporter)
        complete = True
    finally:
        executor.close()
        record = _record(config, cells, plugins, done, workshop, out, command, complete, time.perf_counter() - start)
        save_record(record, out)
    return record


@dataclass(frozen=True)
class Job:
    """A task, what it is of, and the jobs that have to end before it begins."""

    task: Task
    cell: Cell
    after: tuple[int, ...]

    @property
    def supports(self) -> bool:
        """Whether what comes after it can't be without it: not so of an attack that merely goes ahead."""
        return not self.is_cell or self.cell.attack is None

    @property
    def is_cell(self) -> bool:
        """Whether it is a cell of the grid, and not what cells build on."""
        return self.task == "compute"

    @property
    def title(self) -> str:
        """One line for people."""
        of = {"ann": f"{model_label(self.cell.model)} seed {self.cell.seed}: ANN", "judges": "judges"}
        return self.cell.title if self.is_cell else f"{dataset_label(self.cell.dataset)} {of[self.task]}"

    @property
    def alike(self) -> tuple[Hashable, ...]:
        """What jobs that take about as long have in common, the closest kin first.

        The same with another seed; an attack on another defence at the same T; what an attack at half its effort is a
        half of.
        """
        cell = self.cell
        where = (self.task, cell.dataset, cell.model)
        if not self.is_cell or cell.defense is None:
            return ((*where, cell.anchor, bool(cell.of)),)
        own = (*where, cell.defense.label, cell.timesteps)
        if cell.attack is None:
            return (own,)
        attacks = [cell.attack.label, *([cell.of] if cell.of else [])]
        return ((*own, attacks[0]), *((*where, "attack", cell.timesteps, label) for label in attacks))


def _jobs(cells: Sequence[Cell]) -> list[Job]:
    """First networks and judges, then the cells in their order; the last of it are the cells.

    A defence builds on its network, an attack on the defence and the judges. Attacks with public images share what they
    learn from these: one goes ahead, the others wait for it instead of for a lock.
    """
    jobs: list[Job] = []
    networks: dict[tuple[Any, ...], int] = {}
    judges: dict[str, int] = {}
    for cell in cells:
        if cell.defense is not None and _network_of(cell) not in networks:
            networks[_network_of(cell)] = len(jobs)
            jobs.append(Job("ann", cell, ()))
        if (cell.attack is not None or cell.defense is None) and cell.dataset not in judges:
            judges[cell.dataset] = len(jobs)
            jobs.append(Job("judges", cell, ()))
    first = len(jobs)
    alone = {_victim_of(cell): first + i for i, cell in enumerate(cells) if cell.defense and cell.attack is None}
    ahead: dict[tuple[Any, ...], int] = {}
    for index, cell in enumerate(cells):
        after = [judges[cell.dataset]] if cell.attack is not None or cell.defense is None else []
        if cell.defense is not None:
            after.append(networks[_network_of(cell)])
        if cell.attack is not None:
            after.append(alone[_victim_of(cell)])
        if cell.public:
            leader = ahead.setdefault((cell.dataset, cell.seed, cell.public), first + index)
            after += [leader] if leader != first + index else []
        jobs.append(Job("compute", cell, tuple(after)))
    return jobs


def _compute(executor: Executor, cells: Sequence[Cell], done: dict[int, _Done], reporter: Reporter) -> None:
    """All cells, each as soon as what it builds on is there.

    What can't be built fails the cells that stand on it, with the same reason and without trying again. What goes ahead
    for the sake of its public images may fail alone.
    """
    jobs = _jobs(cells)
    reporter.plan(jobs)
    first = len(jobs) - len(cells)
    waiting, ended = list(range(len(jobs))), dict[int, Result]()
    running = 0

    def end(number: int, result: Result) -> None:
        ended[number] = result
        if number >= first:
            done[number - first] = _Done(jobs[number].cell, result)
        reporter.ended(number, result)

    while waiting or running:
        for number in list(waiting):
            job = jobs[number]
            if any(before not in ended for before in job.after):
                continue
            broken = next((ended[b] for b in job.after if ended[b].status != "ok" and jobs[b].supports), None)
            if broken is not None:
                waiting.remove(number)
                end(number, replace(broken, outcome=Outcome(), warnings=(), seconds=0.0))
            elif executor.free:
                waiting.remove(number)
                reporter.started(number)
                executor.start(number, job.task, job.cell)
                running += 1
        if running:
            number, result = executor.wait()
            running -= 1
            end(number, result)


def _network_of(cell: Cell) -> tuple[Any, ...]:
    return (cell.dataset, cell.model, cell.seed)


def _victim_of(cell: Cell) -> tuple[Any, ...]:
    return (*_network_of(cell), cell.defense.label if cell.defense else "")


# --- the record --------------------------------------------------------------------------------------------------


def _record(
    config: GridConfig,
    cells: Sequence[Cell],
    plugins: list[PluginInfo],
    done: dict[int, _Done],
    workshop: Workshop,
    out: Path,
    command: str,
    complete: bool,
    seconds: float,
) -> RunRecord:
    ended = [done[index] for index in sorted(done)]
    names = list(dict.fromkeys(cell.dataset for cell in cells))
    judged = {d.cell.dataset for d in ended if d.result.outcome.opinions is not None}
    try:
        records, synthetic = [_cell_record(d, out) for d in ended], _synthetic(ended, workshop, out)
    except BaseException:
        remove_unnamed_pictures(out)
        raise
    needs = {plugin.name: plugin.needs for plugin in plugins if plugin.kind == "attack"}
    evidence = conclude(records, needs)
    return RunRecord(
        leakbench=leakbench.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        command=command,
        complete=complete,
        grid=config.model_dump(mode="json"),
        environment={**environment(workshop.device), "cores": str(available_cores()), "precision": config.precision},
        environments=_environments(ended),
        datasets=[_dataset_info(workshop, name) for name in names],
        judges=[info for name in names if name in judged for info in _judges(workshop, name)],
        plugins=plugins,
        synthetic=synthetic,
        cells=records,
        scales=evidence.scales,
        rows=evidence.rows,
        verdicts=evidence.verdicts,
    )


def _environments(ended: Sequence[_Done]) -> list[Environment]:
    """What made the artifacts that the numbers come from; the one that made most comes first.

    An artifact counts where it was made and where what it builds on was made.
    """
    behind = {key: made for item in ended for key, made in item.result.outcome.environments.items()}
    told = set(Environment.model_fields) - {"artifacts"}
    found = Counter(
        kept
        for made in behind.values()
        for kept in {tuple(sorted((k, v) for k, v in one.items() if k in told)) for one in made}
    )
    return [Environment(**dict(kept), artifacts=count) for kept, count in found.most_common()]


def _judges(workshop: Workshop, dataset: str) -> list[JudgeInfo]:
    summaries = {kind.name: kind.summary for kind in JUDGES}
    summaries["ensemble"] = "the judges' mean over random shifts and blurs of an image: what judge accuracy is of"
    return [
        JudgeInfo(
            name=name,
            dataset=dataset_label(dataset),
            summary=summaries[name],
            **{what: Value(metric="accuracy", **score) for what, score in scores.items()},
        )
        for name, scores in workshop.jury(dataset).scores.items()
    ]


def _cell_record(done: _Done, out: Path) -> CellRecord:
    cell, result = done.cell, done.result
    outcome = result.outcome
    folder = Path(IMAGES) / slug(f"{dataset_label(cell.dataset)}-{model_label(cell.model)}-s{cell.seed}")
    attack = cell.attack.label if cell.attack else f"{cell.anchor} (fresh draw)" if cell.of else cell.anchor
    folder /= slug(cell.defense.label) if cell.defense else "anchors"
    folder /= slug(attack or "victim")
    pictures: list[Picture] = []
    if outcome.images is not None and outcome.targets is not None and not cell.of:
        pictures = write_pictures(outcome.images, outcome.targets, out, folder, outcome.opinions)
    return CellRecord(
        dataset=dataset_label(cell.dataset),
        model=model_label(cell.model),
        defense=cell.defense.label if cell.defense else "",
        attack=attack,
        seed=cell.seed,
        preset=cell.preset,
        status=result.status,
        reason=result.reason,
        traceback=result.traceback,
        defense_name=cell.defense.name if cell.defense else "",
        attack_name=cell.attack.name if cell.attack else "",
        defense_params=dict(cell.defense.params) if cell.defense else {},
        attack_params=dict(cell.attack.params) if cell.attack else {},
        defense_version=cell.defense.version if cell.defense else None,
        attack_version=cell.attack.version if cell.attack else None,
        defense_source=cell.defense.code if cell.defense else "",
        attack_source=cell.attack.code if cell.attack else "",
        timesteps=outcome.details.get("timesteps", cell.timesteps),
        public=outcome.details.get("public", ""),
        control=cell.control,
        of=cell.of,
        values=outcome.values,
        findings=[Finding(name=name, value=found) for name, found in outcome.details.get("findings", {}).items()],
        motion=outcome.details.get("motion", []),
        energy=outcome.details.get("energy", []),
        classes=outcome.details.get("classes", []),
        pictures=pictures,
        artifacts=outcome.artifacts,
        warnings=list(result.warnings),
    )


def _synthetic(ended: Sequence[_Done], workshop: Workshop, out: Path) -> list[SyntheticSet]:
    """The synthetic sets that defences were built on, each once."""
    sets: dict[str, SyntheticSet] = {}
    for item in ended:
        key = item.result.outcome.artifacts.get("synthetic", "")
        if item.cell.attack is not None or not key or key in sets:
            continue
        artifact = workshop.store.read(key)
        if artifact is None or not {"images", "soft_labels", "intended"} <= artifact.tensors.keys():
            continue
        images, soft = artifact.tensors["images"], artifact.tensors["soft_labels"]
        ann = workshop.ann(item.cell)
        network = load_ann(ann.tensors, ann.record["network"], workshop.device)
        agree = predict(network, images, workshop.device).argmax(1) == soft.argmax(1)
        dataset, model = dataset_label(item.cell.dataset), model_label(item.cell.model)
        folder = Path(IMAGES) / slug(f"{dataset}-{model}-s{item.cell.seed}")
        sets[key] = SyntheticSet(
            key=key,
            dataset=dataset,
            model=model,
            seed=item.cell.seed,
            params=artifact.record["params"],
            count=len(images),
            teacher_agreement=float(agree.float().mean()),
            pictures=write_pictures(images, artifact.tensors["intended"], out, folder / f"synthetic-{key[:8]}"),
        )
    return list(sets.values())


def _dataset_info(workshop: Workshop, name: str) -> DatasetInfo:
    data = workshop.dataset(name)
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


def _plugins(cells: Sequence[Cell]) -> list[PluginInfo]:
    """What the report says of the plugins that took part."""
    found: dict[tuple[str, str], PluginInfo] = {}
    for cell in cells:
        sides: list[tuple[registry.Kind, Any]] = [("defense", cell.defense), ("attack", cell.attack)]
        for kind, variant in sides:
            if variant is None or (kind, variant.name) in found:
                continue
            plugin = load_plugin(kind, variant.target)
            entry = registry.entries(kind).get(variant.target)
            found[kind, variant.name] = PluginInfo(
                kind=kind,
                name=variant.name,
                version=variant.version,
                summary=(plugin.__doc__ or "").strip().partition("\n")[0],
                cites=plugin.cites,
                needs=plugin.needs.name if kind == "attack" else "",
                uses_public=kind == "attack" and plugin.uses_public,
                origin=entry.origin if entry else variant.target,
            )
    return list(found.values())
