"""A run from its grid to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leakbench.bench import runner
from leakbench.bench.departures import departures
from leakbench.bench.grid import GridConfig, grid_digest, make_config
from leakbench.bench.protocols import protocol_named
from leakbench.bench.run_folder import records_in
from leakbench.cells import Cell
from leakbench.paths import default_cache
from leakbench.records import RunRecord
from leakbench.reports import write_report
from leakbench.runtime.process import check_device, fixed_threads, tune_process
from leakbench.runtime.workspace import Settings


def grid_of(options: Mapping[str, Any], protocol: str | None = None) -> tuple[GridConfig, list[str]]:
    """The grid of ``options``, the others as the ``protocol`` of that name has them, and what drops its name.

    Raises UsageError for wrong options, UnknownName for a protocol that there is not.
    """
    followed = protocol_named(protocol) if protocol else None
    if followed is None:
        return make_config(options), []
    grid = make_config({**followed.options, **options})
    lost = f"the numbers will not bear the name of {followed.name}"
    return grid, [f"{lost}: {departure}" for departure in departures(followed, grid, {})]


def default_folder(grid: GridConfig) -> Path:
    """Where a run goes for which no folder is named: runs/DATASET-DEFENSES-HASH."""
    protecting = (grid.suite,) if grid.suite else (Path(name).name.partition(":")[0] for name in grid.defense)
    name = "-".join([Path(grid.dataset[0]).name.replace(":", "-"), *protecting])
    return Path("runs") / f"{name[:60]}-{grid_digest(grid)}"


def settings_of(
    cache: Path | None, data: Path | None, inception: Path | None, features: Path | None, device: str
) -> Settings:
    """Where a run computes and keeps things; None is the default. UsageError for a device that is not there.

    Sets this process up as one that computes (:func:`tune_process`).
    """
    tune_process()
    return Settings(
        cache=str(cache or default_cache()),
        data=None if data is None else str(data),
        device=check_device(device),
        inception=None if inception is None else str(inception),
        features=None if features is None else str(features),
    )


def run(
    grid: GridConfig,
    cells: Sequence[Cell],
    settings: Settings,
    folder: Path,
    jobs: int | None,
    command: str,
    reporter: runner.Reporter,
) -> RunRecord:
    """Compute the cells of a grid on one thread a process, and write record, pictures, report and tables into
    ``folder``.

    An interrupt (KeyboardInterrupt) writes what is there and is raised again. ``command`` stands in the record as what
    started the run.
    """
    with fixed_threads(1):
        try:
            record = runner.run_grid(grid, settings, folder, jobs, command, reporter, cells)
        except KeyboardInterrupt:
            if written := records_in(folder):
                write_report(folder, written[0])
            raise
        write_report(folder, records_in(folder)[0])
    return record
