"""A run: the cells of a grid computed, each as soon as what it builds on is there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from pathlib import Path
from typing import Protocol

from leakbench.bench.backends import MakeExecutor
from leakbench.bench.executors import Executor, Result, executor_for
from leakbench.bench.grid import GridConfig
from leakbench.bench.jobs import Job, jobs_of
from leakbench.bench.pipeline import CellOutcome
from leakbench.bench.recording import Done, Participants, record_of
from leakbench.bench.run_folder import open_run, save_record
from leakbench.bench.stages.ann import untrained_ann
from leakbench.bench.suites import cells_of
from leakbench.built_ins import NETWORK
from leakbench.cells import AttackCell, Cell
from leakbench.leakage import leakage_kind
from leakbench.models.weights import load_checkpoint
from leakbench.paths import use_networks
from leakbench.records import RunRecord
from leakbench.runtime.process import device_here
from leakbench.runtime.workspace import Settings, Workspace


class Reporter(Protocol):
    """Where a run says what it is doing: its jobs by their number in the plan."""

    def plan(self, jobs: Sequence[Job], /) -> None: ...

    def started(self, number: int, /) -> None: ...

    def ended(self, number: int, result: Result, /) -> None: ...

    def stage(self, what: str, done: int, total: int, /) -> None: ...


def run_grid(
    config: GridConfig,
    settings: Settings,
    out: Path,
    jobs: int | None,
    command: str,
    reporter: Reporter,
    cells: Sequence[Cell] | None = None,
    executor: MakeExecutor | None = None,
) -> RunRecord:
    """Compute a grid and write its record (:func:`save_record`) and pictures into ``out``; what was computed before is
    not again.

    ``jobs`` worker processes take the cells, as many as pay where it is None; no number depends on how many. ``cells``
    are those of the grid, where they have been planned already. ``executor`` says what computes them, worker
    processes of this machine where it is None. What it computes must come to lie in the store of ``settings``, whose
    device is that of the workers: this process need not have it.

    An interrupt (KeyboardInterrupt) writes what is there, marked as incomplete, and is raised again.
    """
    start = time.perf_counter()
    settings = replace(settings, judges=config.judges)
    cells = cells_of(config) if cells is None else cells
    workspace = Workspace(replace(settings, device=device_here(settings.device)), reporter.stage)
    _check(workspace, cells)
    # now: at the end of the run their files may have been edited or be gone
    participants = Participants.from_cells(cells, workspace)
    running = (executor or executor_for)(cells, settings, jobs, reporter.stage)
    try:
        open_run(out, config, command, settings.placed())
    except BaseException:
        running.close()
        raise
    done: dict[int, Done] = {}
    complete = False
    try:
        _compute(running, cells, done, reporter)
        complete = True
    finally:
        running.close()
        ended = [done[index] for index in sorted(done)]
        seconds = time.perf_counter() - start
        # another run of this grid has the same folder, and removes pictures that no record in it names yet
        with workspace.store.alone(f"record in {out.resolve()}"):
            record = record_of(config, cells, participants, ended, workspace, out, command, complete, seconds)
            save_record(record, out)
    return record


def _check(workspace: Workspace, cells: Sequence[Cell]) -> None:
    """What is wrong with data, checkpoint or weights is wrong with the whole run: say it before computing anything."""
    own = [Path(cell.checkpoint) for cell in cells if cell.checkpoint is not None]
    targets = {variant.target for cell in cells for _, variant in cell.variants}
    own += [Path(target.removeprefix(NETWORK)) for target in targets if target.startswith(NETWORK)]
    use_networks(Path(workspace.settings.cache), own)
    for cell in {(c.dataset, c.model): c for c in cells}.values():
        untrained_ann(workspace, cell)
    attacks = [cell for cell in cells if isinstance(cell, AttackCell)]
    for source, dataset in dict.fromkeys((cell.public, cell.dataset) for cell in attacks if cell.public):
        workspace.public(source, dataset)
    check_weights(workspace, cells)


def check_weights(workspace: Workspace, cells: Sequence[Cell]) -> None:
    """Raises UsageError where a file of weights that the cells need is a wrong one. Data sets are loaded where they are
    needed for that."""
    for cell in {(c.dataset, c.model): c for c in cells}.values():
        if cell.checkpoint is not None:
            load_checkpoint(Path(cell.checkpoint), untrained_ann(workspace, cell))
    attacks = [cell for cell in cells if isinstance(cell, AttackCell)]
    for kind in dict.fromkeys(cell.leakage for cell in attacks):
        leakage_kind(kind).check(workspace, dict.fromkeys(cell.dataset for cell in attacks if cell.leakage == kind))


def _compute(executor: Executor, cells: Sequence[Cell], done: dict[int, Done], reporter: Reporter) -> None:
    """All cells, each as soon as what it builds on is there; of those that can begin, the first in the plan does.

    What can't be built fails the cells that need it, with the same reason and without trying again.
    """
    jobs = jobs_of(cells)
    reporter.plan(jobs)
    first = len(jobs) - len(cells)
    graph = TopologicalSorter({number: job.after for number, job in enumerate(jobs)})
    graph.prepare()
    failed: dict[int, Result] = {}
    ready: list[int] = []

    def end(number: int, result: Result) -> None:
        if result.status != "ok":
            failed[number] = result
        if number >= first:
            done[number - first] = Done(cells[number - first], result)
        reporter.ended(number, result)
        graph.done(number)

    running = 0
    while graph.is_active():
        for number in graph.get_ready():
            broken = next((failed[needed] for needed in jobs[number].needs if needed in failed), None)
            if broken is None:
                heappush(ready, number)
            else:
                end(number, replace(broken, outcome=CellOutcome(), warnings=(), seconds=0.0))
        while ready and executor.free:
            number = heappop(ready)
            reporter.started(number)
            executor.start(number, jobs[number].task, jobs[number].cell)
            running += 1
        if running:
            end(*executor.wait())
            running -= 1
